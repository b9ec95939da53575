"""Random packets that a router has to think about: who sends, where to, options, extension headers, bad lengths.

One rule: what a packet is for decides its fields; addresses stem from the box of `plain_box`'s tests, so that most
of them mean something there.

Sources: RFC 791 (options), RFC 8200 (extension headers), RFC 792, RFC 4443.
"""

from __future__ import annotations

import struct
from random import Random

from packets import ICMP, ICMPV6, TCP, UDP, UDPLITE, checksum, icmp, ipv6, sealed, tcp, udp, udplite

ROUTES = (
    *("default dev out0", "-6 default dev out0", "unreachable 9.0.0.0/24", "prohibit 9.0.1.0/24"),
    *("blackhole 9.0.2.0/24", "throw 9.0.3.0/24", "10.5.0.0/16 via 10.0.0.77", "198.18.0.0/15 via 198.51.100.254"),
    *("-6 unreachable 2600:1::/32", "-6 prohibit 2600:2::/32", "-6 blackhole 2600:3::/32"),
    *("-6 2600:5::/32 via fd00:1::77", "local 203.0.113.0/24 dev lo", "-6 local 2001:db8:99::/48 dev lo"),
)
_SOURCES4 = (
    *("7.7.7.7", "7.7.7.9", "10.0.0.9", "198.51.100.9", "10.0.0.1", "198.51.100.1", "0.0.0.0", "127.0.0.1"),
    *("224.0.0.1", "255.255.255.255", "10.0.0.255", "10.0.0.0", "240.0.0.1", "9.0.0.5", "9.0.2.5", "10.5.0.1"),
)
_TARGETS4 = (
    *("8.8.8.8", "8.8.8.8", "8.8.8.8", "10.0.0.1", "10.0.0.1", "10.0.0.1", "198.51.100.1", "198.51.100.1"),
    *("10.0.0.55", "198.51.100.55", "10.0.0.255", "198.51.100.255", "255.255.255.255", "224.0.0.1", "224.0.0.5"),
    *("239.1.1.1", "9.0.0.1", "9.0.1.1", "9.0.2.1", "9.0.3.1", "10.5.0.9", "198.18.0.1", "127.0.0.1", "0.0.0.0"),
    *("240.0.0.7", "10.0.0.0", "203.0.113.7"),
)
_SOURCES6 = (
    *("2600::a", "2600::b", "fd00:1::9", "2001:db8:2::9", "fd00:1::1", "2001:db8:2::1", "::", "::1", "ff02::1"),
    *("fe80::9", "fd00:1::", "2600:1::4", "2600:3::4", "2600:5::1", "::ffff:1.2.3.4"),
)
_TARGETS6 = (
    *("2600::5", "2600::5", "2600::5", "fd00:1::1", "fd00:1::1", "fd00:1::1", "2001:db8:2::1", "2001:db8:2::1"),
    *("fd00:1::55", "2001:db8:2::55", "fd00:1::", "2001:db8:2::", "ff02::1", "ff02::2", "ff05::2", "ff02::5"),
    *("ff0e::5", "ff01::1", "2600:1::1", "2600:2::1", "2600:3::1", "2600:5::9", "::1", "::", "fe80::7", "ff00::1"),
    *("::ffff:8.8.8.8", "2001:db8:99::7"),
)
# Record route, timestamps, router alert, source routes, labels, unknown ones; right, full and malformed.
_OPTIONS = tuple(
    bytes.fromhex(text)
    for text in (
        *("07070400000000", "070b080102030400000000", "07070801020304", "440c05000000000000000000"),
        *("440c05010000000000000000", "441405030a00000100000000c633640100000000", "441405030a000007" + "00" * 12),
        *("94040000", "01010100", "00010203", "83070409090909", "830b04090909090a000001", "890704c6336409"),
        *("88040000", "820b000000000000000000", "99040000", "8307080a000009", "830b0c0a00000908080808", "070304"),
        *("07070300000000", "860600000001", "860a0000000101040000", "440809f000000000", "4408091000000000"),
        *("4408050200000000", "8307040a000001", "890b040a00000108080808"),
    )
)
_KINDS4 = (0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 18, 19, 40, 42)
_KINDS6 = (1, 2, 3, 4, 100, 127, 128, 129, 130, 131, 132, 133, 134, 136, 137, 139, 140, 143, 200)
_TCP_OPTIONS = tuple(
    bytes.fromhex(text)
    for text in ("", "", "020405b4", "0101080a" + "00" * 8, "1312" + "00" * 16 + "0101", "13040000", "00000000")
    + ("1d10" + "00" * 14, "05000000")
)
_NO_HANDLER = (3, 4, 33, 41, 46, 47, 50, 51, 89, 103, 108, 112, 115, 132, 253, 2)


def odd_packet(random: Random) -> tuple[str, bytes]:
    """(device, octets) of one packet that arrives."""
    iface = random.choice(("in0", "out0"))
    if random.random() < 0.55:
        near = ("10.0.0." if iface == "in0" else "198.51.100.") + str(random.randrange(2, 250))
        source = near if random.random() < 0.4 else random.choice(_SOURCES4)
        return iface, _packet4(random, source, random.choice(_TARGETS4))
    near = ("fd00:1::" if iface == "in0" else "2001:db8:2::") + f"{random.randrange(2, 65000):x}"
    source = near if random.random() < 0.4 else random.choice(_SOURCES6)
    return iface, _packet6(random, source, random.choice(_TARGETS6))


def _packet4(random: Random, source: str, target: str) -> bytes:
    proto, payload = _transport(random, source, target)
    options = b""
    if random.random() < 0.3:
        options = b"".join(random.choice(_OPTIONS) for _ in range(random.choice((1, 1, 1, 2, 3))))
        if random.random() < 0.1:
            options = random.randbytes(random.randrange(1, 20))
        options = (options + bytes(-len(options) % 4))[:40]
    fragment = random.choice((0, 0x4000)) if random.random() < 0.95 else random.choice((0x2000, 7, 0x2003))
    words, tos = 5 + len(options) // 4, random.choice((0, 0, 0x1E, 3, 0xFF, 0x10))
    ttl, ident = random.choice((64, 64, 2, 1, 0, 255)), random.randrange(65536)
    length = words * 4 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x40 | words, tos, length, ident, fragment, ttl, proto, 0)
    header += _packed(source) + _packed(target) + options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def _packet6(random: Random, source: str, target: str) -> bytes:
    proto, payload = _transport(random, source, target)
    if random.random() < 0.3:
        for _ in range(random.choice((1, 1, 2))):
            proto, payload = _extension(random, proto, payload)
    octets = bytearray(ipv6(source, target, proto, payload, hop_limit=random.choice((64, 64, 2, 1, 0, 255))))
    octets[:4] = struct.pack("!I", 6 << 28 | random.choice((0, 0x1F, 0xFF)) << 20 | random.choice((0, 0x12345)))
    return bytes(octets)


def _transport(random: Random, source: str, target: str) -> tuple[int, bytes]:
    six = ":" in source
    proto = random.choice((UDP, UDP, UDP, TCP, TCP, ICMP, ICMP, ICMP, UDPLITE, 0))
    body = random.randbytes(random.choice((0, 1, 3, 8, 20, 60, 700)))
    ports = random.randrange(65536), random.randrange(65536)
    if proto == 0:
        return random.choice(_NO_HANDLER), body
    if proto == UDP:
        message = udp(*ports, body, length=None if random.random() < 0.85 else random.randrange(30))
    elif proto == UDPLITE:
        whole = len(body) + 8
        message = udplite(*ports, body, coverage=max(random.choice((0, 8, whole, whole - 1, whole + 1, 4, 12)), 0))
    elif proto == TCP:
        flags = random.choice((2, 16, 18, 4, 20, 1, 17, 0, 3, 0x29, random.randrange(256)))
        numbers = random.randrange(2**32), random.randrange(2**32)
        message = tcp(*ports, flags, *numbers, payload=body, options=random.choice(_TCP_OPTIONS))
        if random.random() < 0.05:
            message = message[:12] + bytes((random.randrange(16) << 4,)) + message[13:]
    else:
        proto = ICMPV6 if six else ICMP
        kind = random.choice(_KINDS6 if six else _KINDS4) if random.random() < 0.6 else 128 if six else 8
        message = icmp(kind, random.choice((0, 0, 1, 3)), *ports, payload=body)
        if random.random() < 0.05:
            return proto, message[: random.randrange(9)]
    message = sealed(source, target, proto, message)
    if random.random() < 0.08:
        at = {TCP: 16, UDP: 6, UDPLITE: 6}.get(proto, 2)
        message = message[:at] + random.choice((b"\0\0", random.randbytes(2))) + message[at + 2 :]
    return proto, message


def _extension(random: Random, proto: int, payload: bytes) -> tuple[int, bytes]:
    """One more header in front: (its number, octets)."""
    kind = random.choice((60, 60, 0, 43, 44, 59))
    if kind in (60, 0):
        options = _options6(random)
        size = (len(options) + 2) // 8 - 1 if random.random() < 0.95 else random.randrange(4)
        return kind, bytes((proto, size)) + options + payload
    if kind == 43:
        hops = random.choice((0, 1, 2))
        head = bytes((proto, hops * 2, random.choice((0, 2, 3, 4, 9)), random.choice((0, 0, 1, hops))))
        return kind, head + bytes(4) + random.randbytes(16 * hops) + payload
    if kind == 44:
        return kind, bytes((proto, 0, 0, 0)) + random.randbytes(4) + payload
    return kind, payload


def _options6(random: Random) -> bytes:
    out = b""
    for _ in range(random.choice((0, 1, 1, 2))):
        kind = random.choice((0, 1, 1, 5, 0x1E, 0x3E, 0x41, 0x81, 0xC1, 0xC9, 0xC2, 4))
        size = random.choice((0, 1, 2, 2, 4, 4, 6))
        value = bytes(size) if random.random() < 0.8 else random.randbytes(size)
        out += b"\0" if kind == 0 else bytes((kind, size)) + value
    pad = -(len(out) + 2) % 8
    return out + (b"" if pad == 0 else b"\0" if pad == 1 else bytes((1, pad - 2)) + bytes(pad - 2))


def _packed(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))
