"""GRE and the protocols without a tracker of their own.

Facts: nf_conntrack_proto_gre.c, nf_conntrack_proto_generic.c of Linux 6.18, seen on a running kernel.
"""

from __future__ import annotations

import packets
import pytest
from packets import ESP, GRE, ip
from script import Script, small_engine

from conntrack import Engine, Outcome

A, B = "10.0.0.2", "192.0.2.1"
DCCP, IPIP, AH = 33, 4, 51
ENDS = ((A, 0), (B, 0))


def gre(version: int = 0, protocol: int = 0x0800, call: int = 0) -> bytes:
    return (
        bytes((0x20 if version else 0, version)) + protocol.to_bytes(2, "big") + bytes(2) + call.to_bytes(2, "big")
    )


def send(engine: Engine, src: str, dst: str, l4: bytes) -> Outcome:
    return engine.process(ip(src, dst, GRE, l4), 0.0)


@pytest.mark.parametrize("proto", [ESP, DCCP, IPIP, AH, 0, 255, 89])
def test_generic_protocols_live_600_seconds_from_every_packet(proto: int) -> None:
    Script(proto, ENDS).play("""
        > data             600 UNREPLIED as NEW
        +100s
        < data             600 REPLIED LOOSE as ESTABLISHED counted
        +599s
        > data             600 LOOSE as ESTABLISHED counted
        +600s
        < data             600 UNREPLIED as NEW
    """)


def test_generic_flows_know_only_addresses() -> None:
    engine = small_engine()
    results = [engine.process(ip(A, B, ESP, bytes(size)), 0.0).ctinfo for size in (0, 1, 40)]
    assert results == ["NEW"] * 3 and engine.count() == 1


def test_the_generic_timeout_is_a_sysctl() -> None:
    Script(ESP, ENDS, sysctl={"nf_conntrack_generic_timeout": 5}).play("> data 5")


def test_gre_is_a_stream_as_soon_as_an_answer_was_seen() -> None:
    Script(GRE, ENDS).play("""
        > data             30 UNREPLIED as NEW
        < data             30 LOOSE
        > data             180 ASSURED
        +50s
        < data             180 ASSURED
    """)


def test_gre_timeouts_are_sysctls() -> None:
    sysctl = {"nf_conntrack_gre_timeout": 5, "nf_conntrack_gre_timeout_stream": 7}
    Script(GRE, ENDS, sysctl=sysctl).play("> data 5 \n < data 5 \n < data 7 ASSURED")


def test_gre_version_0_is_one_flow_per_pair_whatever_it_carries() -> None:
    engine = small_engine()
    assert [send(engine, A, B, gre(0, kind)).ctinfo for kind in (0x0800, 0x86DD)] == ["NEW", "NEW"]
    assert send(engine, B, A, gre()).ctinfo == "ESTABLISHED"
    assert engine.count() == 1


def test_gre_version_1_knows_the_receivers_call() -> None:
    engine = small_engine()
    assert send(engine, A, B, gre(1, 0x880B, 7)).ctinfo == "NEW"
    assert send(engine, A, B, gre(1, 0x880B, 8)).ctinfo == "NEW"
    assert send(engine, B, A, gre(1, 0x880B, 9)).ctinfo == "NEW"  # the answers are a flow of their own
    assert sorted(conn.original.dport for conn in engine.conns()) == [7, 8, 9]
    assert {conn.original.sport for conn in engine.conns()} == {0}


def test_gre_version_1_without_ppp_has_no_tuple() -> None:
    outcome = send(small_engine(), A, B, gre(1, 0x0800, 7))
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "no_tuple")


@pytest.mark.parametrize("size", range(8))
def test_gre_that_is_too_short_is_version_0(size: int) -> None:
    engine = small_engine()
    outcome = send(engine, A, B, gre(1, 0x880B, 7)[:size])
    assert outcome.ctinfo == "NEW"
    (conn,) = engine.conns()
    assert (conn.original.sport, conn.original.dport) == (0, 0)


def test_nothing_of_a_generic_packet_is_checked() -> None:
    engine = small_engine()
    for proto in (ESP, DCCP, IPIP):
        assert engine.process(packets.ipv4(A, B, proto, b""), 0.0).ctinfo == "NEW"
    assert engine.stats.invalid == 0
