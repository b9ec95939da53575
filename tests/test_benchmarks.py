"""The benchmarks measure the same work every time, and work that is what it is said to be."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]

import bench_attack  # noqa: E402
import soak  # noqa: E402
import traffic  # noqa: E402

import captures  # noqa: E402
from conntrack import Engine, Masquerade  # noqa: E402
from conntrack.wire.packet import parse  # noqa: E402

RULES = [Masquerade("203.0.113.5", source="10.0.0.0/8"), Masquerade("2001:db8:5::5", source="fd00::/8")]


def digest(items: Iterator[traffic.Item]) -> int:
    """CRC-32 of times and octets."""
    value = 0
    for time, frame, wire in items:
        value = zlib.crc32(frame, zlib.crc32(b"%d %d" % (time, wire), value))
    return value


def replayed(engine: Engine, items: Iterator[traffic.Item]) -> int:
    """Packets given to the engine."""
    number = 0
    for time, frame, _ in items:
        engine.process(frame[14:], time)
        number += 1
    return number


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("big", 0.001, 697292017),
        ("big-plain", 0.001, 2944120755),
        ("ten", 0.005, 1133225002),
        ("flood", 0.001, 1554794821),
        ("fill-10000", 0.01, 1037848228),
        ("hit-10000", 0.01, 3123366258),
        ("held-6", 0.001, 2211905823),
    ],
)
def test_a_capture_has_the_same_octets_everywhere(name: str, scale: float, expected: int) -> None:
    assert digest(captures.CAPTURES[name](scale)) == expected


def test_connections_that_are_hit_are_established_and_in_their_windows() -> None:
    engine = Engine(RULES, seed=1)
    assert replayed(engine, captures.handshakes(200)) == 600
    assert replayed(engine, captures.hits(3000, 200)) == 3000
    assert engine.count() == 200 and engine.stats.invalid == 0
    assert "UNREPLIED" not in engine.listing() and engine.listing().count("[ASSURED]") == 200


def test_each_syn_of_the_flood_begins_a_connection_and_keeps_its_port() -> None:
    engine = Engine(RULES, seed=1)
    for time, frame, _ in captures.flood(2000):
        (sent,) = engine.process(frame[14:], time).packets
        assert sent[20:22] == frame[34:36]
    assert engine.count() == 2000 and engine.stats.invalid == 0


def test_the_naive_tracker_finds_the_flows_there_are(tmp_path: Path) -> None:
    pytest.importorskip("dpkt")
    import run_naive

    file = tmp_path / "fill.pcap"
    traffic.write(file, captures.handshakes(100))
    packets, flows = run_naive.track(str(file))
    # of a gateway's view it takes each direction for a flow of its own
    assert (packets, len(set(flows.values()))) == (300, 200)
    assert {flow.state for flow in flows.values()} == {"OPEN", "SYN"}
    traffic.write(file, traffic.generate(2000, 200, 1, traffic.PLAIN))
    assert run_naive.track(str(file))[0] == 2000


@pytest.mark.parametrize("kind", bench_attack.KINDS)
def test_keys_made_to_collide_do_collide_and_are_tuples_of_packets(kind: str) -> None:
    make, hashed = bench_attack.KINDS[kind]
    keys = bench_attack.chosen(make, 50)
    assert len(set(keys)) == 50 and len({hashed(key) for key in keys}) == 1
    engine = Engine()
    for packet in bench_attack.datagrams(keys):
        engine.process(packet, 0)
    assert engine.count() == 50 and engine.stats.invalid == 0


def test_random_keys_do_not_collide() -> None:
    keys = list(islice(bench_attack.random_keys(Random(1)), 50))
    for _, hashed in bench_attack.KINDS.values():
        assert len({hashed(key) for key in keys}) == 50


def test_the_soak_is_deterministic_and_accepts_every_packet() -> None:
    lap = soak.templates(1, packets=600, flows=100)
    first, again = (soak.soak(3 * len(lap), 1, lap) for _ in range(2))
    assert [(done, count) for done, _, count in first[0]] == [(done, count) for done, _, count in again[0]]
    assert first[1:3] == again[1:3]
    assert first[3].stats.invalid == 0


def test_laps_of_the_soak_have_no_tuple_in_common() -> None:
    lap = soak.templates(1, packets=600, flows=100)
    packets = [packet for _, packet in islice(soak.churn(lap, 0), 2 * len(lap))]
    first, second = ({parse(packet).key for packet in part} for part in (packets[: len(lap)], packets[len(lap) :]))
    assert len(first) == len(second) and (first & second) <= {b""}  # b"": fragments


def test_memory_that_grows_is_not_called_flat() -> None:
    early, late = soak.flat([(at, (100 + at) << 20, 0) for at in range(200)])
    assert late > early + soak.ALLOWANCE
    early, late = soak.flat([(at, min(100 + at, 110) << 20, 0) for at in range(200)])
    assert late <= early + soak.ALLOWANCE


def test_programs_of_the_peers_have_names_of_their_own() -> None:
    import programs
    import report

    keys = [program.key for program in programs.PROGRAMS]
    assert len(set(keys)) == len(keys)
    assert {program.capture for program in programs.PROGRAMS} <= set(captures.CAPTURES)
    assert len({row.title for row in report.ROWS}) == len(report.ROWS)
