"""Octets of packets that the box makes itself: IP headers, ICMP messages, TCP resets.

One rule: fields in, octets out; who is answered, and whether at all, is `own`'s affair.

Sources: RFC 791, RFC 792, RFC 8200, RFC 4443, RFC 9293 3.5.2.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from ..wire.checksum import fold, internet_checksum, ones_sum, pseudo_sum

ICMP, TCP, UDP, ICMPV6, UDPLITE = 1, 6, 17, 58, 136

_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_ICMP: Final = Struct("!BBHI")
_TCP: Final = Struct("!HHIIBBHHH")
_DF: Final = 0x4000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


def ipv4(
    source: bytes,
    destination: bytes,
    proto: int,
    payload: bytes,
    *,
    tos: int,
    ident: int,
    ttl: int,
    df: bool = False,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet; `options` padded to a multiple of four."""
    words = 5 + len(options) // 4
    length = words * 4 + len(payload)
    flags = _DF if df else 0
    header = (
        _IPV4.pack(0x40 | words, tos, length & 0xFFFF, ident, flags, ttl, proto, 0, source, destination) + options
    )
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(
    source: bytes, destination: bytes, proto: int, payload: bytes, *, tclass: int, label: int, hops: int
) -> bytes:
    """An IPv6 packet."""
    first = 6 << 28 | tclass << 20 | label
    return _IPV6.pack(first, len(payload) & 0xFFFF, proto, hops, source, destination) + payload


def icmp(kind: int, code: int, info: int, body: bytes) -> bytes:
    """An ICMP message; `info` is the 32-bit word behind the checksum."""
    message = _ICMP.pack(kind, code, 0, info) + body
    return message[:2] + internet_checksum(message).to_bytes(2, "big") + message[4:]


def icmpv6(source: bytes, destination: bytes, kind: int, code: int, info: int, body: bytes) -> bytes:
    """An ICMPv6 message."""
    message = _ICMP.pack(kind, code, 0, info) + body
    return message[:2] + _sum(source + destination, ICMPV6, message).to_bytes(2, "big") + message[4:]


def reset(segment: bytes, length: int, addresses: bytes) -> bytes:
    """The RST that answers a TCP segment of `length` octets; `addresses`: the answer's source and destination.

    With an ACK the RST has its number as sequence number, without one it acknowledges all of the segment.
    """
    flags = segment[13]
    if flags & _ACK:
        number, ack, out = int.from_bytes(segment[8:12], "big"), 0, _RST
    else:
        taken = length - (segment[12] >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        number, ack, out = 0, (int.from_bytes(segment[4:8], "big") + taken) & 0xFFFFFFFF, _RST | _ACK
    source, destination = int.from_bytes(segment[2:4], "big"), int.from_bytes(segment[:2], "big")
    answer = _TCP.pack(source, destination, number, ack, 0x50, out, 0, 0, 0)
    return answer[:16] + _sum(addresses, TCP, answer).to_bytes(2, "big") + answer[18:]


def unfinished_tcp(octets: bytes, summed: bytes = b"") -> bytes:
    """A TCP packet with only the pseudo-header's sum (of the addresses `summed`: its own), left to the card."""
    at, addresses = _segment(octets)
    total = fold(pseudo_sum(summed or addresses, TCP, len(octets) - at))
    return octets[: at + 16] + total.to_bytes(2, "big") + octets[at + 18 :]


def finished_tcp(octets: bytes) -> bytes:
    """The same with its checksum: what a device without a card makes of what stands there [skb_checksum_help]."""
    at, _ = _segment(octets)
    total = fold(ones_sum(octets[at:])) ^ 0xFFFF or 0xFFFF  # a zero is never written
    return octets[: at + 16] + total.to_bytes(2, "big") + octets[at + 18 :]


def _segment(octets: bytes) -> tuple[int, bytes]:
    """Where the TCP header of an own packet begins, and the addresses; IPv6 without extension headers."""
    return (40, octets[8:40]) if octets[0] >> 4 == 6 else ((octets[0] & 15) * 4, octets[12:20])


def _sum(addresses: bytes, proto: int, message: bytes) -> int:
    """The checksum over pseudo-header and message."""
    return fold(ones_sum(message) + pseudo_sum(addresses, proto, len(message))) ^ 0xFFFF
