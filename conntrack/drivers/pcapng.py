"""pcapng: captures with several interfaces, sections, comments.

One rule: blocks are read by their lengths alone, and only what is needed of them is understood.

    type  length  body, padded to 4 octets  length again

    0a0d0d0a  section     byte order, from here on; interfaces count from 0 again    written, its length open
    00000001  interface   link type, snap length; name, clock's unit and offset      written
    00000006  enhanced    interface, time, lengths, data, options                    a Frame
    00000003  simple      length on the wire, data; of interface 0, at no time       a Frame, at the last time
    00000002  packet      the older form of "enhanced"                               a Frame
    40000bad  custom, not for copies                                                 left out
    others    names, statistics, secrets, custom blocks, what is not known here      written as they are

"Written" is what `PcapngWriter` does.  The reader hands it each such block as soon as it is read, so blocks
and frames keep their order when frames are written as they come, also when some are not written at all.
Frames keep the digits of their time and their options; a frame whose data changed loses the hash of its data
and the custom options that ask not to be copied.  A section's stated length would be wrong after any change,
and is written as "not specified", as nearly every program does in the first place.

`Frame.interface` counts over all sections; a frame can be written only while its section lasts.  A block of a
wrong length, one that claims more data than it has, or a frame of an interface that was not declared ends the
capture (`problem`): nothing behind it can be trusted.

Sources: draft-ietf-opsawg-pcapng (block numbers also in its appendix), the options in its sections 3.5 and 4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
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
)
from conntrack.wire.link import LINKTYPES

MAGIC: Final = b"\x0a\x0d\x0d\x0a"  # the section block's type, the same in both byte orders
_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 2
_SIMPLE: Final = 3
_ENHANCED: Final = 6
_CUSTOM_NO_COPY: Final = 0x40000BAD

_OPTION_END: Final = 0
_OPTION_HASH: Final = 3  # epb_hash and pack_hash
_OPTION_NAME: Final = 2
_OPTION_RESOLUTION: Final = 9
_OPTION_OFFSET: Final = 14
_OPTIONS_NO_COPY: Final = (19372, 19373)

_SECOND: Final = 1_000_000_000  # nanoseconds
# A section of 48 octets may declare an interface; memory must not grow with a file of nothing else.
_MOST_INTERFACES: Final = 65536


class _Section:
    """A section being read: its byte order, its interfaces, and the blocks that declare them."""

    __slots__ = ("base", "clocks", "declared", "declared_size", "enhanced", "head", "order", "snaplens")

    def __init__(self, order: str, base: int, block: bytes) -> None:
        self.order = order
        self.base = base  # the index of its first interface in CaptureReader.interfaces
        self.declared = [block]
        self.declared_size = len(block)
        self.snaplens: list[int] = []
        # Per interface: nanoseconds a unit (0: not a whole number), units a second, offset in nanoseconds.
        self.clocks: list[tuple[int, int, int]] = []
        self.head = struct.Struct(order + "II").unpack_from
        self.enhanced = struct.Struct(order + "IIIII").unpack_from


def _options(data: bytes, order: str) -> Iterator[tuple[int, int, int, int]]:
    """(code, start of the option, start of its value, end of its value) until the end, or until none fits."""
    position = 0
    while position + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, position)
        stop = position + 4 + length
        if code == _OPTION_END or stop > len(data):
            return
        yield code, position, position + 4, stop
        position = stop + -length % 4


def _without_hash(data: bytes, order: str) -> bytes:
    """The options of a frame that is no longer the one they were written for."""
    kept = []
    done = 0
    for code, start, _, stop in _options(data, order):
        if code == _OPTION_HASH or code in _OPTIONS_NO_COPY:
            kept.append(data[done:start])
            done = stop + (start - stop) % 4
    kept.append(data[done:])
    return b"".join(kept)


class PcapngReader(CaptureReader):
    """A pcapng capture; made by `open_capture`, which reads it as far as its first interfaces."""

    format = "pcapng"

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._buffer = source.start
        self._position = 0
        self._blocks = 0
        self._writers: list[PcapngWriter] = []
        self._section = _Section("<", 0, b"")
        block = self._block()
        if block:
            self._begin_section(block)
        if self.problem is not None:
            raise CaptureError(f"{self.name}: no capture file: {self.problem}")
        while self.problem is None and self._declares_interface():
            block = self._block()
            if block:
                self._add_interface(block)
        types = [interface.linktype for interface in self.interfaces]
        if types and not any(linktype in LINKTYPES for linktype in types):
            raise CaptureError(f"{self.name}: unknown link type {types[0]}")
        self._frames = self._read()

    def attach(self, writer: PcapngWriter) -> None:
        """Let `writer` begin with the section as it stands, and have what comes between frames later on."""
        for block in self._section.declared:
            writer.carry(block, self._section)
        self._writers.append(writer)

    def detach(self, writer: PcapngWriter) -> None:
        """Carry nothing more to `writer`."""
        if writer in self._writers:
            self._writers.remove(writer)

    def _fill(self, need: int) -> int:
        """Have `need` octets in the buffer from the position on; how many there are."""
        if len(self._buffer) - self._position < need:
            self._buffer = self._source.more(self._buffer[self._position :], need)
            self._position = 0
        return len(self._buffer) - self._position

    def _declares_interface(self) -> bool:
        return self._fill(12) >= 12 and self._section.head(self._buffer, self._position)[0] == _INTERFACE

    def _block(self) -> bytes:
        """The next block, whole; empty at the end and where `problem` was found."""
        found = len(self._buffer) - self._position
        if found < 12:
            found = self._fill(12)
            if found < 12:
                if found or self._source.fault:
                    self._cut(found)
                return b""
        position = self._position
        kind, length = self._section.head(self._buffer, position)
        if kind == _SECTION:
            order = _ORDERS.get(self._buffer[position + 8 : position + 12])
            if order is None:
                return self._corrupt("is a section without a byte order")
            length = struct.unpack_from(order + "I", self._buffer, position + 4)[0]
        if length < 12 or length & 3 or length > MOST:
            return self._corrupt(f"has the impossible length {length}")
        if found < length:
            found = self._fill(length)
            if found < length:
                self._cut(found)
                return b""
            position = self._position
        self._position = stop = position + length
        block = self._buffer[position:stop]
        if block[-4:] != block[4:8]:
            return self._corrupt("has two different lengths")
        self._blocks += 1
        return block

    def _cut(self, found: int) -> None:
        why = f": {self._source.fault}" if self._source.fault else ""
        self.problem = f"ends in the middle of block {self._blocks + 1}, after {found} octets of it{why}"

    def _corrupt(self, what: str, block: int = 1) -> bytes:
        """Note a problem with the next block (or with the last one read: 0)."""
        self.problem = f"block {self._blocks + block} {what}: corrupt"
        return b""

    def _begin_section(self, block: bytes) -> None:
        if len(block) < 28:
            self._corrupt("is too short for a section", 0)
            return
        order = _ORDERS[block[8:12]]
        major, minor = struct.unpack_from(order + "HH", block, 12)
        if major != 1:
            self._corrupt(f"is of pcapng version {major}.{minor}", 0)
            return
        block = block[:16] + b"\xff" * 8 + block[24:]  # section length: not specified
        self._section = _Section(order, len(self.interfaces), block)

    def _add_interface(self, block: bytes) -> None:
        if len(block) < 20:
            self._corrupt("is too short for an interface", 0)
            return
        section = self._section
        section.declared_size += len(block)
        if len(self.interfaces) >= _MOST_INTERFACES or section.declared_size > MOST:
            self._corrupt(f"is interface {len(self.interfaces)}, one too many", 0)
            return
        linktype, _, snaplen = struct.unpack_from(section.order + "HHI", block, 8)
        resolution = 1_000_000  # if_tsresol's default
        offset = 0
        name = ""
        options = block[16:-4]
        for code, _, start, stop in _options(options, section.order):
            value = options[start:stop]
            if code == _OPTION_RESOLUTION and len(value) == 1:
                base = 2 if value[0] & 0x80 else 10
                resolution = base ** (value[0] & 0x7F)
            elif code == _OPTION_OFFSET and len(value) == 8:
                offset = struct.unpack(section.order + "q", value)[0]
            elif code == _OPTION_NAME:
                name = value.decode("utf-8", "replace")
        scale = 0 if _SECOND % resolution else _SECOND // resolution
        section.clocks.append((scale, resolution, offset * _SECOND))
        section.snaplens.append(snaplen)
        section.declared.append(block)
        self.interfaces.append(Interface(linktype, snaplen, resolution, name, offset))

    def _read(self) -> Iterator[Frame]:
        section = self._section
        time = 0
        count = 0
        while self.problem is None:
            block = self._block()
            if not block:
                return
            size = len(block)
            kind = section.head(block)[0]
            drops = 0
            stamp = -1
            if kind == _ENHANCED and size >= 32:
                start = 28
                number, high, low, captured, length = section.enhanced(block, 8)
                stamp = high << 32 | low
            elif kind == _SIMPLE and size >= 16:
                start = 12
                number = 0
                length = captured = section.head(block, 8)[0]
                if section.snaplens and section.snaplens[0]:
                    captured = min(captured, section.snaplens[0])
            elif kind == _PACKET and size >= 32:
                start = 28
                number, drops = struct.unpack_from(section.order + "HH", block, 8)
                _, high, low, captured, length = section.enhanced(block, 8)
                stamp = high << 32 | low
            elif kind in (_ENHANCED, _SIMPLE, _PACKET):
                self._corrupt("is too short for a frame", 0)
                return
            else:
                self._between(kind, block)
                section = self._section
                continue

            if number >= len(section.clocks):
                self._corrupt(f"names interface {number} of {len(section.clocks)}", 0)
                return
            stop = start + captured
            if stop > size - 4:
                self._corrupt(f"claims {captured} octets of data, more than it has", 0)
                return
            options = b""
            if kind != _SIMPLE:
                scale, units, offset = section.clocks[number]
                time = (stamp * scale if scale else stamp * _SECOND // units) + offset
                options = block[stop + -captured % 4 : -4]
            count += 1
            self.frames_read = count
            raw = (section, kind, stamp, options, drops)
            yield Frame(time, block[start:stop], length, section.base + number, raw)

    def _between(self, kind: int, block: bytes) -> None:
        """Take in a block that is no frame, and carry it to the writers."""
        if kind == _SECTION:
            self._begin_section(block)
            block = self._section.declared[0]
        elif kind == _INTERFACE:
            self._add_interface(block)
        elif kind == _CUSTOM_NO_COPY:
            return
        if self.problem is None:
            for writer in self._writers:
                writer.carry(block, self._section)


class PcapngWriter(CaptureWriter):
    """A pcapng capture like the one being read; made by `create_capture`."""

    def __init__(self, path_or_file: str | os.PathLike[str] | IO[bytes], like: PcapngReader) -> None:
        super().__init__(path_or_file)
        self._like = like
        self._section = _Section("<", 0, b"")
        like.attach(self)

    def carry(self, block: bytes, section: _Section) -> None:
        """Write a block of `section` that is no frame; called by the reader."""
        self._section = section
        self._file.write(block)

    def write(self, frame: Frame, data: bytes, wire_length: int | None = None) -> None:
        section = self._section
        number = frame.interface - section.base
        if frame.raw is not None and frame.raw[0] is not section:
            raise ValueError("a frame of an earlier section: write frames as they are read")
        if not 0 <= number < len(section.clocks):
            raise ValueError(f"interface {frame.interface}: not one of the section being written")
        snaplen = section.snaplens[number]
        data, wire_length = measure(frame, data, wire_length, snaplen)
        if frame.raw is None:
            kind, options, drops = _ENHANCED, b"", 0
            _, units, offset = section.clocks[number]
            stamp = (frame.time - offset) * units // _SECOND
            if not 0 <= stamp < 1 << 64:
                raise ValueError(f"time {frame.time}: beyond the clock of interface {frame.interface}")
        else:
            _, kind, stamp, options, drops = frame.raw
            if options and data != frame.data:
                options = _without_hash(options, section.order)

        captured = len(data)
        order = section.order
        if kind == _SIMPLE:
            # Its captured length is not written: readers take the snap length or the length on the wire.
            if captured != (min(wire_length, snaplen) if snaplen else wire_length):
                wire_length = captured
            fields = struct.pack(order + "I", wire_length)
        elif kind == _PACKET:
            fields = struct.pack(
                order + "HHIIII", number, drops, stamp >> 32, stamp & 0xFFFFFFFF, captured, wire_length
            )
        else:
            fields = struct.pack(
                order + "IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, captured, wire_length
            )
        body = fields + data + bytes(-captured % 4) + options
        size = struct.pack(order + "I", len(body) + 12)
        self._file.write(struct.pack(order + "I", kind) + size + body + size)

    def close(self) -> None:
        self._like.detach(self)
        super().close()
