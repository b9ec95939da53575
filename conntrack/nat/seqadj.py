"""Sequence adjustment: what follows when a helper made a segment longer or shorter.

One side's octets get new numbers, and the other side's acknowledgements have to be taken back to the old ones.  For
each direction three numbers say how:

    pos      sequence number, as its sender sent it, of the segment that was changed last
    before   what is added up to and with `pos`          after    what is added beyond it

so a retransmission of the changed segment, and of anything older, still gets what it got.  Only one change in the
window is known at a time, as in the kernel.

It is the last thing that happens to a packet.  Tracking sees packets before it, and takes acknowledgements back
itself (`shift`).  The area exists only if the connection was translated while it had a helper.

Sequence numbers live modulo 2**32; after(a, b) is the sign bit of b - a.

Source: nf_conntrack_seqadj.c of Linux 6.18.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from ..verdict import REPLY
from ..wire.checksum import difference, update
from ..wire.packet import Packet
from ..wire.tcp import ACK
from .rewrite import writable

# pos, before, after of the original direction, then of the reply direction
Area = tuple[int, int, int, int, int, int]
NO_CHANGE: Final[Area] = (0, 0, 0, 0, 0, 0)

_U32: Final = Struct("!I")
_MASK: Final = 0xFFFFFFFF
_SIGN: Final = 0x80000000
_HEADER: Final = 20  # octets of TCP header without options
_EOL, _NOP, _SACK = 0, 1, 5


def resized(area: Area, direction: int, seq: int, by: int) -> Area:
    """The area after the segment at `seq` grew by `by` octets (negative: shrank) [nf_ct_seqadj_set]."""
    pos, before, after = area[3:] if direction == REPLY else area[:3]
    if before == after or (pos - seq) & _SIGN:
        pos, before, after = seq, after, after + by
    if direction == REPLY:
        return (*area[:3], pos, before, after)
    return (pos, before, after, *area[3:])


def shift(area: Area, direction: int, seq: int) -> int:
    """What octets of `direction` around `seq` were shifted by [nf_ct_seq_offset]."""
    pos, before, after = area[3:] if direction == REPLY else area[:3]
    return after if (pos - seq) & _SIGN else before


def adjust(packet: Packet, area: Area, direction: int) -> bool:
    """Renumber a packet: sequence, acknowledgement, SACK edges [nf_ct_seq_adjust].  False: it cannot be done.

    As the kernel does, it takes every packet for a segment: an ICMP error of the original direction about such a
    connection loses four octets to it.
    """
    l4 = packet.l4
    if packet.length < l4 + _HEADER:
        return False
    if packet.end < l4 + _HEADER:
        return True  # the capture cut it: nothing to renumber
    data = packet.data
    here, other = (area[3:], area[:3]) if direction == REPLY else (area[:3], area[3:])
    pos, before, after = here
    (seq,) = _U32.unpack_from(data, l4 + 4)
    _put(packet, l4 + 4, seq + (after if (pos - seq) & _SIGN else before))
    if not data[l4 + 13] & ACK:
        return True
    (ack,) = _U32.unpack_from(data, l4 + 8)
    _put(packet, l4 + 8, _taken_back(ack, other))
    return _adjust_sack(packet, other)


def _adjust_sack(packet: Packet, other: tuple[int, ...]) -> bool:
    """Take the edges of every SACK block back [nf_ct_sack_adjust]; False: the options cannot be read."""
    data, l4 = packet.data, packet.l4
    at, end = l4 + _HEADER, l4 + (data[l4 + 12] >> 4) * 4
    if end > packet.length:
        return False
    end = min(end, packet.end)
    while at < end:
        kind = data[at]
        if kind == _EOL:
            break
        if kind == _NOP:
            at += 1
            continue
        if at + 1 == end or at + data[at + 1] > end or data[at + 1] < 2:
            return packet.end < packet.length
        size = data[at + 1]
        if kind == _SACK and size >= 10 and (size - 2) % 8 == 0:
            for edge_at in range(at + 2, at + size, 4):
                (edge,) = _U32.unpack_from(data, edge_at)
                _put(packet, edge_at, _taken_back(edge, other))
        at += size
    return True


def _taken_back(ack: int, other: tuple[int, ...]) -> int:
    """An acknowledged number as the other side counts."""
    pos, before, after = other
    return ack - (after if (pos - ((ack - before) & _MASK)) & _SIGN else before)


def _put(packet: Packet, at: int, value: int) -> None:
    """Write 32 bits into the segment, if they are others, and what they change into its checksum."""
    new = _U32.pack(value & _MASK)
    old_word = bytes(packet.data[at : at + 4])
    if new == old_word:
        return
    data, l4 = writable(packet), packet.l4
    change = difference(old_word, new)
    data[at : at + 4] = new
    old = (data[l4 + 16] << 8) | data[l4 + 17]
    checksum = update(old, change)
    data[l4 + 16] = checksum >> 8
    data[l4 + 17] = checksum & 0xFF
