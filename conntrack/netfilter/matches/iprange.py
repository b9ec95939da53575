"""-m iprange: addresses within a range, ends included.

Sources: libxt_iprange.c of iptables 1.8.9; xt_iprange.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import ntop, numeric
from ..skb import Skb

Range = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Iprange:
    """(least, greatest) source and destination address, None for no condition"""

    source: Range | None = None
    destination: Range | None = None
    not_source: bool = False
    not_destination: bool = False

    @property
    def name(self) -> str:
        """-m iprange"""
        return "iprange"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Are the addresses within?"""
        addresses = skb.packet.addresses()
        half = len(addresses) // 2
        for address, bounds, inverted in (
            (addresses[:half], self.source, self.not_source),
            (addresses[half:], self.destination, self.not_destination),
        ):
            if bounds is not None and (bounds[0] <= address <= bounds[1]) == inverted:
                return False
        return True

    def text(self) -> str:
        """The options."""
        return " ".join(
            f"{'! ' * inverted}--{option} {ntop(bounds[0])}-{ntop(bounds[1])}"
            for option, bounds, inverted in (
                ("src-range", self.source, self.not_source),
                ("dst-range", self.destination, self.not_destination),
            )
            if bounds is not None
        )


def _parse(argument: Argument) -> Range:
    first, dash, last = argument.text.partition("-")
    ends = []
    for text in (first, last if dash else first):
        address = numeric(text, argument.family)
        if address is None:
            raise Refused(f'Bad value for "--{argument.option}" option: "{text}"')
        ends.append(address)
    return ends[0], ends[1]


def _build(given: Given) -> Iprange:
    refuse_unless(given, "You must specify `--src-range' or `--dst-range'")
    return Iprange(
        given.get("src-range"),
        given.get("dst-range"),
        given.inverted("src-range"),
        given.inverted("dst-range"),
    )


EXTENSION = Extension(
    MATCH,
    "iprange",
    _build,
    (Option("src-range", _parse, invert=True), Option("dst-range", _parse, invert=True)),
)
