"""What the kernel says over netlink: connections, expectations, events, counters and packet logs as records.

One rule: octets in, records in the shape of docs/records.schema.json out; a field that the message does not carry
is absent.  Nothing here decides or compares anything.

    ctnetlink   tuples, status, protocol state, timeout, counters, mark, zone, helper, master, sequence adjustment
    events      the same messages, multicast; the type follows from message type and flags
    nflog       one packet at one hook: prefix, devices, mark, octets

Sources: include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, nfnetlink_log.h; netlink(7).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

Record = dict[str, Any]

NETLINK_NETFILTER = 12
SUBSYS_CTNETLINK, SUBSYS_EXPECT, SUBSYS_ULOG = 1 << 8, 2 << 8, 4 << 8
CT_NEW, CT_GET, CT_DELETE, CT_GET_STATS_CPU = 0, 1, 2, 4
EXP_GET, EXP_GET_STATS_CPU = 1, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
EVENT_GROUPS = range(1, 7)  # conntrack new, update, destroy; expect new, update, destroy
_ERROR, _DONE = 2, 3  # NLMSG_*
_NLA_F_NESTED = 0x8000
_RECEIVE = 1 << 18

STATUS = (
    *("EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE"),
    *("DST_NAT_DONE", "DYING", "FIXED_TIMEOUT", "TEMPLATE", "NAT_CLASH", "HELPER", "OFFLOAD", "HW_OFFLOAD"),
)
TCP_STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"),
    *("CLOSE", "SYN_SENT2"),
)
SCTP_STATES = (
    *("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD"),
    *("SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"),
)
EXPECT_FLAGS = ("PERMANENT", "INACTIVE", "USERSPACE")
# CTA_STATS_*; a per-cpu message carries those that are not gone
STATS = {
    2: "found",
    4: "invalid",
    8: "insert",
    9: "insert_failed",
    10: "drop",
    11: "early_drop",
    12: "error",
    13: "search_restart",
    14: "clash_resolve",
    15: "chaintoolong",
}
EXPECT_STATS = {1: "expect_new", 2: "expect_create", 3: "expect_delete"}
_EVENTS = {  # (message type, created)
    (SUBSYS_CTNETLINK | CT_NEW, True): "NEW",
    (SUBSYS_CTNETLINK | CT_NEW, False): "UPDATE",
    (SUBSYS_CTNETLINK | CT_DELETE, False): "DESTROY",
    (SUBSYS_EXPECT, True): "EXP_NEW",
    (SUBSYS_EXPECT, False): "EXP_UPDATE",
    (SUBSYS_EXPECT | CT_DELETE, False): "EXP_DESTROY",
}


class Netlink:
    """One netlink socket of the present namespace for requests and their answers."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sequence = 0

    def request(
        self, kind: int, flags: int, family: int = 0, attributes: bytes = b"", resource: int = 0
    ) -> list[bytes]:
        """Send one request; the bodies of the answers, after nfgenmsg, until done.  OSError if it is refused."""
        self._sequence += 1
        length = 20 + len(attributes)
        flags |= NLM_F_REQUEST
        head = struct.pack("=IHHIIBB", length, kind, flags, self._sequence, 0, family, 0)
        self.socket.send(head + resource.to_bytes(2, "big") + attributes)
        bodies: list[bytes] = []
        while True:
            for answer, _, sequence, body in messages(self.socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                if answer == _ERROR and (error := struct.unpack_from("=i", body)[0]):
                    raise OSError(-error, f"netlink request {kind:#x}")
                if answer in (_ERROR, _DONE):  # an error of 0 is the acknowledgement
                    return bodies
                bodies.append(body[4:])

    def table(self) -> list[bytes]:
        """The bodies of a whole dump of connections.  A dump deletes the expired ones that it meets."""
        return self.request(SUBSYS_CTNETLINK | CT_GET, NLM_F_DUMP)

    def expectations(self) -> list[Record]:
        """All expectations."""
        return [expectation(body) for body in self.request(SUBSYS_EXPECT | EXP_GET, NLM_F_DUMP)]

    def stats(self) -> dict[str, int]:
        """The counters of `conntrack -S`, added over all CPUs, expectation counters too."""
        total: dict[str, int] = {}
        for kind, names in (
            (SUBSYS_CTNETLINK | CT_GET_STATS_CPU, STATS),
            (SUBSYS_EXPECT | EXP_GET_STATS_CPU, EXPECT_STATS),
        ):
            for body in self.request(kind, NLM_F_DUMP):
                for number, value in attributes(body).items():
                    name = names.get(number)
                    if name:
                        total[name] = total.get(name, 0) + int.from_bytes(value, "big")
        return total

    def flush(self) -> None:
        """Empty the table."""
        self.request(SUBSYS_CTNETLINK | CT_DELETE, NLM_F_ACK)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in what one receive gave."""
    at, end = 0, len(data)
    while at + 16 <= end:
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data, at)
        yield kind, flags, sequence, data[at + 16 : at + length]
        at += length + 3 & ~3


def received(source: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Every message that waits on a socket; never blocks.  ENOBUFS (messages were lost) is an error."""
    while True:
        try:
            data = source.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        yield from messages(data)


# ── attributes ──────────────────────────────────────────────────────────────────────────────────────


def attributes(data: bytes) -> dict[int, bytes]:
    """One level of netlink attributes, by type, without the flag bits of the type."""
    found = {}
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def attribute(kind: int, *parts: bytes) -> bytes:
    """One netlink attribute, padded."""
    data = b"".join(parts)
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def number(data: bytes) -> int:
    """A number in network order."""
    return int.from_bytes(data, "big")


def tuple_attribute(proto: int, end: Record) -> bytes:
    """A tuple record as CTA_TUPLE_ORIG, the reverse of `tuple_record` for protocols with ports and for ICMP."""
    source, destination = (ipaddress.ip_address(end[side]) for side in ("src", "dst"))
    first = 3 if source.version == 6 else 1
    addresses = attribute(first, source.packed), attribute(first + 1, destination.packed)
    fields = [attribute(1, bytes([proto]))]
    if "sport" in end:
        fields += [attribute(kind, end[name].to_bytes(2, "big")) for kind, name in ((2, "sport"), (3, "dport"))]
    elif "id" in end:
        first = 7 if source.version == 6 else 4
        sized = (("id", 2), ("type", 1), ("code", 1))
        fields += [attribute(first + at, end[name].to_bytes(size, "big")) for at, (name, size) in enumerate(sized)]
    parts = attribute(1 | _NLA_F_NESTED, *addresses), attribute(2 | _NLA_F_NESTED, *fields)
    return attribute(1 | _NLA_F_NESTED, *parts)


def address_text(octets: bytes) -> str:
    """As conntrack(8) prints it."""
    return socket.inet_ntop(socket.AF_INET6 if len(octets) == 16 else socket.AF_INET, octets)


@lru_cache(4096)
def tuple_record(data: bytes) -> tuple[int, Record]:
    """Protocol number and tuple record of a CTA_TUPLE_* attribute."""
    parts = attributes(data)
    addresses, fields = attributes(parts[1]), attributes(parts[2])
    proto = number(fields[1])
    source, destination = (3, 4) if 3 in addresses else (1, 2)
    record: Record = {
        "src": address_text(addresses[source]),
        "dst": address_text(addresses[destination]),
    }
    if proto == socket.IPPROTO_GRE:
        record |= {"srckey": number(fields[2]), "dstkey": number(fields[3])}
    elif 2 in fields:
        record |= {"sport": number(fields[2]), "dport": number(fields[3])}
    elif 4 in fields or 7 in fields:
        first = 4 if 4 in fields else 7
        record |= {name: number(fields[first + offset]) for offset, name in enumerate(("id", "type", "code"))}
    if 3 in parts:
        record["zone"] = number(parts[3])
    return proto, record


def status_names(bits: int) -> list[str]:
    """ctnetlink's names of the status bits, sorted."""
    return sorted(name for bit, name in enumerate(STATUS) if bits >> bit & 1)


def connection(body: bytes) -> Record:
    """One CTA_* message as a connection record."""
    top = attributes(body)
    proto, orig = tuple_record(top[1])
    conn: Record = {
        "family": 6 if ":" in orig["src"] else 4,
        "proto": proto,
        "orig": orig,
        "reply": tuple_record(top[2])[1],
    }
    if 3 in top:
        conn["status"] = status_names(number(top[3]))
    if 8 in top:
        conn["mark"] = number(top[8])
    if 18 in top:
        conn["zone"] = number(top[18])
    if 12 in top:
        conn["id"] = number(top[12])
    if 7 in top:
        conn["timeout"] = number(top[7])
    for kind, info in attributes(top.get(4, b"")).items():  # 1 TCP, 3 SCTP; the state is attribute 1 of both
        names = {1: TCP_STATES, 3: SCTP_STATES}.get(kind)
        if names:
            conn["state"] = names[number(attributes(info)[1])]
    if 9 in top and 10 in top:
        counters = [attributes(top[kind]) for kind in (9, 10)]
        conn["packets"] = [number(counter[1]) for counter in counters]
        conn["bytes"] = [number(counter[2]) for counter in counters]
    if 5 in top:
        conn["helper"] = attributes(top[5])[1].rstrip(b"\0").decode()
    if 14 in top:
        conn["master"] = tuple_record(top[14])[1]
    if 15 in top and 16 in top:
        sides = [attributes(top[kind]) for kind in (15, 16)]
        conn["seqadj"] = [[number(side[field]) for field in (1, 2, 3)] for side in sides]
    if 20 in top:
        conn["timestamps"] = sorted(attributes(top[20]))
    return conn


def expectation(body: bytes) -> Record:
    """One CTA_EXPECT_* message as an expectation record."""
    top = attributes(body)
    proto, expected = tuple_record(top[2])
    record: Record = {
        "proto": proto,
        "tuple": expected,
        "mask": tuple_record(top[3])[1],
        "master": tuple_record(top[1])[1],
        "timeout": number(top[4]),
    }
    if 6 in top:
        record["helper"] = top[6].rstrip(b"\0").decode()
    if 8 in top:
        bits = number(top[8])
        record["flags"] = [name for bit, name in enumerate(EXPECT_FLAGS) if bits >> bit & 1]
    if 9 in top:
        record["class"] = number(top[9])
    if 7 in top:
        record["zone"] = number(top[7])
    return record


def event(kind: int, flags: int, body: bytes) -> Record:
    """One multicast message as an event record."""
    name = _EVENTS[kind, bool(flags & NLM_F_CREATE) and kind & 0xFF == CT_NEW]
    record = expectation(body[4:]) if name.startswith("EXP_") else connection(body[4:])
    return {"event": name, **record}


# ── packet logs ─────────────────────────────────────────────────────────────────────────────────────


def bind_log(netlink: Netlink, group: int, copy: int | None) -> None:
    """Ask for an NFLOG group: `copy` octets of each packet (None: none)."""
    kind = SUBSYS_ULOG | 1  # NFULNL_MSG_CONFIG
    parts = [
        attribute(1, b"\x01"),  # bind
        attribute(2, struct.pack("!IBx", copy or 0, 1 if copy is None else 2)),  # metadata, or the packet
        attribute(5, struct.pack("!I", 1)),  # deliver each at once
    ]
    netlink.request(kind, NLM_F_ACK, 0, parts[0], group)
    for part in parts[1:]:
        netlink.request(kind, NLM_F_ACK, 0, part, group)


def logged(body: bytes) -> Record:
    """One NFLOG message: `prefix`, `hook`, `mark`, device numbers `in` and `out`, `data`."""
    top = attributes(body[4:])
    record: Record = {"family": body[0], "prefix": top.get(10, b"").rstrip(b"\0").decode()}
    record["hook"] = top[1][2]
    for kind, name in ((2, "mark"), (4, "in"), (5, "out")):
        if kind in top:
            record[name] = number(top[kind])
    if 9 in top:
        record["data"] = top[9]
    return record
