"""-m udp: source and destination port.

Without any condition it is xtables' own match, which asks for a whole header (and drops the packet that has none);
with ports it is nf_tables' comparison, which is false of what cannot be read.

Sources: libxt_udp.c, add_nft_udp (nft.c) of iptables 1.8.9; xt_tcpudp.c (udp_mt).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, UDP
from ..box import Box
from ..rules.extension import MATCH, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import getaddrinfo_ports
from ..rules.transport import transport
from ..skb import Skb
from .ports import ANY, NO_PORTS, Ports

_HEADER = 8  # octets


@dataclass(frozen=True, slots=True)
class Udp:
    """ports"""

    ports: Ports = NO_PORTS

    @property
    def name(self) -> str:
        """-m udp"""
        return "udp"

    @property
    def plain(self) -> bool:
        """Comparisons of nf_tables suffice."""
        return self.ports != NO_PORTS

    def melt(self, earlier: Udp | None) -> Udp | None:
        """What is printed of it (see `rule.Melting`)."""
        ports = self.ports.read_back(earlier.ports if earlier else None)
        return Udp(ports) if ports != NO_PORTS else None

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Do the ports fit?"""
        if self.plain:
            return self.ports.hold(skb.packet)
        head = transport(skb.packet)
        if head is None or head.fragment:
            return False
        if head.at + _HEADER > skb.packet.end:
            skb.packet.verdict = DROP
            return False
        return True

    def text(self) -> str:
        """The options."""
        return " ".join(self.ports.text())


def _parse(argument: Argument) -> tuple[int, int]:
    return getaddrinfo_ports(argument.text, argument.option)


def _build(given: Given) -> Udp:
    ports = Ports(
        given.get("sport", ANY), given.get("dport", ANY), given.inverted("sport"), given.inverted("dport")
    )
    if ports == NO_PORTS:
        refuse_unless(given.proto == UDP and not given.not_proto, "needs -p udp")
    refuse_unless(given.proto == UDP, "UDP match requires '-p udp'")
    return Udp(ports)


EXTENSION = Extension(
    MATCH,
    "udp",
    _build,
    (
        Option("source-port", _parse, "sport", invert=True),
        Option("sport", _parse, invert=True),
        Option("destination-port", _parse, "dport", invert=True),
        Option("dport", _parse, invert=True),
    ),
)
