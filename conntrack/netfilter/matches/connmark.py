"""-m connmark: the connection's mark under a mask.  Without a connection false, inverted or not.

Source: xt_connmark.c (connmark_mt).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import Box
from ..rules import attached
from ..rules.extension import MATCH, Extension, Given, Option, always
from ..skb import Skb
from .mark import ALL_ONES, mark_text, parse_mark


@dataclass(frozen=True, slots=True)
class Connmark:
    """value, mask"""

    value: int
    mask: int = ALL_ONES
    invert: bool = False

    @property
    def name(self) -> str:
        """-m connmark"""
        return "connmark"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """(connection's mark & mask) = value?"""
        found = attached.mark(skb)
        return found is not None and (found & self.mask == self.value) != self.invert

    def text(self) -> str:
        """The options."""
        return f"{'! ' * self.invert}--mark {mark_text(self.value, self.mask)}"


def _build(given: Given) -> Connmark:
    value, mask = given.get("mark")
    return Connmark(value, mask, given.inverted("mark"))


EXTENSION = Extension(
    MATCH, "connmark", _build, (Option("mark", parse_mark, invert=True, required=True),), tracks=always
)
