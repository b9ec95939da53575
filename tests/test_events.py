"""Events against ctnetlink's: which field is in which message, and the lines of `conntrack -E`."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from test_show import ENTRIES, TFTP_RULE, Kernel, kernel_test, make_entries, parse, tftp_request

from conntrack import show
from conntrack.choices import Choices
from conntrack.conn import PACKET, Conn
from conntrack.events import DESTROY, NEW, UPDATE, Event, EventStream, event_of
from conntrack.sysctl import SECOND
from conntrack.table import Table
from conntrack.trackers.table import TRACKERS
from conntrack.tuples import Tuple, Zone, invert
from conntrack.verdict import (
    ASSURED,
    CONFIRMED,
    DYING,
    EVENT_ASSURED,
    EVENT_DESTROY,
    EVENT_NAMES,
    EVENT_NEW,
    EVENT_PROTOINFO,
    EXPECTED,
    SEEN_REPLY,
)

NOW = 1_700_000_000 * SECOND + 123_456_000
TCP = Tuple(6, "10.0.0.2", "198.51.100.9", 1234, 80)
UDP = Tuple(17, "10.0.0.2", "198.51.100.9", 1111, 70)
ALWAYS = {"family", "proto", "orig", "reply", "status", "id"}


def conn_of(
    tuple_: Tuple, seconds: int, status: int = 0, state: str = "", counted: tuple[int, ...] = (), **extra: Any
) -> Conn:
    """A confirmed connection with `seconds` left at NOW; `counted`: packets, bytes of both directions."""
    table = Table(Choices(7), 512)
    table.now = NOW
    conn = table.allocate(tuple_.key(), invert(tuple_.key(), tuple_.proto), tuple_.proto)
    conn.status = CONFIRMED | status
    conn.deadline = NOW + seconds * SECOND
    conn.state = TRACKERS[tuple_.proto].states.index(state) if state else 0
    if counted:
        conn.traffic_orig = counted[0] * PACKET + counted[1]
        conn.traffic_reply = counted[2] * PACKET + counted[3]
    for name, value in extra.items():
        setattr(conn.own_extra(), name, value)
    return conn


def bits_of(names: str) -> int:
    """Event bits by their names."""
    return sum(1 << EVENT_NAMES.index(name) for name in names.split())


# --- which field is in which message -------------------------------------------------------------------

ENDING = "packets bytes start end"
# fmt: off
FIELDS = [
    # what     kind     bits                  state          fields beside those that are always there
    ("tcp",    NEW,     "new protoinfo",      "SYN_SENT",    "timeout state"),
    ("tcp",    UPDATE,  "assured protoinfo",  "ESTABLISHED", "timeout state"),
    ("tcp",    UPDATE,  "assured",            "ESTABLISHED", "timeout"),
    ("tcp",    DESTROY, "destroy",            "TIME_WAIT",   "timeout state " + ENDING),
    ("gone",   DESTROY, "destroy",            "TIME_WAIT",   "state " + ENDING),
    ("udp",    NEW,     "new",                "",            "timeout"),
    ("udp",    UPDATE,  "reply protoinfo",    "",            "timeout"),
    ("udp",    UPDATE,  "mark",               "",            "timeout mark"),  # set to 0
    ("marked", UPDATE,  "reply",              "",            "timeout mark"),
    ("marked", DESTROY, "destroy",            "",            "timeout mark " + ENDING),
    ("ftp",    NEW,     "new helper",         "",            "timeout helper"),
    ("ftp",    UPDATE,  "reply",              "",            "timeout helper"),
    ("ftp",    DESTROY, "destroy",            "",            "timeout " + ENDING),
    ("data",   NEW,     "related",            "",            "timeout master"),
    ("data",   UPDATE,  "reply",              "",            "timeout"),
    ("zone",   NEW,     "new",                "",            "timeout zone"),
]
# fmt: on
EXTRAS: dict[str, dict[str, Any]] = {
    "marked": {"mark": 9},
    "ftp": {"helper": "ftp"},
    "data": {"master": conn_of(TCP, 30)},
    "zone": {"zone": Zone(5)},
}


@pytest.mark.parametrize(("what", "kind", "bits", "state", "fields"), FIELDS)
def test_a_message_carries_what_ctnetlink_sends(what: str, kind: str, bits: str, state: str, fields: str) -> None:
    tuple_ = TCP if state else UDP
    conn = conn_of(tuple_, -1 if what == "gone" else 100, 0, state, (1, 60, 0, 0), **EXTRAS.get(what, {}))
    conn.start = NOW - 5 * SECOND
    event = event_of(conn, kind, bits_of(bits), NOW)
    assert set(event.record) == ALWAYS | set(fields.split())
    assert (event.type, event.bits, event.time) == (kind, bits_of(bits), NOW)


def test_end_is_the_deadline_if_that_has_passed_and_else_now() -> None:
    late, early = conn_of(UDP, -7), conn_of(UDP, 7)
    late.start = early.start = NOW - 30 * SECOND
    assert event_of(late, DESTROY, EVENT_DESTROY, NOW).record["end"] == "1699999993.123456"
    assert event_of(early, DESTROY, EVENT_DESTROY, NOW).record["end"] == "1700000000.123456"


def test_an_event_does_not_change_with_its_connection() -> None:
    conn = conn_of(UDP, 30)
    event = event_of(conn, NEW, EVENT_NEW, NOW)
    before = event.text()
    conn.status |= SEEN_REPLY | DYING
    conn.own_extra().mark = 7
    assert event.text() == before


def test_to_dict_names_time_and_bits() -> None:
    said = event_of(conn_of(TCP, 120, state="SYN_SENT"), NEW, EVENT_NEW | EVENT_PROTOINFO, NOW).to_dict()
    assert (said["event"], said["time"], said["bits"]) == ("NEW", "1700000000.123456", ["new", "protoinfo"])


# fmt: off
LINES = [
    (conn_of(TCP, 120, 0, "SYN_SENT"), NEW, EVENT_NEW | EVENT_PROTOINFO,
     "    [NEW] tcp      6 120 SYN_SENT src=10.0.0.2 dst=198.51.100.9 sport=1234 dport=80 [UNREPLIED] "
     "src=198.51.100.9 dst=10.0.0.2 sport=80 dport=1234"),
    (conn_of(TCP, 432000, SEEN_REPLY | ASSURED, "ESTABLISHED"), UPDATE, EVENT_PROTOINFO | EVENT_ASSURED,
     " [UPDATE] tcp      6 432000 ESTABLISHED src=10.0.0.2 dst=198.51.100.9 sport=1234 dport=80 "
     "src=198.51.100.9 dst=10.0.0.2 sport=80 dport=1234 [ASSURED]"),
    (conn_of(UDP, 0, DYING, counted=(1, 30, 0, 0)), DESTROY, EVENT_DESTROY,
     "[DESTROY] udp      17 src=10.0.0.2 dst=198.51.100.9 sport=1111 dport=70 packets=1 bytes=30 [UNREPLIED] "
     "src=198.51.100.9 dst=10.0.0.2 sport=70 dport=1111 packets=0 bytes=0"),
]
# fmt: on


@pytest.mark.parametrize(("conn", "kind", "bits", "line"), LINES)
def test_the_line_is_that_of_conntrack_e(conn: Conn, kind: str, bits: int, line: str) -> None:
    event = event_of(conn, kind, bits, NOW)
    assert event.text() == line
    assert event.text(timestamp=True) == f"[1700000000.123456]\t{line}"
    assert event.text(extended=True) == f"{line[:9]} ipv4     2{line[9:]}"


def test_a_timestamp_is_cut_to_microseconds() -> None:
    text = Event(NEW, 1_000_000_001, 1, event_of(conn_of(UDP, 30), NEW, EVENT_NEW, NOW).record)
    assert text.to_dict()["time"] == "1.000000001"
    assert text.text(timestamp=True).startswith("[1.000000]\t    [NEW] udp")


# --- the stream ----------------------------------------------------------------------------------------


def test_a_stream_gives_each_event_once_and_in_order() -> None:
    stream = EventStream()
    events = [Event(NEW, number, EVENT_NEW, {}) for number in range(3)]
    for event in events:
        stream.append(event)
    assert len(stream) == 3
    assert next(iter(stream)) is events[0]
    assert len(stream) == 2
    stream.append(events[0])
    assert list(stream) == [events[1], events[2], events[0]]
    assert (len(stream), list(stream)) == (0, [])


def test_what_comes_while_the_stream_is_read_is_read_too() -> None:
    stream = EventStream()
    stream.append(Event(NEW, 0, EVENT_NEW, {}))
    seen = []
    for event in stream:
        seen.append(event.time)
        if event.time < 3:
            stream.append(Event(NEW, event.time + 1, EVENT_NEW, {}))
    assert seen == [0, 1, 2, 3]


def test_truncate_forgets_the_newest() -> None:
    stream = EventStream()
    for number in range(5):
        stream.append(Event(NEW, number, EVENT_NEW, {}))
    stream.truncate(9)
    assert len(stream) == 5
    stream.truncate(2)
    assert [event.time for event in stream] == [0, 1]
    stream.truncate(0)
    assert len(stream) == 0


# --- the running kernel --------------------------------------------------------------------------------


class Listener:
    """`conntrack -E` in a kernel's namespace, writing to a file."""

    def __init__(self, kernel: Kernel, path: Path, options: str) -> None:
        command = f"TZ=UTC conntrack -E -o {options} > {path} 2> /dev/null & echo $!"
        self._path = path
        self.pid = int(kernel.run("sh", "-c", command))
        until = time.monotonic() + 10
        while " 00000007 " not in kernel.run("cat", "/proc/net/netlink"):  # groups NEW, UPDATE and DESTROY
            assert time.monotonic() < until, "conntrack -E does not listen"

    def lines(self, number: int, kind: str = "") -> list[str]:
        """The lines so far, once at least `number` (of `kind`) are there."""
        until = time.monotonic() + 10
        while True:
            lines = self._path.read_text().splitlines(keepends=True)
            if sum(line.endswith("\n") and kind in line for line in lines) >= number:
                return [line.rstrip("\n") for line in lines]
            assert time.monotonic() < until, "too few events:\n" + "".join(lines)
            os.sched_yield()


@contextmanager
def listening(kernel: Kernel, path: Path, options: str) -> Iterator[Listener]:
    listener = Listener(kernel, path, options)
    try:
        yield listener
    finally:
        os.kill(listener.pid, signal.SIGTERM)


def packet(proto: int, source: str, destination: str, payload: bytes) -> bytes:
    """An IPv4 packet; checksums of the payload are left 0 (harmless for UDP, see `tcp` for TCP)."""
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, destination))
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, proto, 0) + addresses
    return header[:10] + struct.pack(">H", 0xFFFF - int.from_bytes(header, "big") % 0xFFFF) + header[12:] + payload


def udp(source: str, sport: int, destination: str, dport: int, data: bytes = b"x") -> bytes:
    return packet(17, source, destination, struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data)


def tcp(source: str, sport: int, destination: str, dport: int, flags: int, seq: int, ack: int) -> bytes:
    segment = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 8192, 0, 0)
    whole = packet(6, source, destination, segment)
    total = (int.from_bytes(whole[12:20] + struct.pack(">HH", 6, 20) + segment, "big")) % 0xFFFF
    return whole[:36] + struct.pack(">H", 0xFFFF - total) + whole[38:]


SYN, ACK, SYN_ACK = 2, 16, 18
CLIENT, SERVER = "10.0.0.2", "198.51.100.9"
C80, S80 = (CLIENT, 1234, SERVER, 80), (SERVER, 80, CLIENT, 1234)
C81, S81 = (CLIENT, 1235, SERVER, 80), (SERVER, 80, CLIENT, 1235)
MARK_RULE = "*mangle\n-A FORWARD -p udp --dport 71 -j CONNMARK --set-mark 9\nCOMMIT\n"
PICKED = Tuple(6, CLIENT, SERVER, 1235, 80)
MARKED = Tuple(17, CLIENT, SERVER, 1111, 71)
TFTP = Tuple(17, CLIENT, SERVER, 5000, 69)
DATA = Tuple(17, SERVER, CLIENT, 6000, 5000)
OPEN = SEEN_REPLY | ASSURED
ANSWER = udp(SERVER, 6000, CLIENT, 5000, b"\0\3\0\1data")  # to the TFTP request, from a new port

# What comes in (> at in0 from the client, < at out0 from the server), the entry then, and what is said of it.
# fmt: off
SCRIPT: list[tuple[str, bytes, Conn, str]] = [
    (">", udp(CLIENT, 1111, SERVER, 70),  conn_of(UDP, 30),                              "new"),
    ("<", udp(SERVER, 70, CLIENT, 1111),  conn_of(UDP, 30, SEEN_REPLY),                  "reply"),
    (">", tcp(*C80, SYN, 1, 0),           conn_of(TCP, 120, 0, "SYN_SENT"),              "new protoinfo"),
    ("<", tcp(*S80, SYN_ACK, 10, 2),      conn_of(TCP, 60, SEEN_REPLY, "SYN_RECV"),      "reply protoinfo"),
    (">", tcp(*C80, ACK, 2, 11),          conn_of(TCP, 432000, OPEN, "ESTABLISHED"),     "assured protoinfo"),
    (">", tcp(*C81, ACK, 2, 11),          conn_of(PICKED, 300, 0, "ESTABLISHED"),        "new protoinfo"),
    ("<", tcp(*S81, ACK, 11, 2),          conn_of(PICKED, 300, SEEN_REPLY),              "reply"),
    (">", tcp(*C81, ACK, 2, 11),          conn_of(PICKED, 432000, OPEN, "ESTABLISHED"),  "assured"),
    (">", udp(CLIENT, 1111, SERVER, 71),  conn_of(MARKED, 30, mark=9),                   "new mark"),
    ("<", udp(SERVER, 71, CLIENT, 1111),  conn_of(MARKED, 30, SEEN_REPLY, mark=9),       "reply"),
    (">", tftp_request(),                 conn_of(TFTP, 30, helper="tftp"),              "new helper"),
    ("<", ANSWER,                         conn_of(DATA, 30, EXPECTED),                   "related"),
]
SCRIPT[-1][2].own_extra().master = SCRIPT[-2][2]
# fmt: on


def said_of(conn: Conn, bits: str) -> str:
    """The line about `conn`; [NEW] if a bit says so."""
    kind = NEW if {"new", "related"} & set(bits.split()) else UPDATE
    return event_of(conn, kind, bits_of(bits), NOW).text(extended=True)


class TestAgainstTheKernel:
    pytestmark = kernel_test

    def test_packets_cause_the_same_lines(self, tmp_path: Path) -> None:
        with (
            Kernel(rules=TFTP_RULE + MARK_RULE, sysctl={"nf_conntrack_timestamp": 1}) as kernel,
            listening(kernel, tmp_path / "events", "timestamp,extended") as listener,
        ):
            for side, data, *_ in SCRIPT:
                assert kernel.send(data, "in0" if side == ">" else "out0")
            said = listener.lines(len(SCRIPT))
            kernel.run("conntrack", "-F")
            destroyed = listener.lines(len(SCRIPT) + 6)[len(SCRIPT) :]
        mine = [said_of(conn, bits) for _, _, conn, bits in SCRIPT]
        assert mine == [line.partition("\t")[2] for line in said]
        for line in destroyed:
            record = parse(line)  # says how much time was left and had passed; the rest is for event_of to know
            ((conn, counted),) = [
                (conn, counted) for conn, counted in self.endings() if conn.original.to_dict() == record["orig"]
            ]
            conn = copy(conn)
            conn.deadline = NOW + record["timeout"] * SECOND
            conn.start = NOW - record["delta"] * SECOND
            conn.traffic_orig, conn.traffic_reply = counted
            text = event_of(conn, DESTROY, EVENT_DESTROY, NOW).text(extended=True)
            assert text == without_userspace(line).partition("\t")[2]

    def endings(self) -> list[tuple[Conn, tuple[int, int]]]:
        """Each connection of SCRIPT as its last message has it, and what it counted."""
        last = {conn.orig: conn for _, _, conn, _ in SCRIPT}
        counted = {conn.orig: [0, 0] for conn in last.values()}
        for side, data, conn, _ in SCRIPT:
            direction = 0 if (side == ">") == (conn.original.src == CLIENT) else 1
            counted[conn.orig][direction] += PACKET + len(data)
        return [(conn, (counted[conn.orig][0], counted[conn.orig][1])) for conn in last.values()]

    def test_an_expired_entry_ends_without_a_timeout(self, tmp_path: Path) -> None:
        with (
            Kernel() as kernel,
            listening(kernel, tmp_path / "events", "timestamp") as listener,
        ):
            entry = "-p udp -s 10.0.0.2 -d 198.51.100.9 --sport 1111 --dport 70"
            kernel.run("conntrack", "-I", "-t", "0", *entry.split())
            listener.lines(1)
            assert kernel.run("conntrack", "-L") == ""
            line = listener.lines(2)[1].partition("\t")[2]
        conn = conn_of(UDP, 0, counted=(0, 0, 0, 0))
        assert event_of(conn, DESTROY, EVENT_DESTROY, NOW).text() == line

    @pytest.mark.parametrize("timestamping", [0, 1])
    def test_what_the_tool_printed_is_read_and_printed_again(self, tmp_path: Path, timestamping: int) -> None:
        with (
            Kernel(sysctl={"nf_conntrack_timestamp": timestamping}) as kernel,
            listening(kernel, tmp_path / "events", "timestamp,extended,id") as listener,
        ):
            make_entries(kernel)
            kernel.run("conntrack", "-U", "-f", "ipv4", "-m", "9")
            kernel.run("conntrack", "-U", "-f", "ipv6", "-t", "55")
            kernel.run("conntrack", "-D")
            lines = [without_userspace(line) for line in listener.lines(len(ENTRIES), "[DESTROY]")]
        for line in lines:
            assert show.event_line(parse(line), timestamp=True, extended=True, show_id=True) == line
        kinds = Counter(parse(line)["event"] for line in lines)
        assert kinds["NEW"] == kinds["DESTROY"] == len(ENTRIES)
        assert kinds["UPDATE"] > len(ENTRIES) / 2  # -U misses entries in zones

    def test_save_and_xml_lines_are_the_same(self, tmp_path: Path) -> None:
        with (
            Kernel() as kernel,
            listening(kernel, tmp_path / "plain", "timestamp,id") as plain,
            listening(kernel, tmp_path / "save", "save") as save,
            listening(kernel, tmp_path / "xml", "xml,timestamp") as xml,
        ):
            for entry in ("udp --sport 5 --dport 6", "50", "tcp --sport 5 --dport 6 --state CLOSE -u SEEN_REPLY"):
                kernel.run("conntrack", "-I", "-t", "99", "-s", CLIENT, "-d", SERVER, "-p", *entry.split())
            kernel.run("conntrack", "-U", "-f", "ipv4", "-m", "9")
            kernel.run("conntrack", "-D")
            records = [parse(line) for line in plain.lines(9)]
            saved = [without_userspace(line) for line in save.lines(9)]
            flows = [without_userspace(line) for line in xml.lines(11)[2:]]
        assert [show.save_line(record) for record in records] == saved
        mine = [show.xml_flow(record, timestamp=True) for record in records]
        dates = [flow.replace(date(flow), date(own)) for flow, own in zip(flows, mine, strict=True)]
        assert mine == dates  # but for the date: each listener reads its own clock


def without_userspace(line: str) -> str:
    """The line without the tool's note that a process made the change."""
    return line.partition(" [USERSPACE]")[0]


def date(flow: str) -> str:
    """The `<when>` element."""
    return "<when>" + flow.partition("<when>")[2].partition("</when>")[0]
