"""Mangling: other octets in the payload, more or fewer than there were, and headers that fit again.

One rule: unlike an address rewrite this sums anew.  The kernel leaves the transport checksum to the device then, so
whatever it was before, it is right afterwards (a UDP checksum of 0 stays 0: there was none).

A packet that came in fragments is in one piece from then on, whether or not its length changed, and is cut
without regard to how it came.

Source: nf_nat_helper.c (__nf_nat_mangle_tcp_packet, nf_nat_mangle_udp_packet) of Linux 6.18.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from ..verdict import TCP, UDP
from ..wire.checksum import fold, internet_checksum, ones_sum, pseudo_sum
from ..wire.packet import Packet
from ..wire.refragment import Pieces
from .rewrite import writable

_U16: Final = Struct("!H")
_LONGEST: Final = 65535  # octets that an IP packet can have
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6}


def payload_at(packet: Packet) -> int:
    """Where the payload of a TCP or UDP packet begins."""
    l4 = packet.l4
    return l4 + ((packet.data[l4 + 12] >> 4) * 4 if packet.proto == TCP else 8)


def mangle(packet: Packet, at: int, length: int, text: bytes) -> bool:
    """Replace `length` octets at `at` of the payload of a whole TCP or UDP packet; False: it would not fit."""
    grows = len(text) - length
    if packet.length + grows > _LONGEST:
        return False
    data = writable(packet)
    start = payload_at(packet) + at
    data[start : start + length] = text
    packet.length += grows
    packet.end += grows
    packet.grown += grows
    l4 = packet.l4
    if packet.family == 4:
        _U16.pack_into(data, 2, packet.length)
        _U16.pack_into(data, 10, 0)
        _U16.pack_into(data, 10, internet_checksum(data[: (data[0] & 15) * 4]))
    else:
        _U16.pack_into(data, 4, packet.length - 40)
    join(packet)
    if packet.proto == UDP:
        _U16.pack_into(data, l4 + 4, packet.length - l4)
        if not (data[l4 + 6] or data[l4 + 7]):
            return True
    sum_anew(packet)
    return True


def sum_anew(packet: Packet) -> None:
    """The transport checksum, computed over all; 0 is written as 0xFFFF for TCP too [skb_checksum_help]."""
    data, l4 = packet.data, packet.l4
    assert isinstance(data, bytearray)
    at = l4 + _CHECKSUM_AT[packet.proto]
    _U16.pack_into(data, at, 0)
    total = ones_sum(data[l4:]) + pseudo_sum(packet.addresses(), packet.proto, packet.length - l4)
    _U16.pack_into(data, at, (fold(total) ^ 0xFFFF) or 0xFFFF)


def join(packet: Packet) -> None:
    """A packet that came in fragments is contiguous from now on [skb_linearize]."""
    plan = packet.pieces
    if isinstance(plan, Pieces):
        packet.pieces = plan._replace(sizes=(packet.length - plan.header,))
