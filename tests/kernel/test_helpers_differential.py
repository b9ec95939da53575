"""FTP and TFTP: the engine against the running kernel, packet by packet.

Talks between hosts that know only what they are sent (`ftp_talk`) run through the kernel; the engine gets the same
packets at the same times, and its octets, classes, events, counters, table and expectations have to be the
kernel's.  What the kernel draws (ports) is read from what it did and handed to the engine as its own draw.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import pytest
from box import KernelBox, available
from ftp_talk import End, Talk
from packets import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    addresses,
    header_length,
    icmp_error,
    ip,
    ports,
    protocol,
    tcp,
    udp,
)

from conntrack import Dnat, Engine, Masquerade, Snat
from conntrack.choices import Choices
from conntrack.nat.rules import NatRule

STEPS = int(os.environ.get("CONNTRACK_KERNEL_STEPS", "1000")) // 4
SEED = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(available() is not None, reason=f"kernel comparison: {available()}"),
]

INTERFACES = {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}
ROUTES = ["default dev out0"]
HELPERS = (
    "*raw\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n"
    "-A PREROUTING -p udp --dport 69 -j CT --helper tftp\nCOMMIT\n"
)
# What tracking does not know goes nowhere: where it would reach the box itself, that would answer.
HELPERS += "*filter\n-A INPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"

# Nothing is to expire meanwhile: that is other tests' business.
SYSCTL = {"nf_conntrack_acct": 1} | {
    f"nf_conntrack_{name}": 3000
    for name in (
        *(
            f"tcp_timeout_{state}"
            for state in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "close")
        ),
        *("tcp_timeout_time_wait", "tcp_timeout_max_retrans", "tcp_timeout_unacknowledged", "udp_timeout"),
        "udp_timeout_stream",
    )
}


@dataclass(frozen=True)
class Case:
    """Rules in both languages; `inside`: the server stands inside, outside hosts know it as `public`."""

    name: str
    rules: str = ""
    rules6: str = ""
    nat: list[NatRule] | None = None
    inside: bool = False
    public: tuple[str, str] = ("93.184.216.34", "2600::1")


CASES = [
    Case("plain"),
    Case(
        "masquerade",
        "*nat\n-A POSTROUTING -o out0 -j MASQUERADE\nCOMMIT\n",
        "*nat\n-A POSTROUTING -o out0 -j MASQUERADE\nCOMMIT\n",
        [Masquerade(["198.51.100.1", "2001:db8:2::1"], out_iface="out0")],
    ),
    Case(
        "longer address",
        "*nat\n-A POSTROUTING -o out0 -j SNAT --to-source 198.51.100.201\nCOMMIT\n",
        "*nat\n-A POSTROUTING -o out0 -j SNAT --to-source 2001:db8:2:3:4:5:6:7\nCOMMIT\n",
        [Snat("198.51.100.201", out_iface="out0"), Snat("2001:db8:2:3:4:5:6:7", out_iface="out0")],
    ),
    Case(
        "server inside",
        "*nat\n-A PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.2\nCOMMIT\n",
        "*nat\n-A PREROUTING -d 2001:db8:2::9 -j DNAT --to-destination fd00:1::2\nCOMMIT\n",
        [Dnat("10.0.0.2", destination="198.51.100.9"), Dnat("fd00:1::2", destination="2001:db8:2::9")],
        inside=True,
        public=("198.51.100.9", "2001:db8:2::9"),
    ),
]


class Recorded(Choices):
    """Draws as the kernel made them: the port that an expectation, or a mapping, got."""

    port = 0

    def expect_port(self, key: bytes) -> int:
        """What leads from the wanted port to the kernel's."""
        wanted = int.from_bytes(key[-2:], "big")
        self.first = getattr(self, "first", 0) or wanted
        return self.port - self.first if self.port >= self.first else 0

    def port_offset(self, key: bytes, proto: int) -> int:
        """The same for a source port above 1023."""
        return (self.port - 1024) % 64512


class Pair:
    """A kernel and an engine that get the same packets."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.box = KernelBox(INTERFACES, ROUTES, HELPERS + case.rules, HELPERS + case.rules6, SYSCTL)
        self.choices = Recorded()
        sysctl = SYSCTL | {"nf_conntrack_buckets": 512}
        helpers = {("tcp", 21): "ftp", ("udp", 69): "tftp"}
        self.engine = Engine(case.nat, sysctl, choices=self.choices, helpers=helpers)
        self.engine.events  # noqa: B018  (asking is listening)
        self.history: list[str] = []

    def send(self, iface: str, packet: bytes) -> list[tuple[str, bytes]]:
        """One packet through both; what left the kernel.  AssertionError with the history if they differ."""
        self.history.append(f"{iface} {packet.hex()}")
        step = self.box.receive(packet, iface)
        self.choices.port, self.choices.first = _drawn(step), 0
        unknown = step["ctinfo"] == "INVALID"
        other = "out0" if iface == "in0" else "in0"
        before = _counters(self.engine)
        outcome = self.engine.process(packet, step["time"], iface=iface, out_iface=other)
        after = _counters(self.engine)
        moved = {name: value - before[name] for name, value in after.items() if value != before[name]}
        found = {
            "ctinfo": (outcome.ctinfo, outcome.direction),
            "out": [] if unknown else sorted(unrouted(each).hex() for each in outcome.packets),
            "stats": {} if unknown else moved,
            "events": [_event(event.to_dict()) for event in self.engine.events],
            "table": sorted((_conn(conn.to_dict(step["time"])) for conn in self.engine.conns()), key=_order),
            "expectations": sorted(
                (_expectation(each.to_dict(step["time"])) for each in self.engine.expectations()), key=_order
            ),
            "log": outcome.log_text() if outcome.reason.startswith("helper") else None,
        }
        told = {
            "ctinfo": (step["ctinfo"], step["direction"]),
            "out": [] if unknown else sorted(unrouted(bytes.fromhex(data)).hex() for _, data in step["out"]),
            "stats": {} if unknown else step["stats"],
            "events": [_event(event) for event in step["events"]],
            "table": sorted((_conn(conn) for conn in step["table"]), key=_order),
            "expectations": sorted((_expectation(each) for each in step["expectations"]), key=_order),
            "log": next((line.strip() for line in step["log"] if "dropping" in line), None),
        }
        self.engine.check()
        if not _equal(told["table"], found["table"]):
            # a dump may miss entries while somebody resizes the machine's hash table
            told["table"] = sorted((_conn(conn) for conn in self.box.conns()), key=_order)
        for name, value in told.items():
            if not _equal(value, found[name]):
                tail = "\n".join(self.history[-30:])
                kernel, engine = _difference(value, found[name])
                raise AssertionError(
                    f"{self.case.name}: {name} after {len(self.history)} packets, {step['fate']}, {outcome!r}\n"
                    f"  kernel {kernel}\n  engine {engine}\n{tail}"
                )
        return [(name, bytes.fromhex(data)) for name, data in step["out"]]


def unrouted(packet: bytes) -> bytes:
    """The packet without what routing changes: TTL or hop limit, and IPv4's header checksum."""
    if packet[0] >> 4 == 6:
        return packet[:7] + packet[8:]
    return packet[:8] + packet[9:10] + packet[12:]


def _drawn(step: dict[str, Any]) -> int:
    """A port that the kernel may have drawn in this step."""
    for event in step["events"]:
        if event["event"] == "EXP_NEW":
            return int(event["tuple"]["dport"])
        if event["event"] == "NEW":
            return int(event["reply"].get("dport", 0))
    return 0


def _counters(engine: Engine) -> dict[str, int]:
    stats = engine.stats
    names = ("found", "invalid", "insert_failed", "drop", "early_drop", "error", "clash_resolve", "chaintoolong")
    return {name: getattr(stats, name) for name in (*names, "expect_new", "expect_create", "expect_delete")}


def _order(record: dict[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in record.items() if name in ("proto", "orig", "tuple")))


def _conn(record: dict[str, Any]) -> dict[str, Any]:
    out = {
        name: record[name] for name in ("proto", "orig", "reply", "status", "timeout", "packets", "bytes", "mark")
    }
    for name in ("state", "helper", "master"):
        if name in record:
            out[name] = record[name]
    out["seqadj"] = _sides(record.get("seqadj"))
    return out


def _sides(seqadj: Any) -> Any:
    """Sequence adjustment as lists."""
    if isinstance(seqadj, dict):
        return [list(seqadj[side].values()) for side in ("orig", "reply")]
    return seqadj


def _event(record: dict[str, Any]) -> dict[str, Any]:
    left_out = {"time", "bits", "id", "family", "zone", "class_name"}
    return {name: value for name, value in record.items() if name not in left_out}


def _expectation(record: dict[str, Any]) -> dict[str, Any]:
    return dict(record)


def _equal(one: Any, other: Any) -> bool:
    """Equal, timeouts within a second."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            abs(one[name] - other[name]) <= 1 if name == "timeout" else _equal(one[name], other[name])
            for name in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _difference(one: Any, other: Any) -> tuple[Any, Any]:
    """Of two lists what the other does not have."""
    if not isinstance(one, list):
        return one, other
    return (
        [each for each in one if not any(_equal(each, its) for its in other)],
        [each for each in other if not any(_equal(each, its) for its in one)],
    )


# ── traffic ─────────────────────────────────────────────────────────────────────────────────────────


class Traffic:
    """Talks, the data connections they announce, and some noise."""

    def __init__(self, rng: random.Random, pair: Pair) -> None:
        self.rng, self.pair, self.case = rng, pair, pair.case
        self.talks: list[Talk] = []
        self.port = 30000
        self.seen: list[tuple[str, bytes]] = []

    def step(self) -> None:
        """One packet, perhaps as fragments."""
        rng = self.rng
        dice = rng.random()
        if not self.talks or (len(self.talks) < 4 and dice < 0.05):
            self.talks.append(self._begin())
        if dice < 0.2:
            expected = sorted(self.pair.box.expectations(), key=_order)
            if expected:
                self._data(rng.choice(expected))
                return
        if dice < 0.25:
            self._tftp()
            return
        talk = rng.choice(self.talks[-4:])
        if dice < 0.32 and talk.step > 8 and self.seen:
            self._error()
            return
        iface, packet = talk.next()
        for name, out in self.send(iface, packet):
            if protocol(out) == TCP:
                self.seen = [*self.seen[-10:], (name, out)]
                end = talk.client if name == talk.client.iface else talk.server
                if ports(out) == (end.peer[1], end.own[1]) and addresses(out)[1] == end.own[0]:
                    end.receive(out)
        if talk.step > 40:
            self.talks.remove(talk)

    def send(self, iface: str, packet: bytes) -> list[tuple[str, bytes]]:
        """Whole, or in two fragments."""
        size = len(packet) - header_length(packet)
        if packet[0] >> 4 == 4 and size > 40 and self.rng.random() < 0.1:
            cut = self.rng.randrange(24, size, 8)
            head = header_length(packet)
            first = _fragment(packet[: head + cut], 0x2000)
            self.pair.send(iface, first)
            return whole(self.pair.send(iface, _fragment(packet[:head] + packet[head + cut :], cut >> 3)))
        return self.pair.send(iface, packet)

    def _begin(self) -> Talk:
        rng, case = self.rng, self.case
        six = rng.random() < 0.4
        self.port += 1
        outside = "2600::1" if six else "93.184.216.34"
        inside = ("fd00:1::2", "fd00:1::3") if six else ("10.0.0.2", "10.0.0.3")
        start = rng.choice((1000, 0xFFFFFF00, rng.randrange(1 << 32)))
        if case.inside:
            public = case.public[six]
            client = End(rng, (outside, self.port), (public, 21), "out0", False, start)
            server = End(rng, (inside[0], 21), (outside, self.port), "in0", True, rng.randrange(1 << 32))
        else:
            own = rng.choice(inside)
            translated = {
                "masquerade": ("198.51.100.1", "2001:db8:2::1"),
                "longer address": ("198.51.100.201", "2001:db8:2:3:4:5:6:7"),
            }.get(case.name, (own, own))[six]
            client = End(rng, (own, self.port), (outside, 21), "in0", False, start)
            server = End(rng, (outside, 21), (translated, self.port), "out0", True, rng.randrange(1 << 32))
        return Talk(rng, client, server)

    def _data(self, expected: dict[str, Any]) -> None:
        """Somebody connects as announced, or nearly so."""
        rng, wanted = self.rng, expected["tuple"]
        source, target = wanted["src"], wanted["dst"]
        iface = "in0" if source.startswith(("10.", "fd00:1:")) else "out0"
        if iface == "in0" and target.startswith(("10.", "fd00:1:")):
            return
        if rng.random() < 0.1 and self.case.nat is None:
            source = "2600::99" if ":" in source else "93.184.216.99"
            if iface == "in0":
                return
        port = rng.randrange(1024, 65536)
        proto, dport = expected["proto"], wanted["dport"]
        if proto == UDP:
            packet = ip(source, target, UDP, udp(port, dport, b"\0\3\0\1data"))
        else:
            packet = ip(source, target, TCP, tcp(port, dport, "S", rng.randrange(1 << 32)))
        outs = self.send(iface, packet)
        for name, out in outs:
            if protocol(out) not in (TCP, UDP) or rng.random() < 0.4:
                continue
            src, dst = addresses(out)
            sport, dport = ports(out)
            heard = int.from_bytes(out[header_length(out) + 4 :][:4], "big") + 1 & 0xFFFFFFFF
            l4 = udp(dport, sport, b"\0\4\0\1") if protocol(out) == UDP else tcp(dport, sport, "SA", 7, heard)
            self.send(name, ip(dst, src, protocol(out), l4))

    def _error(self) -> None:
        """A host complains about a segment that it got; the four octets before the quote are anything."""
        iface, about = self.rng.choice(self.seen)
        src, dst = addresses(about)
        rest = self.rng.choice((0, 1400, self.rng.randrange(1 << 32))).to_bytes(4, "big")
        kind, code, proto = (1, 3, ICMPV6) if about[0] >> 4 == 6 else (3, 1, ICMP)
        message = icmp_error(kind, code, about[: self.rng.randrange(48, 100)])
        self.pair.send(iface, ip(dst, src, proto, message[:4] + rest + message[8:]))

    def _tftp(self) -> None:
        rng = self.rng
        six = rng.random() < 0.4
        outside = "2600::1" if six else "93.184.216.34"
        inside = "fd00:1::2" if six else "10.0.0.2"
        client, server, iface = (inside, outside, "in0")
        if self.case.inside:
            client, server, iface = outside, self.case.public[six], "out0"
        payload = rng.choice((b"\0\1boot\0octet\0", b"\0\2boot\0octet\0", b"\0\1", b"\0", b"\0\4\0\1", b"\1\0ab"))
        self.send(iface, ip(client, server, UDP, udp(rng.choice((2000, 2001, 2002)), 69, payload)))


def whole(outs: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """What a host makes of fragments."""
    if len(outs) < 2:
        return outs
    pieces = sorted((int.from_bytes(out[6:8], "big") & 0x1FFF, out) for _, out in outs)
    first = pieces[0][1]
    return [(outs[0][0], _fragment(first + b"".join(out[header_length(out) :] for _, out in pieces[1:]), 0))]


def _fragment(packet: bytes, word: int) -> bytes:
    from packets import checksum

    head = bytearray(packet[: header_length(packet)])
    head[2:4] = len(packet).to_bytes(2, "big")
    head[6:8] = word.to_bytes(2, "big")
    head[10:12] = b"\0\0"
    head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[len(head) :]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_talks_end_in_the_same_octets_table_expectations_and_events(case: Case) -> None:
    pair = Pair(case)
    try:
        traffic = Traffic(random.Random(f"{SEED} {case.name}"), pair)
        for _ in range(STEPS):
            traffic.step()
    finally:
        pair.box.close()
