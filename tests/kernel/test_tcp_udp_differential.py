"""The engine and the running kernel get the same random TCP and UDP packets and must agree on all of them.

After every packet: what came out (bytes), its class, and the entry of its flow, with tuples, status, state,
timeout and counters. Every fifty packets: the whole table.

The packets come from a few conversations that mostly behave (handshake, data, acknowledgements, closing) and
now and then do not: something repeated, a number shifted to the edge of a window, odd flags, a length that
lies, a checksum that is wrong. Real time passes during the run and is given to the engine; a flow whose next
deadline is near is left alone, as the two clocks read it some microseconds apart.

A failure prints the seed and the shortest part of the flow's history that still disagrees.

    CONNTRACK_KERNEL_STEPS=100000 CONNTRACK_KERNEL_SEED=7 pytest tests/kernel -m kernel
"""

from __future__ import annotations

import ipaddress
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Kernel, available

from conntrack import Engine, Tuple

STEPS = int(os.environ.get("CONNTRACK_KERNEL_STEPS", "1000"))
SEED = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))
WHOLE_TABLE_EVERY = 50
FLOWS = 16  # at a time; three quarters of them TCP, half of them IPv4
TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

Step = tuple[str, bytes]  # interface, packet
REASON = available()
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

CONFIGURATIONS = [
    {},
    {"nf_conntrack_tcp_loose": 0},
    {"nf_conntrack_tcp_be_liberal": 1},
    {"nf_conntrack_tcp_ignore_invalid_rst": 1, "nf_conntrack_tcp_max_retrans": 1},
    {"nf_conntrack_checksum": 0},
]


@pytest.mark.parametrize("sysctl", CONFIGURATIONS, ids=lambda sysctl: " ".join(sysctl) or "defaults")
def test_the_engine_does_what_the_kernel_does(sysctl: dict[str, int]) -> None:
    rng = random.Random(f"{SEED} {sorted(sysctl.items())}")
    with Kernel(sysctl) as kernel:
        pair = Pair(kernel, sysctl)
        flows = [new_flow(rng, number) for number in range(FLOWS)]
        for number in range(STEPS):
            at = rng.randrange(FLOWS)
            if rng.random() < 0.02 or pair.deadline_is_near(flows[at]):
                flows[at] = new_flow(rng, FLOWS + number)
            flow = flows[at]
            flow.steps.append(flow.next(rng))
            difference = pair.step(flow, *flow.steps[-1])
            if not difference and (number % WHOLE_TABLE_EVERY == 0 or number == STEPS - 1):
                difference = pair.compare_tables()
            if difference:
                history = shortest(flow.steps, lambda steps, flow=flow: Pair(kernel, sysctl).play(flow, steps))
                pytest.fail(
                    f"seed {SEED}, step {number}, sysctl {sysctl}: {difference}\n"
                    + "\n".join(f"{iface:4} {describe(packet):60} {packet.hex()}" for iface, packet in history)
                    + f"\n{Pair(kernel, sysctl).play(flow, history)}",
                    pytrace=False,
                )


# ── the two, side by side ───────────────────────────────────────────────────────────────────────────


class Pair:
    """An emptied kernel and a new engine, compared after each packet."""

    def __init__(self, kernel: Kernel, sysctl: dict[str, int]) -> None:
        kernel.flush()
        self.kernel = kernel
        self.engine = Engine(sysctl={"nf_conntrack_acct": 1, **sysctl}, seed=1)

    def step(self, flow: Flow, iface: str, packet: bytes) -> str:
        """Send one packet to both; returns how they differ, empty if they do not."""
        out_iface = "out0" if iface == "in0" else "in0"
        kernel_out = self.kernel.send(packet, iface)
        outcome = self.engine.process(packet, time.time_ns(), iface=iface, out_iface=out_iface)
        kernel_class = self.kernel.ctstate
        if [name for name, _ in kernel_out] != [out_iface] * len(outcome.packets):
            return f"kernel sent {kernel_out}, engine {outcome.to_dict()}"
        for (_, theirs), ours in zip(kernel_out, outcome.packets, strict=True):
            if unrouted(theirs) != unrouted(ours):
                return f"bytes: kernel {theirs.hex()}, engine {ours.hex()}"
        if kernel_class and kernel_class != outcome.ctinfo:
            return f"class: kernel {kernel_class}, engine {outcome.to_dict()}"
        entry = self.kernel.entry(flow.proto, flow.tuple)
        conn = self.engine.find(Tuple(flow.proto, **flow.tuple).key(), flow.proto)
        if entry and not flow.seen:
            flow.seen = time.monotonic()
        return difference_of(entry, conn and conn.to_dict(time.time_ns()), outcome.reason)

    def play(self, flow: Flow, steps: list[Step]) -> str:
        """Send a history; returns the first difference."""
        return next((text for iface, packet in steps if (text := self.step(flow, iface, packet))), "")

    def engine_table(self) -> dict[Key, dict[str, Any]]:
        """The engine's connections, each under both its tuples."""
        table = {}
        for conn in self.engine.conns():
            record = conn.to_dict(time.time_ns())
            table[key(record["proto"], record["orig"])] = table[key(record["proto"], record["reply"])] = record
        return table

    def compare_tables(self) -> str:
        """The engine's own invariants, then every entry of either side."""
        self.engine.check()
        theirs = {key(conn["proto"], conn["orig"]): conn for conn in self.kernel.table()}
        ours = self.engine_table()
        for name, conn in theirs.items():
            if text := difference_of(conn, ours.get(name), "whole table"):
                return text
        extra = [conn for name, conn in ours.items() if key(conn["proto"], conn["orig"]) == name not in theirs]
        return next((text for conn in extra if (text := difference_of(None, conn, "whole table"))), "")

    def deadline_is_near(self, flow: Flow) -> bool:
        """Whether the next packet may fall on different sides of a moment: expiry, or UDP's two seconds."""
        conn = self.kernel.entry(flow.proto, flow.tuple)
        if conn and conn["timeout"] <= 1:
            return True
        return flow.proto == UDP and flow.seen > 0 and abs(time.monotonic() - flow.seen - 2) < 0.05


Key = tuple[int, str, str, int, int]
COMPARED = ("family", "proto", "orig", "reply", "status", "state", "packets", "bytes", "mark", "zone")


def key(proto: int, end: dict[str, Any]) -> Key:
    return proto, end["src"], end["dst"], end["sport"], end["dport"]


def difference_of(theirs: dict[str, Any] | None, ours: dict[str, Any] | None, reason: str) -> str:
    """How two records of one connection differ. Entries about to expire may be gone from either side."""
    if theirs is None or ours is None:
        left = (theirs or ours or {}).get("timeout", 0)
        return f"entry: kernel {theirs}, engine {ours} ({reason})" if left > 1 else ""
    wrong = [name for name in COMPARED if theirs.get(name, 0) != ours.get(name, 0)]
    if abs(theirs["timeout"] - ours["timeout"]) > 1:
        wrong.append("timeout")
    return "; ".join(f"{name}: kernel {theirs.get(name)}, engine {ours.get(name)} ({reason})" for name in wrong)


def unrouted(packet: bytes) -> bytes:
    """The packet without what routing changes: TTL or hop limit, and IPv4's header checksum."""
    if packet[0] >> 4 == 6:
        return packet[:7] + packet[8:]
    return packet[:8] + packet[9:10] + packet[12:]


def shortest(steps: list[Step], differs: Callable[[list[Step]], str]) -> list[Step]:
    """Leave out every step that the difference does not need. All of them, if it does not come again."""
    if not differs(steps):
        return steps
    for index in reversed(range(len(steps))):
        fewer = steps[:index] + steps[index + 1 :]
        if differs(fewer):
            steps = fewer
    return steps


# ── conversations ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class End:
    """One end's side of a conversation, as it sees it."""

    iface: str
    address: bytes
    port: int
    next: int = 0  # sequence number of its next octet
    window: int = 0
    scale: int = 0


@dataclass
class Flow:
    """A conversation between two ends; the first one begins it."""

    proto: int
    ends: tuple[End, End]
    stage: str = "idle"  # TCP: idle, syn, open, closed
    fins: int = 0  # 1: of the first end, 2: of the second
    opener: int = 0  # who sent the SYN
    steps: list[Step] = field(default_factory=list)
    seen: float = 0.0  # when the kernel first had an entry for it

    @property
    def tuple(self) -> dict[str, Any]:
        (one, two) = self.ends
        src, dst = (str(ipaddress.ip_address(end.address)) for end in self.ends)
        return {"src": src, "dst": dst, "sport": one.port, "dport": two.port}

    def next(self, rng: random.Random) -> Step:
        """The next packet: often the sensible one, sometimes an old one again."""
        if self.steps and rng.random() < 0.07:
            return rng.choice(self.steps[-6:])
        side, body = (tcp_segment if self.proto == TCP else udp_datagram)(rng, self)
        one, two = self.ends[side], self.ends[1 - side]
        return one.iface, in_ip(rng, self.proto, one.address, two.address, body)


def new_flow(rng: random.Random, number: int) -> Flow:
    inner, outer = f"10.0.0.{rng.randint(2, 5)}", f"203.0.113.{rng.randint(2, 5)}"
    if number & 4:
        inner, outer = f"fd00:1::{rng.randint(2, 5)}", f"2001:db8:c::{rng.randint(2, 5)}"
    ends = (
        End("in0", ipaddress.ip_address(inner).packed, rng.choice((0, 1, 1024, 65535, *range(2000, 2050)))),
        End("out0", ipaddress.ip_address(outer).packed, 10000 + number % 50000),
    )
    return Flow(TCP if number & 3 else UDP, ends if rng.random() < 0.75 else ends[::-1])


# What an open TCP conversation does next, and how often.
OPEN = {
    "data": 40,
    "ack": 25,
    "fin": 12,
    "rst": 4,
    "syn": 4,
    "synack": 3,
    "keepalive": 3,
    "sack": 6,
    "odd": 3,
}
FLAGS = {"data": PSH | ACK, "fin": FIN | ACK, "syn": SYN, "synack": SYN | ACK}


def tcp_segment(rng: random.Random, flow: Flow) -> tuple[int, bytes]:
    """Choose what happens next in a TCP conversation; returns the side that sends and the segment."""
    side, what = choose(rng, flow)
    me, peer = flow.ends[side], flow.ends[1 - side]
    if what == "syn" and flow.stage in ("idle", "closed"):
        me.next, me.window = rng.choice((0, 2**32 - 1, 2**31, rng.getrandbits(32))), random_window(rng)
        flow.opener = side
    if what == "synack" and flow.stage == "syn":
        me.next, me.window = rng.getrandbits(32), random_window(rng)
    if rng.random() < 0.1:
        me.window = random_window(rng)
    flags = FLAGS.get(what, ACK)
    if what == "rst":
        flags = rng.choice((RST, RST | ACK, RST | ACK))
    if what == "odd":
        flags = rng.getrandbits(8)
    payload = rng.choice((1, 10, 100, 1000)) if what == "data" or rng.random() < 0.03 else 0
    seq, ack = me.next, peer.next if flags & ACK or rng.random() < 0.1 else 0
    plain = rng.random() > 0.08
    if what == "keepalive":
        seq, payload = seq - 1, rng.choice((0, 1))
    elif plain:
        me.next = (seq + payload + bool(flags & SYN) + bool(flags & FIN)) % 2**32
    else:
        seq += rng.choice((0, shift(rng, peer)))
        ack += rng.choice((0, shift(rng, me)))
    flow.stage, flow.fins = stage_after(flow, side, what, plain)
    options = syn_options(rng, me) if flags & SYN else data_options(rng, peer, what)
    body = bytearray(
        struct.pack(
            "!HHIIBBHHH",
            *(me.port, peer.port, seq % 2**32, ack % 2**32),
            *((20 + len(options)) << 2, flags, me.window, 0, rng.getrandbits(16) if flags & URG else 0),
        )
        + options
        + rng.randbytes(payload)
    )
    body[16:18] = checksum(rng, TCP, me, peer, bytes(body))
    if rng.random() < 0.01:
        body[12] = rng.getrandbits(4) << 4  # a data offset that lies
    if rng.random() < 0.01:
        del body[rng.randrange(24) :]
    return side, bytes(body)


def choose(rng: random.Random, flow: Flow) -> tuple[int, str]:
    """Who does what next."""
    if flow.stage == "idle":
        return (0, "syn") if rng.random() < 0.85 else (rng.randrange(2), rng.choice(list(OPEN)))
    if flow.stage == "syn" and rng.random() < 0.95:
        if rng.random() < 0.15:
            return flow.opener, "syn"
        return 1 - flow.opener, rng.choice(("synack",) * 12 + ("syn", "rst", "ack"))
    if flow.stage == "closed" and rng.random() < 0.25:
        return rng.choice((0, 0, 0, 1)), "syn"
    what = rng.choices(list(OPEN), list(OPEN.values()))[0]
    return rng.randrange(2), "ack" if flow.stage == "closed" and what == "data" else what


def stage_after(flow: Flow, side: int, what: str, plain: bool) -> tuple[str, int]:
    """Where the conversation stands after a packet that was not tampered with; who said FIN."""
    if not plain:
        return flow.stage, flow.fins
    if what == "syn" and flow.stage in ("idle", "closed"):
        return "syn", 0
    if flow.stage in ("idle", "syn") and what != "syn":
        return ("closed" if what == "rst" else "open"), 0
    fins = flow.fins | (1 << side if what == "fin" else 0)
    return ("closed" if what == "rst" or (fins == 3 and what == "ack") else flow.stage), fins


def random_window(rng: random.Random) -> int:
    return rng.choice((0, 1, 100, 1000, 8192, 65535))


def shift(rng: random.Random, receiver: End) -> int:
    """A distance worth trying: about the receiver's window, conntrack's 66,000, half the number space."""
    window = receiver.window << receiver.scale
    edge = rng.choice((0, window, -window, 66000, -66000, 2**31, rng.getrandbits(32)))
    return edge + rng.choice((-2, -1, 0, 0, 1, 2))


TIMESTAMP = b"\x01\x01\x08\x0a" + bytes(8)


def syn_options(rng: random.Random, me: End) -> bytes:
    """MSS, window scale, SACK permitted, timestamps: each maybe; sometimes a length that lies."""
    options = b""
    me.scale = 0
    if rng.random() < 0.7:
        options += b"\x02\x04" + struct.pack("!H", 1460)
    if rng.random() < 0.6:
        me.scale = rng.choice((0, 1, 3, 7, 14, 15))
        options += bytes((1, 3, 3, me.scale))
    if rng.random() < 0.6:
        options += b"\x01\x01\x04\x02"
    if rng.random() < 0.4:
        options += TIMESTAMP
    if rng.random() < 0.05:
        options += rng.choice((b"\x03\x00\x03\x07", b"\x03\x09\x03\x07", b"\x00\x00\x00\x00", b"\xfe\x04\x00\x00"))
    return options


def data_options(rng: random.Random, peer: End, what: str) -> bytes:
    """Nothing, timestamps, or SACK blocks about what the peer sent or did not send."""
    if what != "sack":
        return TIMESTAMP if rng.random() < 0.3 else b""
    edges = []
    for _ in range(rng.randint(1, 3)):
        left = peer.next + rng.choice((-1000, -10, 0, 0, 1, shift(rng, peer)))
        edges += [left % 2**32, (left + rng.choice((1, 10, 1000))) % 2**32]
    block = bytes((5, 2 + 4 * len(edges))) + struct.pack(f"!{len(edges)}I", *edges)
    return rng.choice((b"\x01\x01" + block, block + b"\x00\x00", b"\x08\x0a" + bytes(8) + block))


def udp_datagram(rng: random.Random, flow: Flow) -> tuple[int, bytes]:
    """A datagram of either side; its length or checksum may lie, or most of it be missing."""
    side = rng.choice((0, 0, 1)) if flow.steps else 0
    me, peer = flow.ends[side], flow.ends[1 - side]
    length = 8 + (payload := rng.choice((0, 1, 5, 60, 1000)))
    said = rng.choice((0, 7, 8, length - 1, length + 1, 65535)) if rng.random() < 0.1 else length
    body = bytearray(struct.pack("!HHHH", me.port, peer.port, said, 0) + rng.randbytes(payload))
    if rng.random() > 0.1:  # else 0: no checksum
        body[6:8] = checksum(rng, UDP, me, peer, bytes(body))
    if rng.random() < 0.02:
        del body[rng.randrange(9) :]
    return side, bytes(body)


# ── octets ──────────────────────────────────────────────────────────────────────────────────────────


def inet_checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def checksum(rng: random.Random, proto: int, me: End, peer: End, body: bytes) -> bytes:
    """The right one, rarely a wrong one. Covers what the length field of UDP says, as a receiver does."""
    if rng.random() < 0.02:
        return rng.randbytes(2)
    said = struct.unpack("!H", body[4:6])[0] if proto == UDP else len(body)
    length = said if 8 <= said <= len(body) else len(body)
    right = inet_checksum(me.address + peer.address + struct.pack("!HH", proto, length) + body[:length])
    return b"\xff\xff" if proto == UDP and right == b"\0\0" else right


def in_ip(rng: random.Random, proto: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    """Wrap in IPv4 (rarely with options) or IPv6 (rarely with an extension header); rarely with a trailer.

    No trailer behind nothing: octets behind a length of 0 are a super-packet to the engine (wire/packet.py),
    which the kernel decides by knowing its card.
    """
    trailer = rng.randbytes(6) if body and rng.random() < 0.02 else b""
    if len(source) == 16:
        first = proto
        if rng.random() < 0.04:
            first, body = rng.choice((0, 60)), bytes((proto, 0, 1, 4, 0, 0, 0, 0)) + body  # PadN
        flow_label = 0x60000000 | rng.getrandbits(20)
        return struct.pack("!IHBB", flow_label, len(body), first, 64) + source + destination + body + trailer
    options = b"\x01\x01\x01\x00" if rng.random() < 0.03 else b""
    words, length = 5 + len(options) // 4, 20 + len(options) + len(body)
    fixed = struct.pack("!BBHHHBB", 0x40 | words, 0, length, rng.getrandbits(16), 0x4000, 64, proto)
    rest = source + destination + options
    return fixed + inet_checksum(fixed + rest) + rest + body + trailer


def describe(packet: bytes) -> str:
    """One line for people: protocol, ports, flags, numbers."""
    proto, body = packet[6], packet[40:]
    if packet[0] >> 4 == 4:
        proto, body = packet[9], packet[(packet[0] & 15) * 4 :]
    elif proto in (0, 60):
        proto, body = packet[40], packet[48:]
    name = {TCP: "TCP", UDP: "UDP"}[proto]
    if len(body) < (20 if proto == TCP else 8):
        return f"{name} cut to {len(body)} octets"
    sport, dport, seq, ack, offset, flags, window = struct.unpack("!HHIIBBH", body[:16].ljust(16, b"\0"))
    if proto == UDP:
        return f"UDP {sport}>{dport} says {seq >> 16}, is {len(body)}"
    letters = "".join(letter for bit, letter in enumerate("FSRPAUEC") if flags >> bit & 1)
    return f"TCP {sport}>{dport} {letters} {seq} {ack} win {window} len {len(body) - (offset >> 4) * 4}"
