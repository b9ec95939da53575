"""UDP and UDP-Lite: two timers, and when a conversation becomes a stream.

A UDP connection is "unreplied" for 30 s after each packet.  It becomes a stream (120 s, ASSURED) with a packet
more than two seconds after its creation that finds an answer seen: a DNS exchange never gets there.  UDP-Lite
has no such delay.

UDP-Lite's checksum is verified with pseudo-header protocol 17, so what RFC 3828 calls correct is INVALID, as
on Linux 6.18; the setting `udplite_quirk` False verifies with 136.

Sources: nf_conntrack_proto_udp.c (udp_error, udplite_error, nf_conntrack_udp_packet); RFC 768, RFC 3828.
"""

from __future__ import annotations

from typing import Final

from .. import reasons
from ..sysctl import SECOND, Settings
from ..verdict import ASSURED, EVENT_ASSURED, NAT_CLASH, SEEN_REPLY
from ..wire.checksum import BAD as BAD_SUM
from ..wire.checksum import ones_sum, pseudo_sum
from ..wire.packet import Packet, examine
from . import OK, Memory, Step, Tracker

STREAM_AFTER: Final = 2 * SECOND
_UNREPLIED, _STREAM = 0, 1  # places in the timeout tuple


def check_udp(packet: Packet, verify: bool, settings: Settings) -> str:
    """Length and checksum; a checksum of 0 means none was made, over IPv6 too."""
    if packet.lacks(8):
        return packet.shortage(8, reasons.UDP_SHORT)
    data, l4 = packet.data, packet.l4
    length = (data[l4 + 4] << 8) | data[l4 + 5]
    if length > packet.length - l4 or length < 8:
        packet.numbers = (length, packet.length - l4)
        return reasons.UDP_LENGTH
    if verify and (data[l4 + 6] or data[l4 + 7]) and examine(packet, 17, 6) == BAD_SUM:
        return reasons.UDP_CHECKSUM
    return ""


def check_udplite(packet: Packet, verify: bool, settings: Settings) -> str:
    """Coverage and checksum; the checksum is mandatory."""
    if packet.lacks(8):
        return packet.shortage(8, reasons.UDPLITE_SHORT)
    data, l4 = packet.data, packet.l4
    present = packet.length - l4
    coverage = (data[l4 + 4] << 8) | data[l4 + 5]
    if coverage == 0:
        coverage = present
    elif coverage < 8 or coverage > present:
        packet.numbers = (coverage, present)
        return reasons.UDPLITE_COVERAGE
    if not (data[l4 + 6] or data[l4 + 7]):
        return reasons.UDPLITE_NO_CHECKSUM
    if verify and l4 + coverage <= packet.end:
        protocol = 17 if settings.udplite_quirk else 136
        total = pseudo_sum(packet.addresses(), protocol, present) + ones_sum(data[l4 : l4 + coverage])
        if total % 0xFFFF:
            return reasons.UDPLITE_CHECKSUM
    return ""


def begin(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """Any datagram starts a connection; `track` notes the time at its first call."""
    return "", None


def track_udp(
    memory: Memory,
    state: int,
    status: int,
    direction: int,
    packet: Packet,
    now: int,
    deadline: int,
    timeouts: tuple[int, ...],
    settings: Settings,
) -> Step:
    """One datagram [nf_conntrack_udp_packet]; memory is the time from which on it may be a stream."""
    stream_from = now + STREAM_AFTER if memory is None else memory
    assert isinstance(stream_from, int)
    if not status & SEEN_REPLY or now <= stream_from:
        return OK, 0, timeouts[_UNREPLIED], 0, 0, "", stream_from
    if status & (ASSURED | NAT_CLASH):  # the loser of a clash is never assured: it goes within a second
        return OK, 0, timeouts[_STREAM], 0, 0, "", stream_from
    return OK, 0, timeouts[_STREAM], ASSURED, EVENT_ASSURED, "", stream_from


def track_udplite(
    memory: Memory,
    state: int,
    status: int,
    direction: int,
    packet: Packet,
    now: int,
    deadline: int,
    timeouts: tuple[int, ...],
    settings: Settings,
) -> Step:
    """One UDP-Lite datagram [nf_conntrack_udplite_packet]."""
    return replied_is_stream(status, timeouts)


def replied_is_stream(status: int, timeouts: tuple[int, ...]) -> Step:
    """The rule UDP-Lite and GRE share: once an answer was seen, the long timeout and ASSURED."""
    if not status & SEEN_REPLY:
        return OK, 0, timeouts[_UNREPLIED], 0, 0, "", None
    if status & (ASSURED | NAT_CLASH):
        return OK, 0, timeouts[_STREAM], 0, 0, "", None
    return OK, 0, timeouts[_STREAM], ASSURED, EVENT_ASSURED, "", None


UDP_TRACKER: Final = Tracker("udp", check_udp, begin, track_udp, allow_clash=True)
UDPLITE_TRACKER: Final = Tracker("udplite", check_udplite, begin, track_udplite, allow_clash=True)
