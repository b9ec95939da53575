"""Random traffic through the engine and the slow model: same verdicts, classes, octets and tables, step by step.

A failure names the seed and the step.  More steps or other seeds:  MODEL_STEPS=20000 MODEL_SEED=7 pytest …
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from functools import cache, partial
from ipaddress import ip_address
from typing import Any

import packets
import pytest
from draws import Draws
from model import Model
from packets import ICMP, ICMPV6, TCP, UDP, ip

from conntrack import Dnat, Engine, Masquerade, Snat, Tuple
from conntrack.table import Table
from conntrack.verdict import status_names

STEPS = int(os.environ.get("MODEL_STEPS", "700"))
SEED = int(os.environ.get("MODEL_SEED", "1"))
SECOND = 10**9


# ── worlds: rules in both spellings, settings ───────────────────────────────────────────────────────


@dataclass(frozen=True)
class World:
    """What is configured, and which traffic comes."""

    name: str
    rules: list[tuple[Any, dict[str, Any]]] | None = None
    sysctl: dict[str, int] = field(default_factory=dict)
    clients: int = 3
    servers: int = 2
    ports: int = 4
    jumps: tuple[float, ...] = (0.0, 0.001, 0.4, 3.0)
    protocols: tuple[int, ...] = (TCP, TCP, TCP, UDP, ICMP)

    def engine_rules(self) -> list[Any] | None:
        return None if self.rules is None else [rule for rule, _ in self.rules]

    def model_rules(self) -> list[dict[str, Any]] | None:
        return None if self.rules is None else [rule for _, rule in self.rules]


def masquerade(low: int | None = None, high: int | None = None, **more: Any) -> list[tuple[Any, dict[str, Any]]]:
    rules: list[tuple[Any, dict[str, Any]]] = []
    for address, source in (("203.0.113.1", "10.0.0.0/8"), ("2001:db8:f::1", "fd00::/8")):
        wanted = {"side": "src", "low": address, "high": address, "source": source} | more
        if low is None:
            rules.append((Masquerade(address, source=source, **more), wanted))
            continue
        for proto, number in (("tcp", TCP), ("udp", UDP)):
            rule = Masquerade(address, source=source, protocol=proto, ports=(low, high), **more)
            rules.append((rule, wanted | {"ports": (low, high), "proto": number}))
        rules.append((Masquerade(address, source=source, **more), wanted))
    return rules


POOL = [
    (
        Snat("198.51.100.8-198.51.100.11", source="10.0.0.0/8", persistent=True, destination="192.0.2.2"),
        {"side": "src", "low": "198.51.100.8", "high": "198.51.100.11", "source": "10.0.0.0/8",
         "destination": "192.0.2.2/32", "persistent": True},
    ),
    (
        Snat("198.51.100.8-198.51.100.11", source="10.0.0.0/8"),
        {"side": "src", "low": "198.51.100.8", "high": "198.51.100.11", "source": "10.0.0.0/8"},
    ),
    (
        Snat("2001:db8:f::-2001:db8:f:ffff::1", source="fd00::/8"),
        {"side": "src", "low": "2001:db8:f::", "high": "2001:db8:f:ffff::1", "source": "fd00::/8"},
    ),
]  # fmt: skip
INWARD = [
    (
        Dnat("10.0.0.2-10.0.0.4", destination="192.0.2.2", protocol="tcp", dport=81, ports="7000-7002"),
        {"side": "dst", "low": "10.0.0.2", "high": "10.0.0.4", "destination": "192.0.2.2/32", "proto": TCP,
         "dport": 81, "ports": (7000, 7002)},
    ),
    (
        Dnat("10.0.0.3", destination="192.0.2.2", protocol="udp", ports="9000-9001", base=81),
        {"side": "dst", "low": "10.0.0.3", "high": "10.0.0.3", "destination": "192.0.2.2/32", "proto": UDP,
         "ports": (9000, 9001), "base": 81},
    ),
    (Dnat("10.0.0.2", destination="192.0.2.2"),
     {"side": "dst", "low": "10.0.0.2", "high": "10.0.0.2", "destination": "192.0.2.2/32"}),
    (Dnat("fd00::3", destination="2001:db8::2"),
     {"side": "dst", "low": "fd00::3", "high": "fd00::3", "destination": "2001:db8::2/128"}),
]  # fmt: skip

WORLDS = [
    World("tracking only"),
    World("tracking, odd sysctls", sysctl={
        "tcp_loose": 0, "tcp_ignore_invalid_rst": 1, "tcp_max_retrans": 1, "tcp_timeout_unacknowledged": 40,
        "tcp_timeout_established": 130, "udp_timeout": 5, "udp_timeout_stream": 9,
    }),
    World("tracking, liberal", sysctl={"tcp_be_liberal": 1, "tcp_timeout_max_retrans": 50}),
    World("null bindings only", rules=[]),
    World("masquerade", rules=masquerade()),
    World("masquerade at random", rules=masquerade(random=True)),
    World("masquerade to few ports", rules=masquerade(1024, 1031), clients=5),
    World("masquerade to one port", rules=masquerade(5000, 5000), jumps=(0.0, 0.4, 9.0, 40.0)),
    World("pools", rules=POOL),
    World("inward", rules=INWARD),
    World("inward and masquerade: hairpins", rules=INWARD + masquerade()),
    World("long gaps", rules=masquerade(), jumps=(0.0, 1.0, 29.9, 31.0, 119.0, 700.0)),
    World("full table", sysctl={"max": 20}, clients=40, servers=20, ports=9),
    World("full table, assured flows", sysctl={"max": 120}, clients=40, servers=20, ports=9, jumps=(0.0, 1.1)),
    World("full table behind masquerade", rules=masquerade(), sysctl={"max": 30}, clients=9, servers=9, ports=9),
]  # fmt: skip


# ── traffic ─────────────────────────────────────────────────────────────────────────────────────────


class Traffic:
    """Conversations that mostly behave.  Answers go to where the last packet seemed to come from."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self.rng, self.world = rng, world
        self.recent: list[bytes] = []  # what left the box: what can be answered, quoted, repeated
        self.numbers: dict[tuple[str, str, int, int], dict[str, int]] = {}  # TCP: what each direction sends next

    def next(self) -> bytes:
        rng = self.rng
        what = rng.random()
        if self.recent and what < 0.5:
            return self.spoil(self.answer(rng.choice(self.recent)))
        if self.recent and what < 0.56:
            return self.spoil(self.error_about(rng.choice(self.recent)))
        if self.recent and what < 0.6:
            return rng.choice(self.recent)
        return self.spoil(self.opening())

    def saw(self, out: list[bytes]) -> None:
        self.recent = (self.recent + out)[-30:]

    def opening(self) -> bytes:
        rng, world = self.rng, self.world
        v6 = rng.random() < 0.35
        client, server = 2 + rng.randrange(world.clients), 1 + rng.randrange(world.servers)
        inside = f"fd00::{client:x}" if v6 else f"10.0.0.{client}"
        far = f"2001:db8::{server:x}" if v6 else f"192.0.2.{server}"
        if rng.random() < 0.15:
            inside, far = far, inside
        if rng.random() < 0.1:  # to the box's own public address: answers of nobody, or of a flow
            far = "2001:db8:f::1" if v6 else "203.0.113.1"
        proto = rng.choice(world.protocols + (50,) * (rng.random() < 0.05))
        sport = rng.choice((100, 700, 1024, 3000, 1025, 5000)[: max(world.ports, 2)])
        if world.ports > 6:
            sport = rng.randrange(1024, 1024 + 200)
        dport = 80 + rng.randrange(2)
        if proto == TCP:
            return self.segment(inside, far, sport, dport, rng.choice(("S", "S", "S", "A", "PA")))
        if proto == UDP:
            l4 = packets.udp(sport, dport, rng.randbytes(rng.choice((0, 1, 7, 40))))
            return ip(inside, far, UDP, l4, seal=rng.random() > 0.15)  # unsealed: no checksum at all
        if proto == ICMP:
            kind = rng.choice((128, 128, 139, 129, 144, 200, 135) if v6 else (8, 8, 8, 13, 15, 17, 0, 9, 19))
            echo = packets.icmp(kind, rng.choice((0, 0, 5)), rng.randrange(3), rng.randrange(9), b"ping")
            return ip(inside, far, ICMPV6 if v6 or rng.random() < 0.02 else ICMP, echo)
        return ip(inside, far, proto, rng.randbytes(12))

    def answer(self, packet: bytes) -> bytes:
        """Something that the receiver, or the sender again, might send now."""
        rng = self.rng
        src, dst = packets.addresses(packet)
        proto = packets.protocol(packet)
        back = rng.random() < 0.7
        if back:
            src, dst = dst, src
        l4 = packet[packets.header_length(packet) :]
        if proto in (TCP, UDP) and len(l4) >= 4:
            sport, dport = packets.ports(packet)[::-1] if back else packets.ports(packet)
            if proto == UDP:
                return ip(src, dst, UDP, packets.udp(sport, dport, rng.randbytes(rng.choice((0, 3, 30)))))
            flags = "SA" if back and len(l4) > 13 and l4[13] & 0x12 == 2 and rng.random() < 0.8 else None
            kinds = ("A", "A", "PA", "PA", "FA", "R", "RA", "S", "SA", "SF", "")
            weights = (30, 30, 25, 25, 20, 4, 4, 6, 4, 1, 1)
            return self.segment(src, dst, sport, dport, flags or rng.choices(kinds, weights)[0])
        if proto in (ICMP, ICMPV6) and len(l4) >= 8:
            answers = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}
            kind = answers.get(l4[0], l4[0]) if back else l4[0]
            return ip(src, dst, proto, bytes((kind,)) + l4[1:])
        return ip(src, dst, proto, l4, seal=False)

    def segment(self, src: str, dst: str, sport: int, dport: int, flags: str) -> bytes:
        rng = self.rng
        mine = self.numbers.setdefault((src, dst, sport, dport), {"next": rng.getrandbits(32), "win": 1000})
        peer = self.numbers.setdefault((dst, src, dport, sport), {"next": rng.getrandbits(32), "win": 1000})
        if flags == "S" and rng.random() < 0.6:
            mine["next"] = rng.choice((rng.getrandbits(32), mine["next"] + 100000, 2**32 - 3)) % 2**32
        if rng.random() < 0.2:
            mine["win"] = rng.choice((0, 1, 100, 1000, 65535))
        seq, ack = mine["next"], peer["next"] if "A" in flags or rng.random() < 0.1 else 0
        size = rng.choice((1, 10, 500)) if "P" in flags or rng.random() < 0.04 else 0
        if rng.random() < 0.9:
            mine["next"] = (seq + size + ("S" in flags) + ("F" in flags)) % 2**32
        else:
            win = peer["win"]
            edges = (0, 1, -1, win, -win, win + 1, 66000, -66000, 2**31, rng.getrandbits(32))
            seq, ack = seq + rng.choice(edges), ack + rng.choice(edges)
        options = b""
        if "S" in flags:
            options = packets.tcp_options(
                wscale=rng.choice((None, None, 0, 3, 7, 15)), sackok=rng.random() < 0.5, ts=rng.random() < 0.3
            )
        elif rng.random() < 0.15:
            left = (peer["next"] + rng.choice((-10, 0, 5))) % 2**32
            options = packets.tcp_options(sack=[(left, (left + rng.choice((1, 10, 800))) % 2**32)])
        elif rng.random() < 0.2:
            options = packets.tcp_options(ts=True)
        win = mine["win"]
        body = packets.tcp(sport, dport, flags, seq % 2**32, ack % 2**32, win, rng.randbytes(size), options)
        return ip(src, dst, TCP, body)

    def error_about(self, packet: bytes) -> bytes:
        """What a router, or the receiver, says about a packet that left the box."""
        rng = self.rng
        src, dst = packets.addresses(packet)
        v6 = ":" in src
        header = packets.header_length(packet)
        quote = packet[: header + rng.choice((2, 4, 7, 8, 8, 8, 19, 20, 400))]
        reporter = dst if rng.random() < 0.5 else ("2001:db8:9::9" if v6 else "198.18.0.1")
        to = src if rng.random() < 0.95 else dst
        kind = rng.choice((1, 2, 3, 4, 100)) if v6 else rng.choice((3, 3, 4, 5, 11, 12))
        return ip(reporter, to, ICMPV6 if v6 else ICMP, packets.icmp_error(kind, rng.randrange(3), quote))

    def spoil(self, packet: bytes) -> bytes:
        """Now and then something is broken."""
        rng = self.rng
        what = rng.random()
        if what < 0.02:
            at = rng.randrange(packets.header_length(packet), len(packet) or 1) if len(packet) > 40 else 0
            return packet[:at] + bytes((packet[at] ^ 1 << rng.randrange(8),)) + packet[at + 1 :] if at else packet
        if what < 0.03:
            return packet[: rng.randrange(len(packet))]
        if what < 0.04:
            return packet + b"padding"
        return packet


# ── the comparison ──────────────────────────────────────────────────────────────────────────────────

WORDS = {"SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SRC_NAT_DONE", "DST_NAT_DONE"}


@cache
def flow_of(key: bytes) -> tuple[str, str, int, int]:
    own = Tuple.from_key(key, 0)
    return own.src, own.dst, own.sport, own.dport


def engine_table(engine: Engine) -> list[Any]:
    return [
        (
            conn.proto, flow_of(conn.orig), flow_of(conn.reply), conn.state_name, set(status_names(conn.status)),
            conn.deadline, conn.packets, conn.bytes,
        )
        for conn in engine.conns()
    ]  # fmt: skip


def model_table(model: Model) -> list[Any]:
    return [
        (
            entry["proto"], entry["orig"], entry["reply"], entry.get("state", ""), entry["status"] & WORDS,
            entry["deadline"], tuple(entry["packets"]), tuple(entry["bytes"]),
        )
        for entry in model.entries
        if entry["deadline"] > model.now
    ]  # fmt: skip


@cache
def bucket_of(flow: tuple[str, str, int, int], proto: int, table: Table) -> int:
    src, dst, a, b = flow
    key = ip_address(src).packed + ip_address(dst).packed + a.to_bytes(2, "big") + b.to_bytes(2, "big")
    return table.bucket(key, proto)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_engine_and_model_agree_on_random_traffic(world: World) -> None:
    rng = random.Random(f"{SEED} {world.name}")
    sysctl = {"nf_conntrack_" + name: value for name, value in world.sysctl.items()}
    engine = Engine(
        world.engine_rules(),
        {"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1, **sysctl},
        choices=Draws(SEED),
    )
    places = Table(Draws(SEED), 512)  # only to ask where a tuple would stand
    model = Model(world.model_rules(), world.sysctl, Draws(SEED), partial(bucket_of, table=places))
    traffic = Traffic(rng, world)
    now = 1_700_000_000 * SECOND
    seen = set()
    for step in range(STEPS):
        now += int(rng.choice(world.jumps) * SECOND) - (rng.random() < 0.01) * SECOND
        packet = traffic.next()
        outcome = engine.process(packet, now)
        verdict, ctinfo, out = model.process(packet, now)
        where = f"seed {SEED} step {step} {outcome.to_dict()}\n{packet.hex()}"
        assert (outcome.verdict, outcome.ctinfo) == (verdict, ctinfo), where
        assert [octets.hex() for octets in outcome.packets] == [octets.hex() for octets in out], where
        assert engine_table(engine) == model_table(model), where
        assert engine.count() == len(model.entries), where
        stats = engine.stats.as_dict()
        assert {name: stats[name] for name in model.stats} == model.stats, where
        engine.check()
        seen.add((ctinfo, verdict))
        if ctinfo != "INVALID":
            traffic.saw(out)
    assert {("NEW", "ACCEPT"), ("ESTABLISHED", "ACCEPT"), ("INVALID", "ACCEPT")} <= seen
