"""Texts against the tools that print them.

First samples of `conntrack` 1.4.7, by hand; then, where the machine allows it, the tool itself: it makes entries
of every kind in a namespace of their own and prints them in every form, and the same entries, read from
ctnetlink, must give the same text here, byte for byte.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conntrack import show

sys.path.append(str(Path(__file__).parent / "kernel"))
from harness import Kernel, available

REASON = available() or (None if shutil.which("conntrack") else "the tool conntrack is not installed")
kernel_test = [pytest.mark.kernel, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

Record = dict[str, Any]


def ports(src: str, sport: int, dst: str, dport: int) -> tuple[Record, Record]:
    """Both tuples of an untranslated connection."""
    return (
        {"src": src, "dst": dst, "sport": sport, "dport": dport},
        {"src": dst, "dst": src, "sport": dport, "dport": sport},
    )


def conn(proto: int, ends: tuple[Record, Record], status: str = "", **more: Any) -> Record:
    """A conn record; `status` in words."""
    record = {"family": 6 if ":" in ends[0]["src"] else 4, "proto": proto, "orig": ends[0], "reply": ends[1]}
    return (
        record | {"status": sorted([*status.split(), "CONFIRMED"]), "mark": 0, "zone": 0, "id": 2576299289} | more
    )


WEB = ports("10.0.0.2", 1234, "93.184.216.34", 80)
DNS = ports("10.0.0.2", 1111, "93.184.216.34", 53)
DNS6 = ports("2001:db8:a::2", 1111, "2001:db8:b::9", 53)
PING = (
    {"src": "10.0.0.2", "dst": "93.184.216.34", "type": 8, "code": 0, "id": 77},
    {"src": "93.184.216.34", "dst": "10.0.0.2", "type": 0, "code": 0, "id": 77},
)
PPTP = (
    {"src": "10.0.0.2", "dst": "93.184.216.34", "srckey": 0, "dstkey": 0x55},
    {"src": "93.184.216.34", "dst": "10.0.0.2", "srckey": 0x55, "dstkey": 0},
)
PLAIN = ({"src": "10.0.0.2", "dst": "93.184.216.34"}, {"src": "93.184.216.34", "dst": "10.0.0.2"})
ESTABLISHED = conn(6, WEB, "SEEN_REPLY ASSURED", state="ESTABLISHED", timeout=431999)
QUERY = conn(17, DNS, timeout=28)


# --- samples -------------------------------------------------------------------------------------------

# fmt: off
LISTING = [
    (ESTABLISHED, {},
     "tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=93.184.216.34 sport=1234 dport=80 src=93.184.216.34 "
     "dst=10.0.0.2 sport=80 dport=1234 [ASSURED] mark=0 use=1"),
    (QUERY | {"packets": [1, 0], "bytes": [30, 0], "start": "1700000000.9"}, {"now": 1_700_000_001_100_000_000},
     "udp      17 28 src=10.0.0.2 dst=93.184.216.34 sport=1111 dport=53 packets=1 bytes=30 [UNREPLIED] "
     "src=93.184.216.34 dst=10.0.0.2 sport=53 dport=1111 packets=0 bytes=0 mark=0 delta-time=1 use=1"),
    (conn(1, PING, "SEEN_REPLY", timeout=29), {},
     "icmp     1 29 src=10.0.0.2 dst=93.184.216.34 type=8 code=0 id=77 src=93.184.216.34 dst=10.0.0.2 type=0 "
     "code=0 id=77 mark=0 use=1"),
    (conn(47, PPTP, timeout=29), {},
     "gre      47 29 src=10.0.0.2 dst=93.184.216.34 srckey=0x0 dstkey=0x55 [UNREPLIED] src=93.184.216.34 "
     "dst=10.0.0.2 srckey=0x55 dstkey=0x0 mark=0 use=1"),
    (conn(50, PLAIN, timeout=599), {},
     "unknown  50 599 src=10.0.0.2 dst=93.184.216.34 [UNREPLIED] src=93.184.216.34 dst=10.0.0.2 mark=0 use=1"),
    (conn(33, PLAIN, timeout=599), {},  # the tool expects ports, the kernel gives none
     "dccp     33 599 src=10.0.0.2 dst=93.184.216.34 sport=0 dport=0 [UNREPLIED] src=93.184.216.34 dst=10.0.0.2 "
     "sport=0 dport=0 mark=0 use=1"),
    (conn(17, DNS6, timeout=29, zone=5, helper="dns", start="1795344323.5"),
     {"extended": True, "show_id": True, "timestamps": True, "now": 1795344325 * 10**9, "use": 2},
     "ipv6     10 udp      17 29 src=2001:db8:a::2 dst=2001:db8:b::9 sport=1111 dport=53 [UNREPLIED] "
     "src=2001:db8:b::9 dst=2001:db8:a::2 sport=53 dport=1111 mark=0 zone=5 delta-time=2 "
     "[start=Sun Nov 22 10:45:23 2026] helper=dns use=2 id=2576299289"),
    (conn(17, (DNS[0] | {"zone": 5}, DNS[1]), "SEEN_REPLY ASSURED OFFLOAD"), {},  # offloaded: no timeout is told
     "udp      17 src=10.0.0.2 dst=93.184.216.34 sport=1111 dport=53 zone-orig=5 src=93.184.216.34 dst=10.0.0.2 "
     "sport=53 dport=1111 [OFFLOAD] mark=0 use=1"),
]
# fmt: on


@pytest.mark.parametrize(("record", "options", "line"), LISTING)
def test_a_listing_line_is_the_tools(record: Record, options: dict[str, Any], line: str) -> None:
    assert show.listing_line(record, **options) == line


def test_a_save_line_says_g_and_n_only_where_an_address_is_translated() -> None:
    assert show.save_line(ESTABLISHED | {"timeout": 431998}) == (
        "-A -t 431998 -u SEEN_REPLY,ASSURED -s 10.0.0.2 -d 93.184.216.34 -r 93.184.216.34 -q 10.0.0.2 -p tcp "
        "--sport 1234 --dport 80 --reply-port-src 80 --reply-port-dst 1234 --state ESTABLISHED"
    )
    done = "SRC_NAT SRC_NAT_DONE DST_NAT_DONE"
    moved = conn(17, (DNS[0], DNS[1] | {"dst": "5.5.5.5", "dport": 9}), done, timeout=9)
    assert "-r 93.184.216.34 -n 5.5.5.5 -p udp" in show.save_line(moved)
    assert "-u UNSET" in show.save_line(moved)
    port_only = conn(17, (DNS[0], DNS[1] | {"dport": 9}), done, timeout=9)
    assert "-r 93.184.216.34 -q 10.0.0.2 -p udp" in show.save_line(port_only)


def test_proc_prints_zone_0_but_not_beside_a_zone_of_one_direction() -> None:
    assert show.proc_line(ESTABLISHED) == (
        "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=93.184.216.34 sport=1234 dport=80 "
        "src=93.184.216.34 dst=10.0.0.2 sport=80 dport=1234 [ASSURED] mark=0 zone=0 use=2"
    )
    assert show.proc_line(conn(17, (DNS[0] | {"zone": 5}, DNS[1]), timeout=9)).endswith(
        "dport=53 zone-orig=5 [UNREPLIED] src=93.184.216.34 dst=10.0.0.2 sport=53 dport=1111 mark=0 use=2"
    )
    assert " src=2001:0db8:000a:0000:0000:0000:0000:0002 " in show.proc_line(conn(17, DNS6, timeout=9))


def test_proc_counts_elapsed_time_in_nanoseconds_and_the_tool_in_whole_seconds() -> None:
    record, now = QUERY | {"start": "100.900000"}, 101_100_000_000
    assert "delta-time=0 use=2" in show.proc_line(record, now=now)
    assert "delta-time=1 use=1" in show.listing_line(record, now=now)
    assert "delta-time" not in show.listing_line(record)


def test_xml_of_an_ended_flow_counts_nanoseconds_and_of_a_living_one_whole_seconds() -> None:
    living = QUERY | {"start": "100.900000"}
    assert "<deltatime>1</deltatime>" in show.xml_flow(living, now=101_100_000_000)
    ended = show.xml_flow(living | {"end": "101.100000", "event": "DESTROY"}, timestamps=True)
    assert "<timestamp><start>100900000000</start><stop>101100000000</stop></timestamp>" in ended
    assert "<deltatime>0</deltatime>" in ended


def test_xml_names_sctp_states_by_the_numbers_that_they_have_in_tcp() -> None:
    assert "<state>FIN_WAIT</state>" in show.xml_flow(conn(132, WEB, state="ESTABLISHED", timeout=9))


def test_an_event_in_xml_has_no_use_and_may_have_a_date() -> None:
    event = QUERY | {"event": "NEW", "time": "1795344325.000001", "helper": "tftp"}
    assert show.xml([event], timestamp=True) == (
        '<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n<flow type="new"><meta direction="original">'
        '<layer3 protonum="2" protoname="ipv4"><src>10.0.0.2</src><dst>93.184.216.34</dst></layer3>'
        '<layer4 protonum="17" protoname="udp"><sport>1111</sport><dport>53</dport></layer4></meta>'
        '<meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>93.184.216.34</src><dst>10.0.0.2</dst>'
        '</layer3><layer4 protonum="17" protoname="udp"><sport>53</sport><dport>1111</dport></layer4></meta>'
        '<meta direction="independent"><timeout>28</timeout><mark>0</mark><id>2576299289</id><unreplied/></meta>'
        "<when><hour>10</hour><min>45</min><sec>25</sec><wday>1</wday><day>22</day><month>11</month>"
        "<year>2026</year></when><helper>tftp</helper></flow>\n</conntrack>\n"
    )


@given(st.ip_addresses(v=6) | st.integers(0, 2**48 - 1).map(ipaddress.IPv6Address))
@example(ipaddress.IPv6Address("::ffff:0:0"))
@example(ipaddress.IPv6Address("::1:0"))
@example(ipaddress.IPv6Address("::ffff"))
@example(ipaddress.IPv6Address("0:0:0:0:1::"))
def test_addresses_are_written_as_inet_ntop_writes_them(address: ipaddress.IPv6Address) -> None:
    record = conn(50, ({"src": str(address), "dst": "::"}, {"src": "::", "dst": str(address)}), timeout=1)
    expected = socket.inet_ntop(socket.AF_INET6, address.packed)
    assert f" src={expected} dst=:: " in show.listing_line(record)


# --- the running tool ----------------------------------------------------------------------------------

IPV4 = "-s 10.0.0.2 -d 93.184.216.34"
IPV6 = "-s fd00::2 -d 2001:db8::1"
TWO_PORTS = "--sport 1234 --dport 80"
ENTRIES = [
    f"-p tcp {IPV4} {TWO_PORTS} --state ESTABLISHED -u SEEN_REPLY,ASSURED -m 7",
    f"-p tcp {IPV6} {TWO_PORTS} --state NONE -g fd00::9",
    f"-p tcp -s 10.0.0.2 -d 1.1.1.1 {TWO_PORTS} --state SYN_SENT -n 5.5.5.5:77 -u SEEN_REPLY,FIXED_TIMEOUT",
    f"-p tcp -s 10.0.0.2 -d 1.1.1.2 {TWO_PORTS} --state SYN_SENT2 -g 5.5.5.5:99 -m 4294967295",
    *(
        f"-p tcp -s 10.0.0.2 -d 1.1.2.{number} {TWO_PORTS} --state {state} -u SEEN_REPLY"
        for number, state in enumerate(("SYN_RECV", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"))
    ),
    f"-p udp {IPV4} {TWO_PORTS}",
    f"-p udp {IPV4} {TWO_PORTS} -w 5 -u SEEN_REPLY",
    f"-p udp {IPV4} --sport 1 --dport 65535 --orig-zone 5",
    f"-p udp {IPV4} --sport 2 --dport 65535 --reply-zone 6",
    f"-p udp {IPV4} --sport 3 --dport 9 -n 10.0.0.2:77",  # only the port is translated
    f"-p udp {IPV4} --sport 4 --dport 9 -r 9.9.9.9 -q 10.0.0.2 --reply-port-src 7 --reply-port-dst 8",
    f"-p udp -s ::0.1.0.2 -d ::ffff:1.2.3.4 {TWO_PORTS} -w 3",
    f"-p udp -s ::2 -d fe80:0:1:0:1:0:0:1 {TWO_PORTS}",
    f"-p icmp {IPV4} --icmp-type 8 --icmp-code 0 --icmp-id 77",
    f"-p icmp {IPV4} --icmp-type 13 --icmp-code 3 --icmp-id 65535 -u SEEN_REPLY",
    f"-p icmpv6 {IPV6} --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 77",
    f"-p sctp {IPV4} {TWO_PORTS} --state ESTABLISHED --orig-vtag 17 --reply-vtag 18 -u SEEN_REPLY,ASSURED",
    f"-p sctp {IPV6} {TWO_PORTS} --state COOKIE_WAIT --orig-vtag 17 --reply-vtag 18",
    f"-p gre {IPV4} --srckey 0x55 --dstkey 1",
    f"-p udplite {IPV6} {TWO_PORTS}",
    f"-p dccp {IPV6} {TWO_PORTS} --state OPEN --role client",
    f"-p 33 {IPV4} {TWO_PORTS} --state REQUEST --role server",
    f"-p 50 {IPV4}",
    f"-p 50 {IPV6} -u SEEN_REPLY,ASSURED -m 1",
]
VTAGS = [17 << 24, 18 << 24]  # --orig-vtag 17 --reply-vtag 18: the tool swaps the octets


def make_entries(kernel: Kernel) -> None:
    for entry in ENTRIES:
        kernel.run("conntrack", "-I", "-t", "1000", *entry.split())


def tftp_request() -> bytes:
    """A packet that, by TFTP_RULE, gets a helper, and whose entry an expectation then refers to."""
    payload = b"\0\1file\0octet\0"
    head = "4500 {:04x} 0000 0000 40 11 0000 0a000002 c6336409 1388 0045 {:04x} 0000"
    packet = bytearray(bytes.fromhex(head.format(28 + len(payload), 8 + len(payload))) + payload)
    packet[10:12] = (0xFFFF - int.from_bytes(packet[:20], "big") % 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


TFTP_RULE = "*raw\n-A PREROUTING -p udp --dport 69 -j CT --helper tftp\nCOMMIT\n"


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """The entries in every form, all printed within one second, and the records that ctnetlink gives."""
    with Kernel(rules=TFTP_RULE) as kernel:
        make_entries(kernel)
        assert kernel.send(tftp_request(), "in0")
        commands = {
            "listing": ("conntrack", "-L", "-o", "extended,id"),
            "save": ("conntrack", "-L", "-o", "save"),
            "xml": ("conntrack", "-L", "-o", "xml"),
            "proc": ("cat", "/proc/net/nf_conntrack"),
        }
        for _ in range(50):
            records = kernel.table()
            texts = {form: kernel.run(*command) for form, command in commands.items()}
            if kernel.table() == records:  # no timeout has moved on meanwhile
                break
        else:
            pytest.fail("never were all the forms printed between two seconds")
    assert len(records) == len(ENTRIES) + 1
    for record in records:
        if record["proto"] == 132:
            record["vtag"] = VTAGS
    lines = texts["listing"].splitlines()
    by_id = {record["id"]: record for record in records}
    in_order = [by_id[int(line.rpartition("id=")[2])] for line in lines]
    uses = {record["id"]: parse(line)["use"] for record, line in zip(in_order, lines, strict=True)}
    return {"records": in_order, "uses": uses, **texts}


class TestAgainstTheTool:
    pytestmark = kernel_test

    def test_the_listing_is_the_same(self, seen: dict[str, Any]) -> None:
        mine = [
            show.listing_line(record, extended=True, show_id=True, use=seen["uses"][record["id"]])
            for record in seen["records"]
        ]
        assert mine == seen["listing"].splitlines()

    def test_the_save_form_is_the_same(self, seen: dict[str, Any]) -> None:
        assert [show.save_line(record) for record in seen["records"]] == seen["save"].splitlines()

    def test_the_xml_form_is_the_same(self, seen: dict[str, Any]) -> None:
        flows = [show.xml_flow(record, use=seen["uses"][record["id"]]) for record in seen["records"]]
        assert show.XML_HEAD + "\n".join(flows) + "\n" + show.XML_TAIL == seen["xml"]

    def test_proc_is_the_same(self, seen: dict[str, Any]) -> None:
        mine = [
            show.proc_line(record, use=seen["uses"][record["id"]] + 1, gre_timeouts=(0, 0))
            for record in seen["records"]
        ]
        assert sorted(mine) == sorted(seen["proc"].splitlines())

    def test_what_the_tool_printed_is_read_and_printed_again(self) -> None:
        with Kernel(sysctl={"nf_conntrack_timestamp": 1}) as kernel:
            make_entries(kernel)
            text = kernel.run("env", "TZ=UTC", "conntrack", "-L", "-o", "extended,id,ktimestamp")
        assert len(text.splitlines()) == len(ENTRIES)
        for line in text.splitlines():
            record = parse(line)
            now = (int(record["start"]) + record["delta"]) * 10**9
            again = show.listing_line(
                record, extended=True, show_id=True, timestamps=True, now=now, use=record["use"]
            )
            assert again == line

    def test_proc_with_timestamps_and_a_gre_packet(self) -> None:
        gre = bytes.fromhex("4500001c00000000402f00000a000002c63364090000080000000000")
        gre = gre[:10] + (0xFFFF - int.from_bytes(gre[:20], "big") % 0xFFFF).to_bytes(2, "big") + gre[12:]
        with Kernel(sysctl={"nf_conntrack_timestamp": 1}) as kernel:
            assert kernel.send(gre, "in0")
            (line,) = kernel.run("cat", "/proc/net/nf_conntrack").splitlines()
        record = parse(line.replace("timeout=30, stream_timeout=180 ", ""))
        again = show.proc_line(record | {"start": "0"}, now=record["delta"] * 10**9)
        assert again == line


# --- reading the tool's lines --------------------------------------------------------------------------

_TUPLE_NUMBERS = {"sport", "dport", "type", "code", "srckey", "dstkey"}


def parse(line: str) -> Record:
    """A line of -L, -E or /proc as a record, with `use` and `delta` (the delta-time) beside its fields.

    Statuses that the text does not show are not in it.  Where the text has no date, the connection started
    at 0; the other end of delta-time is then `end`, for a DESTROY, or left to the caller.
    """
    record: Record = {"orig": {}, "reply": {}, "zone": 0}
    if found := re.match(r"\[(\d+\.\d+)\]\t", line):
        record["time"] = found[1]
        line = line[found.end() :]
    if found := re.match(r" *\[(NEW|UPDATE|DESTROY)\] ", line):
        record["event"] = found[1]
        line = line[found.end() :]
    line = re.sub(r" \[USERSPACE\] portid=\d+( progname=\S*)?$", "", line)
    for name, field in (("start", "start"), ("stop", "end")):
        if found := re.search(rf" \[{name}=([^]]*)\]", line):
            moment = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
            record[field] = str(int(moment.timestamp()))
            line = line.replace(found[0], "")
    words = line.split()
    if words[0] in ("ipv4", "ipv6"):
        del words[:2]
    record["proto"] = int(words[1])
    flags: set[str] = set()
    side = record["reply"]
    packets, counted = [], []
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if word.isdigit():
            record["timeout"] = int(word)
        elif word.startswith("["):
            flags.add(word[1:-1])
        elif not equals:
            record["state"] = word
        elif name in ("src", "dst"):
            if name == "src":
                side = record["reply"] if record["orig"] else record["orig"]
            side[name] = str(ipaddress.ip_address(value))
        elif name in _TUPLE_NUMBERS or (name == "id" and "type" in side and "id" not in side):
            if record["proto"] != 33:
                side[name] = int(value, 0)
        elif name in ("zone-orig", "zone-reply"):
            side["zone"] = int(value)
        elif name == "packets":
            packets.append(int(value))
        elif name == "bytes":
            counted.append(int(value))
        elif name == "delta-time":
            record["delta"] = int(value)
        elif name == "helper":
            record[name] = value
        else:
            record[name] = int(value)
    if packets:
        record["packets"], record["bytes"] = packets, counted
    if record.get("event") == "DESTROY" and "delta" in record and "start" not in record:
        record["start"], record["end"] = "0", str(record["delta"])
    record["family"] = 6 if ":" in record["orig"]["src"] else 4
    record["status"] = sorted(flags - {"UNREPLIED"} | ({"SEEN_REPLY"} if "UNREPLIED" not in flags else set()))
    return record
