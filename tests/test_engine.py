"""The engine: what becomes of a packet, what time does, what is refused, and what it tells its listeners.

Facts: nf_conntrack_core.c of Linux 6.18, seen on a running kernel.
"""

from __future__ import annotations

from typing import Any

import packets
import pytest
from packets import ESP, GRE, ICMP, SCTP, TCP, UDP, ip
from script import small_engine

from conntrack import Conn, Dnat, Engine, Masquerade, Netmap, Outcome, Redirect, Snat
from conntrack.verdict import DST, NEW, POSTROUTING, PREROUTING, SRC
from conntrack.wire.packet import Packet, parse

CLIENT, SERVER = "10.0.0.2", "192.0.2.1"
QUERY = ip(CLIENT, SERVER, UDP, packets.udp(1234, 53, b"query"))
ANSWER = ip(SERVER, CLIENT, UDP, packets.udp(53, 1234, b"answer"))


# ── verdicts ────────────────────────────────────────────────────────────────────────────────────────


def test_a_packet_of_each_class() -> None:
    engine = small_engine(nat=[Snat("203.0.113.1", source="10.9.0.0/16", protocol="udp", ports=7)])
    other = "10.9.0.1"
    error = ip("198.18.0.1", CLIENT, ICMP, packets.icmp_error(3, 3, QUERY))
    neighbour = ip("fd00::1", "fd00::2", packets.ICMPV6, packets.icmp(135))
    fragment = packets.ipv4(CLIENT, SERVER, UDP, bytes(16), fragment=0x2000)
    rows = [
        (QUERY, "ACCEPT", "NEW", "original", ""),
        (ANSWER, "ACCEPT", "ESTABLISHED", "reply", ""),
        (QUERY, "ACCEPT", "ESTABLISHED", "original", ""),
        (error, "ACCEPT", "RELATED", "reply", "related_error"),
        (neighbour, "ACCEPT", "UNTRACKED", "", "icmpv6_untracked"),
        (b"", "ACCEPT", "INVALID", "", "ip_header"),
        (ip(CLIENT, SERVER, TCP, packets.tcp(1, 2, "FA")), "ACCEPT", "INVALID", "", "tcp_invalid_new"),
        (fragment, "HELD", "", "", "held_fragment"),
        (ip(other, SERVER, UDP, packets.udp(1, 53)), "ACCEPT", "NEW", "original", ""),
        (ip(other, SERVER, UDP, packets.udp(2, 53)), "DROP", "NEW", "original", "clash"),
    ]
    for packet, verdict, ctinfo, direction, reason in rows:
        outcome = engine.process(packet, 0.0)
        assert (outcome.verdict, outcome.ctinfo, outcome.direction, outcome.reason) == (
            *(verdict, ctinfo, direction, reason),
        )
        assert len(outcome.packets) == (verdict == "ACCEPT")
        assert (outcome.conn is None) == (not direction)
    assert engine.stats.packets == len(rows)
    engine.check()


def test_no_octets_make_it_raise() -> None:
    engine = small_engine(nat=[Masquerade("203.0.113.1")])
    error = ip("198.18.0.1", CLIENT, ICMP, packets.icmp_error(3, 3, QUERY))
    wholes = [QUERY, error, ip(CLIENT, SERVER, TCP, packets.tcp(1, 2, options=packets.tcp_options(wscale=7)))]
    wholes += [ip("fd00::1", "fd00::2", packets.ICMPV6, packets.icmp(137, payload=bytes(60)), hop_limit=255)]
    wholes += [ip(CLIENT, SERVER, SCTP, packets.sctp(1, 2, 0, packets.chunk(1, bytes(16))))]
    wholes += [packets.ipv6("fd00::1", "fd00::2", 0, b"", extra=bytes((44, 0)) + bytes(6) + bytes((6, 0, 0, 1, 9)))]
    for packet in wholes:
        for size in range(len(packet) + 1):
            for wire_length in (None, len(packet)):
                outcome = engine.process(packet[:size], 0.0, wire_length=wire_length)
                assert outcome.verdict in ("ACCEPT", "DROP", "HELD")
                outcome.to_dict(), outcome.log_text()
    engine.check()


def test_padding_behind_the_packet_is_cut_off() -> None:
    outcome = small_engine().process(QUERY + bytes(7), 0.0)
    assert outcome.packet == QUERY and outcome.length == len(QUERY)


def test_a_packet_that_promises_more_than_came_is_invalid() -> None:
    outcome = small_engine().process(QUERY[:-1], 0.0)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "ip_truncated")
    assert outcome.detail == {"length": len(QUERY), "present": len(QUERY) - 1}
    cut = small_engine().process(QUERY[:-1], 0.0, wire_length=len(QUERY))
    assert (cut.ctinfo, cut.reason) == ("NEW", "")


def test_without_defragmentation_only_first_fragments_have_a_tuple() -> None:
    engine = small_engine(defragment=False, sysctl={"nf_conntrack_checksum": 0})
    first = packets.ipv4(CLIENT, SERVER, TCP, packets.tcp(1, 2), fragment=0x2000)
    later = packets.ipv4(CLIENT, SERVER, TCP, packets.tcp(1, 2), fragment=0x2001)
    assert engine.process(first, 0.0).ctinfo == "NEW"
    outcome = engine.process(later, 0.0)
    assert (outcome.verdict, outcome.ctinfo, outcome.reason) == ("ACCEPT", "INVALID", "fragment")
    assert outcome.detail == {"offset": 8} and outcome.packet == later


def test_the_only_packet_is_asked_for_only_where_there_is_one() -> None:
    engine = small_engine()
    assert engine.process(QUERY, 0.0).packet == QUERY
    held = engine.process(packets.ipv4(CLIENT, SERVER, UDP, bytes(16), fragment=0x2000), 0.0)
    with pytest.raises(ValueError, match="0 packets"):
        held.packet  # noqa: B018


def test_bytes_are_those_of_the_ip_header_and_only_counted_packets_count() -> None:
    engine = small_engine()
    for packet in (QUERY, ANSWER, QUERY + b"padding"):
        assert engine.process(packet, 0.0).counted
    error = ip("198.18.0.1", CLIENT, ICMP, packets.icmp_error(3, 3, QUERY))
    assert not engine.process(error, 0.0).counted
    (conn,) = engine.conns()
    assert (conn.packets, conn.bytes) == ((2, 1), (2 * len(QUERY), len(ANSWER)))


# ── time ────────────────────────────────────────────────────────────────────────────────────────────


def test_time_never_runs_backwards() -> None:
    engine = small_engine()
    engine.process(QUERY, 100.0)
    engine.process(ANSWER, 60.0)
    assert engine.now == 100 * 10**9 and engine.stats.time_backwards == 1
    (conn,) = engine.conns()
    assert conn.timeout() == 30


def test_floats_are_seconds_and_ints_are_nanoseconds() -> None:
    engine = small_engine()
    assert engine.advance(1.5) == 1_500_000_000
    assert engine.advance(1_500_000_001) == 1_500_000_001 == engine.now
    assert engine.advance(1_700_000_000_123_456_789) == 1_700_000_000_123_456_789


def test_the_remaining_time_is_printed_in_whole_seconds() -> None:
    engine = small_engine()
    engine.process(QUERY, 0.0)
    (conn,) = engine.conns()
    assert [conn.timeout(int(at * 10**9)) for at in (0, 0.1, 1, 29.5, 30, 99)] == [30, 29, 29, 0, 0, 0]


# ── wrong arguments ─────────────────────────────────────────────────────────────────────────────────

BAD_RULES: list[tuple[Any, str]] = [
    (Snat("203.0.113"), "203.0.113"),
    (Snat("203.0.113.9-203.0.113.1"), "203.0.113.9-203.0.113.1"),
    (Snat("203.0.113.1-2001:db8::1"), "203.0.113.1-2001:db8::1"),
    (Snat("203.0.113.1", source="10.0.0.0/33"), "10.0.0.0/33"),
    (Snat("203.0.113.1", source=["10.0.0.0/8", "!10.1.0.0/16"]), "!"),
    (Snat("203.0.113.1", source="fd00::/8"), "mixed"),
    (Snat("203.0.113.1", ports=80), "protocol"),
    (Snat("203.0.113.1", protocol="icmp", ports=80), "protocol"),
    (Snat("203.0.113.1", protocol="tcp", ports="80-abc"), "80-abc"),
    (Snat("203.0.113.1", protocol="tcp", ports=65536), "65536"),
    (Snat("203.0.113.1", protocol="quic"), "quic"),
    (Snat("203.0.113.1", protocol=256), "256"),
    (Snat("203.0.113.1", sport=80), "sport"),
    (Dnat("10.0.0.5", base=80), "base"),
    (Dnat("10.0.0.5", protocol="tcp", ports="1-9", base=70000), "70000"),
    (Masquerade(["203.0.113.1", "203.0.113.2"]), "203.0.113.2"),
    (Masquerade([]), "address"),
    (Redirect(), "redirect"),
    (Netmap("198.51.100.0/24"), "source or destination"),
    (Netmap("198.51.100.0/24", source="10.0.0.0/24", destination="10.1.0.0/24"), "source or destination"),
    (Netmap("198.51.100.0/99", source="10.0.0.0/24"), "198.51.100.0/99"),
]


@pytest.mark.parametrize(("rule", "quoted"), BAD_RULES, ids=[str(row[0]) for row in BAD_RULES])
def test_a_bad_rule_raises_and_is_quoted(rule: Any, quoted: str) -> None:
    with pytest.raises(ValueError) as error:
        Engine([rule])
    assert quoted in str(error.value)
    assert type(rule).__name__ in str(error.value)  # the rule itself is shown


@pytest.mark.parametrize(("arguments", "quoted"), [
    ({"gc": "lazy"}, "'lazy'"), ({"quirks": {"udp": True}}, "'udp'"),
    ({"sysctl": {"nf_conntrack_tcp_loose": "maybe"}}, "'maybe'"), ({"sysctl": {"nf_loose": 1}}, "'nf_loose'"),
])  # fmt: skip
def test_other_bad_arguments_raise_and_are_quoted(arguments: dict[str, Any], quoted: str) -> None:
    with pytest.raises(ValueError) as error:
        Engine(**arguments)
    assert quoted in str(error.value)


# ── the steps, one by one ───────────────────────────────────────────────────────────────────────────


def enter(engine: Engine, data: bytes) -> tuple[Packet, Conn, int]:
    packet = parse(data)
    conn, ctinfo = engine.enter(packet)
    assert conn is not None
    return packet, conn, ctinfo


def translate(engine: Engine, packet: Packet, conn: Conn, ctinfo: int) -> None:
    engine.translate(conn, ctinfo, packet, DST, PREROUTING)
    engine.translate(conn, ctinfo, packet, SRC, POSTROUTING)


def test_a_packet_dropped_on_its_way_leaves_no_trace() -> None:
    engine = small_engine(nat=[Masquerade("203.0.113.1")])
    events = engine.events
    packet, conn, ctinfo = enter(engine, QUERY)
    assert engine.count() == 1  # it counts while it is on its way
    translate(engine, packet, conn, ctinfo)
    engine.drop(conn)
    assert (engine.count(), len(events), engine.listing()) == (0, 0, "")
    engine.check()
    assert engine.process(QUERY, 0.0).ctinfo == "NEW"


def test_rules_do_not_touch_a_flow_that_was_there_before_them() -> None:
    engine = small_engine(nat=[Masquerade("203.0.113.1")])
    packet, conn, ctinfo = enter(engine, QUERY)
    engine.leave(conn, ctinfo, packet)  # without ever meeting the NAT hooks
    outcome = engine.process(QUERY, 1.0)
    assert (outcome.ctinfo, outcome.packet, outcome.conn) == ("NEW", QUERY, conn)
    assert not {"SRC_NAT", "SRC_NAT_DONE", "DST_NAT_DONE"} & set(conn.to_dict()["status"])
    assert engine.process(ANSWER, 1.0).ctinfo == "ESTABLISHED"


def test_a_dropped_packet_of_a_known_flow_leaves_the_flow() -> None:
    engine = small_engine()
    engine.process(QUERY, 0.0)
    _, conn, _ = enter(engine, ANSWER)
    engine.drop(conn)
    assert engine.count() == 1


def test_an_unconfirmed_flow_is_not_found() -> None:
    engine = small_engine()
    _, first, _ = enter(engine, QUERY)
    _, second, ctinfo = enter(engine, QUERY)
    assert first is not second and ctinfo == NEW
    engine.drop(first), engine.drop(second)
    engine.check()


def test_the_deadline_runs_from_confirmation() -> None:
    engine = small_engine()
    engine.advance(0.0)
    packet, conn, ctinfo = enter(engine, QUERY)
    engine.advance(5.0)
    engine.leave(conn, ctinfo, packet)
    assert conn.deadline == 35 * 10**9


def held_up(engine: Engine, *datas: bytes) -> tuple[list[Conn], list[str]]:
    """All packets enter before the first one leaves; the connections they end up with, and their verdicts."""
    entered = [enter(engine, data) for data in datas]
    conns = []
    for packet, conn, ctinfo in entered:
        translate(engine, packet, conn, ctinfo)
        conns.append(engine.leave(conn, ctinfo, packet))
        packet.data = bytes(packet.data)
    return conns, [packet.verdict for packet, _, _ in entered]


def held_engine(*rules: Any, hooks: bool = True) -> Engine:
    return Engine(rules if hooks else None, {"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1}, seed=1)


@pytest.mark.parametrize(("name", "packet", "tolerant"), [
    ("UDP", QUERY, True),
    ("GRE", ip(CLIENT, SERVER, GRE, bytes(8)), True),
    ("ESP", ip(CLIENT, SERVER, ESP, bytes(8)), True),
    ("TCP", ip(CLIENT, SERVER, TCP, packets.tcp(1, 2)), False),
    ("ICMP", ip(CLIENT, SERVER, ICMP, packets.icmp(8)), False),
    ("SCTP", ip(CLIENT, SERVER, SCTP, packets.sctp(1, 2, 0, packets.chunk(1, bytes(16)))), False),
])  # fmt: skip
@pytest.mark.parametrize("hooks", [False, True])
def test_two_first_packets_of_a_flow_are_merged_or_one_is_dropped(
    name: str, packet: bytes, tolerant: bool, hooks: bool
) -> None:
    engine = held_engine(hooks=hooks)
    (first, second), verdicts = held_up(engine, packet, packet)
    stats = engine.stats
    assert engine.count() == 1
    if tolerant:
        assert second is first and first.packets == (2, 0)
        assert verdicts == ["ACCEPT", "ACCEPT"]
        assert (stats.clash_resolve, stats.insert_failed, stats.drop) == (1, 0, 0)
    else:
        assert verdicts == ["ACCEPT", "DROP"] and first.packets == (1, 0)
        assert (stats.clash_resolve, stats.insert_failed, stats.drop) == (0, 1, 1)
    engine.check()


@pytest.mark.parametrize("hooks", [False, True])
def test_both_ends_may_send_first(hooks: bool) -> None:
    """The mirror image is merged, and its packet is not yet the answer that removes [UNREPLIED]."""
    engine = held_engine(hooks=hooks)
    (first, second), _ = held_up(engine, QUERY, ANSWER)
    assert second is first and engine.count() == 1 and engine.stats.clash_resolve == 1
    assert "SEEN_REPLY" not in first.to_dict()["status"]
    assert engine.process(ANSWER, 0.0).ctinfo == "ESTABLISHED"
    assert "SEEN_REPLY" in first.to_dict()["status"]
    engine.check()


def test_two_first_packets_with_two_mappings_live_side_by_side_for_a_second() -> None:
    engine = held_engine(Snat("203.0.113.1", protocol="udp", ports="2000-60000", random=True))
    (first, second), verdicts = held_up(engine, QUERY, QUERY)
    assert verdicts == ["ACCEPT", "ACCEPT"] and engine.stats.clash_resolve == 1
    assert first is not second and first.answer.dport != second.answer.dport
    assert {"NAT_CLASH", "FIXED_TIMEOUT"} <= set(second.to_dict()["status"])
    assert engine.count() == 2 and len(engine.listing().splitlines()) == 1
    back = ip(SERVER, "203.0.113.1", UDP, packets.udp(53, second.answer.dport))
    outcome = engine.process(back, 0.9)
    assert outcome.ctinfo == "ESTABLISHED" and packets.ports(outcome.packet) == (53, 1234)
    assert engine.process(QUERY, 0.9).conn is first
    engine.check()
    assert engine.process(back, 1.0).ctinfo == "NEW"  # the answer before did not prolong its life


# ── events ──────────────────────────────────────────────────────────────────────────────────────────


def kinds(events: Any) -> list[str]:
    return [f"{event.type} {' '.join(event.to_dict()['bits'])}" for event in events]


def conversation(engine: Engine) -> None:
    for now, packet in ((0.0, QUERY), (0.1, ANSWER), (0.2, ANSWER), (3.0, QUERY), (3.1, QUERY)):
        engine.process(packet, now)


def test_what_a_listener_hears_of_a_conversation() -> None:
    engine = small_engine()
    events = engine.events
    conversation(engine)
    engine.flush()
    assert kinds(events) == ["NEW new", "UPDATE reply", "UPDATE assured", "DESTROY destroy"]


@pytest.mark.parametrize(("mode", "listening", "heard"), [
    (0, True, 0), (1, True, 4), (2, True, 4), (1, False, 2), (2, False, 0),
])  # fmt: skip
def test_events_are_for_flows_that_were_made_to_be_heard(mode: int, listening: bool, heard: int) -> None:
    """0: never; 1: every flow; 2: flows made while somebody listens.  Who comes late hears the rest, or nothing."""
    engine = small_engine(sysctl={"nf_conntrack_events": mode})
    if listening:
        assert len(engine.events) == 0
    engine.process(QUERY, 0.0)
    engine.process(ANSWER, 0.1)
    events = engine.events
    engine.process(QUERY, 3.0)
    engine.flush()
    assert len(events) == heard


def test_tcp_events_tell_the_state_when_it_changes() -> None:
    engine = small_engine()
    events = engine.events
    talk = [("S", 999, 0, False), ("SA", 4999, 1000, True), ("A", 1000, 5000, False), ("A", 1000, 5000, False)]
    for flags, seq, ack, back in talk:
        ends, ports = ((SERVER, CLIENT), (80, 1234)) if back else ((CLIENT, SERVER), (1234, 80))
        engine.process(ip(*ends, TCP, packets.tcp(*ports, flags, seq, ack)), 0.0)
    assert [(event.type, event.record.get("state")) for event in events] == [
        ("NEW", "SYN_SENT"), ("UPDATE", "SYN_RECV"), ("UPDATE", "ESTABLISHED"),
    ]  # fmt: skip


# ── the same again ──────────────────────────────────────────────────────────────────────────────────


def run(seed: int) -> tuple[list[str], str, dict[str, int]]:
    engine = small_engine(nat=[Masquerade("203.0.113.1", random=True)], seed=seed)
    out = []
    for number in range(200):
        outcome: Outcome = engine.process(
            ip(f"10.0.0.{number % 7}", SERVER, UDP, packets.udp(1000 + number % 11, 53)), number / 10
        )
        out.append(outcome.packet.hex())
    return out, engine.listing(show_id=True), engine.stats.as_dict()


def test_the_same_seed_gives_the_same_run_and_another_gives_another() -> None:
    assert run(7) == run(7)
    assert run(7)[0] != run(8)[0]


def test_a_flow_without_record_keeping_is_still_tracked() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512})
    engine.process(QUERY, 0.0)
    (conn,) = engine.conns()
    assert conn.packets == (0, 0) and "packets" not in conn.to_dict()


def test_ends_are_told_when_and_why() -> None:
    ended = []
    engine = small_engine(gc="eager")
    engine.on_end = ended.append
    engine.process(QUERY, 0.0)
    engine.process(ip(CLIENT, SERVER, TCP, packets.tcp(1, 2, "S", 9)), 0.0)
    engine.process(ip(SERVER, CLIENT, TCP, packets.tcp(2, 1, "RA", 0, 10)), 1.0)
    engine.advance(100.0)
    assert [(conn.to_dict()["end"], conn.to_dict()["end_reason"]) for conn in ended] == [
        ("1.000000", "rst"), ("30.000000", "timeout"),
    ]  # fmt: skip
