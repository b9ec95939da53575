"""The fast path does to the bit what the stages do: every packet through two engines, one of them without it.

After each packet the outcomes are compared, whatever can be asked of them, and the connection's memory octet by
octet; at the end the whole table, the events and the counters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ICMP, ICMPV6, TCP, UDP, icmp, ip, tcp, transport_checksum, udp

from conntrack import Dnat, Engine, Masquerade, Outcome
from conntrack.conn import Conn
from conntrack.drivers.capture import open_capture
from conntrack.sysctl import SECOND
from conntrack.trackers import tcp as tracker
from conntrack.wire.link import locate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import traffic  # noqa: E402

CAPTURES = [
    path
    for folder in (ROOT / "captures", ROOT.parent / "shared" / "captures")
    for path in sorted(folder.glob("*.pcap*"))
]
GATEWAY = (Masquerade("203.0.113.5", source="10.0.0.0/8"), Masquerade("2001:db8:5::5", source="fd00::/8"))
EVERYTHING = (
    Dnat("10.9.9.9", protocol="tcp", ports=8080, destination="192.0.2.80"),
    Masquerade(("198.51.100.1", "2001:db8:b::1")),
)
INSIDE = ("10.0.0.0/8", "192.168.0.0/16")
OUTBOUND = (
    Masquerade("203.0.113.5", source=INSIDE, destination=[f"!{network}" for network in INSIDE]),
    Masquerade("2001:db8:5::5", source="fd00::/8", destination="!fd00::/8"),
)
Item = tuple[int, bytes, int]


def memory(conn: Conn | None) -> tuple[Any, ...] | None:
    """All that is remembered of a connection."""
    if conn is None:
        return None
    return conn.orig, conn.reply, conn.proto, conn.state, conn.status, conn.pending, conn.record


def asked(outcome: Outcome) -> tuple[Any, ...]:
    """All that can be asked of an outcome."""
    return (
        outcome.packets, outcome.verdict, outcome.ctinfo, outcome.direction, outcome.reason, outcome.detail,
        outcome.counted, outcome.rewritten, outcome.tuple, outcome.length, outcome.captured, outcome.reassembled,
        outcome.log_text(), outcome.to_dict(), memory(outcome.conn),
    )  # fmt: skip


def compare(packets: Iterable[Item], listen: bool = False, **how: Any) -> int:
    """Both engines over `packets` (time, octets, octets on the wire); how many took the fast path."""
    fast, staged = Engine(seed=5, **how), Engine(seed=5, fast=False, **how)
    engines = (fast, staged)
    streams = [engine.events for engine in engines] if listen else []
    for number, (now, packet, wire) in enumerate(packets):
        one, other = [asked(engine.process(packet, now, wire_length=wire)) for engine in engines]
        assert one == other, (number, packet.hex())
        assert fast.now == staged.now
        if listen:
            assert list(streams[0]) == list(streams[1])
    for engine in engines:
        engine.check()
    one, other = [{(conn.proto, conn.orig): memory(conn) for conn in engine.conns()} for engine in engines]
    assert one == other
    assert fast.listing(extended=True, show_id=True) == staged.listing(extended=True, show_id=True)
    assert fast.stats.text() == staged.stats.text()
    assert fast.stats.as_dict() | {"fast": 0} == staged.stats.as_dict()
    return fast.stats.fast


def captured(path: Path) -> Iterator[Item]:
    """The IP packets of a capture."""
    with open_capture(path) as reader:
        for frame in reader:
            offset, ethertype = locate(reader.linktype(frame.interface), frame.data)
            if offset >= 0 and ethertype in (0x0800, 0x86DD):
                yield frame.time, frame.data[offset:], frame.wire_length - offset


HOWS: dict[str, dict[str, Any]] = {
    "tracking": {},
    "masquerade": {"nat": EVERYTHING, "sysctl": {"nf_conntrack_acct": 1, "nf_conntrack_timestamp": 1}},
    "outbound": {"nat": OUTBOUND},
    "listened to": {"nat": EVERYTHING, "listen": True},
    "unverified, eager": {"nat": EVERYTHING, "sysctl": {"nf_conntrack_checksum": 0}, "gc": "eager"},
    "helpers": {"nat": EVERYTHING, "helpers": {("tcp", 21): "ftp", ("udp", 69): "tftp"}},
    "short lives": {"sysctl": {"nf_conntrack_tcp_timeout_established": 1, "nf_conntrack_udp_timeout": 1,
                               "nf_conntrack_tcp_max_retrans": 1, "nf_conntrack_max": 40}},
}  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("path", CAPTURES, ids=[path.name for path in CAPTURES])
def test_captures_come_out_the_same(path: Path, how: str) -> None:
    compare(captured(path), **HOWS[how])


def test_a_trimmed_gateway_capture_takes_the_fast_path() -> None:
    """Else the comparisons above would say little."""
    path = ROOT / "captures" / "gateway-outside.pcap"
    assert compare(captured(path)) > 100


def spoilt(items: Iterable[Item], random: Random) -> Iterator[Item]:
    """Traffic with what goes wrong on real networks, and what never does."""
    later = 0
    for now, frame, _ in items:
        packet, now = frame[14:], now + later
        wire = len(packet)
        chance = random.random()
        if chance < 0.10:
            packet = damaged(packet, random)
        elif chance < 0.12:
            wire, packet = len(packet), packet[: random.randrange(len(packet) + 1)]
        elif chance < 0.15:
            packet += bytes(random.randrange(20))
            wire = len(packet)
        elif chance < 0.17:
            now -= random.randrange(SECOND)
        elif chance < 0.175:
            later += random.randrange(40) * SECOND
        yield now, packet, wire
        if random.random() < 0.05:
            yield now, packet, wire


def damaged(packet: bytes, random: Random) -> bytes:
    """One octet, or a few, of the headers changed; the transport checksum mostly right again."""
    data = bytearray(packet)
    four = data[0] >> 4 == 4
    l4 = 20 if four else 40
    proto = data[9] if four else data[6]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(l4, min(l4 + 36, len(data))) if random.random() < 0.8 else random.randrange(l4)
        if at < len(data):
            data[at] = random.choice((data[at] ^ 1 << random.randrange(8), random.randrange(256), 0))
    at = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}.get(proto)
    whole = at is not None and len(data) >= l4 + at + 2 and data[0] in (0x45, 0x60)
    if at is not None and whole and random.random() < 0.8:
        addresses = data[12:20] if four else data[8:40]
        half = len(addresses) // 2
        ends = [str(ip_address(bytes(part))) for part in (addresses[:half], addresses[half:])]
        value = transport_checksum(ends[0], ends[1], proto, bytes(data[l4:]))
        if random.random() < 0.1:
            value = random.choice((0, 0xFFFF, value ^ 0xFFFF))
        data[l4 + at : l4 + at + 2] = value.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("view", [traffic.GATEWAY, traffic.PLAIN])
def test_spoilt_traffic_comes_out_the_same(view: str, how: str) -> None:
    options = dict(HOWS[how])
    if "nat" in options:
        options["nat"] = GATEWAY if view == traffic.GATEWAY else EVERYTHING
    items = traffic.generate(6_000, 250, seed=3, view=view)
    taken = compare(spoilt(items, Random(4)), **options)
    assert taken > (500 if how != "short lives" and (view == traffic.PLAIN or "nat" in options) else 0)


# --- conversations that hypothesis makes up ---------------------------------------------------------------

PAIRS = (("10.0.0.2", "192.0.2.1"), ("10.0.0.2", "192.0.2.80"), ("fd00::2", "2001:db8::1"))
number = st.one_of(st.integers(0, 3), st.integers(0, 70_000), st.integers(0, 2**32 - 1))
words = st.tuples(
    st.sampled_from(range(len(PAIRS))),
    st.booleans(),  # an answer
    st.sampled_from(("A", "A", "A", "PA", "FA", "S", "SA", "R", "RA", "UA", "F", "", "AEC")),
    number,  # sequence and
    number,  # acknowledgement, from the last ones on
    st.sampled_from((0, 1, 500, 65535)),
    st.sampled_from((b"", b"", b"x", b"yz" * 40)),
    st.sampled_from((0, 1, SECOND, 30 * SECOND, 301 * SECOND)),
    st.sampled_from((b"", b"\1\1\x08\x0a" + bytes(8), b"\1\1\5\x0a" + bytes(8), b"\1\1\x08\x0a", b"\3\3\7\1")),
)


def conversation(script: list[Any], proto: int, nat: bool) -> Iterator[Item]:
    """Packets of a few connections; numbers move on from where each side was, so that many fit the window."""
    now = 10**18
    sent: dict[tuple[int, bool], int] = {}
    for pair, answer, flags, seq, ack, window, payload, pause, options in script:
        src, dst = PAIRS[pair]
        seen = src if not nat else "198.51.100.1" if "." in src else "2001:db8:b::1"
        end, port = dst, 80
        ports = (port, 1234) if answer else (1234, port)
        ends = (end, seen) if answer else (src, end)
        now += pause
        if proto == TCP:
            start = sent.get((pair, answer), 1000) + (seq if seq > 3 else 0)
            peer = sent.get((pair, not answer), 1000) - (ack if ack > 3 else 0)
            l4 = tcp(*ports, flags, seq=start & 0xFFFFFFFF, ack=peer & 0xFFFFFFFF, win=window, options=options,
                     payload=payload)  # fmt: skip
            if seq <= 3:
                sent[pair, answer] = (start + len(payload) + ("S" in flags) + ("F" in flags)) & 0xFFFFFFFF
        elif proto == UDP:
            l4 = udp(*ports, payload)
        else:
            six = ":" in src
            kind = ((129 if answer else 128) if six else (0 if answer else 8)) if seq < 2**31 else seq & 0xFF
            l4 = icmp(kind, 0, 77, 1, payload + bytes(20))
        which = proto if proto != ICMP else ICMPV6 if ":" in src else ICMP
        packet = ip(*ends, which, l4)
        yield now, packet, len(packet)


@pytest.mark.parametrize("proto", [TCP, UDP, ICMP])
@settings(max_examples=100, deadline=None)
@given(script=st.lists(words, max_size=40), nat=st.booleans(), how=st.sampled_from(sorted(HOWS)))
def test_made_up_conversations_come_out_the_same(proto: int, script: list[Any], nat: bool, how: str) -> None:
    options = dict(HOWS[how])
    options["nat"] = EVERYTHING if nat else options.get("nat") and ()
    hello = [
        (0, False, "S", 0, 0, 500, b"", 0, b"\3\3\7\1"),
        (0, True, "SA", 0, 0, 500, b"", 0, b"\3\3\7\1"),
        (0, False, "A", 0, 0, 500, b"", 0, b""),
    ]
    compare(conversation(hello + script, proto, nat), **options)


def test_at_the_edges_of_every_window_both_paths_agree() -> None:
    """Whatever a connection remembers, wrapped numbers and absurd windows included: one segment, twice."""
    random = Random(11)
    near = (0, 0, 0, 0, 1, -1, 2, 100, -100, 65_535, 66_000, -66_000, 66_001, -66_001)
    far = (2**30, 2**31 - 1, 2**31, -(2**31), 2**31 - 65_537, 2**31 - 2**17, 2**31 - 2**17 - 1, -(2**31) + 66_001)

    def beside(base: int) -> int:
        return (base + random.choice(near if random.random() < 0.8 else far)) & 0xFFFFFFFF

    engines = [Engine(nat=GATEWAY, seed=1, fast=fast) for fast in (True, False)]
    for flags, ends in (("S", 0), ("SA", 1), ("A", 0), ("A", 1)):
        way = ("10.0.0.2", "192.0.2.1") if not ends else ("192.0.2.1", "203.0.113.5")
        hello = ip(*way, TCP, tcp(*((1234, 80) if not ends else (80, 1234)), flags, seq=1, ack=1, win=500))
        for engine in engines:
            engine.process(hello, 10**18)
    found = [next(engine.conns()) for engine in engines]
    assert memory(found[0]) == memory(found[1]) and found[0].state == tracker.ES
    saved = found[0].status, found[0].record
    taken = engines[0].stats.fast
    for number in range(6000):
        reply = random.random() < 0.5
        mine = random.choice((0, 5, 2**31, 2**32 - 1, 2**32 - 500))
        theirs = random.choice((7, 2**31 - 3, 2**32 - 9))
        window, scale = random.choice((1, 500, 500, 65_535, 0)), random.choice((0, 0, 7, 14))
        payload = bytes(random.choice((0, 0, 1, 100, 1400)))
        seq, ack = beside(mine), beside(theirs)
        end = (seq + len(payload)) & 0xFFFFFFFF
        halves = [
            (start, beside(start + room), room, beside(peer), scale, random.choice((tracker.MAXACK_SET, 0x7F, 0)))
            for start, peer in ((mine, theirs), (theirs, mine))
            for room in [random.choice((0, 1, 500, 29_200, 65_535 << 7, 2**30 - 1, 2**30, 2**31, 2**32 - 1))]
        ]
        if reply:
            halves.reverse()
        last = random.choice(((seq, ack, end, window), (0, 0, 0, 0)))
        record = tracker.MEMORY.pack(
            *halves[0], *halves[1], *last, tracker.C_ACK, random.randrange(2), 0, 0, random.randrange(4)
        )
        way = ("10.0.0.2", "192.0.2.1") if not reply else ("192.0.2.1", "203.0.113.5")
        ports = (1234, 80) if not reply else (80, 1234)
        segment = tcp(*ports, random.choice(("A", "A", "PA", "FA")), seq=seq, ack=ack, win=window, payload=payload)
        packet = ip(*way, TCP, segment)
        for conn in found:
            conn.status, conn.state, conn.record = saved[0], tracker.ES, saved[1]
            conn.memory = record
        one, other = [asked(engine.process(packet, 10**18 + number)) for engine in engines]
        assert one == other, (number, packet.hex(), record.hex())
    assert 500 < engines[0].stats.fast - taken < 5500, "both paths are to be taken"


def test_a_trial_leaves_no_trace_on_the_fast_path() -> None:
    """The fast path journals nothing, so a trial closes it."""
    engine = Engine(nat=GATEWAY, seed=1)
    packets = [(now, frame[14:]) for now, frame, _ in traffic.generate(400, 20, seed=9)]
    for now, packet in packets[:300]:
        engine.process(packet, now)
    before = [memory(conn) for conn in engine.conns()], engine.stats.as_dict(), engine.now
    with engine.trial():
        for now, packet in packets[300:]:
            engine.process(packet, now)
    assert ([memory(conn) for conn in engine.conns()], engine.stats.as_dict(), engine.now) == before
    fast = engine.stats.fast
    for now, packet in packets[300:]:
        engine.process(packet, now)
    assert engine.stats.fast > fast


def test_a_masqueraded_connection_that_leaves_elsewhere_takes_the_stages() -> None:
    def play(fast: bool) -> list[Any]:
        engine = Engine(nat=[Masquerade("198.51.100.1")], seed=1, fast=fast)
        out = []
        for number in range(6):
            packet = ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2, bytes(20)))
            outcome = engine.process(packet, number, out_iface="eth1" if number == 4 else "eth0")
            out.append((asked(outcome), engine.count()))
        return out

    assert play(True) == play(False)


def test_a_rule_spares_destinations_on_the_fast_path_too() -> None:
    ways = (
        ("10.0.0.1", "192.0.2.1", "203.0.113.5"),
        ("10.0.0.2", "192.0.2.1", "203.0.113.5"),
        ("192.168.0.2", "192.0.2.1", "203.0.113.5"),
        ("10.0.0.2", "192.168.0.9", "10.0.0.2"),
        ("172.16.0.1", "192.0.2.1", "172.16.0.1"),
    )
    packets = [ip(src, dst, UDP, udp(port, 2, bytes(20))) for port, (src, dst, _) in enumerate(ways, 1000)]
    engine = Engine(nat=OUTBOUND, seed=1)
    for packet, (_, _, source) in zip(packets, ways, strict=True):
        assert str(ip_address(engine.process(packet, 10**18).packet[12:16])) == source
    assert engine.stats.fast == len(ways) - 1  # an engine's first packet takes the stages
    assert compare([(10**18, packet, len(packet)) for packet in packets], nat=OUTBOUND) == len(ways) - 1


@pytest.mark.interpreted("compiled, octets are bytes and nothing else")
def test_what_leaves_is_bytes_whatever_came_in() -> None:
    engine = Engine(seed=1)
    packet = ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2, bytes(20)))
    for number in range(3):
        assert type(engine.process(bytearray(packet), number).packet) is bytes
    assert engine.stats.fast == 2


def test_the_first_connection_of_all_may_begin_on_the_fast_path() -> None:
    """The packet before it was INVALID, and so no mapping has been remembered yet."""
    broken = ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2, bytes(20))[:-4])
    whole = ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2, bytes(20)))
    assert compare([(10**18, packet, len(packet)) for packet in (broken, whole, whole)], nat=GATEWAY) == 2


def test_times_beyond_all_calendars_are_clamped() -> None:
    engine = Engine(seed=1)
    packet = ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2, bytes(20)))
    assert engine.process(packet, 2**80).verdict == "ACCEPT"
    assert engine.process(packet, 2**90).verdict == "ACCEPT"
    assert engine.now == 2**62 - 1
