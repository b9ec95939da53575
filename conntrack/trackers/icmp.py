"""ICMP: queries and their answers are connections; errors belong to the connection they quote.

A query's tuple is its identifier, type and code, and the answer's is the same with the answer's type, so any
number of queries with one identifier is one connection, renewed for 30 s by every packet, never ASSURED.

Errors (3, 4, 5, 11, 12) never make a connection.  `quote_offset` says where the packet they quote starts; the
engine looks its inverse up and attaches what it finds as RELATED.

Sources: nf_conntrack_proto_icmp.c (nf_conntrack_icmpv4_error, nf_conntrack_icmp_packet); RFC 792.
"""

from __future__ import annotations

from typing import Final

from .. import reasons
from ..sysctl import Settings
from ..wire.checksum import BAD as BAD_SUM
from ..wire.packet import Packet, examine
from . import OK, Memory, Step, Tracker

ERRORS: Final = frozenset((3, 4, 5, 11, 12))  # unreachable, source quench, redirect, time exceeded, parameter
_QUERIES: Final = frozenset((8, 13, 15, 17))  # echo, timestamp, information, address mask: these may begin
_HIGHEST_TYPE: Final = 18
QUOTE_AT: Final = 8  # where an error's quoted packet starts


def check(packet: Packet, verify: bool, settings: Settings) -> str:
    """Length, checksum and type; failures count as `error`, not as `invalid`."""
    if packet.lacks(8):
        return packet.shortage(8, reasons.ICMP_SHORT)
    if verify and examine(packet, 0, 2) == BAD_SUM:
        return reasons.ICMP_CHECKSUM
    kind = packet.data[packet.l4]
    if kind > _HIGHEST_TYPE:
        packet.numbers = (kind,)
        return reasons.ICMP_TYPE
    return ""


def quote_offset(packet: Packet) -> tuple[int, str]:
    """(where the quoted packet starts, ""); (0, "") if this message is no error."""
    return (packet.l4 + QUOTE_AT if packet.data[packet.l4] in ERRORS else 0), ""


def begin(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """Only a query starts a connection."""
    kind = packet.data[packet.l4]
    if kind in _QUERIES:
        return "", None
    packet.numbers = (kind,)
    return reasons.ICMP_NOT_NEW, None


def track(
    memory: Memory,
    state: int,
    status: int,
    direction: int,
    packet: Packet,
    now: int,
    deadline: int,
    timeouts: tuple[int, ...],
    settings: Settings,
) -> Step:
    """A query or an answer."""
    return OK, 0, timeouts[0], 0, 0, "", None


TRACKER: Final[Tracker] = Tracker("icmp", check, begin, track, allow_clash=False)
