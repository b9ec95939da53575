"""-j MARK: changes the packet mark.  All five options become (mark & ~mask) ^ value.

Sources: libxt_MARK.c of iptables 1.8.9; xt_mark.c (mark_tg).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..box import CONTINUE, Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import mark_and_mask, number
from ..skb import Skb

ALL_ONES = 0xFFFFFFFF
XMARK_OPTIONS = ("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark")


@dataclass(frozen=True, slots=True)
class Mark:
    """value, mask"""

    value: int
    mask: int

    @property
    def name(self) -> str:
        """-j MARK"""
        return "MARK"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Change the mark."""
        skb.mark = (skb.mark & ~self.mask) ^ self.value
        return CONTINUE

    def text(self) -> str:
        """The options."""
        return f"--set-xmark {self.value:#x}/{self.mask:#x}"


def _parse_number(argument: Argument) -> int:
    value = number(argument.text)
    if value is None:
        raise Refused(f'bad value for option "--{argument.option}", or out of range (0-4294967295)')
    return value


def _parse_set(argument: Argument) -> tuple[int, int]:
    value, mask = mark_and_mask(argument.text, argument.option)
    return (value, mask) if argument.option == "set-xmark" else (value, value | mask)


def _parse_and(argument: Argument) -> tuple[int, int]:
    return 0, ~_parse_number(argument) & ALL_ONES


def _parse_or(argument: Argument) -> tuple[int, int]:
    value = _parse_number(argument)
    return value, value


def _parse_xor(argument: Argument) -> tuple[int, int]:
    return _parse_number(argument), 0


_PARSERS: tuple[Callable[[Argument], tuple[int, int]], ...] = (
    _parse_set,
    _parse_set,
    _parse_and,
    _parse_or,
    _parse_xor,
)


def xmark_options(excludes: tuple[str, ...] = XMARK_OPTIONS) -> tuple[Option, ...]:
    """The five options; each gives (value, mask) and excludes the others."""
    return tuple(
        Option(name, parse, excludes=excludes) for name, parse in zip(XMARK_OPTIONS, _PARSERS, strict=True)
    )


def _build(given: Given) -> Mark:
    refuse_unless(given, "One of the --set-xmark, --{and,or,xor,set}-mark options is required")
    return Mark(*given.get(given.order[0]))


EXTENSION = Extension(TARGET, "MARK", _build, xmark_options())
