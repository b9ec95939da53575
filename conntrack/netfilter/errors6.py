"""ICMPv6 errors, answers and redirects: whether, from which address, how long.

One rule: nothing is said about ICMPv6 errors, nor to a source that is no single node; about multicasts only "packet
too big" and unknown options that ask for it.

The source is the destination of the packet, if that is the box's own; else chosen as for a packet that leaves by
the device the offender came in by.  The whole message has 1280 octets at most, traffic class 0.

Sources: net/ipv6/icmp.c (icmp6_send, icmpv6_xrlim_allow, icmpv6_route_lookup), ndisc.c (ndisc_send_redirect) of
Linux 6.18; RFC 4443 2.4, RFC 4861 4.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..wire.packet import Packet, walk_ipv6
from . import datagram
from .addresses import is_link_local
from .datagram import ICMPV6
from .fib import Route
from .ratelimit import HZ
from .route_output import is_anycast

if TYPE_CHECKING:
    from .own import Own

_TOO_BIG, _PARAMETER, _REDIRECT = 2, 4, 137
_QUOTE: Final = 1280  # octets of a whole message (RFC 4443 2.4 c)
_REDIRECTED: Final = 4  # option of a redirect: the packet it is about (RFC 4861 4.6.3)
_ANY: Final = bytes(16)


def error6(own: Own, packet: Packet, iface: str, kind: int, code: int, info: int, now: int) -> bytes | None:
    """The error about `packet`, which came in by `iface`, or None."""
    data = packet.data
    sender, target = bytes(data[8:24]), bytes(data[24:40])
    source = b""
    if target[0] == 0xFF:
        if kind != _TOO_BIG and not (kind == _PARAMETER and code == 2 and _asks(data, info)):
            return None
    elif own.fib.is_own(target, iface if is_link_local(target) else "") or _anycast(own, target):
        source = target
    if sender == _ANY or sender[0] == 0xFF or _is_error(packet):
        return None
    counted = own.limited6(kind)
    if counted and iface != "lo" and not own.any_left(now):
        return None
    out = iface if is_link_local(sender) else ""
    if not source:
        way = own.fib.lookup6(sender, out)
        if iface and not (way and way.source):
            source = own.fib.select_address(iface, sender, 6)
    route = own.fib.output(sender, source, out)
    return send6(own, bytes(data[: _QUOTE - 48]), sender, route, kind, code, info, 0, now, counted)


def send6(
    own: Own,
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
        if route.why or not own.pay(sender, now):
            return None
    if route.why or _answers_anycast(own, route, sender, kind):
        return None
    message = datagram.icmpv6(route.source, sender, kind, code, info, body)
    label = own.label(route.source + sender + bytes((ICMPV6, kind, code)))
    hops = own.hops(route)
    return datagram.ipv6(route.source, sender, ICMPV6, message, tclass=tclass, label=label, hops=hops)


def redirect6(own: Own, packet: Packet, iface: str, route: Route, now: int) -> bytes | None:
    """Only a box with a link-local address on that device sends one, once a second [ndisc_send_redirect]."""
    data = packet.data
    sender, final = bytes(data[8:24]), bytes(data[24:40])
    better = route.gateway or final
    own.touch(own.limits)
    if not own.limits.allow(final, now, HZ):
        return None
    source = next((one.local for one in own.fib.interfaces[iface].ipv6 if is_link_local(one.local)), b"")
    if not source or (better != final and not is_link_local(better)):
        return None
    way = own.fib.output(sender, source, iface)
    if way.why or way.gateway or not own.limits.allow(sender, now, HZ):
        return None
    room = min(_QUOTE - 80, packet.length + 8) & ~7
    header = bytes((_REDIRECTED, room // 8)) + bytes(6)
    body = better + final + header + bytes(data[: room - 8])
    message = datagram.icmpv6(source, sender, _REDIRECT, 0, 0, body)
    return datagram.ipv6(source, sender, ICMPV6, message, tclass=0, label=0, hops=255)


def _anycast(own: Own, address: bytes) -> bool:
    found = own.fib.lookup6(address, table="local")
    return found is not None and found.kind == "anycast"


def _answers_anycast(own: Own, route: Route, sender: bytes, kind: int) -> bool:
    """An error would go to an anycast address."""
    if kind >= 128 or own.sysctl.get("net.ipv6.icmp.error_anycast_as_unicast", 0):
        return False
    return is_anycast(route, sender)


def _asks(data: bytes | bytearray, at: int) -> bool:
    """Does the unknown option at `at` ask for an answer even to multicast [opt_unrec]?"""
    return at >= len(data) or data[at] & 0xC0 == 0x80


def _is_error(packet: Packet) -> bool:
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
