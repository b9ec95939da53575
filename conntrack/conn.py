"""One connection: two tuples, what its tracker remembers, and when it ends.

Invariants (`Table.check` asserts them):
    * `orig` never changes; `reply` is its inverse until NAT alters it, before confirmation, never after.
    * CONFIRMED: both keys are in the table (a NAT_CLASH entry: only `reply`), or the connection is DYING.
    * until confirmed `deadline` is a span (nanoseconds), from then on a point in time.

Storage (docs/decisions/004): few slots, and every number that would be an object of its own lies packed in one
immutable `record`, so that a packet finds all of them in two or three cache lines:

    record    CLOCK  deadline, packets and bytes of both directions      what every packet changes
              PLACE  serial, buckets, start, ip_change, l4_change        what confirmation fixes
              then the tracker's memory: packed octets, one int, or nothing

The properties below read and write their part of it; whoever changes several parts at once uses `note`.
What most connections lack (mark, zone, helper, master…) is in `Extra`, made when first needed.

Sources: struct nf_conn and its extensions (nf_conntrack.h, nf_conntrack_extend.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, Protocol

from . import verdict
from .choices import ChoiceSource
from .sysctl import SECOND
from .tuples import DEFAULT_ZONE, Tuple, Zone, family_of

# `traffic` shows packets above and bytes below this bit.
PACKET: Final = 1 << 64
_BYTES: Final = PACKET - 1

CLOCK: Final = Struct("<QqQqQ")  # deadline; packets (-1: nobody counts) and bytes, original, then reply
PLACE: Final = Struct("<QQQHH")  # serial, buckets, start, ip_change, l4_change
RECORD: Final = Struct("<QqQqQQQQHH")  # both
_HEAD: Final = RECORD.size
_AFTER_CLOCK: Final = CLOCK.size
_INT: Final = Struct("<Q")
_COUNT: Final = Struct("<qQ")
_CHANGES: Final = Struct("<HH")

_STATE_NAMES: dict[int, tuple[str, ...]] = {}


def name_states(proto: int, names: tuple[str, ...]) -> None:
    """Tell the records how the states of `proto` are called (the trackers do, once, at import)."""
    _STATE_NAMES[proto] = names


class Home(Protocol):
    """What a connection knows of the table it lives in."""

    now: int
    choices: ChoiceSource


ALL_EVENTS: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Template:
    """What a CT rule asks for the connection that a packet may begin; its zone also steers the look-up.

    zone      number and directions                    mark_zone  the number is the packet mark's low 16 bits
    helper    name of a helper, "" for none            timeouts   nanoseconds by state, or None: the sysctls
    events    bits of connection events to report      expect_events  bits of expectation events; both 0: no mask
    """

    zone: Zone = DEFAULT_ZONE
    mark_zone: bool = False
    helper: str = ""
    timeouts: tuple[int, ...] | None = None
    events: int = 0
    expect_events: int = 0


class Extra:
    """The rarely needed rest of a connection."""

    __slots__ = (
        "end",
        "end_reason",
        "event_mask",
        "expect_mask",
        "helper",
        "helper_memory",
        "mark",
        "master",
        "out_iface",
        "seqadj",
        "timeouts",
        "zone",
    )

    def __init__(self) -> None:
        self.mark: int = 0
        self.zone: Zone = DEFAULT_ZONE
        self.helper: str = ""
        self.helper_memory: object = None  # the helper's own, an immutable value
        self.seqadj: tuple[int, int, int, int, int, int] | None = None  # see nat/seqadj.py; None: no area
        self.master: Conn | None = None
        self.timeouts: tuple[int, ...] | None = None  # a timeout policy instead of the sysctls
        self.out_iface: str | None = None  # where a masqueraded connection leaves
        self.event_mask: int = ALL_EVENTS
        self.expect_mask: int = ALL_EVENTS
        self.end: int = 0
        self.end_reason: str = ""

    def copy(self) -> Extra:
        """Another with the same values."""
        other = Extra()
        other.mark = self.mark
        other.zone = self.zone
        other.helper = self.helper
        other.helper_memory = self.helper_memory
        other.seqadj = self.seqadj
        other.master = self.master
        other.timeouts = self.timeouts
        other.out_iface = self.out_iface
        other.event_mask = self.event_mask
        other.expect_mask = self.expect_mask
        other.end = self.end
        other.end_reason = self.end_reason
        return other


NO_EXTRA: Final = Extra()
NOWHERE: Final = (1 << 64) - 1


class Conn:
    """A tracked connection.  Users read it; only the engine writes it.

    orig, reply    keys of the two directions (see `tuples`)
    proto, state   protocol number, tracker's state
    status         bits of `verdict`: SEEN_REPLY, ASSURED, …
    pending        event bits not yet sent; -1: never any
    record         all else, packed (see the module)
    older          the next in its chain of `nat.choose.Chooser.sources`
    """

    __slots__ = ("extra", "home", "older", "orig", "pending", "proto", "record", "reply", "state", "status")

    def __init__(self, home: Home, orig: bytes, reply: bytes, proto: int, record: bytes) -> None:
        self.home = home
        self.orig = orig
        self.reply = reply
        self.proto = proto
        self.state: int = 0
        self.status: int = 0
        self.record: bytes = record
        self.pending: int = -1
        self.extra: Extra = NO_EXTRA
        self.older: Conn | None = None

    # --- what the record holds -------------------------------------------------------------------------

    @property
    def deadline(self) -> int:
        """Nanoseconds; a span until CONFIRMED."""
        found: int = _INT.unpack_from(self.record)[0]
        return found

    @deadline.setter
    def deadline(self, deadline: int) -> None:
        self.record = _INT.pack(deadline) + self.record[8:]

    @property
    def memory(self) -> bytes | int | None:
        """What the tracker remembers."""
        memory = self.record[_HEAD:]
        if not memory:
            return None
        if len(memory) == 8:
            number: int = _INT.unpack(memory)[0]
            return number
        return memory

    @memory.setter
    def memory(self, memory: bytes | int | None) -> None:
        self.record = self.record[:_HEAD] + packed_memory(memory)

    @property
    def traffic_orig(self) -> int:
        """packets * PACKET + bytes of the original direction; -1 without accounting."""
        return _traffic(self.record, 8)

    @traffic_orig.setter
    def traffic_orig(self, traffic: int) -> None:
        self.record = self.record[:8] + _packed_traffic(traffic) + self.record[24:]

    @property
    def traffic_reply(self) -> int:
        """The same of the reply direction."""
        return _traffic(self.record, 24)

    @traffic_reply.setter
    def traffic_reply(self, traffic: int) -> None:
        self.record = self.record[:24] + _packed_traffic(traffic) + self.record[_AFTER_CLOCK:]

    @property
    def serial(self) -> int:
        """The order of creation."""
        found: int = PLACE.unpack_from(self.record, _AFTER_CLOCK)[0]
        return found

    @property
    def buckets(self) -> int:
        """The two directions' places in the table, original << 32 | reply; NOWHERE until confirmed."""
        found: int = PLACE.unpack_from(self.record, _AFTER_CLOCK)[1]
        return found

    @buckets.setter
    def buckets(self, buckets: int) -> None:
        self.record = self.record[:48] + _INT.pack(buckets) + self.record[56:]

    @property
    def start(self) -> int:
        """When it was confirmed, ns; 0 without timestamping."""
        found: int = PLACE.unpack_from(self.record, _AFTER_CLOCK)[2]
        return found

    @start.setter
    def start(self, start: int) -> None:
        self.record = self.record[:56] + _INT.pack(start) + self.record[64:]

    @property
    def changes(self) -> tuple[int, int]:
        """What translation adds to a packet of the original direction: to the sum of its addresses, and to that of
        addresses and ports (each modulo 65535); a reply loses as much."""
        ip, l4 = _CHANGES.unpack_from(self.record, 64)
        return ip, l4

    @changes.setter
    def changes(self, changes: tuple[int, int]) -> None:
        self.record = self.record[:64] + _CHANGES.pack(*changes) + self.record[_HEAD:]

    def note(self, memory: bytes | int | None, deadline: int, direction: int, octets: int) -> None:
        """Keep the tracker's memory; the new `deadline`, unless it is -1; and count a packet of `octets` octets,
        unless they are -1 or nobody counts.  One write for what every packet changes."""
        record = self.record
        old, packets, sent, answers, received = CLOCK.unpack_from(record)
        if octets >= 0 and packets >= 0:
            if direction:
                answers, received = answers + 1, (received + octets) & _BYTES
            else:
                packets, sent = packets + 1, (sent + octets) & _BYTES
        clock = CLOCK.pack(old if deadline < 0 else deadline, packets, sent, answers, received)
        self.record = clock + record[_AFTER_CLOCK:_HEAD] + packed_memory(memory)

    def count(self, direction: int, octets: int) -> None:
        """Count a packet of `octets` octets, unless nobody counts."""
        self.note(self.memory, -1, direction, octets)

    def own_extra(self) -> Extra:
        """The connection's own `Extra`, to be written to."""
        if self.extra is NO_EXTRA:
            self.extra = Extra()
        return self.extra

    # --- what people ask -------------------------------------------------------------------------------

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.orig)

    @property
    def id(self) -> int:
        """The 32-bit connection id, stable for life."""
        return self.home.choices.connection_id(self.orig, self.serial)

    @property
    def original(self) -> Tuple:
        """The tuple of the first packet's direction."""
        return Tuple.from_key(self.orig, self.proto)

    @property
    def answer(self) -> Tuple:
        """The tuple by which answers are recognised (the kernel's reply tuple)."""
        return Tuple.from_key(self.reply, self.proto)

    @property
    def state_name(self) -> str:
        """The protocol state's name, "" for protocols without states."""
        names = _STATE_NAMES.get(self.proto)
        return names[self.state] if names else ""

    @property
    def packets(self) -> tuple[int, int]:
        """Packets counted in original and reply direction (0, 0 without accounting)."""
        return (max(self.traffic_orig, 0) >> 64, max(self.traffic_reply, 0) >> 64)

    @property
    def bytes(self) -> tuple[int, int]:
        """IP octets counted in original and reply direction (0, 0 without accounting)."""
        return (max(self.traffic_orig, 0) & _BYTES, max(self.traffic_reply, 0) & _BYTES)

    def timeout(self, now: int | None = None) -> int:
        """Whole seconds left at `now` (ns; None: the engine's last time), rounded down, never below 0."""
        if not self.status & verdict.CONFIRMED:
            return self.deadline // SECOND
        return max(self.deadline - (self.home.now if now is None else now), 0) // SECOND

    def to_dict(self, now: int | None = None) -> dict[str, Any]:
        """The "conn" shape of docs/records.schema.json at `now` (ns; None: the engine's last time)."""
        extra = self.extra
        one_way = extra.zone.directions != 3
        orig = self.original.to_dict(one_way and extra.zone.directions == 1)
        reply = self.answer.to_dict(one_way and extra.zone.directions == 2)
        out: dict[str, Any] = {"family": self.family, "proto": self.proto, "orig": orig, "reply": reply}
        out["status"] = verdict.status_names(self.status)
        if self.state_name:
            out["state"] = self.state_name
        out["timeout"] = self.timeout(now)
        if self.traffic_orig >= 0:
            out["packets"] = list(self.packets)
            out["bytes"] = list(self.bytes)
        out["mark"] = extra.mark
        out["zone"] = extra.zone.id if not one_way else 0
        out["id"] = self.id
        if extra.helper:
            out["helper"] = extra.helper
        if extra.master is not None:
            out["master"] = extra.master.original.to_dict()
        if self.status & verdict.SEQ_ADJUST and extra.seqadj is not None:
            shifts = (extra.seqadj[:3], extra.seqadj[3:])
            out["seqadj"] = {
                side: dict(zip(("pos", "before", "after"), [number & 0xFFFFFFFF for number in shift], strict=True))
                for side, shift in zip(("orig", "reply"), shifts, strict=True)
            }
        if self.start:
            out["start"] = decimal_time(self.start)
        if extra.end_reason:
            out["end"] = decimal_time(extra.end)
            out["end_reason"] = extra.end_reason
        nat = [name for bit, name in ((verdict.SRC_NAT, "snat"), (verdict.DST_NAT, "dnat")) if self.status & bit]
        if nat:
            out["nat"] = nat
        return out

    def __repr__(self) -> str:
        return (
            f"<Conn {self.original} state={self.state_name or '-'} {'|'.join(verdict.status_names(self.status))}>"
        )

    # --- the trial journal -----------------------------------------------------------------------------

    def save(self) -> tuple[Any, ...]:
        """All that can change (for `journal.Journal`)."""
        return (
            self.orig,
            self.reply,
            self.state,
            self.status,
            self.record,
            self.pending,
            self.older,
            self.extra if self.extra is NO_EXTRA else self.extra.copy(),
        )

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to `saved`."""
        (
            self.orig,
            self.reply,
            self.state,
            self.status,
            self.record,
            self.pending,
            self.older,
            self.extra,
        ) = saved


def packed_memory(memory: bytes | int | None) -> bytes:
    """A tracker's memory as it stands at the end of a record: of an int, nanoseconds in all trackers, 8 octets."""
    if memory is None:
        return b""
    return _INT.pack(memory) if isinstance(memory, int) else memory


def _traffic(record: bytes, at: int) -> int:
    packets, octets = _COUNT.unpack_from(record, at)
    return -1 if packets < 0 else (packets << 64) + octets


def _packed_traffic(traffic: int) -> bytes:
    return _COUNT.pack(-1, 0) if traffic < 0 else _COUNT.pack(traffic >> 64, traffic & _BYTES)


def decimal_time(time: int) -> str:
    """Nanoseconds since the epoch as decimal seconds: six digits, nine where they are needed.

    >>> decimal_time(1_700_000_000_250_000_000), decimal_time(1_000_000_001)
    ('1700000000.250000', '1.000000001')
    """
    seconds, fraction = divmod(time, SECOND)
    text = f"{fraction:09d}"
    return f"{seconds}.{text[:6] if text.endswith('000') else text}"
