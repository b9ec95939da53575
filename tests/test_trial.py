"""A trial leaves no trace: everything the engine remembers is photographed before and after.

The picture is taken by walking every attribute of every object that can be reached from the engine, so a new
attribute cannot be forgotten.
"""

from __future__ import annotations

import random
import types
from typing import Any

import packets
import pytest
from packets import ICMP, TCP, UDP, ip

from conntrack import Dnat, Engine, Masquerade

CLIENTS = [f"10.0.0.{number}" for number in range(2, 8)]
SERVERS = ["192.0.2.1", "192.0.2.2"]
RULES = [Dnat("10.0.0.3", destination="192.0.2.2", protocol="udp", ports="70-71"), Masquerade("203.0.113.1")]


# ── the picture ─────────────────────────────────────────────────────────────────────────────────────


def picture(root: Any) -> list[Any]:
    """Everything reachable from `root`, as a list of plain values; objects are numbered as they are met.

    The order of a dict plays no part unless it is an OrderedDict.
    """
    numbers: dict[int, int] = {}
    keep: list[Any] = []  # so that no id is used twice
    out: list[Any] = []
    waiting = [root]

    def show(thing: Any) -> Any:
        if thing is None or isinstance(thing, (int, str, bytes, float, type, types.ModuleType)):
            return thing if not isinstance(thing, (type, types.ModuleType)) else thing.__name__
        if isinstance(thing, (types.FunctionType, types.BuiltinFunctionType)):
            return thing.__qualname__
        if isinstance(thing, types.MethodType):
            return thing.__func__.__qualname__, show(thing.__self__)
        if isinstance(thing, tuple):
            return type(thing).__name__, *map(show, thing)
        if isinstance(thing, (set, frozenset)):
            return "set", *sorted(map(repr, thing))
        if id(thing) not in numbers:
            numbers[id(thing)] = len(numbers)
            keep.append(thing)
            waiting.append(thing)
        return f"{type(thing).__name__} #{numbers[id(thing)]}"

    while waiting:
        thing = waiting.pop(0)
        name = show(thing)
        if isinstance(thing, dict):
            items = list(thing.items())
            if type(thing) is dict:
                items.sort(key=lambda item: repr(item[0]))
            out.append((name, [(show(key), show(value)) for key, value in items]))
        elif isinstance(thing, (list, bytearray)) or type(thing).__name__ in ("deque", "SortedDict", "SortedList"):
            rows = list(thing.items()) if hasattr(thing, "items") else list(thing)
            out.append((name, [show(row) for row in rows]))
        else:
            slots = {slot for cls in type(thing).__mro__ for slot in getattr(cls, "__slots__", ())}
            fields = sorted(slots | set(getattr(thing, "__dict__", {})))
            out.append((name, [(field, show(getattr(thing, field, "unset"))) for field in fields]))
    return out


@pytest.mark.interpreted("the picture looks into slots by name")
def test_the_picture_shows_the_smallest_change() -> None:
    engine, _ = traffic(1, 30)
    before = picture(engine)
    assert picture(engine) == before
    conn = next(engine.conns())
    conn.deadline += 1
    assert picture(engine) != before
    conn.deadline -= 1
    engine._table.by_protocol[7][b"key"] = conn
    assert picture(engine) != before


# ── traffic ─────────────────────────────────────────────────────────────────────────────────────────


class Source:
    """Random packets that open, answer, close, break, fragment and report."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.sent: list[bytes] = [b""]
        self.half: list[bytes] = []  # fragments not yet sent

    def next(self) -> tuple[bytes, float]:
        rng = self.rng
        self.now += rng.choice((0.0, 0.0, 0.1, 1.0, 3.0, 12.0))
        if rng.random() < 0.01:
            self.now += 70.0
        return self.packet(), self.now

    def packet(self) -> bytes:
        rng = self.rng
        what = rng.random()
        if self.half and what < 0.3:
            return self.half.pop(rng.randrange(len(self.half)))
        if what < 0.4:
            return self.back(rng.choice(self.sent))
        src, dst, sport, dport = (
            rng.choice(CLIENTS),
            rng.choice(SERVERS),
            rng.randrange(1000, 1004),
            rng.choice((53, 80)),
        )
        if what < 0.45:
            return ip("198.18.0.1", src, ICMP, packets.icmp_error(3, 3, rng.choice(self.sent)))
        if what < 0.55:
            datagram = packets.sealed(src, dst, UDP, packets.udp(sport, dport, rng.randbytes(60)))
            number = rng.randrange(6)
            self.half += [
                packets.ipv4(src, dst, UDP, datagram[at : at + 24], fragment=word, identification=number)
                for at, word in ((0, 0x2000), (24, 0x2003), (48, 0x0006))
            ]
            return self.half.pop()
        if what < 0.7:
            return ip(src, dst, UDP, packets.udp(sport, dport, rng.randbytes(9)))
        if what < 0.75:
            return ip(src, dst, ICMP, packets.icmp(rng.choice((8, 0, 13)), 0, rng.randrange(3)))
        flags = rng.choice(("S", "S", "A", "PA", "FA", "R"))
        return ip(src, dst, TCP, packets.tcp(sport, dport, flags, rng.getrandbits(32), rng.getrandbits(32)))

    def back(self, packet: bytes) -> bytes:
        """Something from whoever got `packet`."""
        rng = self.rng
        least = 28 if packet and packet[0] >> 4 == 4 else 48
        if len(packet) < least or packets.protocol(packet) not in (TCP, UDP):
            return rng.randbytes(30)
        src, dst = packets.addresses(packet)[::-1]
        dport, sport = packets.ports(packet)
        if packets.protocol(packet) == UDP:
            return ip(src, dst, UDP, packets.udp(sport, dport, b"back"))
        ack = (int.from_bytes(packet[24:28], "big") + 1) % 2**32
        flags = rng.choice(("SA", "A", "RA", "FA"))
        return ip(src, dst, TCP, packets.tcp(sport, dport, flags, int.from_bytes(packet[28:32], "big"), ack))

    def saw(self, out: tuple[bytes, ...]) -> None:
        self.sent = (self.sent + list(out))[-20:]


def make(gc: str, nat: bool, listening: bool, limit: int) -> Engine:
    settings = {"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1, "nf_conntrack_timestamp": 1,
                "nf_conntrack_max": limit}  # fmt: skip
    engine = Engine(RULES if nat else None, settings, seed=3, gc=gc)
    if listening:
        assert len(engine.events) == 0
    return engine


def traffic(seed: int, steps: int, **world: Any) -> tuple[Engine, Source]:
    """An engine and the source of the traffic that it has seen."""
    engine = make(**{"gc": "linux", "nat": True, "listening": True, "limit": 40} | world)
    source = Source(seed)
    for _ in range(steps):
        packet, now = source.next()
        source.saw(engine.process(packet, now).packets)
    return engine, source


WORLDS = [
    {"gc": "linux", "nat": True, "listening": True, "limit": 40},
    {"gc": "linux", "nat": True, "listening": False, "limit": 0},
    {"gc": "linux", "nat": False, "listening": True, "limit": 12},
    {"gc": "eager", "nat": True, "listening": True, "limit": 0},
    {"gc": "eager", "nat": False, "listening": False, "limit": 25},
]


# ── the test ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "world", WORLDS, ids=lambda world: " ".join(f"{key}={value}" for key, value in world.items())
)
@pytest.mark.parametrize("seed", range(4))
def test_a_trial_leaves_no_trace(seed: int, world: dict[str, Any]) -> None:
    engine, source = traffic(seed, 150, **world)
    for length in (0, 1, 3, 40, 150):
        before = picture(engine)
        packets_of_trial = []
        tried = []
        state = (source.rng.getstate(), source.now, list(source.sent), list(source.half))
        with engine.trial() as inside:
            assert inside is engine
            for _ in range(length):
                packet, now = source.next()
                outcome = engine.process(packet, now)
                packets_of_trial.append((packet, now))
                tried.append(outcome.to_dict() | {"out": outcome.packets})
                source.saw(outcome.packets)
        assert picture(engine) == before
        engine.check()
        if length == 40:
            # afterwards the same packets meet the same fate
            for (packet, now), expected in zip(packets_of_trial, tried, strict=True):
                outcome = engine.process(packet, now)
                assert outcome.to_dict() | {"out": outcome.packets} == expected
        else:
            source.rng.setstate(state[0])
            source.now, source.sent, source.half = state[1:]


def test_a_trial_ends_well_even_if_it_ends_badly() -> None:
    engine, source = traffic(9, 60)
    before = picture(engine)
    with pytest.raises(RuntimeError, match="enough"), engine.trial():
        for _ in range(20):
            engine.process(*source.next())
        raise RuntimeError("enough")
    assert picture(engine) == before


def test_what_is_flushed_in_a_trial_is_there_again() -> None:
    engine, _ = traffic(5, 80)
    before, listing = picture(engine), engine.listing()
    before = picture(engine)
    with engine.trial():
        assert engine.flush() > 0
        assert engine.listing() == "" and engine.count() == 0
    assert picture(engine) == before and engine.listing() == listing


def test_what_a_trial_ends_is_not_told_to_anybody() -> None:
    engine, _ = traffic(5, 80)
    told = []
    engine.on_end = told.append
    waiting = len(engine.events)
    with engine.trial():
        engine.flush()
        engine.advance(10**6)
    assert told == [] and len(engine.events) == waiting


def test_trials_do_not_nest() -> None:
    engine, _ = traffic(1, 5)
    with engine.trial(), pytest.raises(ValueError, match="already running"), engine.trial():
        pass


def test_a_connection_touched_in_a_trial_reads_as_before() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1})
    query = ip("10.0.0.2", "192.0.2.1", UDP, packets.udp(1, 2))
    conn = engine.process(query, 0.0).conn
    assert conn is not None
    before = conn.to_dict()
    with engine.trial():
        engine.process(query, 9.0)
        assert conn.packets == (2, 0)
    assert conn.to_dict() == before
