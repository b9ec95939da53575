"""Workers: one capture through several processes, each with an engine of its own, on the cores of one machine.

    capture ─┬─► worker 0: whose? mine ─► engine 0 ─► written where it stands ─┬─► output ─► edits ─► output
             │             another's: skip                                     │             of all, in order
             └─► worker 1: whose? mine ─► engine 1 ─► written where it stands ─┘

One rule: packets that could ever meet in one engine go to one worker; `deal` says whose a packet is.

Every worker walks through all records of the file, for a record's length and its packet's worker are cheap, and
gives its own to `FastPath.known` as `PcapReader.relay` does.  The output is as long as the input, mapped into all
workers; each writes its own records at the places where they stood.  What is not as long as it was (dropped, held
and reassembled fragments, a helper's text) is an edit: place, octets to take out, octets to put in.  When all are
done the edits of all are made, in order of place.  Time is everybody's: a worker knows the latest of all packets.

How the result differs from that of one engine: docs/workers.md.
"""

from __future__ import annotations

import errno
import gc
import heapq
import io
import mmap
import os
import signal
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from struct import Struct
from typing import IO, Final

from ..conn import Conn
from ..engine import Engine
from ..nat.rules import NatRule
from ..trackers import icmp, icmpv6
from ..verdict import ICMP, ICMPV6
from ..wire import link
from ..wire.fields import changeable, part
from .capture import MOST, PIECE, CaptureError, Frame, open_capture
from .deal import REMEMBERED, Deal
from .pcap import MAGICS, PcapReader, PcapWriter
from .relay import ETHERTYPES
from .replay import Replay, ReplayResult, json_line
from .vantage import GATEWAY, Vantage

MOST_WORKERS: Final = 256
_HEADER, _RECORD = 24, 16  # octets before the first record, and of a record before its frame
# A record: seconds, fraction, captured, length; Ethernet's type; of IPv4 the first octet, protocol, addresses.
_LOOK: Final = "IIII12xHB8xB2x8s"
_PAD: Final = bytes(128)  # so that a look at the last record ends within the buffer
_LEAST4, _LEAST6 = 14 + 20, 14 + 40  # octets that hold the addresses
_TYPE4, _TYPE6 = _RECORD + 14 + 20, _RECORD + 14 + 40  # where in a record an ICMP message's type stands
_UNUSUAL6: Final = frozenset((0, 43, 44, 51, 59, 60))  # extension headers: the protocol stands behind them
_ERRORS6: Final = frozenset((*range(128), icmpv6.REDIRECT))
_EDIT: Final = Struct("<QII")  # where, octets to take out, octets to put in, which follow
_TELL: Final = 1 << 20  # octets between two words of progress
# What bounds memory: each worker has its share.  (0 stays 0: of connections no limit, of fragments none at all.)
_SHARED: Final = (
    "nf_conntrack_max",
    "nf_conntrack_buckets",
    "nf_conntrack_expect_max",
    "net.ipv4.ipfrag_high_thresh",
    "nf_conntrack_frag6_high_thresh",
)


def replay(
    capture: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    workers: int,
    inside: Sequence[str] = (),
    nat: Sequence[NatRule] | None = None,
    sysctl: Mapping[str, int | str] | None = None,
    seed: int = 0,
    helpers: Mapping[tuple[str, int], str] | None = None,
    flows: IO[bytes] | None = None,
    listing: IO[bytes] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ReplayResult:
    """Replay `capture` (a file: classic pcap of Ethernet, as a gateway saw it) in `workers` processes.

    output    file for the translated capture; removed again if this fails
    workers   how many processes, 1 to 256; they are ended when this returns, whatever happens
    inside    networks inside, "10.0.0.0/8"; the addresses that `nat` translates count without being named here
    nat, sysctl, helpers   as for `Engine`; each worker has its share, rounded up, of what bounds a table's memory
    seed      worker 0 draws from it, each other from one derived from it and from the worker's number
    flows     written to: every connection that ever lived, a JSON line each, worker by worker
    listing   written to: the table at the end as `conntrack -L` prints it, worker by worker
    progress  hears how many octets more of the capture all workers have passed

    The same arguments give the same octets.  Processes start as `multiprocessing` is set to start them; where that
    is "spawn" the caller's main module must be importable.

    Raises ValueError for a wrong argument, a capture or output of another kind, and a rule that does not say which
    addresses it translates; CaptureError for what is no capture; OSError, as ChildProcessError if a worker died;
    RuntimeError for what should not happen in a worker.
    """
    job = _job(capture, output, workers, inside, nat, sysctl, seed, helpers, flows is not None, listing is not None)
    with tempfile.TemporaryDirectory(prefix="conntrack-") as folder:
        job.folder = folder
        if job.output:
            open(job.output, "wb").close()  # if this fails nothing was touched
        try:
            if job.output:
                _prepare(job)
            shares = _run(job, progress)
            if any(share.passed != shares[0].passed for share in shares):
                raise CaptureError(f"{job.capture}: changed while it was read")
            if job.output:
                _edit(job, shares[0].passed.end)
        except BaseException:
            if job.output:
                Path(job.output).unlink(missing_ok=True)
            raise
        result = ReplayResult(problem=shares[0].passed.problem)
        for share in shares:
            result.merge(share.result)
        if flows is not None:
            _join(job, "flows", flows, b'{"v":1,')
        if listing is not None:
            _join(job, "listing", listing)
    return result


# --- the arguments -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    """What every worker is told.  `size`: octets of the capture when it began."""

    capture: str
    output: str
    size: int
    workers: int
    inside: tuple[str, ...]
    nat: tuple[NatRule, ...] | None
    sysctl: dict[str, int | str]
    seed: int
    helpers: dict[tuple[str, int], str] | None
    flows: bool
    listing: bool
    folder: str = ""

    def part(self, kind: str, number: int) -> Path:
        """Where a worker leaves what it has of a kind."""
        return Path(self.folder) / f"{kind}-{number}"

    def seed_of(self, number: int) -> int:
        """The seed of a worker: the given one, then hashes of it and the number."""
        digest = blake2b(f"{self.seed}/worker/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") if number else self.seed

    def engine(self, number: int) -> Engine:
        """The engine of a worker."""
        return Engine(self.nat, self.sysctl, self.seed_of(number), helpers=self.helpers)


def _job(
    capture: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    workers: int,
    inside: Sequence[str],
    nat: Sequence[NatRule] | None,
    sysctl: Mapping[str, int | str] | None,
    seed: int,
    helpers: Mapping[tuple[str, int], str] | None,
    flows: bool,
    listing: bool,
) -> _Job:
    """The arguments, checked."""
    if not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"workers: {workers!r} is not within 1..{MOST_WORKERS}")
    whole = Engine(nat, sysctl, seed, helpers=helpers).sysctl
    shares = {name: -(-whole[name] // workers) for name in _SHARED}
    rules = None if nat is None else tuple(nat)
    Deal(workers, inside, rules)  # says what is wrong with `inside` and the rules
    source, target = os.fspath(capture), "" if output is None else os.fspath(output)
    _check_capture(source)
    _check_output(source, target)
    if target:
        target = os.path.realpath(target)
    return _Job(
        source,
        target,
        os.path.getsize(source),
        workers,
        tuple(inside),
        rules,
        {**{name: whole[name] for name in whole if name != "nf_conntrack_count"}, **shares},
        seed,
        None if helpers is None else dict(helpers),
        flows,
        listing,
    )


def _check_capture(name: str) -> None:
    """Every worker opens it, and knows where each record is; ValueError if that cannot be."""
    if name == "-" or not (os.path.isdir(name) or stat.S_ISREG(os.stat(name).st_mode)):
        raise ValueError(f"workers: {name}: a stream is read once; give a file, or leave workers out")
    with open_capture(name) as reader, open(name, "rb") as file:
        if file.read(4) not in MAGICS:
            kind = reader.format if reader.format != "pcap" else "packed"
            raise ValueError(f"workers: {name}: needs a classic pcap that is not packed, and this is {kind}")
        assert isinstance(reader, PcapReader)
        if reader.linktype() != link.EN10MB or reader.record_size != _RECORD:
            found = link.LINKTYPES[reader.linktype()] if reader.record_size == _RECORD else "a modified pcap"
            raise ValueError(f"workers: {name}: needs Ethernet in a plain pcap, and this is {found}")


def _check_output(capture: str, name: str) -> None:
    """It is written at many places at once; ValueError if it is no file that can be."""
    if name == "-" or name.endswith(".gz") or (os.path.exists(name) and not os.path.isfile(name)):
        raise ValueError(f"workers: {name}: needs a file that is not packed to write to, or leave workers out")
    if os.path.exists(name) and os.path.samefile(capture, name):
        raise CaptureError(f"{name}: the capture being read cannot be written to")


# --- the parent ----------------------------------------------------------------------------------------------


def _prepare(job: _Job) -> None:
    """The output: the capture's header, and room for all its records."""
    with open(job.capture, "rb") as source, open(job.output, "r+b") as target:
        target.write(source.read(_HEADER))
        target.flush()
        _reserve(target, job.size)


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a file that long; a full disk is met here, as an error, and not in a mapping, as a signal."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every file system can
                raise


def _run(job: _Job, progress: Callable[[int], object] | None) -> list[_Share]:
    """Every worker's share; the first failure ends all."""
    shares: dict[int, _Share] = {}
    passed = [0] * job.workers
    told = 0
    processes: list[Process] = []
    open_pipes: dict[Connection, int] = {}
    try:
        with _no_interrupts():
            for number in range(job.workers):
                reading, writing = Pipe(duplex=False)
                open_pipes[reading] = number
                process = Process(target=_work, args=(job, number, reading, writing), daemon=True)
                process.start()
                processes.append(process)
                writing.close()
        while open_pipes:
            for pipe in wait(list(open_pipes)):
                assert isinstance(pipe, Connection)
                number = open_pipes[pipe]
                try:
                    word = pipe.recv()
                except (EOFError, OSError):
                    process = processes[number]
                    process.join()
                    raise ChildProcessError(
                        f"worker {number} of {job.workers} died ({_ending(process.exitcode)})"
                    ) from None
                if isinstance(word, OSError | CaptureError):
                    raise word
                if isinstance(word, Exception):
                    raise RuntimeError(f"worker {number} of {job.workers}: {word!r}") from word
                if isinstance(word, int):
                    passed[number] = word
                    if progress is not None and min(passed) > told:
                        progress(min(passed) - told)
                        told = min(passed)
                    continue
                shares[number] = word
                del open_pipes[pipe]
                pipe.close()
        for process in processes:
            process.join()
    finally:
        for pipe in open_pipes:
            pipe.close()
        for process in processes:
            process.kill()  # those that are done do not mind
            process.join()
            process.close()
    return [shares[number] for number in range(job.workers)]


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C waits, and processes that begin meanwhile do not hear of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"signal {names.get(-code, -code)}"


def _edit(job: _Job, end: int) -> None:
    """Make all workers' edits, in order of place, in an output that is good up to `end`."""
    parts = [job.part("edits", number) for number in range(job.workers)]
    growth = room = 0  # room: by how much the edited octets would ever overtake those still to be read
    first = -1
    for place, out, octets in _edits(parts):
        if first < 0:
            first = place
        growth += len(octets) - out
        room = max(room, growth)
    with open(job.output, "r+b") as file:
        if first >= 0:
            _reserve(file, end + room)
            with mmap.mmap(file.fileno(), end + room) as octets_of:
                if room:
                    octets_of.move(first + room, first, end - first)
                read = written = first
                for place, out, octets in chain(_edits(parts), [(end, 0, b"")]):
                    if written != read + room:
                        octets_of.move(written, read + room, place - read)
                    written += place - read
                    octets_of[written : written + len(octets)] = octets
                    written += len(octets)
                    read = place + out
        file.truncate(end + growth)


def _edits(parts: Iterable[Path]) -> Iterator[tuple[int, int, bytes]]:
    """(place, octets to take out, octets to put in), in order of place."""
    return heapq.merge(*(_edits_of(part) for part in parts))


def _edits_of(part: Path) -> Iterator[tuple[int, int, bytes]]:
    with part.open("rb") as file:
        while head := file.read(_EDIT.size):
            place, out, size = _EDIT.unpack(head)
            yield place, out, file.read(size)


def _join(job: _Job, kind: str, target: IO[bytes], start: bytes = b"") -> None:
    """Every worker's part, one after the other; `start` takes the place of the first line's first octet."""
    for number in range(job.workers):
        with job.part(kind, number).open("rb") as part:
            piece = part.read(PIECE)
            if piece and start:
                piece, start = start + piece[1:], b""
            while piece:
                target.write(piece)
                piece = part.read(PIECE)


# --- a worker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Passed:
    """What all workers must agree on: frames, where the last whole one ends, and why there are no more."""

    frames: int
    end: int
    problem: str | None


@dataclass(slots=True)
class _Share:
    """What one worker tells at its end."""

    passed: _Passed
    result: ReplayResult


def _work(job: _Job, number: int, reading: Connection, pipe: Connection) -> None:
    """A worker's life.  Ctrl-C is the parent's affair, and a worker whose parent is gone has nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading.close()  # else this process would keep its own pipe from breaking
    gc.disable()  # as `Replay.run` does, and to the end
    try:
        try:
            pipe.send(_share(job, number, pipe))
        except Exception as error:
            if isinstance(error, BrokenPipeError):
                raise
            error.add_note(f"in worker {number}:\n{traceback.format_exc()}")
            pipe.send(error)
    except BrokenPipeError:
        pass


def _share(job: _Job, number: int, pipe: Connection) -> _Share:
    """All that is this worker's, done."""
    engine = job.engine(number)
    result = ReplayResult(stats=engine.stats)
    tally = result.tally
    with (
        open_capture(job.capture) as reader,
        job.part("edits", number).open("wb") as edits,
        job.part("flows", number).open("w", encoding="utf-8") as flows,
    ):
        assert isinstance(reader, PcapReader)
        sink = io.BytesIO()
        writer = PcapWriter(sink, reader) if job.output else None
        replay = Replay(reader, engine, Vantage(engine, GATEWAY), writer)

        def stage(frame: Frame) -> bytes:
            """The records that leave for a frame."""
            sink.seek(0)
            sink.truncate()
            tally.add(replay.step(frame))
            return sink.getvalue()

        def ended(conn: Conn) -> None:
            tally.ended += 1
            if job.flows:
                flows.write(json_line(conn.to_dict()))

        engine.on_end = ended
        if job.output:
            with open(job.output, "r+b") as target, mmap.mmap(target.fileno(), job.size) as octets:
                taken, passed = _walk(job, number, reader, engine, stage, octets, edits, pipe)
        else:
            taken, passed = _walk(job, number, reader, engine, stage, None, edits, pipe)
        engine.reap()
        tally.finish(engine)
        if job.flows:
            for conn in engine.conns():
                flows.write(json_line(conn.to_dict()))
    if job.listing:
        text = engine.listing()
        job.part("listing", number).write_text(text + "\n" if text else "", encoding="utf-8")
    result.frames = replay.frames + taken
    result.written = replay.written + (taken if job.output else 0)
    result.short, result.not_ip = replay.short, replay.not_ip
    return _Share(passed, result)


def _walk(
    job: _Job,
    number: int,
    reader: PcapReader,
    engine: Engine,
    stage: Callable[[Frame], bytes],
    target: mmap.mmap | None,
    edits: IO[bytes],
    pipe: Connection,
) -> tuple[int, _Passed]:
    """Through all records of the capture, and this worker's packets through the engine: (how many took the fast
    path, what was passed)."""
    deal = Deal(job.workers, job.inside, job.nat)
    unpack = Struct(reader.order + _LOOK).unpack_from
    ip4, ip6 = ETHERTYPES[reader.order == "<"]
    units = reader.interfaces[0].resolution
    scale = 1_000_000_000 // units
    known = engine.fast_path.known
    mine: dict[bytes, bool] = {}  # by both addresses
    remembered = mine.get
    latest = -1  # the engine's time, had it seen everybody's packets
    frames = taken = 0
    problem = None
    with open(job.capture, "rb", buffering=0) as file:
        file.seek(_HEADER)
        base = _HEADER  # the place of buffer[0] in the file
        rest = b""
        need = told = 0
        while True:
            ahead = min(max(PIECE, need - len(rest)), job.size - base - len(rest))
            piece = file.read(ahead) if ahead > 0 else b""
            if not piece:
                if rest:
                    problem = f"ends in the middle of record {frames + 1}, after {len(rest)} octets of it"
                break
            end = len(rest) + len(piece)
            buffer = rest + piece + _PAD
            out = changeable(buffer)
            position = need = 0
            first = -1  # of what waits to be written
            while position + _RECORD <= end:
                seconds, fraction, captured, length, kind, version, proto, pair = unpack(buffer, position)
                stop = position + _RECORD + captured
                if stop > end:
                    need = _RECORD + captured
                    break
                frames += 1
                is_ip = True
                if version == 0x45 and kind == ip4 and captured >= _LEAST4 and (
                    proto != ICMP or buffer[position + _TYPE4] not in icmp.ERRORS
                ):  # fmt: skip
                    own = remembered(pair)
                elif version >> 4 == 6 and kind == ip6 and captured >= _LEAST6 and (
                    (following := buffer[position + 36]) not in _UNUSUAL6
                    and (following != ICMPV6 or buffer[position + _TYPE6] not in _ERRORS6)
                ):  # fmt: skip
                    pair = buffer[position + 38 : position + 70]
                    own = remembered(pair)
                else:
                    whose, is_ip = deal.frame(buffer[position + _RECORD : stop], length)
                    own = whose == number
                if own is None:
                    if len(mine) >= REMEMBERED:
                        mine.clear()
                    own = mine[pair] = deal.addresses(pair) == number
                time = seconds * 1_000_000_000 + fraction * scale
                if is_ip:
                    if time >= latest:
                        latest = time
                    elif own and engine.now < latest:
                        engine.advance(latest)  # to be clamped to what others saw
                if own:
                    at = position + _RECORD
                    if (kind == ip4 or kind == ip6) and captured >= 14 and (
                        known(buffer, at + 14, stop, time, out) is not None
                    ):  # fmt: skip
                        taken += 1
                        if first < 0:
                            first = position
                        position = stop
                        continue
                    raw = None if fraction < units else (seconds, fraction, b"")
                    records = stage(Frame(time, buffer[at:stop], length, 0, raw))
                    if target is not None:
                        if len(records) == stop - position:
                            target[base + position : base + stop] = records
                        else:
                            edits.write(_EDIT.pack(base + position, stop - position, len(records)) + records)
                if first >= 0:
                    if target is not None:
                        target[base + first : base + position] = part(out, first, position)
                    first = -1
                position = stop
            if first >= 0 and target is not None:
                target[base + first : base + position] = part(out, first, position)
            base += position
            rest = buffer[position:end]
            if need > _RECORD + MOST:
                claimed = need - _RECORD
                problem = f"record {frames + 1} claims {claimed} octets, more than {MOST}: corrupt"
                break
            if base - told >= _TELL:
                told = base
                pipe.send(base)
    if latest > engine.now:
        engine.advance(latest)
    return taken, _Passed(frames, base, problem)
