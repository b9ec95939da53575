"""A small packet builder: L3 octets with right lengths and right checksums, unless a test asks for wrong ones.

One rule: nothing here comes from the package under test.  The sums add 16-bit words one by one (RFC 1071) and
the CRC shifts bit by bit (RFC 9260 appendix A): slow, and obviously right.

    packet = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1234, 80, "S", seq=999))

Transport builders leave their checksum at zero; `ip` fills it in, because it covers the addresses.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

ICMP, TCP, UDP, GRE, ESP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 47, 50, 58, 132, 136
_CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2, UDPLITE: 6}
_FLAGS = "FSRPAUEC"  # FIN is bit 0, CWR bit 7


# ── sums ────────────────────────────────────────────────────────────────────────────────────────────


def word_sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words, carries folded back in."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """The Internet checksum of `data` (RFC 1071)."""
    return word_sum(data) ^ 0xFFFF


def crc32c(data: bytes) -> int:
    """CRC32c, bit by bit."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def pseudo_header(src: str, dst: str, proto: int, length: int) -> bytes:
    """What TCP, UDP and ICMPv6 sum beside their own octets (RFC 9293, RFC 8200)."""
    a, b = ip_address(src), ip_address(dst)
    if a.version == 4:
        return a.packed + b.packed + struct.pack("!BBH", 0, proto, length)
    return a.packed + b.packed + struct.pack("!IHBB", length, 0, 0, proto)


def transport_checksum(src: str, dst: str, proto: int, l4: bytes) -> int:
    """The checksum that belongs into `l4`, whatever stands there now (not for SCTP)."""
    at = _CHECKSUM_AT[proto]
    l4 = l4[:at] + b"\0\0" + l4[at + 2 :]
    covered, length = l4, len(l4)
    if proto == UDPLITE:
        covered = l4[: int.from_bytes(l4[4:6], "big") or length]
    pseudo = b"" if proto == ICMP else pseudo_header(src, dst, proto, length)
    value = checksum(pseudo + covered)
    return 0xFFFF if value == 0 and proto in (UDP, UDPLITE) else value


def sealed(src: str, dst: str, proto: int, l4: bytes) -> bytes:
    """`l4` with its right checksum; protocols without one, and headers too short for it, stay as they are."""
    if proto == SCTP and len(l4) >= 12:
        return l4[:8] + struct.pack("<I", crc32c(l4[:8] + bytes(4) + l4[12:])) + l4[12:]
    at = _CHECKSUM_AT.get(proto)
    if at is None or len(l4) < at + 2:
        return l4
    return l4[:at] + transport_checksum(src, dst, proto, l4).to_bytes(2, "big") + l4[at + 2 :]


# ── network headers ─────────────────────────────────────────────────────────────────────────────────


def ipv4(
    src: str,
    dst: str,
    proto: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    identification: int = 1,
    ttl: int = 64,
    length: int | None = None,
) -> bytes:
    """An IPv4 packet around finished `payload`; `fragment` is the whole flags-and-offset word."""
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if length is None else length
    addresses = ip_address(src).packed + ip_address(dst).packed
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, identification, fragment, ttl, proto, 0)
    header = head + addresses + options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(src: str, dst: str, proto: int, payload: bytes, *, hop_limit: int = 64, extra: bytes = b"") -> bytes:
    """An IPv6 packet around finished `payload`; `proto` is the first next header, `extra` goes before payload."""
    head = struct.pack("!IHBB", 6 << 28, len(extra) + len(payload), proto, hop_limit)
    return head + ip_address(src).packed + ip_address(dst).packed + extra + payload


def ip(src: str, dst: str, proto: int, l4: bytes, *, seal: bool = True, **more: int) -> bytes:
    """The packet of whichever family the addresses have, with the transport checksum filled in."""
    build = ipv6 if ":" in src else ipv4
    return build(src, dst, proto, sealed(src, dst, proto, l4) if seal else l4, **more)  # type: ignore[arg-type]


# ── transport headers, checksums left to `ip` ───────────────────────────────────────────────────────


def flag_bits(letters: str) -> int:
    """ "SA" -> 0x12; letters F S R P A U E C in any order."""
    return sum(1 << _FLAGS.index(letter) for letter in letters)


def tcp(
    sport: int,
    dport: int,
    flags: str | int = "S",
    seq: int = 0,
    ack: int = 0,
    win: int = 8192,
    payload: bytes = b"",
    options: bytes = b"",
) -> bytes:
    """A segment; `options` are padded to whole words with zeros (end of list)."""
    options += bytes(-len(options) % 4)
    bits = flags if isinstance(flags, int) else flag_bits(flags)
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) << 2, bits, win, 0, 0)
    return head + options + payload


def tcp_options(
    *, wscale: int | None = None, sackok: bool = False, sack: list[tuple[int, int]] | None = None, ts: bool = False
) -> bytes:
    """Window scale, SACK permitted, SACK blocks, timestamps: those that are asked for, each aligned with NOPs."""
    out = b""
    if wscale is not None:
        out += bytes((1, 3, 3, wscale))
    if sackok:
        out += bytes((1, 1, 4, 2))
    if ts:
        out += bytes((1, 1, 8, 10)) + struct.pack("!II", 1, 0)
    if sack:
        out += bytes((1, 1, 5, 2 + 8 * len(sack))) + b"".join(struct.pack("!II", *edges) for edges in sack)
    return out


def udp(sport: int, dport: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A datagram."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload


def udplite(sport: int, dport: int, payload: bytes = b"", *, coverage: int = 0) -> bytes:
    """A UDP-Lite datagram (RFC 3828); coverage 0 means all of it."""
    return struct.pack("!HHHH", sport, dport, coverage, 0) + payload


def icmp(kind: int, code: int = 0, identifier: int = 0, sequence: int = 0, payload: bytes = b"") -> bytes:
    """An ICMP or ICMPv6 message with identifier and sequence number."""
    return struct.pack("!BBHHH", kind, code, 0, identifier, sequence) + payload


def icmp_error(kind: int, code: int, quoted: bytes) -> bytes:
    """An ICMP or ICMPv6 error about the packet that starts with `quoted`."""
    return struct.pack("!BBHI", kind, code, 0, 0) + quoted


def chunk(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """One SCTP chunk, padded to a whole word."""
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + bytes(-len(body) % 4)


def sctp(sport: int, dport: int, vtag: int, *chunks: bytes) -> bytes:
    """An SCTP packet."""
    return struct.pack("!HHII", sport, dport, vtag, 0) + b"".join(chunks)


# ── looking into packets ────────────────────────────────────────────────────────────────────────────


def header_length(packet: bytes) -> int:
    """Octets before the transport header (IPv6: without extension headers)."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def addresses(packet: bytes) -> tuple[str, str]:
    """Source and destination as text."""
    src, dst = (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])
    return str(ip_address(src)), str(ip_address(dst))


def ports(packet: bytes) -> tuple[int, int]:
    """Source and destination port."""
    return struct.unpack_from("!HH", packet, header_length(packet))


def protocol(packet: bytes) -> int:
    """The transport protocol (IPv6: the first next header)."""
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def wrong_sums(packet: bytes) -> list[str]:
    """Every checksum of `packet` that is wrong, by name, the ones inside an ICMP error's quote included."""
    src, dst = addresses(packet)
    proto, l4 = protocol(packet), packet[header_length(packet) :]
    wrong = []
    if packet[0] >> 4 == 4 and word_sum(packet[: header_length(packet)]) != 0xFFFF:
        wrong.append("ip")
    if proto == UDP and l4[6:8] == b"\0\0":
        return wrong
    if sealed(src, dst, proto, l4) != l4:
        wrong.append("transport")
    return wrong
