"""Reassembly and the running kernel get the same random fragments and must let the same octets out.

Groups of fragments of one datagram, mostly whole and in order, now and then shuffled, with duplicates, odd
lengths, overlaps, something missing, other options, headers or ECN marks. After each fragment: what left. At
the end: the memory that IPv4's waiting fragments count for (/proc/net/sockstat).

What routing changes (TTL), the random IPv6 identification and the harness's mark (DSCP) are not compared.

    CONNTRACK_KERNEL_STEPS=10000 CONNTRACK_KERNEL_SEED=7 pytest tests/kernel/test_reassembly_differential.py
"""

from __future__ import annotations

import itertools
import os
import random
import re
import struct
import time

import pytest
from harness import Kernel, available

from conntrack.wire.checksum import internet_checksum
from conntrack.wire.packet import parse
from conntrack.wire.reassembly import Limits, Reassembler
from conntrack.wire.refragment import refragment

STEPS = int(os.environ.get("CONNTRACK_KERNEL_STEPS", "500"))
SEED = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))
REASON = available()
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

SECOND = 1_000_000_000
UDP, TCP, SCTP, DEST, HOP, ROUTING, AUTH, NONE, FRAGMENT = 17, 6, 132, 60, 0, 43, 51, 59, 44
UNKNOWN = b"\x1e"  # an option that nobody knows, not to be copied; 0x9e is one that is


@pytest.mark.parametrize(
    ("high", "distance"),
    [(4194304, 64), (15000, 64), (4194304, 3), (20000, 8)],
    ids=["defaults", "little memory", "little distance", "little of both"],
)
def test_fragments_leave_as_the_kernel_lets_them(high: int, distance: int) -> None:
    rng = random.Random(f"{SEED} {high} {distance}")
    limits = Limits(30 * SECOND, high, 1000, distance, 60 * SECOND, high, 1000)
    with Kernel() as kernel:
        for device in ("in0", "out0"):
            kernel.run("ip", "link", "set", device, "mtu", "65535")
        for name in ("net.ipv4.ipfrag", "net.netfilter.nf_conntrack_frag6"):
            kernel.sysctl(f"{name}_low_thresh", 1000)
            kernel.sysctl(f"{name}_high_thresh", high)
        kernel.sysctl("net.ipv4.ipfrag_max_dist", distance)
        gatherer = Reassembler()
        started = time.monotonic_ns()
        wholes = 0
        for number in range(STEPS):
            group = (group4 if rng.random() < 0.5 else group6)(rng, number)
            for data in group:
                theirs = [comparable(out) for device, out in kernel.send(data, "in0") if device == "out0"]
                packet, reason = gatherer.push(parse(data), time.monotonic_ns() - started, 0, limits)
                ours = [] if packet is None else [comparable(out) for out in refragment(packet, 1)]
                wholes += packet is not None and packet.pieces is not None
                assert ours == theirs, (
                    f"seed {SEED}, group {number}, {reason or 'out'}: {data.hex()}\n"
                    f"ours   {[out.hex() for out in ours]}\ntheirs {[out.hex() for out in theirs]}\n"
                    f"group  {[each.hex() for each in group]}"
                )
            gatherer.check()
        counted = re.search(r"FRAG: inuse \d+ memory (\d+)", kernel.run("cat", "/proc/net/sockstat"))
        assert counted is not None and gatherer.memory4 == int(counted[1])
        assert wholes


def comparable(packet: bytes) -> bytes:
    """The packet without TTL, IPv4 checksum, DSCP and the identification of IPv6 fragments."""
    out = bytearray(packet)
    if out[0] >> 4 == 4:
        out[1] &= 3
        out[8] = out[10] = out[11] = 0
        return bytes(out)
    out[0], out[1], out[7] = 0x60, out[1] & 0x3F, 0
    proto, at = out[6], 40
    while proto in (HOP, ROUTING, DEST) and at + 2 <= len(out):
        proto, at = out[at], at + (out[at + 1] + 1) * 8
    if proto == FRAGMENT and at + 8 <= len(out):
        out[at + 4 : at + 8] = bytes(4)
    return bytes(out)


# ── random datagrams, cut ───────────────────────────────────────────────────────────────────────────


def payload(rng: random.Random, proto: int, length: int) -> bytes:
    data = rng.randbytes(length)
    if proto == UDP:
        data = struct.pack("!HHHH", rng.randrange(1, 4), 53, length, 0) + data[8:]
    if proto == TCP:
        data = struct.pack("!HHIIBBHHH", rng.randrange(1, 4), 80, 1, 0, 0x50, 2, 1000, 0, 0) + data[20:]
    return data[:length]


def spans(rng: random.Random, length: int) -> list[tuple[int, int]]:
    count = rng.choice((1, 2, 2, 3, 3, 4, 6))
    cuts = {0, length, *(rng.randrange(0, length + 7) // 8 * 8 for _ in range(count - 1))}
    points = sorted(point for point in cuts if point <= length)
    return list(itertools.pairwise(points))


def disturbed(rng: random.Random, group: list[bytes], stray: bytes) -> list[bytes]:
    chance = rng.random()
    if chance < 0.3:
        rng.shuffle(group)
    elif chance < 0.4:
        group.reverse()
    if rng.random() < 0.25:
        group.insert(rng.randrange(len(group) + 1), rng.choice(group))
    if rng.random() < 0.15:
        group.insert(rng.randrange(len(group) + 1), stray)
    if rng.random() < 0.1 and len(group) > 1:
        group.pop(rng.randrange(len(group)))
    return group


def ecn(rng: random.Random) -> tuple[int, ...]:
    return rng.choice(((0,), (0,), (2,), (2, 3), (1, 2), (0, 2)))


def ip4(
    data: bytes, word: int, ident: int, proto: int, host: int, tos: int = 0, options: bytes = b""
) -> bytes:
    words = 0x4000 | len(options) << 6 | tos
    head = struct.pack("!HHHHBB", words + 0x500, 20 + len(options) + len(data), ident, word, 64, proto)
    addresses = bytes((10, 0, 0, host, 203, 0, 113, 9))
    checksum = internet_checksum(head + addresses + options)
    return head + struct.pack("!H", checksum) + addresses + options + data


def group4(rng: random.Random, number: int) -> list[bytes]:
    ident, host, proto = rng.randrange(6), rng.choice((2, 2, 3)), rng.choice((UDP, UDP, TCP, 1, SCTP, 47))
    length = rng.choice((rng.randrange(8, 80), rng.randrange(80, 2000)))
    data, marks = payload(rng, proto, length), ecn(rng)
    with_df, with_options = rng.choice((0, 0, 1, 2)), rng.choice(("none", "none", "all", "first"))
    group = []
    for start, stop in spans(rng, length):
        df = with_df if with_df < 2 else rng.randrange(2)
        options = b""
        if with_options == "all" or (with_options == "first" and start == 0):
            texts = ("", "1e040101", "9e040101", "1e06000000009e02", "01010101", "1e0201019e03011e05070707")
            options = bytes.fromhex(rng.choice(texts))
            options += b"\1" * (-len(options) % 4)
        word = start // 8 | df << 14 | (stop < length) << 13
        group.append(ip4(data[start:stop], word, ident, proto, host, rng.choice(marks), options))
    word = rng.randrange(0, length + 16) // 8 | rng.randrange(2) << 13
    stray = ip4(rng.randbytes(rng.choice((0, 3, 8, 16, 40, 41))), word, ident, proto, host)
    return disturbed(rng, group, stray)


def ip6(
    data: bytes, word: int, ident: int, proto: int, tos: int = 0, before: bytes = b"", first: int = FRAGMENT
) -> bytes:
    data = before + struct.pack("!BBHI", proto, 0, word, ident) + data
    addresses = bytes.fromhex("fd00000100000000000000000000000220010db800ff00000000000000000009")
    return struct.pack("!IHBB", 6 << 28 | tos << 20, len(data), first, 64) + addresses + data


def extension(following: int, length: int) -> bytes:
    """Options that Linux steps over: unknown ones, and at most six octets of padding."""
    out = bytes((following, length // 8 - 1))
    while length - len(out) > 8:
        size = min(length - len(out), 256)
        size -= length - len(out) - size == 1
        out += UNKNOWN + bytes((size - 2,)) + bytes(size - 2)
    left = length - len(out)
    return out + (bytes((1, left - 2)) + bytes(left - 2) if left else b"")


def headers(rng: random.Random, kinds: str, length: int) -> tuple[int, bytes]:
    """A chain of headers before the fragment header: what announces it, and its octets."""
    numbers = {"h": HOP, "d": DEST, "r": ROUTING, "a": AUTH, "L": HOP}
    chain = [*(numbers[kind] for kind in kinds), FRAGMENT]
    out = b""
    for kind, following in zip(kinds, chain[1:], strict=True):
        if kind == "r":
            out += bytes((following, 0, 99, 0, 0, 0, 0, 0))
        elif kind == "a":
            out += struct.pack("!BBHII", following, 1, 0, 1, 2)
        else:
            out += extension(following, length if kind == "L" else rng.choice((8, 16)))
    return chain[0], out


def group6(rng: random.Random, number: int) -> list[bytes]:
    large = rng.random() < 0.2  # many octets of headers before
    ident = rng.randrange(6)
    proto = rng.choice((UDP, UDP, TCP, 58, SCTP, 50, NONE, 253))
    length = rng.choice((rng.randrange(24, 80), rng.randrange(80, 1500), rng.randrange(80, 2000)))
    data, marks, chance = payload(rng, proto, length), ecn(rng), rng.random()
    if chance < 0.15:
        data, proto = extension(proto, rng.choice((8, 16, 24))) + data, DEST
    elif chance < 0.2:
        data, proto = struct.pack("!BBHII", proto, 1, 0, 1, 2) + data, AUTH
    elif chance < 0.23:
        data, proto = struct.pack("!BBHI", proto, 0, rng.choice((0, 0, 1, 801)), 7) + data, FRAGMENT
    length, size = len(data), rng.choice((32, 40, 48, 56, 80, 88, 96, 104, 256, 264, 512, 1104, 1240))
    with_headers = rng.choice(("none", "none", "none", "all", "first"))
    group = []
    for start, stop in spans(rng, length):
        first, before = FRAGMENT, b""
        if with_headers == "all" or (with_headers == "first" and start == 0):
            kinds = "L" if large else rng.choice(("h", "d", "hd", "hrd", "rd", "r", "a", "hr"))
            first, before = headers(rng, kinds, size)
        following = proto if rng.random() < 0.9 else TCP
        part = data[start:stop]
        group.append(ip6(part, start | (stop < length), ident, following, rng.choice(marks), before, first))
    word = rng.choice((0, rng.randrange(0, length + 16) // 8 * 8, 65528)) | rng.randrange(2)
    return disturbed(rng, group, ip6(rng.randbytes(rng.choice((0, 3, 8, 16, 40, 41))), word, ident, proto))
