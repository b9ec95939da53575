"""docs/records.schema.json is the truth about records: what the package makes must be valid, and what no face
may say must not be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.control import SERVER, Control, engine
from jsonschema import Draft202012Validator

from conntrack import Masquerade, verdict
from conntrack.choices import Choices
from conntrack.conn import PACKET, Conn
from conntrack.events import DESTROY, NEW, UPDATE, event_of
from conntrack.reasons import REASONS
from conntrack.sysctl import SECOND
from conntrack.table import Table
from conntrack.trackers.table import TRACKERS
from conntrack.tuples import Tuple, Zone, invert, zoned
from conntrack.verdict import ASSURED, CONFIRMED, DYING, EVENT_NAMES, SEEN_REPLY, SRC_NAT, STATUS_NAMES

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "records.schema.json").read_text())
NOW = 1_700_000_000 * SECOND


def check(shape: str, record: dict[str, Any]) -> None:
    """Raise if `record` is not a valid `shape`; JSON is what counts, so it goes through JSON first."""
    schema = {"$ref": f"#/$defs/{shape}", "$defs": SCHEMA["$defs"]}
    Draft202012Validator(schema).validate(json.loads(json.dumps(record)))


def valid(shape: str, record: dict[str, Any]) -> bool:
    schema = {"$ref": f"#/$defs/{shape}", "$defs": SCHEMA["$defs"]}
    return bool(Draft202012Validator(schema).is_valid(record))


def confirmed(tuple_: Tuple, state: str = "", zone: Zone = Zone()) -> Conn:  # noqa: B008  a constant
    """A connection in a table, with a minute to live and one packet of 60 octets."""
    table = Table(Choices(1), 512)
    table.now = NOW
    key, reply = tuple_.key(), invert(tuple_.key(), tuple_.proto)
    conn = table.allocate(zoned(key, zone.effective(0)), zoned(reply, zone.effective(1)), tuple_.proto)
    conn.state = TRACKERS[tuple_.proto].states.index(state) if state else 0
    if zone.id:
        conn.own_extra().zone = zone
    conn.status = CONFIRMED
    conn.deadline = NOW + 60 * SECOND
    conn.traffic_orig, conn.traffic_reply = PACKET + 60, 0
    conn.start = NOW - SECOND
    table.insert(conn)
    return conn


TUPLES = [
    Tuple(6, "10.0.0.2", "192.0.2.1", 1234, 80),
    Tuple(17, "2001:db8::2", "2001:db8::1", 1234, 53),
    Tuple(1, "10.0.0.2", "192.0.2.1", 77, 8 << 8),
    Tuple(58, "2001:db8::2", "::ffff:1.2.3.4", 77, 128 << 8),
    Tuple(132, "10.0.0.2", "192.0.2.1", 1234, 80),
    Tuple(136, "10.0.0.2", "192.0.2.1", 1234, 80),
    Tuple(47, "10.0.0.2", "192.0.2.1", 0, 0x55),
    Tuple(33, "10.0.0.2", "192.0.2.1"),
    Tuple(50, "::", "::1"),
]
ZONES = [Zone(), Zone(5), Zone(5, 1), Zone(5, 2)]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("tuple_", TUPLES, ids=lambda tuple_: str(tuple_.proto))
def test_what_a_connection_says_of_itself_is_a_conn(tuple_: Tuple, zone: Zone) -> None:
    conn = confirmed(tuple_, "ESTABLISHED" if tuple_.proto in (6, 132) else "", zone)
    check("conn", conn.to_dict(NOW))
    conn.status |= SEEN_REPLY | ASSURED | SRC_NAT | DYING
    extra = conn.own_extra()
    extra.helper, extra.mark, extra.end, extra.end_reason = "ftp", 0xFFFFFFFF, NOW, "timeout"
    extra.master = confirmed(TUPLES[0])
    check("conn", conn.to_dict(NOW))
    conn.traffic_orig = -1
    conn.start = 0
    assert "packets" not in conn.to_dict(NOW)
    check("conn", conn.to_dict(NOW))


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("kind", [NEW, UPDATE, DESTROY])
@pytest.mark.parametrize("tuple_", TUPLES, ids=lambda tuple_: str(tuple_.proto))
def test_what_event_of_makes_is_an_event(tuple_: Tuple, kind: str, zone: Zone) -> None:
    conn = confirmed(tuple_, "ESTABLISHED" if tuple_.proto in (6, 132) else "", zone)
    extra = conn.own_extra()
    for bits in (1 << EVENT_NAMES.index(name) for name in EVENT_NAMES):
        check("event", event_of(conn, kind, bits, NOW).to_dict())
        extra.helper, extra.mark, extra.master = "ftp", 9, confirmed(TUPLES[0])
        check("event", event_of(conn, kind, bits, NOW + 100 * SECOND).to_dict())


def test_every_name_of_the_package_is_in_the_schema() -> None:
    definitions = SCHEMA["$defs"]
    assert set(STATUS_NAMES) <= set(definitions["status"]["items"]["enum"])
    assert set(EVENT_NAMES) <= set(definitions["conn_event"]["properties"]["bits"]["items"]["enum"])
    states = {state for tracker in TRACKERS for state in tracker.states}
    assert states == set(definitions["state"]["enum"])
    packet = definitions["packet_fields"]["properties"]
    assert set(verdict.CTINFO_NAMES) - {""} == set(packet["ctinfo"]["enum"])
    assert {verdict.ACCEPT, verdict.DROP, verdict.HELD} == set(packet["verdict"]["enum"])
    for name, reason in REASONS.items():
        detail = dict.fromkeys(reason.numbers, 1)
        check("packet", {"verdict": "DROP", "counted": False, "reason": name, "detail": detail})


# The examples of the shapes' description, and one of each that no face has said yet.
PACKET_RECORD: dict[str, Any] = {
    "n": 17, "time": "1700000001.500000", "iface": "in0", "length": 60, "verdict": "ACCEPT", "ctinfo": "INVALID",
    "tuple": {"src": "10.0.0.2", "dst": "192.0.2.1", "sport": 1, "dport": 2}, "conn": 2576299289, "counted": False,
    "reason": "seq_over_window", "detail": {"seq": 145824453, "bound": 643160523}, "rewritten": False,
}  # fmt: skip
CONN_RECORD: dict[str, Any] = {
    "family": 4, "proto": 6,
    "orig": {"src": "10.0.0.2", "dst": "93.184.216.34", "sport": 1234, "dport": 80},
    "reply": {"src": "93.184.216.34", "dst": "198.51.100.1", "sport": 80, "dport": 1234},
    "status": ["ASSURED", "CONFIRMED", "DST_NAT_DONE", "SEEN_REPLY", "SRC_NAT", "SRC_NAT_DONE"],
    "state": "ESTABLISHED", "timeout": 431999, "packets": [3, 2], "bytes": [180, 104], "mark": 0, "zone": 0,
    "id": 2576299289, "helper": "ftp", "master": {"src": "10.0.0.2", "dst": "192.0.2.1", "sport": 1, "dport": 2},
    "start": "1700000000.250000", "end": "1700000009.500000", "end_reason": "timeout", "nat": ["snat"],
}  # fmt: skip
EXPECTATION_RECORD: dict[str, Any] = {
    "master": {"src": "10.0.0.2", "dst": "93.184.216.34", "sport": 2000, "dport": 21},
    "tuple": {"src": "93.184.216.34", "dst": "10.0.0.2", "sport": 0, "dport": 5001},
    "mask": {"src": "255.255.255.255", "dst": "255.255.255.255", "sport": 0, "dport": 65535},
    "proto": 6, "timeout": 299, "helper": "ftp", "flags": ["INACTIVE", "PERMANENT"], "class": 0,
}  # fmt: skip
EVENT_RECORD = {
    name: value
    for name, value in CONN_RECORD.items()
    if name not in ("packets", "bytes", "start", "end", "end_reason", "nat", "zone", "master")
} | {"event": "UPDATE", "time": "1700000001.500000", "bits": ["assured"]}
OUTCOME_RECORD = PACKET_RECORD | {
    "fate": "forwarded", "out": [["out0", "4500"]], "local": ["4500"], "events": [EVENT_RECORD],
    "stats": {"found": 1},
}  # fmt: skip
EXAMPLES = {
    "packet": PACKET_RECORD,
    "conn": CONN_RECORD,
    "expectation": EXPECTATION_RECORD,
    "event": EVENT_RECORD,
    "outcome": OUTCOME_RECORD,
}


@pytest.mark.parametrize("shape", EXAMPLES)
def test_each_shape_has_its_example_and_no_other_shape_takes_it(shape: str) -> None:
    check(shape, EXAMPLES[shape])
    check(shape, EXAMPLES[shape] | {"v": 1})
    Draft202012Validator(SCHEMA).validate(EXAMPLES[shape])
    assert [other for other in EXAMPLES if valid(other, EXAMPLES[shape])] == [shape]


def test_an_event_may_be_about_an_expectation() -> None:
    check("event", EXPECTATION_RECORD | {"event": "EXP_NEW", "time": "1.000000"})


# fmt: off
WRONG = [
    ("conn",        {"helper": None},                           "never null"),
    ("conn",        {"colour": "red"},                          "an unknown field"),
    ("conn",        {"proto": 17},                              "state of UDP"),
    ("conn",        {"proto": 47},                              "ports of GRE"),
    ("conn",        {"orig": {"src": "10.0.0.2", "dst": "192.0.2.1"}}, "TCP without ports"),
    ("conn",        {"status": ["assured"]},                    "not the kernel's name"),
    ("conn",        {"start": 1700000000.25},                   "a time as a number"),
    ("conn",        {"mark": 1 << 32},                          "a mark of 33 bits"),
    ("packet",      {"reason": "Seq Over Window"},              "not a name"),
    ("packet",      {"ctinfo": ""},                             "absent, not empty"),
    ("outcome",     {"out": [["out0"]]},                        "an interface without a packet"),
    ("event",       {"packets": [1, 0], "bytes": [60, 0]},      "counters in an UPDATE"),
    ("event",       {"event": "DESTROY"},                       "a helper in a DESTROY"),
    ("event",       {"bits": []},                               "an event without cause"),
    ("expectation", {"flags": ["permanent"]},                   "not the kernel's name"),
]
# fmt: on


@pytest.mark.parametrize(("shape", "change", "why"), WRONG, ids=[why for _, _, why in WRONG])
def test_what_no_face_may_say_is_refused(shape: str, change: dict[str, Any], why: str) -> None:
    record = copy.deepcopy(EXAMPLES[shape]) | change
    assert not valid(shape, record), why


def test_an_uncounted_packet_has_a_reason() -> None:
    assert not valid("packet", {name: PACKET_RECORD[name] for name in ("verdict", "counted")})


def test_records_of_helpers_are_valid() -> None:
    control = Control(engine(nat=[Masquerade("198.51.100.1", out_iface="out0")]), public="198.51.100.1")
    outcome = control.c(b"PORT 10,0,0,2,19,137\r\n")
    check("packet", outcome.to_dict())
    check("expectation", next(control.engine.expectations()).to_dict())
    check("packet", control.c(b"PORT 10,").to_dict())
    control.connect(SERVER, "198.51.100.1", 20, 5001)
    for conn in control.engine.conns():
        check("conn", conn.to_dict())
    assert "seqadj" in next(control.engine.conns()).to_dict()
    told = [event.to_dict() for event in control.engine.events]
    for record in told:
        check("event", record)
    assert [record["event"] for record in told][-3:] == ["EXP_NEW", "EXP_DESTROY", "NEW"]
