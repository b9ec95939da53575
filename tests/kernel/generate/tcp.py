"""TCP conversations that mostly behave.

One rule: each end knows only what it sent and what reached its wire; addresses, ports and sequence numbers that
translation changed are learned from the packets that came out.

The chances below are what the special cases of conntrack's TCP need: repeated and renumbered SYNs, simultaneous
open, challenge ACKs, exact, near and far RSTs, SACK, scaling, numbers at the edges of windows, reopening.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from . import octets
from .octets import ACK, FIN, PSH, RST, SYN, TCP, URG
from .world import SERVICES, Step, World

_MASK = 0xFFFFFFFF
_TIMESTAMP = b"\x01\x01\x08\x0a" + bytes(8)
# What an open conversation does next, and how often.
_OPEN = {
    "data": 40,
    "ack": 26,
    "fin": 12,
    "rst": 5,
    "syn": 5,
    "synack": 3,
    "keepalive": 3,
    "sack": 6,
    "odd": 2,
    "again": 7,
}
_FLAGS = {"data": PSH | ACK, "fin": FIN | ACK, "syn": SYN, "synack": SYN | ACK}


@dataclass
class End:
    """One end as it sees the conversation."""

    iface: str
    me: tuple[str, int]
    peer: tuple[str, int]
    next: int = 0  # the number of its next octet
    heard: int = 0  # the number of the next octet it expects
    window: int = 8192
    scale: int = 0


class Conversation:
    """Two ends; the first begins."""

    def __init__(self, world: World, ends: tuple[str, str, str] | None = None, service: int = 0) -> None:
        rng = world.rng
        family = world.family()
        iface, src, dst = ends or world.pair(family)
        one, two = (src, world.port()), (dst, service or rng.choice(SERVICES))
        other = "out0" if iface == "in0" else "in0"
        self.world = world
        self.ends = [End(iface, one, two), End(other, two, one)]
        self.stage = "idle"
        self.opener = self.side = self.fins = 0
        self.last: list[tuple[int, bytes]] = []

    def next(self) -> Step | None:
        """The next segment."""
        rng = self.world.rng
        self.side, what = self._choose()
        if what == "again" and self.last:
            self.side, packet = rng.choice(self.last[-6:])
            return self.world.arrive(self.ends[self.side].iface, packet)
        return self.segment(self.side, what)

    def saw(self, record: dict[str, Any]) -> None:
        """Learn from what came out: the other end hears it, or this end an answer of the box."""
        for name, data in record["out"]:
            packet = bytes.fromhex(data)
            proto, l4 = octets.transport(packet)
            if proto != TCP or len(l4) < 20 or octets.is_fragment(packet):
                continue
            src, dst = octets.ends(packet)
            sport, dport, seq, _, offset, flags = struct.unpack_from("!HHIIBB", l4)
            length = max(len(l4) - (offset >> 4) * 4, 0) + bool(flags & SYN) + bool(flags & FIN)
            me = self.ends[self.side]
            end = me if (dst, dport) == me.me and name == me.iface else self.ends[1 - self.side]
            end.iface, end.me, end.peer = name, (dst, dport), (src, sport)
            if not flags & RST:
                end.heard = (seq + length) & _MASK

    def segment(self, side: int, what: str, payload: bytes | None = None) -> Step:
        """`side` sends."""
        rng, me, peer = self.world.rng, self.ends[side], self.ends[1 - side]
        self.side = side
        if what == "syn" and (self.stage in ("idle", "closed") or rng.random() < 0.3):
            me.next = rng.choice((0, _MASK, 1 << 31, rng.getrandbits(32)))
            me.window = _window(rng)
            self.opener = side if self.stage in ("idle", "closed") else self.opener
        if what == "synack" and self.stage == "syn":
            me.next, me.window = rng.getrandbits(32), _window(rng)
        if rng.random() < 0.1:
            me.window = _window(rng)
        flags = _FLAGS.get(what, ACK)
        if what == "rst":
            flags = rng.choice((RST, RST | ACK, RST | ACK))
        if what == "odd":
            flags = rng.getrandbits(8)
        if payload is None:
            length = rng.choice((1, 10, 100, 1000)) if what == "data" or rng.random() < 0.02 else 0
            payload = rng.randbytes(length)
        seq, ack = me.next, me.heard if flags & ACK or rng.random() < 0.1 else 0
        plain = rng.random() > 0.07
        if what == "keepalive":
            seq, payload = seq - 1, rng.choice((b"", b"x"))
        elif plain:
            me.next = (seq + len(payload) + bool(flags & SYN) + bool(flags & FIN)) & _MASK
        else:
            seq += rng.choice((0, _shift(rng, peer)))
            ack += rng.choice((0, _shift(rng, me)))
        if what == "rst" and rng.random() < 0.5:
            seq = me.next + rng.choice((0, 0, -1, 1, 100, -100, 70000, -me.next))
        self._advance(side, what, plain)
        options = _syn_options(rng, me) if flags & SYN else _data_options(rng, me, what)
        l4 = octets.tcp(me.me[1], me.peer[1], flags, seq, ack, me.window, payload, options)
        if flags & URG:
            l4 = l4[:18] + rng.randbytes(2) + l4[20:]
        if rng.random() < 0.005:
            l4 = l4[:12] + bytes((rng.getrandbits(4) << 4,)) + l4[13:]  # a data offset that lies
        l4 = octets.seal(me.me[0], me.peer[0], TCP, l4)
        if rng.random() < 0.01:
            l4 = l4[:16] + rng.randbytes(2) + l4[18:]
        if rng.random() < 0.005:
            l4 = l4[: rng.randrange(24)]
        packet = self.world.wrap(me.me[0], me.peer[0], TCP, l4)
        self.last.append((side, packet))
        return self.world.arrive(me.iface, packet)

    def _choose(self) -> tuple[int, str]:
        rng = self.world.rng
        if self.stage == "idle":
            return (0, "syn") if rng.random() < 0.88 else (rng.randrange(2), rng.choice(list(_OPEN)))
        if self.stage == "syn" and rng.random() < 0.95:
            if rng.random() < 0.15:
                return self.opener, "syn"
            return 1 - self.opener, rng.choice(("synack",) * 14 + ("syn", "rst", "ack"))
        if self.stage == "closed" and rng.random() < 0.3:
            return rng.choice((0, 0, 0, 1)), "syn"
        what = rng.choices(list(_OPEN), list(_OPEN.values()))[0]
        return rng.randrange(2), "ack" if self.stage == "closed" and what == "data" else what

    def _advance(self, side: int, what: str, plain: bool) -> None:
        """Where the conversation stands after a segment that was not tampered with."""
        if not plain:
            return
        if what == "syn" and self.stage in ("idle", "closed"):
            self.stage, self.fins = "syn", 0
        elif self.stage in ("idle", "syn") and what != "syn":
            self.stage, self.fins = ("closed" if what == "rst" else "open"), 0
        elif what == "rst" or (self.fins == 3 and what == "ack"):
            self.stage = "closed"
        elif what == "fin":
            self.fins |= 1 << side


def _window(rng: Any) -> int:
    return int(rng.choice((0, 1, 100, 1000, 8192, 65535)))


def _shift(rng: Any, receiver: End) -> int:
    """A distance worth trying: about the receiver's window, conntrack's 66,000, half the number space."""
    window = receiver.window << receiver.scale
    edge = rng.choice((0, window, -window, 66000, -66000, 1 << 31, rng.getrandbits(32)))
    return int(edge + rng.choice((-2, -1, 0, 0, 1, 2)))


def _syn_options(rng: Any, me: End) -> bytes:
    options = b""
    me.scale = 0
    if rng.random() < 0.7:
        options += b"\x02\x04" + struct.pack("!H", rng.choice((1460, 536, 100, 9000)))
    if rng.random() < 0.6:
        me.scale = rng.choice((0, 1, 3, 7, 14, 15))
        options += bytes((1, 3, 3, me.scale))
    if rng.random() < 0.6:
        options += b"\x01\x01\x04\x02"
    if rng.random() < 0.4:
        options += _TIMESTAMP
    if rng.random() < 0.05:
        options += rng.choice((b"\x03\x00\x03\x07", b"\x03\x09\x03\x07", b"\x00\x00\x00\x00", b"\xfe\x04\x00\x00"))
    return options[:40]


def _data_options(rng: Any, me: End, what: str) -> bytes:
    """Nothing, time stamps, or SACK blocks about what the peer sent or did not send."""
    if what != "sack":
        return _TIMESTAMP if rng.random() < 0.3 else b""
    edges = []
    for _ in range(rng.randint(1, 3)):
        left = me.heard + rng.choice((-1000, -10, 0, 0, 1, 70000))
        edges += [left & _MASK, (left + rng.choice((1, 10, 1000))) & _MASK]
    block = bytes((5, 2 + 4 * len(edges))) + struct.pack(f"!{len(edges)}I", *edges)
    return rng.choice((b"\x01\x01" + block, block + b"\x00\x00", b"\x08\x0a" + bytes(8) + block))
