"""UDP and UDP-Lite: header checks, the two timers, and when a conversation becomes a stream.

Facts: nf_conntrack_proto_udp.c of Linux 6.18, seen on a running kernel; RFC 768, RFC 3828.
"""

from __future__ import annotations

import struct

import packets
import pytest
from packets import UDP, UDPLITE, ip
from script import Script, small_engine

CLIENT, SERVER = "10.0.0.2", "192.0.2.1"


def script(text: str, proto: int = UDP, **sysctl: int) -> Script:
    return Script(proto, sysctl={"nf_conntrack_" + name: value for name, value in sysctl.items()}).play(text)


# ── UDP: two seconds make a stream ──────────────────────────────────────────────────────────────────


def test_a_question_and_its_answer_are_no_stream() -> None:
    script("""
        > data             30 UNREPLIED LOOSE as NEW counted
        < data             30 REPLIED LOOSE as ESTABLISHED counted
        > data             30 LOOSE as ESTABLISHED
        +1.9s
        < data             30 LOOSE
    """)


@pytest.mark.parametrize("direction", "><")
def test_any_packet_later_than_two_seconds_after_the_first_makes_a_stream(direction: str) -> None:
    script(f"""
        > data             30
        < data             30
        +2.1s
        {direction} data   120 ASSURED
        {direction} data   120 ASSURED
    """)


def test_two_seconds_sharp_are_not_later() -> None:
    talk = script("> data 30 \n < data 30 \n +2s \n > data 30 LOOSE")
    talk.now += 1e-6
    talk.play("> data 120 ASSURED")


def test_a_late_first_answer_makes_no_stream_but_the_packet_after_it_does() -> None:
    script("""
        > data             30
        +2.3s
        < data             30 REPLIED LOOSE
        > data             120 ASSURED
    """)


def test_one_sided_traffic_never_becomes_a_stream() -> None:
    script("> data 30 \n +5s \n > data 30 UNREPLIED LOOSE as NEW \n +25s \n > data 30 UNREPLIED as NEW")


def test_unanswered_for_thirty_seconds_it_begins_anew() -> None:
    talk = script("> data 30 \n +29.9s \n > data 30")
    first = talk.entry()
    talk.play("+30s \n > data 30 UNREPLIED as NEW")
    assert talk.entry() is not first


def test_the_timeouts_are_sysctls() -> None:
    script("> data 7 \n < data 7 \n +3s \n > data 11", udp_timeout=7, udp_timeout_stream=11)


def test_an_answer_from_another_port_is_a_flow_of_its_own() -> None:
    talk = script("> data 30")
    outcome = talk.engine.process(ip(SERVER, CLIENT, UDP, packets.udp(81, 1234)), talk.now)
    assert outcome.ctinfo == "NEW" and talk.engine.count() == 2


def test_a_datagram_from_a_socket_to_itself_is_its_own_answer() -> None:
    talk = Script(UDP, ends=(("10.0.0.2", 7), ("10.0.0.2", 7)))
    talk.play("> data 30 UNREPLIED as NEW \n > data 30 REPLIED as ESTABLISHED")
    assert talk.engine.count() == 1


# ── UDP: checks ─────────────────────────────────────────────────────────────────────────────────────

RIGHT = packets.sealed(CLIENT, SERVER, UDP, packets.udp(1234, 53, b"hello"))
UDP_CHECKS = [  # octets behind the IP header, reason ("": tracked), log text
    ("right", RIGHT, "", None),
    ("no ports", RIGHT[:3], "no_tuple", None),
    ("seven octets", RIGHT[:7], "udp_short", "short packet"),
    ("length beyond", packets.udp(1, 2, b"hello", length=14), "udp_length", "truncated/malformed packet"),
    ("length 7", packets.udp(1, 2, b"hello", length=7), "udp_length", "truncated/malformed packet"),
    ("length 0", packets.udp(1, 2, b"hello", length=0), "udp_length", "truncated/malformed packet"),
    ("length below the payload", packets.udp(1, 2, b"hello", length=8), "", None),  # no checksum in it
    ("no checksum", packets.udp(1234, 53, b"hello"), "", None),
    ("wrong checksum", RIGHT[:6] + b"\x12\x34" + RIGHT[8:], "udp_checksum", "bad checksum"),
]


@pytest.mark.parametrize(("name", "l4", "reason", "text"), UDP_CHECKS, ids=[row[0] for row in UDP_CHECKS])
def test_header_checks(name: str, l4: bytes, reason: str, text: str | None) -> None:
    engine = small_engine()
    outcome = engine.process(ip(CLIENT, SERVER, UDP, l4, seal=False), 0.0)
    assert (outcome.verdict, outcome.reason) == ("ACCEPT", reason)
    assert outcome.ctinfo == ("INVALID" if reason else "NEW")
    assert outcome.log_text() == (text and f"nf_ct_proto_17: {text}")
    assert engine.stats.invalid == bool(reason) and engine.count() == (not reason)


def test_no_checksum_is_accepted_over_ipv6_too() -> None:
    packet = ip("fd00::2", "2600::1", UDP, packets.udp(1, 2, b"x"), seal=False)
    assert small_engine().process(packet, 0.0).ctinfo == "NEW"


def test_with_the_sysctl_off_no_checksum_is_verified() -> None:
    packet = ip(CLIENT, SERVER, UDP, RIGHT[:6] + b"\x12\x34" + RIGHT[8:], seal=False)
    assert small_engine(sysctl={"nf_conntrack_checksum": 0}).process(packet, 0.0).ctinfo == "NEW"


# ── UDP-Lite ────────────────────────────────────────────────────────────────────────────────────────


def test_udplite_becomes_a_stream_without_delay() -> None:
    script("""
        > data             30 UNREPLIED
        < data             30 LOOSE
        > data             120 ASSURED
        +50s
        < data             120 ASSURED
    """, UDPLITE, checksum=0)  # fmt: skip


UDPLITE_CHECKS = [
    ("seven octets", packets.udplite(1, 2)[:7], "udplite_short", "short packet"),
    *(
        (f"coverage {size}", packets.udplite(1, 2, b"12345678", coverage=size), "udplite_coverage",
         "invalid checksum coverage")
        for size in (*range(1, 8), 17)
    ),
    ("no checksum", packets.udplite(1, 2, b"1234"), "udplite_no_checksum", "checksum missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "l4", "reason", "text"), UDPLITE_CHECKS, ids=[row[0] for row in UDPLITE_CHECKS])
def test_udplite_header_checks(name: str, l4: bytes, reason: str, text: str) -> None:
    outcome = small_engine().process(ip(CLIENT, SERVER, UDPLITE, l4, seal=False), 0.0)
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", reason)
    assert outcome.log_text() == f"nf_ct_proto_136: {text}"


def summed_with(protocol: int, coverage: int, src: str = CLIENT, dst: str = SERVER) -> bytes:
    """A UDP-Lite datagram whose checksum is right for a pseudo-header with this protocol number."""
    l4 = packets.udplite(1, 2, b"12345678", coverage=coverage)
    pseudo = packets.pseudo_header(src, dst, protocol, len(l4))
    return l4[:6] + struct.pack("!H", packets.checksum(pseudo + l4[: coverage or len(l4)])) + l4[8:]


@pytest.mark.parametrize("coverage", [0, 8, 12, 16])
@pytest.mark.parametrize(("protocol", "quirk", "right"), [
    (136, True, False), (17, True, True), (136, False, True), (17, False, False),
])  # fmt: skip
def test_linux_sums_udplite_with_udps_protocol_number(
    protocol: int, quirk: bool, right: bool, coverage: int
) -> None:
    """Each coverage: what RFC 3828 calls right is INVALID on Linux, and the other way round."""
    engine = small_engine(quirks={"udplite": quirk})
    outcome = engine.process(ip(CLIENT, SERVER, UDPLITE, summed_with(protocol, coverage), seal=False), 0.0)
    assert outcome.ctinfo == ("NEW" if right else "INVALID")
    assert outcome.reason == ("" if right else "udplite_checksum")
