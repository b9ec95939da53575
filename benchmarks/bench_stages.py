"""What each stage of the pipeline costs, one packet at a time: parse, key, look-up, track, verify, translate.

One rule: a stage gets packets it has not seen, made by `traffic`, so that nothing is answered from a cache that
real traffic would not find filled.  Rounds that change state start from a state made afresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest
import traffic
from traffic import INSIDE4, INSIDE6, ORIGINAL, PUBLIC4, PUBLIC6

from conntrack import Engine, Masquerade
from conntrack.choices import Choices
from conntrack.conn import Conn
from conntrack.nat import rewrite
from conntrack.sysctl import SECOND, Settings, Sysctl
from conntrack.table import Table
from conntrack.trackers import tcp, udp
from conntrack.tuples import invert
from conntrack.verdict import CONFIRMED, DST, REPLY, SRC
from conntrack.wire.packet import Packet, examine, parse, tuple_of

NUMBER = 1000  # packets a round
TCP, UDP = 6, 17
NAT = [Masquerade(PUBLIC4, source=INSIDE4), Masquerade(PUBLIC6, source=INSIDE6)]
ENDS = {
    4: (bytes((10, 0, 0, 2)), bytes((198, 18, 0, 1))),
    6: (bytes.fromhex("fd00000a000000000000000000000002"), bytes.fromhex("20010db8000c00000000000000000001")),
}
Timed = list[tuple[int, int, bytes]]  # time, direction, packet


def conversation(proto: int, family: int, number: int, view: str = traffic.GATEWAY) -> Timed:
    """The first packets of one connection; of TCP three are the handshake, the rest ESTABLISHED."""
    dice = traffic.Dice(1)
    flow = traffic.Flow(dice, view, *ENDS[family], (40000, 443))
    now = 1_700_000_000 * SECOND
    out: Timed = []
    for pause, direction, pieces in islice(flow.play(proto, number + 100), number):
        now += pause
        dice.done["packets"] += 1
        dice.done["fragments"] += 1  # none wanted here
        out.append((now, direction, pieces[0]))
    return out


def mixed(number: int) -> list[bytes]:
    """Packets of many flows, in the shares of `traffic`."""
    return [frame[14:] for _, frame, _ in traffic.generate(number, max(1, number // 10))]


def copies(packets: list[bytes]) -> tuple[list[bytes]]:
    """New objects with the same octets: whatever an object remembers of itself (its hash) is forgotten."""
    return ([bytes(bytearray(packet)) for packet in packets],)


def run_parse(packets: list[bytes]) -> None:
    """Parse each."""
    for packet in packets:
        parse(packet)


@pytest.mark.parametrize("what", ["mixed traffic", "IPv4 TCP", "IPv6 TCP"])
def test_parse(meter: Any, what: str) -> None:
    """Octets to fields and key."""
    if what == "mixed traffic":
        packets = mixed(NUMBER)
    else:
        packets = [packet for _, _, packet in conversation(TCP, int(what[3]), NUMBER)]
    meter(f"parse, key included: {what}", run_parse, NUMBER, lambda: copies(packets))


def test_key(meter: Any) -> None:
    """The tuple alone, off the fast path: what options or a quote in an ICMP error cost."""
    packets = [packet for _, _, packet in conversation(TCP, 4, NUMBER)]

    def run(packets: list[bytes]) -> None:
        for packet in packets:
            tuple_of(packet, packet[12:20], TCP, 20, len(packet))

    meter("key, not side by side: IPv4 TCP", run, NUMBER, lambda: copies(packets))


def test_invert(meter: Any) -> None:
    """The key of the answers: once per connection, and once per translated packet."""
    keys = [parse(packet).key for _, _, packet in conversation(TCP, 4, NUMBER)]

    def run(keys: list[bytes]) -> None:
        for key in keys:
            invert(key, TCP)

    meter("invert a key: IPv4 TCP", run, NUMBER, lambda: (keys,))


@pytest.mark.parametrize("size", [10**3, 10**4, 10**5, 10**6])
def test_look_up(meter: Any, size: int) -> None:
    """Random hits in a table of this size."""
    random = Random(size)
    table = Table(Choices(1), 262_144)
    table.now = SECOND
    keys = []
    for i in range(size):
        key = (0x0A000000 + i).to_bytes(4, "big") + ENDS[4][1] + (1024 + i % 60000).to_bytes(2, "big") + b"\1\xbb"
        conn = table.allocate(key, invert(key, TCP), TCP)
        conn.status |= CONFIRMED
        conn.deadline = 100 * SECOND
        table.insert(conn)
        keys.append(key)
    picks = [keys[int(random.random() * size)] for _ in range(10 * NUMBER)]

    def run(keys: list[bytes]) -> None:
        find = table.find
        for key in keys:
            find(key, TCP)

    meter(f"look-up among {size:,} connections", run, 10 * NUMBER, lambda: copies(picks), unit="packet")


def settings() -> Settings:
    """The defaults."""
    return Settings(Sysctl())


def test_tcp_step(meter: Any) -> None:
    """The tracker alone, ESTABLISHED: flags check, grid, options, window, timeout."""
    values = settings()
    rows = [(now, direction, parse(packet)) for now, direction, packet in conversation(TCP, 4, NUMBER + 3)]
    timeouts = values.timeouts[TCP]

    def step(memory: Any, state: int, rows: Any) -> tuple[Any, int]:
        status = 0xE
        for now, direction, packet in rows:
            tcp.check(packet, False, values)
            _, state, _, _, _, _, memory = tcp.track(
                memory, state, status, direction, packet, now, now + SECOND, timeouts, values
            )
        return memory, state

    _, first = tcp.begin(rows[0][2], values)
    memory, state = step(first, 0, rows[:3])
    assert state == tcp.ES
    meter("TCP step, ESTABLISHED", lambda: step(memory, state, rows[3:]), NUMBER)


def test_udp_step(meter: Any) -> None:
    """The tracker alone."""
    values = settings()
    rows = [(now, direction, parse(packet)) for now, direction, packet in conversation(UDP, 4, NUMBER)]
    timeouts = values.timeouts[UDP]

    def run() -> None:
        memory: Any = None
        for now, direction, packet in rows:
            udp.check_udp(packet, False, values)
            memory = udp.track_udp(memory, 0, 0xE, direction, packet, now, now, timeouts, values)[6]

    meter("UDP step", run, NUMBER)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [60, 1500])
def test_checksum(meter: Any, size: int, family: int) -> None:
    """Verification of the TCP checksum of packets of this size."""
    dice = traffic.Dice(1)
    way = traffic.Way(*ENDS[family], 64, dice)
    least = 40 if family == 4 else 60
    size = max(size, least)
    head = bytes((156, 64, 1, 187)) + bytes(8) + bytes((5 << 4, 16, 1, 0)) + bytes(4)
    packets = [parse(way.packet(TCP, head + dice.payload(size - least))) for _ in range(NUMBER)]

    def run() -> None:
        for packet in packets:
            examine(packet, TCP, 16)

    meter(f"verify the checksum of {size:,} octets, IPv{family}", run, NUMBER)
    assert all(packet.checksum == 0 for packet in packets)


def translated(family: int) -> tuple[Engine, Conn, Timed]:
    """A masqueraded TCP connection in ESTABLISHED, and packets that follow."""
    rows = conversation(TCP, family, NUMBER + 3)
    engine = Engine(NAT, seed=1)
    for now, _, packet in rows[:3]:
        engine.process(packet, now)
    (conn,) = engine.conns()
    return engine, conn, rows[3:]


@pytest.mark.parametrize("family", [4, 6])
def test_rewrite(meter: Any, family: int) -> None:
    """One manipulation: the address and the port of one side, and two checksums (IPv6: one)."""
    _, conn, rows = translated(family)

    def setup() -> tuple[list[tuple[Packet, int]]]:
        fresh = [(parse(packet), direction) for _, direction, packet in rows]
        for packet, _ in fresh:
            examine(packet, TCP, 16)
        return (fresh,)

    def run(rows: list[tuple[Packet, int]]) -> None:
        for packet, direction in rows:
            rewrite.translate(packet, conn, DST if direction == REPLY else SRC, direction)

    meter(f"NAT rewrite: IPv{family} TCP", run, NUMBER, setup)


@pytest.mark.parametrize("family", [4, 6])
def test_rewrite_icmp_error(meter: Any, family: int) -> None:
    """An ICMP error towards the client: outer destination, inner source, three or four checksums."""
    dice = traffic.Dice(1)
    flow = traffic.Flow(dice, traffic.GATEWAY, *ENDS[family], (40000, 443))
    engine = Engine(NAT, seed=1)
    errors = []
    for pause, direction, pieces in islice(flow.play(TCP, NUMBER), NUMBER):
        if not errors:
            engine.process(pieces[0], pause)
        if direction == ORIGINAL:
            error = flow.error()
            assert error is not None
            errors.append(error)
    (conn,) = engine.conns()
    errors = errors[: NUMBER // 4]

    def setup() -> tuple[list[Packet]]:
        fresh = [parse(error) for error in errors]
        for packet in fresh:
            examine(packet, 0 if family == 4 else 58, 2)
        return (fresh,)

    def run(packets: list[Packet]) -> None:
        for packet in packets:
            assert rewrite.translate_error(packet, conn, DST, REPLY) == ""

    meter(f"NAT rewrite: IPv{family} ICMP error", run, len(errors), setup)


CASES = [
    ("IPv4 TCP", TCP, 4, False),
    ("IPv4 TCP", TCP, 4, True),
    ("IPv6 TCP", TCP, 6, False),
    ("IPv6 TCP", TCP, 6, True),
    ("IPv4 UDP", UDP, 4, False),
    ("IPv4 UDP", UDP, 4, True),
]


def _names() -> Iterator[str]:
    return (f"{what}{', masqueraded' if nat else ''}" for what, _, _, nat in CASES)


@pytest.mark.parametrize(("what", "proto", "family", "nat"), CASES, ids=list(_names()))
def test_process_known(meter: Any, what: str, proto: int, family: int, nat: bool) -> None:
    """`Engine.process` of one packet after the other of one established connection."""
    rows = conversation(proto, family, NUMBER + 3, traffic.GATEWAY if nat else traffic.PLAIN)

    def setup() -> tuple[Engine, list[tuple[int, bytes]]]:
        engine = Engine(NAT if nat else None, seed=1)
        for now, _, packet in rows[:3]:
            engine.process(packet, now)
        return engine, [(now, bytes(bytearray(packet))) for now, _, packet in rows[3:]]

    def run(engine: Engine, packets: list[tuple[int, bytes]]) -> None:
        process = engine.process
        for now, packet in packets:
            process(packet, now)
        assert engine.count() == 1

    mean = sum(len(packet) for _, _, packet in rows) // len(rows)
    name = f"process, known connection: {what}, {'masqueraded' if nat else 'no NAT'} (mean {mean} octets)"
    meter(name, run, NUMBER, setup)


@pytest.mark.parametrize("nat", [False, True], ids=["no NAT", "masqueraded"])
def test_process_new(meter: Any, nat: bool) -> None:
    """`Engine.process` of SYNs, each of a new connection."""
    dice = traffic.Dice(1)
    packets = []
    for i in range(NUMBER):
        client = (0x0A000002 + i // 8).to_bytes(4, "big")
        flow = traffic.Flow(dice, traffic.GATEWAY, client, ENDS[4][1], (1024 + i, 443))
        packets += next(flow.play(TCP, 1))[2]

    def setup() -> tuple[Engine, list[bytes]]:
        return Engine(NAT if nat else None, seed=1), copies(packets)[0]

    def run(engine: Engine, packets: list[bytes]) -> None:
        process = engine.process
        for packet in packets:
            process(packet, SECOND)
        assert engine.count() == NUMBER and not engine.stats.invalid

    meter(f"process, new connection: IPv4 TCP, {'masqueraded' if nat else 'no NAT'}", run, NUMBER, setup)
