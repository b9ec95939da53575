"""Expectations: adding, matching, timers, limits, events, trials.

Sources: nf_conntrack_expect.c; events and texts from runs on Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.control import CLIENT, SERVER, Control, engine
from packets import TCP, UDP, ip, tcp, udp

from conntrack import Engine
from conntrack.conn import Template
from conntrack.expect import ADDED, ALREADY, BUSY, FULL, INACTIVE, PERMANENT, Expectation, Policy
from conntrack.show import expectation_proc_line
from conntrack.sysctl import SECOND
from conntrack.tuples import Tuple, Zone
from conntrack.verdict import HELPER

TWO = Policy(2, 300 * SECOND)
ONE_PORT = Tuple(6, "255.255.255.255", "255.255.255.255", 0xFFFF, 0xFFFF).key()
ANY_PORT = Tuple(6, "255.255.255.255", "255.255.255.255", 0, 0xFFFF).key()
ANYBODY = Tuple(6, "0.0.0.0", "255.255.255.255", 0, 0xFFFF).key()


@pytest.fixture
def control() -> Control:
    made = Control()
    made.events()
    return made


def wanted(control: Control, dport: int = 5001, *, src: str = SERVER, sport: int = 0) -> Expectation:
    master = next(control.engine.conns())
    mask = ONE_PORT if sport else ANY_PORT
    return Expectation(master, Tuple(6, src, CLIENT, sport, dport).key(), mask, 6, "ftp")


# ── adding ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_again_replaces_the_old_one_and_starts_its_timer_anew(control: Control) -> None:
    table = control.engine._expectations
    _, first = table.add(wanted(control), TWO)
    control.engine.advance(1010.0)
    result, second = table.add(wanted(control), TWO)
    assert (result, second.deadline - first.deadline) == (ADDED, 10 * SECOND)
    assert control.events() == ["EXP_NEW 5001", "EXP_DESTROY 5001", "EXP_NEW 5001"]


def test_what_both_masks_cannot_tell_apart_is_busy(control: Control) -> None:
    table = control.engine._expectations
    table.add(wanted(control), TWO)
    assert table.add(wanted(control, sport=20), TWO)[0] == BUSY  # the first covers every port
    assert table.add(replace(wanted(control), mask=ANYBODY), TWO)[0] == BUSY
    assert table.add(wanted(control, src="93.184.216.99"), TWO)[0] == ADDED


def test_the_same_of_another_class_is_there_already(control: Control) -> None:
    table = control.engine._expectations
    table.add(wanted(control), TWO)
    assert table.add(replace(wanted(control), kind=1), TWO)[0] == ALREADY


def test_at_the_class_limit_the_oldest_of_the_class_goes(control: Control) -> None:
    table = control.engine._expectations
    for port in (1, 2, 3):
        table.add(wanted(control, port), TWO)
    table.add(replace(wanted(control, 4), kind=1), TWO)
    assert control.events() == ["EXP_NEW 1", "EXP_NEW 2", "EXP_DESTROY 1", "EXP_NEW 3", "EXP_NEW 4"]


def test_nf_conntrack_expect_max_refuses_the_newcomer() -> None:
    box = engine(sysctl={"nf_conntrack_expect_max": 1})
    Control(box).c(b"PORT 10,0,0,2,19,137\r\n")
    other = Control(box, port=2001)
    outcome = other.c(b"PORT 10,0,0,2,19,138\r\n")
    assert (outcome.verdict, outcome.reason) == ("DROP", "helper_expect")
    box.sysctl["nf_conntrack_expect_max"] = 2
    assert other.c(b"PORT 10,0,0,2,19,138\r\n", seq=1008).verdict == "ACCEPT"
    assert other.engine._expectations.add(wanted(other, 9), Policy(0, SECOND))[0] == FULL


# ── matching ────────────────────────────────────────────────────────────────────────────────────────


def test_a_permanent_one_stays_an_inactive_one_matches_nothing(control: Control) -> None:
    table = control.engine._expectations
    table.add(replace(wanted(control, 1), flags=PERMANENT), TWO)
    table.add(replace(wanted(control, 2), flags=INACTIVE), TWO)
    assert control.connect(SERVER, CLIENT, 20, 1).ctinfo == "RELATED"
    assert control.connect(SERVER, CLIENT, 21, 1).ctinfo == "RELATED"
    assert control.connect(SERVER, CLIENT, 20, 2).ctinfo == "NEW"
    assert control.expected() == ["10.0.0.2 1", "10.0.0.2 2"]


def test_the_newest_that_matches_is_taken(control: Control) -> None:
    table = control.engine._expectations
    table.add(wanted(control, 1, src="93.184.216.99"), TWO)
    table.add(wanted(control, 1), TWO)
    control.events()
    control.connect(SERVER, CLIENT, 20, 1)
    assert control.expected() == ["10.0.0.2 1"]
    assert next(control.engine.expectations()).tuple.src == "93.184.216.99"


def test_an_expectation_can_name_the_new_connection_s_helper(control: Control) -> None:
    control.engine._expectations.add(replace(wanted(control), assign="ftp"), TWO)
    control.connect(SERVER, CLIENT, 20, 5001)
    made = list(control.engine.conns())[-1].to_dict()
    assert (made["helper"], made["status"]) == ("ftp", ["CONFIRMED", "EXPECTED"])  # no HELPER: no rule said so
    *_, event = control.engine.events
    assert event.to_dict()["bits"] == ["related", "protoinfo", "helper"]


def test_a_template_s_helper_is_for_those_who_were_not_expected() -> None:
    box = engine(helpers=None)
    control = Control.__new__(Control)
    template = Template(helper="ftp")
    packet = box.receive(ip(CLIENT, SERVER, TCP, tcp(2000, 21, "S")))
    conn, ctinfo = box.enter(packet, template=template)
    assert conn is not None and conn.status & HELPER
    box.leave(conn, ctinfo, packet)
    box._expectations.add(wanted_by(box), TWO)
    packet = box.receive(ip(SERVER, CLIENT, TCP, tcp(20, 5001, "S")))
    conn, _ = box.enter(packet, template=template)
    assert conn is not None and not conn.status & HELPER and conn.extra.master is not None
    del control


def wanted_by(box: Engine) -> Expectation:
    return Expectation(next(box.conns()), Tuple(6, SERVER, CLIENT, 0, 5001).key(), ANY_PORT, 6, "ftp")


@pytest.mark.parametrize(
    ("data", "related"),
    # kernel: the zone's number counts, not its directions
    [(Zone(5), True), (Zone(5, 1), True), (Zone(0), False), (Zone(6), False)],
)
def test_an_expectation_holds_in_its_master_s_zone(data: Zone, related: bool) -> None:
    box = engine(helpers=None)
    packet = box.receive(ip(CLIENT, SERVER, TCP, tcp(2000, 21, "S")))
    conn, ctinfo = box.enter(packet, zone=Zone(5), template=Template(zone=Zone(5), helper="ftp"))
    assert conn is not None
    box.leave(conn, ctinfo, packet)
    box._expectations.add(wanted_by(box), TWO)
    packet = box.receive(ip(SERVER, CLIENT, TCP, tcp(20, 5001, "S")))
    conn, _ = box.enter(packet, zone=data, template=Template(zone=data))
    assert conn is not None and (conn.extra.master is not None) is related


def test_a_master_that_was_dropped_with_its_first_packet_takes_its_expectation_with_it() -> None:
    """TFTP expects before its own connection is confirmed; a clash at confirmation ends both."""
    box = engine()
    first = box.receive(ip(CLIENT, SERVER, UDP, udp(2000, 69, b"\0\1x")))
    conn, ctinfo = box.enter(first)
    assert conn is not None
    box._helpers.pass_through(conn, ctinfo, first, False)
    assert [event.type for event in box.events] == ["EXP_NEW"]
    packet = box.receive(ip(SERVER, CLIENT, UDP, udp(9, 2000, b"\0\3")))
    other, _ = box.enter(packet)
    assert other is not None and other.extra.master is None  # the master is not confirmed yet
    box.drop(other)
    box.drop(conn)
    assert [event.type for event in box.events] == ["EXP_DESTROY"]
    box.check()


# ── timers ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_timer_fires_at_its_time_without_anybody_looking(control: Control) -> None:
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.engine.advance(1299.999)
    assert control.expected() == ["10.0.0.2 5001"]
    (expectation,) = control.engine.expectations()
    assert expectation.to_dict()["timeout"] == 0
    control.events()
    control.engine.advance(1300.0)
    assert control.events() == ["EXP_DESTROY 5001"]
    control.engine.check()


def test_timers_and_the_gc_keep_their_order() -> None:
    control = Control(engine(gc="eager"))
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.datagram(CLIENT, SERVER, 1, 53, b"x")  # ends after 30 s
    control.events()
    control.engine.advance(2000.0)
    told = [(event.type, event.time) for event in control.engine.events]
    assert told == [
        ("DESTROY", 1030 * SECOND),
        ("DESTROY", 1300 * SECOND),
        ("EXP_DESTROY", 1300 * SECOND),
    ]


def test_expectations_can_be_flushed_alone(control: Control) -> None:
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    control.events()
    assert control.engine.flush_expectations() == 1
    assert control.events() == ["EXP_DESTROY 5001"]
    assert control.engine.count() == 1


# ── events ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (Template(helper="ftp"), ["EXP_NEW", "EXP_DESTROY"]),
        (Template(helper="ftp", expect_events=1), ["EXP_NEW"]),  # --expevents new
        (Template(helper="ftp", events=1), []),  # --ctevents new: a mask for one kind silences the other
    ],
)
def test_the_master_s_event_mask_decides(template: Template, told: list[str]) -> None:
    box = engine(helpers=None)
    packet = box.receive(ip(CLIENT, SERVER, TCP, tcp(2000, 21, "S")))
    conn, ctinfo = box.enter(packet, template=template)
    assert conn is not None
    box.leave(conn, ctinfo, packet)
    list(box.events)
    box._expectations.add(wanted_by(box), TWO)
    box.flush_expectations()
    assert [event.type for event in box.events] == told


def test_without_events_of_its_master_an_expectation_is_silent() -> None:
    control = Control(engine(sysctl={"nf_conntrack_events": 0}))
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    assert control.events() == []
    assert control.expected() == ["10.0.0.2 5001"]


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────


def test_flags_and_class_names_show_in_the_listings(control: Control) -> None:
    table = control.engine._expectations
    table.add(replace(wanted(control), flags=PERMANENT | INACTIVE), Policy(1, 180 * SECOND, "audio"))
    record = next(control.engine.expectations()).to_dict()
    assert record["flags"] == ["INACTIVE", "PERMANENT"]
    assert next(control.engine.expectations()).text().endswith("dport=21 PERMANENT,INACTIVE class=0 helper=ftp")
    assert expectation_proc_line(record) == (
        "180 l3proto = 2 proto=6 src=93.184.216.34 dst=10.0.0.2 sport=0 dport=5001 PERMANENT,INACTIVE ftp/audio"
    )


# ── trials ──────────────────────────────────────────────────────────────────────────────────────────


def _use(control: Control) -> None:
    control.connect(SERVER, CLIENT, 20, 5001)


def _replace(control: Control) -> None:
    control.c(b"PORT 10,0,0,2,19,139\r\n")


def _expire(control: Control) -> None:
    control.engine.advance(5000.0)


def _flush(control: Control) -> None:
    control.engine.flush()


@pytest.mark.parametrize("what", [_use, _replace, _expire, _flush])
def test_a_trial_leaves_expectations_as_they_were(control: Control, what: Callable[[Control], None]) -> None:
    control.c(b"PORT 10,0,0,2,19,137\r\n")
    box = control.engine
    before = [(each.serial, each.to_dict()) for each in box.expectations()]
    due, seq = box._due, control.seq
    memory = next(box.conns()).extra.helper_memory
    with box.trial():
        what(control)
    control.seq = seq
    assert [(each.serial, each.to_dict()) for each in box.expectations()] == before
    assert (box._due, next(box.conns()).extra.helper_memory) == (due, memory)
    box.check()
    _use(control)
    assert [event.type for event in box.events][-2:] == ["EXP_DESTROY", "NEW"]
