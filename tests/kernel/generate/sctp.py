"""SCTP associations that mostly behave.

One rule: as in `tcp.py`, ends learn addresses and ports from what came out; verification tags pass untouched.
"""

from __future__ import annotations

import struct
from typing import Any

from . import octets
from .octets import SCTP, chunk
from .world import Step, World

DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN = 0, 1, 2, 3, 4, 5, 6, 7
SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = 8, 9, 10, 11, 14
# The expected next chunk: (side that sends, chunk)
_LIFE = (
    *((0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO), (1, COOKIE_ACK), (0, DATA), (1, SACK), (1, HEARTBEAT)),
    *((0, HEARTBEAT_ACK), (0, SHUTDOWN), (1, SHUTDOWN_ACK), (0, SHUTDOWN_COMPLETE)),
)
_ALL = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 63, 192)


class Association:
    """Two ends; the first begins."""

    def __init__(self, world: World) -> None:
        iface, src, dst = world.pair(world.family())
        one, two = (src, world.port()), (dst, world.rng.choice((80, 5000, 36412)))
        self.world = world
        # iface, own address and port, the peer's, own tag, the peer's tag
        other = "out0" if iface == "in0" else "in0"
        self.ends: list[list[Any]] = [
            [iface, one, two, world.rng.getrandbits(32) | 1],
            [other, two, one, world.rng.getrandbits(32) | 1],
        ]
        self.at = self.side = 0
        self.last: list[tuple[int, bytes]] = []

    def next(self) -> Step | None:
        """The next packet."""
        world, rng = self.world, self.world.rng
        if self.last and world.maybe(0.07):
            self.side, packet = rng.choice(self.last[-6:])
            return world.arrive(self.ends[self.side][0], packet)
        if world.maybe(0.75) or self.at == 0:
            self.side, kind = _LIFE[self.at % len(_LIFE)]
            self.at += 1
            if self.at > 4 and self.at < 9 and world.maybe(0.3):
                self.at = rng.choice((4, 6, 8))
        else:
            self.side, kind = rng.randrange(2), rng.choice(_ALL)
        return self._packet(kind)

    def saw(self, record: dict[str, Any]) -> None:
        """Learn from what came out."""
        for name, data in record["out"]:
            packet = bytes.fromhex(data)
            proto, l4 = octets.transport(packet)
            if proto != SCTP or len(l4) < 12 or octets.is_fragment(packet):
                continue
            src, dst = octets.ends(packet)
            sport, dport = struct.unpack_from("!HH", l4)
            self.ends[1 - self.side][:3] = [name, (dst, dport), (src, sport)]

    def _packet(self, kind: int) -> Step:
        world, rng = self.world, self.world.rng
        iface, me, peer, tag = self.ends[self.side]
        theirs = self.ends[1 - self.side][3]
        vtag = 0 if kind == INIT else theirs
        flags = 0
        if kind in (ABORT, SHUTDOWN_COMPLETE) and world.maybe(0.4):
            flags, vtag = 1, tag
        if world.maybe(0.05):
            vtag = rng.choice((0, tag, rng.getrandbits(32)))
        if world.maybe(0.03):
            self.ends[self.side][3] = tag = rng.getrandbits(32)  # begins anew with another tag
        body = (
            struct.pack("!I", tag) + bytes(12)
            if kind in (INIT, INIT_ACK)
            else rng.randbytes(rng.choice((0, 4, 12)))
        )
        chunks = chunk(kind, body, flags)
        if world.maybe(0.15):
            more = chunk(rng.choice(_ALL), rng.randbytes(rng.choice((0, 4, 16))))
            chunks = chunks + more if world.maybe(0.7) else more + chunks
        if world.maybe(0.03):
            chunks = rng.choice(
                (b"", chunks[:3], chunks[:2] + b"\0\0" + chunks[4:], chunks[:2] + b"\1\0" + chunks[4:])
            )
        l4 = struct.pack("!HHII", me[1], peer[1], vtag, 0) + chunks
        l4 = octets.seal(me[0], peer[0], SCTP, l4)
        if world.maybe(0.02):
            l4 = l4[:8] + rng.randbytes(4) + l4[12:]
        if world.maybe(0.01):
            l4 = l4[: rng.randrange(13)]
        packet = world.wrap(me[0], peer[0], SCTP, l4)
        self.last.append((self.side, packet))
        return world.arrive(iface, packet)
