"""The NAT hook: ask the rules once per connection and half, then rewrite every packet.

Only a packet that begins something (NEW, RELATED) may find its half undecided; then the first rule of that half
that matches decides, and without one the connection is bound to what it has.  Everything else is replay.

Sources: nf_nat_core.c (nf_nat_inet_fn, nf_nat_packet), nf_nat_proto.c (nf_nat_ipv4_fn), nf_nat_masquerade.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import reasons
from ..choices import ChoiceSource
from ..conn import Conn
from ..stats import Stats
from ..table import Table
from ..tuples import bare, invert
from ..verdict import (
    DROP,
    ESTABLISHED_REPLY,
    ICMP,
    ICMPV6,
    NEW,
    ORIGINAL,
    POSTROUTING,
    RELATED,
    RELATED_REPLY,
    REPLY,
)
from ..wire.packet import Packet
from . import rewrite
from .choose import DONE, Chooser
from .ranges import null_binding
from .rules import CompiledRule, NatRule, plain_rules

OTHER_INTERFACE = "interface"  # why a masqueraded connection ends that leaves by another interface


class NatHook:
    """Rules and mappings of one engine.  `registered` is False without rules (None, not an empty list): then no
    packet comes here, and not even the null binding can change a port."""

    __slots__ = ("_rules", "_table", "chooser", "plain4", "plain6", "registered")

    def __init__(self, rules: Sequence[NatRule] | None, table: Table, choices: ChoiceSource, stats: Stats) -> None:
        self.registered = rules is not None
        self.chooser = Chooser(table, choices, stats)
        self._table = table
        self._rules = tuple(CompiledRule(rule) for rule in rules or ())
        # What the fast path can decide: (mask, network, address) of each rule of the family; None: the stages do.
        self.plain4 = plain_rules(self._rules, 4)
        self.plain6 = plain_rules(self._rules, 16)

    def translate(
        self,
        conn: Conn,
        ctinfo: int,
        packet: Packet,
        manip: int,
        hook: int,
        iface: str | None,
        out_iface: str | None,
    ) -> None:
        """Half `manip` (SRC or DST) of a packet at `hook`: decide if undecided, then rewrite, or set DROP."""
        direction = REPLY if ctinfo in (ESTABLISHED_REPLY, RELATED_REPLY) else ORIGINAL
        related = ctinfo in (RELATED, RELATED_REPLY)
        if related and packet.proto in (ICMP, ICMPV6):
            reason = rewrite.translate_error(packet, conn, manip, direction)
        else:
            if (related or ctinfo == NEW) and not conn.status & DONE[manip]:
                self._decide(conn, manip, iface, out_iface)
            elif hook == POSTROUTING and direction == ORIGINAL and _leaves_elsewhere(conn, out_iface):
                if conn.traffic_orig >= 0:
                    # counted once more at its end, and its journal entry is the deletion's [nf_ct_kill_acct]
                    if self._table.journal is not None:
                        self._table.journal.touch(conn)
                    conn.count(ORIGINAL, packet.length)
                self._table.delete(conn, OTHER_INTERFACE)
                packet.verdict = DROP
                packet.fault = reasons.MASQUERADE_INTERFACE
                return
            if not rewrite.changes(conn, manip, direction):
                return
            reason = rewrite.translate(packet, conn, manip, direction)
        if reason:
            packet.verdict = DROP
            packet.fault = reason

    def undecided(self, conn: Conn, ctinfo: int, packet: Packet, manip: int) -> bool:
        """Does this packet begin something whose half `manip` is not decided yet?"""
        if conn.status & DONE[manip]:
            return False
        return ctinfo == NEW or (ctinfo in (RELATED, RELATED_REPLY) and packet.proto not in (ICMP, ICMPV6))

    def _decide(self, conn: Conn, manip: int, iface: str | None, out_iface: str | None) -> None:
        """Ask the rules of `manip`, else bind to what the packet has."""
        key = invert(bare(conn.reply), conn.proto)
        for rule in self._rules:
            if rule.manip == manip:
                nat_range = rule.range_for(key, conn.proto, iface, out_iface)
                if nat_range is not None:
                    self.chooser.setup(conn, nat_range, manip)
                    if rule.masquerade and out_iface is not None:
                        conn.own_extra().out_iface = out_iface
                    return
        self.chooser.setup(conn, null_binding(key, manip), manip)


def _leaves_elsewhere(conn: Conn, out_iface: str | None) -> bool:
    """A masqueraded connection has the address of one interface; by another it cannot go on."""
    chosen = conn.extra.out_iface
    return chosen is not None and out_iface is not None and out_iface != chosen
