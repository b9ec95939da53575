"""What the box says itself: ICMP errors, redirects, REJECT's answers, and what local delivery answers.

    offending packet ─► may it be answered? ─► from which address? ─► rate limits ─► octets

    errors4.py  errors6.py   ICMP errors and redirects          rejects.py    REJECT's answers
    delivery.py              what nobody listens to is told     datagram.py   the octets
    ratelimit.py             how often

One rule: octets out, nothing else; the way of these packets through OUTPUT is the router's.

Sources: route.c (ip_error, ip_rt_send_redirect), icmp.c (icmpv4_global_allow, icmpv4_xrlim_allow), net/ipv6/icmp.c
(icmpv6_global_allow, icmpv6_xrlim_allow), raw.c (raw_send_hdrinc), ip6_output.c of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..choices import ChoiceSource
from ..journal import Restorable
from ..wire.packet import Packet
from . import delivery, errors4, errors6, ip_options, rejects
from .delivery import Answer
from .fib import Route
from .ip_options import Options
from .ratelimit import HZ, RateLimits
from .routing import Fib

_UNREACHABLE, _REDIRECT, _PARAMETER = 3, 5, 12
_NEEDS_CUTTING: Final = 4  # code of an unreachable that path MTU discovery lives on: never limited
_NO_WAY: Final = frozenset((0, 1, 13))  # codes of an unreachable that routing itself sends [ip_error]
_RATEMASK6: Final = 2**128 - 1 - 4  # 0-1,3-127: all errors but "packet too big"


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

    def error(
        self, packet: Packet, iface: str, kind: int, code: int, info: int, now: int, options: Options | None = None
    ) -> bytes | None:
        """The ICMP error about `packet`, which came in by `iface` ("": made here); None: none is sent.

        `info` is the MTU, or the octet that a parameter problem points at.
        """
        if packet.family == 6:
            return errors6.error6(self, packet, iface, kind, code, info, now)
        if kind == _UNREACHABLE and code in _NO_WAY:
            self.touch(self.limits)
            if not self.limits.allow_unreachable(bytes(packet.data[12:16]), now):
                return None
        info = info << 24 if kind == _PARAMETER else info
        return errors4.error4(self, packet, iface, kind, code, info, now, options)

    def redirect(
        self, packet: Packet, iface: str, route: Route, now: int, options: Options | None = None
    ) -> bytes | None:
        """Tell the sender of `packet` of a better first hop; None: nothing is sent."""
        if packet.family == 6:
            return errors6.redirect6(self, packet, iface, route, now)
        if options is not None and options.route:
            return None
        sender = bytes(packet.data[12:16])
        self.touch(self.limits)
        if not self.limits.allow_redirect(sender, now):
            return None
        gateway = int.from_bytes(route.gateway or packet.data[16:20], "big")
        octets = errors4.error4(self, packet, iface, _REDIRECT, 1, gateway, now, options)
        self.limits.sent_redirect(sender, now)
        return octets

    def reject(
        self, packet: Packet, iface: str, hook: int, kind: str, now: int, options: Options | None = None
    ) -> bytes | None:
        """REJECT's answer to `packet`; `kind` is the word behind --reject-with.  None: nobody is told."""
        return rejects.reject(self, packet, iface, hook, kind, now, options)

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

    # ── what its parts ask ──────────────────────────────────────────────────────────────────────────

    def is_unicast(self, address: bytes) -> bool:
        """Is it nobody's here?"""
        return "UNICAST" in self.fib.address_type(address)

    def limited4(self, kind: int, code: int) -> bool:
        """Does an ICMP message of this type count against the limits?"""
        if kind == _UNREACHABLE and code == _NEEDS_CUTTING:
            return False
        return bool(self.sysctl.get("net.ipv4.icmp_ratemask", 6168) >> kind & 1)

    def limited6(self, kind: int) -> bool:
        """Does an ICMPv6 message of this type count against the limits?"""
        return bool((self.sysctl.get("net.ipv6.icmp.ratemask", 0) or _RATEMASK6) >> kind & 1)

    def any_left(self, now: int) -> bool:
        """Is there something left in the purse of all errors?"""
        self.touch(self.limits)
        per_second = self.sysctl.get("net.ipv4.icmp_msgs_per_sec", 1000)
        return self.limits.any_left(now, per_second, self.sysctl.get("net.ipv4.icmp_msgs_burst", 50))

    def pay(self, peer: bytes, now: int) -> bool:
        """Take the price of an error from the purse of `peer`, and from that of all."""
        if len(peer) == 4:
            price = self.sysctl.get("net.ipv4.icmp_ratelimit", 1000)
        else:
            price = self.sysctl.get("net.ipv6.icmp.ratelimit", 100)
        self.touch(self.limits)
        if not self.limits.allow(peer, now, (price * HZ + 999) // 1000):
            return False
        self.limits.spend(self.choices.icmp_credits(peer))
        return True

    def ident(self, addresses: bytes, proto: int) -> int:
        """The identification of an own packet that may be cut."""
        return self.choices.ip_id(addresses + bytes((proto,)))

    def hops(self, route: Route) -> int:
        """The hop limit of an own packet on `route`."""
        return self.fib.conf.own6("hop_limit", route.iface)

    def label(self, key: bytes) -> int:
        """The flow label of an own packet [ip6_make_flowlabel]: every flow has its own."""
        return self.choices.flow_label(key) if self.sysctl.get("net.ipv6.auto_flowlabels", 1) else 0
