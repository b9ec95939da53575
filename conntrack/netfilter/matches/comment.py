"""-m comment: true, and says why the rule is there.

Source: xt_comment.c; the kernel keeps 255 octets (XT_MAX_COMMENT_LEN).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import Box
from ..rules.extension import MATCH, Argument, Extension, Given, Option
from ..rules.words import cut, quote
from ..skb import Skb

_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Comment:
    """comment"""

    comment: str

    @property
    def name(self) -> str:
        """-m comment"""
        return "comment"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Always."""
        return True

    def text(self) -> str:
        """The options."""
        return f"--comment {quote(self.comment)}"


def _parse(argument: Argument) -> str:
    return cut(argument.text, _LONGEST)


def _build(given: Given) -> Comment:
    return Comment(given.get("comment"))


EXTENSION = Extension(MATCH, "comment", _build, (Option("comment", _parse, required=True),))
