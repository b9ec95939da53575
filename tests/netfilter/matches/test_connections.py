"""Matches that ask for the connection: conntrack, state, connmark, on connections of a real engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from packets import ICMP, UDP, icmp, ip, udp
from rules.fakes import FakeBox

from conntrack.conn import Template
from conntrack.nat.ranges import NatRange
from conntrack.netfilter.skb import Skb
from conntrack.sysctl import SECOND
from conntrack.verdict import INVALID, SRC, UNTRACKED

QUERY = ip("10.0.0.2", "192.0.2.1", UDP, udp(1000, 53, b"x"))
ANSWER = ip("192.0.2.1", "203.0.113.5", UDP, udp(53, 1000, b"x"))
PUBLIC = bytes((203, 0, 113, 5))


class Flow:
    """A masqueraded query, confirmed, and its answer."""

    def __init__(self) -> None:
        self.box = FakeBox()
        engine = self.box.engine
        engine.advance(1_000 * SECOND)
        self.first = self.enter(QUERY)
        assert self.first.conn is not None
        engine.setup(self.first.conn, NatRange(addresses=(PUBLIC, PUBLIC)), SRC)
        self.before = Skb(self.first.packet, "in0")
        self.before.conn, self.before.ctinfo = self.first.conn, self.first.ctinfo

    def confirm(self) -> None:
        assert self.first.conn is not None
        self.box.engine.leave(self.first.conn, self.first.ctinfo, self.first.packet)

    def enter(self, octets: bytes) -> Skb:
        engine = self.box.engine
        skb = Skb(engine.receive(octets), "in0")
        skb.conn, skb.ctinfo = engine.enter(skb.packet)
        return skb


FIRST = [  # of an unconfirmed connection
    ("--ctstate NEW", "yes"),
    ("--ctstate ESTABLISHED", "no"),
    ("--ctstate SNAT", "yes"),
    ("--ctstate DNAT", "no"),
    ("! --ctstate NEW", "no"),
    ("--ctstatus CONFIRMED", "no"),
    ("--ctstatus NONE", "no"),
    ("! --ctstatus NONE", "yes"),
    ("--ctexpire 0", "yes"),  # not yet confirmed, its deadline is a span and counts as past
    ("--ctexpire 1:", "no"),
    ("--ctdir ORIGINAL", "yes"),
]
REPLY = [  # of the answer
    ("--ctstate ESTABLISHED", "yes"),
    ("--ctstate SNAT,INVALID", "yes"),
    ("--ctproto udp", "yes"),
    ("! --ctproto udp", "no"),
    ("--ctorigsrc 10.0.0.2", "yes"),
    ("--ctorigsrc 10.0.0.9/24", "yes"),
    ("--ctorigdst 192.0.2.0/24", "yes"),
    ("--ctreplsrc 192.0.2.1", "yes"),
    ("--ctrepldst 203.0.113.5", "yes"),
    ("--ctrepldst 10.0.0.2", "no"),
    ("--ctorigsrcport 1000", "yes"),
    ("--ctorigdstport 50:60", "yes"),
    ("--ctorigdstport 60:50", "no"),
    ("--ctreplsrcport 53 --ctrepldstport 1000", "yes"),
    ("--ctstatus CONFIRMED,ASSURED", "yes"),
    ("--ctstatus ASSURED", "no"),
    ("--ctexpire 30", "yes"),
    ("! --ctexpire 29:31", "no"),
    ("--ctdir REPLY", "yes"),
    ("--ctdir ORIGINAL", "no"),
    ("--ctstate ESTABLISHED --ctdir ORIGINAL", "no"),
]


@pytest.mark.parametrize(("condition", "answer"), FIRST)
def test_the_first_packet_has_a_connection_that_is_not_confirmed(
    counts: Callable[..., str], condition: str, answer: str
) -> None:
    flow = Flow()
    assert counts(f"-m conntrack {condition}", flow.before, box=flow.box) == answer


@pytest.mark.parametrize(("condition", "answer"), REPLY)
def test_the_answer_shows_both_tuples(counts: Callable[..., str], condition: str, answer: str) -> None:
    flow = Flow()
    flow.confirm()
    skb = flow.enter(ANSWER)
    assert counts(f"-m conntrack {condition}", skb, box=flow.box) == answer


@pytest.mark.parametrize(
    ("ctinfo", "conditions", "answer"),
    [
        (INVALID, "-m conntrack --ctstate INVALID", "yes"),
        (INVALID, "-m conntrack --ctstate INVALID --ctorigsrc 1.2.3.4", "yes"),  # the rest is passed over
        (INVALID, "-m conntrack ! --ctstate NEW --ctproto 99", "yes"),
        (INVALID, "-m conntrack --ctorigsrc 10.0.0.2", "no"),
        (INVALID, "-m conntrack ! --ctorigsrc 1.2.3.4", "no"),
        (INVALID, "-m state --state INVALID,NEW", "yes"),
        (INVALID, "-m connmark --mark 0", "no"),
        (INVALID, "-m connmark ! --mark 1", "no"),
        (UNTRACKED, "-m conntrack --ctstate UNTRACKED", "yes"),
        (UNTRACKED, "-m conntrack --ctstate INVALID", "no"),
        (UNTRACKED, "-m state ! --state UNTRACKED", "no"),
    ],
)
def test_without_a_connection_only_the_state_decides(
    counts: Callable[..., str], ctinfo: int, conditions: str, answer: str
) -> None:
    flow = Flow()
    skb = Skb(flow.box.engine.receive(QUERY), "in0")
    skb.ctinfo = ctinfo
    assert counts(conditions, skb, box=flow.box) == answer


def test_before_tracking_a_template_stands_in_the_place_of_a_connection(counts: Callable[..., str]) -> None:
    flow = Flow()
    skb = Skb(flow.box.engine.receive(QUERY), "in0")
    assert counts("-m conntrack --ctstate INVALID", skb) == "yes"
    skb.template = Template()
    for conditions, answer in (
        ("-m conntrack --ctstate NEW", "yes"),
        ("-m conntrack --ctstate INVALID", "no"),
        ("-m conntrack --ctstatus CONFIRMED", "yes"),
        ("-m conntrack ! --ctorigsrc 10.0.0.2", "yes"),
        ("-m connmark --mark 0", "yes"),
    ):
        assert counts(conditions, skb, box=flow.box) == answer, conditions


def test_an_icmp_identifier_is_the_source_port_of_its_tuple(counts: Callable[..., str]) -> None:
    flow = Flow()
    skb = flow.enter(ip("10.0.0.2", "192.0.2.1", ICMP, icmp(8, 0, 77)))
    assert counts("-m conntrack --ctorigsrcport 77 --ctorigdstport 2048", skb, box=flow.box) == "yes"


def test_the_connection_s_mark_is_compared_under_its_mask(counts: Callable[..., str]) -> None:
    flow = Flow()
    assert flow.first.conn is not None
    flow.box.engine.set_mark(flow.first.conn, 0x12)
    for conditions, answer in (
        ("-m connmark --mark 0x12", "yes"),
        ("-m connmark --mark 0x10/0xf0", "yes"),
        ("-m connmark ! --mark 0x12", "no"),
    ):
        assert counts(conditions, flow.before, box=flow.box) == answer, conditions
