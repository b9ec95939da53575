"""What a box on which no program listens answers to the packets delivered to it.

    ICMP echo, timestamp           reply                    ICMPv6 echo              reply
    UDP, UDP-Lite                  port unreachable         neighbour solicitation   advertisement
    TCP                            RST                      extension headers        parameter problem, if bad
    protocols nobody handles       protocol unreachable     … unknown next header    parameter problem

One rule: the order of the checks is the kernel's, and what fails one is silently gone.  IGMP and PIM have a
handler and never an answer.

Sources: icmp.c (icmp_rcv, icmp_echo, icmp_timestamp), udp.c (__udp4_lib_rcv), tcp_ipv4.c (tcp_v4_rcv,
tcp_v4_send_reset), ip_input.c (ip_protocol_deliver_rcu), net/ipv6: ip6_input.c, exthdrs.c, icmp.c, udp.c,
tcp_ipv6.c, ndisc.c of Linux 6.18; which protocols have a handler: this kernel's configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ..wire.checksum import GOOD, ones_sum, pseudo_sum, verify
from ..wire.packet import Packet
from ..wire.refragment import Pieces
from . import datagram, errors4, errors6, ip_options
from .addresses import is_link_local
from .datagram import ICMP, ICMPV6, TCP, UDP, UDPLITE
from .fib import Route
from .ip_options import Options

if TYPE_CHECKING:
    from .own import Own

_PIM: Final = 103
_SILENT: Final = frozenset((2, _PIM))  # IGMP, PIM: handled
_ECHO, _ECHO_REPLY, _STAMP, _STAMP_REPLY = 8, 0, 13, 14
_UNREACHABLE, _PROTOCOL, _PORT = 3, 2, 3
_ECHO6, _ECHO_REPLY6, _SOLICITATION, _ADVERTISEMENT = 128, 129, 135, 136
_PARAMETER6: Final = 4
_MD5, _AUTHENTICATION = 19, 29  # TCP options: a signed segment for nobody is not reset
_LEAST_SIGNED: Final = 18  # octets of the MD5 option: fewer are not looked at (a kernel without CONFIG_TCP_AO)
_HOP, _ROUTING, _FRAGMENT, _NONE, _DESTINATION = 0, 43, 44, 59, 60


class Answer(NamedTuple):
    """Octets to send; `about`: with the connection of the packet they answer attached.

    route  their way, None: as `Fib.output` says for their addresses
    """

    octets: bytes
    about: bool = False
    route: Route | None = None


def answers(
    own: Own, packet: Packet, iface: str, route: Route | None, now: int, options: Options | None
) -> list[Answer]:
    """See `Own.answers`."""
    wide = route is not None and route.kind in ("broadcast", "multicast")
    if packet.family == 4:
        octets, about = _answer4(own, packet, iface, wide, now, options)
        way = None
    else:
        octets, about, way = _answer6(own, packet, iface, route, now)
    return [Answer(octets, about, way)] if octets is not None else []


def _answer4(
    own: Own, packet: Packet, iface: str, wide: bool, now: int, options: Options | None
) -> tuple[bytes | None, bool]:
    proto = packet.data[9]
    if proto == ICMP:
        return _icmp(own, packet, iface, wide, now, options), False
    if proto in (UDP, UDPLITE):
        return (None if wide else _udp(own, packet, iface, proto, now, options)), False
    if proto == TCP:
        return (None if wide else _tcp(own, packet, now, options)), False
    if proto in _SILENT:
        return None, False
    return own.error(packet, iface, _UNREACHABLE, _PROTOCOL, 0, now, options), True


def _icmp(own: Own, packet: Packet, iface: str, wide: bool, now: int, options: Options | None) -> bytes | None:
    data, at = packet.data, packet.l4
    message = bytes(data[at : packet.length])
    if len(message) < 8 or verify(message, 0, 2) != GOOD or message[0] not in (_ECHO, _STAMP):
        return None
    if wide and own.sysctl.get("net.ipv4.icmp_echo_ignore_broadcasts", 1):
        return None
    sender, target = bytes(data[12:16]), bytes(data[16:20])
    source = own.fib.spec_dst(sender, iface) if wide else target if any(target) else b""
    info = int.from_bytes(message[4:8], "big")
    if message[0] == _ECHO:
        if own.sysctl.get("net.ipv4.icmp_echo_ignore_all", 0):
            return None
        kind, code, body = _ECHO_REPLY, message[1], message[8:]
    else:
        if len(message) < 12:
            return None
        kind, code, body = _STAMP_REPLY, 0, message[8:12] + ip_options.time_of_day(now) * 2
    counted = own.limited4(kind, code)
    if counted and iface != "lo" and not own.any_left(now):
        return None
    return errors4.send4(own, data, sender, source, kind, code, info, data[1], now, options, counted, 0, body)


def _udp(own: Own, packet: Packet, iface: str, proto: int, now: int, options: Options | None) -> bytes | None:
    """Closed port: unreachable, unless length or checksum are wrong."""
    data, at = packet.data, packet.l4
    size = packet.length - at
    if size < 8:
        return None
    claimed, checksum = int.from_bytes(data[at + 4 : at + 6], "big"), data[at + 6] << 8 | data[at + 7]
    if packet.family == 6 and proto == UDP:
        claimed = claimed or size  # RFC 2675: a jumbogram says 0
    covered = claimed
    if proto == UDP:
        if not 8 <= claimed <= size:
            return None
        if claimed < size:
            packet = _shorter(packet, at + claimed)
            data, size = packet.data, claimed
        if not checksum:
            if packet.family == 6:
                return None
            covered = 0
    else:
        covered = claimed or size
        if not checksum or not 8 <= covered <= size:
            return None
    if covered:
        pseudo = pseudo_sum(packet.addresses(), proto, size)
        if (ones_sum(data[at : at + covered]) + pseudo) % 0xFFFF:
            return None
    if packet.family == 4:
        return own.error(packet, iface, _UNREACHABLE, _PORT, 0, now, options)
    return own.error(packet, iface, 1, 4, 0, now)


def _shorter(packet: Packet, end: int) -> Packet:
    """The packet without what lies behind its UDP length: that is not quoted."""
    cut = Packet(bytes(packet.data[:end]))
    cut.family, cut.proto, cut.l4, cut.pieces = packet.family, packet.proto, packet.l4, packet.pieces
    return cut


def _tcp(own: Own, packet: Packet, now: int, options: Options | None) -> bytes | None:
    segment = _closed(packet)
    if segment is None:
        return None
    data = packet.data
    sender, target = bytes(data[12:16]), bytes(data[16:20])
    hop, echoed = sender, b""
    if options is not None and options.route:
        hop = ip_options.first_hop(data, options) or sender
    route = own.fib.output(hop, target if any(target) else b"")
    if options is not None and options.length:
        made = ip_options.echo(data, options, lambda: route.source, own.is_unicast, now)
        if made is None:
            return None
        echoed = made
    if route.why:
        return None
    answer = datagram.reset(segment, packet.length - packet.l4, target + sender)
    ttl = own.sysctl.get("net.ipv4.ip_default_ttl", 64)
    tos = data[1] & 0xFC
    return datagram.ipv4(route.source, hop, TCP, answer, tos=tos, ident=0, ttl=ttl, df=True, options=echoed)


def _closed(packet: Packet) -> bytes | None:
    """The TCP header of a segment for a closed port that is answered with RST, else None."""
    data, at = packet.data, packet.l4
    size = packet.length - at
    header = (data[at + 12] >> 4) * 4 if size >= 20 else 0
    if not 20 <= header <= size or data[at + 13] & 4:
        return None
    if verify(data[at : packet.length], pseudo_sum(packet.addresses(), TCP, size), 16) != GOOD:
        return None
    if _signed(data[at + 20 : at + header], packet.family):
        return None
    return bytes(data[at : at + 20])


def _signed(options: bytes | bytearray, family: int) -> bool:
    """Is a signature among them, or are they malformed [tcp_do_parse_auth_options]?

    A well-formed authentication option (TCP-AO) silences IPv4 only, in a kernel without CONFIG_TCP_AO.
    """
    at, end, seen = 0, len(options), 0
    while end - at >= _LEAST_SIGNED and options[at]:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1]
        if not 2 <= size <= end - at or options[at] == _MD5:
            return True
        if options[at] == _AUTHENTICATION:
            seen += 1
            if family == 4 or size <= 4 or seen > 1:
                return True
        at += size
    return False


# ── IPv6 ────────────────────────────────────────────────────────────────────────────────────────────


_Found6 = tuple[bytes | None, bool, Route | None]
_NOTHING: Final[_Found6] = (None, False, None)


def _answer6(own: Own, packet: Packet, iface: str, route: Route | None, now: int) -> _Found6:
    """Walk the extension headers, then the protocol [ip6_protocol_deliver_rcu]."""
    data = packet.data
    where, at, proto = 6, 40, data[6]
    if proto == _HOP:  # dealt with on arrival
        where, proto, at = at, data[at], at + (data[at + 1] + 1) * 8
    if isinstance(packet.pieces, Pieces):
        # Connection tracking, which gathered it, leaves the place behind all headers before the fragment header and
        # the number of the first of them: with two or more the payload is read as such a header.
        at = packet.pieces.header
    gathered = packet.pieces is not None
    while proto in (_ROUTING, _FRAGMENT, _DESTINATION):
        size = 8 if proto == _FRAGMENT or at + 2 > len(data) else (data[at + 1] + 1) * 8
        if at + size > len(data):
            return _NOTHING
        if proto == _DESTINATION:
            bad = _bad_option(data, at, size)
            if bad:
                return _NOTHING if bad < 0 else (own.error(packet, iface, _PARAMETER6, 2, bad, now), True, None)
        elif proto == _FRAGMENT:
            if gathered:
                return own.error(packet, iface, _PARAMETER6, 0, at, now), True, None
            if any(data[at + 2 : at + 4]):
                return _NOTHING  # it waits for others
            gathered = True
        else:
            if data[at + 2] in (3, 4) or data[24] == 0xFF:  # RPL and segment routing: not enabled
                return _NOTHING
            if data[at + 3]:
                return own.error(packet, iface, _PARAMETER6, 0, at + 2, now), True, None
        where, proto, at = at, data[at], at + size
    multicast = data[24] == 0xFF
    if proto in (UDP, UDPLITE, TCP) and at != packet.l4:
        return _NOTHING  # misread: no sum will be right
    if proto == ICMPV6:
        return _icmpv6(own, packet, iface, route, at, now)
    if proto in (UDP, UDPLITE) and not multicast:
        return _udp(own, packet, iface, proto, now, None), False, None
    if proto == TCP and route is not None and route.kind == "local":
        return _tcp6(own, packet, iface), False, None
    if proto in (UDP, UDPLITE, TCP, _NONE, _PIM):
        return _NOTHING
    return own.error(packet, iface, _PARAMETER6, 1, where, now), True, None


def _bad_option(data: bytes | bytearray, at: int, size: int) -> int:
    """Where the first unacceptable destination option lies; 0: none, -1: bad, but nobody is told."""
    place, end, padding, count = at + 2, at + size, 0, 0
    while place < end:
        kind = data[place]
        length = 1 if kind == 0 else data[place + 1] + 2 if place + 1 < end else 0
        if not length or place + length > end:
            return -1
        if kind <= 1:
            padding += length
            if padding > 7 or any(data[place + 2 : place + length]):
                return -1
        else:
            padding = 0
            count += 1
            if count > 8:  # net.ipv6.max_dst_opts_number
                return -1
            action = kind >> 6
            if action:
                return -1 if action == 1 or (action == 3 and data[24] == 0xFF) else place
        place += length
    return 0


def _icmpv6(own: Own, packet: Packet, iface: str, route: Route | None, at: int, now: int) -> _Found6:
    data = packet.data
    message = bytes(data[at : packet.length])
    addresses = packet.addresses()
    if len(message) < 8 or verify(message, pseudo_sum(addresses, ICMPV6, len(message)), 2) != GOOD:
        return _NOTHING
    sender, target = addresses[:16], addresses[16:]
    if message[0] == _SOLICITATION:
        return _advertise(own, packet, iface, message), False, None
    if message[0] != _ECHO6 or own.sysctl.get("net.ipv6.icmp.echo_ignore_all", 0):
        return _NOTHING
    source = target if any(target) else b""
    if target[0] == 0xFF:
        if own.sysctl.get("net.ipv6.icmp.echo_ignore_multicast", 0):
            return _NOTHING
        source = b""
    elif route is not None and route.kind == "anycast":
        if own.sysctl.get("net.ipv6.icmp.echo_ignore_anycast", 0):
            return _NOTHING
        source = target if own.sysctl.get("net.ipv6.anycast_src_echo_reply", 0) else b""
    tclass = (data[0] & 15) << 4 | data[1] >> 4
    info = int.from_bytes(message[4:8], "big")
    if iface == "lo":  # the device that the address stands on [icmp6_iif]
        home = own.fib.lookup6(target, table="local")
        iface = home.iface if home is not None else iface
    way = own.fib.output(sender, source, iface)
    return (
        errors6.send6(own, message[8:], sender, way, _ECHO_REPLY6, message[1], info, tclass, now, False),
        False,
        way,
    )


def _advertise(own: Own, packet: Packet, iface: str, message: bytes) -> bytes | None:
    """A device without link-layer addresses answers too: "that is me", and no address [ndisc_recv_ns]."""
    data = packet.data
    wanted, sender, target = message[8:24], bytes(data[8:24]), bytes(data[24:40])
    if len(message) < 24 or data[7] != 255 or message[1] or wanted[0] == 0xFF:
        return None
    if not own.fib.is_own(wanted, iface) or sender == bytes(16):
        return None
    route = own.fib.output(sender, wanted, iface)
    if route.why:
        return None
    router = 0x80 if own.fib.conf.own6("forwarding", iface) else 0
    flags = (router | 0x40 | (0x20 if target[0] == 0xFF else 0)) << 24
    answer = datagram.icmpv6(wanted, sender, _ADVERTISEMENT, 0, flags, wanted)
    return datagram.ipv6(wanted, sender, ICMPV6, answer, tclass=0, label=0, hops=255)


def _tcp6(own: Own, packet: Packet, iface: str) -> bytes | None:
    segment = _closed(packet)
    if segment is None:
        return None
    data = packet.data
    sender, target = bytes(data[8:24]), bytes(data[24:40])
    route = own.fib.output(sender, target if any(target) else b"", iface if is_link_local(sender) else "")
    if route.why:
        return None
    answer = datagram.reset(segment, packet.length - packet.l4, target + sender)
    tclass = ((data[0] & 15) << 4 | data[1] >> 4) & 0xFC
    label = own.label(route.source + sender + bytes((TCP,)) + segment[2:4] + segment[:2])
    octets = datagram.ipv6(route.source, sender, TCP, answer, tclass=tclass, label=label, hops=own.hops(route))
    # the sum is of the addresses as the segment had them, though :: is nobody's [tcp_v6_send_response]
    return datagram.unfinished_tcp(octets, target + sender)
