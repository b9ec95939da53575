"""Random packets with sound IP headers and anything behind them: what rules may meet before routing.

One rule: Linux's checks of the IP header pass, so that every packet reaches PREROUTING; what follows the header may
be short, odd or nonsense.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from random import Random

from packets import checksum

SOURCES = {
    4: ("10.0.0.2", "10.0.0.77", "192.0.2.7", "10.0.1.3", "198.51.100.9"),
    6: ("fd00:1::2", "2001:db8::7", "2001:db8:1::3", "fe80::5"),
}
DESTINATIONS = {
    4: ("10.0.0.1", "192.0.2.1", "10.0.0.255", "224.0.0.5", "255.255.255.255", "198.51.100.1", "127.0.0.1"),
    6: ("fd00:1::1", "2001:db8::1", "fd00:1::", "ff02::1", "2001:db8:b::1", "fd00:1::2"),
}
_PORTS = (0, 1, 5, 9, 10, 22, 53, 80, 443, 1024, 65535)


def random_packet(random: Random, family: int) -> bytes:
    """One packet."""
    proto = random.choice(
        (6, 6, 6, 17, 17, 1 if family == 4 else 58, 132, 132, 136, 47, 50, 58 if family == 4 else 1)
    )
    payload = _transport(random, proto)
    if random.random() < 0.2:
        payload = payload[: random.randrange(0, 30)]
    return _ipv4(random, proto, payload) if family == 4 else _ipv6(random, proto, payload)


def _transport(random: Random, proto: int) -> bytes:
    sport, dport = random.choice(_PORTS), random.choice(_PORTS)
    tail = random.randbytes(random.choice((0, 0, 4, 20)))
    if proto == 6:
        options = _tcp_options(random)
        offset = random.choice((5 + len(options) // 4, 5 + len(options) // 4, 5, random.randrange(16)))
        flags = random.choice((0x02, 0x10, 0x12, 0x04, 0x29, 0, 0x3F, random.randrange(256)))
        head = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, offset << 4, flags, 512, 0, 0)
        return head + options + tail
    if proto in (17, 136):
        return struct.pack("!HHHH", sport, dport, 8 + len(tail), 0) + tail
    if proto in (1, 58):
        types = (0, 3, 5, 8, 11, 128, 129, 1, 135, 255, 2)
        return struct.pack("!BBHI", random.choice(types), random.choice((0, 1, 3, 4, 255)), 0, 7) + tail
    if proto == 132:
        chunks = b""
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            kind = random.choice((0, 1, 2, 3, 6, 14, 64, 130, 132, 192, 193, 200))
            size = random.choice((4, 8, 8, 9, 16, 0, 40))
            body = random.randbytes(max(0, min(size, 16) - 4))
            chunks += (
                struct.pack("!BBH", kind, random.choice((0, 1, 3, 7, 15)), size) + body + bytes(-len(body) % 4)
            )
        return struct.pack("!HHII", sport, dport, 1, 0) + chunks
    return struct.pack("!HH", sport, dport) + tail


def _tcp_options(random: Random) -> bytes:
    options = b""
    for _ in range(random.choice((0, 0, 1, 2, 3))):
        options += random.choice(
            (b"\x02\x04\x05\xb4", b"\x01", b"\x03\x03\x07", b"\x04\x02", b"\x05\x00", b"\x08\x0a" + bytes(8))
        )
    return (options + bytes(-len(options) % 4))[:40]


def _ipv4(random: Random, proto: int, payload: bytes) -> bytes:
    options = random.choice((b"", b"", b"", b"\x01\x01\x01\x01", b"\x44\x04\x05\x00"))
    fragment = random.choice((0, 0, 0, 0, 0, 0x4000, 0x2000, 1, 0x2001, 2, 0x2002, 100))
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        random.choice((0, 0x10, 0xB8)),
        20 + len(options) + len(payload),
        random.randrange(65536),
        fragment,
        random.choice((1, 2, 64, 255)),
        proto,
        0,
        ip_address(random.choice(SOURCES[4])).packed,
        ip_address(random.choice(DESTINATIONS[4])).packed,
    )
    header += options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def _ipv6(random: Random, proto: int, payload: bytes) -> bytes:
    chain: list[tuple[int, bytes]] = []
    if random.random() < 0.1:
        chain.append((0, b"\0\x01\x04" + bytes(4)))
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2))):
        kind = random.choice((60, 43, 44, 51, 44))
        if kind == 44:
            offset = random.choice((0, 0, 0, 8, 16, 800))
            chain.append((kind, b"\0" + struct.pack("!HI", offset | random.choice((0, 1)), 9)))
        elif kind == 51:
            chain.append((kind, bytes((random.choice((0, 1, 2)),)) + bytes(10 if random.random() < 0.7 else 14)))
        else:
            chain.append((kind, b"\x01" if random.random() < 0.08 else b"\0\x01\x04\0\0\0\0"))
    if random.random() < 0.04:
        proto = random.choice((59, 60, 43, 44))
    body = b""
    for at, (_, rest) in enumerate(chain):
        following = chain[at + 1][0] if at + 1 < len(chain) else proto
        body += bytes((following,)) + rest
    body += payload
    first = chain[0][0] if chain else proto
    header = struct.pack("!IHBB", 6 << 28, len(body), first, random.choice((1, 64, 255)))
    return (
        header
        + ip_address(random.choice(SOURCES[6])).packed
        + ip_address(random.choice(DESTINATIONS[6])).packed
        + body
    )
