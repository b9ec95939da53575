"""A `conntrack.netfilter.Host` plays a scenario, with the kernel's draws in its hand.

One rule: what it answers has the shape of the kernel's answer (`box.py`), and nothing in it is taken from there but
the time and what the kernel drew at random:

    port or identifier of a translation      read off the packet behind the NAT hook; a legal draw or a difference
    identification of IPv6 fragments         read off the fragments
    IPv4 identification and IPv6 flow label of the box's own packets, ports of expectations, likewise

A dump deletes the expired entries it meets; the kernel's table is dumped after each step, so the Host's is reaped
then.
"""

from __future__ import annotations

import sys
from typing import Any

from generate import octets
from netlink import EXPECT_STATS, STATS
from scenario import Record, Scenario, Step, row_key

from conntrack.choices import Choices
from conntrack.netfilter.host import Host
from conntrack.wire.fields import COMPILED


class Drawn(Choices):
    """The kernel's draws of the present step, asked for in the Host's words."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heads: list[tuple[str, bytes]] = []
        self.own: list[bytes] = []
        self.events: list[Record] = []
        self.log: list[str] = []
        self.known: dict[str, Record] = {}
        self.made: list[Record] = []  # entries that the kernel has now and did not have before
        self.fragment_ids: list[int] = []
        self.evicted: list[list[Record]] = []  # who went for each newcomer to a full table
        self.found = self.found_before = 0  # tuples that the kernel, the Host so far, found taken in this step
        self.host: Host | None = None

    def take(self, answer: Record, found_before: int) -> None:
        """From now on the draws of this step."""
        self.heads = [(name, bytes.fromhex(data)) for name, data in answer["heads"]]
        self.heads[:0] = [("p", bytes.fromhex(data)) for data in answer["local"][:1]]
        self.own = [bytes.fromhex(data) for data in answer["own"]]
        self.events, self.log = answer["events"], answer["log"]
        rows = {row_key(conn): conn for conn in answer["table"]}
        self.made = [conn for key, conn in rows.items() if key not in self.known]
        gone = [conn for key, conn in self.known.items() if key not in rows]
        self.evicted = (_groups(answer["events"]) or [gone]) if "early_drop" in answer["stats"] else []
        self.known = rows
        self.found, self.found_before = answer["stats"].get("found", 0), found_before
        out = [bytes.fromhex(data) for _, data in answer["out"]]
        self.own += [packet for packet in out if packet not in self.own]  # no probe sees them where no rules stand
        numbers = (octets.fragment_id(packet) for packet in out if packet[0] >> 4 == 6)
        self.fragment_ids = [number for number in numbers if number is not None]

    def port_offset(self, key: bytes, proto: int) -> int:
        """The offset that leads to the port which the kernel used, over as many taken ones as it met.

        The range is the caller's and not told to who draws, so it is looked up there.
        """
        frame = _locals_of_caller()
        least, size, manip, at = frame["least"], frame["size"], frame["manip"], frame["at"]
        chooser, conn, current = frame["self"], frame["conn"], frame["key"]
        seen = self._mapped(conn, manip)
        if seen is None:
            seen = self._seen(manip, proto)
        if seen is None and manip == 0:
            seen = self._expected(conn, range(least, least + size))
        assert self.host is not None
        met = self.found - (self.host.engine.stats.found - self.found_before)

        def taken(number: int) -> bool:
            port = least + number % size
            there = current[:at] + (port & 0xFFFF).to_bytes(2, "big") + current[at + 2 :]
            return chooser._table.taken(chooser._reply_key(there, conn), conn)

        if seen is None or not least <= seen < least + size:
            # It went with its packet.  Which it was cannot be seen; that the kernel tried taken ones first, can.
            for first in range(size if met > 0 else 0):
                if all(taken(first + tried) for tried in range(met)) and not taken(first + met):
                    return first
            return super().port_offset(key, proto)
        offset = seen - least
        for _ in range(met - taken(offset)):
            before = (offset - 1) % size
            if not taken(before):
                break
            offset = before
        return offset

    def _mapped(self, conn: Any, manip: int) -> int | None:
        """The port or identifier in the entry that the kernel made in this step."""
        orig = conn.original.to_dict()
        for entry in (*self.made, *self.events):
            if entry["proto"] == conn.proto and _plain(entry.get("orig", {})) == orig:
                reply = entry["reply"]
                return int(reply["id"] if "id" in reply else reply["dport" if manip == 0 else "sport"])
        return None

    def _seen(self, manip: int, proto: int) -> int | None:
        """The source (manip SRC 0) or destination port behind that hook or as delivered; of ICMP the identifier."""
        for name, head in self.heads:
            number, l4 = octets.transport(head)
            if number != proto or len(l4) < 8 or (manip == 0 and name != "p"):
                continue
            if proto in (octets.ICMP, octets.ICMPV6):
                return int.from_bytes(l4[4:6], "big")
            return int.from_bytes(l4[:2] if manip == 0 else l4[2:4], "big")
        return None

    def _expected(self, conn: Any, ports: range) -> int | None:
        """The source port of a connection that ended with its packet, by what its helper expected or could not."""
        orig = conn.original.to_dict()
        for event in self.events:
            if event["event"] == "EXP_NEW" and _plain(event["master"]) == orig:
                return int(event["tuple"]["dport"])
        if any("cannot add expectation" in line for line in self.log):
            assert self.host is not None
            for other in self.host.expectations():
                to = other.to_dict(0)["tuple"]
                if to["src"] == orig["dst"] and to["dport"] in ports:
                    return int(to["dport"])
        return None

    def fragment_id(self, key: bytes) -> int:
        """Read off the fragments."""
        return self.fragment_ids[0] if self.fragment_ids else super().fragment_id(key)

    def expect_port(self, key: bytes) -> int:
        """Read off the expectation that the kernel made."""
        frame = _locals_of_caller()
        wanted, span = frame["wanted"].dport, frame["span"]
        made = [event["tuple"]["dport"] for event in self.events if event["event"] == "EXP_NEW"]
        return (made[0] - wanted) % span if made and span else super().expect_port(key)

    def ip_id(self, key: bytes) -> int:
        """Of the next own packet with these addresses and protocol."""
        for at, packet in enumerate(self.own):
            if packet[0] >> 4 == 4 and packet[12:20] + packet[9:10] == key:
                return int.from_bytes(self.own.pop(at)[4:6], "big")
        return super().ip_id(key)

    def flow_label(self, key: bytes) -> int:
        """Of the next own packet with these addresses."""
        for at, packet in enumerate(self.own):
            if packet[0] >> 4 == 6 and packet[8:40] == key[:32]:
                return int.from_bytes(self.own.pop(at)[1:4], "big") & 0xFFFFF
        return super().flow_label(key)

    def victims(self, key: bytes, proto: int) -> tuple[tuple[bytes, int], ...]:
        """The entries that are gone; which they are hangs on the kernel's secret hash."""
        assert self.host is not None
        alive = {(conn.proto, _values(conn.original.to_dict())): conn.orig for conn in self.host.engine.conns()}
        gone = self.evicted.pop(0) if self.evicted else []
        names = [(one["proto"], _values(_plain(one["orig"]))) for one in gone]
        return tuple((alive[name], name[0]) for name in names if name in alive)

    def icmp_credits(self, key: bytes) -> int:
        """Cannot be seen; boxes that compare have credit enough."""
        return 0


class Unseen(Exception):
    """A compiled caller's range cannot be looked up."""


def _locals_of_caller() -> dict[str, Any]:
    if COMPILED:
        raise Unseen
    return sys._getframe(2).f_locals


def _groups(events: list[Record]) -> list[list[Record]]:
    """The victims of early drop, in front of the newcomer that each group made room for; none without events."""
    groups: list[list[Record]] = [[]]
    for event in events:
        if event["event"] == "DESTROY":
            groups[-1].append(event)
        elif event["event"] == "NEW" and groups[-1]:
            groups.append([])
    return groups if groups[0] else []


def _values(end: Record) -> tuple[tuple[str, int | str], ...]:
    return tuple(sorted(end.items()))


def _plain(end: Record) -> Record:
    return {name: value for name, value in end.items() if name != "zone"}


class HostSide:
    """The Host plays; `play` needs the kernel's answer to the same step."""

    def __init__(self, scenario: Scenario, buckets: int) -> None:
        box = dict(scenario.box)
        box["sysctl"] = {"nf_conntrack_buckets": buckets, "nf_conntrack_log_invalid": 255, **box.get("sysctl", {})}
        self.choices = Drawn()
        self.host = Host(**box, choices=self.choices)
        self.choices.host = self.host
        self.steps = 0

    def play(self, step: Step, answer: Record) -> Record:
        """One step at the kernel's time; what came of it."""
        host, now, op = self.host, _stamped(answer), step["op"]
        self.choices.take(answer, host.engine.stats.found)
        before = self._counters()
        outcome: Any = None
        if op == "receive":
            outcome = host.receive(bytes.fromhex(step["packet"]), step["iface"], now)
        elif op == "send":
            outcome = host.send(bytes.fromhex(step["packet"]), now)
        else:
            outcomes = host.tick(now)
            self._change(step)
            outcomes += host.tick(now)
            outcome = outcomes
        record = self._record(outcome)
        after = self._counters()
        record["stats"] = {name: value - before[name] for name, value in after.items() if value != before[name]}
        host.engine.reap()
        self.steps += 1
        if self.steps % _CHECKED == 0:
            host.engine.check()
        record["table"] = [conn.to_dict(now) for conn in host.conns()]
        record["expectations"] = [expectation.to_dict(now) for expectation in host.expectations()]
        return record

    def _counters(self) -> dict[str, int]:
        stats = self.host.engine.stats
        return {name: getattr(stats, name) for name in (*STATS.values(), *EXPECT_STATS.values())}

    def _change(self, step: Step) -> None:
        host, op = self.host, step["op"]
        if op == "rules":
            host.set_rules(step.get("rules"), step.get("rules6"))
        elif op == "sysctl":
            host.sysctl[step["name"]] = step["value"]
        elif op == "address":
            host.set_address(step["iface"], step["address"], step["present"])
        elif op == "link":
            host.set_link(step["iface"], step["up"])
        elif op == "route":
            host.set_route(step["route"], step["present"])
        elif op == "flush":
            host.flush()

    def _record(self, outcome: Any) -> Record:
        if isinstance(outcome, list):
            merged: Record = {"fate": "", "ctinfo": "", "direction": "", "out": [], "local": [], "events": []}
            merged |= {"log": [], "reason": ""}
            for one in outcome:
                part = self._record(one)
                for name in ("out", "local", "events", "log"):
                    merged[name] += part[name]
            return merged
        return {
            "fate": outcome.fate,
            "ctinfo": outcome.ctinfo,
            "direction": outcome.direction,
            "out": [[name, packet.hex()] for name, packet in outcome.out],
            "local": [packet.hex() for packet in outcome.local],
            "events": [event.to_dict() for event in outcome.events],
            "log": list(outcome.traces.invalid),
            "reason": outcome.reason,
        }

    def meet(self, now: int) -> None:
        """As a dump at `now` (ns): expired entries end."""
        self.host.engine.advance(now)
        self.host.engine.reap()

    def deadlines(self) -> list[int]:
        """Moments (ns) at which something is going to change by itself."""
        times = []
        for conn in self.host.engine.conns():
            times.append(conn.deadline)
            if isinstance(conn.memory, int):
                times.append(conn.memory)
        return times + self.host._router._own.limits.turns()

    def close(self) -> None:
        """A last look at what it is made of."""
        self.host.engine.check()


_CHECKED = 10  # steps between two looks at the invariants, which walk every bucket
_DAY = 86_400_000  # milliseconds


def _stamped(answer: Record) -> int:
    """The time of the step (ns), or a moment later, if the box told the time of day and did so then."""
    began: int = answer["time"]
    packets = [data for _, data in answer["out"]] + answer["local"]
    for packet in map(bytes.fromhex, packets):
        for told in _times(packet):
            later = (int.from_bytes(told, "big") - began // 1_000_000) % _DAY
            if 0 < later < 100:
                return (began // 1_000_000 + later) * 1_000_000
    return began


def _times(packet: bytes) -> list[bytes]:
    """What may be a time of day in it: an ICMP timestamp reply's, the newest entry of an IPv4 timestamp option."""
    header = (packet[0] & 15) * 4
    if packet[0] >> 4 != 4:
        return []
    l4 = packet[header:]
    if packet[9] == octets.ICMP and l4[:1] == b"\x0e" and len(l4) >= 20:
        return [l4[16:20]]
    at = packet.find(b"\x44", 20, header)  # good enough: what is none does not lie within the next moments
    end = at + packet[at + 2] - 1 if 0 < at < header - 3 else 0
    return [packet[end - 4 : end]] if at + 8 <= end <= header else []
