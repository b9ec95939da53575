"""Rewriting: what changes in a packet, and that nothing else does.

Checksums are judged by summing the whole packet again (`packets.wrong_sums`), never by the engine's own sums.
Facts: nf_nat_proto.c of Linux 6.18, seen on a running kernel; RFC 768, 1624, 4443, 5508.
"""

from __future__ import annotations

import struct
from typing import Any

import packets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packets import ESP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, addresses, header_length, ip, wrong_sums

from conntrack import Dnat, Engine, Masquerade, Netmap, Outcome, Snat

INSIDE = {4: "10.0.0.2", 6: "fd00::2"}
PUBLIC = {4: "203.0.113.1", 6: "2001:db8:f::1"}
SERVER = {4: "192.0.2.9", 6: "2600::9"}
VIRTUAL = {4: "198.51.100.7", 6: "2001:db8:7::7"}
REAL = {4: "10.9.8.7", 6: "fd00:9::7"}
OTHER = {4: "198.18.0.1", 6: "2001:db8:9::9"}  # a router somewhere


def box(*rules: Any, **sysctl: int) -> Engine:
    names = {"nf_conntrack_" + name: value for name, value in sysctl.items()}
    return Engine(rules, {"nf_conntrack_buckets": 512, **names}, seed=1)


def masquerading(**sysctl: int) -> Engine:
    return box(Masquerade(list(PUBLIC.values()), source=["10.0.0.0/8", "fd00::/8"]), **sysctl)


def both_ways(port: int = 8080) -> Engine:
    """Source and destination, addresses and ports, all change (for protocols that have them)."""
    rules: list[Any] = []
    for family in (4, 6):
        for proto in ("tcp", "udp", "udplite", "sctp"):
            rules.append(Dnat(REAL[family], destination=VIRTUAL[family], protocol=proto, ports=port))
            rules.append(Snat(PUBLIC[family], source=INSIDE[family], protocol=proto, ports=(20000, 20001)))
        rules += [Dnat(REAL[family], destination=VIRTUAL[family]), Snat(PUBLIC[family], source=INSIDE[family])]
    # Linux sums UDP-Lite with UDP's protocol number; here it is the right sums that matter
    return Engine(rules, {"nf_conntrack_buckets": 512}, seed=1, quirks={"udplite": False})


def swapped(packet: bytes) -> bytes:
    """The same packet sent back: addresses and ports change places, which leaves the Internet sums as they are."""
    header = header_length(packet)
    data = bytearray(packet)
    src, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    data[src : src + 2 * size] = packet[src + size : src + 2 * size] + packet[src : src + size]
    proto = packets.protocol(packet)
    if proto in (TCP, UDP, UDPLITE, SCTP):
        data[header : header + 4] = packet[header + 2 : header + 4] + packet[header : header + 2]
    if proto in (ICMP, ICMPV6):
        data[header] = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17, 128: 129, 129: 128}[
            packet[header]
        ]
    if proto in (ICMP, ICMPV6, SCTP):
        data[header:] = packets.sealed(*addresses(bytes(data)), proto, bytes(data[header:]))
    return bytes(data)


# ── any packet: there and back, sums, promised fields ───────────────────────────────────────────────


def transport(proto: int, sport: int, dport: int, payload: bytes) -> bytes:
    if proto == TCP:
        return packets.tcp(sport, dport, "PA", 1000, 2000, payload=payload)
    if proto == UDP:
        return packets.udp(sport, dport, payload)
    if proto == UDPLITE:
        return packets.udplite(sport, dport, payload)
    if proto == SCTP:
        return packets.sctp(sport, dport, 0, packets.chunk(1, sport.to_bytes(4, "big") + bytes(12) + payload))
    if proto in (ICMP, ICMPV6):
        return packets.icmp(8 if proto == ICMP else 128, dport & 3, sport, 1, payload)
    return payload


PROTOCOLS = [TCP, UDP, UDPLITE, SCTP, ICMP, ESP, GRE]
ports = st.integers(0, 65535)
packet_parts = st.tuples(
    st.sampled_from(PROTOCOLS), st.sampled_from([4, 6]), ports, ports, st.binary(max_size=40), st.booleans()
)


def packet_of(parts: tuple[int, int, int, int, bytes, bool]) -> bytes:
    proto, family, sport, dport, payload, extra = parts
    if proto == ICMP and family == 6:
        proto = ICMPV6
    if proto == GRE:
        payload = bytes((0, 0, 8, 0, 0, 0, 0, 0)) + payload  # version 0
    l4 = packets.sealed(INSIDE[family], VIRTUAL[family], proto, transport(proto, sport, dport, payload))
    if family == 4:
        options = b"\x94\x04\0\0" if extra else b""
        return packets.ipv4(INSIDE[4], VIRTUAL[4], proto, l4, options=options)
    if extra:  # destination options in between
        return packets.ipv6(INSIDE[6], VIRTUAL[6], 60, l4, extra=bytes((proto, 0, 1, 4, 0, 0, 0, 0)))
    return packets.ipv6(INSIDE[6], VIRTUAL[6], proto, l4)


def transport_offset(packet: bytes) -> int:
    return header_length(packet) + (8 if packet[0] >> 4 == 6 and packet[6] == 60 else 0)


def plain(packet: bytes) -> bytes:
    """Without destination options, for functions that do not know them."""
    if packet[0] >> 4 == 6 and packet[6] == 60:
        length = int.from_bytes(packet[4:6], "big") - 8
        return packet[:4] + length.to_bytes(2, "big") + packet[40:41] + packet[7:40] + packet[48:]
    return packet


def like(packet: bytes, other: bytes) -> bytes:
    """`other` with the destination options that `packet` has."""
    if packet[0] >> 4 == 6 and packet[6] == 60:
        length = int.from_bytes(other[4:6], "big") + 8
        return other[:4] + length.to_bytes(2, "big") + b"\x3c" + other[7:40] + packet[40:48] + other[40:]
    return other


@settings(max_examples=250, deadline=None)
@given(packet_parts)
def test_there_and_back_again_gives_the_original_octets(parts: tuple[int, int, int, int, bytes, bool]) -> None:
    packet = packet_of(parts)
    engine = both_ways()
    there = engine.process(packet, 0.0).packet
    assert wrong_sums(plain(there)) == []
    family = parts[1]
    assert addresses(there) == (PUBLIC[family], REAL[family])
    back = engine.process(like(packet, swapped(plain(there))), 0.5).packet
    assert wrong_sums(plain(back)) == []
    assert like(packet, swapped(plain(back))) == packet


@settings(max_examples=150, deadline=None)
@given(packet_parts)
def test_only_addresses_numbers_and_their_sums_differ(parts: tuple[int, int, int, int, bytes, bool]) -> None:
    packet = packet_of(parts)
    out = both_ways().process(packet, 0.0).packet
    proto, family, at = parts[0], parts[1], transport_offset(packet)
    promised = set(range(10, 12)) | set(range(12, 20)) if family == 4 else set(range(8, 40))
    sums = {TCP: (16, 18), UDP: (6, 8), UDPLITE: (6, 8), SCTP: (8, 12), ICMP: (2, 4)}.get(proto, (0, 0))
    numbers = (4, 6) if proto == ICMP else (0, 4) if proto in (TCP, UDP, UDPLITE, SCTP) else (0, 0)
    promised |= {at + octet for start, stop in (sums, numbers) for octet in range(start, stop)}
    assert len(out) == len(packet)
    assert {index for index, (a, b) in enumerate(zip(packet, out, strict=True)) if a != b} <= promised


@settings(max_examples=150, deadline=None)
@given(packet_parts, st.integers(1, 120))
def test_a_cut_packet_is_translated_as_far_as_it_goes(
    parts: tuple[int, int, int, int, bytes, bool], kept: int
) -> None:
    packet = packet_of(parts)
    whole = both_ways().process(packet, 0.0).packet
    cut = packet[:kept]
    outcome = both_ways().process(cut, 0.0, wire_length=len(packet))
    if outcome.ctinfo == "INVALID":
        assert outcome.reason == "cut" and outcome.packet == cut
    else:
        assert outcome.packet == whole[:kept]


@pytest.mark.interpreted("compiled, octets are bytes and nothing else")
def test_the_callers_octets_are_never_changed() -> None:
    packet = packet_of((TCP, 4, 1, 2, b"x", False))
    given_in = bytearray(packet)
    assert both_ways().process(given_in, 0.0).rewritten
    assert given_in == packet


def test_untranslated_packets_come_out_as_they_are() -> None:
    packet = ip("192.0.2.1", "192.0.2.2", UDP, packets.udp(1, 2, b"x"))
    outcome = masquerading().process(packet, 0.0)
    assert not outcome.rewritten and outcome.packet == packet


# ── checksums ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", [4, 6])
def test_a_udp_checksum_of_zero_stays_zero(family: int) -> None:
    packet = ip(INSIDE[family], SERVER[family], UDP, packets.udp(4444, 53, b"hello"), seal=False)
    out = masquerading().process(packet, 0.0).packet
    assert addresses(out)[0] == PUBLIC[family]
    assert out[header_length(out) + 6 :][:2] == b"\0\0"
    assert wrong_sums(out) == []


@pytest.mark.parametrize(("family", "proto"), [(4, UDP), (6, UDP), (4, UDPLITE), (6, UDPLITE)])
def test_a_computed_checksum_of_zero_becomes_all_ones(family: int, proto: int) -> None:
    """The payload is chosen so that the sum over the translated datagram is all ones."""
    build = packets.udp if proto == UDP else packets.udplite
    blank = build(4444, 53, b"\0\0")
    word = packets.transport_checksum(PUBLIC[family], SERVER[family], proto, blank)
    packet = ip(INSIDE[family], SERVER[family], proto, build(4444, 53, word.to_bytes(2, "big")))
    engine = Engine(
        [Masquerade(list(PUBLIC.values()))], {"nf_conntrack_buckets": 512}, quirks={"udplite": False}, seed=1
    )
    out = engine.process(packet, 0.0).packet
    assert out[header_length(out) + 6 :][:2] == b"\xff\xff"
    assert wrong_sums(out) == []


@pytest.mark.parametrize("proto", [TCP, UDP, ICMP, ICMPV6])
def test_a_wrong_checksum_stays_wrong_by_as_much(proto: int) -> None:
    """Who does not verify must not repair: the difference to the right sum survives the translation."""
    family = 6 if proto == ICMPV6 else 4
    at = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}[proto]
    l4 = packets.sealed(INSIDE[family], SERVER[family], proto, transport(proto, 4444, 53, b"hello"))
    right = int.from_bytes(l4[at : at + 2], "big")
    l4 = l4[:at] + ((right + 0x1234) % 0xFFFF).to_bytes(2, "big") + l4[at + 2 :]
    out = masquerading(checksum=0).process(ip(INSIDE[family], SERVER[family], proto, l4, seal=False), 0.0).packet
    assert addresses(out)[0] == PUBLIC[family]
    body = out[header_length(out) :]
    now_right = packets.transport_checksum(*addresses(out), proto, body)
    assert (int.from_bytes(body[at : at + 2], "big") - now_right) % 0xFFFF == 0x1234


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_sum_left_to_the_card_is_again_the_pseudo_headers(family: int, proto: int) -> None:
    """A capture on the sending host shows the folded, not complemented sum of the pseudo-header."""

    def unfinished(src: str, dst: str, l4: bytes) -> bytes:
        at = 16 if proto == TCP else 6
        pseudo = packets.word_sum(packets.pseudo_header(src, dst, proto, len(l4)))
        return l4[:at] + pseudo.to_bytes(2, "big") + l4[at + 2 :]

    l4 = transport(proto, 4444, 53, b"hello world")
    packet = ip(INSIDE[family], SERVER[family], proto, unfinished(INSIDE[family], SERVER[family], l4), seal=False)
    engine = masquerading()
    outcome = engine.process(packet, 0.0)
    assert outcome.ctinfo == "NEW" and engine.stats.left_to_card == 1
    out = outcome.packet
    assert addresses(out) == (PUBLIC[family], SERVER[family])
    assert out[header_length(out) :] == unfinished(PUBLIC[family], SERVER[family], l4)


def test_a_coverage_shorter_than_the_datagram_is_respected() -> None:
    l4 = packets.udplite(4444, 53, b"sensitive insensitive", coverage=17)
    packet = ip(INSIDE[4], SERVER[4], UDPLITE, l4)
    engine = Engine([Masquerade(PUBLIC[4])], {"nf_conntrack_buckets": 512}, quirks={"udplite": False})
    out = engine.process(packet, 0.0).packet
    assert addresses(out)[0] == PUBLIC[4] and wrong_sums(out) == []


# ── identifiers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("family", "query", "answer", "carries"), [
    (4, 8, 0, True), (4, 13, 14, True), (4, 15, 16, True), (4, 17, 18, True),
    (6, 128, 129, True), (6, 139, 140, False),
])  # fmt: skip
def test_a_changed_identifier_is_written_where_the_message_has_one(
    family: int, query: int, answer: int, carries: bool
) -> None:
    """ICMPv6 node information has no identifier that Linux would write, though its tuple has one."""
    engine = Engine([Masquerade(list(PUBLIC.values()), random=True)], {"nf_conntrack_buckets": 512}, seed=2)
    proto = ICMP if family == 4 else ICMPV6
    packet = ip(INSIDE[family], SERVER[family], proto, packets.icmp(query, 0, 7, 9, b"12345"))
    outcome = engine.process(packet, 0.0)
    out, conn = outcome.packet, outcome.conn
    assert conn is not None and conn.answer.sport != 7
    at = header_length(out)
    assert int.from_bytes(out[at + 4 : at + 6], "big") == (conn.answer.sport if carries else 7)
    assert addresses(out) == (PUBLIC[family], SERVER[family]) and wrong_sums(out) == []
    assert out[at : at + 2] + out[at + 6 :] == packet[at : at + 2] + packet[at + 6 :]
    if carries:
        back = ip(SERVER[family], PUBLIC[family], proto, packets.icmp(answer, 0, conn.answer.sport, 9, b"12345"))
        expected = ip(SERVER[family], INSIDE[family], proto, packets.icmp(answer, 0, 7, 9, b"12345"))
        assert engine.process(back, 0.1).packet == expected


# ── GRE, short headers ──────────────────────────────────────────────────────────────────────────────


def test_gre_of_an_unknown_version_is_dropped_and_a_call_keeps_its_id() -> None:
    engine = both_ways()
    call = bytes((0x30, 0x01, 0x88, 0x0B, 0, 4, 0, 77)) + b"data"
    out = engine.process(ip(INSIDE[4], VIRTUAL[4], GRE, call), 0.0)
    assert addresses(out.packet) == (PUBLIC[4], REAL[4]) and out.packet[20:] == call
    odd = bytes((0, 3, 8, 0)) + b"data"
    outcome = engine.process(ip(INSIDE[4], VIRTUAL[4], GRE, odd), 0.0)
    assert (outcome.verdict, outcome.reason, outcome.packets) == ("DROP", "nat_gre_version", ())
    engine.check()


def test_gre_of_fewer_than_eight_octets_is_dropped_where_it_would_be_translated() -> None:
    # seen on Linux 6.18: 3 to 7 octets are dropped, 8 pass
    for octets, verdict in ((7, "DROP"), (8, "ACCEPT")):
        outcome = both_ways().process(ip(INSIDE[4], VIRTUAL[4], GRE, bytes(octets)), 0.0)
        assert outcome.verdict == verdict


# ── ICMP errors ─────────────────────────────────────────────────────────────────────────────────────


def quoted_sums(error: bytes) -> list[str]:
    """The wrong checksums of an ICMP error and of the packet in it (which must be quoted whole)."""
    quote = error[header_length(error) + 8 :]
    return wrong_sums(error) + ["quoted " + name for name in wrong_sums(quote)]


def error(family: int, src: str, dst: str, quote: bytes) -> bytes:
    kind, code = (3, 1) if family == 4 else (1, 3)
    return ip(src, dst, ICMP if family == 4 else ICMPV6, packets.icmp_error(kind, code, quote))


def inner(packet: bytes) -> bytes:
    return packet[header_length(packet) + 8 :]


QUOTABLE = [TCP, UDP, ICMP]


def opening(proto: int, family: int, src: str, dst: str) -> bytes:
    proto = ICMPV6 if proto == ICMP and family == 6 else proto
    return ip(src, dst, proto, transport(proto, 4444, 53, b"query"))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", QUOTABLE)
class TestErrorsInFourDirections:
    """Client behind a masquerade, or server behind a destination mapping; each side reports about the other."""

    def test_from_outside_about_what_a_masqueraded_client_sent(self, proto: int, family: int) -> None:
        engine = masquerading()
        sent = opening(proto, family, INSIDE[family], SERVER[family])
        out = engine.process(sent, 0.0).packet
        outcome = engine.process(error(family, OTHER[family], PUBLIC[family], out), 1.0)
        assert (outcome.ctinfo, outcome.direction, outcome.counted) == ("RELATED", "reply", False)
        assert addresses(outcome.packet) == (OTHER[family], INSIDE[family])
        assert inner(outcome.packet) == sent
        assert quoted_sums(outcome.packet) == []

    def test_from_the_client_about_an_answer_of_the_server(self, proto: int, family: int) -> None:
        engine = masquerading()
        out = engine.process(opening(proto, family, INSIDE[family], SERVER[family]), 0.0).packet
        answer = swapped(out)
        arrived = engine.process(answer, 0.5).packet
        inside_router = {4: "10.0.0.77", 6: "fd00::77"}[family]
        for reporter in (INSIDE[family], inside_router):  # a router of the inside is hidden as well
            outcome = engine.process(error(family, reporter, SERVER[family], arrived), 1.0)
            assert (outcome.ctinfo, outcome.direction) == ("RELATED", "original")
            assert addresses(outcome.packet) == (PUBLIC[family], SERVER[family])
            assert inner(outcome.packet) == answer
            assert quoted_sums(outcome.packet) == []

    def test_from_the_inside_about_what_a_client_sent_to_a_mapped_server(self, proto: int, family: int) -> None:
        engine = box(Dnat(REAL[4], destination=VIRTUAL[4]), Dnat(REAL[6], destination=VIRTUAL[6]))
        sent = opening(proto, family, OTHER[family], VIRTUAL[family])
        out = engine.process(sent, 0.0).packet
        for reporter in (REAL[family], INSIDE[family]):
            outcome = engine.process(error(family, reporter, OTHER[family], out), 1.0)
            assert (outcome.ctinfo, outcome.direction) == ("RELATED", "reply")
            assert addresses(outcome.packet) == (VIRTUAL[family], OTHER[family])
            assert inner(outcome.packet) == sent
            assert quoted_sums(outcome.packet) == []

    def test_from_outside_about_an_answer_of_a_mapped_server(self, proto: int, family: int) -> None:
        engine = box(Dnat(REAL[4], destination=VIRTUAL[4]), Dnat(REAL[6], destination=VIRTUAL[6]))
        answer = swapped(engine.process(opening(proto, family, OTHER[family], VIRTUAL[family]), 0.0).packet)
        left = engine.process(answer, 0.5).packet
        outcome = engine.process(error(family, SERVER[family], VIRTUAL[family], left), 1.0)
        assert (outcome.ctinfo, outcome.direction) == ("RELATED", "original")
        assert addresses(outcome.packet) == (SERVER[family], REAL[family])
        assert inner(outcome.packet) == answer
        assert quoted_sums(outcome.packet) == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", QUOTABLE)
def test_an_error_about_a_flow_translated_on_both_sides(proto: int, family: int) -> None:
    engine = both_ways()
    sent = opening(proto, family, INSIDE[family], VIRTUAL[family])
    out = engine.process(sent, 0.0).packet
    outcome = engine.process(error(family, OTHER[family], PUBLIC[family], out), 1.0)
    assert addresses(outcome.packet) == (VIRTUAL[family], INSIDE[family])
    assert inner(outcome.packet) == sent
    assert quoted_sums(outcome.packet) == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("proto", "kept"), [(TCP, 8), (TCP, 19), (TCP, 20), (UDP, 8), (UDP, 9), (ICMP, 8), (ICMP, 11)]
)
def test_a_short_quote_is_rewritten_as_far_as_it_goes(proto: int, kept: int, family: int) -> None:
    """The sums inside are moved by the difference, so the quote equals the beginning of what was sent."""
    engine = masquerading()
    sent = opening(proto, family, INSIDE[family], SERVER[family])
    out = engine.process(sent, 0.0).packet
    size = header_length(out) + kept
    outcome = engine.process(error(family, OTHER[family], PUBLIC[family], out[:size]), 1.0)
    expected = bytearray(sent[:size])
    if proto == TCP and kept < 20:  # Linux leaves a TCP checksum alone unless the whole header is there
        at = header_length(out) + 16
        expected[at : at + 2] = out[at : at + 2][: max(0, kept - 16)]
    assert inner(outcome.packet) == bytes(expected)
    assert wrong_sums(outcome.packet) == []


@pytest.mark.parametrize("kept", [4, 7])
def test_a_quote_too_short_to_be_rewritten_drops_the_error(kept: int) -> None:
    engine = masquerading()
    out = engine.process(opening(UDP, 4, INSIDE[4], SERVER[4]), 0.0).packet
    outcome = engine.process(error(4, OTHER[4], PUBLIC[4], out[: 20 + kept]), 1.0)
    assert (outcome.verdict, outcome.ctinfo, outcome.reason) == ("DROP", "RELATED", "nat_truncated")


def test_an_error_with_a_wrong_checksum_is_invalid_or_dropped() -> None:
    for checksum, verdict, ctinfo in ((1, "ACCEPT", "INVALID"), (0, "DROP", "RELATED")):
        engine = masquerading(checksum=checksum)
        out = engine.process(opening(UDP, 4, INSIDE[4], SERVER[4]), 0.0).packet
        bad = bytearray(error(4, OTHER[4], PUBLIC[4], out))
        bad[22] ^= 1
        outcome = engine.process(bytes(bad), 1.0)
        assert (outcome.verdict, outcome.ctinfo) == (verdict, ctinfo)


QUOTED_OCTETS = [  # protocol, octets of it in the quote, which octet's half of a checksum nobody can complete
    (TCP, 25, 17), (TCP, 20, 17), (TCP, 19, None), (TCP, 8, None), (UDP, 13, 7), (UDP, 8, 7), (ICMP, 13, None),
]  # fmt: skip


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("proto", "quoted", "half"), QUOTED_OCTETS)
def test_a_cut_error_is_translated_as_far_as_it_goes(
    proto: int, quoted: int, half: int | None, family: int
) -> None:
    """At whatever length a capture cuts it, what comes out is the beginning of the whole error's translation,
    even where the quoted checksum, which changes too, was not captured.  Only of a checksum of which no more
    than the high octet was captured nobody can tell what that becomes."""

    def report(kept: int | None) -> tuple[bytes, Outcome]:
        engine = masquerading()
        out = engine.process(opening(proto, family, INSIDE[family], SERVER[family]), 0.0).packet
        whole = error(family, OTHER[family], PUBLIC[family], out[: header_length(out) + quoted])
        return whole, engine.process(whole[:kept], 1.0, wire_length=len(whole))

    whole, outcome = report(None)
    wrong = []
    for kept in range(1, len(whole)):
        _, cut = report(kept)
        if cut.ctinfo == "INVALID":
            assert cut.reason == "cut" and cut.packet == whole[:kept]
        elif cut.packet != outcome.packet[:kept]:
            wrong.append(kept)
    quoted_l4 = 2 * (20 if family == 4 else 40) + 8
    assert wrong == ([] if half is None else [quoted_l4 + half])


def test_a_redirect_passes_only_for_an_untranslated_flow() -> None:
    for rules, verdict in (([Masquerade(PUBLIC[4])], "DROP"), ([], "ACCEPT")):
        engine = box(*rules)
        out = engine.process(opening(UDP, 4, INSIDE[4], SERVER[4]), 0.0).packet
        redirect = packets.icmp_error(5, 1, out)
        outcome = engine.process(ip(OTHER[4], addresses(out)[0], ICMP, redirect), 1.0)
        assert (outcome.verdict, outcome.ctinfo) == (verdict, "RELATED")
        assert outcome.reason == ("nat_redirect" if verdict == "DROP" else "related_error")


def test_an_error_about_a_datagram_without_checksum_gives_it_none() -> None:
    engine = masquerading()
    sent = ip(INSIDE[4], SERVER[4], UDP, packets.udp(4444, 53, b"query"), seal=False)
    out = engine.process(sent, 0.0).packet
    assert inner(engine.process(error(4, OTHER[4], PUBLIC[4], out), 1.0).packet) == sent


def test_an_error_about_an_untranslated_flow_is_untouched() -> None:
    engine = masquerading()
    sent = opening(UDP, 4, OTHER[4], SERVER[4])
    engine.process(sent, 0.0)
    report = error(4, "198.18.5.5", OTHER[4], sent)
    outcome = engine.process(report, 1.0)
    assert (outcome.packet, outcome.rewritten, outcome.reason) == (report, False, "related_error")


# ── network mapping and long life ───────────────────────────────────────────────────────────────────


def test_netmap_translates_answers_back() -> None:
    engine = box(Netmap("198.51.100.0/24", source="10.1.2.0/24"))
    packet = ip("10.1.2.7", SERVER[4], UDP, packets.udp(1, 2, b"x"))
    out = engine.process(packet, 0.0).packet
    assert addresses(out)[0] == "198.51.100.7"
    assert swapped(engine.process(swapped(out), 0.1).packet) == packet


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), min_size=1, max_size=20))
def test_every_datagram_of_a_flow_is_translated_alike(exchange: list[tuple[bool, bytes]]) -> None:
    engine = masquerading()
    mapped = packets.ports(engine.process(ip(INSIDE[4], SERVER[4], UDP, packets.udp(4444, 53)), 0.0).packet)[0]
    for number, (back, payload) in enumerate(exchange):
        if back:
            sent, expected = (
                ip(SERVER[4], to, UDP, packets.udp(53, port, payload))
                for to, port in ((PUBLIC[4], mapped), (INSIDE[4], 4444))
            )
        else:
            sent, expected = (
                ip(source, SERVER[4], UDP, packets.udp(port, 53, payload))
                for source, port in ((INSIDE[4], 4444), (PUBLIC[4], mapped))
            )
        outcome: Outcome = engine.process(sent, number / 10)
        assert outcome.packet == expected


def test_ip_options_and_sctp_crc_survive_translation() -> None:
    init = packets.chunk(1, struct.pack("!I", 7) + bytes(12))
    l4 = packets.sealed(INSIDE[4], SERVER[4], SCTP, packets.sctp(4444, 80, 0, init))
    packet = packets.ipv4(INSIDE[4], SERVER[4], SCTP, l4, options=b"\x94\x04\0\0")
    out = masquerading().process(packet, 0.0).packet
    assert addresses(out)[0] == PUBLIC[4] and wrong_sums(out) == [] and out[20:24] == b"\x94\x04\0\0"
    assert out[24:] == l4  # the port was kept: SCTP's sum does not cover addresses
