"""TCP's header and options, as connection tracking reads them.

The option walk is the kernel's: an end-of-list octet, a length below 2 or one beyond the header stops it, and
what was understood until then counts.  A snap length may cut the options; what is missing is then not there.

Sources: nf_conntrack_proto_tcp.c (tcp_options, tcp_sack); RFC 9293, 7323 (scale, timestamps), 2018 (SACK).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

# sequence, acknowledgement, data offset, flags, window: from the fourth octet of the header on
HEADER = Struct("!IIBBH")
_U32 = Struct("!I")
_PAIR = Struct("!II")

_END, _NOP, _MSS, _SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMP = 0, 1, 2, 3, 4, 5, 8
_MAX_SCALE = 14  # RFC 7323
# NOP NOP TIMESTAMP(10): the option block of three quarters of all real segments; nothing in it concerns windows.
_ONLY_TIMESTAMP = b"\x01\x01\x08\x0a"
# MSS, SACK permitted, TIMESTAMP(10), NOP, SCALE(3): the middle and the end of it
_LINUX_MIDDLE = b"\x04\x02\x08\x0a"
_NOP_SCALE = b"\x01\x03\x03"


def syn_options(data: bytes | bytearray, at: int, end: int) -> tuple[int, bool]:
    """(window scale or -1, SACK permitted) from the options in data[at:end]."""
    if end - at == 20 and data[at + 4 : at + 8] == _LINUX_MIDDLE and data[at + 16 : at + 19] == _NOP_SCALE:
        if data[at] == _MSS and data[at + 1] == 4:  # what Linux sends: a fifth of the time of the walk
            return min(data[at + 19], _MAX_SCALE), True
    scale, sack_permitted = -1, False
    while at < end:
        kind = data[at]
        if kind == _END:
            break
        if kind == _NOP:
            at += 1
            continue
        if at + 2 > end:
            break
        size = data[at + 1]
        if size < 2 or at + size > end:
            break
        if kind == _SACK_PERMITTED and size == 2:
            sack_permitted = True
        elif kind == _SCALE and size == 3:
            scale = min(data[at + 2], _MAX_SCALE)
        at += size
    return scale, sack_permitted


def highest_sack(data: bytes | bytearray, at: int, end: int, ack: int) -> int:
    """The highest right edge above `ack` in the first SACK option of data[at:end], else `ack`."""
    if end - at == 12 and data[at : at + 4] == _ONLY_TIMESTAMP:
        return ack
    while at < end:
        kind = data[at]
        if kind == _END:
            break
        if kind == _NOP:
            at += 1
            continue
        if at + 2 > end:
            break
        size = data[at + 1]
        if size < 2 or at + size > end:
            break
        if kind == _SACK and size >= 10 and (size - 2) % 8 == 0:
            highest = ack
            for edge_at in range(at + 6, at + size, 8):
                (edge,) = _U32.unpack_from(data, edge_at)
                if (highest - edge) & 0x80000000:  # edge is after highest
                    highest = edge
            return highest
        at += size
    return ack


@dataclass(frozen=True, slots=True)
class Options:
    """What a TCP option block says; None or empty where it is silent."""

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None


def options(block: bytes) -> Options:
    """All options of a segment for people: `block` is what stands between the 20 octets and the payload.

    >>> options(bytes.fromhex("020405b4 0402 080a 00000001 00000000 01 030307"))
    Options(mss=1460, window_scale=7, sack_permitted=True, sack=(), timestamps=(1, 0))
    """
    scale, sack_permitted = syn_options(block, 0, len(block))
    mss: int | None = None
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None
    at = 0
    while at + 1 < len(block) and block[at] != _END:
        if block[at] == _NOP:
            at += 1
            continue
        kind, size = block[at], block[at + 1]
        if size < 2 or at + size > len(block):
            break
        body = block[at + 2 : at + size]
        if kind == _MSS and size == 4:
            mss = int.from_bytes(body, "big")
        elif kind == _TIMESTAMP and size == 10:
            timestamps = _PAIR.unpack(body)
        elif kind == _SACK and size >= 10 and (size - 2) % 8 == 0:
            sack = tuple(_PAIR.iter_unpack(body))
        at += size
    return Options(mss, None if scale < 0 else scale, sack_permitted, sack, timestamps)
