"""The five hooks of one family, and what stands on them in order of priority.

    PREROUTING    -400 defrag  -300 raw  -200 conntrack  -150 mangle  -100 nat (DST)
    LOCAL_IN      -150 mangle  0 filter  50 security  100 nat (SRC)  last: confirm
    FORWARD       -150 mangle  0 filter  50 security
    LOCAL_OUT     -400 defrag  -300 raw  -200 conntrack  -150 mangle  -100 nat (DST)  0 filter  50 security
    POSTROUTING   -150 mangle  100 nat (SRC)  last: confirm

One rule: a step here is one public step of the engine, or one walk through a table.  What no rule needs is not
there: tracking, defragmentation and confirmation stand on their hooks only while a rule of the family asks for
connections, translation only while the family has a nat table.

Sources: netfilter_ipv4.h (nf_ip_hook_priorities), nf_conntrack_proto.c, nf_defrag_ipv4.c, nf_nat_proto.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .. import reasons
from ..conn import Template
from ..tuples import DEFAULT_ZONE, Zone
from ..verdict import (
    ACCEPT,
    DROP,
    DST,
    FORWARD,
    HELD,
    LOCAL_IN,
    LOCAL_OUT,
    POSTROUTING,
    PREROUTING,
    SRC,
    UNTRACKED,
)
from ..wire.packet import Packet
from .box import Box
from .rules import Chain, Ruleset, Table, walk
from .skb import Skb

Step = Callable[[Skb, int], str]

# fmt: off
ORDER: Final = {
    PREROUTING:  ("defrag", "raw", "conntrack", "mangle", "nat"),
    LOCAL_IN:    ("mangle", "filter", "security", "nat", "confirm"),
    FORWARD:     ("mangle", "filter", "security"),
    LOCAL_OUT:   ("defrag", "raw", "conntrack", "mangle", "nat", "filter", "security"),
    POSTROUTING: ("mangle", "nat", "confirm"),
}
# fmt: on
_TRACKING: Final = frozenset(("defrag", "conntrack", "confirm"))
_MANIP: Final = {PREROUTING: DST, LOCAL_OUT: DST, LOCAL_IN: SRC, POSTROUTING: SRC}
_OUTPUT_QUEUE: Final = 1 << 16  # fragments made here never meet those that arrive

# How a packet's way may end on a hook: the fates of `outcome.Traces`.
DROPPED: Final = "dropped"
CT_DROP: Final = "ct_drop"
HELD_BACK: Final = "held"


class Hooks:
    """The hooks of one family with the steps that its rules need."""

    __slots__ = ("_box", "_chains", "_nat_registered", "_note", "_reroute", "_steps", "tracking")

    def __init__(
        self, box: Box, rules: Ruleset, reroute: Callable[[Skb], bool], note: Callable[[Packet], None]
    ) -> None:
        self._box = box
        self._note = note  # is told of each packet that was tracked, or dropped for its connection's sake
        self._reroute = reroute  # finds the way of a packet of the box anew; False: none
        self._chains: dict[tuple[str, int], tuple[Table, Chain]] = {}
        for hook, names in ORDER.items():
            for name in names:
                found = rules.base(name, hook)
                if found is not None:
                    self._chains[name, hook] = found
        self._nat_registered = rules.has_nat
        self.tracking = rules.needs_conntrack
        steps: dict[str, Step] = {
            "defrag": self._defrag,
            "raw": self._raw,
            "conntrack": self._conntrack,
            "mangle": self._mangle,
            "nat": self._nat,
            "filter": self._filter,
            "security": self._security,
            "confirm": self._confirm,
        }
        self._steps = {
            hook: tuple(steps[name] for name in names if self._stands(name, hook)) for hook, names in ORDER.items()
        }

    def _stands(self, name: str, hook: int) -> bool:
        if name in _TRACKING:
            return self.tracking
        if name == "nat":
            return self._nat_registered
        return (name, hook) in self._chains

    def run(self, skb: Skb, hook: int) -> bool:
        """Take the packet through the hook; False: its way ended here, and `skb.fate` says how."""
        for step in self._steps[hook]:
            fate = step(skb, hook)
            if fate:
                skb.fate = fate
                conn = skb.conn
                if conn is not None and not skb.borrowed:
                    self._box.engine.drop(conn)
                skb.packet.verdict = HELD if fate == HELD_BACK and skb.packet.verdict == HELD else DROP
                return False
        return True

    # ── steps: "" and on, or the fate ───────────────────────────────────────────────────────────────

    def _defrag(self, skb: Skb, hook: int) -> str:
        packet = skb.packet
        if not packet.fragment:
            return ""
        whole = self._box.engine.gather(packet, _OUTPUT_QUEUE if hook == LOCAL_OUT else 0, skb.iface)
        if whole.verdict == HELD:
            return HELD_BACK
        skb.packet = whole
        return ""

    def _raw(self, skb: Skb, hook: int) -> str:
        return HELD_BACK if self._walk("raw", skb, hook) == DROP else ""

    def _conntrack(self, skb: Skb, hook: int) -> str:
        if skb.conn is not None or skb.ctinfo == UNTRACKED:
            return ""  # seen already (loopback, a reply made here), or not to be tracked
        packet, template = skb.packet, skb.template
        zone = DEFAULT_ZONE if template is None else _zone(template, skb.mark)
        skb.conn, skb.ctinfo = self._box.engine.enter(packet, hook, zone, template)
        self._note(packet)
        return CT_DROP if packet.verdict == DROP else ""

    def _mangle(self, skb: Skb, hook: int) -> str:
        before = _steering(skb) if hook == LOCAL_OUT else ()
        if self._walk("mangle", skb, hook) == DROP:
            return DROPPED
        if hook == LOCAL_OUT and _steering(skb) != before and not self._reroute(skb):
            return DROPPED
        return ""

    def _nat(self, skb: Skb, hook: int) -> str:
        conn = skb.conn
        if conn is None:
            return ""
        engine, packet, manip = self._box.engine, skb.packet, _MANIP[hook]
        before = packet.addresses() if hook in (PREROUTING, LOCAL_OUT) else b""
        if engine.undecided(conn, skb.ctinfo, packet, manip) and self._walk("nat", skb, hook) == DROP:
            return DROPPED
        engine.translate(conn, skb.ctinfo, packet, manip, hook, skb.iface, skb.out_iface or None)
        if packet.verdict == DROP:
            return DROPPED
        if before and packet.addresses() != before:
            if hook == PREROUTING:
                skb.route = None  # a packet from lo brought one [nf_nat_ipv4_pre_routing, nf_nat_ipv6_in]
            elif not self._reroute(skb):
                return DROPPED
        return ""

    def _filter(self, skb: Skb, hook: int) -> str:
        return DROPPED if self._walk("filter", skb, hook) == DROP else ""

    def _security(self, skb: Skb, hook: int) -> str:
        return DROPPED if self._walk("security", skb, hook) == DROP else ""

    def _confirm(self, skb: Skb, hook: int) -> str:
        conn = skb.conn
        if conn is None:
            return ""
        skb.conn = self._box.engine.leave(conn, skb.ctinfo, skb.packet, skb.iface == "lo")
        if skb.packet.verdict != DROP:
            return ""
        self._note(skb.packet)
        return DROPPED

    def _walk(self, table: str, skb: Skb, hook: int) -> str:
        found = self._chains.get((table, hook))
        if found is None:
            return ACCEPT  # translation stands on all its hooks, whichever chains there are
        verdict = walk(*found, skb, hook, self._box)
        packet = skb.packet
        if verdict == DROP and not packet.fault:
            packet.fault = reasons.RULE_DROP
            packet.numbers = (table, found[1].name)
        return verdict


def _steering(skb: Skb) -> tuple[object, ...]:
    """What sends a packet of the box another way if the mangle table changes it [nf_route_table_hook4, 6]."""
    packet = skb.packet
    head = packet.data[1] if packet.family == 4 else (bytes(packet.data[:4]), packet.data[7])
    return skb.mark, packet.addresses(), head


def _zone(template: Template, mark: int) -> Zone:
    """Where a template says to look; `--zone mark` takes the low 16 bits of the packet's mark."""
    zone = Zone(mark & 0xFFFF, template.zone.directions) if template.mark_zone else template.zone
    return DEFAULT_ZONE if zone.id == 0 else zone
