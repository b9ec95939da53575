"""-m mark: the packet mark under a mask.

The value is compared as it was given: `--mark 0x10/0x0f` never matches.

Source: add_nft_mark (nft.c) of iptables 1.8.9: a meta expression, an `and`, a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import Box
from ..rules.extension import MATCH, Argument, Extension, Given, Option
from ..rules.text import mark_and_mask
from ..skb import Skb

ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Mark:
    """value, mask"""

    value: int
    mask: int = ALL_ONES
    invert: bool = False

    @property
    def name(self) -> str:
        """-m mark"""
        return "mark"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """(mark & mask) = value?"""
        return (skb.mark & self.mask == self.value) != self.invert

    def text(self) -> str:
        """The options."""
        return f"{'! ' * self.invert}--mark {mark_text(self.value, self.mask)}"


def mark_text(value: int, mask: int) -> str:
    """As matches print a mark: hex, the mask left out if it is all ones."""
    return f"{value:#x}" if mask == ALL_ONES else f"{value:#x}/{mask:#x}"


def parse_mark(argument: Argument) -> tuple[int, int]:
    """value[/mask]"""
    return mark_and_mask(argument.text, argument.option)


def _build(given: Given) -> Mark:
    value, mask = given.get("mark")
    return Mark(value, mask, given.inverted("mark"))


EXTENSION = Extension(MATCH, "mark", _build, (Option("mark", parse_mark, invert=True, required=True),))
