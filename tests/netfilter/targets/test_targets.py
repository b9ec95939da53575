"""What targets do: marks, templates, mappings, octets, answers.  Facts of Linux 6.18 with iptables 1.8.9."""

from __future__ import annotations

import pytest
from packets import ICMPV6, TCP, UDP, icmp, ip, tcp, udp, wrong_sums
from rules.fakes import FakeBox

from conntrack.conn import Template
from conntrack.nat.ranges import NatRange
from conntrack.netfilter.box import CONTINUE
from conntrack.netfilter.routing import Fib
from conntrack.netfilter.rules import load
from conntrack.netfilter.rules.rule import RuleTarget
from conntrack.netfilter.rules.ruleset import BUILT_IN
from conntrack.netfilter.skb import Skb
from conntrack.tuples import Zone, address_text, halves
from conntrack.verdict import ACCEPT, DROP, FORWARD, LOCAL_IN, LOCAL_OUT, POSTROUTING, PREROUTING, UNTRACKED
from conntrack.wire.packet import parse
from conntrack.wire.tcp import options

QUERY = ip("10.0.0.2", "192.0.2.1", UDP, udp(1000, 53, b"x"))
SYN = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1000, 80, "S"))


def target_of(rule: str, table: str = "mangle", family: int = 4) -> RuleTarget:
    """The target of a rule in a user chain of `table`."""
    (made,) = load(f"*{table}\n:X - [0:0]\n-A X {rule}\nCOMMIT\n", family).tables[table].chains["X"].rules
    assert made.target is not None
    return made.target


def tracked(box: FakeBox, octets: bytes, iface: str = "in0") -> Skb:
    """A packet behind the conntrack hook."""
    skb = Skb(box.engine.receive(octets), iface)
    skb.conn, skb.ctinfo = box.engine.enter(skb.packet)
    return skb


# ── marks ───────────────────────────────────────────────────────────────────────────────────────────

MARKS = [
    # nf before, rule, nf behind
    (0x33, "MARK --set-mark 5", 0x5),
    (0x33, "MARK --set-mark 0x5/0xf", 0x35),
    (0x33, "MARK --set-xmark 0x10/0xf", 0x20),
    (0x33, "MARK --or-mark 4", 0x37),
    (0x33, "MARK --and-mark 0xf0", 0x30),
    (0x33, "MARK --xor-mark 3", 0x30),
]


@pytest.mark.parametrize(("before", "rule", "behind"), MARKS)
def test_mark_changes_the_packet_s_mark(before: int, rule: str, behind: int) -> None:
    skb = Skb(parse(QUERY), "in0")
    skb.mark = before
    assert target_of(f"-j {rule}").apply(skb, PREROUTING, FakeBox()) == CONTINUE  # type: ignore[arg-type]
    assert skb.mark == behind


CONNMARKS = [
    # ct, nf before, rule, ct, nf behind
    (0x33, 0, "--set-mark 5", 0x5, 0),
    (0x33, 0, "--set-xmark 0x10/0xf", 0x20, 0),
    (0x33, 0, "--or-mark 4", 0x37, 0),
    (0x33, 0, "--and-mark 0xf0", 0x30, 0),
    (0x33, 0, "--xor-mark 3", 0x30, 0),
    (0x33, 0x44, "--save-mark", 0x44, 0x44),
    (0x33, 0x44, "--save-mark --nfmask 0xf --ctmask 0xf0", 0x7, 0x44),
    (0x33, 0x44, "--save-mark --mask 0xf", 0x34, 0x44),
    (0x33, 0x44, "--restore-mark", 0x33, 0x33),
    (0x33, 0x44, "--restore-mark --nfmask 0xf0 --ctmask 0xf", 0x33, 0x7),
    (0x33, 0, "--set-mark 1 --left-shift-mark 3", 0x8, 0),
    (0x33, 0x44, "--restore-mark --right-shift-mark 4", 0x33, 0x3),
]


@pytest.mark.parametrize(("ct", "nf", "rule", "ct_behind", "nf_behind"), CONNMARKS)
def test_connmark_changes_or_carries_marks(ct: int, nf: int, rule: str, ct_behind: int, nf_behind: int) -> None:
    box = FakeBox()
    skb = tracked(box, QUERY)
    assert skb.conn is not None
    box.engine.set_mark(skb.conn, ct)
    skb.mark = nf
    assert target_of(f"-j CONNMARK {rule}").apply(skb, PREROUTING, box) == CONTINUE  # type: ignore[arg-type]
    assert (skb.conn.extra.mark, skb.mark) == (ct_behind, nf_behind)


def test_connmark_without_a_connection_does_nothing() -> None:
    skb = Skb(parse(QUERY), "in0")
    skb.mark, skb.ctinfo = 5, UNTRACKED
    target_of("-j CONNMARK --restore-mark").apply(skb, PREROUTING, FakeBox())  # type: ignore[arg-type]
    assert skb.mark == 5


# ── before tracking ─────────────────────────────────────────────────────────────────────────────────

TEMPLATES = [
    ("CT", Template()),
    ("CT --zone 5", Template(Zone(5, 3))),
    ("CT --zone-orig 5", Template(Zone(5, 1))),
    ("CT --zone-reply 5", Template(Zone(5, 2))),
    ("CT --zone mark", Template(Zone(0, 3), mark_zone=True)),
    ("CT --ctevents new,destroy,natseqinfo", Template(events=0b1_0000_0101)),
    ("CT --expevents new", Template(expect_events=1)),
    ("CT --helper ftp", Template(helper="ftp")),
]


@pytest.mark.parametrize(("rule", "template"), TEMPLATES)
def test_ct_attaches_a_template(rule: str, template: Template) -> None:
    skb = Skb(parse(SYN), "in0")
    assert target_of(f"-p tcp -j {rule}", "raw").apply(skb, PREROUTING, FakeBox()) == CONTINUE  # type: ignore[arg-type]
    assert skb.template == template


def test_the_first_rule_that_speaks_of_tracking_wins() -> None:
    box = FakeBox()
    for first, second, untracked in (("CT --zone 5", "NOTRACK", False), ("NOTRACK", "CT --zone 5", True)):
        skb = Skb(parse(SYN), "in0")
        for rule in (first, second):
            target_of(f"-j {rule}", "raw").apply(skb, PREROUTING, box)  # type: ignore[arg-type]
        assert (skb.ctinfo == UNTRACKED, skb.template is None) == (untracked, untracked)


def test_a_packet_that_has_its_connection_already_is_left_alone() -> None:
    box = FakeBox()
    skb = tracked(box, SYN)
    before = skb.ctinfo
    target_of("-j NOTRACK", "raw").apply(skb, PREROUTING, box)  # type: ignore[arg-type]
    assert skb.ctinfo == before


# ── translation ─────────────────────────────────────────────────────────────────────────────────────


def packed(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


RANGES = [
    ("SNAT --to 1.2.3.4", NatRange((packed("1.2.3.4"), packed("1.2.3.4")))),
    (
        "SNAT --to 1.2.3.4-1.2.3.9:5-7 --persistent --random",
        NatRange((packed("1.2.3.4"), packed("1.2.3.9")), (5, 7), None, True, True),
    ),
    ("SNAT --to :5", NatRange(None, (5, 5))),
    ("SNAT --to 1.2.3.4 --random-fully", NatRange((packed("1.2.3.4"), packed("1.2.3.4")), random=True)),
    ("DNAT --to 1.2.3.4:80-90/1000", NatRange((packed("1.2.3.4"), packed("1.2.3.4")), (80, 90), 1000)),
    ("MASQUERADE --to-ports 1-5", NatRange(None, (1, 5))),
    ("MASQUERADE --to-ports 1-5/3", NatRange(None, (1, 5), 0)),  # its structure has no place for the base
    ("REDIRECT --to-ports ssh", NatRange(None, (22, 22))),
]


@pytest.mark.parametrize(("rule", "nat_range"), RANGES)
def test_rules_of_translation_reduce_to_a_range(rule: str, nat_range: NatRange) -> None:
    assert target_of(f"-p tcp -j {rule}", "nat").range == nat_range  # type: ignore[attr-defined]


MAPPINGS = [
    # rule, hook, packet from / to, what the answers are to look like: source, destination
    ("SNAT --to 1.2.3.4", POSTROUTING, "192.0.2.1", "1.2.3.4"),
    ("MASQUERADE", POSTROUTING, "192.0.2.1", "198.51.100.1"),
    ("DNAT --to 10.0.0.9", PREROUTING, "10.0.0.9", "10.0.0.2"),
    ("REDIRECT", PREROUTING, "10.0.0.1", "10.0.0.2"),
    ("REDIRECT", LOCAL_OUT, "127.0.0.1", "10.0.0.2"),
    ("NETMAP --to 10.7.0.0/16", PREROUTING, "10.7.2.1", "10.0.0.2"),
    ("NETMAP --to 10.7.0.0/16", POSTROUTING, "192.0.2.1", "10.7.0.2"),
    ("NETMAP --to 10.7.0.0/16", LOCAL_IN, "192.0.2.1", "10.7.0.2"),
]


@pytest.mark.parametrize(("rule", "hook", "source", "destination"), MAPPINGS)
def test_the_first_packet_decides_the_mapping(rule: str, hook: int, source: str, destination: str) -> None:
    box = FakeBox()
    skb = tracked(box, QUERY)
    skb.out_iface = "out0"
    skb.route = box.fib.output(packed("192.0.2.1"))
    assert target_of(f"-j {rule}", "nat").apply(skb, hook, box) == ACCEPT  # type: ignore[arg-type]
    assert skb.conn is not None
    answers = halves(skb.conn.reply)
    assert (address_text(answers[0]), address_text(answers[1])) == (source, destination)
    assert skb.conn.extra.out_iface == ("out0" if rule == "MASQUERADE" else None)


def test_masquerade_drops_where_no_device_has_an_address_to_lend() -> None:
    box = FakeBox()
    skb = tracked(box, QUERY)
    box.fib = Fib({})
    skb.out_iface = "lo"  # 127.0.0.1 is for this host only
    assert target_of("-j MASQUERADE", "nat").apply(skb, POSTROUTING, box) == DROP  # type: ignore[arg-type]


# ── octets ──────────────────────────────────────────────────────────────────────────────────────────


def test_time_to_live_stays_between_0_and_255_and_the_checksum_right() -> None:
    for rule, life in (("set 9", 9), ("dec 60", 4), ("dec 70", 0), ("inc 100", 164), ("inc 200", 255)):
        skb = Skb(parse(QUERY), "in0")
        target_of(f"-j TTL --ttl-{rule}").apply(skb, FORWARD, FakeBox())  # type: ignore[arg-type]
        octets = bytes(skb.packet.data)
        assert (octets[8], wrong_sums(octets)) == (life, [])
        assert QUERY[8] == 64, "the caller's octets are not ours to change"
    skb = Skb(parse(ip("fd00:1::2", "2001:db8::1", ICMPV6, icmp(128, 0, 7))), "in0")
    target_of("-j HL --hl-dec 3", family=6).apply(skb, FORWARD, FakeBox())  # type: ignore[arg-type]
    assert skb.packet.data[7] == 61


MSS = [
    # options and payload of the SYN, rule, MSS behind, octets more
    (b"\x02\x04\x05\xb4", b"", "--set-mss 1000", 1000, 0),
    (b"\x02\x04\x05\xb4", b"abc", "--set-mss 1000", 1000, 0),
    (b"\x02\x04\x02\x00", b"", "--set-mss 1000", 512, 0),
    (b"", b"", "--set-mss 1000", 536, 4),
    (b"", b"", "--set-mss 400", 400, 4),
    (b"", b"abc", "--set-mss 400", None, 0),
    (b"\x01" * 40, b"", "--set-mss 400", None, 0),
    (b"\x02\x04\xff\xff", b"", "--clamp-mss-to-pmtu", 1460, 0),
]


@pytest.mark.parametrize(("given", "payload", "rule", "mss", "more"), MSS)
def test_mss_is_lowered_or_inserted(given: bytes, payload: bytes, rule: str, mss: int | None, more: int) -> None:
    box = FakeBox()
    octets = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1000, 80, "S", options=given, payload=payload))
    skb = Skb(parse(octets), "in0")
    skb.route = box.fib.output(packed("192.0.2.1"))
    skb.packet.counted = True
    assert target_of(f"-p tcp -j TCPMSS {rule}").apply(skb, FORWARD, box) == CONTINUE  # type: ignore[arg-type]
    behind = bytes(skb.packet.data)
    size = (behind[32] >> 4) * 4
    assert len(behind) == len(octets) + more == skb.packet.length
    assert options(behind[40 : 20 + size]).mss == mss
    assert wrong_sums(behind) == []
    assert skb.packet.counted
    assert behind[20 + size :] == payload


def test_a_tcp_header_that_cannot_be_right_is_dropped() -> None:
    octets = ip("10.0.0.2", "192.0.2.1", TCP, tcp(1000, 80, "S")[:12], seal=False)
    skb = Skb(parse(octets), "in0")
    assert target_of("-p tcp -j TCPMSS --set-mss 9").apply(skb, FORWARD, FakeBox()) == DROP  # type: ignore[arg-type]


# ── answers, records, verdicts ──────────────────────────────────────────────────────────────────────


def test_reject_answers_and_drops() -> None:
    for rule, family, kind in (
        ("REJECT", 4, "icmp-port-unreachable"),
        ("REJECT --reject-with admin-prohib", 4, "icmp-admin-prohibited"),
        ("REJECT --reject-with tcp-rst", 4, "tcp-reset"),
        ("REJECT", 6, "icmp6-port-unreachable"),
        ("REJECT --reject-with icmp6-adm", 6, "icmp6-adm-prohibited"),
    ):
        box = FakeBox()
        target = target_of(f"-p tcp -j {rule}", "filter", family)
        assert target.apply(Skb(parse(SYN), "in0"), FORWARD, box) == DROP  # type: ignore[arg-type]
        assert box.rejected == [kind]


def test_log_hands_the_host_a_record_and_goes_on() -> None:
    box = FakeBox()
    target = target_of('-j LOG --log-prefix "IN: " --log-level info --log-uid')
    assert target.apply(Skb(parse(SYN), "in0"), FORWARD, box) == CONTINUE  # type: ignore[arg-type]
    assert box.logged == [{"prefix": "IN: ", "level": 6, "flags": ("uid",)}]


def test_no_chain_may_be_called_like_a_target() -> None:
    assert all(name.isupper() for chains in BUILT_IN.values() for name in chains)
    for name in ("REJECT", "TEE", "ACCEPT"):
        with pytest.raises(ValueError, match="clash"):
            load(f"*filter\n-N {name}\nCOMMIT\n", 4)
