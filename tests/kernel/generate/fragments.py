"""Datagrams in pieces: in any order, twice, overlapping, incomplete; in and out.

One rule: identifications are fresh, so that no two datagrams of a scenario meet in reassembly.
"""

from __future__ import annotations

import struct
from typing import Any

from . import octets
from .datagrams import answer
from .octets import FRAGMENT, ICMP, ICMPV6, TCP, UDP
from .world import SERVICES, Step, World


class Fragments:
    """Sends a few datagrams in pieces, the pieces of several mixed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[tuple[str, bytes]] = []

    def next(self) -> Step | None:
        """The next piece."""
        world = self.world
        if not self.waiting or (len(self.waiting) < 3 and world.maybe(0.1)):
            pieces = self._datagram()
            if world.maybe(0.3):
                world.rng.shuffle(pieces)
            if world.maybe(0.1):
                pieces.insert(world.rng.randrange(len(pieces)), world.rng.choice(pieces))
            if world.maybe(0.1):
                del pieces[world.rng.randrange(len(pieces))]
            self.waiting += pieces
        if not self.waiting:
            return None
        at = 0 if world.maybe(0.9) else world.rng.randrange(len(self.waiting))
        return world.arrive(*self.waiting.pop(at))

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn beyond the wires."""

    def _datagram(self) -> list[tuple[str, bytes]]:
        world, rng = self.world, self.world.rng
        heard = world.overheard() if world.maybe(0.4) else None
        if heard:
            name, packet = heard
            reply = answer(world, packet)
            if reply and len(reply) > 60:
                return [(name, piece) for piece in pieces_of(world, reply)]
        family = world.family()
        iface, src, dst = world.pair(family)
        length = rng.choice((40, 600, 1200, 2000, 3000))
        dice = rng.random()
        if dice < 0.6:
            proto, l4 = UDP, octets.udp(world.port(), rng.choice(SERVICES), rng.randbytes(length))
        elif dice < 0.85:
            proto = ICMPV6 if family == 6 else ICMP
            l4 = octets.icmp(128 if family == 6 else 8, 0, rng.randbytes(4), rng.randbytes(length))
        else:
            proto, l4 = TCP, octets.tcp(world.port(), rng.choice(SERVICES), 2, 999, 0, 8192, rng.randbytes(length))
        l4 = octets.seal(src, dst, proto, l4)
        whole = octets.ipv6(src, dst, proto, l4) if family == 6 else octets.ipv4(src, dst, proto, l4)
        return [(iface, piece) for piece in pieces_of(world, whole)]


def pieces_of(world: World, packet: bytes) -> list[bytes]:
    """A packet cut into pieces, mostly well."""
    rng = world.rng
    src, dst = octets.ends(packet)
    proto, body = octets.transport(packet)
    size = rng.choice((8, 16, 24, 200, 576, 1280, 1400))
    if len(body) // size > 6:
        size = (len(body) // 6 + 8) & ~7
    cuts = []
    at = 0
    while at < len(body):
        part = body[at : at + size]
        cuts.append([at, part, at + size < len(body)])
        at += size
    if world.maybe(0.08) and len(cuts) > 1:
        cut = rng.choice(cuts)
        kind = rng.randrange(5)
        if kind == 0 and cut[0]:
            cut[0] -= 8  # overlaps its neighbour
        elif kind == 1:
            cut[1] = cut[1][: max(len(cut[1]) - 3, 0)]  # not a multiple of eight
        elif kind == 2:
            cut[1] = b""
        elif kind == 3:
            cut[2] = not cut[2]
        else:
            cut[0] = 65528 if world.maybe(0.5) else cut[0] + 8  # beyond the end, or a hole
    ttl = 64
    identification = rng.getrandbits(32)
    tos = rng.choice((0, 1, 2, 3)) if world.maybe(0.1) else 0
    out = []
    for offset, part, more in cuts:
        if octets.family(packet) == 4:
            df = 0x4000 if world.maybe(0.05) else 0
            word = df | (0x2000 if more else 0) | offset >> 3
            options = b"\x94\x04\x00\x00" if offset == 0 and world.maybe(0.03) else b""
            out.append(
                octets.ipv4(
                    src,
                    dst,
                    proto,
                    part,
                    ttl=ttl,
                    ident=identification & 0xFFFF,
                    fragment=word,
                    tos=tos,
                    options=options,
                )
            )
        else:
            head = struct.pack("!BBHI", proto, 0, offset & 0xFFF8 | bool(more), identification)
            first, extra = FRAGMENT, head + part
            if world.maybe(0.02):
                first, extra = octets.DESTINATION, bytes((FRAGMENT, 0, 1, 4, 0, 0, 0, 0)) + extra
            out.append(octets.ipv6(src, dst, first, extra, ttl=ttl, tos=tos))
    return out
