"""Fragments in, whole packets out, pieces again.

The scripts below are one fragment a line, with what happens at its right: a reason, "ungathered", or the
sizes of the pieces that leave. Each of them was seen on Linux 6.18 (docs/reassembly.md), and
tests/kernel/test_reassembly_differential.py goes on comparing.
"""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conntrack import reasons
from conntrack.choices import Choices
from conntrack.journal import Journal
from conntrack.wire.checksum import GOOD, internet_checksum, ones_sum, pseudo_sum
from conntrack.wire.packet import Packet, examine, parse
from conntrack.wire.reassembly import Limits, Reassembler, truesize
from conntrack.wire.refragment import Pieces, refragment

SECOND = 1_000_000_000
LIMITS = Limits(30 * SECOND, 4194304, 3145728, 64, 60 * SECOND, 4194304, 3145728)
SOURCE4, TARGET4 = bytes((10, 0, 0, 2)), bytes((203, 0, 113, 9))
SOURCE6, TARGET6 = (
    bytes.fromhex("fd000001" + "00" * 11 + "02"),
    bytes.fromhex("20010db800ff" + "00" * 9 + "09"),
)
UDP, TCP, SCTP, DEST, HOP, AUTH, NONE = 17, 6, 132, 60, 0, 51, 59
NEW_ID = 0xABCD1234


def ip4(payload: bytes, word: int = 0, options: bytes = b"", **fields: int) -> bytes:
    """An IPv4 packet; `word` is offset // 8, 0x2000 more fragments, 0x4000 don't fragment."""
    words = (5 + len(options) // 4) << 8 | 0x4000 | fields.get("tos", 0)
    source = SOURCE4[:3] + bytes((fields.get("host", 2),))
    head = struct.pack("!HHHHBB", words, 20 + len(options) + len(payload), fields.get("ident", 7), word,
                       fields.get("ttl", 64), fields.get("proto", UDP))  # fmt: skip
    checksum = internet_checksum(head + b"\0\0" + source + TARGET4 + options)
    return head + struct.pack("!H", checksum) + source + TARGET4 + options + payload


def ip6(payload: bytes, proto: int = UDP, tos: int = 0) -> bytes:
    return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), proto, 64) + SOURCE6 + TARGET6 + payload


def fragment6(
    payload: bytes, word: int, proto: int = UDP, before: bytes = b"", first: int = 44, **fields: int
) -> bytes:
    """An IPv6 fragment; `word` is offset | 1 if more; `before`: headers ahead of the fragment header."""
    header = struct.pack("!BBHI", proto, 0, word, fields.get("ident", 7))
    return ip6(before + header + payload, first, fields.get("tos", 0))


def extension(following: int, length: int = 8) -> bytes:
    """An extension header; what is in it does not matter here."""
    return bytes((following, length // 8 - 1)) + bytes(length - 2)


def datagram(length: int, family: int) -> bytes:
    """A UDP datagram with a right checksum."""
    data = bytearray(struct.pack("!HHHH", 1111, 53, length, 0) + random.Random(length).randbytes(length - 8))
    addresses = SOURCE4 + TARGET4 if family == 4 else SOURCE6 + TARGET6
    total = (pseudo_sum(addresses, UDP, length) + ones_sum(data)) % 0xFFFF
    data[6:8] = struct.pack("!H", 0xFFFF - total)
    return bytes(data)


def cut(whole: bytes, *sizes: int, **fields: int) -> list[bytes]:
    """The fragments of a payload, IPv4."""
    stops = [*itertools.accumulate(sizes), len(whole)]
    flags = fields.pop("df", 0) << 14
    return [
        ip4(whole[start:stop], start // 8 | flags | (0x2000 if stop < len(whole) else 0), **fields)
        for start, stop in zip([0, *stops], stops, strict=False)
    ]


def cut6(whole: bytes, *sizes: int, **fields: int) -> list[bytes]:
    """The fragments of a payload, IPv6."""
    stops = [*itertools.accumulate(sizes), len(whole)]
    return [
        fragment6(whole[start:stop], start | (stop < len(whole)), **fields)  # type: ignore[arg-type]
        for start, stop in zip([0, *stops], stops, strict=False)
    ]


def push(
    gatherer: Reassembler, data: bytes, now: int = 0, limits: Limits = LIMITS, zone: int = 0
) -> tuple[Packet | None, str]:
    result = gatherer.push(parse(data), now, zone, limits)
    gatherer.check()
    return result


def gather(fragments: list[bytes], wire: int | None = None) -> Packet:
    """The whole packet of fragments that complete with the last one."""
    gatherer = Reassembler()
    whole = None
    for data in fragments:
        assert whole is None
        whole, _ = push(gatherer, data)
    assert whole is not None and len(gatherer) == gatherer.memory4 == gatherer.memory6 == 0
    return whole


def sizes_of(pieces: tuple[bytes, ...]) -> str:
    """Payload sizes of pieces, checking that they follow each other."""
    out, at = [], 0
    for number, piece in enumerate(pieces):
        if piece[0] >> 4 == 4:
            header = (piece[0] & 15) * 4
            assert internet_checksum(piece[:header]) == 0 and int.from_bytes(piece[2:4], "big") == len(piece)
            word = int.from_bytes(piece[6:8], "big")
            offset, more = (word & 0x1FFF) * 8, word >> 13 & 1
        elif piece[6] == 44:
            header, (word,) = 48, struct.unpack_from("!H", piece, 42)
            offset, more = word & 0xFFF8, word & 1
        else:
            header, offset, more = 40, 0, 0
        assert offset == at and more == (number < len(pieces) - 1)
        at += len(piece) - header
        out.append(len(piece) - header)
    return "+".join(str(size) for size in out)


SCRIPTS = """
46 fragments in order keep their sizes
    0-1000+     held_fragment
    1000-2008   1000+1008
46 fragments in reverse keep their sizes
    1000-2008   held_fragment
    0-1000+     1000+1008
46 unequal fragments keep their sizes
    1600-2008   held_fragment
    0-1000+     held_fragment
    1000-1600+  1000+600+408
46 the first may be the smallest
    0-408+      held_fragment
    408-1408+   held_fragment
    1408-2008   408+1000+600
46 a duplicate is swallowed
    0-1000+     held_fragment
    0-1000+     fragment_duplicate
    1000-2008   1000+1008
46 a last duplicate is swallowed
    1000-2008   held_fragment
    1000-2008   fragment_duplicate
    0-1000+     1000+1008
46 a fragment within two that came in order is a duplicate
    0-504+      held_fragment
    504-1000+   held_fragment
    400-600+    fragment_duplicate
    1000-2008   504+496+1008
46 within two that came out of order it is an overlap
    504-1000+   held_fragment
    0-504+      held_fragment
    400-600+    fragment_overlap
    1000-2008   held_fragment
46 an overlap with the end gives the datagram up
    0-504+      held_fragment
    400-600+    fragment_overlap
    504-1000+   held_fragment
    1000-2008   held_fragment
    0-504+      504+496+1008
46 an overlap from the front gives it up
    800-1000+   held_fragment
    1000-2008   held_fragment
    0-904+      fragment_overlap
    0-800+      held_fragment
46 a bigger one over a smaller one gives it up
    400-600+    held_fragment
    0-1000+     fragment_overlap
46 a bigger one over two gives it up
    400-600+    held_fragment
    1200-1400+  held_fragment
    0-1000+     fragment_overlap
46 a fragment between two others
    400-600+    held_fragment
    1000-1400+  held_fragment
    600-1000+   held_fragment
    1400-2008   held_fragment
    0-400+      400+200+400+400+608
46 a duplicate can tell the end, too late to complete
    0-1000+     held_fragment
    1000-2000+  held_fragment
    1992-2000   fragment_duplicate
    2000-2008   fragment_bad
4 a second end gives it up
    1000-2008   held_fragment
    1000-1504   fragment_bad
    0-1000+     held_fragment
    1000-2008   1000+1008
6 a second, shorter end is refused
    1000-2008   held_fragment
    1000-1504   fragment_bad
    0-1000+     1000+1008
6 a second, longer end is refused, the shorter datagram completes
    1000-1504   held_fragment
    1000-2008   fragment_bad
    0-1000+     1000+504
4 more beyond the end gives it up
    0-1000      ungathered
    1000-1504   held_fragment
    1504-1600+  fragment_bad
    0-1000+     held_fragment
6 more beyond the end is refused
    1000-1504   held_fragment
    1504-1600+  fragment_bad
    0-1000+     1000+504
4 odd lengths with more to come are cut down
    0-1005+     held_fragment
    1000-2008   1000+1008
4 a cut down fragment with nothing left gives it up
    0-1000+     held_fragment
    1000-1004+  fragment_bad
    1000-2008   held_fragment
6 an odd first fragment goes on as it is
    0-1004+     ungathered
    0-1000+     held_fragment
    1000-2008   1000+1008
6 an odd later fragment goes on and takes the queue along
    0-800+      held_fragment
    800-1003+   ungathered
    800-1000+   held_fragment
    1000-2008   held_fragment
    0-800+      800+200+1008
4 nothing as a first fragment leaves no queue
    0-0+        fragment_bad
    0-1000+     held_fragment
    1000-2008   1000+1008
4 nothing in the middle gives it up
    0-1000+     held_fragment
    1000-1000+  fragment_bad
    1000-2008   held_fragment
    0-1000+     1000+1008
6 nothing as a first fragment goes on as it is
    0-0+        ungathered
    0-1000+     held_fragment
    1000-2008   1000+1008
6 nothing in the middle is refused
    0-1000+     held_fragment
    1000-1000+  fragment_bad
    1000-2008   1000+1008
6 nothing can tell an end that makes the rest impossible
    0-1000+     held_fragment
    1000-1000   fragment_bad
    1000-2008   fragment_bad
46 an identification can be used again at once
    0-1000+     held_fragment
    1000-2008   1000+1008
    1000-2008   held_fragment
    0-1000+     1000+1008
46 ports split over two fragments
    0-8+        held_fragment
    8-1000+     held_fragment
    1000-2008   8+992+1008
"""


def scripts() -> list[object]:
    found: list[tuple[str, list[str]]] = []
    for line in SCRIPTS.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].append(line)
        else:
            found.append((line, []))
    return [
        pytest.param(int(family), lines, id=f"IPv{family}: {title.split(' ', 1)[1]}")
        for title, lines in found
        for family in title.split(" ", 1)[0]
    ]


@pytest.mark.parametrize(("family", "lines"), scripts())
def test_the_script(family: int, lines: list[str]) -> None:
    payload = datagram(2008, family)
    gatherer = Reassembler()
    for line in lines:
        span, expected = line.split()
        start, stop = (int(part) for part in span.rstrip("+").split("-"))
        more = span.endswith("+")
        if family == 4:
            data = ip4(payload[start:stop], start // 8 | more << 13)
        else:
            data = fragment6(payload[start:stop], start | more)
        fragment = parse(data)
        whole, reason = gatherer.push(fragment, 0, 0, LIMITS) if fragment.fragment else (fragment, "")
        gatherer.check()
        if whole is None:
            assert reason == expected, line
            assert len(fragment.numbers) == len(reasons.REASONS[reason].numbers)
        elif whole is fragment:
            assert expected == "ungathered" and whole.pieces is None, line
        else:
            assert sizes_of(refragment(whole, NEW_ID)) == expected, line
            assert not whole.fragment and not whole.fault
            if "2008" in lines[-1]:
                assert bytes(whole.data[whole.l4 :]) == payload[: whole.length - whole.l4]


def test_the_whole_ipv4_packet_has_the_first_ones_header() -> None:
    payload = datagram(2008, 4)
    a, b = ip4(payload[:1000], 0x2000, ttl=60, tos=0x20), ip4(payload[1000:], 125, ttl=50, tos=0x40)
    assert bytes(gather([b, a]).data) == ip4(payload, ttl=60, tos=0x20)
    assert examine(gather([a, b]), UDP, 6) == GOOD


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [(0, 0, 0), (2, 2, 2), (3, 3, 3), (1, 2, 1), (2, 1, 2), (1, 3, 3), (2, 3, 3), (3, 2, 3),
     (0, 1, None), (0, 2, None), (2, 0, None), (0, 3, None), (3, 0, None)],
)  # fmt: skip
def test_congestion_marks_are_merged_and_impossible_ones_lose_the_datagram(
    first: int, second: int, whole: int | None
) -> None:
    payload = bytes(100)
    for family in (4, 6):
        gatherer = Reassembler()
        if family == 4:
            fragments = [ip4(payload[:96], 0x2000, tos=first), ip4(payload[96:], 12, tos=second)]
        else:
            fragments = [fragment6(payload[:96], 1, tos=first), fragment6(payload[96:], 96, tos=second)]
        push(gatherer, fragments[0])
        packet, reason = push(gatherer, fragments[1])
        assert len(gatherer) == 0
        if whole is None:
            assert (packet, reason) == (None, reasons.FRAGMENT_BAD)
        else:
            assert packet is not None
            assert (packet.data[1] if family == 4 else packet.data[1] >> 4) & 3 == whole


def test_dont_fragment_is_kept_if_the_largest_fragment_had_it_but_only_for_pieces_cut_anew() -> None:
    payload = datagram(2008, 4)

    def flags(df_first: int, df_last: int, options: bytes) -> tuple[int, list[int]]:
        whole = gather([ip4(payload[:1000], 0x2000 | df_first, options), ip4(payload[1000:], 125 | df_last)])
        return whole.data[6], [piece[6] & 0x40 for piece in refragment(whole, NEW_ID)]

    df, unknown = 0x4000, b"\x1e\4\1\1"
    assert flags(df, df, b"") == (0x40, [0, 0])
    assert flags(0, df, b"") == (0x40, [0, 0])
    assert flags(df, 0, b"") == (0, [0, 0])
    assert flags(0, 0, b"") == (0, [0, 0])
    assert flags(0, df, unknown) == (0x40, [0x40, 0x40, 0x40])


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ("82040102 1e040909", "82040102 01010101"),  # security is copied, 0x1e is not
        ("1e040909 82040102", "01010101 82040102"),
        ("01010101", "01010101"),
        ("1e020000", "01010000"),  # end of list
        ("1e020100", "01010100"),
        ("1e090000", "1e090000"),  # a length beyond the header: left alone
        ("0101011e", "0101011e"),
        ("1e010000", "1e010000"),
    ],
)
def test_later_pieces_have_only_options_that_are_to_be_copied(options: str, others: str) -> None:
    payload = datagram(2008, 4)
    first = ip4(payload[:1008], 0x2000, bytes.fromhex(options))
    pieces = refragment(gather([first, ip4(payload[1008:], 126)]), NEW_ID)
    assert [(piece[0] & 15) * 4 for piece in pieces] == [20 + len(bytes.fromhex(options))] * 2
    assert pieces[0] == first and pieces[1][20:-1000].hex() == others.replace(" ", "")


def test_a_header_that_grew_makes_a_new_cut() -> None:
    payload = datagram(2008, 4)
    whole = gather([ip4(payload[:1000], 0x2000, b"\x1e\4\1\1"), ip4(payload[1000:], 125)])
    assert sizes_of(refragment(whole, NEW_ID)) == "1000+1000+8"


@pytest.mark.parametrize(
    ("proto", "sizes", "out"),
    [
        (TCP, (8, 496), "496+496+8"),  # 20 octets are pulled together by early demultiplexing
        (TCP, (16, 8), "976+24"),
        (TCP, (24, 80), "24+80+896"),
        (SCTP, (8, 496), "496+496+8"),  # 12 octets by the checksum
        (SCTP, (16, 488), "16+488+496"),
        (UDP, (8, 496), "8+496+496"),
    ],
)
def test_a_first_piece_shorter_than_the_pulled_header_makes_a_new_cut(
    proto: int, sizes: tuple[int, ...], out: str
) -> None:
    whole = gather(cut(bytes(1000), *sizes, proto=proto))
    assert sizes_of(refragment(whole, NEW_ID)) == out


def test_in_ipv6_too_where_headers_may_stand_before_it() -> None:
    def out(payload: bytes, proto: int, *sizes: int) -> str:
        return sizes_of(refragment(gather(cut6(payload, *sizes, proto=proto)), NEW_ID))

    assert out(bytes(2000), SCTP, 8, 1000) == "1232+768"
    auth = struct.pack("!BBHII", SCTP, 1, 0, 1, 2)
    assert out(auth + bytes(1988), AUTH, 16, 8, 1000) == "24+1000+976"  # the second was eaten whole
    assert out(auth + bytes(1988), AUTH, 16, 1000) == "24+992+984"


def test_a_datagram_shorter_than_what_would_be_pulled_keeps_its_pieces() -> None:
    assert sizes_of(refragment(gather(cut(bytes(19), 8, proto=TCP)), NEW_ID)) == "8+11"
    assert sizes_of(refragment(gather(cut(bytes(20), 16, proto=TCP)), NEW_ID)) == "16+4"


def test_ipv6_pieces_get_a_new_identification_and_the_same_sizes() -> None:
    whole = gather(cut6(datagram(2008, 6), 1000))
    assert bytes(whole.data) == ip6(datagram(2008, 6)) and examine(whole, UDP, 6) == GOOD
    assert list(refragment(whole, NEW_ID)) == cut6(datagram(2008, 6), 1000, ident=NEW_ID)


def test_ipv6_goes_out_whole_if_it_is_no_larger_than_the_largest_piece() -> None:
    payload = datagram(208, 6)
    assert refragment(gather(cut6(payload, 200)), NEW_ID) == (ip6(payload),)
    assert len(refragment(gather(cut6(payload, 192)), NEW_ID)) == 2


def test_an_atomic_fragment_loses_its_header_and_joins_the_queue_of_its_identification() -> None:
    payload = datagram(208, 6)
    for word in (0, 6):  # 6: reserved bits
        whole, reason = push(Reassembler(), fragment6(payload, word))
        assert whole is not None and not reason and refragment(whole, NEW_ID) == (ip6(payload),)
    gatherer = Reassembler()
    push(gatherer, fragment6(payload[:104], 1))
    assert push(gatherer, fragment6(payload, 0)) == (None, reasons.FRAGMENT_OVERLAP)
    short = fragment6(payload[:12], 0, TCP)
    assert push(gatherer, short)[0] is not None  # without its TCP header: not gathered


def test_headers_before_the_fragment_header_are_the_first_ones_on_every_piece() -> None:
    payload = datagram(2008, 6)
    for first in (HOP, DEST):
        before = extension(44)
        whole = gather(
            [fragment6(payload[:1000], 1, before=before, first=first), fragment6(payload[1000:], 1000)]
        )
        assert bytes(whole.data) == ip6(extension(UDP) + payload, first)
        assert list(refragment(whole, NEW_ID)) == cut6(
            payload, 1000, before=before, first=first, ident=NEW_ID
        )
    whole = gather(
        [fragment6(payload[:1000], 1), fragment6(payload[1000:], 1000, before=extension(44), first=HOP)]
    )
    assert list(refragment(whole, NEW_ID)) == cut6(payload, 1000, ident=NEW_ID)


def test_headers_that_do_not_fit_before_a_later_fragment_make_a_new_cut() -> None:
    payload = datagram(2008, 6)

    def out(length: int, later: bytes) -> str:
        first = fragment6(payload[:1000], 1, before=extension(44, length), first=HOP)
        last = fragment6(payload[1000:], 1000, before=later, first=HOP if later else 44)
        pieces = refragment(gather([last, first]), NEW_ID)
        return "+".join(str(len(piece) - 48 - length) for piece in pieces)

    assert out(48, b"") == "1000+1008"
    assert out(56, b"") == "1176+832"
    assert out(56, extension(44)) == "1000+1008"


def test_destination_options_behind_the_fragment_header_go_out_before_it() -> None:
    payload = extension(UDP) + datagram(2008, 6)
    whole = gather(cut6(payload, 1008, proto=DEST))
    pieces = refragment(whole, NEW_ID)
    assert list(pieces) == cut6(payload[8:], 1000, before=extension(44), first=DEST, ident=NEW_ID)
    # behind a routing header they stay where they are
    routing = bytes((44, 0, 99, 0, 0, 0, 0, 0))
    whole = gather(cut6(payload, 1008, proto=DEST, before=routing, first=43))
    assert list(refragment(whole, NEW_ID)) == cut6(
        payload, 1008, proto=DEST, before=routing, first=43, ident=NEW_ID
    )


def test_an_authentication_header_is_cut_into_the_pieces() -> None:
    auth = struct.pack("!BBHII", 44, 1, 0, 1, 2)
    whole = gather(cut6(datagram(2008, 6), 1000, before=auth, first=AUTH))
    pieces = refragment(whole, NEW_ID)
    assert [len(piece) for piece in pieces] == [1280, 836]  # never smaller than the least MTU
    whole = gather(cut6(datagram(208, 6), 104, before=auth, first=AUTH))
    assert [len(piece) for piece in refragment(whole, NEW_ID)] == [268]  # one piece, with a fragment header
    assert refragment(whole, NEW_ID)[0][6] == 44


def test_the_octet_that_announces_the_fragment_header_is_found_within_255_only() -> None:
    before = extension(DEST, 264) + extension(44)
    whole = gather(cut6(bytes(2000), 1000, before=before, first=HOP))
    assert whole.data[304] == 44 and whole.data[304 & 0xFF] == UDP


def test_a_first_fragment_whose_headers_cannot_be_read_to_the_end_is_gathered() -> None:
    payload = datagram(2008, 6)
    whole = gather([fragment6(extension(DEST), 1, DEST), fragment6(extension(UDP) + payload, 8)])
    assert whole.proto == UDP and not whole.fault
    none = gather([fragment6(extension(NONE), 1, DEST), fragment6(payload, 8)])
    assert none.fault == reasons.NO_NEXT_HEADER and sum(len(p) for p in refragment(none, NEW_ID)) > 2000
    nested = struct.pack("!BBHI", UDP, 0, 801, 5) + payload
    assert gather(cut6(nested, 104, proto=44)).fragment  # a fragment of a fragment
    # but not if what there is shows that the header must lie beyond
    long = extension(UDP, 24)
    fragment = parse(fragment6(long[:16], 1, DEST))
    assert Reassembler().push(fragment, 0, 0, LIMITS) == (fragment, "")


def test_an_ipv6_datagram_that_cannot_be_cut_is_dropped() -> None:
    # the chain goes on behind the first fragment: Linux reads contiguous octets only
    payload = extension(UDP) + datagram(2008, 6)
    first = fragment6(extension(DEST), 1, DEST)
    whole = gather([first, fragment6(payload[:1000], 9), fragment6(payload[1000:], 1008)])
    assert refragment(whole, NEW_ID) == ()
    first = fragment6(extension(NONE, 64)[:16], 1, DEST)
    whole = gather([first, fragment6(payload[:1000], 17), fragment6(payload[1000:], 1016)])
    assert refragment(whole, NEW_ID) == ()
    # so much to repeat that no octet of payload fits
    fragments = [
        fragment6(extension(NONE, 1240), 1, DEST),
        fragment6(bytes(8), 1241),
        fragment6(bytes(8), 1248),
    ]
    assert refragment(gather(fragments), NEW_ID) == ()


def test_truncated_fragment_headers_and_jumbograms() -> None:
    gatherer = Reassembler()
    first = parse(ip6(bytes((UDP, 0, 0, 1)), 44))
    assert gatherer.push(first, 0, 0, LIMITS) == (first, "")
    later = parse(ip6(bytes((UDP, 0, 1, 1)), 44))
    assert gatherer.push(later, 0, 0, LIMITS) == (None, reasons.FRAGMENT_BAD)
    jumbo = bytearray(fragment6(bytes(100), 1))
    jumbo[4:6] = b"\0\0"
    packet = parse(bytes(jumbo))
    assert gatherer.push(packet, 0, 0, LIMITS) == (packet, "")
    plain = parse(ip6(bytes(20)))
    assert gatherer.push(plain, 0, 0, LIMITS) == (plain, "")
    lying = parse(ip4(bytes(100), 0x2000)[:60])
    assert lying.fault == reasons.IP_TRUNCATED and gatherer.push(lying, 0, 0, LIMITS) == (lying, "")
    garbage = parse(b"\x11")
    assert gatherer.push(garbage, 0, 0, LIMITS) == (garbage, "")
    assert len(gatherer) == 0


def test_more_than_64_kib() -> None:
    def ends(family: int, stop: int, before: bytes = b"") -> tuple[bool, str]:
        gatherer = Reassembler()
        if family == 4:
            push(gatherer, ip4(bytes(40000), 0x2000))
            whole, reason = push(gatherer, ip4(bytes(stop - 40000), 5000))
        else:
            first = HOP if before else 44
            push(gatherer, fragment6(bytes(40000), 1, before=before, first=first))
            whole, reason = push(gatherer, fragment6(bytes(stop - 40000), 40000, before=before, first=first))
        return whole is not None, reason

    assert ends(4, 65515) == (True, "") and ends(4, 65516) == (False, reasons.FRAGMENT_TOO_BIG)
    assert ends(6, 65527) == (True, "") and ends(6, 65528) == ends(6, 65527)
    before = extension(44)
    assert ends(6, 65527, before) == (True, "") and ends(6, 65528, before) == (
        False,
        reasons.FRAGMENT_TOO_BIG,
    )
    gatherer = Reassembler()
    assert push(gatherer, fragment6(bytes(16), 65528)) == (None, reasons.FRAGMENT_TOO_BIG)
    assert len(gatherer) == 1  # the queue was made, and waits
    assert push(gatherer, ip4(bytes(16), 8191)) == (None, reasons.HELD_FRAGMENT)


def test_the_key() -> None:
    a, b = cut(datagram(2008, 4), 1000)
    for change in ({"ident": 8}, {"proto": TCP}, {"host": 3}):
        gatherer = Reassembler()
        push(gatherer, a)
        assert push(gatherer, cut(datagram(2008, 4), 1000, **change)[1]) == (None, reasons.HELD_FRAGMENT)
        assert len(gatherer) == 2
        assert push(gatherer, b, zone=3) == (None, reasons.HELD_FRAGMENT)
        assert push(gatherer, b)[0] is not None
    gatherer = Reassembler()
    a, b = cut6(datagram(2008, 6), 1000)
    push(gatherer, a)
    assert push(gatherer, b, zone=3)[0] is None
    assert push(gatherer, cut6(datagram(2008, 6), 1000, ident=8)[1])[0] is None
    assert (
        push(gatherer, fragment6(datagram(2008, 6)[1000:], 1000, TCP))[0] is not None
    )  # no protocol in the key


def test_time_runs_from_the_first_fragment() -> None:
    for family, timeout in ((4, 30 * SECOND), (6, 60 * SECOND)):
        a, b, c = (cut if family == 4 else cut6)(datagram(2008, family), 1000, 600)
        gatherer = Reassembler()
        push(gatherer, a, 5)
        push(gatherer, b, timeout)
        assert gatherer.expire(timeout + 4) == 0 and push(gatherer, c, timeout + 4)[0] is not None
        push(gatherer, a, 5)
        push(gatherer, b, timeout)
        assert gatherer.expire(timeout + 5) == 2 and len(gatherer) == 0
        push(gatherer, a, 5)
        assert push(gatherer, c, timeout + 5) == (None, reasons.HELD_FRAGMENT)  # a new queue
        assert len(gatherer) == 1 and gatherer.expire(timeout * 3) == 1
        assert gatherer.memory4 == gatherer.memory6 == 0


def test_a_timeout_made_shorter_counts_for_later_datagrams_only() -> None:
    gatherer = Reassembler()
    short = LIMITS._replace(timeout4=2 * SECOND)
    push(gatherer, ip4(bytes(8), 0x2000, ident=1), 0)
    push(gatherer, ip4(bytes(8), 0x2000, ident=2), 0, short)
    push(gatherer, ip4(bytes(8), 0x2000, ident=3), SECOND, short)
    assert [gatherer.expire(at * SECOND) for at in (1, 2, 3, 29, 30)] == [0, 1, 1, 0, 1]


def test_memory_is_counted_and_bounded() -> None:
    assert [truesize(n) for n in (28, 192, 193, 640, 641, 1664, 1665, 3712, 3713, 7808, 7809, 60020)] == [
        *(832, 832, 1280, 1280, 2304, 2304, 4352, 4352, 8448, 8448, 12544, 61696),
    ]
    tight = LIMITS._replace(high4=10000, high6=10000)
    gatherer = Reassembler()
    outcomes = [push(gatherer, ip4(bytes(1000), 0x2000, ident=n), 0, tight)[1] for n in range(6)]
    assert outcomes == [reasons.HELD_FRAGMENT] * 4 + [reasons.FRAGMENT_LIMIT] * 2
    assert gatherer.memory4 == 4 * 2504 == 10016
    fragment = parse(ip4(bytes(1000), 125, ident=0))  # not even one that would complete
    assert gatherer.push(fragment, 0, 0, tight) == (None, reasons.FRAGMENT_LIMIT)
    assert fragment.numbers == (10016, 10000)
    push(gatherer, fragment6(bytes(104), 1))
    assert gatherer.memory6 == 1016
    outcomes = [push(gatherer, fragment6(bytes(104), 1, ident=n), 0, tight)[1] for n in range(20)]
    assert outcomes.count(reasons.HELD_FRAGMENT) == 9 and outcomes[-1] == reasons.FRAGMENT_LIMIT
    nothing = LIMITS._replace(high4=0, high6=0)
    assert push(Reassembler(), ip4(bytes(8), 0x2000), 0, nothing)[1] == reasons.FRAGMENT_LIMIT
    assert push(Reassembler(), fragment6(bytes(8), 1), 0, nothing)[1] == reasons.FRAGMENT_LIMIT


@pytest.mark.parametrize(("others", "host", "completes"), [(63, 2, True), (64, 2, False), (64, 3, True)])
def test_a_queue_begins_anew_after_64_other_fragments_of_its_source(
    others: int, host: int, completes: bool
) -> None:
    gatherer = Reassembler()
    a, b = cut(datagram(2008, 4), 1000)
    push(gatherer, a)
    for number in range(others):
        push(gatherer, ip4(bytes(8), 100 | 0x2000, ident=1000 + number, host=host), 29 * SECOND)
    whole, reason = push(gatherer, b, 29 * SECOND)
    assert (whole is not None) == completes
    if not completes:
        assert reason == reasons.HELD_FRAGMENT and gatherer.expire(31 * SECOND) == 0  # its time is new too
        assert push(gatherer, a, 31 * SECOND)[0] is not None


def test_its_own_fragments_are_not_others_and_no_distance_means_no_limit() -> None:
    a, b = cut(datagram(2008, 4), 1000)
    gatherer = Reassembler()
    for _ in range(100):
        push(gatherer, a)
    assert push(gatherer, b)[0] is not None
    far = LIMITS._replace(max_dist=0)
    push(gatherer, a, 0, far)
    for number in range(100):
        push(gatherer, ip4(bytes(8), 100 | 0x2000, ident=1000 + number), 0, far)
    assert push(gatherer, b, 0, far)[0] is not None


def test_the_largest_fragment_is_remembered_over_a_new_beginning() -> None:
    near = LIMITS._replace(max_dist=2)
    payload = datagram(2008, 4)

    def sizes(first: int) -> str:
        gatherer = Reassembler()
        push(gatherer, ip4(payload[:first], 0x2000), 0, near)
        for number in range(3):
            push(gatherer, ip4(bytes(8), 100 | 0x2000, ident=1000 + number), 0, near)
        push(gatherer, ip4(payload[:800], 0x2000, b"\x1e\4\1\1"), 0, near)
        push(gatherer, ip4(payload[800:1608], 100 | 0x2000), 0, near)
        whole, _ = push(gatherer, ip4(payload[1608:], 201), 0, near)
        assert whole is not None
        return sizes_of(refragment(whole, NEW_ID))

    assert sizes(1400) == "800+808+400" and sizes(8) == "800+800+408"


def test_what_the_snap_length_cut_is_cut_again() -> None:
    payload = datagram(2008, 4)
    full = cut(payload, 1000, 600)
    for snap in (24, 28, 60, 500):
        for order in itertools.permutations(full):
            gatherer = Reassembler()
            whole = None
            for fragment in order:
                whole, _ = gatherer.push(parse(fragment[:snap], len(fragment)), 0, 0, LIMITS)
            assert whole is not None
            assert (whole.length, whole.end) == (2028, snap) and bytes(whole.data[20:]) == payload[
                : snap - 20
            ]
            assert whole.key[8:] == payload[:4] and not whole.fault
            assert list(refragment(whole, NEW_ID)) == [fragment[:snap] for fragment in full]
            whole.data = bytearray(whole.data)
            whole.data[20:22] = b"\xff\xff"
            assert refragment(whole, NEW_ID)[0][20:22] == b"\xff\xff"


def test_only_one_fragment_was_cut_or_its_headers_were() -> None:
    payload = datagram(2008, 4)
    a, b = cut(payload, 1000)
    gatherer = Reassembler()
    gatherer.push(parse(a), 0, 0, LIMITS)
    whole, _ = gatherer.push(parse(b[:100], len(b)), 0, 0, LIMITS)
    assert whole is not None and whole.end == 1020 + 80
    assert refragment(whole, NEW_ID) == (a, b[:100])
    # a new cut, whose pieces end where the holes begin
    first = ip4(payload[:1000], 0x2000, b"\x1e\4\1\1")
    gatherer.push(parse(first[:900], len(first)), 0, 0, LIMITS)
    whole, _ = gatherer.push(parse(b), 0, 0, LIMITS)
    assert whole is not None
    assert [len(piece) for piece in refragment(whole, NEW_ID)] == [900, 1024, 32]
    # nothing but 22 octets of a header of 24
    gatherer.push(parse(first[:22], len(first)), 0, 0, LIMITS)
    whole, _ = gatherer.push(parse(b), 0, 0, LIMITS)
    assert whole is not None and whole.fault == reasons.CUT
    assert [len(piece) for piece in refragment(whole, NEW_ID)] == [22, 22, 22]


def test_snap_lengths_in_ipv6() -> None:
    payload = datagram(2008, 6)
    full = cut6(payload, 1000, 600)
    gatherer = Reassembler()
    for snap in (52, 96, 800):
        for fragment in full:
            whole, _ = gatherer.push(parse(fragment[:snap], len(fragment)), 0, 0, LIMITS)
        assert whole is not None and whole.end == snap - 8
        expected = [fragment[:snap] for fragment in cut6(payload, 1000, 600, ident=NEW_ID)]
        assert list(refragment(whole, NEW_ID)) == expected
    small = cut6(datagram(208, 6), 200)
    gatherer.push(parse(small[0][:100], len(small[0])), 0, 0, LIMITS)
    whole, _ = gatherer.push(parse(small[1]), 0, 0, LIMITS)
    assert whole is not None and refragment(whole, NEW_ID) == (ip6(datagram(208, 6))[:92],)
    for snap in (44, 47):  # the identification was not captured
        packet = parse(full[1][:snap], len(full[1]))
        assert gatherer.push(packet, 0, 0, LIMITS) == (packet, "") and packet.fault == reasons.CUT
    # an extension header behind it was not: gathered all the same
    dest = fragment6(extension(UDP) + payload[:992], 1, DEST)
    assert gatherer.push(parse(dest[:49], len(dest)), 0, 0, LIMITS)[1] == reasons.HELD_FRAGMENT


def test_a_helper_that_changed_the_length_makes_a_new_cut() -> None:
    whole = gather(cut(datagram(2008, 4), 400, 600))
    whole.data = bytes(whole.data) + bytes(4)
    assert sizes_of(refragment(whole, NEW_ID)) == "1008+1004"
    whole = gather(cut6(datagram(2008, 6), 400, 600))
    whole.data = bytes(whole.data)[:-4]
    assert sizes_of(refragment(whole, NEW_ID)) == "1232+772"


def test_a_packet_that_was_never_cut_is_its_own_only_piece() -> None:
    assert refragment(parse(ip4(bytes(20))), NEW_ID) == (ip4(bytes(20)),)


def test_a_trial_leaves_no_trace() -> None:
    gatherer = Reassembler()
    near = LIMITS._replace(max_dist=2)
    fragments = cut(datagram(2008, 4), 1000, 600)
    six = cut6(datagram(2008, 6), 1000, 600)
    push(gatherer, fragments[0], 0, near)
    push(gatherer, six[0], 0, near)
    before = gatherer.memory4, gatherer.memory6, len(gatherer)

    def trial(*steps: tuple[bytes, int]) -> None:
        journal = gatherer.journal = Journal()
        for data, now in steps:
            push(gatherer, data, now, near)
        journal.rollback()
        gatherer.journal = None
        gatherer.check()
        assert (gatherer.memory4, gatherer.memory6, len(gatherer)) == before

    trial((fragments[1], 0), (six[1], 0))
    trial((fragments[1], 0), (fragments[2], 0), (six[1], 0), (six[2], 0))
    trial((fragments[2], 0), (ip4(bytes(8), 125), 0))  # overlap
    trial(
        *((ip4(bytes(8), 0x2000, ident=number), 0) for number in range(5)), (fragments[1], 0)
    )  # begins anew
    trial((fragments[1], 1), (fragments[0], 100 * SECOND), (six[0], 100 * SECOND))  # expires
    push(gatherer, fragments[2], 0, near)
    assert push(gatherer, fragments[1], 0, near)[0] is not None
    push(gatherer, six[2], 0, near)
    assert push(gatherer, six[1], 0, near)[0] is not None


def test_identifications_are_drawn_by_tuple_and_seed_and_never_0() -> None:
    one, two = Choices(1), Choices(1)
    drawn = [one.fragment_id(b"key") for _ in range(20)]
    assert drawn == [two.fragment_id(b"key") for _ in range(20)] and len(set(drawn)) == 20
    assert all(0 < number < 2**32 for number in drawn)


lengths = st.integers(16, 3000)
cuts = st.lists(st.integers(1, 300), max_size=6)


@settings(max_examples=150, deadline=None)
@given(lengths, cuts, st.sampled_from((4, 6)), st.randoms(use_true_random=False), st.integers(0, 5))
def test_any_order_of_any_cut_gives_the_original_and_the_same_pieces(
    length: int, at: list[int], family: int, rng: random.Random, copies: int
) -> None:
    payload = datagram(length, family)
    stops = sorted({8 * n for n in at if 8 * n < length})
    sizes = [stop - start for start, stop in zip([0, *stops], stops, strict=False)]
    fragments = (cut if family == 4 else cut6)(payload, *sizes)
    if not sizes:
        return
    order = rng.sample(fragments, len(fragments))
    gatherer = Reassembler()
    for data in order[:-1]:
        assert push(gatherer, data) == (None, reasons.HELD_FRAGMENT)
        for _ in range(copies % 3):
            push(gatherer, rng.choice(order[: order.index(data) + 1]))
    whole, _ = push(gatherer, order[-1])
    assert whole is not None and len(gatherer) == gatherer.memory4 == gatherer.memory6 == 0
    assert bytes(whole.data) == (ip4(payload) if family == 4 else ip6(payload))
    pieces = refragment(whole, NEW_ID)
    if family == 4:
        assert list(pieces) == fragments
    elif len(pieces) > 1:
        assert list(pieces) == cut6(payload, *sizes, ident=NEW_ID)
    else:
        assert pieces == (ip6(payload),)


fragments4 = st.builds(
    lambda payload, word, options, ident, tos: ip4(payload, word, options, ident=ident, tos=tos),
    st.binary(max_size=40),
    st.one_of(st.integers(0, 6), st.integers(0, 6).map(lambda n: n | 0x2000), st.integers(0, 0xFFFF)),
    st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]),
    st.integers(0, 1),
    st.integers(0, 3),
)
fragments6 = st.builds(
    lambda payload, word, proto, before, ident: fragment6(
        payload, word, proto, before, DEST if before else 44, ident=ident
    ),
    st.binary(max_size=40),
    st.one_of(st.integers(0, 6).map(lambda n: n * 8 | 1), st.integers(0, 0xFFFF), st.integers(0, 40)),
    st.sampled_from((UDP, TCP, SCTP, DEST, AUTH, NONE, 44, 58, 50)),
    st.one_of(st.just(b""), st.just(extension(44)), st.binary(max_size=16)),
    st.integers(0, 1),
)
anything = st.one_of(fragments4, fragments6, st.binary(max_size=100))
limits_of_all_kinds = st.sampled_from(
    (LIMITS, LIMITS._replace(high4=3000, high6=3000), LIMITS._replace(max_dist=2, timeout4=0))
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(anything, st.integers(0, 40), st.integers(0, 200)), max_size=25), limits_of_all_kinds
)
def test_no_octets_raise_and_nothing_stays_behind(
    steps: list[tuple[bytes, int, int]], limits: Limits
) -> None:
    gatherer = Reassembler()
    now = 0
    for data, seconds, cut_off in steps:
        now += seconds * SECOND // 4
        captured = data[:cut_off]
        packet = parse(captured, len(data))
        whole, reason = gatherer.push(packet, now, 0, limits)
        gatherer.check()
        assert (whole is None) == (reason != "")
        if whole is not None and whole.pieces is not None:
            assert isinstance(whole.pieces, Pieces)
            pieces = refragment(whole, NEW_ID)
            assert all(len(piece) <= 65535 + 40 for piece in pieces)
            if whole.end == whole.length and whole.family == 4:
                assert len(b"".join(piece[(piece[0] & 15) * 4 :] for piece in pieces)) == sum(
                    whole.pieces.sizes
                )
    gatherer.expire(now + 60 * SECOND)
    assert len(gatherer) == gatherer.memory4 == gatherer.memory6 == 0
    gatherer.check()


def test_a_fragment_header_beyond_the_packet_makes_no_fragment() -> None:
    # seen on Linux 6.18: destination options that claim more than there is, "followed" by a fragment header
    packet = ip6(bytes((44, 200)) + bytes(30), 60)
    parsed = parse(packet)
    whole, reason = Reassembler().push(parsed, 0, 0, LIMITS)
    assert whole is parsed and reason == ""
