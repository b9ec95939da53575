"""Sizes: may a packet go through a device of this MTU, and if not, is it refused or cut.

One rule: what came in as fragments may leave as fragments of the sizes received, don't-fragment or not.

Sources: ip_forward.c (ip_exceeds_mtu), ip_output.c (ip_fragment), ip6_output.c (ip6_pkt_too_big, ip6_fragment).
"""

from __future__ import annotations

from ..wire.packet import Packet
from ..wire.refragment import Pieces


def _largest(packet: Packet) -> int:
    """The largest fragment of a reassembled packet, 0 for others."""
    return packet.pieces.largest if isinstance(packet.pieces, Pieces) else 0


def too_big4(packet: Packet, mtu: int) -> bool:
    """Must it be refused before FORWARD [ip_exceeds_mtu]?"""
    if packet.length <= mtu or not _df(packet):
        return False
    return _largest(packet) > mtu or packet.pieces is None


def _df(packet: Packet) -> bool:
    return bool(packet.data[6] & 0x40)


def too_big6(packet: Packet, mtu: int) -> bool:
    """Must it be refused before FORWARD [ip6_pkt_too_big]?"""
    if packet.length <= mtu:
        return False
    return _largest(packet) > mtu or packet.pieces is None


def uncuttable(packet: Packet, mtu: int) -> bool:
    """On its way out: too large, and not to be cut [ip_fragment, ip6_fragment]?"""
    largest = _largest(packet)
    if packet.family == 4:
        if packet.length <= mtu and not largest:
            return False
        return _df(packet) and (packet.pieces is None or largest > mtu)
    if packet.length <= mtu and not (largest and packet.length > largest):
        return False
    return packet.pieces is None or largest > mtu
