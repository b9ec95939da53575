"""What helpers do to connections: assign them, let them read, carry their answers out, welcome what was expected.

One rule: everything that touches the table of expectations, a packet or a connection on a helper's behalf stands
here, so that a helper is a function of octets.

    new connection ─► expected? ─ yes ─► RELATED to its master, its mark, its translation
                          └ no ─► assign: the template's helper, or the one of the destination port
    its packets    ─► read ─► Expect: add, search a port │ Edit: mangle, remember the shift ─► renumber

Sources: nf_conntrack_core.c (init_conntrack), nf_conntrack_helper.c (__nf_ct_try_assign_helper),
nf_conntrack_proto.c (nf_confirm), nf_nat_helper.c (nf_nat_exp_find_port) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .. import reasons
from ..choices import ChoiceSource
from ..conn import Conn
from ..expect import ADDED, BUSY, Expectation, Expectations
from ..nat import mangle, seqadj
from ..nat.choose import Chooser
from ..nat.expected import follow_master
from ..stats import Stats
from ..tuples import bare
from ..verdict import (
    ASSISTED,
    DROP,
    ESTABLISHED,
    ESTABLISHED_REPLY,
    EXPECTED,
    HELPER,
    NAT_MASK,
    ORIGINAL,
    PROTOCOL_NAMES,
    RELATED_REPLY,
    REPLY,
    SEQ_ADJUST,
    TCP,
)
from ..wire.packet import Packet
from . import Edit, Expect, Helper, View
from .registry import HELPERS

_ATTEMPTS: Final = 128  # further ports tried for an expectation: nf_nat_exp_find_port


class HelperHook:
    """Helpers of one engine.  `ports` says which helper new connections get by protocol and destination port."""

    __slots__ = ("_choices", "_chooser", "_expectations", "_stats", "ports")

    def __init__(
        self,
        ports: Mapping[tuple[str, int], str] | None,
        expectations: Expectations,
        chooser: Chooser,
        choices: ChoiceSource,
        stats: Stats,
    ) -> None:
        self.ports = _by_port(ports or {})
        self._expectations = expectations
        self._chooser = chooser
        self._choices = choices
        self._stats = stats

    # --- new connections -------------------------------------------------------------------------------

    def expected(self, conn: Conn) -> bool:
        """Is a new connection one that was expected?  Then it gets what that implies."""
        found = self._expectations.match(bare(conn.orig), conn.proto, conn.extra.zone.id)
        if found is None:
            return False
        extra = conn.own_extra()
        extra.master = found.master
        extra.mark = found.master.extra.mark
        conn.status |= EXPECTED
        if found.assign in HELPERS:
            extra.helper = found.assign
            conn.status |= ASSISTED
        self._stats.expect_new += 1
        if found.follow:
            follow_master(self._chooser, conn, found)
        return True

    def assign(self, conn: Conn, name: str) -> None:
        """Give a new connection the helper that its template names, or else the one of its destination port."""
        helper = HELPERS.get(name or self.ports.get((conn.proto, bare(conn.orig)[-2:]), ""))
        if helper is not None and helper.proto == conn.proto:
            conn.own_extra().helper = helper.name
            conn.status |= HELPER | ASSISTED

    # --- packets ---------------------------------------------------------------------------------------

    def pass_through(self, conn: Conn, ctinfo: int, packet: Packet, loopback: bool) -> None:
        """What the last hook does before it confirms [nf_confirm]: the helper, then sequence adjustment.

        May change the packet, or set DROP.  `loopback`: it came in by the loopback device, adjusted already.
        """
        if ctinfo == RELATED_REPLY:
            return
        adjusts = bool(conn.status & SEQ_ADJUST) and not loopback  # a packet that is changed here is not shifted
        direction = REPLY if ctinfo == ESTABLISHED_REPLY else ORIGINAL
        mangled = False
        helper = HELPERS.get(conn.extra.helper)
        if helper is not None and packet.proto == conn.proto and packet.end == packet.length:
            mangled = self._help(helper, conn, ctinfo, direction, packet)
            if packet.verdict == DROP:
                return
        area = conn.extra.seqadj
        if adjusts and area is not None:
            if not seqadj.adjust(packet, area, direction):
                self._stats.drop += 1
                self._drop(packet, reasons.SEQ_ADJUST)
            elif mangled:
                mangle.sum_anew(packet)

    def ack_shift(self, conn: Conn, direction: int, packet: Packet) -> int:
        """What tracking has to take from an acknowledgement and from SACK edges."""
        area = conn.extra.seqadj
        if area is None or packet.lacks(12):
            return 0
        at = packet.l4 + 8
        ack = int.from_bytes(packet.data[at : at + 4], "big")
        return seqadj.shift(area, 1 - direction, (ack - 1) & 0xFFFFFFFF)

    def _help(self, helper: Helper, conn: Conn, ctinfo: int, direction: int, packet: Packet) -> bool:
        """Let the helper read and carry its answer out; was the payload edited?"""
        if helper.contiguous and ctinfo in (ESTABLISHED, ESTABLISHED_REPLY):
            mangle.join(packet)
        data, l4 = packet.data, packet.l4
        start = mangle.payload_at(packet)
        seq = int.from_bytes(data[l4 + 4 : l4 + 8], "big") if conn.proto == TCP else 0
        view = View(
            bytes(data[start:]),
            seq,
            direction,
            ctinfo,
            bare(conn.orig),
            bare(conn.reply),
            bool(conn.status & NAT_MASK),
            conn.extra.helper_memory,
        )
        answer = helper.read(view)
        if answer.memory != view.memory:
            conn.own_extra().helper_memory = answer.memory
        if answer.reason:
            self._drop(packet, answer.reason, answer.numbers)
            return False
        edited = False
        made: Expectation | None = None
        for action in answer.actions:
            if isinstance(action, Expect):
                made, reason = self._expect(helper, conn, action)
                if made is None:
                    self._drop(packet, reason, (helper.name,))
                    break
            elif not self._edit(conn, direction, packet, action, seq, made):
                if made is not None:
                    self._expectations.remove(made)
                self._drop(packet, reasons.HELPER_MANGLE, (helper.name,))
                break
            else:
                edited = True
        return edited

    def _expect(self, helper: Helper, conn: Conn, wanted: Expect) -> tuple[Expectation | None, str]:
        """(the expectation, ""), or (None, why not)."""
        policy = helper.policies[wanted.kind]
        new = _expectation(helper, conn, wanted, wanted.dport)
        result, new = self._expectations.add(new, policy)
        if not wanted.search:
            return (new, "") if result == ADDED else (None, reasons.HELPER_EXPECT)
        port, span = wanted.dport, 0xFFFF - wanted.dport
        left = min(span, _ATTEMPTS)
        while result == BUSY and left > 0:
            left -= 1
            port = wanted.dport + self._choices.expect_port(new.key) % span
            result, new = self._expectations.add(_expectation(helper, conn, wanted, port), policy)
        # Port 0 is how the kernel's search says that it failed, also where port 0 was wanted and found.
        return (new, "") if result == ADDED and port else (None, reasons.HELPER_PORTS)

    def _edit(
        self, conn: Conn, direction: int, packet: Packet, edit: Edit, seq: int, made: Expectation | None
    ) -> bool:
        text = edit.text
        if not isinstance(text, bytes):
            text = text(int.from_bytes(made.key[-2:], "big") if made is not None else 0)
        if not mangle.mangle(packet, edit.at, edit.length, text):
            return False
        by = len(text) - edit.length
        if by and conn.proto == TCP:
            area = conn.extra.seqadj
            if area is not None:
                conn.own_extra().seqadj = seqadj.resized(area, direction, seq, by)
                conn.status |= SEQ_ADJUST
        return True

    def _drop(self, packet: Packet, reason: str, numbers: tuple[int | str, ...] = ()) -> None:
        packet.verdict = DROP
        packet.fault = reason
        packet.numbers = numbers


def _expectation(helper: Helper, conn: Conn, wanted: Expect, port: int) -> Expectation:
    """`wanted` as an expectation of `conn` for destination port `port` [nf_ct_expect_init]."""
    size = len(wanted.dst)
    source, source_mask = bytes(size), bytes(size)
    if wanted.src:
        source, source_mask = wanted.src, wanted.src_mask or b"\xff" * size
    port_mask = b"\0\0" if wanted.sport < 0 else b"\xff\xff"
    return Expectation(
        conn,
        source + wanted.dst + max(wanted.sport, 0).to_bytes(2, "big") + port.to_bytes(2, "big"),
        source_mask + b"\xff" * size + port_mask + b"\xff\xff",
        wanted.proto,
        helper.name,
        kind=wanted.kind,
        flags=wanted.flags,
        assign=wanted.assign,
        follow=wanted.follow,
        saved_port=wanted.saved_port,
        direction=wanted.direction,
    )


def _by_port(ports: Mapping[tuple[str, int], str]) -> dict[tuple[int, bytes], str]:
    """Checked and in the form that `assign` looks up.  Raises ValueError quoting what is wrong."""
    numbers = {name: number for number, name in PROTOCOL_NAMES.items()}
    out = {}
    for place, name in ports.items():
        helper = HELPERS.get(name)
        if helper is None:
            raise ValueError(f"unknown helper {name!r}: there are {', '.join(HELPERS)}")
        protocol, port = place
        if numbers.get(protocol) != helper.proto:
            raise ValueError(f"helper {name!r} is for {PROTOCOL_NAMES[helper.proto]}, not for {place!r}")
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"helper {name!r}: {place!r} names no port")
        out[helper.proto, port.to_bytes(2, "big")] = name
    return out
