"""Replay: a capture through an engine, frame by frame, and the translated capture out again.

    frame ─► link header ─► vantage ─► engine ─► vantage check ─► frame in its own link header ─► writer
              not IP: passes unchanged, counted by ethertype

`Replay.steps` yields one `Step` per frame, in order, in bounded memory; whatever consumes it (the command line,
a test, a program) sees every packet exactly once.  Time is the capture's; the frame's own timestamp and link
header travel through untouched.  Dropped packets are not written, nor fragments that never became whole.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..engine import Engine
from ..outcome import Outcome
from ..stats import Stats
from ..tuples import destination
from ..verdict import ACCEPT, CTINFO_NAMES, DROP, PROTOCOL_NAMES
from ..wire import link
from ..wire.packet import parse
from .capture import CaptureReader, CaptureWriter, Frame, open_capture
from .pcap import PcapReader, PcapWriter
from .vantage import GATEWAY, INSIDE, Seen, Vantage


class Step(NamedTuple):
    """One frame's way: its number (from 1), itself, its ethertype (0: none), and the outcome (None: not IP)."""

    number: int
    frame: Frame
    ethertype: int
    outcome: Outcome | None


class Tally:
    """Counts of what a replay's frames and connections were, for a summary.

    proto, verdict, ctinfo, reason   packets by the names of these; frames that are not IP count in `proto`
    state      live connections by (protocol, state)        ended      connections that ended on the way
    rewritten  packets that translation changed
    """

    __slots__ = ("ctinfo", "ended", "proto", "reason", "rewritten", "state", "verdict")

    def __init__(self) -> None:
        self.proto: Counter[str] = Counter()
        self.verdict: Counter[str] = Counter()
        self.ctinfo: Counter[str] = Counter()
        self.reason: Counter[str] = Counter()
        self.state: Counter[tuple[str, str]] = Counter()
        self.ended = 0
        self.rewritten = 0

    def add(self, step: Step) -> None:
        """One frame."""
        outcome = step.outcome
        if outcome is None:
            self.proto["not IP"] += 1
            return
        if outcome.fast:
            return  # `finish` counts it
        own = outcome.tuple
        self.proto["?" if own is None else _protocol(own.proto)] += 1
        self.verdict[outcome.verdict] += 1
        self.ctinfo[outcome.ctinfo or "(held)"] += 1
        if outcome.reason:
            self.reason[outcome.reason] += 1
        if outcome.rewritten and outcome.packets:
            self.rewritten += 1

    def finish(self, engine: Engine) -> None:
        """The frames that took the fast path, which all went out, and the connections that live at the end."""
        for place, count in enumerate(engine.stats.taken):
            if count:
                self.proto[_protocol(place >> 4)] += count
                self.verdict[ACCEPT] += count
                self.ctinfo[CTINFO_NAMES[place >> 1 & 7]] += count
                self.rewritten += count * (place & 1)
        for conn in engine.conns():
            self.state[_protocol(conn.proto), conn.state_name or "-"] += 1

    def merge(self, other: Tally) -> None:
        """Count what `other` counted too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class ReplayResult:
    """What a replay did.

    frames    of the capture            written   to the output
    not_ip    frames that are not IP, by ethertype (0: none)    short   frames too short for their link header
    tally     what the packets and connections were             stats   the engine's counters
    seen      what the vantage point did
    problem   None, or one line on why the capture ended before its end
    """

    frames: int = 0
    written: int = 0
    short: int = 0
    not_ip: Counter[int] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    stats: Stats = field(default_factory=Stats)
    seen: Seen = field(default_factory=Seen)
    problem: str | None = None

    def merge(self, other: ReplayResult) -> None:
        """Count what `other`, another part of the same capture at a gateway, counted too."""
        self.frames += other.frames
        self.written += other.written
        self.short += other.short
        self.not_ip += other.not_ip
        self.tally.merge(other.tally)
        self.stats.merge(other.stats)


class Replay:
    """Drives `engine` with the frames of `reader`; writes to `writer` if there is one.

    not_ip   frames that are not IP, by ethertype (0: none); short  frames too short for their link header
    written  frames written         taken  frames that `run` put through without a Step
    """

    __slots__ = ("_engine", "_reader", "_vantage", "_writer", "frames", "not_ip", "short", "taken", "written")

    def __init__(
        self,
        reader: CaptureReader,
        engine: Engine,
        vantage: Vantage | None = None,
        writer: CaptureWriter | None = None,
    ) -> None:
        self._reader = reader
        self._engine = engine
        self._vantage = Vantage(engine, GATEWAY) if vantage is None else vantage
        self._writer = writer
        self.frames = 0
        self.short = 0
        self.taken = 0
        self.written = 0
        self.not_ip: Counter[int] = Counter()

    def run(
        self, see: Callable[[Step], object] | None = None, progress: Callable[[int], object] | None = None
    ) -> None:
        """Process every frame, for those who need not look at each: `see` is shown the steps that were no ordinary
        packet of a known connection; the others count in `stats.taken` (see `fast`).  `progress` hears of octets
        read, piece by piece.

        A classic Ethernet capture seen at a gateway goes through in pieces of 128 KiB: no object is made of an
        ordinary frame, and its record is rewritten where it lies.  Until the end the cyclic garbage collector
        rests.
        """
        with _no_collector():
            self._run(see, progress)

    def _run(self, see: Callable[[Step], object] | None, progress: Callable[[int], object] | None) -> None:
        reader, writer = self._reader, self._writer
        express = (
            isinstance(reader, PcapReader)
            and reader.record_size == 16
            and reader.linktype() == link.EN10MB
            and self._vantage.view == GATEWAY
            and (writer is None or isinstance(writer, PcapWriter))
        )
        if not express:
            for step in self.steps():
                if see is not None:
                    see(step)
                if progress is not None:
                    progress(len(step.frame.data) + 16)
            return
        assert isinstance(reader, PcapReader)

        def stage(frame: Frame) -> None:
            self.frames = reader.frames_read - 1
            step = self.step(frame)
            if see is not None:
                see(step)

        write = writer.write_records if isinstance(writer, PcapWriter) else None
        self.taken = reader.relay(self._engine.fast_path, stage, write, progress)
        self.frames = reader.frames_read
        if writer is not None:
            self.written += self.taken

    def steps(self) -> Iterator[Step]:
        """Process every frame; see `Step`."""
        for frame in self._reader:
            yield self.step(frame)

    def step(self, frame: Frame) -> Step:
        """Process this frame, whether or not it came from the reader."""
        self.frames += 1
        linktype = self._reader.linktype(frame.interface)
        offset, ethertype = link.locate(linktype, frame.data)
        if offset >= 0 and (ethertype == link.ETHERTYPE_IPV4 or ethertype == link.ETHERTYPE_IPV6):
            return Step(self.frames, frame, ethertype, self._packet(frame, linktype, offset))
        if offset < 0:
            self.short += 1
        else:
            self.not_ip[ethertype] += 1
        self._write(frame, frame.data, frame.wire_length)
        return Step(self.frames, frame, ethertype, None)

    def _packet(self, frame: Frame, linktype: int, offset: int) -> Outcome:
        data = frame.data[offset:]
        wire_length = max(frame.wire_length - offset, len(data))
        vantage = self._vantage
        interface = self._reader.interfaces[frame.interface].name or None
        readdressed = vantage.readdress(data, frame.time, wire_length)
        given = data if readdressed is None else readdressed
        outcome = self._engine.process(given, frame.time, iface=interface, wire_length=wire_length)
        vantage.note(outcome.conn)
        if self._writer is None and readdressed is None:
            return outcome
        consumed = parse(data, wire_length).end if outcome.reassembled else outcome.captured
        packets = outcome.packets
        if readdressed is not None:
            if outcome.verdict == ACCEPT:
                vantage.compare(data[:consumed], packets)
            # the other wire carried it so, a held fragment too: it had arrived
            packets = () if outcome.verdict == DROP else (readdressed,)
        for packet in packets:
            if packet == data[:consumed]:
                self._write(frame, frame.data, frame.wire_length)
            else:
                whole = link.reframe(linktype, frame.data, offset, packet, consumed)
                missing = frame.wire_length - len(frame.data) if len(packet) == consumed else 0
                self._write(frame, whole, len(whole) + missing)
        return outcome

    def _write(self, frame: Frame, data: bytes, wire_length: int) -> None:
        if self._writer is not None:
            self._writer.write(frame, data, wire_length)
            self.written += 1


def json_line(record: dict[str, Any]) -> str:
    """One line of a file of records."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n"


def _protocol(number: int) -> str:
    return PROTOCOL_NAMES.get(number, str(number))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Without the cyclic garbage collector: an engine has no cycles, and it would look at every connection to see
    that."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def guess_view(path: str, public: Sequence[bytes], limit: int = 0) -> str:
    """`inside` if no packet of the capture is addressed to one of the `public` addresses, else `gateway`.

    Reads the capture once up to the first such packet (`limit` frames at most, 0: all).  Raises CaptureError.
    """
    wanted = frozenset(public)
    with open_capture(path) as reader:
        for number, frame in enumerate(reader):
            if limit and number >= limit:
                break
            offset, ethertype = link.locate(reader.linktype(frame.interface), frame.data)
            if offset < 0 or ethertype not in (link.ETHERTYPE_IPV4, link.ETHERTYPE_IPV6):
                continue
            key = parse(frame.data[offset:]).key
            if key and destination(key) in wanted:
                return GATEWAY
    return INSIDE
