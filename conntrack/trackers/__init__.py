"""Judgement: one file a protocol, each a set of plain functions behind one contract.

A tracker holds no connection.  It is given what the connection remembers and the packet, and answers with a
`Step`; storing the answer is the engine's work, so storage can change under the trackers.

    check(packet, verify, settings)                     -> reason         every packet, before anything else
    begin(packet, settings)                             -> reason, memory a packet that would start a connection
    track(memory, state, status, direction, packet,
          now, deadline, timeouts, settings)            -> Step           every packet of a connection

A reason of "" means all is well; with any other `packet.numbers` holds the numbers that decided it.

A Step is the tuple (verdict, state, timeout, status, events, reason, memory):
    verdict   OK, BAD (packet INVALID), GONE (drop), AGAIN (the entry is finished: delete it and look up
              again) or KILL (accept and count the packet, then delete the entry)
    state     new protocol state, a small int with a name in the tracker's STATES
    timeout   nanoseconds from now on until the entry expires, or -1: timer and counters stay untouched
    status    bits to set (ASSURED)           events   bits to report (PROTOINFO, ASSURED)
    memory    what the tracker wants back next time: None, an int or packed octets
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..sysctl import Settings
from ..wire.packet import Packet

OK: Final = 0
BAD: Final = 1
GONE: Final = 2
AGAIN: Final = 3
KILL: Final = 4

Memory = bytes | int | None
Step = tuple[int, int, int, int, int, str, Memory]
Check = Callable[[Packet, bool, Settings], str]
Begin = Callable[[Packet, Settings], tuple[str, Memory]]
Track = Callable[[Memory, int, int, int, Packet, int, int, tuple[int, ...], Settings], Step]


@dataclass(frozen=True, slots=True)
class Tracker:
    """One protocol: its functions, its state names, and whether a confirmation clash may be resolved."""

    name: str
    check: Check
    begin: Begin
    track: Track
    states: tuple[str, ...] = ()
    allow_clash: bool = False
    # states in which an ASSURED entry may still go when the table is under pressure
    early_drop: frozenset[int] = frozenset()


def no_check(packet: Packet, verify: bool, settings: Settings) -> str:
    """For protocols without a check of their own."""
    return ""


def no_memory(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """For protocols that start with any packet and remember nothing."""
    return "", None
