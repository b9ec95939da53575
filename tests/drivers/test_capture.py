"""What all formats share: files, pipes, gzip, standard input and output, and who closes what."""

from __future__ import annotations

import gc
import gzip
import io
import json
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from conntrack.drivers.capture import CaptureError, CaptureReader, create_capture, open_capture
from conntrack.drivers.pcap import read_pcap
from conntrack.wire.link import locate, reframe

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT.parent / "shared" / "captures"

FRAME = bytes(12) + b"\x08\x00" + b"E" + bytes(19)
RECORD = struct.pack("<IIII", 1, 2, len(FRAME), len(FRAME)) + FRAME
CAPTURE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + RECORD * 3

COPY = """
import sys
from conntrack.drivers.capture import create_capture, open_capture
with open_capture("-") as reader, create_capture("-", like=reader) as writer:
    for frame in reader:
        writer.write(frame, frame.data)
    print(reader.name, reader.format, reader.frames_read, reader.problem, file=sys.stderr)
"""


def through_a_pipe(capture: bytes) -> tuple[bytes, str]:
    done = subprocess.run(
        [sys.executable, "-c", COPY], cwd=ROOT, input=capture, capture_output=True, check=True
    )
    return done.stdout, done.stderr.decode().strip()


def test_standard_input_and_output_are_called_dash() -> None:
    assert through_a_pipe(CAPTURE) == (CAPTURE, "standard input pcap 3 None")


def test_gzip_is_recognised_on_standard_input() -> None:
    assert through_a_pipe(gzip.compress(CAPTURE)) == (CAPTURE, "standard input pcap 3 None")


def test_gzip_is_recognised_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    path.write_bytes(gzip.compress(CAPTURE))
    assert len(list(read_pcap(path))) == 3
    assert len(list(read_pcap(io.BytesIO(gzip.compress(CAPTURE))))) == 3


def test_gzip_of_several_members_is_one_capture() -> None:
    packed = gzip.compress(CAPTURE[:50]) + gzip.compress(CAPTURE[50:])
    assert len(list(open_capture(io.BytesIO(packed)))) == 3


def test_gzip_cut_or_corrupt_keeps_the_frames_before_and_says_so() -> None:
    whole = gzip.compress(CAPTURE[:24]) + gzip.compress(RECORD) + gzip.compress(RECORD)
    sizes = set()
    for size in range(len(gzip.compress(CAPTURE[:24])), len(whole)):
        reader = open_capture(io.BytesIO(whole[:size]))
        sizes.add(len(list(reader)))
        ended_between_members = size in (
            len(gzip.compress(CAPTURE[:24])),
            len(gzip.compress(CAPTURE[:24]) + gzip.compress(RECORD)),
        )
        assert (reader.problem is None) == ended_between_members
    assert sizes == {0, 1, 2}
    broken = bytearray(gzip.compress(CAPTURE))
    broken[-6] ^= 0xFF  # its checksum
    reader = open_capture(io.BytesIO(bytes(broken)))
    assert len(list(reader)) == 3
    assert reader.problem is not None
    assert "gzip" in reader.problem
    with pytest.raises(CaptureError, match="gzip data is cut"):
        open_capture(io.BytesIO(gzip.compress(CAPTURE)[:12]))


def test_a_name_that_ends_in_gz_is_packed_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.pcap.gz", "two.pcap.gz"):
        reader = open_capture(io.BytesIO(CAPTURE))
        with create_capture(tmp_path / name, like=reader) as writer:
            for frame in reader:
                writer.write(frame, frame.data)
    one = (tmp_path / "one.pcap.gz").read_bytes()
    assert gzip.decompress(one) == CAPTURE
    assert one == (tmp_path / "two.pcap.gz").read_bytes()


def test_a_file_object_is_left_open_and_a_path_is_closed(tmp_path: Path) -> None:
    source, sink = io.BytesIO(CAPTURE), io.BytesIO()
    with open_capture(source) as reader, create_capture(sink, like=reader) as writer:
        for frame in reader:
            writer.write(frame, frame.data)
    assert not source.closed
    assert sink.getvalue() == CAPTURE
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURE)
    reader = open_capture(path)
    reader.close()
    assert list(reader) == []


def test_iteration_goes_on_where_it_stopped() -> None:
    reader = open_capture(io.BytesIO(CAPTURE))
    for _ in reader:
        break
    assert reader.frames_read == 1
    assert len(list(reader)) == 2


def test_a_capture_cannot_be_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURE)
    with open_capture(path) as reader, pytest.raises(CaptureError, match="being read"):
        create_capture(tmp_path / "." / "x.pcap", like=reader)
    assert path.read_bytes() == CAPTURE


def test_text_where_octets_are_needed_is_refused() -> None:
    with pytest.raises(CaptureError, match="binary"):
        open_capture(io.StringIO("text"))  # type: ignore[arg-type]


def test_a_capture_that_cannot_be_opened_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap.gz"
    path.write_bytes(gzip.compress(b"no capture at all"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(CaptureError, match="starts with 6e 6f 20 63"):
            open_capture(path)
        gc.collect()


def test_what_was_flushed_can_be_read_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    reader = open_capture(io.BytesIO(CAPTURE))
    with create_capture(path, like=reader) as writer:
        frame = next(iter(reader))
        writer.write(frame, frame.data)
        writer.flush()
        assert path.read_bytes() == CAPTURE[: 24 + len(RECORD)]


def test_a_reader_of_another_kind_is_no_model_for_a_capture(tmp_path: Path) -> None:
    class Other(CaptureReader):
        def __init__(self) -> None:
            self.name = "other"

    with pytest.raises(TypeError):
        create_capture(tmp_path / "y.pcap", like=Other())


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures here")
def test_every_shared_capture_is_read_to_its_end_and_reframed_unchanged() -> None:
    seen = set()
    for path in sorted(CAPTURES.glob("*.pcap*")):
        ip = 0
        with open_capture(path) as reader:
            for frame in reader:
                linktype = reader.linktype(frame.interface)
                offset, ethertype = locate(linktype, frame.data)
                packet = frame.data[offset:] if offset >= 0 else b""
                assert reframe(linktype, frame.data, offset, packet, len(packet)) == frame.data
                ip += ethertype in (0x0800, 0x86DD)
                seen.add(linktype)
        assert reader.problem is None, path.name
        assert reader.frames_read > 0
        assert sum(1 for _ in read_pcap(path)) == ip
    assert {1, 113, 276} <= seen


# Frames that have an IP ethertype for one of the two and no IP header for the other.
DIFFERENT = {
    "vlan-mpls.pcap": 11,  # Wireshark guesses what follows the MPLS labels
    "malformed-fuzz.pcap": -6,  # Wireshark takes a wrong version nibble for "not IP"; here the engine will
}


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures here")
def test_wireshark_counts_the_same_frames_octets_and_ip_headers() -> None:
    truths = sorted((CAPTURES / "truth").glob("*.json"))
    assert truths
    for path in truths:
        truth = json.loads(path.read_text())
        name = truth["capture"]
        frames = octets = without_ip = cut = 0
        with open_capture(CAPTURES / name) as reader:
            for frame in reader:
                frames += 1
                octets += frame.wire_length
                cut += len(frame.data) < frame.wire_length
                without_ip += locate(reader.linktype(frame.interface), frame.data)[1] not in (0x0800, 0x86DD)
        assert (frames, octets, cut) == (truth["packets"], truth["bytes"], truth["truncated_frames"]), name
        assert without_ip == truth["non_ip"] + DIFFERENT.get(name, 0), name
