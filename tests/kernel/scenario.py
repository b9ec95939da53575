"""A scenario: a box and what happens to it, as plain data; either side plays it and leaves a transcript.

    {"name": …, "box": {"interfaces": …, "routes": …, "rules": …, …}, "steps": [{"op": "receive", …}, …]}

    op        other fields                       what happens
    receive   iface, packet (hex)                a packet arrives
    send      packet                             the box itself sends one
    rules     rules, rules6 (either may be absent)  new rules
    sysctl    name, value                        a sysctl changes
    address   iface, address, present            an address comes or goes
    link      iface, up                          a device goes up or down
    route     route, present                     a route comes or goes
    flush                                        `conntrack -F`
    sleep     seconds                            time passes

One rule: a step means the same to the kernel and to a Host; whatever has to differ is the sides' business
(`KernelSide`, `host_side.HostSide`), which answer each step with a record as `box.py` describes.

A transcript is a scenario with what the kernel answered.  Tables are written as what changed since the last step,
so that it stays small.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from box import KernelBox

Step = dict[str, Any]
Record = dict[str, Any]

# The box of most scenarios.
INTERFACES = {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}
ROUTES = ["default dev out0"]
SYSCTL = {
    "nf_conntrack_acct": 1,
    # errors as many as are due: the limits have scenarios of their own
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv4.icmp_msgs_per_sec": 1000000,
    "net.ipv4.icmp_msgs_burst": 1000000,
    "net.ipv6.icmp.ratelimit": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    **{f"net.ipv4.conf.{device}.send_redirects": 0 for device in INTERFACES},
}

MACHINE = ("nf_conntrack_max", "nf_conntrack_buckets")  # not the namespace's: see `machine.py`


@dataclass
class Scenario:
    """See the module."""

    name: str
    box: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, rules: str = "", rules6: str = "", **more: Any) -> Scenario:
        """A scenario in the usual box; `more` replaces parts of it (sysctl: adds to it)."""
        sysctl = {**SYSCTL, **more.pop("sysctl", {})}
        box = {"interfaces": INTERFACES, "routes": ROUTES, "rules": rules, "rules6": rules6, "sysctl": sysctl}
        return cls(name, {**box, **more})

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "box": self.box, "steps": self.steps}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Scenario:
        """The scenario that `to_dict` gave."""
        return cls(data["name"], data["box"], data["steps"])


class Side(Protocol):
    """One of the two who play."""

    def play(self, step: Step) -> Record:
        """Do one step; what came of it."""

    def close(self) -> None:
        """Let go of everything."""


class KernelSide:
    """The running kernel plays."""

    def __init__(self, scenario: Scenario) -> None:
        sysctl = {name: value for name, value in scenario.box.get("sysctl", {}).items() if name not in MACHINE}
        self.box = KernelBox(**{**scenario.box, "sysctl": sysctl})

    def play(self, step: Step) -> Record:
        """One step."""
        box, op = self.box, step["op"]
        if op == "receive":
            return box.receive(bytes.fromhex(step["packet"]), step["iface"])
        if op == "send":
            return box.send(bytes.fromhex(step["packet"]))
        if op == "rules":
            box.set_rules(step.get("rules"), step.get("rules6"))
        elif op == "sysctl":
            box.sysctl[step["name"]] = step["value"]
        elif op == "address":
            box.set_address(step["iface"], step["address"], step["present"])
        elif op == "link":
            box.set_link(step["iface"], step["up"])
        elif op == "route":
            box.set_route(step["route"], step["present"])
        elif op == "flush":
            box.flush()
        elif op == "sleep":
            time.sleep(step["seconds"])
        else:
            raise ValueError(f"unknown step {op!r}")
        return box.tick()

    def close(self) -> None:
        """Let the namespace go."""
        self.box.close()


# ── transcripts ─────────────────────────────────────────────────────────────────────────────────────


def record(scenario: Scenario) -> dict[str, Any]:
    """Let the kernel play; the transcript."""
    side = KernelSide(scenario)
    try:
        answers = [side.play(step) for step in scenario.steps]
    finally:
        side.close()
    return transcript(scenario, answers)


def transcript(scenario: Scenario, answers: list[Record]) -> dict[str, Any]:
    """A scenario and the kernel's answers as plain data."""
    packed, before = [], {}
    for answer in answers:
        table = {row_key(conn): conn for conn in answer["table"]}
        changed = [conn for key, conn in table.items() if before.get(key) != conn]
        gone = [key for key in before if key not in table]
        rest = {name: value for name, value in answer.items() if name != "table" and value}
        packed.append({**rest, "changed": changed, "gone": gone})
        before = table
    return {"kernel": os.uname().release, "scenario": scenario.to_dict(), "answers": packed}


def answers_of(transcript: dict[str, Any]) -> Iterator[Record]:
    """The kernel's answers of a transcript as they were."""
    table: dict[str, Record] = {}
    for packed in transcript["answers"]:
        for key in packed["gone"]:
            del table[key]
        table |= {row_key(conn): conn for conn in packed["changed"]}
        empty: Record = {"fate": "", "ctinfo": "", "direction": "", "out": [], "local": [], "log": [], "events": []}
        empty |= {"stats": {}, "expectations": [], "heads": [], "own": [], "own_log": []}
        yield {**empty, **packed, "table": list(table.values())}


def row_key(conn: Record) -> str:
    """What tells two connections of a table apart."""
    parts = (conn["proto"], conn.get("zone", 0), *conn["orig"].values(), *conn["reply"].values())
    return " ".join(str(part) for part in parts)
