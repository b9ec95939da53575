"""ICMP errors and answers of IPv4: whether, from which address, how long.

One rule: nothing is said about ICMP errors, later fragments, broadcasts and multicasts.

The source is the destination of the packet, if that is the box's own; else the address of the way back (or, with
icmp_errors_use_inbound_ifaddr, of the device it came in by).  TOS is the packet's with precedence 6, the whole
message has 576 octets at most.

Sources: icmp.c (__icmp_send, icmp_route_lookup, icmpv4_xrlim_allow, icmp_push_reply) of Linux 6.18; RFC 1812 4.3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..wire.packet import Packet
from . import datagram, ip_options
from .addresses import LINK
from .datagram import ICMP
from .ip_options import Options

if TYPE_CHECKING:
    from .own import Own

# Types that an error may be about: queries and answers; the rest up to 18, and all unknown ones, count as errors.
_ANSWERABLE: Final = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
_QUOTE: Final = 576  # octets of a whole error (RFC 1812 4.3.2.3)
_DUMMY: Final = bytes((192, 0, 0, 8))  # RFC 7600: source of an error from a box without an IPv4 address


def error4(
    own: Own, packet: Packet, iface: str, kind: int, code: int, info: int, now: int, options: Options | None
) -> bytes | None:
    """The error about `packet`, which came in by `iface`, or None; `info` is the message's second word."""
    data = packet.data
    sender, target = bytes(data[12:16]), bytes(data[16:20])
    types = own.fib.address_type(target)
    if wide(own, target, iface) or ((data[6] & 0x1F) | data[7]):
        return None
    if data[9] == ICMP and (packet.lacks(1) or data[packet.l4] not in _ANSWERABLE):
        return None
    counted = own.limited4(kind, code)
    if counted and iface != "lo" and not own.any_left(now):
        return None
    # A packet that a source route sends on is not the box's, though addressed to it.
    source = target if "LOCAL" in types and not (options and options.next_hop) else b""
    if not source and iface and own.sysctl.get("net.ipv4.icmp_errors_use_inbound_ifaddr", 0):
        source = own.fib.select_address(iface, sender, 4, LINK)
    tos = (data[1] & 0x1E) | 0xC0
    return send4(own, data, sender, source, kind, code, info, tos, now, options, counted, _QUOTE)


def send4(
    own: Own,
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
    route = own.fib.output(sender, source)
    if not any(sender):
        sender = route.source  # who asked without an address, is the box itself [ip_route_output_key_hash_rcu]
    if options is not None and options.length:
        made = ip_options.echo(data, options, lambda: route.source, own.is_unicast, now)
        if made is None:
            return None
        echoed = made
    if route.why:
        return None
    if counted and route.iface != "lo" and not own.pay(sender, now):
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
        ident=own.ident(source + sender, ICMP),
        ttl=own.sysctl.get("net.ipv4.ip_default_ttl", 64),
        options=echoed,
    )


def wide(own: Own, target: bytes, iface: str) -> bool:
    """Was the packet for many?  (A broadcast that is forwarded was for one, and what the box sends to 0.0.0.0.)"""
    if not any(target):
        return iface not in ("", "lo")
    types = own.fib.address_type(target)
    if "BROADCAST" in types and target != b"\xff" * 4 and iface:
        return not own.fib.conf.both4("bc_forwarding", iface)
    return bool(types & {"BROADCAST", "MULTICAST"})
