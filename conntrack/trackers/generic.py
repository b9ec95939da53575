"""Everything without a tracker of its own: one connection per address pair and protocol number.

No state, no checks, never ASSURED; each packet of either direction renews 600 s.  DCCP is here too since Linux
6.17 dropped its tracker.  Source: nf_conntrack_proto_generic.c.
"""

from __future__ import annotations

from typing import Final

from ..sysctl import Settings
from ..wire.packet import Packet
from . import OK, Memory, Step, Tracker, no_check, no_memory


def track(
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
    """Any packet of the pair."""
    return OK, 0, timeouts[0], 0, 0, "", None


TRACKER: Final[Tracker] = Tracker("generic", no_check, no_memory, track, allow_clash=True)
