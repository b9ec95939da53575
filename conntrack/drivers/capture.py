"""Capture files, whatever their format: frames in, frames out, nothing of them lost on the way.

One rule: a frame that nobody touched is written as it was read.  `create_capture(path, like=reader)` makes a
file of the reader's format, byte order and interfaces, and a `Frame` carries in `raw` what its format knows
beyond time and bytes, so that a classic pcap passes through octet for octet.

    file, pipe, "-" ─► ByteSource ─► PcapReader   ─► Frame ─► (you) ─► PcapWriter   ─► file, pipe, "-"
                       gzip or not   PcapngReader ──── blocks ───────► PcapngWriter    .gz or not

Memory is bounded whatever the file says: it is read in pieces of 128 KiB, a record may claim 16 MiB at most,
and a claim is believed only as far as bytes follow it.  A capture that is cut or corrupt is not an exception
but a fact: iteration ends with the last whole frame and `problem` says what was met.  Only something that is
no capture at all, or holds nothing but unknown link types, raises a CaptureError, and that when it is opened.

The formats stand in `pcap` and `pcapng`, gzip in the standard library (RFC 1952).  Times are as recorded,
even where they run backwards.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

PIECE: Final = 128 * 1024  # octets asked of the system at once
MOST: Final = 16 * 1024 * 1024  # octets a record may claim: libpcap's INITIAL_MAX_BLOCKSIZE for pcapng
_GZIP_MAGIC: Final = b"\x1f\x8b"


class CaptureError(ValueError):
    """What was given is no capture that can be read; the text is one line and names it."""


@dataclass(slots=True)
class Frame:
    """One captured frame.

    `time` is in nanoseconds since 1970 (UTC), `data` the captured octets from the link header on,
    `wire_length` the octets the frame had on the wire, `interface` an index into `CaptureReader.interfaces`.
    `raw` belongs to the format's writer; leave it None in a frame of your own making.
    """

    time: int
    data: bytes
    wire_length: int
    interface: int = 0
    raw: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Interface:
    """Where frames were captured: link type number (see `wire.link.LINKTYPES`), the snap length in octets
    (0: none), the timestamps' units per second, what they count from (`offset`, seconds) and the name."""

    linktype: int
    snaplen: int
    resolution: int
    name: str = ""
    offset: int = 0


class ByteSource:
    """The octets of a file, pipe or stream, unpacked if gzip packed them; for readers of formats."""

    __slots__ = ("_file", "_opened", "fault", "name", "start")

    name: str
    start: bytes  # the first octets, at least four if there are so many: a format is recognised by them
    fault: str | None  # why the octets ended, if not because there were no more

    def __init__(self, path_or_file: str | os.PathLike[str] | IO[bytes]) -> None:
        self.fault = None
        self._opened: Any = None  # the file, if it is ours to close
        file: Any
        if isinstance(path_or_file, (str, os.PathLike)):
            self.name = os.fspath(path_or_file)
            if self.name == "-":
                self.name = "standard input"
                file = sys.stdin.buffer
            else:
                file = open(self.name, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
                self._opened = file
        else:
            file = path_or_file
            self.name = str(getattr(file, "name", "capture"))
        self._file: Any = file
        try:
            start = self.more(b"", 2)
            if start[:2] == _GZIP_MAGIC:
                again: Any = _Again(start, file)
                self._file = gzip.GzipFile(fileobj=again, mode="rb")
                start = b""
            self.start = self.more(start, 4)
        except BaseException:
            self.close()
            raise

    def more(self, rest: bytes, need: int) -> bytes:
        """`rest` and what follows it: at least `need` octets together, fewer only at the end."""
        # read1 gives what a pipe holds instead of waiting for a full piece: `tcpdump -w - | ...` stays live.
        read = getattr(self._file, "read1", None) or self._file.read
        pieces = [rest]
        have = len(rest)
        while have < need:
            try:
                piece = read(PIECE)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.fault = f"the gzip data is cut or corrupt ({error})"
                break
            if not piece:
                break
            if not isinstance(piece, bytes):
                raise CaptureError(f"{self.name}: a file opened in binary mode is needed")
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close what this source opened itself."""
        if self._opened is not None:
            self._opened.close()


class _Again:
    """A stream whose first octets were read already, for gzip, which wants to see them."""

    __slots__ = ("_file", "_start")

    def __init__(self, start: bytes, file: Any) -> None:
        self._start = start
        self._file = file

    def read(self, size: int = -1) -> bytes:
        start = self._start
        if not start:
            return self._file.read(size)  # type: ignore[no-any-return]
        if size < 0:
            self._start = b""
            return start + self._file.read()  # type: ignore[no-any-return]
        self._start = start[size:]
        return start[:size]


class CaptureReader:
    """An open capture: iterate it for its frames, once.  A context manager.

    `format` is "pcap" or "pcapng"; `interfaces` grows while frames are read, if the format declares them as
    they come; `problem` is None, or one line on why the capture ended before its end; `frames_read` counts.
    """

    format = ""

    def __init__(self, source: ByteSource) -> None:
        self.name = source.name
        self.interfaces: list[Interface] = []
        self.problem: str | None = None
        self.frames_read = 0
        self._source = source
        self._frames: Iterator[Frame] = iter(())

    def linktype(self, interface: int = 0) -> int:
        """The link type of frames with this `interface`."""
        return self.interfaces[interface].linktype

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        """Close the file, unless it was given as one."""
        self._frames = iter(())
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CaptureWriter:
    """A capture being written; made by `create_capture`.  A context manager: `close` completes the file."""

    def __init__(self, path_or_file: str | os.PathLike[str] | IO[bytes]) -> None:
        self._files: list[Any] = []  # opened here, to be closed in this order
        file: Any
        if not isinstance(path_or_file, (str, os.PathLike)):
            self.name = str(getattr(path_or_file, "name", "capture"))
            file = path_or_file
        else:
            self.name = os.fspath(path_or_file)
            if self.name == "-":
                self.name = "standard output"
                file = sys.stdout.buffer
            else:
                file = open(self.name, "wb", buffering=PIECE)  # noqa: SIM115 (closed by `close`)
                self._files.append(file)
                if self.name.endswith(".gz"):
                    # No name and no time inside: the same frames make the same file.
                    file = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
                    self._files.insert(0, file)
        self._file: Any = file

    def write(self, frame: Frame, data: bytes, wire_length: int | None = None) -> None:
        """Write `data` (from the link header on) with the time, interface and options of `frame`.

        Without `wire_length` the frame keeps as many octets uncaptured as it had.  What grew beyond the snap
        length is cut, as the capturing host would have done.  Raises ValueError for a time or an interface
        that the file cannot express.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Hand everything written so far to the system."""
        self._file.flush()

    def close(self) -> None:
        """Finish the file; one given as a file object, and standard output, is flushed and left open."""
        if not self._files:
            self._file.flush()
        while self._files:
            self._files.pop(0).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def measure(frame: Frame, data: bytes, wire_length: int | None, snaplen: int) -> tuple[bytes, int]:
    """(the octets to record, the length on the wire) for `CaptureWriter.write`."""
    captured = len(frame.data)
    if wire_length is None:
        wire_length = frame.wire_length
        if len(data) != captured:
            wire_length = max(wire_length + len(data) - captured, len(data))
    elif not 0 <= wire_length <= 0xFFFFFFFF:
        raise ValueError(f"wire_length {wire_length}: not between 0 and 4294967295")
    # A frame that was longer than its file's snap length already (some writers say 0, or lie) stays so.
    if len(data) > snaplen > 0 and len(data) > captured:
        data = data[: max(snaplen, captured)]
    return data, wire_length


def open_capture(path_or_file: str | os.PathLike[str] | IO[bytes]) -> CaptureReader:
    """Open a capture: a path, "-" for standard input, or a binary file object; pcap or pcapng, gzip or not.

    Raises CaptureError for what is no capture, or one of link types that `wire.link` does not know, and
    OSError where the file cannot be opened.
    """
    # The formats are built on this face, so the face meets them only when it is used.
    from conntrack.drivers import pcap, pcapng

    source = ByteSource(path_or_file)
    try:
        start = source.start[:4]
        if start in pcap.MAGICS:
            return pcap.PcapReader(source)
        if start == pcapng.MAGIC:
            return pcapng.PcapngReader(source)
        if source.fault:
            raise CaptureError(f"{source.name}: {source.fault}")
        found = f"starts with {start.hex(' ')}" if start else "it is empty"
        raise CaptureError(f"{source.name}: no capture file: {found}")
    except BaseException:
        source.close()
        raise


def create_capture(path_or_file: str | os.PathLike[str] | IO[bytes], like: CaptureReader) -> CaptureWriter:
    """Create a capture of the format, byte order, resolution, interfaces and snap length of `like`.

    A path, "-" for standard output, or a binary file object; a path that ends in .gz is packed.  Write frames
    as they are read from `like`: what a pcapng holds between its frames is written when the reader meets it.
    Raises CaptureError when the path is the file being read.
    """
    from conntrack.drivers import pcap, pcapng

    if isinstance(path_or_file, (str, os.PathLike)) and os.fspath(path_or_file) != "-":
        ours, theirs = Path(path_or_file), Path(like.name)
        if ours.exists() and theirs.exists() and ours.samefile(theirs):
            raise CaptureError(f"{ours}: the capture being read cannot be written to")
    if isinstance(like, pcap.PcapReader):
        return pcap.PcapWriter(path_or_file, like)
    if isinstance(like, pcapng.PcapngReader):
        return pcapng.PcapngWriter(path_or_file, like)
    raise TypeError(f"like: a reader from open_capture is needed, not {type(like).__name__}")
