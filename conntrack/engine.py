"""The engine: the picture as code.

               gc step (packet time)
                    │
 bytes ─► defragment ─► parse ─► tuple ─► lookup ───────► track ────► translate ─► confirm ─► bytes + verdict
          wire/*        wire/*   tuples   table          trackers/*     nat/*       table
                                            │ miss                         ▲
                                            └─► expectation? ─► new conn ──┘

`process` is the forwarding path of a box without rules, PREROUTING to POSTROUTING.  It is made of public steps
that a box with rules calls one by one from its hooks:

    advance(now)                                -> time passes: gc, fragments that waited too long
    receive(octets, wire_length)                -> packet: parsed and whole, or HELD
    enter(packet, hook, zone, template)         -> conn, ctinfo
    translate(conn, ctinfo, packet, manip, …)   -> the packet rewritten, or dropped
    leave(conn, ctinfo, packet)                 -> read by its helper, renumbered, confirmed (or dropped), events

Bad bytes never raise: they become INVALID, with a reason and a counter, and travel on unchanged.  Only a wrong
argument raises.  No socket, clock, thread or random number is used: time, seed and choices are given in.

Sources: nf_conntrack_core.c (nf_conntrack_in, resolve_normal_ct, init_conntrack, __nf_conntrack_confirm,
nf_ct_resolve_clash), nf_nat_core.c (nf_nat_inet_fn) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from . import reasons, verdict
from .choices import Choices, ChoiceSource, completed
from .conn import Conn, Template
from .events import EXP_DESTROY, EXP_NEW, EventStream, event_of, expectation_event_of
from .expect import EVENT_NEW as EXPECTATION_NEW
from .expect import Expectation, Expectations
from .expiry import EagerGc, LinuxGc
from .fast import FastPath
from .fresh import FreshPath
from .nat import rewrite
from .nat.hook import NatHook
from .nat.ranges import NatRange
from .nat.rules import NatRule
from .outcome import NO_TRACES, Outcome
from .stats import Stats
from .sysctl import SECOND, Settings, Sysctl
from .table import TIMEOUT, Table, direction_of
from .trackers import AGAIN, BAD, GONE, KILL, icmp, icmpv6, tcp
from .trackers.table import TRACKERS
from .trial import Trial
from .tuples import DEFAULT_ZONE, Zone, address_text, destination, invert, zoned
from .verdict import (
    ASSISTED,
    CONFIRMED,
    DROP,
    DST,
    DYING,
    ESTABLISHED,
    ESTABLISHED_REPLY,
    EVENT_HELPER,
    EVENT_MARK,
    EVENT_NEW,
    EVENT_PROTOINFO,
    EVENT_RELATED,
    EVENT_REPLY,
    EXPECTED,
    FIXED_TIMEOUT,
    HELD,
    ICMP,
    ICMPV6,
    INVALID,
    NAT_CLASH,
    NAT_DONE_MASK,
    NAT_MASK,
    NEW,
    ORIGINAL,
    POSTROUTING,
    PREROUTING,
    RELATED,
    RELATED_REPLY,
    REPLY,
    SEEN_REPLY,
    SEQ_ADJUST,
    SRC,
    TCP,
    UNTRACKED,
)
from .wire.checksum import PARTIAL, UNKNOWN
from .wire.fields import part
from .wire.packet import Packet, parse, quoted
from .wire.reassembly import Limits, Lost, Reassembler
from .wire.refragment import NO_MTU, refragment

if TYPE_CHECKING:
    from .helpers.hook import HelperHook

_CLASH_TIMEOUT: Final = SECOND  # how long the loser of a clash may be answered
_NAT_SETTLED: Final = NAT_DONE_MASK | NAT_MASK
_HELPED: Final = ASSISTED | SEQ_ADJUST
_RELATED: Final = (RELATED, RELATED_REPLY)
# ns: the year 2116.  Captures may claim later times; 64 bits with a sign hold this one and any timeout behind it.
_LATEST: Final = (1 << 62) - 1
_QUIRKS: Final = frozenset(("udplite",))


def nanoseconds(now: int | float) -> int:
    """`now` as int nanoseconds, `_LATEST` at most: an int is taken as nanoseconds, a float as seconds.

    (`int | float` and not `float`: compiled, a float parameter would turn the int into seconds.)
    """
    time = now if isinstance(now, int) else round(now * 1e9)
    return time if time < _LATEST else _LATEST


class Engine:
    """Tracks and translates packets as Linux 6.18 does; see the module's picture.

    nat        NAT rules (`Snat`, `Dnat`, `Masquerade`, `Redirect`, `Netmap`); None: no NAT hooks at all, so that
               not even the null binding can change a port
    sysctl     initial values by full or bare name; `engine.sysctl` changes them while running
    seed       of every choice the kernel would draw; `choices` replaces the drawing itself
    gc         "linux": expired entries go when met or swept, at the kernel's pace; "eager": at their deadline
    defragment False: fragments are not gathered (they are then INVALID, all but the first)
    helpers    which helper new connections get, by protocol and destination port: {("tcp", 21): "ftp"}; none
               unless told, as Linux since 6.0
    fast       False: no packet takes the fast path (see `fast`); nothing but time and `stats.fast` shows it
    quirks     {"udplite": False} verifies UDP-Lite as RFC 3828 says instead of as Linux does

    Raises ValueError, quoting the text, for a bad rule, sysctl, gc, helper or quirk.

    >>> engine = Engine(seed=7)
    >>> syn = bytes.fromhex("45000028000100004006aecc0a000002c000020104d20050000003e80000000050022000bad50000")
    >>> engine.process(syn, 0.0).ctinfo
    'NEW'
    >>> print(engine.listing())
    tcp      6 120 SYN_SENT src=10.0.0.2 dst=192.0.2.1 sport=1234 dport=80 [UNREPLIED] src=192.0.2.1 dst=10.0.0.2 sport=80 dport=1234 mark=0 use=1
    """  # noqa: E501

    def __init__(
        self,
        nat: Sequence[NatRule] | None = None,
        sysctl: Mapping[str, int | str] | None = None,
        seed: int = 0,
        *,
        choices: ChoiceSource | None = None,
        gc: str = "linux",
        defragment: bool = True,
        helpers: Mapping[tuple[str, int], str] | None = None,
        quirks: Mapping[str, bool] | None = None,
        fast: bool = True,
    ) -> None:
        unknown = set(quirks or ()) - _QUIRKS
        if unknown:
            raise ValueError(f"unknown quirk {sorted(unknown)[0]!r}")
        if gc not in ("linux", "eager"):
            raise ValueError(f"gc {gc!r} is neither 'linux' nor 'eager'")
        self.sysctl = Sysctl(sysctl)
        self.stats = Stats()
        self.on_end: Callable[[Conn], None] | None = None
        self.defragment = defragment
        self._quirk = bool((quirks or {}).get("udplite", True))
        self._choices: ChoiceSource = Choices(seed) if choices is None else completed(choices, seed)
        self._table = Table(self._choices, self.sysctl["nf_conntrack_buckets"])
        self._table.deleted = self._deleted
        self._gc: LinuxGc | EagerGc = LinuxGc(self._table, TRACKERS) if gc == "linux" else EagerGc(self._table)
        self._eager = gc == "eager"
        self._fast_wanted = fast
        self._reassembler = Reassembler()
        self._events: EventStream | None = None
        self._due = -1  # before it no timer fires
        self._expectations = Expectations(self._table, self.stats)
        self._expectations.send = self._send_expectation
        self.sysctl.count = self.count
        self.sysctl.changed = self._sysctl_changed
        self._nat = NatHook(nat, self._table, self._choices, self.stats)
        self._fresh = FreshPath(self._table, self._nat, self._expectations.by_serial)
        self._fast = FastPath(self._table, self.stats, self._nat.registered, self._fresh)
        self._fast.eager = self._eager
        self._helpers: HelperHook | None = None
        if helpers:
            self._helper_hook(helpers)
        self._sysctl_changed("")

    # --- the main call ---------------------------------------------------------------------------------

    def process(
        self,
        packet: bytes,
        now: int | float,
        *,
        iface: str | None = None,
        out_iface: str | None = None,
        wire_length: int | None = None,
    ) -> Outcome:
        """One packet through the whole pipeline.

        packet       L3 octets (IPv4 or IPv6); link padding behind them is cut off
        now          capture or wall time: int nanoseconds or float seconds.  It never runs backwards: an earlier
                     time counts as the latest seen, and in `stats.time_backwards`
        iface, out_iface  interface names for rules that ask for them
        wire_length  octets on the wire, where a snap length cut the packet
        """
        time = nanoseconds(now)
        fast = self._fast
        known = fast.known(packet, 0, len(packet), time, None, out_iface)
        if known is not None:
            out, length = fast.out, fast.length  # without link padding
            whole = bytes(packet[:length] if out is None else part(out, 0, length))
            return Outcome(
                None, (whole,), verdict.ACCEPT, known, fast.ctinfo, time, iface, NO_TRACES, packet, out is not None
            )
        self.advance(time)
        self.stats.staged += 1
        parsed = self.receive(packet, wire_length)
        if parsed.verdict == HELD:
            return Outcome(parsed, (), HELD, None, -1, self._table.now, iface)
        conn, ctinfo = self.enter(parsed)
        if parsed.verdict != DROP and conn is not None:
            # A connection that is decided and keeps its addresses has nothing to translate, but for its errors.
            if self._nat.registered and (conn.status & _NAT_SETTLED != NAT_DONE_MASK or ctinfo in _RELATED):
                self.translate(conn, ctinfo, parsed, DST, PREROUTING, iface, out_iface)
                if parsed.verdict != DROP:
                    self.translate(conn, ctinfo, parsed, SRC, POSTROUTING, iface, out_iface)
            if parsed.verdict != DROP:
                conn = self.leave(conn, ctinfo, parsed)
            else:
                self.drop(conn)
        if parsed.verdict == DROP:
            return Outcome(parsed, (), DROP, conn, ctinfo, self._table.now, iface)
        return Outcome(parsed, self.cut(parsed), verdict.ACCEPT, conn, ctinfo, self._table.now, iface)

    @property
    def fast_path(self) -> FastPath:
        """The fast path by itself, for drivers; see `fast.FastPath.known`."""
        return self._fast

    # --- the steps -------------------------------------------------------------------------------------

    def advance(self, now: int | float) -> int:
        """Let time pass up to `now` (gc, reassembly timeouts); the engine's time in ns afterwards."""
        table = self._table
        time = nanoseconds(now)
        if time < table.now:
            # captures do run backwards; nothing inside does
            self.stats.time_backwards += 1
            time = table.now
        if time >= self._due:
            self._fire(time)
        table.now = time
        until = self._gc.due
        if self._expectations.due < until:
            until = self._expectations.due
        if self._reassembler:
            self._reassembler.expire(time)
            if self._reassembler and self._reassembler.due < until:
                until = self._reassembler.due
        # What makes a nearer timer later on closes the fast path; the next packet to come here opens it again.
        self._fast.until = until if self._fast_wanted and table.journal is None else 0
        return time

    def _fire(self, time: int) -> None:
        """Every timer up to `time`, in their order: the gc's and those of expectations."""
        gc, expectations = self._gc, self._expectations
        while expectations.due <= time:
            due = expectations.due
            if due >= gc.due:
                gc.run(due, self._settings)
            self._table.now = due
            expectations.expire(due)
        if time >= gc.due:
            gc.run(time, self._settings)
        self._due = 0 if self._eager else min(gc.due, expectations.due)

    def receive(self, octets: bytes, wire_length: int | None = None) -> Packet:
        """Parse and defragment: a packet ready to `enter`, or a fragment with verdict HELD and the reason."""
        packet = parse(octets, wire_length)
        return self.gather(packet) if packet.fragment and self.defragment else packet

    def gather(self, packet: Packet, queue: int = 0, device: str = "") -> Packet:
        """Defragment: the whole packet, or this one with verdict HELD and the reason.

        `queue` keeps fragments apart that must not meet (the kernel's "user": the hook and the zone); `device` is
        where the fragment came in.
        """
        if packet.fragment and packet.fault != reasons.IP_TRUNCATED:
            self._fast.until = 0  # it may be the first whose time is over
            whole, reason = self._reassembler.push(packet, self._table.now, queue, self._limits, device)
            if whole is not None:
                return whole
            packet.verdict = HELD
            packet.fault = reason
        return packet

    def lost(self) -> list[Lost]:
        """Datagrams whose time was over since the last call; the first call begins to keep them."""
        lost, self._reassembler.lost = self._reassembler.lost, []
        return lost or []

    def cut(self, packet: Packet, mtu: int = NO_MTU) -> tuple[bytes, ...]:
        """What leaves for a packet: itself, or, if it came in as fragments or is larger than `mtu`, fragments."""
        if packet.pieces is None and len(packet.data) <= mtu:
            return (bytes(packet.data),)
        return refragment(packet, 0 if packet.family == 4 else self._choices.fragment_id(packet.key), mtu)

    def enter(
        self,
        packet: Packet,
        hook: int = PREROUTING,
        zone: Zone = DEFAULT_ZONE,
        template: Template | None = None,
    ) -> tuple[Conn | None, int]:
        """Find or make the packet's connection and judge it: (connection, ctinfo).

        zone      where to look, and where a new connection lives (a template's, its mark resolved)
        template  what a CT rule asks for a connection that this packet begins

        INVALID and UNTRACKED packets have no connection.  A refusal sets `packet.verdict` to DROP.
        """
        if packet.fault:
            return self._invalid(packet, packet.fault)
        proto = packet.proto
        tracker = TRACKERS[proto]
        verify = self._settings.checksum and hook == PREROUTING
        if proto == ICMP or proto == ICMPV6:
            right_family = packet.family == (4 if proto == ICMP else 6)
            if right_family:
                reason = tracker.check(packet, verify, self._settings)
                self._note_checksum(packet)
                if reason:
                    return self._invalid(packet, reason)
                special = self._error_or_untracked(packet, zone)
                if special is not None:
                    return special
        else:
            right_family = True
        table = self._table
        while True:
            conn, direction = self._look_up(packet.key, proto, zone)
            fresh = conn is None
            if conn is None:
                reply = invert(packet.key, proto)
                if not reply:
                    packet.numbers = (packet.key[-2],)
                    return self._invalid(packet, reasons.NOT_INVERTIBLE)
                conn = self._allocate(packet, reply, zone, template)
                if conn is None:
                    return None, INVALID
                ctinfo = RELATED if conn.status & EXPECTED else NEW
            elif direction == REPLY:
                ctinfo = ESTABLISHED_REPLY
            elif conn.status & SEEN_REPLY:
                ctinfo = ESTABLISHED
            else:
                ctinfo = RELATED if conn.status & EXPECTED else NEW
            if table.journal is not None:
                table.journal.touch(conn)
            outcome, reason = self._track(conn, direction, packet, fresh, verify, right_family)
            if outcome == BAD or outcome == GONE:
                if fresh:
                    self.drop(conn)
                if outcome == GONE:
                    packet.verdict = DROP
                    self.stats.drop += 1
                return self._invalid(packet, reason)
            if outcome != AGAIN:
                break
            table.delete(conn, "reopen")
        if outcome == KILL:
            table.delete(conn, "rst")
        if direction == REPLY and not conn.status & SEEN_REPLY:
            conn.status = table.shared_status(conn.status | SEEN_REPLY)
            if conn.pending >= 0:
                conn.pending |= EVENT_REPLY
        return conn, ctinfo

    def translate(
        self,
        conn: Conn,
        ctinfo: int,
        packet: Packet,
        manip: int,
        hook: int,
        iface: str | None = None,
        out_iface: str | None = None,
    ) -> None:
        """The NAT hook `hook`, manipulation `manip` (SRC or DST): decide if undecided, then rewrite."""
        if self._nat.registered:
            self._nat.translate(conn, ctinfo, packet, manip, hook, iface, out_iface)

    def undecided(self, conn: Conn, ctinfo: int, packet: Packet, manip: int) -> bool:
        """Is it for this packet to decide half `manip` of its connection's mapping?  Rules then call `setup`
        before `translate` binds the connection to what it has."""
        return self._nat.undecided(conn, ctinfo, packet, manip)

    def setup(self, conn: Conn, nat_range: NatRange, manip: int) -> None:
        """Decide half `manip` (SRC or DST) of the connection's mapping, within `nat_range`; only before it is
        confirmed [nf_nat_setup_info]."""
        self._nat.chooser.setup(conn, nat_range, manip)

    def set_mark(self, conn: Conn, mark: int) -> None:
        """Give the connection a mark (32 bits); event MARK if that changes it."""
        if mark == conn.extra.mark:
            return
        if self._table.journal is not None:
            self._table.journal.touch(conn)
        conn.own_extra().mark = mark
        if conn.pending >= 0:
            conn.pending |= EVENT_MARK

    def set_closing(self, conn: Conn) -> None:
        """A TCP reset was sent on the connection's behalf (REJECT): state CLOSE with its timeout, at once
        [nf_conntrack_tcp_set_closing]."""
        if conn.proto != TCP or not conn.status & CONFIRMED:
            return
        if self._table.journal is not None:
            self._table.journal.touch(conn)
        before, conn.state = conn.state, tcp.CL
        if before != tcp.CL and not conn.status & FIXED_TIMEOUT:
            self._refresh(conn, (conn.extra.timeouts or self._settings.timeouts[TCP])[tcp.CL])
            if conn.pending >= 0:
                conn.pending |= EVENT_PROTOINFO

    def end_masqueraded(self, out_iface: str, address: bytes | None, reason: str) -> int:
        """End the connections masqueraded on `out_iface`, or those of them with that address (packed): the device
        went down, the address was removed [nf_nat_masquerade.c]; how many there were."""
        ended = [
            conn
            for conn in self._table
            if conn.extra.out_iface == out_iface and (address is None or destination(conn.reply) == address)
        ]
        for conn in ended:
            self._table.delete(conn, reason)
        return len(ended)

    def leave(self, conn: Conn, ctinfo: int, packet: Packet, loopback: bool = False) -> Conn:
        """The last step before a packet leaves: helper, sequence adjustment, confirmation of a new connection, and
        what events have gathered is sent.

        Returns the packet's connection, which is another one when a clash was resolved.  `loopback`: it came in by
        the loopback device.
        """
        if conn.status & _HELPED:
            self._helper_hook().pass_through(conn, ctinfo, packet, loopback)
            if packet.verdict == DROP:
                self.drop(conn)
                return conn
        if not conn.status & (CONFIRMED | DYING):
            if ctinfo == RELATED_REPLY:
                return conn  # the box's own error about a connection's first packet: that packet did not get here
            conn = self._confirm(conn, packet)
        if conn.pending > 0 and conn.status & (CONFIRMED | DYING) == CONFIRMED:
            self._send(conn, "NEW" if conn.pending & (EVENT_NEW | EVENT_RELATED) else "UPDATE", conn.pending)
            conn.pending = 0
        return conn

    def drop(self, conn: Conn) -> None:
        """The packet was dropped on its way: an unconfirmed connection goes with it and leaves nothing."""
        if not conn.status & (CONFIRMED | DYING):
            conn.status |= DYING  # once: several steps of a packet's way may say that it ends
            self._table.release(conn)
            self._nat.chooser.forget(conn)
            if conn.status & ASSISTED:
                self._expectations.forget(conn)

    # --- parts of `enter` ------------------------------------------------------------------------------

    def _look_up(self, key: bytes, proto: int, zone: Zone) -> tuple[Conn | None, int]:
        """(connection, direction) for a packet's tuple in `zone`."""
        table = self._table
        if zone is DEFAULT_ZONE:
            conn = table.find(key, proto)
            return conn, ORIGINAL if conn is None else direction_of(conn, key)
        tried = -1
        for look_in in (zone.effective(ORIGINAL), zone.effective(REPLY)):
            if look_in != tried:
                tried = look_in
                zoned_key = zoned(key, look_in)
                conn = table.find_in(zoned_key, proto, zone, look_in)
                if conn is not None:
                    return conn, direction_of(conn, zoned_key)
        return None, ORIGINAL

    def _allocate(self, packet: Packet, reply: bytes, zone: Zone, template: Template | None) -> Conn | None:
        """A new connection, before its protocol has looked at the packet [init_conntrack]; None: table full."""
        table = self._table
        settings = self._settings
        orig = zoned(packet.key, zone.effective(ORIGINAL))
        if settings.max_connections and table.count >= settings.max_connections:
            table.reap(orig, packet.proto)
        if settings.max_connections and table.count >= settings.max_connections:
            victims = table.early_drop(orig, packet.proto)
            if not victims:
                self._gc.armed = True
                self.stats.drop += 1
                packet.verdict = DROP
                packet.fault = reasons.TABLE_FULL
                packet.numbers = (table.count, settings.max_connections)
                return None
            self.stats.early_drop += victims
        conn = table.allocate(orig, zoned(reply, zone.effective(REPLY)), packet.proto)
        if settings.acct:
            conn.traffic_orig = conn.traffic_reply = 0
        if settings.events == 1 or (settings.events == 2 and self._events is not None):
            conn.pending = 0
        if zone is not DEFAULT_ZONE:
            conn.own_extra().zone = zone
        if template is not None:
            self._apply_template(conn, template)
        if self._expectations.by_serial and self._helper_hook().expected(conn):
            return conn
        if template is not None and template.helper:
            self._helper_hook().assign(conn, template.helper)
        elif self._helpers is not None and self._helpers.ports:
            self._helpers.assign(conn, "")
        return conn

    def _helper_hook(self, ports: Mapping[tuple[str, int], str] | None = None) -> HelperHook:
        """What helpers do, made when the first connection has one: most engines never import any."""
        if self._helpers is None:
            from .helpers.hook import HelperHook

            self._helpers = HelperHook(ports, self._expectations, self._nat.chooser, self._choices, self.stats)
        return self._helpers

    def _apply_template(self, conn: Conn, template: Template) -> None:
        if template.timeouts is not None:
            conn.own_extra().timeouts = template.timeouts
        if template.events or template.expect_events:
            if self._settings.events == 0:
                conn.pending = 0  # a mask asks for events whatever the sysctl says
            if conn.pending >= 0:
                extra = conn.own_extra()
                extra.event_mask, extra.expect_mask = template.events, template.expect_events

    def _track(
        self, conn: Conn, direction: int, packet: Packet, fresh: bool, verify: bool, right_family: bool
    ) -> tuple[int, str]:
        """The protocol's judgement, applied to the connection: (tracker verdict, reason)."""
        proto = packet.proto
        tracker = TRACKERS[proto]
        settings = self._settings
        if not right_family:
            packet.numbers = (proto,)
            return BAD, reasons.WRONG_FAMILY
        if proto != ICMP and proto != ICMPV6:
            reason = tracker.check(packet, verify, settings)
            self._note_checksum(packet)
            if reason:
                return BAD, reason
        if not conn.status & CONFIRMED and fresh:
            reason, memory = tracker.begin(packet, settings)
            if reason:
                return BAD, reason
            conn.memory = memory
        if conn.status & SEQ_ADJUST:
            packet.ack_shift = self._helper_hook().ack_shift(conn, direction, packet)
        timeouts = conn.extra.timeouts or settings.timeouts[proto]
        deadline = conn.deadline
        outcome, state, timeout, status, events, reason, memory = tracker.track(
            conn.memory,
            conn.state,
            conn.status,
            direction,
            packet,
            self._table.now,
            deadline,
            timeouts,
            settings,
        )
        conn.state = state
        if status:
            conn.status = self._table.shared_status(conn.status | status)
        if events and conn.pending >= 0:
            conn.pending |= events
        counted = outcome != BAD and (timeout >= 0 or outcome == KILL)
        until = self._deadline(conn, timeout)
        sooner = self._eager and 0 <= until < deadline and bool(conn.status & CONFIRMED)
        conn.note(memory, until, direction, packet.length if counted else -1)
        if sooner:
            self._watch(conn)
        if counted:
            packet.counted = True
        elif reason and outcome != AGAIN and outcome != BAD:
            packet.fault = reason
        return outcome, reason

    def _watch(self, conn: Conn) -> None:
        """The eager gc's: this deadline is new, or nearer than it was."""
        self._gc.watch(conn)
        self._fast.until = 0

    def _deadline(self, conn: Conn, timeout: int) -> int:
        """What `timeout` (-1: none) makes of a connection's deadline; -1: it stays."""
        if timeout < 0 or not conn.status & CONFIRMED:
            return timeout
        return -1 if conn.status & FIXED_TIMEOUT else self._table.now + timeout

    def _refresh(self, conn: Conn, timeout: int) -> None:
        before, until = conn.deadline, self._deadline(conn, timeout)
        if until >= 0:
            conn.deadline = until
            if self._eager and until < before and conn.status & CONFIRMED:
                self._watch(conn)

    def _error_or_untracked(self, packet: Packet, zone: Zone) -> tuple[Conn | None, int] | None:
        """ICMP errors find the connection they quote; some ICMPv6 is nobody's.  None: ordinary tracking."""
        at, reason = icmp.quote_offset(packet) if packet.proto == ICMP else icmpv6.quote_offset(packet)
        if reason == reasons.ICMPV6_UNTRACKED:
            packet.fault = reason
            return None, UNTRACKED
        if reason:
            return self._invalid(packet, reason)
        if at == 0:
            return None
        data, l4 = packet.data, packet.l4
        kind = data[l4]
        proto, _, quote = quoted(data, packet.family, at, packet.end)
        inverted = invert(quote, proto) if quote else b""
        if not inverted and packet.end < packet.length:
            packet.numbers = (packet.length - l4, packet.end - l4)
            return self._invalid(packet, reasons.CUT)
        if not inverted:
            packet.numbers = (kind,)
            return self._invalid(packet, reasons.ICMP_ERROR_QUOTE)
        conn, direction = self._look_up(inverted, proto, zone)
        if conn is None:
            packet.numbers = (kind,)
            return self._invalid(packet, reasons.ICMP_ERROR_UNKNOWN)
        outer, inner = destination(packet.key), destination(inverted)
        if outer != inner:
            packet.numbers = (address_text(outer), address_text(inner))
            return self._invalid(packet, reasons.ICMP_ERROR_OUTER)
        packet.fault = reasons.RELATED_ERROR
        packet.numbers = (kind, data[l4 + 1])
        return conn, RELATED_REPLY if direction == REPLY else RELATED

    def _invalid(self, packet: Packet, reason: str) -> tuple[None, int]:
        packet.fault = reason
        if reasons.REASONS[reason].counter == "error":
            self.stats.error += 1
        else:
            self.stats.invalid += 1
        return None, INVALID

    def _note_checksum(self, packet: Packet) -> None:
        if packet.checksum == PARTIAL:
            self.stats.left_to_card += 1
        elif packet.checksum == UNKNOWN:
            self.stats.unverified += 1

    # --- parts of `leave` ----------------------------------------------------------------------------

    def _confirm(self, conn: Conn, packet: Packet) -> Conn:
        """Put a new connection into the table [__nf_conntrack_confirm], or find that it cannot go in."""
        table = self._table
        existing = table.confirmed(conn.orig, conn, ORIGINAL)
        if existing is None:
            existing = table.confirmed(conn.reply, conn, REPLY)
        if existing is not None:
            return self._clash(conn, existing, packet)
        length, limit = table.insert(conn)
        if limit:
            self.stats.chaintoolong += 1
            self._refuse(conn, packet, reasons.CHAIN_TOO_LONG)
            packet.numbers = (length, limit)
            return conn
        event = EVENT_RELATED if conn.extra.master is not None else EVENT_NEW
        self._enlist(conn, event | EVENT_HELPER if conn.status & ASSISTED else event)
        return conn

    def _enlist(self, conn: Conn, event: int) -> None:
        """What changes with confirmation: the deadline becomes a point in time."""
        conn.deadline += self._table.now
        conn.status |= CONFIRMED
        if self._settings.timestamp:
            conn.start = self._table.now
        if conn.pending >= 0:
            conn.pending |= event
        if conn.status & NAT_MASK:
            conn.changes = rewrite.changes_of(conn)
        conn.status = self._table.shared_status(conn.status)
        if self._eager:
            self._watch(conn)

    def _refuse(self, conn: Conn, packet: Packet, reason: str) -> None:
        self.stats.insert_failed += 1
        packet.verdict = DROP
        packet.fault = reason
        packet.counted = False
        self.drop(conn)

    def _clash(self, conn: Conn, existing: Conn, packet: Packet) -> Conn:
        """Another connection has the tuple [nf_ct_resolve_clash]: the same flow, a short life, or a drop."""
        table = self._table
        if TRACKERS[conn.proto].allow_clash:
            same = existing.orig == conn.orig and existing.reply == conn.reply
            mirror = existing.orig == conn.reply and existing.reply == conn.orig
            if same or mirror:
                if table.journal is not None:
                    table.journal.touch(existing)
                existing.count(ORIGINAL if same else REPLY, packet.length)
                self.drop(conn)
                self.stats.clash_resolve += 1
                return existing
            if table.confirmed(conn.reply, conn, REPLY) is None:
                conn.status |= NAT_CLASH | FIXED_TIMEOUT
                conn.deadline = _CLASH_TIMEOUT
                if not table.insert(conn, reply_only=True)[1]:
                    self._enlist(conn, 0)
                    self.stats.clash_resolve += 1
                    return conn
        self.stats.drop += 1
        self._refuse(conn, packet, reasons.CLASH)
        return conn

    # --- endings ---------------------------------------------------------------------------------------

    def _deleted(self, conn: Conn, reason: str) -> None:
        """The table has let a connection go."""
        self._nat.chooser.forget(conn)
        table = self._table
        if table.journal is None and self.on_end is not None:
            extra = conn.own_extra()
            extra.end = conn.deadline if reason == TIMEOUT else table.now
            extra.end_reason = reason
            self.on_end(conn)
        if conn.pending >= 0:
            self._send(conn, "DESTROY", verdict.EVENT_DESTROY)
        if conn.status & ASSISTED:
            self._expectations.forget(conn)

    def _send(self, conn: Conn, kind: str, bits: int) -> None:
        if self._events is not None and bits & conn.extra.event_mask:
            self._events.append(event_of(conn, kind, bits, self._table.now))

    def _send_expectation(self, expectation: Expectation, bit: int) -> None:
        """An expectation came or went; whether that is told is its master's affair [nf_ct_expect_event_report]."""
        if expectation.deadline < self._due:
            self._due = expectation.deadline
            self._fast.until = 0
        master = expectation.master
        if self._events is not None and master.pending >= 0 and bit & master.extra.expect_mask:
            kind = EXP_NEW if bit == EXPECTATION_NEW else EXP_DESTROY
            self._events.append(expectation_event_of(expectation, kind, self._table.now))

    def flush(self) -> int:
        """`conntrack -F`: end every connection; how many there were."""
        conns = list(self._table)
        for conn in conns:
            self._table.delete(conn, "flush")
        return len(conns)

    def flush_expectations(self) -> int:
        """`conntrack -F expect`: take every expectation out; how many there were."""
        return self._expectations.flush()

    def reap(self) -> int:
        """End every expired connection that nobody has met yet, as a dump does; how many there were."""
        expired = [conn for conn in self._table if conn.deadline <= self._table.now]
        for conn in expired:
            self._table.delete(conn, TIMEOUT)
        return len(expired)

    # --- looking ---------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The latest time seen, ns."""
        return self._table.now

    def timeouts(self, proto: int) -> tuple[int, ...]:
        """What the sysctls say of protocol number `proto` now: nanoseconds, as its tracker orders them."""
        return self._settings.timeouts[proto]

    @property
    def choices(self) -> ChoiceSource:
        """Where every draw comes from."""
        return self._choices

    @property
    def events(self) -> EventStream:
        """The stream of events; asking for it is becoming a listener (`nf_conntrack_events` 2 needs one)."""
        if self._events is None:
            self._events = EventStream()
            self._listen()
        return self._events

    def conns(self) -> Iterator[Conn]:
        """The live connections, in order of creation."""
        now = self._table.now
        return iter([conn for conn in self._table if conn.deadline > now])

    def expectations(self) -> Iterator[Expectation]:
        """What helpers wait for, in order of announcement."""
        return iter(self._expectations)

    def find(self, key: bytes, proto: int, now: int | None = None) -> Conn | None:
        """The connection with tuple `key` (packed, see `tuples`) in either direction that is alive at `now`
        (ns; None: the engine's time); touches nothing."""
        conn = self._table.by_protocol[proto].get(key)
        return conn if conn is not None and conn.deadline > (self._table.now if now is None else now) else None

    def count(self) -> int:
        """`conntrack -C`: entries in the table, expired ones that nobody has met yet included."""
        return self._table.count

    def listing(self, *, extended: bool = False, show_id: bool = False) -> str:
        """The lines of `conntrack -L`, in order of creation, without the closing newline.

        As in the kernel a dump is a meeting: expired entries end here.
        """
        from . import show  # text is for people: nothing that tracks imports it

        self.reap()
        return "\n".join(
            show.listing_line(conn.to_dict(), extended=extended, show_id=show_id, now=self._table.now)
            for conn in self._table
            if not conn.status & NAT_CLASH
        )

    def check(self) -> None:
        """Assert every invariant (for tests; walks everything)."""
        self._table.check()
        assert self._table.count == sum(1 for _ in self._table), "an unconfirmed connection was left behind"
        self._nat.chooser.check(self._table.count)
        self._expectations.check()
        self._reassembler.check()

    # --- settings --------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Who has to hear of a new connection?  If nobody, the fast path may begin it."""
        events = self._settings.events
        heard = events == 1 or (events == 2 and self._events is not None)
        helped = self._helpers is not None and bool(self._helpers.ports)
        self._fresh.quiet = not (heard or helped or self._eager)

    def _sysctl_changed(self, name: str) -> None:
        sysctl = self.sysctl
        self._settings = Settings(sysctl, self._quirk)
        self._fast.set(self._settings)
        self._fresh.set(self._settings)
        self._listen()
        self._limits = Limits(
            sysctl["net.ipv4.ipfrag_time"] * SECOND,
            sysctl["net.ipv4.ipfrag_high_thresh"],
            sysctl["net.ipv4.ipfrag_low_thresh"],
            sysctl["net.ipv4.ipfrag_max_dist"],
            sysctl["nf_conntrack_frag6_timeout"] * SECOND,
            sysctl["nf_conntrack_frag6_high_thresh"],
            sysctl["nf_conntrack_frag6_low_thresh"],
        )
        self._expectations.limit = sysctl["nf_conntrack_expect_max"]
        if name == "nf_conntrack_buckets":
            self._table.resize(sysctl["nf_conntrack_buckets"])

    # --- trial -----------------------------------------------------------------------------------------

    def trial(self) -> Trial:
        """`with engine.trial():` — whatever is processed inside leaves no trace afterwards."""
        return Trial(self)
