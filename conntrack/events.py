"""Events: what a listener on ctnetlink's groups would have heard.

An event is a snapshot.  Its record holds the fields that the kernel puts into that message and no others:

    message    timeout      state                 counters   start, end   mark            helper    master
    NEW        always       with PROTOINFO        –          –            ≠ 0 or MARK     if any    with RELATED
    UPDATE     always       with PROTOINFO        –          –            ≠ 0 or MARK     if any    –
    DESTROY    unless 0     TCP, SCTP always      if kept    if kept      ≠ 0             –         –

Tuples, zone (unless 0), id and status are always there.  So an UPDATE that only says ASSURED shows no state
word, and the first packet of a TCP or SCTP connection shows one because leaving state NONE sets PROTOINFO.
The message's kind follows from the bits: DESTROY, else NEW or RELATED make a [NEW], anything else an [UPDATE];
one message carries all bits that gathered since the last.

The timeout is what is left at that moment; as the packet that causes an event has nearly always just refreshed
the timer, it reads as the full value.  `end` is the kernel's `stop`: the time of deletion, or the deadline if
that had passed before.  A record's `bits` (see verdict.EVENT_NAMES) say in words what ctnetlink leaves to be
guessed from its attributes.

An expectation comes with EXP_NEW and goes with EXP_DESTROY, used, timed out or flushed alike; whether that is told
is its master's affair (`Template.expect_events`).  A master's DESTROY precedes those of its expectations, a used
expectation's EXP_DESTROY the NEW of the connection.

Sources: nf_conntrack_netlink.c (ctnetlink_conntrack_event), nf_conntrack_ecache.c, nf_conntrack_core.c
(nf_ct_delete), all of Linux 6.18; checked against `conntrack -E`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .conn import Conn, decimal_time
from .expect import Expectation
from .verdict import CONFIRMED, EVENT_MARK, EVENT_NAMES, EVENT_PROTOINFO, EVENT_RELATED

NEW: Final = "NEW"
UPDATE: Final = "UPDATE"
DESTROY: Final = "DESTROY"
EXP_NEW: Final = "EXP_NEW"
EXP_DESTROY: Final = "EXP_DESTROY"


@dataclass(frozen=True, slots=True)
class Event:
    """One message.

    type    NEW, UPDATE, DESTROY; EXP_NEW, EXP_DESTROY      time    ns since the epoch
    bits    verdict.EVENT_…                 record  the fields that the message carries
    """

    type: str
    time: int
    bits: int
    record: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The "event" shape of docs/records.schema.json."""
        if self.type in (EXP_NEW, EXP_DESTROY):
            return {"event": self.type, "time": decimal_time(self.time), **self.record}
        bits = [name for bit, name in enumerate(EVENT_NAMES) if self.bits >> bit & 1]
        return {"event": self.type, "time": decimal_time(self.time), "bits": bits, **self.record}

    def text(self, timestamp: bool = False, extended: bool = False) -> str:
        """The line of `conntrack -E`, with `-o timestamp` and `-o extended` if asked."""
        from . import show  # text is for people: nothing that tracks imports it

        if self.type in (EXP_NEW, EXP_DESTROY):
            return show.expectation_line(self.to_dict())
        return show.event_line(self.to_dict(), timestamp=timestamp, extended=extended)


def event_of(conn: Conn, kind: str, bits: int, now: int) -> Event:
    """The message of `kind` (NEW, UPDATE, DESTROY) about `conn` as it is at `now` (ns), caused by `bits`."""
    full = conn.to_dict(now)
    record = {name: full[name] for name in ("family", "proto", "orig", "reply", "status")}
    ending = kind == DESTROY
    if "state" in full and (ending or bits & EVENT_PROTOINFO):
        record["state"] = full["state"]
    if full["timeout"] or not ending:
        record["timeout"] = full["timeout"]
    if ending and "packets" in full:
        record["packets"] = full["packets"]
        record["bytes"] = full["bytes"]
    if full["mark"] or bits & EVENT_MARK:
        record["mark"] = full["mark"]
    if full["zone"]:
        record["zone"] = full["zone"]
    record["id"] = full["id"]
    if "helper" in full and not ending:
        record["helper"] = full["helper"]
    if "master" in full and not ending and bits & EVENT_RELATED:
        record["master"] = full["master"]
    if ending and "start" in full:
        record["start"] = full["start"]
        record["end"] = decimal_time(min(now, conn.deadline) if conn.status & CONFIRMED else now)
    return Event(kind, now, bits, record)


def expectation_event_of(expectation: Expectation, kind: str, now: int) -> Event:
    """The message of `kind` (EXP_NEW, EXP_DESTROY) about an expectation at `now` (ns)."""
    return Event(kind, now, 0, expectation.to_dict(now))


class EventStream:
    """Events that wait for a reader, oldest first.  Iterating takes them out.

    >>> stream = EventStream()
    >>> stream.append(Event(NEW, 0, 1, {}))
    >>> len(stream), [event.type for event in stream], len(stream)
    (1, ['NEW'], 0)
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()

    def __iter__(self) -> Iterator[Event]:
        while self._waiting:
            yield self._waiting.popleft()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, event: Event) -> None:
        """Add the newest event."""
        self._waiting.append(event)

    def truncate(self, length: int) -> None:
        """Forget all but the `length` oldest: how a trial takes its events back."""
        while len(self._waiting) > length:
            self._waiting.pop()
