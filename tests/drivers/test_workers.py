"""Several workers do what one engine does, but for what docs/workers.md says, and each of that is shown here.

The expectation is always what one process makes of the same capture.  Identifications of new IPv6 fragments are
drawn, and so are connections' ids: both are left out where it is not they that are asked for.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

import pytest
from packets import ICMP, TCP, UDP, addresses, icmp, icmp_error, ip, ipv4, ipv6, ports, sealed, tcp, udp
from world import Traffic

from conntrack import Dnat, Engine, Masquerade, Netmap, Redirect, Snat
from conntrack.choices import Choices
from conntrack.cli.app import run
from conntrack.drivers import workers
from conntrack.drivers.capture import CaptureError, create_capture, open_capture
from conntrack.drivers.deal import Deal
from conntrack.drivers.replay import Replay, ReplayResult, Tally
from conntrack.expect import Policy
from conntrack.helpers import Answer, Expect, Helper, View
from conntrack.helpers.registry import HELPERS
from conntrack.nat.choose import Chooser
from conntrack.nat.rules import NatRule

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import traffic  # noqa: E402

INSIDE = ("10.0.0.0/8", "fd00::/8")
PUBLIC = "198.51.100.1"
NAT: list[NatRule] = [
    Masquerade(PUBLIC, source="10.0.0.0/8", destination="!10.0.0.0/8"),
    Masquerade("2001:db8:b::1", source="fd00::/8"),
]
TRAFFIC_NAT: list[NatRule] = [
    Masquerade(traffic.PUBLIC4, source="10.0.0.0/8"),
    Masquerade(traffic.PUBLIC6, source="fd00::/8"),
]
ACCT = {"nf_conntrack_acct": 1, "nf_conntrack_timestamp": 1}
FTP = {("tcp", 21): "ftp"}
FORKS = pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the child must inherit a patch")
A, B = "10.0.0.2", "10.0.0.3"


@dataclass
class Seen:
    """What a replay left: the output's octets, what it counted, every connection, and the listing's lines."""

    octets: bytes
    result: ReplayResult
    flows: list[dict[str, Any]]
    listing: list[str]

    @property
    def packets(self) -> list[bytes]:
        """The IP packets of the output, which is Ethernet without tags."""
        with open_capture(io.BytesIO(self.octets)) as reader:
            return [frame.data[14:] for frame in reader]


def alone(path: Path, nat: Sequence[NatRule] | None = None, **how: Any) -> Seen:
    """One process."""
    engine = Engine(nat, how.get("sysctl", ACCT), how.get("seed", 1), helpers=how.get("helpers"))
    tally, flows = Tally(), []

    def ended(conn: Any) -> None:
        tally.ended += 1
        flows.append(conn.to_dict())

    engine.on_end = ended
    out = io.BytesIO()
    with open_capture(path) as reader, create_capture(out, like=reader) as writer:
        replay = Replay(reader, engine, None, writer)
        replay.run(tally.add)
        engine.reap()
        tally.finish(engine)
        flows += [conn.to_dict() for conn in engine.conns()]
        counts = replay.frames, replay.written, replay.short, replay.not_ip
        result = ReplayResult(*counts, tally, engine.stats, problem=reader.problem)
    return Seen(out.getvalue(), result, flows, engine.listing().splitlines())


def shared(path: Path, nat: Sequence[NatRule] | None = None, number: int = 2, **how: Any) -> Seen:
    """Several."""
    out = path.with_name("out.pcap")
    flows, listing = io.BytesIO(), io.BytesIO()
    given = {"inside": INSIDE, "sysctl": ACCT, "seed": 1, **how}
    result = workers.replay(path, out, workers=number, nat=nat, flows=flows, listing=listing, **given)
    lines = [json.loads(line) for line in flows.getvalue().splitlines()]
    if lines:
        assert lines[0].pop("v") == 1
    return Seen(out.read_bytes(), result, lines, listing.getvalue().decode().splitlines())


def counted(result: ReplayResult) -> list[Any]:
    """All counts but that of the fast path, which each engine's first packet does not take."""
    tally = {name: getattr(result.tally, name) for name in Tally.__slots__}
    stats = result.stats.as_dict() | {"fast": 0}
    return [result.frames, result.written, result.short, result.not_ip, tally, stats, result.problem]


def known(flows: Iterable[dict[str, Any]]) -> list[str]:
    """Connections, whatever their order and their drawn ids."""
    return sorted(json.dumps({**flow, "id": 0}, sort_keys=True) for flow in flows)


def undrawn(octets: bytes) -> list[tuple[int, bytes, int]]:
    """Frames, without the identification of IPv6 fragments."""
    out = []
    with open_capture(io.BytesIO(octets)) as reader:
        for frame in reader:
            data = frame.data
            if data[12:14] == b"\x86\xdd" and data[20] == 44:
                data = data[:58] + bytes(4) + data[62:]
            out.append((frame.time, data, frame.wire_length))
    return out


def same(one: Seen, other: Seen) -> None:
    """Equal but for what is drawn."""
    assert undrawn(one.octets) == undrawn(other.octets)
    assert counted(one.result) == counted(other.result)
    assert known(one.flows) == known(other.flows)
    assert sorted(one.listing) == sorted(other.listing)


def compare(path: Path, nat: Sequence[NatRule] | None = None, **how: Any) -> Seen:
    """One process beside one, two and three workers."""
    one = alone(path, nat, **{key: value for key, value in how.items() if key != "inside"})
    for number in (1, 2, 3):
        other = shared(path, nat, number, **how)
        same(one, other)
        if number == 1:
            assert one.octets == other.octets
    return one


Timed = bytes | tuple[float, bytes]


def capture(folder: Path, packets: Iterable[Timed], *, order: str = "<", units: int = 10**6) -> Path:
    """A capture of IP packets in Ethernet, 1 ms apart or (seconds, packet); what is no IP is a whole frame."""
    magic = 0xA1B2C3D4 if units == 10**6 else 0xA1B23C4D
    out = pack(order + "IHHiIII", magic, 2, 4, 0, 0, 1 << 16, 1)
    for number, item in enumerate(packets):
        now, packet = item if isinstance(item, tuple) else (number / 1000, item)
        kinds = {4: b"\x08\x00", 6: b"\x86\xdd"}
        frame = packet if packet[0] >> 4 not in kinds else bytes(12) + kinds[packet[0] >> 4] + packet
        fraction = round(now * units)
        out += pack(order + "IIII", 1000 + fraction // units, fraction % units, len(frame), len(frame)) + frame
    path = folder / "in.pcap"
    path.write_bytes(out)
    return path


def remotes(worker: int, number: int = 1, of: int = 2, nat: Sequence[NatRule] | None = NAT) -> list[str]:
    """Addresses whose packets a worker has."""
    deal = Deal(of, INSIDE, nat)
    found = []
    for last in range(1, 255):
        remote = f"192.0.2.{last}"
        if deal.addresses(bytes((10, 0, 0, 2, 192, 0, 2, last))) == worker:
            found.append(remote)
    return found[:number]


def turned(packet: bytes) -> tuple[str, str, int, int]:
    """The ends of an answer to a packet."""
    return (*reversed(addresses(packet)), *reversed(ports(packet)))  # type: ignore[return-value]


# --- what is equal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nat", [None, TRAFFIC_NAT], ids=["tracking", "masquerade"])
def test_a_gateways_traffic_comes_out_the_same(nat: Sequence[NatRule] | None, tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    traffic.write(path, traffic.generate(4000, 400, 1, traffic.GATEWAY))
    one = compare(path, nat)
    assert one.result.tally.reason["related_error"] > 10  # errors, and
    assert one.result.tally.verdict["HELD"] > 10  # fragments
    assert one.result.tally.rewritten > 3900 or nat is None


@pytest.mark.parametrize("name", ["gateway-outside.pcap", "gateway-inside.pcap"])
def test_a_real_capture_is_tracked_the_same_to_the_octet(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    path.write_bytes((ROOT / "captures" / name).read_bytes())
    compare(path, inside=("10.0.0.0/24",))


WORLDS: dict[str, list[NatRule] | None] = {
    "tracking": None,
    "dnat": [Dnat("10.0.0.4", destination=PUBLIC), Netmap("10.9.0.0/24", destination="198.51.100.7/32")],
    "masquerade": [*NAT, Dnat("10.0.0.4", destination=PUBLIC, protocol="tcp", dport=5000)],
    "pool": [Snat("198.51.100.20-198.51.100.23", source="10.0.0.0/8", random=True), NAT[1]],
}


@pytest.mark.interpreted("it replaces methods of classes that are compiled")
@FORKS
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WORLDS)
def test_whatever_is_sent_in_a_small_world_comes_out_the_same(
    seed: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once draws depend on the tuple alone, and no mapping is used again towards another remote."""
    monkeypatch.setattr(Choices, "draw", lambda self, kind, key: Choices(0)._hash(kind, key, 0))
    monkeypatch.setattr(Chooser, "_shared", lambda self, current, wanted, conn: b"")
    nat = WORLDS[name]
    world = Traffic(Random(seed), public=(PUBLIC,) if nat else (), dport=5000)
    engine = Engine(nat)
    packets = []
    for number in range(800):
        iface, packet = world.next()
        packets.append(packet)
        outcome = engine.process(packet, number / 1000)
        world.wires["out0" if iface == "in0" else "in0"] += outcome.packets
    one = compare(capture(tmp_path, packets), nat)
    assert one.result.tally.reason["related_error"] > 20


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("units", [10**6, 10**9])
def test_byte_order_and_unit_of_the_file_change_nothing(order: str, units: int, tmp_path: Path) -> None:
    queries = [ip(A, f"192.0.2.{last}", UDP, udp(1000, 53, b"x")) for last in range(1, 30)]
    answers = [ip(f"192.0.2.{last}", PUBLIC, UDP, udp(53, 1000, b"yy")) for last in range(1, 30)]
    one = compare(capture(tmp_path, queries + answers, order=order, units=units), NAT)
    assert one.result.tally.rewritten == 58


def test_frames_of_every_kind_go_where_they_belong(tmp_path: Path) -> None:
    remote = remotes(1)[0]
    query = ip(A, remote, UDP, udp(1000, 53, b"x"))
    six = ip("fd00::2", "2600::1", UDP, udp(1000, 53, b"x"))
    answer = ip(remote, PUBLIC, UDP, udp(53, 1000, b"x"))
    tag = bytes(12) + b"\x81\x00\x00\x05\x08\x00"
    frames = [
        query, six, tag + query, answer, tag + answer,
        bytes(12) + b"\x08\x06" + bytes(28),  # ARP
        bytes(12) + b"\x08\x00" + six, bytes(12) + b"\x86\xdd" + query,  # not what their types say
        bytes(12) + b"\x08\x00", bytes(12) + b"\x08\x00\x45", bytes(3), bytes(14),
        bytes(12) + b"\x08\x00" + query[:30],
        ipv4(A, remote, UDP, sealed(A, remote, UDP, udp(7, 7)), options=bytes(4)),
        ip(A, remote, ICMP, icmp(8, 0, 5, 1)), ip(remote, PUBLIC, ICMP, icmp(0, 0, 5, 1)),
        ip(A, remote, TCP, tcp(1, 2, "S")), ip(remote, PUBLIC, TCP, tcp(2, 1, "SA", ack=1)),
        ip(A, remote, 50, b"esp", seal=False), query[:20], six[:41], ip(A, remote, ICMP, icmp(3, 3))[:22],
    ]  # fmt: skip
    one = compare(capture(tmp_path, frames), NAT)
    assert one.result.not_ip[0x0806] == 1 and one.result.short >= 1


def test_errors_go_to_the_connection_they_quote_wherever_they_come_from(tmp_path: Path) -> None:
    packets = []
    for remote in remotes(0, 5) + remotes(1, 5):
        query = ip(A, remote, UDP, udp(1000, 53, b"x"))
        outside = ip(PUBLIC, remote, UDP, udp(1000, 53, b"x"))
        packets.append(query)
        for router in ("203.0.113.1", "203.0.113.2", "203.0.113.3", remote):
            packets.append(ip(router, PUBLIC, ICMP, icmp_error(11, 0, outside[:28])))
            packets.append(ipv4(router, PUBLIC, ICMP, packets[-1][20:], options=bytes(4)))
        packets.append(ip(A, remote, ICMP, icmp_error(3, 3, ip(remote, A, UDP, udp(53, 1000))[:28])))
    six = ip("fd00::2", "2600::1", UDP, udp(1000, 53, b"x"))
    quoted = ip("2001:db8:b::1", "2600::1", UDP, udp(1000, 53, b"x"))
    errors = [ip(f"2600::{n}", "2001:db8:b::1", 58, icmp_error(3, 0, quoted)) for n in range(2, 9)]
    atomic = ipv6("2600::9", "2001:db8:b::1", 44, errors[0][40:], extra=bytes((58, 0, 0, 0, 0, 0, 0, 7)))
    one = compare(capture(tmp_path, [*packets, six, *errors, atomic]), NAT)
    assert one.result.tally.reason["related_error"] == 97


@pytest.mark.parametrize("backwards", [False, True])
def test_fragments_meet_in_one_worker_in_any_order(backwards: bool, tmp_path: Path) -> None:
    packets = []
    for number, remote in enumerate(remotes(0, 6) + remotes(1, 6)):
        l4 = sealed(A, remote, UDP, udp(1000, 53, bytes(40)))
        parts = [l4[:16], l4[16:32], l4[32:]]
        words = [0x2000, 0x2002, 0x0004]
        pieces = [
            ipv4(A, remote, UDP, part, fragment=word, identification=number)
            for part, word in zip(parts, words, strict=True)
        ]
        packets.append(pieces[::-1] if backwards else pieces)
    woven = [pieces[which] for which in range(3) for pieces in packets]
    one = compare(capture(tmp_path, woven), NAT)
    assert one.result.written == 36 and one.result.tally.verdict["HELD"] == 24


def test_time_is_everybodys_even_where_it_runs_backwards(tmp_path: Path) -> None:
    random = Random(3)
    hosts = remotes(0, 8) + remotes(1, 8)
    packets = [
        (random.randrange(0, 200), ip(A, random.choice(hosts), UDP, udp(random.randrange(1, 4), 53)))
        for _ in range(300)
    ]
    one = compare(capture(tmp_path, packets), NAT)
    assert one.result.stats.time_backwards > 250


def test_dropped_packets_and_text_that_grows_are_spliced_in_order(tmp_path: Path) -> None:
    packets = []
    for number, server in enumerate(remotes(0, 4) + remotes(1, 4)):
        packets += control(A, server, 2000 + number, b"PORT 10,0,0,2,19,137\r\n")  # grows, behind "198.51.100.1"
        packets += control(A, server, 3000 + number, b"PORT 10,0,2,19,137\r\n")  # dropped
        packets.append(ip(B, server, UDP, udp(7, 7, bytes(100))))
    one = compare(capture(tmp_path, packets), NAT, helpers=FTP)
    assert one.result.tally.verdict["DROP"] == 8
    assert one.octets.count(b"PORT 198,51,100,1,19,137") == 8


def control(client: str, server: str, port: int, line: bytes) -> list[bytes]:
    """A control connection as a gateway sees it: the handshake, a greeting, a user, and a line of the client's."""

    def says(flags: str, seq: int, ack: int, text: bytes = b"") -> bytes:
        return ip(client, server, TCP, tcp(port, 21, flags, seq, ack, payload=text))

    def answers(flags: str, seq: int, ack: int, text: bytes = b"") -> bytes:
        return ip(server, PUBLIC, TCP, tcp(21, port, flags, seq, ack, payload=text))

    return [
        says("S", 100, 0), answers("SA", 500, 101), says("A", 101, 501), answers("PA", 501, 101, b"220 hi\r\n"),
        says("PA", 101, 509, b"USER a\r\n"), answers("A", 509, 109), says("PA", 109, 509, line),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 10, 16, 17, 29, 31, 60, 100])
def test_a_capture_that_ends_early_ends_the_same_way(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    path.write_bytes((ROOT / "captures" / "gateway-outside.pcap").read_bytes()[:-cut])
    one = compare(path)
    assert "ends in the middle of record" in str(one.result.problem)


def test_a_corrupt_length_ends_the_same_way(tmp_path: Path) -> None:
    octets = bytearray((ROOT / "captures" / "gateway-outside.pcap").read_bytes())
    second = 24 + 16 + int.from_bytes(octets[32:36], "little")
    octets[second + 8 : second + 12] = b"\xff\xff\xff\x7f"
    path = tmp_path / "in.pcap"
    path.write_bytes(octets)
    assert "corrupt" in str(compare(path).result.problem)


def test_an_empty_capture_is_no_error(tmp_path: Path) -> None:
    assert compare(capture(tmp_path, [])).result.frames == 0


def test_two_runs_are_equal_and_another_seed_draws_others(tmp_path: Path) -> None:
    path = capture(tmp_path, [ip(host, remote, UDP, udp(9, 9)) for remote in remotes(1, 5) for host in (A, B)])
    first, again, other = shared(path, NAT), shared(path, NAT), shared(path, NAT, seed=2)
    assert (first.octets, first.flows, first.listing) == (again.octets, again.flows, again.listing)
    assert first.octets != other.octets


def test_processes_that_are_spawned_do_the_same_as_those_that_are_forked(tmp_path: Path) -> None:
    path = capture(tmp_path, [ip(host, remote, UDP, udp(9, 9)) for remote in remotes(1, 5) for host in (A, B)])
    code = f"""
import multiprocessing
from conntrack import Masquerade
from conntrack.drivers import workers
multiprocessing.set_start_method("spawn")
nat = {NAT!r}
workers.replay({str(path)!r}, {str(tmp_path / "spawned")!r}, workers=2, inside={INSIDE!r}, nat=nat, seed=1)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert (tmp_path / "spawned").read_bytes() == shared(path, NAT).octets


def test_without_an_output_the_counts_are_the_same(tmp_path: Path) -> None:
    path = capture(tmp_path, [ip(A, remote, UDP, udp(9, 9)) for remote in remotes(0, 5) + remotes(1, 5)])
    one, told = alone(path, NAT), []
    result = workers.replay(path, workers=2, inside=INSIDE, nat=NAT, sysctl=ACCT, progress=told.append)
    assert result.written == 0 and counted(result) == [result.frames, 0, *counted(one.result)[2:]]


# --- who has what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "told_by"),
    [
        (A, "192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", A, "192.0.2.7"),
        ("192.0.2.7", PUBLIC, "192.0.2.7"),
        ("192.0.2.7", "198.51.100.80", "192.0.2.7"),
        ("10.0.0.80", "192.0.2.7", "192.0.2.7"),
        ("fd00::5", "2600::7", "2600::7"),
        ("2600::7", "2001:db8:b::1", "2600::7"),
    ],
)
def test_a_packet_is_dealt_by_its_remote_end(source: str, destination: str, told_by: str) -> None:
    nat = [*NAT, Dnat("10.0.0.80", destination="198.51.100.80")]
    other = "10.9.9.9" if "." in told_by else "fd00::99"
    for number in (2, 3, 7):
        deal = Deal(number, INSIDE, nat)
        assert deal.addresses(joined(source, destination)) == deal.addresses(joined(other, told_by))


def joined(source: str, destination: str) -> bytes:
    return ip(source, destination, 255, b"", seal=False)[12 if "." in source else 8 :]


def test_between_two_remote_ends_both_directions_agree() -> None:
    deal = Deal(5, INSIDE, NAT)
    pairs = [("192.0.2.1", f"203.0.113.{n}") for n in range(20)]
    found = [deal.addresses(joined(*pair)) for pair in pairs]
    assert found == [deal.addresses(joined(*reversed(pair))) for pair in pairs] and len(set(found)) > 2


def test_inside_one_worker_has_all_that_may_be_translated_twice() -> None:
    pairs = [("10.0.0.1", f"10.1.1.{n}") for n in range(20)]
    assert {Deal(5, INSIDE, NAT).addresses(joined(*pair)) for pair in pairs} == {0}
    tracking = Deal(5, INSIDE, None)
    found = [tracking.addresses(joined(*pair)) for pair in pairs]
    assert found == [tracking.addresses(joined(*reversed(pair))) for pair in pairs] and len(set(found)) > 2


def test_a_hairpin_and_a_pool_that_folds_remote_addresses_are_no_difference(tmp_path: Path) -> None:
    """Destinations that a rule names are ours, so what is folded into them is together."""
    pool = Dnat("192.0.2.201-192.0.2.202", destination="192.0.2.0/25", protocol="udp")
    hairpin = Dnat("10.0.0.80", destination="198.51.100.80")
    nat = [pool, hairpin, Masquerade(PUBLIC, source="10.0.0.0/8")]
    packets = [ip(A, f"192.0.2.{last}", UDP, udp(1000, 53, b"x")) for last in range(1, 40)]
    packets += [ip(B, f"192.0.2.{last}", UDP, udp(1000, 53, b"x")) for last in range(1, 40)]
    packets.append(ip(A, "198.51.100.80", TCP, tcp(5, 80, "S")))
    engine = Engine(nat, seed=1)
    answers = [ip(*turned(packet)[:2], UDP, udp(*turned(packet)[2:], b"y")) for packet in
               (engine.process(packet, 0.0).packet for packet in packets[:-1])]  # fmt: skip
    one = compare(capture(tmp_path, packets + answers), nat)
    assert one.result.stats.found > 50  # the pool has two addresses, and 78 wanted the same port there
    assert one.result.tally.ctinfo["ESTABLISHED"] >= 78


# --- what differs, and nothing else --------------------------------------------------------------------------


def differing(path: Path, nat: Sequence[NatRule] | None, **how: Any) -> tuple[Seen, Seen]:
    one, two = alone(path, nat, **how), shared(path, nat, **how)
    assert two.result.frames == one.result.frames
    return one, two


def test_drawn_ports_and_ids_differ_and_nothing_beside_them(tmp_path: Path) -> None:
    hosts = [*enumerate(remotes(0, 4) + remotes(1, 4), 1000)]
    path = capture(tmp_path, [ip(host, remote, UDP, udp(port, 53)) for port, remote in hosts for host in (A, B)])
    one, two = differing(path, NAT)
    kept = [(addresses(packet), ports(packet)) for packet in one.packets]
    again = [(addresses(packet), ports(packet)) for packet in two.packets]
    assert kept[::2] == again[::2] and [port for _, (port, _) in kept[::2]] == list(range(1000, 1008))
    assert kept[1::2] != again[1::2]  # who came second got a drawn port
    assert [ends for ends, _ in kept] == [ends for ends, _ in again]
    assert {flow["id"] for flow in one.flows} != {flow["id"] for flow in two.flows}
    assert counted(one.result) == counted(two.result)
    # no reply tuple is anybody else's
    assert len({(ends, ports_) for ends, ports_ in again}) == 16


def test_new_ipv6_fragments_are_numbered_by_their_worker(tmp_path: Path) -> None:
    deal = Deal(2, INSIDE, NAT)
    remote = next(f"2600::{n}" for n in range(1, 99) if deal.addresses(joined("fd00::2", f"2600::{n}")))
    l4 = sealed("fd00::2", remote, UDP, udp(1000, 53, bytes(40)))
    pieces = [
        ipv6("fd00::2", remote, 44, l4[:24], extra=bytes((17, 0, 0, 1, 0, 0, 0, 9))),
        ipv6("fd00::2", remote, 44, l4[24:], extra=bytes((17, 0, 0, 24, 0, 0, 0, 9))),
    ]
    one, two = differing(capture(tmp_path, pieces), NAT)
    assert one.octets != two.octets
    same(one, two)


def test_a_remapped_port_is_used_again_only_towards_remotes_of_the_same_worker(tmp_path: Path) -> None:
    first, again = remotes(0, 2)
    elsewhere = remotes(1)[0]
    packets = [
        ip(A, first, UDP, udp(1000, 53)), ip(B, first, UDP, udp(1000, 53)),  # B's port is drawn
        ip(B, again, UDP, udp(1000, 53)), ip(B, elsewhere, UDP, udp(1000, 53)),
    ]  # fmt: skip
    one, two = differing(capture(tmp_path, packets), NAT)
    single, split = ([ports(packet)[0] for packet in seen.packets] for seen in (one, two))
    assert single[1] == single[2] == single[3] != 1000
    assert split[1] == split[2] != split[3] == 1000


def test_each_worker_has_its_share_of_the_tables_limits(tmp_path: Path) -> None:
    sysctl = {"nf_conntrack_max": 4}
    path = capture(tmp_path, [ip(A, remote, UDP, udp(1000, 53)) for remote in remotes(0, 4)])
    one, two = differing(path, NAT, sysctl=sysctl)
    assert (len(one.flows), one.result.written) == (4, 4)
    assert two.result.tally.verdict["DROP"] + two.result.stats.early_drop == 2 and len(two.listing) == 2
    for number in (0, 1, 3):  # without a limit there is none; a share is rounded up
        limit = {"nf_conntrack_max": number}
        assert len(shared(path, NAT, sysctl=limit).listing) == (-(-number // 2) or 4)


def test_each_worker_has_its_share_of_the_memory_for_fragments_and_its_own_distance(tmp_path: Path) -> None:
    here, there = remotes(0)[0], remotes(1)[0]
    l4 = sealed(A, here, UDP, udp(1000, 53, bytes(40)))
    first = ipv4(A, here, UDP, l4[:24], fragment=0x2000, identification=1)
    last = ipv4(A, here, UDP, l4[24:], fragment=0x0003, identification=1)
    others = [ipv4(A, there, UDP, bytes(24), fragment=0x2000, identification=n) for n in range(70)]
    one, two = differing(capture(tmp_path, [first, *others, last]), NAT)
    # net.ipv4.ipfrag_max_dist: 64 others of that source; the other worker saw those
    assert (one.result.written, two.result.written) == (0, 2)
    parts = [(l4[:16], 0x2000), (l4[16:32], 0x2002), (l4[32:], 0x0004)]  # each counts for 832 octets
    pieces = [ipv4(A, here, UDP, part, fragment=word) for part, word in parts]
    one, two = differing(capture(tmp_path, pieces), NAT, sysctl={"net.ipv4.ipfrag_high_thresh": 3000})
    assert (one.result.written, two.result.written) == (3, 0)


def test_each_workers_sweeps_begin_with_its_own_first_packet(tmp_path: Path) -> None:
    first, again = remotes(0, 2)
    packets = [
        (0.0, ip(A, remotes(1)[0], UDP, udp(7, 7))),
        (50.0, ip(A, first, UDP, udp(1000, 53))), (50.0, ip(B, first, UDP, udp(1000, 53))),
        # both are dead for 35 s; who has not swept them yet still knows the port that B got
        (115.0, ip(B, again, UDP, udp(1000, 53))),
    ]  # fmt: skip
    one, two = differing(capture(tmp_path, packets), NAT)
    assert ports(one.packets[3])[0] == ports(one.packets[2])[0] != 1000
    assert ports(two.packets[3])[0] == 1000


@FORKS
def test_an_expectation_that_names_a_third_host_is_known_to_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FTP and TFTP name none; so here is a helper that expects whatever address it reads."""

    def read(view: View) -> Answer:
        return Answer(actions=(Expect(UDP, view.payload[:4], 5001),) if view.payload else ())

    monkeypatch.setitem(HELPERS, "call", Helper("call", UDP, 99, (Policy(1, 10**10),), read))
    server, third = remotes(0)[0], remotes(1)[0]
    for named, found in ((server, 1), (third, 0)):
        packets = [
            ip(A, server, UDP, udp(7, 99, ip(named, A, UDP, b"")[12:16])),
            ip(A, named, UDP, udp(7, 5001)),
        ]
        one, two = differing(capture(tmp_path, packets), NAT, helpers={("udp", 99): "call"})
        assert [seen.result.tally.ctinfo["RELATED"] for seen in (one, two)] == [1, found]


def test_what_ftp_announces_is_between_the_same_two_ends(tmp_path: Path) -> None:
    packets = []
    for server in remotes(0, 3) + remotes(1, 3):
        packets += control(A, server, 2000, b"PORT 10,0,0,2,19,137\r\n")
        packets.append(ip(server, PUBLIC, TCP, tcp(20, 5001, "S", 9)))
        passive = b"227 Entering Passive Mode (%s,19,137)\r\n" % server.replace(".", ",").encode()
        packets += control(A, server, 2001, b"PASV\r\n")
        packets.append(ip(server, PUBLIC, TCP, tcp(21, 2001, "PA", 509, 115, payload=passive)))
        packets.append(ip(A, server, TCP, tcp(2002, 5001, "S", 9)))
    one = compare(capture(tmp_path, packets), NAT, helpers=FTP)
    assert one.result.tally.ctinfo["RELATED"] == 12


def test_an_error_in_fragments_is_known_only_if_the_remote_end_sent_it(tmp_path: Path) -> None:
    remote, router = remotes(0)[0], "203.0.113.1"
    while Deal(2, INSIDE, NAT).addresses(joined(router, PUBLIC)) == 0:
        router = router[:-1] + str(int(router[-1]) + 1)
    outside = ip(PUBLIC, remote, UDP, udp(1000, 53, bytes(60)))
    for sender, found in ((remote, 1), (router, 0)):
        error = ip(sender, PUBLIC, ICMP, icmp_error(3, 3, outside))[20:]
        pieces = [
            ipv4(sender, PUBLIC, ICMP, error[:56], fragment=0x2000),
            ipv4(sender, PUBLIC, ICMP, error[56:], fragment=0x0007),
        ]
        one, two = differing(capture(tmp_path, [ip(A, remote, UDP, udp(1000, 53)), *pieces]), NAT)
        related = [seen.result.tally.reason["related_error"] for seen in (one, two)]
        assert related == [1, found]


# --- what goes wrong -----------------------------------------------------------------------------------------


@FORKS
def test_a_worker_that_dies_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def die(*given: Any, **more: Any) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return Replay(*given, **more)

    monkeypatch.setattr(workers, "Replay", die)
    path = capture(tmp_path, [ip(A, "192.0.2.1", UDP, udp(1, 1))])
    with pytest.raises(ChildProcessError, match=r"worker \d of 2 died \(signal SIGKILL\)"):
        shared(path, NAT)
    assert not (tmp_path / "out.pcap").exists()
    assert not multiprocessing.active_children()


@FORKS
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(28, "No space left on device"), OSError, "No space left"),
        (CaptureError("gone"), CaptureError, "gone"),
        (KeyError("x"), RuntimeError, "worker . of 2: KeyError"),
    ],
)
def test_what_fails_in_a_worker_fails_here(
    error: Exception, kind: type[Exception], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise error

    monkeypatch.setattr(workers, "Replay", fail)
    path = capture(tmp_path, [ip(A, "192.0.2.1", UDP, udp(1, 1))])
    with pytest.raises(kind, match=text):
        shared(path, NAT)
    assert not (tmp_path / "out.pcap").exists()


def begun(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """`replay --workers 2` on a long capture, and its workers' process ids."""
    path = tmp_path / "long.pcap"
    with path.open("wb") as file:
        octets = (ROOT / "captures" / "gateway-outside.pcap").read_bytes()
        file.write(octets)
        for _ in range(500):
            file.write(octets[24:])
    words = [sys.executable, "-m", "conntrack", "replay", str(path), "--workers", "2", "-w", str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                               start_new_session=True)  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs Linux's /proc/PID/task/TID/children")
    found: list[int] = []
    while len(found) < 2 and process.poll() is None:
        try:
            found = [int(word) for word in children.read_text().split()]
        except FileNotFoundError:
            break
    return process, found


def gone(pid: int) -> bool:
    """Soon, if not yet."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = bool(select.select([process], [], [], 30)[0])
    os.close(process)
    return ended


def test_a_killed_worker_ends_the_command_with_one_line(tmp_path: Path) -> None:
    process, found = begun(tmp_path)
    os.kill(found[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in said.splitlines() if not line.startswith("view")] == [
        "pyconntrack: worker 1 of 2 died (signal SIGKILL)"
    ]
    assert all(gone(pid) for pid in found) and not (tmp_path / "out").exists()


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    process, found = begun(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "pyconntrack: interrupted\n")
    assert all(gone(pid) for pid in found) and not (tmp_path / "out").exists()


def test_workers_whose_parent_was_killed_end(tmp_path: Path) -> None:
    process, found = begun(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert all(gone(pid) for pid in found)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Masquerade(PUBLIC), "names no source"),
        (Snat(PUBLIC, source="!10.0.0.0/8"), "names no source"),
        (Dnat("10.0.0.5", protocol="tcp", dport=80), "names no destination"),
        (Redirect(3128, protocol="tcp", address="10.0.0.1"), "names no destination"),
    ],
)
def test_a_rule_that_could_translate_any_address_is_refused(rule: NatRule, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        shared(capture(tmp_path, []), [rule])


def test_a_redirect_that_keeps_the_address_needs_no_destination(tmp_path: Path) -> None:
    packets = [ip(A, remote, TCP, tcp(5, 80, "S")) for remote in remotes(0, 3) + remotes(1, 3)]
    one = compare(capture(tmp_path, packets), [Redirect(3128, protocol="tcp", dport=80)])
    assert {ports(packet)[1] for packet in one.packets} == {3128}


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"number": 0}, "workers: 0 is not within 1..256"),
        ({"number": 257}, "257"),
        ({"inside": ["10.0.0.0/99"]}, "10.0.0.0/99"),
        ({"sysctl": {"nf_conntrack_max": -1}}, "nf_conntrack_max"),
        ({"helpers": {("tcp", 21): "nonsense"}}, "nonsense"),
    ],
)
def test_wrong_arguments_are_value_errors(how: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        shared(capture(tmp_path, []), NAT, **how)


def test_an_output_that_cannot_be_opened_stays_as_it_is(tmp_path: Path) -> None:
    path = capture(tmp_path, [])
    with pytest.raises(OSError, match="nowhere"):
        workers.replay(path, tmp_path / "nowhere" / "out", workers=2)
    with pytest.raises(CaptureError, match="cannot be written to"):
        workers.replay(path, path, workers=2)


CAPTURE = ROOT / "captures" / "gateway-outside.pcap"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--events"], "--events and --packets"),
        (["--packets", "-"], "--events and --packets"),
        (["--view", "inside"], "needs a capture that shows both sides"),
        (["-w", "-"], "needs a file that is not packed"),
        (["-w", "out.pcap.gz"], "needs a file that is not packed"),
        (["-w", "/dev/null"], "needs a file that is not packed"),
        (["--dnat", "10.0.0.5,protocol=tcp,dport=80"], "names no destination"),
        (["--workers", "0"], "--workers"),
        (["--workers", "two"], "--workers"),
    ],
)
def test_what_workers_cannot_do_is_wrong_usage(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(CAPTURE), "--workers", "2", *words]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert text in said, said


def test_captures_of_another_kind_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gzip

    packed = tmp_path / "packed.pcap.gz"
    packed.write_bytes(gzip.compress(CAPTURE.read_bytes()))
    octets = bytearray(CAPTURE.read_bytes())
    octets[20:24] = (101).to_bytes(4, "little")
    raw = tmp_path / "raw.pcap"
    raw.write_bytes(octets)
    modified = tmp_path / "modified.pcap"
    modified.write_bytes(b"\x34\xcd\xb2\xa1" + CAPTURE.read_bytes()[4:24])
    new = tmp_path / "new.pcapng"
    new.write_bytes(pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
                    + pack("<IIHHII", 1, 20, 1, 0, 0, 20))  # fmt: skip
    kinds = ((packed, "packed"), (raw, "RAW"), (modified, "modified"), (new, "pcapng"), ("-", "standard input"))
    for path, text in kinds:
        assert run(["replay", str(path), "--workers", "2"]) == 2, path
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert text in said, said
    assert run(["replay", str(tmp_path / "nowhere.pcap"), "--workers", "2"]) == 1
    assert run(["replay", str(ROOT / "README.md"), "--workers", "2"]) == 1


def test_the_command_says_the_same_with_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.pcap"
    traffic.write(path, traffic.generate(1500, 150, 1, traffic.GATEWAY))
    said = []
    for number in ("1", "2"):
        words = ["replay", str(path), "--masquerade", traffic.PUBLIC4, "--masquerade", traffic.PUBLIC6]
        words += ["--inside", "10.0.0.0/8", "--inside", "fd00::/8", "--workers", number, "--list", "--stats"]
        words += ["-w", str(tmp_path / "out.pcap"), "--flows", str(tmp_path / "flows")]
        assert run(words) == 0
        printed = capsys.readouterr()
        flows = [json.loads(line) for line in (tmp_path / "flows").open()]
        assert flows[0].pop("v") == 1
        octets = (tmp_path / "out.pcap").read_bytes()
        said.append([sorted(printed.out.splitlines()), printed.err, known(flows), undrawn(octets)])
    assert all(one == other for one, other in pairwise(said))
