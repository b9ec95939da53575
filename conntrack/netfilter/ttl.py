"""The hop that a router takes: time to live (IPv4) and hop limit (IPv6), with the header checksum kept right.

Sources: ip.h (ip_decrease_ttl), RFC 1141.
"""

from __future__ import annotations

from ..wire.checksum import update
from ..wire.packet import Packet


def hop_limit(packet: Packet) -> int:
    """Hops that are left."""
    return packet.data[8 if packet.family == 4 else 7]


def set_hop_limit(packet: Packet, value: int) -> None:
    """Give the packet `value` hops; an IPv4 header checksum changes by the difference.

    The octets become the packet's own without a word: `Packet.owned` tells whether *translation* changed it.
    """
    if value == hop_limit(packet):
        return
    data = packet.data
    if not packet.owned or not isinstance(data, bytearray):
        data = packet.data = bytearray(data)
    if packet.family == 6:
        data[7] = value
    else:
        checksum = update(data[10] << 8 | data[11], (value - data[8]) * 256 % 0xFFFF)
        data[8] = value
        data[10], data[11] = checksum >> 8, checksum & 0xFF


def lower_hop_limit(packet: Packet) -> None:
    """One hop less; the caller has seen to it that some are left."""
    set_hop_limit(packet, hop_limit(packet) - 1)
