"""-m multiport: a list of ports and ranges, for the source, the destination, or either.

Up to 15 places, of which a range takes two.  A packet too short for its ports is dropped.

Sources: libxt_multiport.c of iptables 1.8.9; xt_multiport.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, SCTP, TCP, UDP, UDPLITE
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import port
from ..rules.transport import transport
from ..skb import Skb

_PLACES = 15  # XT_MULTI_PORTS
_DCCP = 33
_NAMES = {TCP: "tcp", UDP: "udp", UDPLITE: "udplite", SCTP: "sctp", _DCCP: "dccp"}
_ONLY = "multiport only works with TCP, UDP, UDPLITE, SCTP and DCCP"


@dataclass(frozen=True, slots=True)
class Multiport:
    """which: "sports", "dports" or "ports" (either); ranges (least, greatest) in the order given"""

    which: str
    ranges: tuple[tuple[int, int], ...]
    invert: bool = False

    @property
    def name(self) -> str:
        """-m multiport"""
        return "multiport"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Is a port in the list?"""
        head = transport(skb.packet)
        if head is None or head.fragment:
            return False
        data, at = skb.packet.data, head.at
        if at + 4 > skb.packet.end:
            skb.packet.verdict = DROP
            return False
        ports = []
        if self.which != "dports":
            ports.append(data[at] << 8 | data[at + 1])
        if self.which != "sports":
            ports.append(data[at + 2] << 8 | data[at + 3])
        return any(low <= one <= high for low, high in self.ranges for one in ports) != self.invert

    def text(self) -> str:
        """The options."""
        listed = ",".join(str(low) if low == high else f"{low}:{high}" for low, high in self.ranges)
        return f"{'! ' * self.invert}--{self.which} {listed}"


def _parse(argument: Argument) -> tuple[tuple[int, int], ...]:
    name = _NAMES.get(argument.proto)
    if argument.not_proto or (name is None and argument.proto):
        raise Refused(_ONLY)
    if name is None:
        raise Refused("multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'")
    ranges = []
    places = 0
    for part in argument.text.split(","):
        low, colon, high = part.partition(":")
        places += 2 if colon else 1
        if places > _PLACES:
            raise Refused("too many ports specified")
        first = port(low, name)
        last = port(high, name) if colon else first
        if colon and first >= last:
            raise Refused("invalid portrange specified")
        ranges.append((first, last))
    return tuple(ranges)


_KEYS = ("sports", "dports", "ports")


def _build(given: Given) -> Multiport:
    refuse_unless(given, "multiport expection an option")
    key = given.order[0]
    refuse_unless(given.proto in _NAMES and not given.not_proto, _ONLY)
    return Multiport(key, given.get(key), given.inverted(key))


EXTENSION = Extension(
    MATCH,
    "multiport",
    _build,
    (
        Option("source-ports", _parse, "sports", invert=True, excludes=_KEYS),
        Option("sports", _parse, invert=True, excludes=_KEYS),
        Option("destination-ports", _parse, "dports", invert=True, excludes=_KEYS),
        Option("dports", _parse, invert=True, excludes=_KEYS),
        Option("ports", _parse, invert=True, excludes=_KEYS),
    ),
)
