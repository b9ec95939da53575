"""ICMPv6: as ICMP, and what keeps a link working is not tracked at all.

    type      1..127   errors: belong to the connection they quote
    130-132, 143, 151, 152, 133-136   listeners, neighbours, routers: UNTRACKED
    137       redirect: an error whose quoted packet lies in its first option
    else      queries (128 echo, 139 node information may begin) and answers

Sources: nf_conntrack_proto_icmpv6.c (nf_conntrack_icmpv6_error, …_redirect, …_packet); RFC 4443, 4861.
"""

from __future__ import annotations

from typing import Final

from .. import reasons
from ..sysctl import Settings
from ..wire.checksum import BAD as BAD_SUM
from ..wire.packet import Packet, examine
from . import Memory, Tracker
from .icmp import track

REDIRECT: Final = 137
UNTRACKED_TYPES: Final = frozenset((130, 131, 132, 133, 134, 135, 136, 143, 151, 152))
_QUERIES: Final = frozenset((128, 139))
_REDIRECTED_HEADER: Final = 4  # RFC 4861 4.6.3
_REDIRECT_SIZE: Final = 40
QUOTE_AT: Final = 8


def check(packet: Packet, verify: bool, settings: Settings) -> str:
    """Length and checksum; failures count as `error`, not as `invalid`."""
    if packet.lacks(8):
        return packet.shortage(8, reasons.ICMPV6_SHORT)
    if verify and examine(packet, 58, 2) == BAD_SUM:
        return reasons.ICMPV6_CHECKSUM
    return ""


def quote_offset(packet: Packet) -> tuple[int, str]:
    """(where the quoted packet starts, reason); (0, "") if this message is no error.

    The reason is that of a bad redirect, or ICMPV6_UNTRACKED for messages that are nobody's.
    """
    data, l4 = packet.data, packet.l4
    kind = data[l4]
    if kind in UNTRACKED_TYPES:
        packet.numbers = (kind,)
        return 0, reasons.ICMPV6_UNTRACKED
    if kind < 128:
        return l4 + QUOTE_AT, ""
    if kind != REDIRECT:
        return 0, ""
    if packet.lacks(_REDIRECT_SIZE):
        return 0, packet.shortage(_REDIRECT_SIZE, reasons.ICMPV6_REDIRECT_SHORT)
    if data[l4 + 1] != 0:
        return 0, ""
    if data[7] != 255 or data[8] != 0xFE or data[9] & 0xC0 != 0x80:
        packet.numbers = (data[7],)
        return 0, reasons.ICMPV6_REDIRECT_SOURCE
    option = l4 + _REDIRECT_SIZE
    if option + 2 > packet.end or data[option + 1] == 0:
        return 0, reasons.ICMPV6_REDIRECT_OPTIONS
    if data[option] != _REDIRECTED_HEADER:
        return 0, ""
    return option + 8, ""


def begin(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """Only a query starts a connection."""
    kind = packet.data[packet.l4]
    if kind in _QUERIES:
        return "", None
    packet.numbers = (kind,)
    return reasons.ICMP_NOT_NEW, None


TRACKER: Final[Tracker] = Tracker("icmpv6", check, begin, track, allow_clash=False)
