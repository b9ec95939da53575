"""GRE: one connection per address pair (version 0), or per call (version 1, PPTP).

No checks, no state: 30 s, and 180 s with ASSURED once an answer was seen.  A connection keeps the timeouts that
held for its first packet, whatever the sysctls say later: they are its memory.  The call ids of a PPTP connection
come from its control connection's helper; without it a version 1 packet knows only the receiver's id, and the
answers make a connection of their own.  Source: nf_conntrack_proto_gre.c (nf_conntrack_gre_packet).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from ..sysctl import Settings
from ..wire.packet import Packet
from . import Memory, Step, Tracker, no_check, no_memory
from .udp import replied_is_stream


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
    """Any packet of the pair or call."""
    if memory is None:
        memory = _TIMEOUTS.pack(timeouts[0], timeouts[1])
    assert isinstance(memory, bytes)
    kept: tuple[int, int] = _TIMEOUTS.unpack(memory)
    verdict, state, timeout, added, events, reason, _ = replied_is_stream(status, kept)
    return verdict, state, timeout, added, events, reason, memory


_TIMEOUTS: Final = Struct("<QQ")  # ns: unreplied, stream

TRACKER: Final[Tracker] = Tracker("gre", no_check, no_memory, track, allow_clash=True)
