"""Where the transport header is, as nf_tables sees it: asked anew for every rule that needs it.

IPv4: the header's protocol field and length.  IPv6: the extension headers are walked as far as an authentication
header (51), which is taken for the transport protocol, and next header 59 counts as a protocol too; in both points
this differs from the walk of connection tracking.  A packet whose extension headers cannot be read has no transport
header at all, and no rule that names a protocol matches it, negated or not.

Later fragments: matches of xtables are false of them; nf_tables' own comparisons read on as if a header were there.

Sources: nft_set_pktinfo_ipv4, nft_set_pktinfo_ipv6 (nf_tables_ipv4.h, nf_tables_ipv6.h), ipv6_find_hdr
(exthdrs_core.c).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ...wire.packet import Packet

_AUTH: Final = 51
_FRAGMENT: Final = 44
_NONE: Final = 59
_WALKED: Final = frozenset((0, 43, _FRAGMENT, _AUTH, _NONE, 60))  # ipv6_ext_hdr
_SHORT: Final = frozenset(
    (0, 60)
)  # hop-by-hop, destination options: two octets of them suffice, four of the others


class Transport(NamedTuple):
    """proto, offset of the header in the packet, and the fragment offset: 8-octet units in IPv4, octets in IPv6."""

    proto: int
    at: int
    fragment: int


def transport(packet: Packet) -> Transport | None:
    """The transport header of `packet`, None where there is none to be found."""
    data = packet.data
    if packet.family == 4:
        return Transport(packet.proto, packet.l4, ((data[6] & 0x1F) << 8) | data[7])
    proto = data[6]
    if proto not in _WALKED:
        return Transport(proto, 40, 0)
    at, end, fragment = 40, packet.end, 0
    while proto in _WALKED and proto != _NONE and proto != _AUTH:
        if at + (2 if proto in _SHORT else 4) > end:
            return None
        following = data[at]
        if proto == _FRAGMENT:
            fragment = ((data[at + 2] << 8) | data[at + 3]) & 0xFFF8
            if fragment:
                # The look-up ends without having said where: nf_tables then reads from the IPv6 header on.
                return Transport(following, 0, fragment) if _ends(following) else None
            at += 8
        else:
            at += (data[at + 1] + 1) * 8
        proto = following
    return Transport(proto, at, fragment)


def _ends(proto: int) -> bool:
    return proto not in _WALKED or proto == _NONE


def octets(packet: Packet, offset: int, count: int) -> bytes | None:
    """`count` octets of the transport header from `offset` on, None if they are not there [nft_payload_fast_eval].

    Of a later fragment, which has none, whatever stands in that place.
    """
    head = transport(packet)
    if head is None or head.at + offset + count > packet.end:
        return None
    at = head.at + offset
    return bytes(packet.data[at : at + count])
