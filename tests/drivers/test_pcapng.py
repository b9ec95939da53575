"""pcapng: blocks made by hand in both byte orders, files made by Wireshark's tools, and blocks that lie."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conntrack.drivers.capture import CaptureError, Frame, create_capture, open_capture
from conntrack.drivers.pcap import read_pcap

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
EDITCAP = shutil.which("editcap")
TSHARK = shutil.which("tshark")
DATA = bytes(12) + b"\x08\x00" + b"E" + bytes(20)  # 35 octets, so that there is padding
ORDERS = ("<", ">")
UNSPECIFIED = b"\xff" * 8


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<", options: bytes = b"", length: bytes = UNSPECIFIED, major: int = 1) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHH", 0x1A2B3C4D, major, 0) + length + options)


def interface(order: str = "<", linktype: int = 1, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", linktype, 0, snaplen) + options)


def enhanced(
    order: str, number: int, stamp: int, data: bytes = DATA, wire: int | None = None, options: bytes = b""
) -> bytes:
    wire = len(data) if wire is None else wire
    fields = struct.pack(order + "IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), wire)
    return block(order, 6, fields + data + bytes(-len(data) % 4) + options)


def simple(order: str, data: bytes, wire: int) -> bytes:
    return block(order, 3, struct.pack(order + "I", wire) + data)


def rewritten(capture: bytes) -> bytes:
    reader = open_capture(io.BytesIO(capture))
    out = io.BytesIO()
    with create_capture(out, like=reader) as writer:
        for frame in reader:
            writer.write(frame, frame.data)
    return out.getvalue()


@pytest.mark.parametrize("order", ORDERS)
def test_sections_interfaces_and_all_three_kinds_of_frame(order: str) -> None:
    end = option(order, 0, b"")
    capture = section(order, option(order, 1, b"a comment") + end)
    capture += interface(order, 1, 40, option(order, 2, b"eth0") + end)
    capture += interface(order, 101, 0, option(order, 9, b"\x09") + option(order, 2, "wán".encode()))
    capture += enhanced(order, 0, 1_700_000_000_000_001, options=option(order, 1, b"first") + end)
    capture += enhanced(order, 1, 1_700_000_000_000_000_002, b"E", wire=1500)
    capture += simple(order, DATA + b"12345", 900)
    capture += block(order, 2, struct.pack(order + "HHIIII", 1, 7, 0, 5, 4, 6) + b"E...")
    reader = open_capture(io.BytesIO(capture))
    assert reader.format == "pcapng"
    assert [(one.linktype, one.snaplen, one.resolution, one.name) for one in reader.interfaces] == [
        (1, 40, 10**6, "eth0"),
        (101, 0, 10**9, "wán"),
    ]
    assert list(reader) == [
        Frame(1_700_000_000_000_001_000, DATA, 35, 0),
        Frame(1_700_000_000_000_000_002, b"E", 1500, 1),
        Frame(1_700_000_000_000_000_002, DATA + b"12345", 900, 0),  # no time of its own
        Frame(5, b"E...", 6, 1),
    ]
    assert reader.problem is None
    assert reader.frames_read == 4
    assert rewritten(capture) == capture


@pytest.mark.parametrize(
    ("resolution", "units"),
    [
        (b"\x00", 1),
        (b"\x03", 10**3),
        (b"\x06", 10**6),
        (b"\x09", 10**9),
        (b"\x0c", 10**12),
        (b"\x7f", 10**127),
        (b"\x80", 1),
        (b"\x8a", 2**10),
        (b"\xa0", 2**32),
        (b"\xff", 2**127),
    ],
)
def test_clocks_of_every_resolution_give_nanoseconds_and_keep_their_digits(
    resolution: bytes, units: int
) -> None:
    stamp = 5 * units + units // 3 if units < 2**62 else 2**64 - 1
    capture = section() + interface(options=option("<", 9, resolution)) + enhanced("<", 0, stamp)
    (frame,) = open_capture(io.BytesIO(capture))
    assert frame.time == stamp * 10**9 // units
    assert rewritten(capture) == capture


def test_the_offset_of_a_clock_is_in_seconds_and_may_be_negative() -> None:
    for offset in (1_600_000_000, -5):
        options = option(">", 14, struct.pack(">q", offset))
        capture = section(">") + interface(">", options=options) + enhanced(">", 0, 2_000_001)
        reader = open_capture(io.BytesIO(capture))
        assert reader.interfaces[0].offset == offset
        assert [frame.time for frame in reader] == [(offset + 2) * 10**9 + 1000]
        assert rewritten(capture) == capture


def test_sections_may_change_the_byte_order_and_interfaces_count_on() -> None:
    capture = section("<") + interface("<") + enhanced("<", 0, 1)
    capture += section(">") + interface(">", 101) + interface(">", 113) + enhanced(">", 1, 2)
    capture += section("<") + interface("<", 1) + enhanced("<", 0, 3)
    reader = open_capture(io.BytesIO(capture))
    assert [(frame.time, frame.interface, reader.linktype(frame.interface)) for frame in reader] == [
        (1000, 0, 1),
        (2000, 2, 113),
        (3000, 3, 1),
    ]
    assert rewritten(capture) == capture


def test_interfaces_that_appear_late_are_written_when_they_appear() -> None:
    capture = section() + interface() + enhanced("<", 0, 1) + interface(linktype=101)
    capture += enhanced("<", 1, 2) + interface(linktype=113) + enhanced("<", 0, 3)
    reader = open_capture(io.BytesIO(capture))
    assert len(reader.interfaces) == 1
    assert len(list(reader)) == 3
    assert len(reader.interfaces) == 3
    assert rewritten(capture) == capture


NAMES = block("<", 4, bytes(4))
STATISTICS = block("<", 5, bytes(12))
SECRETS = block("<", 10, bytes(8))
CUSTOM = block("<", 0xBAD, b"\0\0\x7f\xf0" + b"keep")
CUSTOM_NO_COPY = block("<", 0x40000BAD, b"\0\0\x7f\xf0" + b"drop")
UNKNOWN = block("<", 0x12345678, b"what")


def test_blocks_that_are_no_frames_keep_their_place_though_frames_are_dropped() -> None:
    parts = [section(), interface(), NAMES, enhanced("<", 0, 1), SECRETS, enhanced("<", 0, 2)]
    parts += [CUSTOM_NO_COPY, CUSTOM, UNKNOWN, enhanced("<", 0, 3), STATISTICS]
    reader = open_capture(io.BytesIO(b"".join(parts)))
    out = io.BytesIO()
    with create_capture(out, like=reader) as writer:
        for frame in reader:
            if frame.time != 2000:
                writer.write(frame, frame.data)
    del parts[6], parts[5]
    assert out.getvalue() == b"".join(parts)


def test_a_stated_section_length_is_not_repeated() -> None:
    body = interface() + enhanced("<", 0, 1)
    stated = section(length=struct.pack("<q", len(body))) + body
    assert rewritten(stated) == section() + body


def test_a_changed_frame_loses_the_hash_and_what_must_not_be_copied() -> None:
    comment, flags, end = option("<", 1, b"look here"), option("<", 2, bytes(4)), option("<", 0, b"")
    secret, checksum = option("<", 19372, b"\0\0\x7f\xf0x"), option("<", 3, b"\x02\1\2\3\4")
    before = enhanced("<", 0, 1, options=comment + checksum + flags + secret + end)
    capture = section() + interface() + before
    reader = open_capture(io.BytesIO(capture))
    out = io.BytesIO()
    with create_capture(out, like=reader) as writer:
        for frame in reader:
            writer.write(frame, frame.data)
            writer.write(frame, frame.data + b"more")
    after = enhanced("<", 0, 1, DATA + b"more", options=comment + flags + end)
    assert out.getvalue() == capture + after


def test_a_changed_simple_frame_can_still_be_read() -> None:
    capture = section() + interface(snaplen=35) + simple("<", DATA, 900)
    for data, wire in [(DATA[:20], 20), (DATA + b"more", 904)]:
        reader = open_capture(io.BytesIO(capture))
        out = io.BytesIO()
        writer = create_capture(out, like=reader)
        for frame in reader:
            writer.write(frame, data)
        (again,) = open_capture(io.BytesIO(out.getvalue()))
        assert again.data == data[:35]
        assert again.wire_length == wire  # 20, not 885: a simple block cannot tell less than its snap length


def test_a_frame_of_ones_own_is_written_by_its_interfaces_clock() -> None:
    clock = option("<", 9, b"\x03") + option("<", 14, struct.pack("<q", 100))
    capture = section() + interface() + interface(options=clock)
    out = io.BytesIO()
    writer = create_capture(out, like=open_capture(io.BytesIO(capture)))
    writer.write(Frame(123_456_789_012, b"", 0, 1), DATA)
    assert out.getvalue() == capture + enhanced("<", 1, 23_456)
    for wrong in (Frame(0, b"", 0, 1), Frame(0, b"", 0, 2), Frame(0, b"", 0, -1)):
        with pytest.raises(ValueError):
            writer.write(wrong, DATA)


def test_a_frame_cannot_be_written_after_its_section() -> None:
    capture = section() + interface() + enhanced("<", 0, 1)
    reader = open_capture(io.BytesIO(capture + capture))
    writer = create_capture(io.BytesIO(), like=reader)
    frames = list(reader)
    writer.write(frames[1], DATA)
    with pytest.raises(ValueError, match="earlier section"):
        writer.write(frames[0], DATA)


def test_a_writer_that_comes_late_or_leaves_early_has_the_blocks_of_its_time() -> None:
    parts = [section(), interface(), enhanced("<", 0, 1), NAMES, enhanced("<", 0, 2)]
    parts += [SECRETS, enhanced("<", 0, 3), STATISTICS]
    reader = open_capture(io.BytesIO(b"".join(parts)))
    out = io.BytesIO()
    frames = iter(reader)
    next(frames), next(frames)
    with create_capture(out, like=reader) as writer:
        frame = next(frames)
        writer.write(frame, frame.data)
    assert list(frames) == []
    assert out.getvalue() == b"".join([parts[0], parts[1], SECRETS, parts[6]])


@pytest.mark.parametrize("order", ORDERS)
def test_a_capture_cut_at_any_octet_ends_with_its_last_whole_frame(order: str) -> None:
    parts = [section(order), interface(order), enhanced(order, 0, 1), block(order, 5, bytes(12))]
    parts += [simple(order, DATA, 35), section(order), interface(order), enhanced(order, 0, 2)]
    whole = b"".join(parts)
    ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
    for size in range(len(whole) + 1):
        if size < ends[0]:
            with pytest.raises(CaptureError, match="no capture file"):
                open_capture(io.BytesIO(whole[:size]))
            continue
        reader = open_capture(io.BytesIO(whole[:size]))
        assert len(list(reader)) == sum(ends[i] <= size for i in (2, 4, 7)) == reader.frames_read
        assert (reader.problem is None) == (size in ends), (size, reader.problem)


START = section() + interface()
GOOD = enhanced("<", 0, 1)


# fmt: off
LIES = [
    (struct.pack("<III", 6, 8, 8),                              "impossible length 8"),
    (struct.pack("<III", 6, 0, 0),                              "impossible length 0"),
    (GOOD[:4] + struct.pack("<I", len(GOOD) - 1) + GOOD[8:],    "impossible length 67"),
    (GOOD[:4] + b"\xfc\xff\xff\xff" + GOOD[8:],                 "impossible length 4294967292"),
    (GOOD[:-4] + struct.pack("<I", len(GOOD) + 4),              "two different lengths"),
    (block("<", 6, bytes(16)),                                  "too short for a frame"),
    (block("<", 2, bytes(16)),                                  "too short for a frame"),
    (block("<", 3, b""),                                        "too short for a frame"),
    (block("<", 1, bytes(4)),                                   "too short for an interface"),
    (enhanced("<", 1, 0),                                       "names interface 1 of 1"),
    (block("<", 6, struct.pack("<IIIII", 0, 0, 0, 40, 40)),     "claims 40 octets of data"),
    (simple("<", DATA, 2**31),                                  "claims 2147483648 octets"),
    (block("<", 0x0A0D0D0A, b"\x4d\x3c\x2b\x1a"),               "too short for a section"),
    (block("<", 0x0A0D0D0A, bytes(16)),                         "a section without a byte order"),
    (section(major=2),                                          "pcapng version 2.0"),
    (section() + GOOD,                                          "names interface 0 of 0"),
    (section() + simple("<", DATA, 35),                         "names interface 0 of 0"),
]
# fmt: on


@pytest.mark.parametrize(("bad", "problem"), LIES)
def test_a_block_that_lies_ends_the_capture(bad: bytes, problem: str) -> None:
    reader = open_capture(io.BytesIO(START + GOOD + bad + GOOD))
    assert len(list(reader)) == 1
    assert reader.problem is not None
    assert problem in reader.problem
    assert rewritten(START + GOOD + bad + GOOD).startswith(START + GOOD)


def test_interfaces_without_end_are_a_problem_and_no_memory_leak() -> None:
    reader = open_capture(io.BytesIO(section() + interface() * 65_537))
    assert list(reader) == []
    assert len(reader.interfaces) == 65_536
    assert reader.problem is not None
    assert "one too many" in reader.problem


def test_options_that_lie_are_ignored_but_kept() -> None:
    capture = section() + interface(options=struct.pack("<HH", 2, 500) + b"eth0")
    capture += enhanced("<", 0, 1, options=struct.pack("<HH", 3, 77) + b"hash")
    reader = open_capture(io.BytesIO(capture))
    assert reader.interfaces[0].name == ""
    assert len(list(reader)) == 1
    assert rewritten(capture) == capture


def test_only_unknown_link_types_are_refused_one_among_others_is_not() -> None:
    with pytest.raises(CaptureError, match="unknown link type 105"):
        open_capture(io.BytesIO(section() + interface(linktype=105) + GOOD))
    capture = section() + interface(linktype=220) + interface() + GOOD + enhanced("<", 1, 2)
    assert len(list(open_capture(io.BytesIO(capture)))) == 2
    assert len(list(read_pcap(io.BytesIO(capture)))) == 1
    assert rewritten(capture) == capture


def test_what_begins_like_pcapng_and_is_none_is_named() -> None:
    for content, complaint in [
        (section(major=3), "pcapng version 3.0"),
        (b"\x0a\x0d\x0d\x0a" + bytes(30), "a section without a byte order"),
        (section()[:11], "ends in the middle of block 1"),
    ]:
        with pytest.raises(CaptureError, match="no capture file") as caught:
            open_capture(io.BytesIO(content))
        assert complaint in str(caught.value)


BLOCKS = st.one_of(
    st.sampled_from([GOOD, START, section(">"), interface(">"), enhanced(">", 0, 1), NAMES, UNKNOWN]),
    st.builds(lambda kind, body: block("<", kind, body), st.sampled_from([1, 2, 3, 5, 6]), st.binary()),
    st.binary(max_size=40),
)


@given(st.lists(BLOCKS, max_size=8).map(b"".join))
def test_any_octets_behind_a_section_are_frames_or_a_problem(junk: bytes) -> None:
    reader = open_capture(io.BytesIO(START + junk))
    frames = list(reader)
    assert all(len(frame.data) <= len(junk) for frame in frames)
    again = rewritten(START + junk)
    assert list(open_capture(io.BytesIO(again))) == frames
    if reader.problem is None:
        assert len(again) == len(START + junk)


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no shared captures here")
def test_the_shared_pcapng_passes_through_octet_for_octet() -> None:
    for path in CAPTURES.glob("*.pcapng"):
        content = path.read_bytes()
        assert rewritten(content) == content, path.name


@pytest.mark.skipif(EDITCAP is None or not CAPTURES.is_dir(), reason="no editcap or no shared captures")
def test_editcap_makes_the_same_frames_of_a_pcap(tmp_path: Path) -> None:
    assert EDITCAP
    for name in ("web-wikipedia.pcap", "nanosecond-snaplen.pcap", "sctp-sll.pcap"):
        made = tmp_path / (name + "ng")
        subprocess.run([EDITCAP, "-F", "pcapng", CAPTURES / name, made], check=True, capture_output=True)
        assert list(open_capture(made)) == list(open_capture(CAPTURES / name)), name
        assert rewritten(made.read_bytes()) == made.read_bytes()


@pytest.mark.skipif(
    EDITCAP is None or TSHARK is None or not CAPTURES.is_dir(),
    reason="no editcap, no tshark or no shared captures",
)
def test_comments_survive_as_tshark_sees_them(tmp_path: Path) -> None:
    assert EDITCAP and TSHARK
    made, copy = tmp_path / "made.pcapng", tmp_path / "copy.pcapng"
    arguments = ["-F", "pcapng", "-a", "1:first words", "-a", "3:other words", "--capture-comment", "of all"]
    subprocess.run([EDITCAP, *arguments, CAPTURES / "tftp.pcap", made], check=True, capture_output=True)
    with open_capture(made) as reader, create_capture(copy, like=reader) as writer:
        for frame in reader:
            writer.write(frame, frame.data[:-2] + b"!!")
    fields = ["-T", "fields", "-e", "frame.number", "-e", "frame.comment", "-e", "frame.time_epoch"]
    seen = [
        subprocess.run([TSHARK, "-r", path, *fields], check=True, capture_output=True, text=True).stdout
        for path in (made, copy)
    ]
    assert "first words" in seen[0]
    assert seen[0] == seen[1]
