"""What became of a packet: the one answer of `Engine.process` (and of a host's `receive`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from . import verdict
from .conn import Conn, decimal_time
from .events import Event
from .reasons import REASONS, TCP_TIMEOUT_LOWERED
from .tuples import Tuple
from .wire.packet import Packet, parse


@dataclass(frozen=True, slots=True)
class Traces:
    """What a packet left behind in a whole box.

    fate    forwarded, local, dropped, ct_drop (by connection tracking itself), held (not out of reassembly, or
            dropped by a raw table rule), ip_drop (IP header checks); "" where time alone acted
    out     (device, octets) of all that left, the box's own packets included, in order
    local   octets delivered to the box itself
    events  what a listener heard       stats  counters of `conntrack -S` that moved, and by how much
    logs    records of LOG rules
    invalid lines that nf_conntrack_log_invalid asks for, of all packets that there were, without addresses
    """

    fate: str = ""
    out: tuple[tuple[str, bytes], ...] = ()
    local: tuple[bytes, ...] = ()
    events: tuple[Event, ...] = ()
    stats: dict[str, int] = field(default_factory=dict)
    logs: tuple[dict[str, object], ...] = ()
    invalid: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What the "outcome" shape of docs/records.schema.json has beyond the packet, but for `fate`."""
        return {
            "out": [[device, octets.hex()] for device, octets in self.out],
            "local": [octets.hex() for octets in self.local],
            "events": [event.to_dict() for event in self.events],
            "stats": self.stats,
        }


NO_TRACES: Final = Traces()


def log_line(packet: Packet, log_invalid: int) -> str | None:
    """What the kernel logs of the packet, without addresses, for `nf_conntrack_log_invalid` = `log_invalid`."""
    if packet.fault and "helper" in REASONS[packet.fault].numbers:
        return REASONS[packet.fault].log_text(packet.numbers)  # helpers say why they drop, whatever the sysctl
    if not packet.fault or log_invalid not in (255, packet.proto) or not log_invalid:
        return None
    text = REASONS[packet.fault].log_text(packet.numbers)
    return None if text is None else f"nf_ct_proto_{packet.proto}: {text}"


def log_lines(packet: Packet, log_invalid: int) -> list[str]:
    """All of them: a FIN or RST beyond the window may have two, why it is invalid and what follows."""
    line = log_line(packet, log_invalid)
    if line is None:
        return []
    if packet.fault == TCP_TIMEOUT_LOWERED:
        return [f"nf_ct_proto_{packet.proto}: {packet.numbers[-1]}", line]
    return [line]


class Outcome:
    """One packet's fate.

    packets   what goes out: none if held or dropped, several if it was cut into fragments again
    verdict   "ACCEPT", "DROP", or "HELD" (a fragment that waits, or was refused, in reassembly)
    conn      its connection, None for INVALID, UNTRACKED and held packets
    reason    why it was not simply tracked and counted ("" : it was); a row of `reasons.REASONS`
    counted   it entered its connection's counters and renewed its timer
    rewritten translation changed it

    A host fills `fate`, `out`, `local`, `events`, `stats` and `logs` too (see `Traces`).
    """

    __slots__ = (
        "_ctinfo",
        "_given",
        "_iface",
        "_known",
        "_rewritten",
        "_time",
        "conn",
        "packets",
        "traces",
        "verdict",
    )

    def __init__(
        self,
        packet: Packet | None,
        packets: tuple[bytes, ...],
        verdict: str,
        conn: Conn | None,
        ctinfo: int,
        time: int,
        iface: str | None,
        traces: Traces = NO_TRACES,
        given: bytes = b"",
        rewritten: bool = False,
    ) -> None:
        self._known = packet  # None: it took the fast path, was counted, and is parsed when somebody asks
        self._given = given
        self._rewritten = rewritten
        self.packets = packets
        self.verdict = verdict
        self.conn = conn
        self._ctinfo = ctinfo
        self._time = time
        self._iface = iface
        self.traces = traces

    @property
    def _packet(self) -> Packet:
        packet = self._known
        if packet is None:
            packet = self._known = parse(self._given)
            packet.counted = True
            packet.owned = self._rewritten
        return packet

    @property
    def fast(self) -> bool:
        """Did it take the fast path?"""
        return bool(self._given)

    @property
    def fate(self) -> str:
        """A host's word for what became of the packet."""
        return self.traces.fate

    @property
    def out(self) -> tuple[tuple[str, bytes], ...]:
        """(device, octets) of all that left the host."""
        return self.traces.out

    @property
    def local(self) -> tuple[bytes, ...]:
        """What the host itself was given."""
        return self.traces.local

    @property
    def events(self) -> tuple[Event, ...]:
        """What a listener heard meanwhile."""
        return self.traces.events

    @property
    def stats(self) -> dict[str, int]:
        """Counters that moved."""
        return self.traces.stats

    @property
    def logs(self) -> tuple[dict[str, object], ...]:
        """Records of LOG rules."""
        return self.traces.logs

    @property
    def packet(self) -> bytes:
        """The only packet that goes out; ValueError if there is none or there are several."""
        if len(self.packets) != 1:
            raise ValueError(f"{len(self.packets)} packets go out, not one")
        return self.packets[0]

    @property
    def ctinfo(self) -> str:
        """NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED; "" where tracking was not reached."""
        return verdict.CTINFO_NAMES[self._ctinfo] if self._ctinfo >= 0 else ""

    @property
    def direction(self) -> str:
        """ "original" or "reply"; "" without a connection."""
        if self.conn is None:
            return ""
        reply = self._ctinfo in (verdict.ESTABLISHED_REPLY, verdict.RELATED_REPLY)
        return verdict.DIRECTION_NAMES[reply]

    @property
    def reason(self) -> str:
        """The reason's name, "" if the packet was simply tracked."""
        return "" if self._known is None else self._known.fault

    @property
    def detail(self) -> dict[str, int | str]:
        """The numbers that decided, by name."""
        reason = self._packet.fault
        return REASONS[reason].detail(self._packet.numbers) if reason else {}

    @property
    def counted(self) -> bool:
        """Did it enter its connection's counters (whether or not accounting is on)?"""
        return self._known is None or self._known.counted

    @property
    def rewritten(self) -> bool:
        """Did translation change it?"""
        return self._rewritten if self._known is None else self._known.owned

    @property
    def tuple(self) -> Tuple | None:
        """The packet's own tuple as it came, None if not even its addresses could be read."""
        packet = self._packet
        return Tuple.from_key(packet.key, packet.proto) if packet.key else None

    @property
    def length(self) -> int:
        """IP octets, as accounting counts them."""
        return self._packet.length - self._packet.grown

    @property
    def captured(self) -> int:
        """IP octets that were captured; fewer than `length` where a snap length cut the packet."""
        return self._packet.end - self._packet.grown

    @property
    def reassembled(self) -> bool:
        """Did it come in as fragments?"""
        return self._packet.pieces is not None or self._packet.fragment

    def log_text(self, log_invalid: int = 255) -> str | None:
        """The kernel's log line without addresses for `nf_conntrack_log_invalid` = `log_invalid`, or None."""
        return log_line(self._packet, log_invalid)

    def to_dict(self) -> dict[str, Any]:
        """The "packet" shape of docs/records.schema.json (without `n`, which only a capture can give).

        From a host: the "outcome" shape; where time alone acted it says nothing of a packet.
        """
        out: dict[str, Any] = {"time": decimal_time(self._time)}
        if self.traces is not NO_TRACES:
            if not self.fate:
                return out | {"verdict": self.verdict} | self.traces.to_dict()
            out |= {"fate": self.fate} | self.traces.to_dict()
        if self._iface is not None:
            out["iface"] = self._iface
        out["length"] = self.length
        out["verdict"] = self.verdict
        if self.ctinfo:
            out["ctinfo"] = self.ctinfo
        if self.direction:
            out["direction"] = self.direction
        own = self.tuple
        if own is not None:
            out["proto"] = own.proto
            if not self._packet.fragment:
                out["tuple"] = own.to_dict()
            elif self.verdict == verdict.HELD:
                out["tuple"] = {"src": own.src, "dst": own.dst}  # what a fragment shows for certain
        if self.conn is not None:
            out["conn"] = self.conn.id
        out["counted"] = self.counted
        if self.reason:
            out["reason"] = self.reason
            if self.detail:
                out["detail"] = self.detail
        out["rewritten"] = self.rewritten
        return out

    def __repr__(self) -> str:
        return f"<Outcome {self.verdict} {self.ctinfo or '-'} {self.reason or 'tracked'} {len(self.packets)} out>"
