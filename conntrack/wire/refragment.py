"""Cutting again: a datagram that was gathered leaves in pieces, as Linux would send them.

One rule: IPv4 and IPv6 both keep the sizes that came in, if every piece with the first one's header fits into the
largest that came; if not, the datagram is cut anew into pieces of that size.  IPv6 draws a new identification, and
needs no fragment header when the whole is no larger than the largest piece.

Sources: ip_output.c (ip_do_fragment), ip6_output.c (ip6_fragment, ip6_finish_output), output_core.c
(ip6_find_1stfragopt), ip_options.c (ip_options_fragment) of Linux 6.18.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from .checksum import internet_checksum
from .packet import Packet

_U16 = Struct("!H")
_FRAGMENT_HEADER = Struct("!BxHI")  # next header, offset and more-fragments bit, identification
_LEAST_MTU6 = 1280  # RFC 8200, 5: IPv6 pieces are never made smaller than this
_MF = 0x2000
NO_MTU = 1 << 30  # a device that takes everything
_HEADROOM = 64 - 16  # octets free in front of a received packet (NET_SKB_PAD), less those for a link header
_HOP, _TCP, _ROUTING, _FRAGMENT, _DEST, _SCTP = 0, 6, 43, 44, 60, 132
# Octets of L4 header that are made contiguous on the way: TCP by early demultiplexing, SCTP by its checksum.
# A first piece that is shorter loses its boundary, and then the datagram is cut anew.
_PULLED = {_TCP: 20, _SCTP: 12}


class Pieces(NamedTuple):
    """How a reassembled packet came in: what `refragment` goes by.

    header   octets before the payload, without a fragment header
    sizes    octets of payload of each fragment, in order of offset
    largest  octets of the largest fragment with its header (IPv6: with extension and fragment headers)
    beside   octets before the payload of a later fragment, the fewest there were
    df       IPv4: 0x4000 if the largest fragment had "don't fragment" set, else 0
    rest     what lies behind `data`: octets from the first that was not captured, with zeros for such
    holes    ranges of the whole packet that were not captured, in order
    """

    header: int
    sizes: tuple[int, ...]
    largest: int
    beside: int
    df: int
    rest: bytes
    holes: tuple[tuple[int, int], ...]


def contiguous(packet: Packet) -> None:
    """Forget how a gathered packet came in, but for its largest piece: something wanted all of it in one place
    [skb_ensure_writable, skb_linearize], and it will be cut anew."""
    if isinstance(packet.pieces, Pieces) and len(packet.pieces.sizes) > 1:
        packet.pieces = packet.pieces._replace(sizes=(sum(packet.pieces.sizes),))


def refragment(packet: Packet, new_id: int, mtu: int = NO_MTU) -> tuple[bytes, ...]:
    """The pieces in which a packet leaves through a device of `mtu`, however it was translated in between.

    `new_id` is the identification of IPv6 pieces; IPv4 keeps its own.  A packet that was not reassembled is
    its own only piece, if it fits.  No pieces at all: Linux cannot cut it and drops it.  Whether it may be cut is
    for the caller to know (`too_big`).
    """
    data = bytes(packet.data)
    plan = packet.pieces
    if not isinstance(plan, Pieces):
        if len(data) <= mtu:
            return (data,)
        header = (data[0] & 15) * 4 if packet.family == 4 else 0
        plan = Pieces(header, (), mtu, 0, 0, b"", ())
    elif plan.largest > mtu:
        plan = plan._replace(largest=mtu)
    data += plan.rest
    sizes = plan.sizes
    if not sizes and packet.family == 6:
        header, _ = _unfragmentable(data, len(data))
        plan = plan._replace(header=header)
        sizes = (len(data) - header,)
    if sum(sizes) + plan.header != len(data):  # a helper changed the length, which makes all of it contiguous
        sizes = (len(data) - plan.header,)
    elif packet.proto in _PULLED and packet.l4:
        sizes = _pull(sizes, packet.l4 - plan.header + _PULLED[packet.proto])
    if packet.family == 4:
        return _cut4(data, sizes, plan)
    return _cut6(data, sizes, new_id, plan)


def _cut4(data: bytes, sizes: tuple[int, ...], plan: Pieces) -> tuple[bytes, ...]:
    header = plan.header
    total, room = len(data) - header, plan.largest - header
    flags = 0  # pieces of the sizes that came in lose "don't fragment"
    if not _fit(sizes, room):
        sizes, flags = _equal(total, room), plan.df
    (word,) = _U16.unpack_from(data, 6)
    start, last = word & 0x1FFF, not word & _MF  # a fragment that nobody gathered may have to be cut too
    first = data[:header]
    others = first if start else _copied_options(first)
    pieces: list[bytes] = []
    at = header
    for size in sizes:
        piece = bytearray(others if pieces else first)
        piece += data[at : at + size]
        more = 0 if last and at + size == len(data) else _MF
        finish4(piece, header, len(piece), (at - header >> 3) + start | flags | more)
        pieces.append(_captured(piece, header, at, size, plan.holes))
        at += size
    return tuple(pieces)


def _cut6(data: bytes, sizes: tuple[int, ...], new_id: int, plan: Pieces) -> tuple[bytes, ...]:
    if len(data) <= plan.largest:
        return (_captured(bytearray(data), 0, 0, len(data), plan.holes),)
    first = plan.header + sizes[0]
    header, previous = _unfragmentable(data, first)
    total, room = len(data) - header, max(plan.largest, _LEAST_MTU6) - header - 8
    if header == 0 or room < 8:
        return ()
    sizes = (first - header, *sizes[1:])
    # The headers to repeat are written into the later fragments as they lie in memory, if there they fit.
    if not _fit(sizes, room) or header + 8 > plan.beside + _HEADROOM:
        sizes = _equal(total, room)
    repeated = bytearray(data[:header])
    following, repeated[previous] = repeated[previous], _FRAGMENT
    pieces: list[bytes] = []
    at = header
    for size in sizes:
        word = (at - header) | (1 if at + size < len(data) else 0)
        piece = repeated + _FRAGMENT_HEADER.pack(following, word, new_id & 0xFFFFFFFF) + data[at : at + size]
        _U16.pack_into(piece, 4, len(piece) - 40)
        pieces.append(_captured(piece, header, at, size, plan.holes))
        at += size
    return tuple(pieces)


def _pull(sizes: tuple[int, ...], need: int) -> tuple[int, ...]:
    """The sizes after the first `need` octets were made contiguous, if there are so many."""
    if sizes[0] >= need or sum(sizes) < need:
        return sizes
    have, at = 0, 0
    while have < need:
        have += sizes[at]
        at += 1
    return (need, have - need, *sizes[at:]) if have > need else (need, *sizes[at:])


def _fit(sizes: tuple[int, ...], room: int) -> bool:
    """Can pieces of these sizes go out, without anything being copied?"""
    return len(sizes) > 1 and max(sizes) <= room and not any(size & 7 for size in sizes[:-1])


def _equal(total: int, room: int) -> tuple[int, ...]:
    """Sizes of a datagram that is cut anew: as many octets as fit, multiples of 8, but for the last."""
    step = room & ~7
    full = max((total - room + step - 1) // step, 0)
    return (*(step for _ in range(full)), total - full * step)


def finish4(data: bytearray, header: int, length: int, word: int) -> None:
    """Length, fragment word and checksum of an IPv4 header."""
    _U16.pack_into(data, 2, length)
    _U16.pack_into(data, 6, word)
    _U16.pack_into(data, 10, 0)
    _U16.pack_into(data, 10, internet_checksum(data[:header]))


def _copied_options(header: bytes) -> bytes:
    """The header of all pieces but the first: options without the "copied" bit become no-operations (1)."""
    out = bytearray(header)
    at = 20
    while at < len(out) and out[at] != 0:
        if out[at] == 1:
            at += 1
            continue
        size = out[at + 1] if at + 1 < len(out) else 0
        if size < 2 or at + size > len(out):
            break
        if not out[at] & 0x80:
            out[at : at + size] = b"\1" * size
        at += size
    return bytes(out)


def _captured(piece: bytearray, header: int, at: int, size: int, holes: tuple[tuple[int, int], ...]) -> bytes:
    """The piece up to its first octet that was not captured.

    It begins with the whole packet's first `header` octets and ends with `size` that stood at `at` there.
    """
    for start, stop in holes:
        if start < header:
            return bytes(piece[:start])
        if start < at + size and at < stop:
            return bytes(piece[: len(piece) - size + max(start - at, 0)])
    return bytes(piece)


def _unfragmentable(data: bytes, end: int) -> tuple[int, int]:
    """How many octets every piece repeats, and which of them announces the next header; (0, 0): none fits.

    Destination options belong to them unless a routing header came before; so those that came in behind the
    fragment header go out in front of it.
    """
    at, previous, routed = 40, 6, False
    while at <= end:
        proto = data[previous]
        if proto not in (_HOP, _ROUTING, _DEST) or (proto == _DEST and routed):
            return at, previous
        routed = routed or proto == _ROUTING
        if at + 2 > end:
            break
        previous, at = at, at + (data[at + 1] + 1) * 8
    return 0, 0
