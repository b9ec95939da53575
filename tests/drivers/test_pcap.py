"""The classic format: made by hand in every byte order and unit, cut at every octet, passed through."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conntrack.drivers.capture import CaptureError, Frame, create_capture, open_capture
from conntrack.drivers.pcap import MAGICS, read_pcap

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
ETHERNET = bytes(12) + b"\x08\x00"
IP = bytes.fromhex("45000020000040001101b64ec0000201c633640104d20035000c0000") + b"four"

# Byte order, the magic as a number, units a second, octets behind each record's four fields.
FORMATS = [
    ("<", 0xA1B2C3D4, 10**6, 0),
    (">", 0xA1B2C3D4, 10**6, 0),
    ("<", 0xA1B23C4D, 10**9, 0),
    (">", 0xA1B23C4D, 10**9, 0),
    ("<", 0xA1B2CD34, 10**6, 8),
    (">", 0xA1B2CD34, 10**6, 8),
]


def file_header(order: str = "<", magic: int = 0xA1B2C3D4, snaplen: int = 65535, network: int = 1) -> bytes:
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, network)


def record(
    order: str, seconds: int, fraction: int, data: bytes, wire: int | None = None, extra: bytes = b""
) -> bytes:
    length = len(data) if wire is None else wire
    return struct.pack(order + "IIII", seconds, fraction, len(data), length) + extra + data


def rewritten(capture: bytes) -> bytes:
    reader = open_capture(io.BytesIO(capture))
    out = io.BytesIO()
    with create_capture(out, like=reader) as writer:
        for frame in reader:
            writer.write(frame, frame.data)
    return out.getvalue()


@pytest.mark.parametrize(("order", "magic", "units", "extra"), FORMATS)
def test_every_magic_is_read_and_written_as_it_was(order: str, magic: int, units: int, extra: int) -> None:
    last = units - 1
    capture = file_header(order, magic)
    capture += record(order, 1_700_000_000, 7, ETHERNET + IP, extra=b"extra..."[:extra])
    capture += record(order, 0xFFFFFFFF, last, ETHERNET, wire=1514, extra=b"MORE...."[:extra])
    reader = open_capture(io.BytesIO(capture))
    assert reader.format == "pcap"
    assert [(one.linktype, one.snaplen, one.resolution) for one in reader.interfaces] == [(1, 65535, units)]
    assert reader.linktype() == 1
    assert list(reader) == [
        Frame(1_700_000_000 * 10**9 + 7 * 10**9 // units, ETHERNET + IP, 46),
        Frame(0xFFFFFFFF * 10**9 + last * 10**9 // units, ETHERNET, 1514),
    ]
    assert reader.frames_read == 2
    assert reader.problem is None
    assert rewritten(capture) == capture


def test_the_table_of_magics_holds_those_and_no_others() -> None:
    assert {struct.pack(order + "I", magic) for order, magic, _, _ in FORMATS} == set(MAGICS)


def test_impossible_fractions_and_lengths_survive() -> None:
    capture = file_header()
    capture += record("<", 5, 3_000_000, ETHERNET)  # three seconds of microseconds
    capture += record("<", 4, 1, ETHERNET, wire=3)  # shorter on the wire than captured
    assert [(frame.time, frame.wire_length) for frame in open_capture(io.BytesIO(capture))] == [
        (8_000_000_000, 14),
        (4_000_001_000, 3),
    ]
    assert rewritten(capture) == capture


def test_the_length_of_frame_check_sequences_is_no_part_of_the_link_type() -> None:
    reader = open_capture(io.BytesIO(file_header(network=0x2400_0001)))
    assert reader.linktype(0) == 1


def test_a_capture_cut_at_any_octet_ends_with_its_last_whole_frame() -> None:
    for order, magic, _, extra in FORMATS:
        records = [record(order, i, i, ETHERNET + IP[:i], extra=bytes(extra)) for i in (0, 3, 9)]
        whole = file_header(order, magic) + b"".join(records)
        ends = [24, 24 + len(records[0]), 24 + len(records[0]) + len(records[1]), len(whole)]
        for size in range(len(whole) + 1):
            if size < 24:
                with pytest.raises(CaptureError, match="no capture file"):
                    open_capture(io.BytesIO(whole[:size]))
                continue
            reader = open_capture(io.BytesIO(whole[:size]))
            frames = list(reader)
            assert len(frames) == sum(end <= size for end in ends[1:]) == reader.frames_read
            assert (reader.problem is None) == (size in ends)
            if reader.problem:
                assert f"in the middle of record {len(frames) + 1}" in reader.problem


def test_a_monstrous_record_ends_the_capture_without_being_believed() -> None:
    capture = file_header() + record("<", 1, 0, ETHERNET)
    reader = open_capture(io.BytesIO(capture + struct.pack("<IIII", 2, 0, 0xFFFFFFFF, 60) + bytes(60)))
    assert len(list(reader)) == 1
    assert reader.problem is not None
    assert "record 2 claims 4294967295 octets" in reader.problem


def test_a_record_larger_than_what_is_read_at_once_is_put_together() -> None:
    large = ETHERNET + bytes(range(256)) * 4000
    capture = file_header(snaplen=2_000_000) + b"".join(record("<", i, 0, large) for i in range(3))
    assert [frame.data for frame in open_capture(io.BytesIO(capture))] == [large] * 3
    assert rewritten(capture) == capture


class Dripping(io.RawIOBase):
    """A pipe whose writer is slow: one octet a read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        self._at += 1
        return self._data[self._at - 1 : self._at]


def test_a_slow_pipe_gives_the_same_frames() -> None:
    capture = file_header() + b"".join(record("<", i, i, ETHERNET + IP) for i in range(5))
    assert list(open_capture(Dripping(capture))) == list(open_capture(io.BytesIO(capture)))  # type: ignore[arg-type]


def test_what_is_no_capture_is_named_in_one_line(tmp_path: Path) -> None:
    for content, complaint in [
        (b"", "x.pcap: no capture file: it is empty"),
        (b"PK\x03\x04zip", "x.pcap: no capture file: starts with 50 4b 03 04"),
        (file_header()[:20], "x.pcap: no capture file: its header ends after 20 octets"),
        (file_header(network=999), "x.pcap: unknown link type 999"),
        (b"\xd4\xc3\xb2\xa1\x63\x00" + bytes(18), "x.pcap: pcap version 99.0 is not known"),
    ]:
        path = tmp_path / "x.pcap"
        path.write_bytes(content)
        with pytest.raises(CaptureError) as caught:
            open_capture(path)
        assert str(caught.value).endswith(complaint)
        assert "\n" not in str(caught.value)


def test_a_changed_frame_keeps_what_was_not_captured() -> None:
    capture = file_header(snaplen=60) + record("<", 1, 2, ETHERNET + IP, wire=1514)
    for data, wire, expected in [
        (ETHERNET + IP + b"more", None, (50, 1518)),
        (ETHERNET + IP[:-6], None, (40, 1508)),
        (ETHERNET + IP + bytes(400), None, (60, 1914)),  # cut at the snap length
        (ETHERNET + IP, 99, (46, 99)),
    ]:
        reader = open_capture(io.BytesIO(capture))
        out = io.BytesIO()
        writer = create_capture(out, like=reader)
        for frame in reader:
            writer.write(frame, data, wire)
        (again,) = open_capture(io.BytesIO(out.getvalue()))
        assert (len(again.data), again.wire_length) == expected
        assert again.time == 1_000_002_000


def test_a_frame_of_ones_own_is_written_with_the_digits_the_file_has() -> None:
    out = io.BytesIO()
    writer = create_capture(out, like=open_capture(io.BytesIO(file_header(">"))))
    writer.write(Frame(1_234_567_899, b"", 0), ETHERNET)
    assert out.getvalue() == file_header(">") + record(">", 1, 234_567, ETHERNET)
    for frame in (Frame(-1, b"", 0), Frame(2**32 * 10**9, b"", 0), Frame(0, b"", 0, interface=1)):
        with pytest.raises(ValueError):
            writer.write(frame, ETHERNET)
    with pytest.raises(ValueError, match="wire_length"):
        writer.write(Frame(0, b"", 0), ETHERNET, 2**32)


def test_read_pcap_gives_ip_packets_and_skips_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pcap"
    path.write_bytes(
        file_header()
        + record("<", 1, 0, ETHERNET + IP + b"padding")
        + record("<", 2, 0, bytes(12) + b"\x08\x06" + bytes(28))
        + record("<", 3, 0, bytes(12) + b"\x81\x00\x00\x07\x86\xdd" + b"\x60cut by the snap length", wire=900)
        + record("<", 4, 0, b"short")
    )
    assert list(read_pcap(path)) == [
        (1_000_000_000, IP + b"padding"),
        (3_000_000_000, b"\x60cut by the snap length"),
    ]
    assert list(read_pcap(str(path))) == list(read_pcap(io.BytesIO(path.read_bytes())))


def test_read_pcap_complains_when_called_and_not_later(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_pcap(tmp_path / "absent.pcap")
    with pytest.raises(CaptureError):
        read_pcap(io.BytesIO(b"nothing of the kind"))


@given(st.binary(max_size=200), st.sampled_from(FORMATS))
def test_any_octets_behind_a_header_are_frames_or_a_problem(
    junk: bytes, kind: tuple[str, int, int, int]
) -> None:
    order, magic, _, extra = kind
    capture = file_header(order, magic) + junk
    reader = open_capture(io.BytesIO(capture))
    size = 24 + sum(16 + extra + len(frame.data) for frame in reader)
    assert (reader.problem is None) == (size == len(capture))
    assert rewritten(capture) == capture[:size]


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures here")
def test_every_shared_pcap_passes_through_octet_for_octet() -> None:
    paths = sorted(CAPTURES.glob("*.pcap"))
    assert paths
    for path in paths:
        content = path.read_bytes()
        assert rewritten(content) == content, path.name
