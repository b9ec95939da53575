"""Frames that need no object: records of a classic capture, walked where they lie.

One rule: nothing here decides anything.  `run` offers each IP packet to the fast path and stops at the first
record that is not taken, whatever the reason: it needs the stages, is no IP, or ends beyond the piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from conntrack.fast import FastPath
from conntrack.wire.fields import Octets, record_be, record_le

if TYPE_CHECKING:
    from mypy_extensions import i64

_SECOND: Final = 1_000_000_000  # nanoseconds
_RECORD: Final = 16
_ETHERNET: Final = 14
# The Ethertypes of IPv4 and IPv6, as they look when read big-endian and little-endian.
ETHERTYPES: Final = ((0x0800, 0x86DD), (0x0008, 0xDD86))


def run(fast: FastPath, buffer: bytes, position: i64, little: bool, scale: i64, out: Octets) -> tuple[i64, i64]:
    """(the record where it stopped, how many were taken before).

    little     the records' byte order is little-endian
    scale      nanoseconds in a unit of their fraction of a second
    out        the same octets, changed where packets are translated
    """
    ip4, ip6 = ETHERTYPES[little]
    end = len(buffer)
    taken = 0
    while position + _RECORD + _ETHERNET <= end:
        if little:
            seconds, fraction, captured, kind = record_le(buffer, position)
        else:
            seconds, fraction, captured, kind = record_be(buffer, position)
        at = position + _RECORD
        stop = at + captured
        if captured < _ETHERNET or stop > end or (kind != ip4 and kind != ip6):
            break
        if fast.known(buffer, at + _ETHERNET, stop, seconds * _SECOND + fraction * scale, out) is None:
            break
        taken += 1
        position = stop
    return position, taken
