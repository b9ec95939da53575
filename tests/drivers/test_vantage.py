"""A capture from one side of a NAT, replayed, must give the capture from the other side.

A gateway is played with one engine, and both wires are written down as they were; then a second engine with the
same rules sees only one of them.  What `-w` would write must be the other wire, packet by packet.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Sequence

import pytest
from packets import addresses, header_length, icmp_error, ip, ipv4, sealed, udp
from world import Traffic, side

from conntrack import Dnat, Engine, Snat
from conntrack.drivers.capture import create_capture, open_capture
from conntrack.drivers.replay import Replay
from conntrack.drivers.vantage import GATEWAY, INSIDE, OUTSIDE, Vantage
from conntrack.nat.rules import NatRule

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SNAT: list[NatRule] = [
    Snat("198.51.100.10", source="10.0.0.0/24"),
    Snat("2001:db8:b::10", source="fd00:1::/64"),
]
DNAT: list[NatRule] = [
    Dnat("10.0.0.2", destination="198.51.100.9", protocol="tcp", dport=8080, ports=80),
    Dnat("10.0.0.3", destination="198.51.100.9", protocol="udp", dport=8080, ports=50),
    Dnat("fd00:1::2", destination="2001:db8:b::9", protocol="udp", dport=8080, ports=80),
]
INSIDE_NETS = ["10.0.0.0/24", "fd00:1::/64"]


def raw_pcap(packets: Sequence[tuple[int, bytes]]) -> io.BytesIO:
    """A nanosecond pcap of raw IP."""
    out = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 101)
    for time, packet in packets:
        out += struct.pack("<IIII", time // SECOND, time % SECOND, len(packet), len(packet)) + packet
    return io.BytesIO(out)


def play(nat: list[NatRule], steps: int, seed: int, **public: object) -> dict[str, list[tuple[int, bytes]]]:
    """Both wires of a gateway, in order of time."""
    traffic = Traffic(random.Random(seed), **public)  # type: ignore[arg-type]
    engine = Engine(nat=nat, seed=5)
    wires: dict[str, list[tuple[int, bytes]]] = {"in0": [], "out0": []}
    for number in range(steps):
        iface, packet = traffic.next()
        if public and addresses(packet)[0] in ("192.0.2.9", "2001:db8:9::9"):
            continue  # the outside wire shows an inside router's error as the public address's own: that is lost
        time = START + number * SECOND // 100
        outcome = engine.process(packet, time)
        if outcome.verdict != "ACCEPT" or outcome.ctinfo == "INVALID":
            continue  # an untranslated private address never comes back; leave such packets out of both wires
        other = "out0" if iface == "in0" else "in0"
        if side(addresses(outcome.packet)[1]) != other:
            continue  # from one inside host to another: no gateway would see it on both wires
        wires[iface].append((time, packet))
        wires[other].append((time, outcome.packet))
        traffic.wires[other].append(outcome.packet)
    return wires


def replay(
    capture: list[tuple[int, bytes]], nat: list[NatRule], view: str, inside: list[str]
) -> tuple[list[bytes], Vantage]:
    """What the other wire carried, by the replay."""
    engine = Engine(nat=nat, seed=5)
    vantage = Vantage(engine, view, inside)
    out = io.BytesIO()
    with open_capture(raw_pcap(capture)) as reader:
        writer = create_capture(out, like=reader)
        for _ in Replay(reader, engine, vantage, writer).steps():
            pass
        engine.check()
        writer.flush()
    with open_capture(io.BytesIO(out.getvalue())) as reader:
        return [frame.data for frame in reader], vantage


@pytest.mark.parametrize("seed", range(4))
def test_an_inside_capture_gives_the_outside_wire(seed: int) -> None:
    wires = play(SNAT, 400, seed)
    written, vantage = replay(wires["in0"], SNAT, INSIDE, INSIDE_NETS)
    assert written == [packet for _, packet in wires["out0"]]
    assert vantage.seen.readdressed > 40
    assert vantage.seen.differing == 0
    assert vantage.seen.restored == vantage.seen.readdressed
    assert vantage.seen.unsolicited == 0


@pytest.mark.parametrize("seed", range(4))
def test_an_outside_capture_of_a_port_forward_gives_the_inside_wire(seed: int) -> None:
    wires = play(DNAT, 400, seed, public=("198.51.100.9",), public6=("2001:db8:b::9",), dport=8080)
    written, vantage = replay(wires["out0"], DNAT, OUTSIDE, [])
    assert written == [packet for _, packet in wires["in0"]]
    assert vantage.seen.readdressed > 15
    assert vantage.seen.differing == 0


def test_as_a_gateway_the_same_capture_would_be_invalid() -> None:
    wires = play(SNAT, 400, 0)
    engine = Engine(nat=SNAT, seed=5)
    outcomes = [engine.process(packet, time) for time, packet in wires["in0"]]
    assert sum(outcome.ctinfo == "INVALID" for outcome in outcomes) > 10


def test_an_answer_in_fragments_is_readdressed_piece_by_piece() -> None:
    query = ip("10.0.0.2", "203.0.113.53", 17, udp(5353, 53, b"?"))
    whole = sealed("203.0.113.53", "10.0.0.2", 17, udp(53, 5353, bytes(range(256)) * 8))
    answer = [
        ipv4("203.0.113.53", "10.0.0.2", 17, whole[:1208], fragment=0x2000, identification=77),
        ipv4("203.0.113.53", "10.0.0.2", 17, whole[1208:], fragment=1208 // 8, identification=77),
    ]
    for order in (answer, answer[::-1]):
        capture = [(START + n, packet) for n, packet in enumerate([query, *order])]
        written, vantage = replay(capture, SNAT, INSIDE, INSIDE_NETS)
        assert [addresses(packet) for packet in written] == [("198.51.100.10", "203.0.113.53")] + [
            ("203.0.113.53", "198.51.100.10")
        ] * 2
        assert vantage.seen.readdressed == 2
        assert vantage.seen.differing == 0
        # the first fragment's checksum covers the whole datagram, and must be right for the public address
        first = next(packet for packet in written[1:] if packet[6] & 0x20)
        later = next(packet for packet in written[1:] if not packet[6] & 0x20)
        datagram = first[header_length(first) :] + later[header_length(later) :]
        assert datagram == sealed("203.0.113.53", "198.51.100.10", 17, datagram)


def test_an_error_from_outside_is_readdressed_with_its_quote() -> None:
    query = ip("10.0.0.2", "203.0.113.53", 17, udp(5353, 53, b"?"))
    error = ip("192.0.2.1", "10.0.0.2", 1, icmp_error(11, 0, query))
    written, vantage = replay([(START, query), (START + 1, error)], SNAT, INSIDE, INSIDE_NETS)
    translated = ip("198.51.100.10", "203.0.113.53", 17, udp(5353, 53, b"?"))
    assert written == [translated, ip("192.0.2.1", "198.51.100.10", 1, icmp_error(11, 0, translated))]
    assert vantage.seen.restored == 1


def test_a_servers_error_is_readdressed_with_its_source() -> None:
    connect = ip("203.0.113.5", "198.51.100.9", 17, udp(999, 8080, b"?"))
    forwarded = ip("203.0.113.5", "10.0.0.3", 17, udp(999, 50, b"?"))
    inner = ip("10.0.0.3", "203.0.113.5", 1, icmp_error(3, 3, forwarded))
    outer = ip("198.51.100.9", "203.0.113.5", 1, icmp_error(3, 3, connect))
    written, vantage = replay([(START, connect), (START + 1, outer)], DNAT, OUTSIDE, [])
    assert written == [forwarded, inner]
    assert vantage.seen.restored == 1


def test_what_answers_nothing_goes_in_unchanged_and_is_counted() -> None:
    stray = ip("203.0.113.53", "10.0.0.2", 17, udp(53, 5353, b"!"))
    written, vantage = replay([(START, stray)], SNAT, INSIDE, INSIDE_NETS)
    assert written == [stray]
    assert vantage.seen.unsolicited == 1
    assert vantage.seen.readdressed == 0


def test_an_expired_connection_is_no_longer_answered() -> None:
    query = ip("10.0.0.2", "203.0.113.53", 17, udp(5353, 53, b"?"))
    answer = ip("203.0.113.53", "10.0.0.2", 17, udp(53, 5353, b"!"))
    _, vantage = replay([(START, query), (START + 31 * SECOND, answer)], SNAT, INSIDE, INSIDE_NETS)
    assert vantage.seen.unsolicited == 1


def test_a_gateway_view_changes_nothing() -> None:
    engine = Engine(nat=SNAT)
    assert Vantage(engine, GATEWAY).readdress(ip("203.0.113.53", "10.0.0.2", 17, udp(53, 5353)), START) is None


def test_an_unknown_view_or_network_is_quoted() -> None:
    with pytest.raises(ValueError, match="'above'"):
        Vantage(Engine(), "above")
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99'"):
        Vantage(Engine(), INSIDE, ["10.0.0.0/99"])
