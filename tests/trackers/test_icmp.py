"""ICMP: which messages start a flow, which answer one, and errors about the flows of others.

Facts: nf_conntrack_proto_icmp.c of Linux 6.18, seen on a running kernel; RFC 792, RFC 5508.
"""

from __future__ import annotations

import packets
import pytest
from packets import ESP, ICMP, ICMPV6, TCP, UDP, ip
from script import Script, small_engine

from conntrack import Engine, Outcome

CLIENT, SERVER, ROUTER = "10.0.0.2", "192.0.2.1", "198.18.0.1"
ENDS = ((CLIENT, 0), (SERVER, 0))


def send(engine: Engine, l4: bytes, src: str = CLIENT, dst: str = SERVER, now: float = 0.0) -> Outcome:
    return engine.process(ip(src, dst, ICMP, l4), now)


# ── queries and answers ─────────────────────────────────────────────────────────────────────────────

CREATING = {8: 0, 13: 14, 15: 16, 17: 18}
SILENT = {0, 14, 16, 18} | {1, 2, 6, 7, 9, 10}
ERRORS = {3, 4, 5, 11, 12}


@pytest.mark.parametrize("kind", range(256))
def test_what_each_type_does_when_nothing_is_known(kind: int) -> None:
    engine = small_engine()
    outcome = send(engine, packets.icmp(kind))
    assert outcome.verdict == "ACCEPT"
    if kind in CREATING:
        assert outcome.ctinfo == "NEW" and engine.count() == 1
        return
    assert outcome.ctinfo == "INVALID" and engine.count() == 0
    if kind in SILENT:
        assert outcome.log_text() is None and (engine.stats.invalid, engine.stats.error) == (1, 0)
    elif kind in ERRORS:
        assert (engine.stats.invalid, engine.stats.error) == (0, 1)
    else:
        assert outcome.reason == "icmp_type" and outcome.log_text() == "nf_ct_proto_1: invalid icmp type"
        assert (engine.stats.invalid, engine.stats.error) == (0, 1)


@pytest.mark.parametrize(("query", "answer"), CREATING.items())
def test_each_query_has_its_answer(query: int, answer: int) -> None:
    Script(ICMP, ENDS).play(f"""
        > {query}  id 7          30 UNREPLIED as NEW
        < {answer} id 7          30 REPLIED LOOSE as ESTABLISHED
        > {query}  id 7          30 LOOSE as ESTABLISHED
    """)


def test_every_packet_renews_and_nothing_assures() -> None:
    Script(ICMP, ENDS).play("""
        > 8 id 7          30
        +10s
        < 0 id 7          30 counted
        +10s
        < 0 id 7          30 counted LOOSE
        +29s
        > 8 id 7          30 counted as ESTABLISHED LOOSE
        +30s
        > 8 id 7          30 as NEW UNREPLIED
    """)


def test_the_identifier_and_the_code_tell_flows_apart() -> None:
    engine = small_engine()
    send(engine, packets.icmp(8, 5, 7))
    assert send(engine, packets.icmp(8, 0, 7)).ctinfo == "NEW"
    assert send(engine, packets.icmp(8, 5, 8)).ctinfo == "NEW"
    assert send(engine, packets.icmp(0, 5, 7), SERVER, CLIENT).ctinfo == "ESTABLISHED"
    assert send(engine, packets.icmp(0, 4, 7), SERVER, CLIENT).ctinfo == "INVALID"
    assert engine.count() == 3


def test_the_sequence_number_does_not_tell_flows_apart() -> None:
    engine = small_engine()
    assert [send(engine, packets.icmp(8, 0, 7, number)).ctinfo for number in range(3)] == ["NEW"] * 3
    assert engine.count() == 1


def test_the_timeout_is_a_sysctl() -> None:
    Script(ICMP, ENDS, sysctl={"nf_conntrack_icmp_timeout": 5}).play("> 8 5")


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", range(8))
def test_fewer_than_eight_octets_are_an_error(size: int) -> None:
    engine = small_engine()
    outcome = engine.process(ip(CLIENT, SERVER, ICMP, packets.icmp(8)[:size]), 0.0)
    assert (outcome.ctinfo, outcome.reason, engine.count()) == ("INVALID", "icmp_short", 0)
    assert outcome.log_text() == "nf_ct_proto_1: short packet"
    assert (engine.stats.invalid, engine.stats.error) == (0, 1)


def test_a_wrong_checksum_is_an_error() -> None:
    engine = small_engine()
    bad = ip(CLIENT, SERVER, ICMP, b"\x08\0\x12\x34" + bytes(4), seal=False)
    outcome = engine.process(bad, 0.0)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "icmp_checksum")
    assert outcome.log_text() == "nf_ct_proto_1: bad hw icmp checksum"
    assert (engine.stats.invalid, engine.stats.error) == (0, 1)
    assert small_engine(sysctl={"nf_conntrack_checksum": 0}).process(bad, 0.0).ctinfo == "NEW"


def test_icmp_of_the_other_family_is_refused() -> None:
    for src, dst, proto, kind in (("fd00::1", "fd00::2", ICMP, 8), (CLIENT, SERVER, ICMPV6, 128)):
        engine = small_engine()
        outcome = engine.process(ip(src, dst, proto, packets.icmp(kind)), 0.0)
        assert (outcome.ctinfo, outcome.reason, engine.count()) == ("INVALID", "wrong_family", 0)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────


def flow(engine: Engine, proto: int = UDP, l4: bytes | None = None) -> bytes:
    """A packet from CLIENT to SERVER that the engine has seen."""
    packet = ip(CLIENT, SERVER, proto, packets.udp(1234, 53, b"query") if l4 is None else l4)
    assert engine.process(packet, 0.0).ctinfo == "NEW"
    return packet


@pytest.mark.parametrize("kind", sorted(ERRORS))
def test_an_error_about_a_known_flow_is_related_and_touches_nothing(kind: int) -> None:
    engine = small_engine()
    quote = flow(engine)
    (conn,) = engine.conns()
    before = conn.to_dict()
    outcome = send(engine, packets.icmp_error(kind, 1, quote), ROUTER, CLIENT, now=10.0)
    assert (outcome.ctinfo, outcome.direction, outcome.counted) == ("RELATED", "reply", False)
    assert (
        outcome.conn is conn and outcome.reason == "related_error" and outcome.detail == {"type": kind, "code": 1}
    )
    assert conn.to_dict() == before | {"timeout": 20}


def test_an_error_about_an_answer_goes_the_other_way() -> None:
    engine = small_engine()
    flow(engine)
    answer = ip(SERVER, CLIENT, UDP, packets.udp(53, 1234, b"answer"))
    engine.process(answer, 0.0)
    outcome = send(engine, packets.icmp_error(3, 3, answer), CLIENT, SERVER)
    assert (outcome.ctinfo, outcome.direction) == ("RELATED", "original")


QUOTES = [  # protocol, what was sent, octets of it in the quote behind its IP header, related?
    ("UDP, whole", UDP, packets.udp(1234, 53, b"query"), 13, True),
    ("UDP, eight octets", UDP, packets.udp(1234, 53, b"query"), 8, True),
    ("UDP, four octets", UDP, packets.udp(1234, 53, b"query"), 4, True),
    ("UDP, three octets", UDP, packets.udp(1234, 53, b"query"), 3, False),
    ("UDP, none", UDP, packets.udp(1234, 53, b"query"), 0, False),
    ("TCP, four octets", TCP, packets.tcp(1234, 80), 4, True),
    ("TCP, two octets", TCP, packets.tcp(1234, 80), 2, False),
    ("echo, eight octets", ICMP, packets.icmp(8, 0, 7), 8, True),
    ("echo, four octets", ICMP, packets.icmp(8, 0, 7), 4, False),
    ("ESP, none", ESP, bytes(16), 0, True),
]


@pytest.mark.parametrize(("name", "proto", "l4", "kept", "related"), QUOTES, ids=[row[0] for row in QUOTES])
def test_how_much_must_be_quoted(name: str, proto: int, l4: bytes, kept: int, related: bool) -> None:
    engine = small_engine()
    quote = flow(engine, proto, l4)[: 20 + kept]
    outcome = send(engine, packets.icmp_error(3, 3, quote), ROUTER, CLIENT)
    assert outcome.ctinfo == ("RELATED" if related else "INVALID")
    assert engine.stats.error == (not related) and engine.stats.invalid == 0


def test_a_quote_without_a_whole_ip_header_is_nothing() -> None:
    engine = small_engine()
    quote = flow(engine)
    for size in (0, 8, 19):
        assert send(engine, packets.icmp_error(3, 3, quote[:size]), ROUTER, CLIENT).ctinfo == "INVALID"


def test_nothing_but_the_tuple_is_checked_in_the_quote() -> None:
    engine = small_engine()
    quote = bytearray(flow(engine))
    quote[2:4] = b"\xff\xff"  # total length
    quote[8] = 0  # TTL
    quote[10:12] = b"\x12\x34"  # checksum
    quote[24:28] = b"\0\0\xff\xff"  # UDP length and checksum
    assert send(engine, packets.icmp_error(11, 0, bytes(quote)), ROUTER, CLIENT).ctinfo == "RELATED"


def test_a_quoted_fragment_that_is_not_the_first_is_nothing() -> None:
    engine = small_engine()
    quote = bytearray(flow(engine))
    quote[6:8] = b"\x00\x01"
    outcome = send(engine, packets.icmp_error(3, 3, bytes(quote)), ROUTER, CLIENT)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "icmp_error_quote")
    quote[6:8] = b"\x20\x00"  # a first fragment has the ports
    assert send(engine, packets.icmp_error(3, 3, bytes(quote)), ROUTER, CLIENT).ctinfo == "RELATED"


def test_a_quoted_error_is_nothing() -> None:
    engine = small_engine()
    first = ip(ROUTER, CLIENT, ICMP, packets.icmp_error(3, 3, flow(engine)))
    assert send(engine, packets.icmp_error(3, 3, first), CLIENT, ROUTER).ctinfo == "INVALID"


def test_an_error_about_nobodys_packet_is_invalid_without_a_word() -> None:
    engine = small_engine()
    quote = ip(CLIENT, SERVER, UDP, packets.udp(1, 2))
    outcome = send(engine, packets.icmp_error(3, 3, quote), ROUTER, CLIENT)
    assert (outcome.ctinfo, outcome.reason, outcome.log_text()) == ("INVALID", "icmp_error_unknown", None)


def test_the_error_must_go_to_whom_it_concerns() -> None:
    engine = small_engine()
    quote = flow(engine)
    outcome = send(engine, packets.icmp_error(3, 3, quote), ROUTER, "10.0.0.3")
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "icmp_error_outer")
    assert outcome.log_text() == f"nf_ct_proto_1: outer daddr 10.0.0.3 != inner {CLIENT}"
    assert engine.stats.error == 1


def test_an_error_about_an_expired_flow_is_invalid() -> None:
    engine = small_engine()
    quote = flow(engine)
    assert send(engine, packets.icmp_error(3, 3, quote), ROUTER, CLIENT, now=30.0).ctinfo == "INVALID"
