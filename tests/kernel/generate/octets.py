"""Packets from fields, quickly: headers with right lengths and sums unless one is asked to lie.

One rule: nothing here comes from the package under test.  Addresses are text.

    packet(src, dst, UDP, seal(src, dst, UDP, udp(1, 2, b"x")))

Sources: RFC 791, 8200, 9293, 768, 3828, 9260, 2784, 2637, 792, 4443; the sum modulo 65,535 is RFC 1071's.
"""

from __future__ import annotations

import functools
import ipaddress
import struct

ICMP, TCP, UDP, GRE, ESP, AH, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 47, 50, 51, 58, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION = 0, 43, 44, 59, 60
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
_SUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2, UDPLITE: 6}


@functools.lru_cache(4096)
def packed(address: str) -> bytes:
    """The octets of an address."""
    return ipaddress.ip_address(address).packed


@functools.lru_cache(4096)
def text(octets: bytes) -> str:
    """The address of some octets."""
    return str(ipaddress.ip_address(octets))


def internet_sum(data: bytes) -> int:
    """RFC 1071's checksum."""
    if len(data) & 1:
        data += b"\0"
    total = int.from_bytes(data, "big")
    return (total % 0xFFFF or (0xFFFF if total else 0)) ^ 0xFFFF


def _crc_table() -> list[int]:
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
        table.append(octet)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """SCTP's checksum."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = _CRC[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def seal(src: str, dst: str, proto: int, l4: bytes, said: int | None = None) -> bytes:
    """`l4` with its right checksum.  UDP-Lite's is made with protocol 17 in the pseudo-header, which is the only
    one that Linux takes; `said` is its coverage."""
    if proto == SCTP:
        if len(l4) < 12:
            return l4
        return l4[:8] + crc32c(l4[:8] + bytes(4) + l4[12:]).to_bytes(4, "little") + l4[12:]
    at = _SUM_AT.get(proto)
    if at is None or len(l4) < at + 2:
        return l4
    zeroed = l4[:at] + b"\0\0" + l4[at + 2 :]
    covered = zeroed[:said] if said else zeroed
    number = UDP if proto == UDPLITE else proto
    a, b = packed(src), packed(dst)
    pseudo = b"" if proto == ICMP else a + b + struct.pack("!IHBB", len(l4), 0, 0, number)
    value = internet_sum(pseudo + covered)
    if value == 0 and proto in (UDP, UDPLITE):
        value = 0xFFFF
    return l4[:at] + value.to_bytes(2, "big") + l4[at + 2 :]


def ipv4(
    src: str,
    dst: str,
    proto: int,
    payload: bytes,
    *,
    ttl: int = 64,
    ident: int = 1,
    fragment: int = 0,
    tos: int = 0,
    options: bytes = b"",
    length: int | None = None,
) -> bytes:
    """An IPv4 packet; `fragment` is the flags-and-offset word."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", 0x40 | words, tos, total & 0xFFFF, ident, fragment, ttl, proto, 0)
    head += packed(src) + packed(dst) + options
    return head[:10] + internet_sum(head).to_bytes(2, "big") + head[12:] + payload


def ipv6(
    src: str,
    dst: str,
    proto: int,
    payload: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    label: int = 0,
    length: int | None = None,
) -> bytes:
    """An IPv6 packet; `proto` is the first next header."""
    first = 6 << 28 | tos << 20 | label
    head = struct.pack("!IHBB", first, len(payload) if length is None else length, proto, ttl)
    return head + packed(src) + packed(dst) + payload


def tcp(
    sport: int, dport: int, flags: int, seq: int, ack: int, win: int, payload: bytes = b"", options: bytes = b""
) -> bytes:
    """A segment, checksum left zero."""
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    seq, ack = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
    return struct.pack("!HHIIBBHHH", sport, dport, seq, ack, words << 4, flags, win, 0, 0) + options + payload


def udp(sport: int, dport: int, payload: bytes = b"", said: int | None = None) -> bytes:
    """A datagram, checksum left zero."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload) if said is None else said, 0) + payload


def icmp(kind: int, code: int, rest: bytes, payload: bytes = b"") -> bytes:
    """An ICMP or ICMPv6 message; `rest` are octets 4 to 7."""
    return bytes((kind, code, 0, 0)) + rest + payload


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """An SCTP chunk, padded."""
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────


def family(packet: bytes) -> int:
    """4 or 6."""
    return 6 if packet[0] >> 4 == 6 else 4


def ends(packet: bytes) -> tuple[str, str]:
    """Source and destination."""
    if packet[0] >> 4 == 6:
        return text(packet[8:24]), text(packet[24:40])
    return text(packet[12:16]), text(packet[16:20])


def transport(packet: bytes) -> tuple[int, bytes]:
    """Protocol and everything behind the network header; IPv6 extension headers are walked over."""
    if packet[0] >> 4 == 4:
        return packet[9], packet[(packet[0] & 15) * 4 :]
    proto, at = packet[6], 40
    while proto in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT) and at + 8 <= len(packet):
        size = 8 if proto == FRAGMENT else (packet[at + 1] + 1) * 8
        proto, at = packet[at], at + size
    return proto, packet[at:]


def fragment_id(packet: bytes) -> int | None:
    """The identification of an IPv6 fragment."""
    proto, at = packet[6], 40
    while proto in (HOP_BY_HOP, ROUTING, DESTINATION) and at + 8 <= len(packet):
        proto, at = packet[at], at + (packet[at + 1] + 1) * 8
    return int.from_bytes(packet[at + 4 : at + 8], "big") if proto == FRAGMENT and at + 8 <= len(packet) else None


def is_fragment(packet: bytes) -> bool:
    """Is it a piece of something?"""
    if packet[0] >> 4 == 4:
        return bool(int.from_bytes(packet[6:8], "big") & 0x3FFF)
    return packet[6] == FRAGMENT
