"""ICMPv6: what is never tracked, what starts a flow, errors, redirects.

Facts: nf_conntrack_proto_icmpv6.c of Linux 6.18, seen on a running kernel; RFC 4443, RFC 4861.
"""

from __future__ import annotations

import packets
import pytest
from packets import ICMPV6, TCP, UDP, ip
from script import Script, small_engine

from conntrack import Engine, Outcome

CLIENT, SERVER, ROUTER, ON_LINK = "fd00::2", "2600::1", "2001:db8::99", "fe80::1"
UNTRACKED = {130, 131, 132, 133, 134, 135, 136, 143, 151, 152}
CREATING = {128: 129, 139: 140}


def send(engine: Engine, l4: bytes, src: str = CLIENT, dst: str = SERVER, **more: int) -> Outcome:
    return engine.process(ip(src, dst, ICMPV6, l4, **more), 0.0)


@pytest.mark.parametrize("kind", range(256))
def test_what_each_type_does_when_nothing_is_known(kind: int) -> None:
    engine = small_engine()
    outcome = send(engine, packets.icmp(kind, payload=bytes(40)))
    assert outcome.verdict == "ACCEPT"
    assert engine.count() == (kind in CREATING)
    if kind in UNTRACKED:
        assert (outcome.ctinfo, outcome.reason, outcome.conn) == ("UNTRACKED", "icmpv6_untracked", None)
        assert (engine.stats.invalid, engine.stats.error) == (0, 0)
    elif kind in CREATING:
        assert outcome.ctinfo == "NEW"
    else:
        assert outcome.ctinfo == "INVALID"
        assert (engine.stats.error == 1) == (kind < 128 or kind == 137)
        assert (engine.stats.invalid == 1) == (kind > 128 and kind != 137)


@pytest.mark.parametrize(("query", "answer"), CREATING.items())
def test_each_query_has_its_answer(query: int, answer: int) -> None:
    Script(ICMPV6, ((CLIENT, 0), (SERVER, 0))).play(f"""
        > {query}  id 7          30 UNREPLIED as NEW
        < {answer} id 7          30 REPLIED LOOSE as ESTABLISHED
        +29s
        < {answer} id 7          30
    """)


def test_the_timeout_is_a_sysctl() -> None:
    sysctl = {"nf_conntrack_icmpv6_timeout": 5, "nf_conntrack_icmp_timeout": 9}
    Script(ICMPV6, ((CLIENT, 0), (SERVER, 0)), sysctl=sysctl).play("> 128 5")


@pytest.mark.parametrize("size", range(8))
def test_fewer_than_eight_octets_are_an_error(size: int) -> None:
    engine = small_engine()
    outcome = engine.process(packets.ipv6(CLIENT, SERVER, ICMPV6, packets.icmp(128)[:size]), 0.0)
    assert (outcome.ctinfo, outcome.reason, engine.count()) == ("INVALID", "icmpv6_short", 0)
    assert outcome.log_text() == "nf_ct_proto_58: short packet"
    assert (engine.stats.invalid, engine.stats.error) == (0, 1)


def test_a_wrong_checksum_is_an_error() -> None:
    engine = small_engine()
    bad = ip(CLIENT, SERVER, ICMPV6, b"\x80\0\x12\x34" + bytes(4), seal=False)
    outcome = engine.process(bad, 0.0)
    assert (outcome.ctinfo, outcome.reason, engine.stats.error) == ("INVALID", "icmpv6_checksum", 1)
    assert outcome.log_text() == "nf_ct_proto_58: ICMPv6 checksum failed"


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────


def flow(engine: Engine, extra: bytes = b"") -> bytes:
    l4 = packets.sealed(CLIENT, SERVER, UDP, packets.udp(1234, 53, b"query"))
    packet = packets.ipv6(CLIENT, SERVER, 60 if extra else UDP, l4, extra=extra)
    assert engine.process(packet, 0.0).ctinfo == "NEW"
    return packet


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 100, 127])
def test_every_type_below_128_is_an_error_about_a_flow(kind: int) -> None:
    engine = small_engine()
    outcome = send(engine, packets.icmp_error(kind, 0, flow(engine)), ROUTER, CLIENT)
    assert (outcome.ctinfo, outcome.direction, outcome.counted) == ("RELATED", "reply", False)


def test_extension_headers_in_the_quote_are_walked_over() -> None:
    engine = small_engine()
    quote = flow(engine, bytes((UDP, 0, 1, 4, 0, 0, 0, 0)))
    assert send(engine, packets.icmp_error(1, 0, quote), ROUTER, CLIENT).ctinfo == "RELATED"


def test_a_quoted_fragment_that_is_not_the_first_is_nothing() -> None:
    engine = small_engine()
    flow(engine)
    for word, ctinfo in ((8, "INVALID"), (1, "RELATED"), (0, "RELATED")):
        header = bytes((UDP, 0)) + word.to_bytes(2, "big") + bytes(4)
        quote = packets.ipv6(CLIENT, SERVER, 44, packets.udp(1234, 53, b"query"), extra=header)
        assert send(engine, packets.icmp_error(1, 0, quote), ROUTER, CLIENT).ctinfo == ctinfo


def test_the_error_must_go_to_whom_it_concerns() -> None:
    engine = small_engine()
    outcome = send(engine, packets.icmp_error(1, 0, flow(engine)), ROUTER, "fd00::3")
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", "icmp_error_outer")


# ── redirects ───────────────────────────────────────────────────────────────────────────────────────


def redirect(quote: bytes, code: int = 0, option: bytes = b"\x04\x01", size: int | None = None) -> bytes:
    """RFC 4861 4.5: reserved, target, destination, then an option: here with the packet 8 octets into it."""
    body = packets.icmp_error(137, code, bytes(32) + option + bytes(8 - len(option)) + quote)
    return body if size is None else body[:size]


def test_a_redirect_from_the_link_is_about_the_quoted_flow() -> None:
    engine = small_engine()
    outcome = send(engine, redirect(flow(engine)), ON_LINK, CLIENT, hop_limit=255)
    assert (outcome.ctinfo, outcome.direction) == ("RELATED", "reply")


REDIRECTS = [  # how it differs, what is changed, source, hop limit, reason, log text
    ("39 octets", {"size": 39}, ON_LINK, 255, "icmpv6_redirect_short", "short redirect"),
    ("short comes before the source", {"size": 39}, ROUTER, 1, "icmpv6_redirect_short", "short redirect"),
    ("code 1", {"code": 1}, ROUTER, 255, "not_invertible", None),
    ("routed", {}, ON_LINK, 254, "icmpv6_redirect_source", "invalid saddr or hoplimit for redirect"),
    ("from afar", {}, ROUTER, 255, "icmpv6_redirect_source", "invalid saddr or hoplimit for redirect"),
    ("no option", {"size": 40}, ON_LINK, 255, "icmpv6_redirect_options", "redirect without options"),
    (
        "option of length 0",
        {"option": b"\x04\x00"},
        ON_LINK,
        255,
        "icmpv6_redirect_options",
        "redirect without options",
    ),
    ("another option", {"option": b"\x02\x01"}, ON_LINK, 255, "not_invertible", None),
]


@pytest.mark.parametrize(
    ("name", "change", "src", "hops", "reason", "text"), REDIRECTS, ids=[row[0] for row in REDIRECTS]
)
def test_other_redirects_are_invalid(
    name: str, change: dict[str, int], src: str, hops: int, reason: str, text: str | None
) -> None:
    engine = small_engine()
    outcome = send(engine, redirect(flow(engine), **change), src, CLIENT, hop_limit=hops)  # type: ignore[arg-type]
    assert (outcome.ctinfo, outcome.reason) == ("INVALID", reason)
    assert outcome.log_text() == (text and f"nf_ct_proto_58: {text}")


# ── IPv6 headers ────────────────────────────────────────────────────────────────────────────────────

PAD = bytes((0, 1, 4, 0, 0, 0, 0))  # the rest of an options header: eight octets of padding


@pytest.mark.parametrize("kinds", [(0,), (60,), (43,), (0, 60, 43, 60), (51,)])
def test_extension_headers_are_walked_over(kinds: tuple[int, ...]) -> None:
    extra = b""
    for following in (*kinds[1:], TCP):
        extra += bytes((following,)) + PAD
    if kinds == (51,):
        extra = bytes((TCP, 1)) + bytes(10)  # authentication header: length in words, less two
    l4 = packets.sealed(CLIENT, SERVER, TCP, packets.tcp(1, 2))
    outcome = small_engine().process(packets.ipv6(CLIENT, SERVER, kinds[0], l4, extra=extra), 0.0)
    assert outcome.ctinfo == "NEW" and outcome.tuple is not None and outcome.tuple.dport == 2


def test_no_next_header_is_invalid() -> None:
    for packet in (
        packets.ipv6(CLIENT, SERVER, 59, b""),
        packets.ipv6(CLIENT, SERVER, 60, b"", extra=bytes((59,)) + PAD),
    ):
        outcome = small_engine().process(packet, 0.0)
        assert (outcome.ctinfo, outcome.reason) == ("INVALID", "no_next_header")


def test_encapsulated_payload_is_a_protocol_by_itself() -> None:
    outcome = small_engine().process(packets.ipv6(CLIENT, SERVER, 50, bytes(16)), 0.0)
    assert outcome.ctinfo == "NEW" and outcome.conn is not None and outcome.conn.timeout() == 600
