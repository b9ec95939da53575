"""What many connections cost: time per packet, the gc's sweep, a full table, octets
per connection, import time.

One rule: the traffic hits connections at random, so caches miss as they do on a busy gateway.  Memory is measured
in processes of their own, above what the same process needs with an empty table:

    python benchmarks/bench_table.py rss|traced 4|6 CONNECTIONS      one such measurement, octets per connection
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import traffic  # noqa: E402
from traffic import INSIDE4, INSIDE6, ORIGINAL, PUBLIC4, PUBLIC6  # noqa: E402

from conntrack import Engine, Masquerade  # noqa: E402
from conntrack.choices import Choices  # noqa: E402
from conntrack.expiry import LinuxGc  # noqa: E402
from conntrack.sysctl import SECOND, Settings, Sysctl  # noqa: E402
from conntrack.table import Table  # noqa: E402
from conntrack.trackers.table import TRACKERS  # noqa: E402
from conntrack.tuples import invert  # noqa: E402
from conntrack.verdict import CONFIRMED  # noqa: E402

NAT = [Masquerade(PUBLIC4, source=INSIDE4), Masquerade(PUBLIC6, source=INSIDE6)]
ROOMY = {"nf_conntrack_max": 1 << 21, "nf_conntrack_buckets": 1 << 21}  # beyond the default 262,144
PICKS = 20_000
START = 1_700_000_000 * SECOND


def handshakes(number: int, family: int = 4, view: str = traffic.GATEWAY) -> Iterator[list[bytes]]:
    """For each connection: SYN, SYN/ACK, ACK and the client's first data."""
    dice = traffic.Dice(family)
    for i in range(number):
        if family == 4:
            client, server = pack("!I", 0x0A000002 + i // 200), pack("!I", 0xC6120000 + i % 5000)
        else:
            client = bytes.fromhex("fd00000a0000000000000000") + pack("!I", 2 + i // 200)
            server = bytes.fromhex("20010db8000c000000000000") + pack("!I", 1 + i % 5000)
        port = 1024 + (i // 5000 * 997 + i % 5000 * 13) % 64000  # no two the same towards one server
        flow = traffic.Flow(dice, view, client, server, (port, 443))
        play = flow.play(traffic._TCP, 4)
        packets = [pieces[0] for _, _, pieces in play]
        yield packets


def full_engine(number: int, nat: bool) -> tuple[Engine, list[bytes]]:
    """An engine with that many ESTABLISHED connections, and one packet of each."""
    engine = Engine(NAT if nat else None, ROOMY if number > 100_000 else {}, seed=1)
    data = []
    for i, packets in enumerate(handshakes(number, view=traffic.GATEWAY if nat else traffic.PLAIN)):
        for packet in packets[:3]:
            engine.process(packet, START + i * 1000)
        data.append(packets[3])
    assert engine.count() == number and not engine.stats.invalid
    return engine, data


@pytest.mark.parametrize("nat", [False, True], ids=["no NAT", "masqueraded"])
@pytest.mark.parametrize("number", [10**3, 10**4, 10**5, 10**6])
def test_scale(meter: Any, number: int, nat: bool) -> None:
    """`Engine.process` of packets of connections hit at random."""
    engine, data = full_engine(number, nat)
    random = Random(1)

    def setup() -> tuple[list[bytes]]:
        return ([bytes(bytearray(data[int(random.random() * number)])) for _ in range(PICKS)],)

    def run(packets: list[bytes]) -> None:
        process = engine.process
        now = START + SECOND
        for packet in packets:
            process(packet, now)
        assert not engine.stats.invalid

    meter(f"process, {number:,} connections, {'masqueraded' if nat else 'no NAT'}", run, PICKS, setup, rounds=7)


@pytest.mark.parametrize("number", [10**3, 10**4, 10**5])
@pytest.mark.parametrize("dead", [False, True], ids=["living", "expired"])
def test_gc_sweep(meter: Any, number: int, dead: bool) -> None:
    """One sweep of the whole table: over the living, and with all of them to delete."""
    settings = Settings(Sysctl())

    def setup() -> tuple[Table, LinuxGc]:
        table = Table(Choices(1), 262_144)
        for i in range(number):
            key = pack("!IIHH", 0x0A000000 + i, 0xC6120001, 1024 + i % 60000, 443)
            conn = table.allocate(key, invert(key, 17), 17)
            conn.status |= CONFIRMED
            conn.deadline = SECOND if dead else 1000 * SECOND
            table.insert(conn)
        collector = LinuxGc(table, TRACKERS)
        collector.run(0, settings)
        return table, collector

    def run(table: Table, collector: LinuxGc) -> None:
        collector.run(SECOND + SECOND // 10, settings)
        assert table.count == (0 if dead else number)

    what = "all expired" if dead else "none expired"
    meter(f"gc sweep, {number:,} connections, {what}", run, number, setup, rounds=5, unit="connection")


def test_early_drop(meter: Any) -> None:
    """New connections into a table full of unanswered ones: each evicts some."""
    most = 10_000
    flow = traffic.Flow(traffic.Dice(1), traffic.PLAIN, bytes((10, 0, 0, 2)), bytes((198, 18, 0, 1)), (1, 53))
    way = flow.ways[ORIGINAL]
    packets = [way.packet(17, pack("!HHHH", port, server, 28, 0) + bytes(20))
               for server in range(1, 3) for port in range(1024, 1024 + most)]  # fmt: skip

    def setup() -> tuple[Engine]:
        engine = Engine(sysctl={"nf_conntrack_max": most, "nf_conntrack_buckets": most * 2}, seed=1)
        for packet in packets[:most]:
            engine.process(packet, START)
        return (engine,)

    def run(engine: Engine) -> None:
        process = engine.process
        for packet in packets[most : most + 2000]:
            process(packet, START + SECOND)

    meter("new UDP connection into a full table, early drop", run, 2000, setup, rounds=7, unit="connection")


def test_full_of_assured(meter: Any) -> None:
    """New connections into a table full of established ones: victims looked for, none found, refused."""
    most = 4_000
    kept = [packets[:3] for packets in handshakes(most, view=traffic.PLAIN)]
    way = traffic.Way(bytes((10, 9, 9, 9)), bytes((198, 18, 255, 1)), 64, traffic.Dice(1))
    packets = [way.packet(17, pack("!HHHH", port, 53, 28, 0) + bytes(20)) for port in range(1024, 3024)]

    def setup() -> tuple[Engine]:
        engine = Engine(sysctl={"nf_conntrack_max": most, "nf_conntrack_buckets": most * 2}, seed=1)
        for handshake in kept:
            for packet in handshake:
                engine.process(packet, START)
        return (engine,)

    def run(engine: Engine) -> None:
        process = engine.process
        for packet in packets:
            process(packet, START + 1)
        assert engine.stats.drop == len(packets)

    what = "new UDP connection refused by a table full of established ones"
    meter(what, run, len(packets), setup, rounds=5, unit="connection")


def test_gc_under_pressure(meter: Any) -> None:
    """New connections at the pace at which old ones expire: what the gc adds while packets come."""
    number, alive = 20_000, 30  # UDP, unanswered: seconds each lives
    way = traffic.Way(bytes((10, 0, 0, 2)), bytes((198, 18, 0, 1)), 64, traffic.Dice(1))
    packets = [way.packet(17, pack("!HHHH", 1024 + at, 53, 28, 0) + bytes(20)) for at in range(2 * number)]
    pause = alive * SECOND // number

    def setup() -> tuple[Engine]:
        engine = Engine(seed=1)
        for at, packet in enumerate(packets[:number]):
            engine.process(packet, START + at * pause)
        return (engine,)

    def run(engine: Engine) -> None:
        process = engine.process
        for at in range(number, 2 * number):
            process(packets[at], START + at * pause)
        assert engine.count() < 2 * number

    meter(f"new UDP connection while {number:,} expire, gc", run, number, setup, rounds=5, unit="connection")


# --- memory --------------------------------------------------------------------------------------------


def _rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def octets_per_connection(how: str, family: int, number: int) -> float:
    """Of this process: fill a table, see what it took."""
    engine = Engine(NAT, {"nf_conntrack_acct": 1}, seed=1)
    for packets in handshakes(100, family):  # whatever is made once is made now
        for packet in packets:
            engine.process(packet, START)
    engine.flush()
    if how == "traced":
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if how == "traced" else _rss()
    for packets in handshakes(number, family):
        for packet in packets:
            engine.process(packet, START)
    after = tracemalloc.get_traced_memory()[0] if how == "traced" else _rss()
    assert engine.count() == number, engine.count()
    return (after - before) / number


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("how", ["rss", "traced"])
def test_memory(note: Any, how: str, family: int) -> None:
    """Octets per ESTABLISHED TCP connection, masqueraded, with accounting."""
    number = 100_000 if how == "rss" else 20_000
    command = [sys.executable, __file__, how, str(family), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    what = f"memory of an IPv{family} TCP connection, masqueraded, acct"
    name = "resident" if how == "rss" else "tracemalloc"
    note(what, f"{float(done.stdout):,.0f} octets", f"{name}, {number:,} connections")


def test_import_time(note: Any) -> None:
    """CPU of `import conntrack` above a bare interpreter, bytecode written and files in the page cache."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {"pass": [], "import conntrack": []}
    for _ in range(12):
        for code, taken in times.items():
            begun = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent, env=environment)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime)
    bare, whole = (statistics.median(taken[1:]) for taken in times.values())
    note(
        "import conntrack, above bare Python, CPU",
        f"{(whole - bare) * 1000:.0f} ms",
        f"bare {bare * 1000:.0f} ms, of 11",
    )


if __name__ == "__main__":
    print(octets_per_connection(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
