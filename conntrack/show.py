"""The texts that people know: `conntrack -L`, `-E`, `-o save`, `-o xml` and /proc/net/nf_conntrack.

One rule: text is made from records (docs/records.schema.json) and from nothing else.  A field that a record
lacks is not printed.  So one set of functions serves live connections, events, and dumps of a real kernel,
and what an event shows is decided where the event is made (`events`), as ctnetlink decides it and not the tool.

    ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=… sport=1234 dport=80 packets=3 bytes=180
    └extended┘ └protocol┘ left   state       └───────── original tuple ─────────┘
               src=… dst=10.0.0.2 sport=80 dport=1234 packets=2 bytes=104 [ASSURED] mark=0 zone=5 use=1 id=7
               └────────── reply tuple ─────────────┘

The five forms differ more than they look, and all the differences are kept:

    form        IPv6          DCCP ports     GRE keys   elapsed time               oddities
    -L, -E      compressed    0, 0           hex        whole seconds subtracted
    -o save     compressed    none           decimal    none                       no mark; SCTP tags byte-swapped
    -o xml      compressed    0, 0           hex        whole seconds subtracted,  ICMP prints no type, code or id;
                                                        or ns once it ended        SCTP states by TCP's names
    /proc       written out   unknown proto  hex        ns                         GRE timeouts; use is one higher;
                                                                                   zone=0, but not beside zone-orig

Times are the record's decimal strings; `now` is int nanoseconds.  The tool prints dates in the machine's time
zone, these functions in `tz` (UTC unless told).

Sources: output of conntrack 1.4.7 on Linux 6.18; libnetfilter_conntrack snprintf_default.c, snprintf_xml.c;
conntrack.c ct_save_snprintf; nf_conntrack_standalone.c ct_seq_show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from .trackers import sctp, tcp
from .verdict import GRE, PROTOCOL_NAMES, SCTP

Record = Mapping[str, Any]

_SECOND: Final = 1_000_000_000
_DCCP: Final = 33
_FAMILIES: Final = {4: ("ipv4", 2), 6: ("ipv6", 10)}  # AF_INET, AF_INET6
_EVENT_WORDS: Final = {"NEW": "    [NEW]", "UPDATE": " [UPDATE]", "DESTROY": "[DESTROY]"}
XML_HEAD: Final = '<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n'
XML_TAIL: Final = "</conntrack>\n"

_EXPECT_FLAGS: Final = ("PERMANENT", "INACTIVE", "USERSPACE")  # in the order of the bits

# What `-o save` has options for, in the order of the bits; the others are left out.
_SAVED_STATUS: Final = ("EXPECTED", "SEEN_REPLY", "ASSURED", "FIXED_TIMEOUT")
_SAVE_COMMANDS: Final = {"UPDATE": "-U", "DESTROY": "-D"}  # a listing and NEW: -A
# The XML printer looks SCTP's state number up among TCP's names: ESTABLISHED (4) is FIN_WAIT there.
_SCTP_STATE_IN_XML: Final = dict(zip(sctp.TRACKER.states, tcp.TRACKER.states, strict=False))
# Linux 6.18 has no DCCP tracker any more and /proc does not know the name; the tool still does.
_PROC_NAMES: Final = {number: name for number, name in PROTOCOL_NAMES.items() if number != _DCCP}


# --- conntrack -L, -E ----------------------------------------------------------------------------------


def listing_line(
    record: Record,
    *,
    extended: bool = False,
    show_id: bool = False,
    timestamps: bool = False,
    now: int | None = None,
    use: int = 1,
    tz: tzinfo = UTC,
) -> str:
    """The line of `conntrack -L` for a conn record, without newline.

    extended, show_id, timestamps: `-o extended`, `id`, `ktimestamp`.  `now` (ns) gives delta-time to a record
    with `start` but no `end`; None leaves it out.  `use`: references, 1 in a dump, 2 in the answer to -G or -U,
    one more for each related entry.

    >>> print(listing_line({
    ...     "family": 4, "proto": 17, "status": ["CONFIRMED"], "timeout": 29, "mark": 0, "zone": 0, "id": 7,
    ...     "orig": {"src": "10.0.0.2", "dst": "192.0.2.1", "sport": 1111, "dport": 53},
    ...     "reply": {"src": "192.0.2.1", "dst": "10.0.0.2", "sport": 53, "dport": 1111}}))
    udp      17 29 src=10.0.0.2 dst=192.0.2.1 sport=1111 dport=53 [UNREPLIED] src=192.0.2.1 dst=10.0.0.2 \
sport=53 dport=1111 mark=0 use=1
    """
    words = _words(record, extended, timestamps, now, tz)
    words.append(f"use={use}")
    if show_id:
        words.append(f"id={record['id']}")
    return " ".join(words)


def event_line(record: Record, *, timestamp: bool = False, extended: bool = False, show_id: bool = False) -> str:
    """The line of `conntrack -E` for an event record of type NEW, UPDATE or DESTROY, without newline.

    timestamp, extended, show_id: `-o timestamp` (the record's `time`, cut to microseconds), `extended`, `id`.
    The tool adds ` [USERSPACE] portid=…` where a process made the change; records have no such thing.
    """
    words = [_EVENT_WORDS[record["event"]], *_words(record, extended, False, None, UTC)]
    if show_id:
        words.append(f"id={record['id']}")
    line = " ".join(words)
    if timestamp:
        seconds, _, fraction = record["time"].partition(".")
        line = f"[{seconds}.{fraction[:6]:0<6}]\t{line}"
    return line


def _words(record: Record, extended: bool, timestamps: bool, now: int | None, tz: tzinfo) -> list[str]:
    """What -L and -E have in common, in the tool's order."""
    proto, status, orig, reply = record["proto"], record["status"], record["orig"], record["reply"]
    words: list[str] = []
    if extended:
        words.append("{:<8} {}".format(*_FAMILIES[record["family"]]))
    words.append(f"{PROTOCOL_NAMES.get(proto, 'unknown'):<8} {proto}")
    if "timeout" in record:
        words.append(str(record["timeout"]))
    if "state" in record:
        words.append(record["state"])
    words += _end(orig, "orig", _tool_address, proto == _DCCP)
    words += _counters(record, 0)
    if "SEEN_REPLY" not in status:
        words.append("[UNREPLIED]")
    words += _end(reply, "reply", _tool_address, proto == _DCCP)
    words += _counters(record, 1)
    words += _flag(status)
    if "mark" in record:
        words.append(f"mark={record['mark']}")
    if record.get("zone"):
        words.append(f"zone={record['zone']}")
    if "start" in record:
        elapsed = _elapsed(record, now)
        if elapsed is not None:
            words.append(f"delta-time={elapsed}")
        if timestamps:
            for name, field in (("start", "start"), ("stop", "end")):
                if field in record:
                    words.append(f"[{name}={_moment(record[field], tz).ctime()}]")
    if "helper" in record:
        words.append(f"helper={record['helper']}")
    return words


def _end(end: Record, side: str, address: Any, no_ports: bool) -> list[str]:
    """One tuple and, if the zone is of this direction only, its zone."""
    words = [f"src={address(end['src'])} dst={address(end['dst'])}"]
    if "sport" in end:
        words.append(f"sport={end['sport']} dport={end['dport']}")
    elif "type" in end:
        words.append(f"type={end['type']} code={end['code']} id={end['id']}")
    elif "srckey" in end:
        words.append(f"srckey=0x{end['srckey']:x} dstkey=0x{end['dstkey']:x}")
    elif no_ports:  # the tool expects ports of DCCP, the kernel tells none
        words.append("sport=0 dport=0")
    if "zone" in end:
        words.append(f"zone-{side}={end['zone']}")
    return words


def _counters(record: Record, direction: int) -> list[str]:
    if "packets" not in record:
        return []
    return [f"packets={record['packets'][direction]} bytes={record['bytes'][direction]}"]


def _flag(status: Iterable[str]) -> list[str]:
    """At most one: offloading to hardware hides offloading, and that hides ASSURED."""
    for name in ("HW_OFFLOAD", "OFFLOAD", "ASSURED"):
        if name in status:
            return [f"[{name}]"]
    return []


def _tool_address(text: str) -> str:
    """An address as inet_ntop writes it: like `ipaddress`, but ::a.b.c.d and ::ffff:a.b.c.d dotted.

    `ipaddress` dots the second from Python 3.13 on, the first never.

    >>> _tool_address("::ffff:102:304"), _tool_address("::1:2"), _tool_address("::1")
    ('::ffff:1.2.3.4', '::0.1.0.2', '::1')
    """
    if not text.startswith("::"):
        return text
    packed = IPv6Address(text).packed
    mapped = packed[10:12] == b"\xff\xff"
    if any(packed[:10]) or not (mapped or (not any(packed[10:12]) and any(packed[12:14]))):
        return text
    return ("::ffff:" if mapped else "::") + ".".join(map(str, packed[12:]))


# --- conntrack -L expect, -E expect, /proc/net/nf_conntrack_expect -----------------------------------------


def expectation_line(record: Record) -> str:
    """The line of `conntrack -L expect` for an expectation record, or that of `-E expect` for an event record."""
    words = [_EVENT_WORDS[record["event"].removeprefix("EXP_")]] if "event" in record else []
    words += [str(record["timeout"]), f"proto={record['proto']}"]
    for name, prefix in (("tuple", ""), ("mask", "mask-"), ("master", "master-")):
        addresses, *rest = _end(record[name], "", _tool_address, False)
        words.append(" ".join(prefix + word for word in addresses.split()))
        words += rest
    if record["flags"]:
        words.append(",".join(name for name in _EXPECT_FLAGS if name in record["flags"]))
    words.append(f"class={record['class']}")
    if "helper" in record:
        words.append(f"helper={record['helper']}")
    return " ".join(words)


def expectation_proc_line(record: Record) -> str:
    """The line of /proc/net/nf_conntrack_expect for an expectation record, without newline."""
    number = 10 if ":" in record["tuple"]["src"] else 2
    words = [str(record["timeout"]), f"l3proto = {number} proto={record['proto']}"]
    words += _end(record["tuple"], "", _proc_address, False)
    if record["flags"]:
        words.append(",".join(name for name in _EXPECT_FLAGS if name in record["flags"]))
    words.append(record["helper"] + ("/" + record["class_name"] if "class_name" in record else ""))
    return " ".join(words)


# --- conntrack -o save ---------------------------------------------------------------------------------


def save_line(record: Record) -> str:
    """The line of `-o save`: options that, given to `conntrack`, would make the same entry (-A, also for a
    listing), change it (-U) or delete it (-D).  Neither mark nor helper is among them.

    SCTP verification tags are in it if the record has `vtag` ([original, reply], host order).
    """
    proto, status, orig, reply = record["proto"], record["status"], record["orig"], record["reply"]
    words = [_SAVE_COMMANDS.get(record.get("event", ""), "-A")]
    if "timeout" in record:
        words.append(f"-t {record['timeout']}")
    words.append("-u " + (",".join(name for name in _SAVED_STATUS if name in status) or "UNSET"))
    if record.get("zone"):
        words.append(f"-w {record['zone']}")
    for side, end in (("orig", orig), ("reply", reply)):
        if "zone" in end:
            words.append(f"--{side}-zone {end['zone']}")
    # -g and -n only for translated addresses: a translated port alone is written as an ordinary reply tuple
    dnat = "DST_NAT_DONE" in status and reply["src"] != orig["dst"]
    snat = "SRC_NAT_DONE" in status and reply["dst"] != orig["src"]
    words.append(f"-s {_tool_address(orig['src'])} -d {_tool_address(orig['dst'])}")
    words.append(f"{'-g' if dnat else '-r'} {_tool_address(reply['src'])}")
    words.append(f"{'-n' if snat else '-q'} {_tool_address(reply['dst'])}")
    words.append(f"-p {PROTOCOL_NAMES.get(proto, proto)}")
    if "sport" in orig:
        words.append(f"--sport {orig['sport']} --dport {orig['dport']}")
        words.append(f"--reply-port-src {reply['sport']} --reply-port-dst {reply['dport']}")
    elif "type" in orig:
        name = PROTOCOL_NAMES[proto]
        words.append(f"--{name}-type {orig['type']} --{name}-code {orig['code']} --{name}-id {orig['id']}")
    elif "srckey" in orig:
        words.append(f"--srckey {orig['srckey']} --dstkey {orig['dstkey']}")
        words.append(f"--reply-key-src {reply['srckey']} --reply-key-dst {reply['dstkey']}")
    if "state" in record:
        words.append(f"--state {record['state']}")
    if "vtag" in record:
        first, second = (int.from_bytes(tag.to_bytes(4, "big"), "little") for tag in record["vtag"])
        words.append(f"--orig-vtag {first} --reply-vtag {second}")
    return " ".join(words)


# --- conntrack -o xml ----------------------------------------------------------------------------------


def xml(
    records: Iterable[Record],
    *,
    timestamps: bool = False,
    timestamp: bool = False,
    now: int | None = None,
    use: int = 1,
    tz: tzinfo = UTC,
) -> str:
    """The document of `-o xml` for conn or event records, as the tool prints it, last newline included.

    The options are those of `xml_flow`.  For a stream write XML_HEAD, an `xml_flow` a line, and XML_TAIL.
    """
    flows = (
        xml_flow(record, timestamps=timestamps, timestamp=timestamp, now=now, use=use, tz=tz) + "\n"
        for record in records
    )
    return XML_HEAD + "".join(flows) + XML_TAIL


def xml_flow(
    record: Record,
    *,
    timestamps: bool = False,
    timestamp: bool = False,
    now: int | None = None,
    use: int = 1,
    tz: tzinfo = UTC,
) -> str:
    """One `<flow>` element.  timestamps: `-o ktimestamp`; timestamp: `-o timestamp`, events only; `now` and
    `use` as in `listing_line`."""
    event = record.get("event")
    parts = [f'<flow type="{event.lower()}">' if event else "<flow>"]
    for number, (name, field) in enumerate((("original", "orig"), ("reply", "reply"))):
        parts.append(_xml_end(record, record[field], name, number))
    parts.append('<meta direction="independent">')
    if "state" in record:
        state = record["state"]
        parts.append(_tag("state", _SCTP_STATE_IN_XML[state] if record["proto"] == SCTP else state))
    for name in ("timeout", "mark"):
        if name in record:
            parts.append(_tag(name, record[name]))
    if record.get("zone"):
        parts.append(_tag("zone", record["zone"]))
    if not event:
        parts.append(_tag("use", use))
    parts.append(_tag("id", record["id"]))
    if "ASSURED" in record["status"]:
        parts.append("<assured/>")
    if "SEEN_REPLY" not in record["status"]:
        parts.append("<unreplied/>")
    if "start" in record:
        if timestamps:
            stop = _tag("stop", _nanoseconds(record["end"])) if "end" in record else ""
            parts.append(_tag("timestamp", _tag("start", _nanoseconds(record["start"])) + stop))
        if "end" in record:
            alive = _nanoseconds(record["end"]) - _nanoseconds(record["start"])
            parts.append(_tag("deltatime", alive // _SECOND))
        elif now is not None:
            parts.append(_tag("deltatime", _elapsed(record, now)))
    parts.append("</meta>")
    if event and timestamp:
        parts.append(_when(_moment(record["time"], tz)))
    if "helper" in record:
        parts.append(_tag("helper", record["helper"]))
    parts.append("</flow>")
    return "".join(parts)


def _xml_end(record: Record, end: Record, direction: str, number: int) -> str:
    proto = record["proto"]
    family, family_number = _FAMILIES[record["family"]]
    layer3 = _tag("src", _tool_address(end["src"])) + _tag("dst", _tool_address(end["dst"]))
    layer4 = ""
    if "sport" in end or proto == _DCCP:
        layer4 = _tag("sport", end.get("sport", 0)) + _tag("dport", end.get("dport", 0))
    elif "srckey" in end:
        layer4 = _tag("srckey", f"0x{end['srckey']:x}") + _tag("dstkey", f"0x{end['dstkey']:x}")
    parts = [
        f'<meta direction="{direction}"><layer3 protonum="{family_number}" protoname="{family}">{layer3}</layer3>',
        f'<layer4 protonum="{proto}" protoname="{PROTOCOL_NAMES.get(proto, "unknown")}">{layer4}</layer4>',
    ]
    if "zone" in end:
        parts.append(_tag("zone", end["zone"]))
    if "packets" in record:
        counters = _tag("packets", record["packets"][number]) + _tag("bytes", record["bytes"][number])
        parts.append(_tag("counters", counters))
    return "".join(parts) + "</meta>"


def _when(moment: datetime) -> str:
    """The tool's idea of a date: Sunday is day 1, and the hour has no leading zero."""
    return (
        f"<when><hour>{moment.hour}</hour><min>{moment.minute:02}</min><sec>{moment.second:02}</sec>"
        f"<wday>{moment.isoweekday() % 7 + 1}</wday><day>{moment.day}</day>"
        f"<month>{moment.month}</month><year>{moment.year}</year></when>"
    )


def _tag(name: str, value: object) -> str:
    return f"<{name}>{value}</{name}>"


# --- /proc/net/nf_conntrack ----------------------------------------------------------------------------


def proc_line(
    record: Record, *, now: int | None = None, use: int = 2, gre_timeouts: tuple[int, int] = (30, 180)
) -> str:
    """The line of /proc/net/nf_conntrack for a conn record, without newline.

    `use` is one more than in a dump.  `gre_timeouts` (seconds): what the entry's first packet took from
    nf_conntrack_gre_timeout and …_stream; 0, 0 for an entry made through netlink.
    """
    proto, orig, reply = record["proto"], record["orig"], record["reply"]
    words = [
        "{:<8} {}".format(*_FAMILIES[record["family"]]),
        f"{_PROC_NAMES.get(proto, 'unknown'):<8} {proto}",
    ]
    if "timeout" in record:
        words.append(str(record["timeout"]))
    if "state" in record:
        words.append(record["state"])
    if proto == GRE:
        words.append("timeout={}, stream_timeout={}".format(*gre_timeouts))
    words += _end(orig, "orig", _proc_address, False)
    words += _counters(record, 0)
    if "SEEN_REPLY" not in record["status"]:
        words.append("[UNREPLIED]")
    words += _end(reply, "reply", _proc_address, False)
    words += _counters(record, 1)
    words += _flag(record["status"])
    words.append(f"mark={record.get('mark', 0)}")
    if "zone" not in orig and "zone" not in reply:
        words.append(f"zone={record.get('zone', 0)}")
    if "start" in record and now is not None:
        words.append(f"delta-time={max(now - _nanoseconds(record['start']), 0) // _SECOND}")
    words.append(f"use={use}")
    return " ".join(words)


def _proc_address(text: str) -> str:
    return ip_address(text).exploded


# --- times ---------------------------------------------------------------------------------------------


def _elapsed(record: Record, now: int | None) -> int | None:
    """Seconds from start to end, or to now: whole seconds subtracted from whole seconds, as the tool does, so
    0.2 s across the turn of a second count as 1."""
    if "end" in record:
        stop = int(record["end"].partition(".")[0])
    elif now is not None:
        stop = now // _SECOND
    else:
        return None
    return stop - int(record["start"].partition(".")[0])


def _nanoseconds(time: str) -> int:
    seconds, _, fraction = time.partition(".")
    return int(seconds) * _SECOND + int(f"{fraction[:9]:0<9}")


def _moment(time: str, tz: tzinfo) -> datetime:
    return datetime.fromtimestamp(int(time.partition(".")[0]), tz)
