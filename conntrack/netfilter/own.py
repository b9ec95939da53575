"""What the box says itself: ICMP errors, redirects, REJECT's answers, and what local delivery answers.

    offending packet ─► may it be answered? ─► from which address? ─► rate limits ─► octets

One rule: octets out, nothing else; the way of these packets through OUTPUT is the router's.

                        IPv4                                        IPv6
    never about         ICMP errors, fragments but the first,       ICMPv6 errors, multicast (but too big),
                        broadcast, multicast                        from unspecified, multicast, anycast
    source              the destination, if that is an own          the destination, if that is an own address;
                        address; else as the route back has it      else chosen for the device it came in by
    quote               whole message 576 octets at most            1280 octets at most
    TOS, class          TOS of the offender, precedence 6           0

Sources: icmp.c (__icmp_send, icmp_route_lookup, icmpv4_xrlim_allow), net/ipv6/icmp.c (icmp6_send), route.c
(ip_error, ip_rt_send_redirect), ndisc.c (ndisc_send_redirect), nf_reject_ipv4.c, nf_reject_ipv6.c of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..choices import ChoiceSource
from ..journal import Restorable
from ..verdict import LOCAL_OUT
from ..wire.checksum import GOOD, pseudo_sum
from ..wire.packet import Packet, examine, walk_ipv6
from . import datagram, delivery, ip_options
from .addresses import LINK, is_link_local
from .datagram import ICMP, ICMPV6, TCP, UDP, UDPLITE
from .delivery import Answer
from .fib import Route
from .ip_options import Options
from .ratelimit import HZ, RateLimits
from .routing import Fib

_UNREACHABLE, _REDIRECT, _TIME_EXCEEDED, _PARAMETER = 3, 5, 11, 12
_TOO_BIG6, _PARAMETER6, _REDIRECT6 = 2, 4, 137
_REDIRECTED: Final = 4  # option of a redirect: the packet it is about (RFC 4861 4.6.3)
_NEEDS_CUTTING: Final = 4  # code of an unreachable that path MTU discovery lives on: never limited
_NO_WAY: Final = frozenset((0, 1, 13))  # codes of an unreachable that routing itself sends [ip_error]
_ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
# Types that an error may be about: queries and answers; the rest up to 18, and all unknown ones, count as errors.
_ANSWERABLE: Final = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
_QUOTE4, _QUOTE6 = 576, 1280  # octets of a whole error (RFC 1812 4.3.2.3, RFC 4443 2.4 c)
_DUMMY: Final = bytes((192, 0, 0, 8))  # RFC 7600: source of an error from a box without an IPv4 address
_RATEMASK6: Final = 2**128 - 1 - 4  # 0-1,3-127: all errors but "packet too big"
_SKIP_SUM: Final = frozenset((47, 50, 51, 132, UDPLITE))  # GRE, ESP, AH, SCTP, UDP-Lite; no longer DCCP
ANY6: Final = bytes(16)

# --reject-with -> ICMP code
_REJECT4: Final = {
    "icmp-net-unreachable": 0,
    "icmp-host-unreachable": 1,
    "icmp-proto-unreachable": 2,
    "icmp-port-unreachable": 3,
    "icmp-net-prohibited": 9,
    "icmp-host-prohibited": 10,
    "icmp-admin-prohibited": 13,
}
_REJECT6: Final = {
    "icmp6-no-route": 0,
    "icmp6-adm-prohibited": 1,
    "icmp6-addr-unreachable": 3,
    "icmp6-port-unreachable": 4,
    "icmp6-policy-fail": 5,
    "icmp6-reject-route": 6,
}


class Own:
    """Makes the box's own packets.  `touch` is told before the rate limits change."""

    def __init__(
        self,
        fib: Fib,
        sysctl: Mapping[str, int],
        choices: ChoiceSource,
        touch: Callable[[Restorable], None] = lambda memory: None,
    ) -> None:
        self.fib = fib
        self.sysctl = sysctl
        self.choices = choices
        self.limits = RateLimits()
        self.touch = touch

    # ── errors ──────────────────────────────────────────────────────────────────────────────────────

    def error(
        self, packet: Packet, iface: str, kind: int, code: int, info: int, now: int, options: Options | None = None
    ) -> bytes | None:
        """The ICMP error about `packet`, which came in by `iface` ("": made here); None: none is sent.

        `info` is the MTU, or the octet that a parameter problem points at, or the gateway of a redirect.
        """
        if packet.family == 6:
            return self._error6(packet, iface, kind, code, info, now)
        if kind == _UNREACHABLE and code in _NO_WAY:
            self.touch(self.limits)
            if not self.limits.allow_unreachable(bytes(packet.data[12:16]), now):
                return None
        return self._error4(packet, iface, kind, code, info << 24 if kind == _PARAMETER else info, now, options)

    def redirect(
        self, packet: Packet, iface: str, route: Route, now: int, options: Options | None = None
    ) -> bytes | None:
        """Tell the sender of `packet` of a better first hop; None: nothing is sent."""
        if packet.family == 6:
            return None if options else self._redirect6(packet, iface, route, now)
        if options is not None and options.route:
            return None
        sender = bytes(packet.data[12:16])
        self.touch(self.limits)
        if not self.limits.allow_redirect(sender, now):
            return None
        gateway = int.from_bytes(route.gateway or packet.data[16:20], "big")
        octets = self._error4(packet, iface, _REDIRECT, 1, gateway, now, options)
        self.limits.sent_redirect(sender, now)
        return octets

    def reject(
        self, packet: Packet, iface: str, hook: int, kind: str, now: int, options: Options | None = None
    ) -> bytes | None:
        """REJECT's answer to `packet`; `kind` is the word behind --reject-with.  None: nobody is told."""
        if kind == "tcp-reset":
            return self._reset4(packet, iface) if packet.family == 4 else self._reset6(packet)
        if not self._sound(packet):
            return None
        if packet.family == 4:
            return self._error4(packet, iface, _UNREACHABLE, _REJECT4[kind], 0, now, options)
        return self._error6(packet, iface if hook != LOCAL_OUT else "lo", 1, _REJECT6[kind], 0, now)

    def answers(
        self, packet: Packet, iface: str, route: Route | None, now: int, options: Options | None = None
    ) -> list[Answer]:
        """What the box answers to a packet delivered to it, with nobody listening."""
        return delivery.answers(self, packet, iface, route, now, options)

    def finished(self, octets: bytes, source: bytes) -> bytes:
        """A packet of a raw socket with its own IPv4 header: what it left open is filled in [raw_send_hdrinc]."""
        if octets[0] >> 4 != 4:
            return octets
        data = bytearray(octets)
        if data[12:16] == b"\0\0\0\0":
            data[12:16] = source
        data[2:4] = len(data).to_bytes(2, "big")
        if data[4:6] == b"\0\0" and not data[6] & 0x40:
            data[4:6] = self.ident(bytes(data[12:20]), data[9]).to_bytes(2, "big")
        ip_options.finish(data)
        return bytes(data)

    # ── IPv4 ────────────────────────────────────────────────────────────────────────────────────────

    def _error4(
        self, packet: Packet, iface: str, kind: int, code: int, info: int, now: int, options: Options | None
    ) -> bytes | None:
        data = packet.data
        sender, target = bytes(data[12:16]), bytes(data[16:20])
        types = self.fib.address_type(target)
        if self._wide(target, iface) or ((data[6] & 0x1F) | data[7]):
            return None
        if data[9] == ICMP and (packet.lacks(1) or data[packet.l4] not in _ANSWERABLE):
            return None
        counted = self.limited4(kind, code)
        if counted and iface != "lo" and not self.any_left(now):
            return None
        # A packet that a source route sends on is not the box's, though addressed to it.
        source = target if "LOCAL" in types and not (options and options.next_hop) else b""
        if not source and iface and self.sysctl.get("net.ipv4.icmp_errors_use_inbound_ifaddr", 0):
            source = self.fib.select_address(iface, sender, 4, LINK)
        tos = (data[1] & 0x1E) | 0xC0
        return self.send4(data, sender, source, kind, code, info, tos, now, options, counted, _QUOTE4)

    def send4(
        self,
        data: bytes | bytearray,
        sender: bytes,
        source: bytes,
        kind: int,
        code: int,
        info: int,
        tos: int,
        now: int,
        options: Options | None,
        counted: bool,
        most: int,
        body: bytes | None = None,
    ) -> bytes | None:
        """An ICMP message to `sender`, if it can be routed and the limits allow it.

        Its body is `body`, or as much of `data` as fits in `most` octets.
        """
        echoed = b""
        if options is not None and options.route:
            sender = ip_options.first_hop(data, options) or sender
        route = self.fib.output(sender, source)
        if options is not None and options.length:
            made = ip_options.echo(data, options, lambda: route.source, self.is_unicast, now)
            if made is None:
                return None
            echoed = made
        if route.why:
            return None
        if counted and route.iface != "lo" and not self._pay(sender, now, "net.ipv4.icmp_ratelimit"):
            return None
        if body is None:
            room = min(most, route.mtu) - 28 - len(echoed)
            if room <= 20:
                return None
            body = bytes(data[:room])
        source = route.source or (bytes(4) if kind in _ANSWERABLE else _DUMMY)
        message = datagram.icmp(kind, code, info, body)
        return datagram.ipv4(
            source,
            sender,
            ICMP,
            message,
            tos=tos,
            ident=self.ident(source + sender, ICMP),
            ttl=self.sysctl.get("net.ipv4.ip_default_ttl", 64),
            options=echoed,
        )

    def is_unicast(self, address: bytes) -> bool:
        """Is it nobody's here?"""
        return "UNICAST" in self.fib.address_type(address)

    def limited4(self, kind: int, code: int) -> bool:
        if kind == _UNREACHABLE and code == _NEEDS_CUTTING:
            return False
        return bool(self.sysctl.get("net.ipv4.icmp_ratemask", 6168) >> kind & 1)

    def any_left(self, now: int) -> bool:
        self.touch(self.limits)
        per_second = self.sysctl.get("net.ipv4.icmp_msgs_per_sec", 1000)
        return self.limits.any_left(now, per_second, self.sysctl.get("net.ipv4.icmp_msgs_burst", 50))

    def _pay(self, peer: bytes, now: int, name: str, shift: int = 0) -> bool:
        """Take the price of an error from the purse of `peer` and from the common one."""
        cost = (self.sysctl.get(name, 1000) * HZ + 999) // 1000 >> shift
        self.touch(self.limits)
        if not self.limits.allow(peer, now, cost):
            return False
        self.limits.spend(self.choices.icmp_credits(peer))
        return True

    def ident(self, addresses: bytes, proto: int) -> int:
        """The identification of a packet that may be cut."""
        return self.choices.ip_id(addresses + bytes((proto,)))

    def _reset4(self, packet: Packet, iface: str) -> bytes | None:
        data = packet.data
        if ((data[6] & 0x1F) | data[7]) or data[9] != TCP or packet.lacks(20) or data[packet.l4 + 13] & 4:
            return None
        if not _checked(packet, TCP, 16):
            return None
        sender, target = bytes(data[12:16]), bytes(data[16:20])
        if self._wide(target, iface):
            return None
        segment = datagram.reset(
            bytes(data[packet.l4 : packet.l4 + 20]), packet.length - packet.l4, target + sender
        )
        ttl = self.sysctl.get("net.ipv4.ip_default_ttl", 64)
        return datagram.ipv4(target, sender, TCP, segment, tos=0, ident=0, ttl=ttl, df=True)

    def _wide(self, target: bytes, iface: str) -> bool:
        """Was the packet for many?  (A broadcast that is forwarded was for one.)"""
        types = self.fib.address_type(target)
        if "BROADCAST" in types and any(target) and target != b"\xff" * 4 and iface:
            return not self.fib.conf.both4("bc_forwarding", iface)
        return bool(types & {"BROADCAST", "MULTICAST"})

    def _sound(self, packet: Packet) -> bool:
        """Is its checksum right, as far as REJECT looks [nf_reject_verify_csum]?"""
        proto = packet.proto
        data = packet.data
        if packet.family == 4 and ((data[6] & 0x1F) | data[7]):
            return False
        if packet.family == 6 and packet.lacks(1):
            return False  # nothing behind the headers [reject6_csum_ok]
        if proto in _SKIP_SUM or (
            proto == UDP and not packet.lacks(8) and not any(data[packet.l4 + 6 : packet.l4 + 8])
        ):
            return True
        at = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}.get(proto, -1)
        pseudo = proto if packet.family == 6 or proto in (TCP, UDP) else 0
        if at < 0 or packet.lacks(at + 2):
            # a protocol that has no such sum, or no room for it: all that is there has to add up by itself
            length = packet.length - packet.l4
            added = pseudo_sum(packet.addresses(), pseudo, length) if pseudo else 0
            total = int.from_bytes(data[packet.l4 : packet.length], "big") << 8 * (length & 1)
            return (total + added) % 0xFFFF == 0
        return _checked(packet, pseudo, at)

    # ── IPv6 ────────────────────────────────────────────────────────────────────────────────────────

    def _error6(self, packet: Packet, iface: str, kind: int, code: int, info: int, now: int) -> bytes | None:
        data = packet.data
        sender, target = bytes(data[8:24]), bytes(data[24:40])
        source = b""
        if target[0] == 0xFF:
            if kind != _TOO_BIG6 and not (kind == _PARAMETER6 and code == 2 and _asks(data, info)):
                return None
        elif self.fib.is_own(target, iface if is_link_local(target) else "") or self._anycast(target):
            source = target
        if sender == ANY6 or sender[0] == 0xFF or _is_error6(packet):
            return None
        counted = self._limited6(kind)
        if counted and iface != "lo" and not self.any_left(now):
            return None
        out = iface if is_link_local(sender) else ""
        if not source:
            way = self.fib.lookup6(sender, out)
            if iface and not (way and way.source):
                source = self.fib.select_address(iface, sender, 6)
        route = self.fib.output(sender, source, out)
        return self.send6(bytes(data[: _QUOTE6 - 48]), sender, route, kind, code, info, 0, now, counted)

    def send6(
        self,
        body: bytes,
        sender: bytes,
        route: Route,
        kind: int,
        code: int,
        info: int,
        tclass: int,
        now: int,
        counted: bool,
    ) -> bytes | None:
        """An ICMPv6 message to `sender` by `route`, if there is such and the limits allow it."""
        if counted and route.iface != "lo":
            wide = 128 - route.prefix_length >> 5  # the wider the prefix, the more often
            if route.why or not self._pay(sender, now, "net.ipv6.icmp.ratelimit", wide):
                return None
        if route.why or self._answers_anycast(route, sender, kind):
            return None
        message = datagram.icmpv6(route.source, sender, kind, code, info, body)
        label = self.label(route.source + sender + bytes((ICMPV6, kind, code)))
        hops = self.hops(route)
        return datagram.ipv6(route.source, sender, ICMPV6, message, tclass=tclass, label=label, hops=hops)

    def hops(self, route: Route) -> int:
        """The hop limit of an own packet on `route`."""
        return self.fib.conf.own6("hop_limit", route.iface)

    def label(self, key: bytes) -> int:
        """The flow label of an own packet [ip6_make_flowlabel]: every flow has its own."""
        return self.choices.flow_label(key) if self.sysctl.get("net.ipv6.auto_flowlabels", 1) else 0

    def _limited6(self, kind: int) -> bool:
        return bool((self.sysctl.get("net.ipv6.icmp.ratemask", 0) or _RATEMASK6) >> kind & 1)

    def _anycast(self, address: bytes) -> bool:
        found = self.fib.lookup6(address, table="local")
        return found is not None and found.kind == "anycast"

    def _answers_anycast(self, route: Route, sender: bytes, kind: int) -> bool:
        """An error would go to an anycast address [ipv6_anycast_destination]."""
        if kind >= 128:
            return False
        known = route.kind == "anycast"
        near = route.prefix_length < 127 and not route.gateway and route.prefix == sender
        return (known or near) and not self.sysctl.get("net.ipv6.icmp.error_anycast_as_unicast", 0)

    def _reset6(self, packet: Packet) -> bytes | None:
        data = packet.data
        sender, target = bytes(data[8:24]), bytes(data[24:40])
        if 0xFF in (sender[0], target[0]) or ANY6 in (sender, target) or packet.proto != TCP:
            return None
        if packet.lacks(20) or data[packet.l4 + 13] & 4 or not _checked(packet, TCP, 16):
            return None
        route = self.fib.output(sender, target)
        if route.why:
            return None
        segment = datagram.reset(
            bytes(data[packet.l4 : packet.l4 + 20]), packet.length - packet.l4, target + sender
        )
        return datagram.ipv6(target, sender, TCP, segment, tclass=0, label=0, hops=self.hops(route))

    def _redirect6(self, packet: Packet, iface: str, route: Route, now: int) -> bytes | None:
        """Only a box with a link-local address on that device sends one, once a second [ndisc_send_redirect]."""
        data = packet.data
        sender, final = bytes(data[8:24]), bytes(data[24:40])
        better = route.gateway or final
        self.touch(self.limits)
        if not self.limits.allow(final, now, HZ):
            return None
        source = next((one.local for one in self.fib.interfaces[iface].ipv6 if is_link_local(one.local)), b"")
        if not source or (better != final and not is_link_local(better)):
            return None
        way = self.fib.output(sender, source, iface)
        if way.why or way.gateway or not self.limits.allow(sender, now, HZ):
            return None
        room = min(_QUOTE6 - 80, packet.length + 8) & ~7
        header = bytes((_REDIRECTED, room // 8)) + bytes(6)
        body = better + final + header + bytes(data[: room - 8])
        message = datagram.icmpv6(source, sender, _REDIRECT6, 0, 0, body)
        return datagram.ipv6(source, sender, ICMPV6, message, tclass=0, label=0, hops=255)


def _checked(packet: Packet, protocol: int, at: int) -> bool:
    if packet.checksum >= 0:
        return packet.checksum == GOOD
    return examine(packet, protocol, at) == GOOD


def _asks(data: bytes | bytearray, at: int) -> bool:
    """Does the unknown option at `at` ask for an answer even to multicast [opt_unrec]?"""
    return at >= len(data) or data[at] & 0xC0 == 0x80


def _is_error6(packet: Packet) -> bool:
    """Is it an ICMPv6 error, or cut off before its type, unless as a first fragment [is_ineligible]?"""
    data = packet.data
    proto, at, fragment, fault = walk_ipv6(data, 0, packet.end, packet.length)
    if proto != ICMPV6 or fault:
        return False
    if at >= packet.end:
        return not (fragment and _more_follow(data, packet.end))
    return data[at] < 128


def _more_follow(data: bytes | bytearray, end: int) -> bool:
    """Does the last fragment header say that more fragments follow?"""
    proto, at, more = data[6], 40, False
    while proto in (0, 43, 44, 51, 60) and at + 8 <= end:
        if proto == 44:
            more = bool(data[at + 3] & 1)
        size = 8 if proto == 44 else (data[at + 1] + 2) * 4 if proto == 51 else (data[at + 1] + 1) * 8
        proto, at = data[at], at + size
    return more
