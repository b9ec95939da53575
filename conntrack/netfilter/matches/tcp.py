"""-m tcp: ports, flags, options.

Ports and flags are nf_tables' comparisons of octets, false of what cannot be read.  With --tcp-option, and without
any condition, it is xtables' own match: that asks for a whole header and drops packets that have none, fragments
that begin in the middle of one, and options that run out of the packet.

Sources: libxt_tcp.c, add_nft_tcp (nft.c) of iptables 1.8.9; xt_tcpudp.c (tcp_mt, tcp_find_option).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, TCP
from ...wire.packet import Packet
from ...wire.tcp import ACK, FIN, PSH, RST, SYN, URG
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import number, port_range
from ..rules.transport import octets, transport
from ..skb import Skb
from .ports import ANY, NO_PORTS, Ports, hold_plainly

_HEADER = 20  # octets without options
_FLAGS_AT = 13
_FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK, "URG": URG}
_WORDS = {**_FLAGS, "ALL": 0x3F, "NONE": 0}
_HAS_SYN = (FIN | SYN | RST | ACK, SYN)  # --syn


@dataclass(frozen=True, slots=True)
class Tcp:
    """ports; flags as (mask, what they must be under it); option: kind of an option, 0 for none asked"""

    ports: Ports = NO_PORTS
    flags: tuple[int, int] = (0, 0)
    option: int = 0
    not_flags: bool = False
    not_option: bool = False

    @property
    def name(self) -> str:
        """-m tcp"""
        return "tcp"

    @property
    def plain(self) -> bool:
        """Comparisons of nf_tables suffice."""
        return not self.option and self != Tcp()

    def melt(self, earlier: Tcp | None) -> Tcp | None:
        """What is printed of it (see `rule.Melting`)."""
        before = earlier or Tcp()
        ports = self.ports.read_back(before.ports)
        flags, inverted = (self.flags, self.not_flags) if self.flags[0] else (before.flags, False)
        melted = Tcp(ports, flags, 0, inverted or before.not_flags)
        return melted if melted != Tcp() else None

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Do ports, flags and options fit?"""
        packet = skb.packet
        if not self.plain:
            return self._xtables(packet)
        if self.flags[0]:
            flags = octets(packet, _FLAGS_AT, 1)
            if flags is None or (flags[0] & self.flags[0] == self.flags[1]) == self.not_flags:
                return False
        return self.ports.hold(packet)

    def _xtables(self, packet: Packet) -> bool:
        head = transport(packet)
        if head is None:
            return False
        if head.fragment:
            if head.fragment == 1:  # eight octets in: nobody sends that without an ill intent
                packet.verdict = DROP
            return False
        data, at = packet.data, head.at
        if at + _HEADER > packet.end:
            packet.verdict = DROP
            return False
        if not hold_plainly(self.ports, data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3]):
            return False
        if (data[at + _FLAGS_AT] & self.flags[0] == self.flags[1]) == self.not_flags:
            return False
        if not self.option:
            return True
        end = at + (data[at + 12] >> 4) * 4
        if end < at + _HEADER or end > packet.end:
            packet.verdict = DROP
            return False
        return self._has_option(data, at + _HEADER, end) != self.not_option

    def _has_option(self, data: bytes | bytearray, at: int, end: int) -> bool:
        while at < end:
            kind = data[at]
            if kind == self.option:
                return True
            at += 1 if kind < 2 or at + 1 >= end else data[at + 1] or 1
        return False

    def text(self) -> str:
        """The options."""
        words = self.ports.text()
        if self.option:
            words.append(f"{'! ' * self.not_option}--tcp-option {self.option}")
        if self.flags[0] or self.not_flags:
            mask, wanted = map(_flag_names, self.flags)
            words.append(f"{'! ' * self.not_flags}--tcp-flags {mask} {wanted}")
        return " ".join(words)


def _flag_names(flags: int) -> str:
    return ",".join(name for name, flag in _FLAGS.items() if flags & flag) or "NONE"


def _parse_ports(argument: Argument) -> tuple[int, int]:
    return port_range(argument.text, "tcp")


def _parse_flags(argument: Argument) -> tuple[int, int]:
    return _flag_bits(argument.text), _flag_bits(argument.second)


def _flag_bits(text: str) -> int:
    bits = 0
    for word in text.split(","):
        if word:  # strtok passes over empty ones
            if word.upper() not in _WORDS:
                raise Refused(f"Unknown TCP flag `{word}'")
            bits |= _WORDS[word.upper()]
    return bits


def _parse_option(argument: Argument) -> int:
    kind = number(argument.text, 1, 255)
    if kind is None:
        raise Refused(f'Bad TCP option "{argument.text}"')
    return kind


def _build(given: Given) -> Tcp:
    flags = given.get("tcp-flags", _HAS_SYN if "syn" in given else (0, 0))
    match = Tcp(
        Ports(given.get("sport", ANY), given.get("dport", ANY), given.inverted("sport"), given.inverted("dport")),
        flags,
        given.get("tcp-option", 0),
        given.inverted("tcp-flags") or given.inverted("syn"),
        given.inverted("tcp-option"),
    )
    if not match.plain:
        refuse_unless(given.proto == TCP and not given.not_proto, "needs -p tcp")
    refuse_unless(given.proto == TCP, "TCP match requires '-p tcp'")
    return match


EXTENSION = Extension(
    MATCH,
    "tcp",
    _build,
    (
        Option("source-port", _parse_ports, "sport", invert=True),
        Option("sport", _parse_ports, invert=True),
        Option("destination-port", _parse_ports, "dport", invert=True),
        Option("dport", _parse_ports, invert=True),
        Option("syn", invert=True, excludes=("tcp-flags",)),
        Option("tcp-flags", _parse_flags, words=2, invert=True, excludes=("syn",)),
        Option("tcp-option", _parse_option, invert=True),
    ),
)
