"""Sequence adjustment: what is shifted by how much, in both directions, at every distance.

Numbers marked "kernel" come from runs on Linux 6.18 (an FTP command at 1008 that grew by 4 octets).
"""

from __future__ import annotations

import struct

import pytest
from packets import TCP, ip, tcp, tcp_options, wrong_sums

from conntrack.nat.seqadj import NO_CHANGE, adjust, resized, shift
from conntrack.verdict import ORIGINAL, REPLY
from conntrack.wire.packet import Packet, parse

GREW = resized(NO_CHANGE, ORIGINAL, 1008, 4)


def segment(seq: int, ack: int = 0, flags: str = "A", options: bytes = b"", payload: bytes = b"") -> Packet:
    return parse(ip("10.0.0.2", "192.0.2.1", TCP, tcp(1, 21, flags, seq, ack, options=options, payload=payload)))


def numbers(packet: Packet) -> tuple[int, int]:
    seq, ack = struct.unpack_from("!II", packet.data, 24)
    return seq, ack


@pytest.mark.parametrize(
    ("seq", "by", "area"),
    [
        (1008, 4, (1008, 4, 8, 0, 0, 0)),  # its retransmission would not come here with another length
        (1030, 4, (1030, 4, 8, 0, 0, 0)),  # kernel: a second command
        (1030, -2, (1030, 4, 2, 0, 0, 0)),
        (1000, 4, (1008, 0, 4, 0, 0, 0)),  # older than the last change: nothing new
    ],
)
def test_a_further_change_counts_if_it_is_newer(seq: int, by: int, area: tuple[int, ...]) -> None:
    if seq == 1008:
        assert resized(GREW, ORIGINAL, seq, by) == GREW
    else:
        assert resized(GREW, ORIGINAL, seq, by) == area


def test_a_change_that_came_out_even_makes_room_for_any_other() -> None:
    even = resized((0, 0, 0, 5, 3, 3), REPLY, 2, 1)
    assert even == (0, 0, 0, 2, 3, 4)


@pytest.mark.parametrize(
    ("seq", "shifted"),
    [(1007, 0), (1008, 0), (1009, 4), (1007 + 2**31, 4), (1008 + 2**31, 4), (1009 + 2**31, 0)],
)
def test_only_what_lies_beyond_the_changed_segment_is_shifted(seq: int, shifted: int) -> None:
    """At distance 2**31 a number counts as after: after(a, b) is the sign of b - a."""
    assert shift(GREW, ORIGINAL, seq & 0xFFFFFFFF) == shifted
    packet = segment(seq & 0xFFFFFFFF)
    assert adjust(packet, GREW, ORIGINAL)
    assert numbers(packet)[0] == (seq + shifted) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("ack", "taken_back"),
    [(1034, 1030), (1008, 1008), (1009, 1005), (1012, 1008), (1000, 1000)],  # kernel: 1034 becomes 1030
)
def test_acknowledgements_are_taken_back(ack: int, taken_back: int) -> None:
    packet = segment(5016, ack)
    assert adjust(packet, GREW, REPLY)
    assert numbers(packet) == (5016, taken_back)
    assert not wrong_sums(bytes(packet.data))


def test_sack_edges_are_taken_back_in_every_block() -> None:
    """Kernel: edges 1034-1040 and 1000-1020."""
    packet = segment(5016, 1034, options=tcp_options(sack=[(1034, 1040), (1000, 1020)], ts=True))
    assert adjust(packet, GREW, REPLY)
    assert bytes(packet.data[52:72]).hex() == "01010512000004060000040c000003e8000003f8"
    assert not wrong_sums(bytes(packet.data))


def test_without_the_ack_flag_neither_acknowledgement_nor_sack_is_touched() -> None:
    packet = segment(999, 1034, "S", options=tcp_options(sack=[(1034, 1040)]))
    before = bytes(packet.data)
    assert adjust(packet, GREW, REPLY)
    assert bytes(packet.data) == before


@pytest.mark.parametrize("options", [b"\x05\x20\x00\x00", b"\x08\x01\x00\x00", b"\x01\x01\x01\x08"])
def test_options_that_cannot_be_read_are_refused(options: bytes) -> None:
    """Kernel: dropped, counted as drop."""
    assert not adjust(segment(5016, 1034, options=options), GREW, REPLY)


@pytest.mark.parametrize("options", [b"\x00\x05\x20\x00", b"\x05\x09" + bytes(7) + b"\x01\x01\x01", b""])
def test_other_odd_options_pass(options: bytes) -> None:
    """The end of the list hides what follows, and a SACK option of a strange size is nobody's."""
    assert adjust(segment(5016, 1034, options=options), GREW, REPLY)


def test_a_packet_without_a_whole_header_is_refused_unless_the_capture_cut_it() -> None:
    whole = bytes(segment(5016, 1034).data)
    short = parse(whole[:36], 40)
    assert adjust(short, GREW, REPLY)
    short = parse(whole[:2] + b"\0\x24" + whole[4:36])
    assert not adjust(short, GREW, REPLY)
