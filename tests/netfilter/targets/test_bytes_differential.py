"""What targets do to octets: TCPMSS, TTL and HL on random packets, beside the running kernel.

The rule stands in mangle FORWARD; what the kernel forwards is compared with the packet as our target leaves it, its
time to live counted down by one (RFC 1812, RFC 8200) and nothing else changed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from random import Random

import pytest
from packets import checksum, sealed
from rules.fakes import FakeBox
from rules.kernel_rules import Kernel

from conntrack.netfilter.rules import load, walk
from conntrack.netfilter.skb import Skb
from conntrack.verdict import DROP, FORWARD
from conntrack.wire.packet import parse

PACKETS = int(os.environ.get("CONNTRACK_TARGET_PACKETS", "150"))

RULES = {
    4: (
        "-p tcp -j TCPMSS --set-mss 1000",
        "-p tcp -j TCPMSS --set-mss 300",
        "-p tcp -j TCPMSS --set-mss 0",
        "-p tcp -j TCPMSS --clamp-mss-to-pmtu",
        "-j TTL --ttl-set 64",
        "-j TTL --ttl-dec 2",
        "-j TTL --ttl-inc 200",
    ),
    6: (
        "-p tcp -j TCPMSS --set-mss 1000",
        "-p tcp -j TCPMSS --set-mss 1400",
        "-p tcp -j TCPMSS --clamp-mss-to-pmtu",
        "-j HL --hl-set 7",
        "-j HL --hl-dec 2",
        "-j HL --hl-inc 200",
    ),
}

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    try:
        kernel = Kernel()
    except OSError as error:
        pytest.skip(f"no namespace with TUN devices: {error}")
    yield kernel
    kernel.close()


def random_tcp(random: Random, family: int) -> bytes:
    """A TCP packet with random options, sound or not, sealed or not."""
    options = b""
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        options += random.choice(
            (
                b"\x02\x04\x05\xb4",
                b"\x02\x04\x01\x00",
                b"\x01",
                b"\x03\x03\x07",
                b"\x00",
                b"\x05\x00",
                b"\x02\x05\x05\xb4",
            )
        )
    options = (options + bytes(-len(options) % 4))[:40]
    if random.random() < 0.1:
        options = bytes((1,)) * 40
    words = 5 + len(options) // 4
    if random.random() < 0.1:
        words = random.randrange(16)
    flags = random.choice((2, 2, 0x12, 0x10))
    segment = struct.pack("!HHIIBBHHH", 1000, 80, random.randrange(1 << 32), 0, words << 4, flags, 512, 0, 0)
    segment += options + random.randbytes(random.choice((0, 0, 0, 3, 10)))
    if random.random() < 0.05:
        segment = segment[: random.randrange(24)]
    source, destination = ("10.0.0.2", "192.0.2.1") if family == 4 else ("fd00:1::2", "2001:db8::1")
    if random.random() < 0.9:
        segment = sealed(source, destination, 6, segment)
    ends = ip_address(source).packed + ip_address(destination).packed
    life = random.choice((2, 3, 64, 100, 255))
    if family == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 7, 0, life, 6, 0) + ends
        return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + segment
    extension = b"\x06\0\x01\x04\0\0\0\0" if random.random() < 0.3 else b""
    first = 60 if extension else 6
    return struct.pack("!IHBB", 6 << 28, len(extension + segment), first, life) + ends + extension + segment


def ours(text: str, family: int, data: bytes) -> list[bytes]:
    """What leaves: nothing, or the packet as the target left it, its life counted down."""
    found = load(text, family).base("mangle", FORWARD)
    assert found is not None
    box = FakeBox()
    skb = Skb(parse(data), "in0")
    skb.out_iface = "out0"
    addresses = skb.packet.addresses()
    skb.route = box.fib.input(addresses[: len(addresses) // 2], addresses[len(addresses) // 2 :], "in0", 6)
    life = 8 if family == 4 else 7
    down = bytearray(data)  # the kernel counts down before FORWARD
    down[life] -= 1
    if family == 4:
        down[10:12] = b"\0\0"
        down[10:12] = checksum(bytes(down[:20])).to_bytes(2, "big")
    skb.packet = parse(bytes(down))
    if walk(*found, skb, FORWARD, box) == DROP:
        return []
    return [bytes(skb.packet.data)]


@pytest.mark.parametrize("family", [4, 6])
def test_octets_that_leave_are_those_of_the_kernel(kernel: Kernel, family: int) -> None:
    random = Random(family)
    for rule in RULES[family]:
        text = f"*mangle\n-A FORWARD {rule}\nCOMMIT\n"
        kernel.load(text, family)
        for _ in range(PACKETS):
            packet = random_tcp(random, family)
            theirs = kernel.send(packet)
            mine = ours(text, family, packet)
            assert [data.hex() for data in mine] == [data.hex() for data in theirs], f"{rule}\n{packet.hex()}"
