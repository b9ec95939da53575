"""The way of a packet through the box.

    device ─► arrival ─► PREROUTING ─► options, route ─┬► FORWARD ─► POSTROUTING ─► cut to the MTU ─► device
                                                       └► LOCAL_IN ─► the box itself ─┐
    device ◄─ cut ◄─ POSTROUTING ◄─────────────────────── LOCAL_OUT ◄── route ◄───────┘ answers, errors

One rule: things happen in the kernel's order, so what the box sends on the way (an ICMP error, a redirect) leaves
before what it is about.  A packet of the box to itself waits in the backlog until the packet at hand is done, as
loopback's softirq has it.

Sources: ip_input.c, ip_forward.c, ip_output.c, ip6_input.c, ip6_output.c, icmp.c (icmp_glue_bits), loopback.c.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from .. import reasons
from ..engine import Engine
from ..journal import Journal, Restorable
from ..outcome import log_lines
from ..verdict import (
    DROP,
    FORWARD,
    ICMP,
    ICMPV6,
    INVALID,
    LOCAL_IN,
    LOCAL_OUT,
    ORIGINAL,
    POSTROUTING,
    PREROUTING,
    RELATED,
    RELATED_REPLY,
    UNTRACKED,
)
from ..wire.checksum import GOOD, PARTIAL
from ..wire.packet import Packet, parse
from . import datagram, ip_options, mtu
from .addresses import LOOPBACK6, is_link_local
from .arrival import arrive, bad_fragment, is_atomic
from .hooks import Hooks
from .own import Own
from .routing import Fib, Route
from .rules import Ruleset
from .settings import HostSysctl
from .skb import Skb
from .ttl import lower_hop_limit

FORWARDED: Final = "forwarded"
LOCAL: Final = "local"
DROPPED: Final = "dropped"
_TCP, _UDP = 6, 17
_CHECKSUM_BREAK: Final = 76  # octets of UDP up to which a doubtful sum is computed at once
IP_DROP: Final = "ip_drop"

# Dropped by routing itself, before the options are looked at.
_MARTIANS: Final = frozenset(
    (
        reasons.MARTIAN_SOURCE,
        reasons.MARTIAN_DESTINATION,
        reasons.LOCAL_SOURCE,
        reasons.RP_FILTER,
        reasons.NO_MEMBER,
    )
)
_LEAST_MTU6: Final = 1280  # RFC 8200, 5
_UNREACHABLE, _TIME_EXCEEDED, _REDIRECT = 3, 11, 5
_UNREACHABLE6, _TOO_BIG6, _TIME_EXCEEDED6, _PARAMETER6, _REDIRECT6 = 1, 2, 3, 4, 137
_FRAGMENTATION_NEEDED, _SOURCE_ROUTE_FAILED = 4, 5
_NOT_NEIGHBOUR: Final = 2
_NODE_LOCAL: Final = 1  # scope of groups that no device carries (RFC 4291 2.7)
_LINK_LOCAL: Final = (0xFE, 0x80)


class Router:
    """Takes packets through the hooks and routing; what leaves gathers in `out`, what arrives in `local`."""

    def __init__(
        self, engine: Engine, fib: Fib, sysctl: HostSysctl, own: Own, local_output: bool, local_input: bool
    ) -> None:
        self._engine = engine
        self._fib = fib
        self._sysctl = sysctl
        self._own = own
        self._local_output = local_output
        self._local_input = local_input
        self._hooks = {family: Hooks(self, Ruleset(family), self._reroute, self._note) for family in (4, 6)}
        self._backlog: deque[tuple[Skb, str, Skb]] = deque()  # packet, device, whose fate it is
        self.journal: Journal | None = None
        self.out: list[tuple[str, bytes]] = []
        self.local: list[bytes] = []
        self.logs: list[dict[str, object]] = []
        self.invalid: list[str] = []
        own.touch = self.touch
        self._speaking: set[int] = set()  # families whose ICMP is being sent
        self._program = False  # a program is sending: what it hears of itself comes at once, not after the packet

    # ── what rules may ask (`box.Box`) ──────────────────────────────────────────────────────────────

    @property
    def engine(self) -> Engine:
        """Connection tracking and NAT."""
        return self._engine

    @property
    def fib(self) -> Fib:
        """Interfaces, addresses, routes."""
        return self._fib

    def reject(self, skb: Skb, hook: int, kind: str) -> None:
        """Answer `skb` as REJECT does."""
        if kind != "tcp-reset" and skb.packet.family in self._speaking:
            return
        packet, verified = skb.packet, skb.packet.checksum
        if skb.partial:
            packet.checksum = GOOD  # nobody doubts a sum that the card will make [skb_csum_unnecessary]
        answer = self._own.reject(packet, skb.iface, hook, kind, self._engine.now, skb.options)
        packet.checksum = verified
        if answer is None:
            return
        if kind == "tcp-reset" and skb.conn is not None:
            self._engine.set_closing(skb.conn)
        # IPv4 leaves the sum of its reset to the card, IPv6 does not [nf_reject_ip_tcphdr_put]
        partial = kind == "tcp-reset" and packet.family == 4
        self._send_own(datagram.unfinished_tcp(answer) if partial else answer, skb, partial)

    def log(self, skb: Skb, hook: int, record: dict[str, object]) -> None:
        """Keep what a LOG rule says."""
        self.logs.append(record)

    def _note(self, packet: Packet) -> None:
        if packet.fault:
            self.invalid += log_lines(packet, self._sysctl["nf_conntrack_log_invalid"])

    def touch(self, memory: Restorable) -> None:
        """`memory` is about to change."""
        if self.journal is not None:
            self.journal.touch(memory)

    # ── the box's own doings ────────────────────────────────────────────────────────────────────────

    def set_rules(self, family: int, rules: Ruleset) -> None:
        """From the next packet on `rules` stand on the hooks of `family`."""
        self._hooks[family] = Hooks(self, rules, self._reroute, self._note)

    def tracking(self, family: int) -> bool:
        """Does connection tracking stand on the hooks of `family`?"""
        return self._hooks[family].tracking

    def receive(self, octets: bytes, iface: str) -> Skb:
        """A device hands up a packet."""
        skb = self._arrive(octets, iface)
        self._work_backlog()
        return skb

    def send(self, octets: bytes) -> Skb:
        """A program of the box sends a finished packet (as over a raw socket)."""
        packet = parse(octets)
        if packet.family == 0 or packet.l4 > len(octets):
            return self._end(Skb(packet), IP_DROP, packet.fault or reasons.IP_HEADER)
        _, destination = _ends(packet)
        # a raw socket goes by the destination alone; for IPv6 :: means the box itself [rawv6_sendmsg]
        route = self._fib.output(LOOPBACK6 if destination == bytes(16) else destination)
        if route.why or len(octets) > self._fib.interfaces[route.iface].mtu:
            return self._end(Skb(packet), IP_DROP, route.why or reasons.TOO_BIG)
        skb = Skb(parse(self._own.finished(octets, route.source)))
        self._program = True
        self._local_out(skb, route)
        self._program = False
        self._work_backlog()
        return skb

    def tell_lost(self) -> None:
        """Tell the senders of datagrams that waited in vain [ip_expire, ip6frag_expire_frag_queue]."""
        for lost in self._engine.lost():
            packet = parse(lost.first)
            source, destination = _ends(packet)
            if packet.family == 4:
                # on the way through nobody is told
                if self._fib.input(source, destination, lost.device).kind == "local":
                    self._error(Skb(packet, lost.device), _TIME_EXCEEDED, 1)
            else:
                self._error(Skb(packet, lost.device), _TIME_EXCEEDED6, 1)
        self._work_backlog()

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────

    def _arrive(self, octets: bytes, iface: str) -> Skb:
        found = arrive(octets, iface == "lo", self._sysctl)
        skb = Skb(parse(found.data), iface)
        if found.reason:
            if found.pointer >= 0:
                self._error(skb, _PARAMETER6, found.code, found.pointer)
            skb.packet.fault = ""  # what `parse` made of it is beside the point
            return self._end(skb, IP_DROP, found.reason, *found.numbers)
        self._prerouting(skb)
        return skb

    def _prerouting(self, skb: Skb) -> None:
        if not self._hooks[skb.packet.family].run(skb, PREROUTING):
            return
        packet = skb.packet
        route = skb.route
        if route is None:
            source, destination = _ends(packet)
            route = self._fib.input(source, destination, skb.iface, packet.proto)
            skb.route = route
        if route.why in _MARTIANS:
            self._end(skb, DROPPED, route.why)
            return
        if packet.family == 4 and packet.data[0] != 0x45:
            if not self._take_options(skb, route):
                return
            route = skb.route or route  # a source route leads on
        if route.why:
            if route.error is not None:
                self._error(skb, route.error[0], route.error[1])
            self._end(skb, DROPPED, route.why)
            return
        if route.kind == "unicast":
            self._forward(skb, route)
        else:
            self._local_in(skb)

    def _take_options(self, skb: Skb, route: Route) -> bool:
        """IPv4 options on arrival; False: the packet's way ended."""
        found = ip_options.receive(skb.packet, skb.iface, route, self._fib, self._engine.now)
        skb.options = found.options
        if found.error is not None:
            self._error(skb, *found.error)
        if found.reason:
            self._end(skb, DROPPED, found.reason)
            return False
        if found.route is not None:
            skb.route = found.route
        return True

    def _local_in(self, skb: Skb) -> None:
        packet = skb.packet
        if packet.fragment and packet.family == 4 and not self.tracking(4):
            skb.packet = packet = self._engine.gather(packet, _LOCAL_QUEUE, skb.iface)
            if packet.verdict != "ACCEPT":
                skb.fate = DROPPED  # "held" is what happens ahead of connection tracking
                return
        if not self._hooks[packet.family].run(skb, LOCAL_IN):
            return
        skb.fate = LOCAL
        self.local.append(bytes(skb.packet.data))
        if packet.fragment and packet.family == 6 and not is_atomic(packet.data):
            # untracked fragments pass LOCAL_IN one by one and are put together behind it [ipv6_frag_rcv]
            wrong = bad_fragment(packet.data)
            if wrong is not None:
                self._error(skb, _PARAMETER6, *wrong)
                return
            packet = self._engine.gather(parse(bytes(packet.data)), _LOCAL_QUEUE, skb.iface)
            if packet.verdict != "ACCEPT":
                return
            packet.pieces = None
            skb.packet = packet
        if skb.stale_sum and packet.proto == _UDP and packet.length - packet.l4 > _CHECKSUM_BREAK:
            return  # dropped as wrongly summed; a shorter one is summed anew [udp6_csum_init]
        if self._local_input and self._local_output:
            for answer in self._own.answers(skb.packet, skb.iface, skb.route, self._engine.now, skb.options):
                closed6 = answer.octets[0] >> 4 == 6 and answer.octets[6] == _TCP  # [tcp_v6_send_response]
                way = answer.route or self._back(answer.octets, skb.iface)
                self._send_own(answer.octets, skb if answer.about else None, closed6, way)

    # ── through ─────────────────────────────────────────────────────────────────────────────────────

    def _forward(self, skb: Skb, route: Route) -> None:
        if skb.packet.family == 4:
            self._forward4(skb, route)
        else:
            self._forward6(skb, route)

    def _forward4(self, skb: Skb, route: Route) -> None:
        packet = skb.packet
        if packet.data[8] <= 1:
            self._error(skb, _TIME_EXCEEDED, 0)
            self._end(skb, DROPPED, reasons.TTL_EXCEEDED, packet.data[8])
            return
        options = skb.options
        if options is not None and options.strict and options.route and route.gateway:
            self._error(skb, _UNREACHABLE, _SOURCE_ROUTE_FAILED)
            self._end(skb, DROPPED, reasons.IP_OPTIONS)
            return
        if mtu.too_big4(packet, route.mtu):
            self._error(skb, _UNREACHABLE, _FRAGMENTATION_NEEDED, route.mtu)
            self._end(skb, DROPPED, reasons.TOO_BIG, packet.length, route.mtu)
            return
        lower_hop_limit(packet)
        if route.redirect:
            self._redirect(skb, route)
        skb.out_iface = route.iface
        if self._hooks[4].run(skb, FORWARD):
            if skb.options is not None:
                ip_options.forward(skb.packet, skb.options, route, self._fib)
            self._output(skb, route)

    def _forward6(self, skb: Skb, route: Route) -> None:
        packet = skb.packet
        data = packet.data
        if data[7] <= 1:
            self._error(skb, _TIME_EXCEEDED6, 0)
            self._end(skb, DROPPED, reasons.TTL_EXCEEDED, data[7])
            return
        source = bytes(data[8:24])
        if route.redirect:
            self._redirect(skb, route)
        elif source == bytes(16) or source[0] == 0xFF or source == bytes(15) + b"\1":
            self._end(skb, DROPPED, reasons.SOURCE_SCOPE)
            return
        elif source[0] == 0xFE and source[1] & 0xC0 == 0x80:
            self._error(skb, _UNREACHABLE6, _NOT_NEIGHBOUR)
            self._end(skb, DROPPED, reasons.SOURCE_SCOPE)
            return
        room = max(route.mtu, _LEAST_MTU6)
        if mtu.too_big6(packet, room):
            self._error(skb, _TOO_BIG6, 0, room)
            self._end(skb, DROPPED, reasons.TOO_BIG, packet.length, room)
            return
        lower_hop_limit(packet)
        skb.out_iface = route.iface
        if self._hooks[6].run(skb, FORWARD):
            self._output(skb, route)

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────

    def _local_out(self, skb: Skb, route: Route) -> None:
        skb.route = route
        skb.out_iface = route.iface
        if self._hooks[skb.packet.family].run(skb, LOCAL_OUT):
            self._output(skb, skb.route)

    def _output(self, skb: Skb, route: Route) -> None:
        """POSTROUTING and the device."""
        skb.out_iface = route.iface
        if skb.packet.family == 4 and not self._told_many(skb, route):
            return
        if not self._hooks[skb.packet.family].run(skb, POSTROUTING):
            return
        packet = skb.packet
        if packet.family == 6 and not self._told_many(skb, route):
            return
        if route.iface == "lo":
            skb.fate = skb.fate or LOCAL
            self._backlog.append((skb, "lo", skb))
            return
        if skb.partial:
            skb.packet = packet = parse(datagram.finished_tcp(bytes(packet.data)))
        room = route.mtu
        made_here = packet.family == 6 and not skb.iface and packet.pieces is None
        refused = mtu.uncuttable(packet, room) and not made_here
        pieces = () if refused else self._engine.cut(packet, room)
        if refused:
            if packet.family == 4:
                self._error(skb, _UNREACHABLE, _FRAGMENTATION_NEEDED, room)
            else:
                self._error(skb, _TOO_BIG6, 0, room)
        if not pieces:
            self._end(skb, DROPPED, reasons.TOO_BIG, packet.length, room)
            return
        if skb.fate != LOCAL:  # unless a copy of it was delivered
            skb.fate = FORWARDED
        self.out.extend((route.iface, piece) for piece in pieces)

    def _told_many(self, skb: Skb, route: Route) -> bool:
        """What the box tells many, itself included, it hears a copy of; False: nobody else does.

        The copy comes in by the device that the packet leaves by, and passes POSTROUTING too: in IPv4 ahead of the
        packet [ip_mc_output], in IPv6 behind it [ip6_finish_output2].
        """
        if skb.iface or route.kind not in ("broadcast", "multicast"):
            return True
        packet, fate = skb.packet, skb.fate
        heard = self._fib.hears(_ends(packet)[1], route)
        if heard:
            self._hear_myself(skb, route)
        if packet.family == 6:
            stays = packet.data[25] & 15 <= _NODE_LOCAL or not packet.data[7]
        else:
            stays = heard and route.kind == "multicast" and not packet.data[8]
        if stays and skb.fate == fate:
            self._end(skb, DROPPED, reasons.OUT_OF_SCOPE)
        return not stays

    def _hear_myself(self, skb: Skb, route: Route) -> None:
        copy = Skb(parse(bytes(skb.packet.data)))
        copy.conn, copy.ctinfo, copy.mark = skb.conn, skb.ctinfo, skb.mark
        copy.route, copy.out_iface = route, route.iface
        if self._hooks[copy.packet.family].run(copy, POSTROUTING):
            self._backlog.append((copy, route.iface, skb))
            if self._program:
                self._program = False
                self._work_backlog()

    def _reroute(self, skb: Skb) -> bool:
        """A packet of the box has other addresses or another mark now: find its way anew [ip_route_me_harder]."""
        destination = _ends(skb.packet)[1]
        near = len(destination) == 16 and (destination[0] == 0xFF or is_link_local(destination))
        route = self._way_out(skb.packet, skb.out_iface if near else "")
        if route.why:
            skb.packet.fault = skb.packet.fault or route.why
            return False
        skb.route = route  # this hook's rules still see the device it set out for
        return True

    def _work_backlog(self) -> None:
        """Packets of the box to itself arrive on lo, with their connection and route."""
        while self._backlog:
            sent, iface, told = self._backlog.popleft()
            skb = Skb(parse(bytes(sent.packet.data)), iface)
            skb.conn, skb.mark, skb.route = sent.conn, sent.mark, sent.route
            if sent.partial:
                skb.partial, skb.packet.checksum = True, PARTIAL
            if sent.ctinfo != INVALID:  # that leaves no trace: tracked anew
                skb.ctinfo = sent.ctinfo
            if sent.ctinfo != INVALID or sent.packet.proto in (ICMP, ICMPV6):  # refused before it was tracked
                skb.spoken_for = sent.spoken_for
            self._prerouting(skb)
            if told is sent or skb.fate == LOCAL:
                told.fate = skb.fate

    # ── the box's own packets ───────────────────────────────────────────────────────────────────────

    def _error(self, skb: Skb, kind: int, code: int, info: int = 0) -> None:
        """Send an ICMP error about the packet."""
        if self._local_output and skb.packet.family not in self._speaking:
            now = self._engine.now
            octets = self._own.error(skb.packet, skb.iface, kind, code, info, now, skb.options)
            if octets is not None:
                self._send_own(octets, skb, route=self._back(octets, skb.iface))

    def _back(self, octets: bytes, iface: str) -> Route | None:
        """The way of an error to a link-local address: out of the device that the offender came in by."""
        source, destination = octets[8:24], octets[24:40]
        if octets[0] >> 4 != 6 or not iface or not is_link_local(destination):
            return None
        return self._fib.output(destination, source, iface)

    def _redirect(self, skb: Skb, route: Route) -> None:
        if self._local_output:
            octets = self._own.redirect(skb.packet, skb.iface, route, self._engine.now, skb.options)
            if octets is not None:  # IPv6's is tracked by itself [ndisc_send_redirect]
                about = skb if skb.packet.family == 4 else None
                self._send_own(octets, about, route=self._back(octets, skb.iface))

    def _send_own(
        self, octets: bytes, about: Skb | None, partial: bool = False, route: Route | None = None
    ) -> None:
        """Send an own packet; an error or reset goes with the connection of the packet that it is about.

        `partial`: its checksum is left to the card; rules, quotes and lo see it unfinished, as it is in `octets`.
        `route`: its way, where that is not a matter of its addresses alone.
        """
        if not self._local_output:
            return
        skb = Skb(parse(octets))
        if partial:
            skb.partial, skb.packet.checksum = True, PARTIAL
        if about is not None and about.conn is not None:
            skb.conn, skb.borrowed = about.conn, True
            skb.ctinfo = RELATED_REPLY if about.direction == ORIGINAL else RELATED
        elif about is not None and about.ctinfo == UNTRACKED:
            skb.spoken_for = True
        if route is None:
            route = self._way_out(skb.packet)
        if route.why:
            return
        family = skb.packet.family
        if skb.packet.proto not in (ICMP, ICMPV6) or family in self._speaking:
            self._local_out(skb, route)
            return
        # the box has one voice for ICMP: about what it is just saying it cannot complain [icmp_xmit_lock]
        self._speaking.add(family)
        self._local_out(skb, route)
        self._speaking.remove(family)

    def _way_out(self, packet: Packet, iface: str = "") -> Route:
        """The route of a packet that the box sends, if need be in the name of another [ip_route_me_harder]."""
        source, destination = _ends(packet)
        return self._fib.output(destination, source if self._fib.is_local(source) else b"", iface)

    def _end(self, skb: Skb, fate: str, reason: str, *numbers: int) -> Skb:
        """The packet's way ends here; a connection it began goes with it."""
        packet = skb.packet
        if skb.conn is not None and not skb.borrowed:
            self._engine.drop(skb.conn)
        packet.verdict = DROP
        if not packet.fault:
            packet.fault, packet.numbers = reason, numbers
        skb.fate = fate
        return skb


_LOCAL_QUEUE: Final = 2 << 16  # fragments gathered for the box itself, where nothing is tracked


def _ends(packet: Packet) -> tuple[bytes, bytes]:
    addresses = packet.addresses()
    half = len(addresses) // 2
    return addresses[:half], addresses[half:]
