"""The classic capture format of libpcap, and `read_pcap`: the packets of any capture in one line.

One rule: what the file says is kept to the digit.  A header of 24 octets, then records until the end:

    magic   version  zone  sigfigs  snap length  link type     seconds  fraction  captured  on the wire  data
    4       2 2      4     4        4            4             4        4         4         4            ...

The magic tells byte order and unit: a1b2c3d4 microseconds, a1b23c4d nanoseconds, a1b2cd34 the format of
Alexey Kuznetsov's patched libpcap (old Red Hat and SuSE systems), microseconds with 8 more octets a record.
Seconds are unsigned (until 2106).  The zone is 0 in practice and ignored, as libpcap ignores it.  The link
type's upper 16 bits hold the length of frame check sequences and are masked off.  A fraction of a second or
more is impossible, yet found: `Frame.raw` then keeps both fields, as it keeps Kuznetsov's extra octets, for
the writer.

Not undone: the two lengths in the other order, as versions before 2.4 had them.

Sources: draft-ietf-opsawg-pcap; pcap-savefile(5); for the modified format Wireshark's wiretap/libpcap.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import IO, Final

from conntrack.drivers.capture import (
    MOST,
    ByteSource,
    CaptureError,
    CaptureReader,
    CaptureWriter,
    Frame,
    Interface,
    measure,
    open_capture,
)
from conntrack.drivers.relay import run
from conntrack.fast import FastPath
from conntrack.wire.fields import changeable, part
from conntrack.wire.link import EN10MB, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LINKTYPES, locate

# fmt: off
# first four octets          byte order, units a second, octets of a record's header
MAGICS: Final[dict[bytes, tuple[str, int, int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000,     16),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000,     16),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1_000_000,     24),
    b"\xa1\xb2\xcd\x34": (">", 1_000_000,     24),
}
# fmt: on
_HEADER: Final = 24
_RECORD: Final = 16
_SECOND: Final = 1_000_000_000  # nanoseconds


def read_pcap(path: str | os.PathLike[str] | IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(time in ns since 1970, IP packet) for each IP frame of a capture, pcap or pcapng, gzip or not.

    Frames that carry no IP are skipped.  A packet reaches to the end of its frame: Ethernet's padding is left
    on, for the engine to cut, and of a frame cut by the snap length comes what is there.  A capture that ends
    early just ends; `open_capture` tells why, and gives the frames.  Raises CaptureError and OSError at once.
    """
    return _packets(open_capture(path))


def _packets(reader: CaptureReader) -> Iterator[tuple[int, bytes]]:
    interfaces = reader.interfaces
    with reader:
        for frame in reader:
            data = frame.data
            offset, ethertype = locate(interfaces[frame.interface].linktype, data)
            if offset >= 0 and (ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6):
                yield frame.time, data[offset:]


class PcapReader(CaptureReader):
    """A classic capture; made by `open_capture`."""

    format = "pcap"

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self.order, units, self.record_size = MAGICS[source.start[:4]]
        start = source.more(source.start, _HEADER)
        if len(start) < _HEADER:
            raise CaptureError(f"{self.name}: no capture file: its header ends after {len(start)} octets")
        self.header = start[:_HEADER]  # as it is; a writer repeats it
        major, minor, _, _, snaplen, network = struct.unpack_from(self.order + "HHiIII", start, 4)
        if major != 2:
            raise CaptureError(f"{self.name}: pcap version {major}.{minor} is not known")
        linktype = network & 0xFFFF
        if linktype not in LINKTYPES:
            raise CaptureError(f"{self.name}: unknown link type {linktype}")
        self.interfaces.append(Interface(linktype, snaplen, units))
        self._start = start
        self._frames = self._read(start, _HEADER)

    def _read(self, buffer: bytes, position: int) -> Iterator[Frame]:
        more = self._source.more
        unpack = struct.Struct(self.order + "IIII").unpack_from
        units = self.interfaces[0].resolution
        scale = _SECOND // units
        header = self.record_size
        end = len(buffer)
        count = self.frames_read
        while True:
            start = position + header
            if start > end:
                buffer = more(buffer[position:], header)
                position = 0
                start = header
                end = len(buffer)
                if start > end:
                    if self._source.fault or end:
                        self._cut(end)
                    return
            seconds, fraction, captured, length = unpack(buffer, position)
            stop = start + captured
            if stop > end:
                if captured > MOST:
                    self.problem = f"record {count + 1} claims {captured} octets, more than {MOST}: corrupt"
                    return
                buffer = more(buffer[position:], header + captured)
                position = 0
                start = header
                stop = start + captured
                end = len(buffer)
                if stop > end:
                    self._cut(end)
                    return
            raw = None
            if fraction >= units or header != 16:
                raw = (seconds, fraction, buffer[position + 16 : start])
            count += 1
            self.frames_read = count
            yield Frame(seconds * _SECOND + fraction * scale, buffer[start:stop], length, 0, raw)
            position = stop

    def relay(
        self,
        fast: FastPath,
        stage: Callable[[Frame], object],
        write: Callable[[bytes | memoryview], object] | None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Every frame of an Ethernet capture, without making an object of it: what `fast` takes is done, all else
        goes to `stage` as a `Frame`; how many were taken.

        Runs of frames that were taken are handed to `write` together, records and all, translated where they lie:
        they are as long as they were.  `progress` hears of every piece of the file how long it was.
        """
        if self.record_size != _RECORD or self.interfaces[0].linktype != EN10MB:
            raise ValueError("relay: a classic pcap of Ethernet frames is needed")
        more = self._source.more
        little = self.order == "<"
        unpack = struct.Struct(self.order + "IIII").unpack_from
        units = self.interfaces[0].resolution
        scale = _SECOND // units
        buffer, position = self._start, _HEADER
        out = changeable(buffer)
        taken = staged = captured = 0
        first = position  # of what waits to be written
        while True:
            position, here = run(fast, buffer, position, little, scale, out)
            taken += here
            if position + _RECORD <= len(buffer):
                seconds, fraction, captured, length = unpack(buffer, position)
                at = position + _RECORD
                stop = at + captured
                if stop <= len(buffer) and captured <= MOST:
                    raw = None if fraction < units else (seconds, fraction, b"")
                    if write is not None and first < position:
                        write(part(out, first, position))
                    staged += 1
                    self.frames_read = staged + taken
                    stage(Frame(seconds * _SECOND + fraction * scale, buffer[at:stop], length, 0, raw))
                    position = first = stop
                    continue
                need = _RECORD + captured if captured <= MOST else _RECORD
            else:
                need = _RECORD
            if write is not None and first < position:
                write(part(out, first, position))
            rest = buffer[position:]
            buffer = more(rest, need) if len(rest) < need else rest
            first = position = 0
            if progress is not None:
                progress(len(buffer) - len(rest))
            if len(buffer) < need or captured > MOST:
                # The end, or what is no capture any more: frame by frame, to the last whole one.
                self.frames_read = staged + taken
                for frame in self._read(buffer, 0):
                    stage(frame)
                return taken
            out = changeable(buffer)

    def _cut(self, found: int) -> None:
        why = f": {self._source.fault}" if self._source.fault else ""
        self.problem = f"ends in the middle of record {self.frames_read + 1}, after {found} octets of it{why}"


class PcapWriter(CaptureWriter):
    """A classic capture like the one being read; made by `create_capture`."""

    def __init__(self, path_or_file: str | os.PathLike[str] | IO[bytes], like: PcapReader) -> None:
        super().__init__(path_or_file)
        interface = like.interfaces[0]
        self._snaplen = interface.snaplen
        self._scale = _SECOND // interface.resolution
        self._extra = bytes(like.record_size - 16)
        self._pack = struct.Struct(like.order + "IIII").pack
        self._file.write(like.header)

    def write_records(self, records: bytes | memoryview) -> None:
        """Records as they stand in a file of this kind."""
        self._file.write(records)

    def write(self, frame: Frame, data: bytes, wire_length: int | None = None) -> None:
        if data is not frame.data or wire_length is not None:
            data, wire_length = measure(frame, data, wire_length, self._snaplen)
        else:
            wire_length = frame.wire_length
        if frame.interface != 0:
            raise ValueError(f"interface {frame.interface}: a pcap file has only one")
        if frame.raw is None:
            seconds, rest = divmod(frame.time, _SECOND)
            if not 0 <= seconds <= 0xFFFFFFFF:
                raise ValueError(f"time {frame.time}: not between 1970 and 2106, as a pcap file needs")
            fraction = rest // self._scale
            extra = self._extra
        else:
            seconds, fraction, extra = frame.raw
        self._file.write(self._pack(seconds, fraction, len(data), wire_length) + extra + data)
