"""REJECT's answers: ICMP unreachable of every kind, or a TCP RST.

One rule: a packet whose checksum is wrong gets none, as its addresses may be wrong too.

Sources: nf_reject_ipv4.c, nf_reject_ipv6.c, nf_reject.h (nf_reject_verify_csum), netfilter/utils.c
(nf_ip_checksum), ipt_REJECT.c, ip6t_REJECT.c of Linux 6.18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..verdict import FORWARD, LOCAL_IN, LOCAL_OUT
from ..wire.checksum import GOOD, ones_sum, pseudo_sum
from ..wire.packet import Packet, walk_ipv6
from . import datagram, errors4, errors6
from .datagram import TCP, UDP, UDPLITE
from .ip_options import Options

if TYPE_CHECKING:
    from .own import Own

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
_SKIP_SUM: Final = frozenset((47, 50, 51, 132, UDPLITE))  # GRE, ESP, AH, SCTP, UDP-Lite; no longer DCCP
_ANY: Final = bytes(16)
_MAPPED: Final = bytes(10) + b"\xff\xff"


def reject(
    own: Own, packet: Packet, iface: str, hook: int, kind: str, now: int, options: Options | None
) -> bytes | None:
    """See `Own.reject`."""
    if kind == "tcp-reset":
        return _reset4(own, packet, iface, hook) if packet.family == 4 else _reset6(own, packet, hook)
    if not _sound(packet):
        return None
    if packet.family == 4:
        return errors4.error4(own, packet, iface, 3, _REJECT4[kind], 0, now, options)
    return errors6.error6(own, packet, "lo" if hook == LOCAL_OUT else iface, 1, _REJECT6[kind], 0, now)


def _reset4(own: Own, packet: Packet, iface: str, hook: int) -> bytes | None:
    data = packet.data
    if ((data[6] & 0x1F) | data[7]) or data[9] != TCP or packet.lacks(20) or data[packet.l4 + 13] & 4:
        return None
    if not _checked(packet, TCP, hook):
        return None
    sender, target = bytes(data[12:16]), bytes(data[16:20])
    if errors4.wide(own, target, iface):
        return None
    segment = datagram.reset(bytes(data[packet.l4 : packet.l4 + 20]), packet.length - packet.l4, target + sender)
    ttl = own.sysctl.get("net.ipv4.ip_default_ttl", 64)
    return datagram.ipv4(target, sender, TCP, segment, tos=0, ident=0, ttl=ttl, df=True)


def _reset6(own: Own, packet: Packet, hook: int) -> bytes | None:
    data = packet.data
    sender, target = bytes(data[8:24]), bytes(data[24:40])
    proto, _, _, fault = walk_ipv6(data, 0, packet.end, packet.length)
    if proto != TCP or fault or not (_is_unicast(sender) and _is_unicast(target)):
        return None
    if packet.lacks(20) or data[packet.l4 + 13] & 4 or not _checked(packet, TCP, hook):
        return None
    route = own.fib.output(sender, target)
    if route.why:
        return None
    segment = datagram.reset(bytes(data[packet.l4 : packet.l4 + 20]), packet.length - packet.l4, target + sender)
    return datagram.ipv6(target, sender, TCP, segment, tclass=0, label=0, hops=own.hops(route))


def _is_unicast(address: bytes) -> bool:
    """Of one node, and not an IPv4 address in disguise?"""
    return address[0] != 0xFF and address != _ANY and not address.startswith(_MAPPED)


def _sound(packet: Packet) -> bool:
    """Is its checksum right, as far as REJECT looks [nf_reject_verify_csum]?"""
    data, proto, at = packet.data, packet.proto, packet.l4
    if packet.family == 4:
        if (data[6] & 0x1F) | data[7]:
            return False
    else:
        proto, at, _, fault = walk_ipv6(data, 0, packet.end, packet.length)
        if fault or at >= packet.length:
            return False
    if proto in _SKIP_SUM or (proto == UDP and at + 8 <= packet.length and not any(data[at + 6 : at + 8])):
        return True
    return _checked(packet, proto if packet.family == 6 or proto in (TCP, UDP) else 0)


def _checked(packet: Packet, protocol: int, hook: int = LOCAL_IN) -> bool:
    """Is the checksum right, or was it found so by connection tracking?  `protocol`: the pseudo-header's, 0: none.

    Linux sums an IPv4 packet from its header on [nf_ip_checksum]: options that were filled in on the way, which
    leaves the header's own checksum wrong until departure, make the whole look bad.  For a reset, what
    tracking found counts no more once the packet is being forwarded [skb_forward_csum].
    """
    if packet.checksum >= 0 and hook != FORWARD:
        return packet.checksum == GOOD
    total = ones_sum(packet.data[0 if packet.family == 4 else packet.l4 : packet.length])
    if protocol:
        total += pseudo_sum(packet.addresses(), protocol, packet.length - packet.l4)
    return total % 0xFFFF == 0 and total > 0
