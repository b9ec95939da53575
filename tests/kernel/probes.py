"""What the probes in a namespace saw of one packet, and what follows from it.

A table of nftables' own (`inet probe`) reports packets to NFLOG at the places below.  None of its rules needs
connection tracking, so the probes do not switch it on: its hooks stand only while a scenario's rule wants them.

    a  PREROUTING  -450   the packet passed the IP header checks; fragments still as they came
    b  PREROUTING  -201   it came out of reassembly and of the raw table
    c  PREROUTING  -199   right behind connection tracking, before any rule can drop it
    i  INPUT       last   delivered: registered before connection tracking's own last hook, so it runs behind it
    p  POSTROUTING  200   behind NAT, before confirmation: how the packet of a connection that fails there looked
    A  B  C  OUTPUT       a, b, c for packets made in the box

Where a scenario's rules have switched tracking on, `tracking_rules` add class and direction ("c:NEW:original").

What the box's own housekeeping says (multicast listener reports and the like) is dropped ahead of all of them.

One rule: fate is read off where a packet was last seen, never from what it should have been.

    not at a       ip_drop     not at b   held        not at c   ct_drop
    seen at i      local       seen at p and then left by a device   forwarded      otherwise   dropped

Sources: nft(8); nf_hook_entries_grow (core.c): of two hooks with one priority the later one registered runs first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import netlink

PLAIN, HEAD, WHOLE = 1, 2, 3  # NFLOG groups: no octets of the packet; the first 128; all
INVALID_GROUP = 0  # where nf_log_invalid writes when its logger is nfnetlink_log
_LAST = 2147483647

# fmt: off
_CHAINS = (
    # name         hook          priority  prefix  group
    ("arrived",    "prerouting", -450,     "a",    PLAIN),
    ("whole",      "prerouting", -201,     "b",    PLAIN),
    ("tracked",    "prerouting", -199,     "c",    PLAIN),
    ("delivered",  "input",      _LAST,    "i",    WHOLE),
    ("leaving",    "postrouting", 200,     "p",    HEAD),
    ("made",       "output",     -450,     "A",    HEAD),
    ("made_whole", "output",     -201,     "B",    PLAIN),
    ("made_tracked", "output",   -199,     "C",    PLAIN),
)
# fmt: on

RULES = (
    "add table inet probe\n"
    # MLDv1/2 reports, router and neighbour solicitations, of which the box makes some when addresses change
    "add chain inet probe silence { type filter hook output priority -500; }\n"
    "add rule inet probe silence ip6 daddr ff00::/8 icmpv6 type { 131, 132, 133, 135, 143 } drop\n"
    "add rule inet probe silence ip daddr 224.0.0.22 drop\n"
) + "".join(
    f"add chain inet probe {name} {{ type filter hook {hook} priority {priority}; }}\n"
    f'add rule inet probe {name} log prefix "{prefix}" group {group}\n'
    for name, hook, priority, prefix, group in _CHAINS
)

_STATES = [
    *((state, direction) for state in ("new", "established", "related") for direction in ("original", "reply")),
    *(("invalid", ""), ("untracked", "")),
]


def tracking_rules(family: str) -> str:
    """Probes that ask connection tracking itself, for a family (ip, ip6) where the rules have already switched it
    on: the class of a packet right behind it, and the packet between the two NAT hooks."""
    rules = f"add table {family} probe_ct\n"
    for name, hook in (("c", "prerouting"), ("C", "output")):
        rules += f"add chain {family} probe_ct {name} {{ type filter hook {hook} priority -198; }}\n"
        for state, direction in _STATES:
            match = f"ct state {state}" + (f" ct direction {direction}" if direction else "")
            prefix = f"{name}:{state.upper()}:{direction}"
            rules += f'add rule {family} probe_ct {name} {match} log prefix "{prefix}" group {PLAIN} accept\n'
        rules += (
            f"add chain {family} probe_ct d{name} {{ type filter hook {hook} priority -99; }}\n"
            f'add rule {family} probe_ct d{name} log prefix "d" group {HEAD}\n'
        )
    return rules


@dataclass(slots=True)
class Sight:
    """What was seen of one packet."""

    fate: str
    ctinfo: str = ""  # "" where tracking was not reached, or no hook of it stands
    direction: str = ""
    local: list[bytes] = field(default_factory=list)
    log: list[str] = field(default_factory=list)  # the kernel's own reasons, in order
    own: list[bytes] = field(default_factory=list)  # the first octets of packets that the box made in answer
    own_log: list[str] = field(default_factory=list)  # reasons about those
    heads: list[tuple[str, bytes]] = field(default_factory=list)  # (d or p, the first octets) behind each NAT hook


def bind(socket: netlink.Netlink) -> None:
    """Listen to the probes on `socket`, in the present namespace."""
    netlink.bind_log(socket, INVALID_GROUP, None)
    netlink.bind_log(socket, PLAIN, None)
    netlink.bind_log(socket, HEAD, 128)
    netlink.bind_log(socket, WHOLE, 0xFFFF)


def look(entries: list[dict[str, Any]], device: int, left: dict[int, int]) -> Sight:
    """Put together what the probes wrote about a packet that came in by `device` (0: made here).

    left      how many packets left, by device number
    """
    first, second, third = "abc" if device else "ABC"
    seen: dict[str, dict[str, Any]] = {}
    sight = Sight("dropped")
    own = dict.fromkeys(left, 0)
    for entry in entries:
        prefix, _, state = entry["prefix"].partition(":")
        mine = entry.get("in") == device if device else not sight.own
        if prefix == "A" and (device or "A" in seen):
            sight.own.append(entry["data"])
        if prefix.startswith("nf_ct_"):
            (sight.own_log if sight.own else sight.log).append(entry["prefix"])
        elif prefix in (first, second, third):
            if mine and state and "state" not in seen:
                sight.ctinfo, _, sight.direction = state.partition(":")
                seen["state"] = entry
            elif mine:
                seen.setdefault(prefix, entry)
        elif prefix == "d":
            sight.heads.append((prefix, entry["data"]))
        elif prefix == "i":
            sight.local.append(entry["data"])
            if mine and not sight.own:  # later it is a copy of what the box told everybody
                seen.setdefault("i", entry)
        elif prefix == "p":
            sight.heads.append((prefix, entry["data"]))
            if mine and "p" not in seen:
                seen["p"] = entry
            elif not mine or entry["data"] != seen["p"]["data"]:  # not the copy that the box itself hears
                own[entry["out"]] = own.get(entry["out"], 0) + 1
    if first not in seen:
        sight.fate = "ip_drop"
    elif second not in seen:
        sight.fate = "held"
    elif third not in seen:
        sight.fate = "ct_drop"
    elif "i" in seen:
        sight.fate = "local"
    elif "p" in seen:
        out = seen["p"]["out"]
        if left.get(out, 0) > own.get(out, 0):
            sight.fate = "forwarded"
    return sight
