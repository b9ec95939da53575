"""The fields of `fields`, as mypyc compiles them best: readers of fixed width, and numbers that are no objects.

What each function does stands in `fields`; the order of the fields is its Structs'.  A read or a write beside the
octets raises IndexError, where a Struct raises struct.error.

Sources: mypyc's documentation, "Native integers" and "librt.strings".
"""

from __future__ import annotations

from typing import Final

from librt.strings import (
    BytesWriter,
    read_i16_be,
    read_i16_le,
    read_i32_be,
    read_i32_le,
    read_i64_be,
    read_i64_le,
    write_i16_le,
    write_i32_le,
    write_i64_le,
)
from mypy_extensions import i16, i32, i64, u8

Octets = BytesWriter
OCTETS: Final = -1  # counters of octets are 64 bits wide and wrap by themselves


def _u16(data: bytes, at: i64) -> i64:
    return i64(read_i16_be(data, at)) & 0xFFFF


def _u32(data: bytes, at: i64) -> i64:
    return i64(read_i32_be(data, at)) & 0xFFFFFFFF


def _u16_le(data: bytes, at: i64) -> i64:
    return i64(read_i16_le(data, at)) & 0xFFFF


def _u32_le(data: bytes, at: i64) -> i64:
    return i64(read_i32_le(data, at)) & 0xFFFFFFFF


def _put16(out: BytesWriter, at: i64, number: i64) -> None:
    out[at] = u8(number >> 8 & 0xFF)
    out[at + 1] = u8(number & 0xFF)


def _put32(out: BytesWriter, at: i64, number: i64) -> None:
    out[at] = u8(number >> 24 & 0xFF)
    out[at + 1] = u8(number >> 16 & 0xFF)
    out[at + 2] = u8(number >> 8 & 0xFF)
    out[at + 3] = u8(number & 0xFF)


def _put64(out: BytesWriter, at: i64, number: i64) -> None:
    _put32(out, at, number >> 32 & 0xFFFFFFFF)
    _put32(out, at + 4, number & 0xFFFFFFFF)


def _add32(out: BytesWriter, number: i64) -> None:
    write_i32_le(out, i32(number if number < 0x80000000 else number - 0x100000000))


def _add16(out: BytesWriter, number: i64) -> None:
    write_i16_le(out, i16(number if number < 0x8000 else number - 0x10000))


def changeable(data: bytes) -> BytesWriter:
    """A copy that can be changed."""
    out = BytesWriter()
    out.write(data)
    return out


def part(octets: BytesWriter, at: i64, to: i64) -> bytes:
    """octets[at:to]; a short part octet by octet, as `getvalue` copies all."""
    if (to - at) * 8 > len(octets):
        return octets.getvalue()[at:to]
    out = BytesWriter()
    while at < to:
        out.append(octets[at])
        at += 1
    return out.getvalue()


# --- a packet ------------------------------------------------------------------------------------------


def segment4(data: bytes, at: i64) -> tuple[i64, i64, i64, i64, bytes, i64, i64, i64, i64, i64, i64]:
    """IPv4."""
    word = _u32(data, at + 8)  # time to live, protocol, header sum
    middle = _u32(data, at + 32)  # offset, flags, window
    return (
        _u16(data, at + 2),
        _u16(data, at + 6),
        word >> 16 & 0xFF,
        word & 0xFFFF,
        data[at + 12 : at + 24],
        _u32(data, at + 24),
        _u32(data, at + 28),
        middle >> 24,
        middle >> 16 & 0xFF,
        middle & 0xFFFF,
        _u16(data, at + 36),
    )


def segment6(data: bytes, at: i64) -> tuple[i64, i64, bytes, i64, i64, i64, i64, i64, i64]:
    """IPv6."""
    middle = _u32(data, at + 52)
    word = _u32(data, at + 4)  # payload length, next header, hop limit
    return (
        word >> 16,
        word >> 8 & 0xFF,
        data[at + 8 : at + 44],
        _u32(data, at + 44),
        _u32(data, at + 48),
        middle >> 24,
        middle >> 16 & 0xFF,
        middle & 0xFFFF,
        _u16(data, at + 56),
    )


def record_le(data: bytes, at: i64) -> tuple[i64, i64, i64, i64]:
    """Little-endian."""
    return _u32_le(data, at), _u32_le(data, at + 4), _u32_le(data, at + 8), _u16_le(data, at + 28)


def record_be(data: bytes, at: i64) -> tuple[i64, i64, i64, i64]:
    """Big-endian."""
    return _u32(data, at), _u32(data, at + 4), _u32(data, at + 8), _u16(data, at + 28)


def words(data: bytes, at: i64, to: i64) -> i64:
    """Eight octets at a time: 2**16 is 1 modulo 0xFFFF, so 32-bit halves may be summed, and no sum overflows."""
    total: i64 = 0
    size = to - at
    whole = to - (size & 7)
    while at < whole:
        word = read_i64_be(data, at)
        total += (word >> 32 & 0xFFFFFFFF) + (word & 0xFFFFFFFF)
        at += 8
    if size & 4:
        total += _u32(data, at)
        at += 4
    if size & 2:
        total += _u16(data, at)
        at += 2
    if size & 1:
        total += i64(data[at]) << 8
    return total % 0xFFFF


# --- addresses and units ---------------------------------------------------------------------------------


def ends4(key: bytes) -> tuple[i64, i64, i64, i64]:
    """IPv4."""
    units = _u32(key, 8)
    return _u32(key, 0), _u32(key, 4), units >> 16, units & 0xFFFF


def ends6(key: bytes) -> tuple[tuple[i64, i64], tuple[i64, i64], i64, i64]:
    """IPv6; an address is two numbers."""
    units = _u32(key, 32)
    return (
        (read_i64_be(key, 0), read_i64_be(key, 8)),
        (read_i64_be(key, 16), read_i64_be(key, 24)),
        units >> 16,
        units & 0xFFFF,
    )


def put16(out: BytesWriter, at: i64, number: i64) -> None:
    """A port, a sum."""
    _put16(out, at, number)


def put_echo4(out: BytesWriter, at: i64, head_sum: i64, src: i64, dst: i64) -> None:
    """Header sum and addresses."""
    _put16(out, at, head_sum)
    _put32(out, at + 2, src)
    _put32(out, at + 6, dst)


def put_head4(out: BytesWriter, at: i64, head_sum: i64, src: i64, dst: i64, src_u: i64, dst_u: i64) -> None:
    """Header sum, addresses, units."""
    put_echo4(out, at, head_sum, src, dst)
    _put32(out, at + 10, src_u << 16 | dst_u)


def put_echo6(out: BytesWriter, at: i64, src: tuple[i64, i64], dst: tuple[i64, i64]) -> None:
    """Addresses."""
    _put64(out, at, src[0])
    _put64(out, at + 8, src[1])
    _put64(out, at + 16, dst[0])
    _put64(out, at + 24, dst[1])


def put_head6(
    out: BytesWriter, at: i64, src: tuple[i64, i64], dst: tuple[i64, i64], src_u: i64, dst_u: i64
) -> None:
    """Addresses, units."""
    put_echo6(out, at, src, dst)
    _put32(out, at + 32, src_u << 16 | dst_u)


# --- what is remembered ----------------------------------------------------------------------------------


def _begun(
    deadline: i64,
    packets: i64,
    sent: i64,
    answers: i64,
    received: i64,
    place: bytes,
    ip_change: i64,
    l4_change: i64,
) -> BytesWriter:
    """A record as all begin: clock, place, changes."""
    out = BytesWriter()
    write_i64_le(out, deadline)
    write_i64_le(out, packets)
    write_i64_le(out, sent)
    write_i64_le(out, answers)
    write_i64_le(out, received)
    out.write(place)
    _add16(out, ip_change)
    _add16(out, l4_change)
    return out


Tcp = tuple[
    i64, i64, i64, i64, i64, bytes, i64, i64,
    i64, i64, i64, i64, i64, i64,
    i64, i64, i64, i64, i64, i64,
    i64, i64, i64, i64, i64, i64,
    i64, i64, i64,
]  # fmt: skip


def tcp_record(record: bytes) -> Tcp:
    """Of TCP."""
    return (
        read_i64_le(record, 0),
        read_i64_le(record, 8),
        read_i64_le(record, 16),
        read_i64_le(record, 24),
        read_i64_le(record, 32),
        record[40:64],
        _u16_le(record, 64),
        _u16_le(record, 66),
        _u32_le(record, 68),
        _u32_le(record, 72),
        _u32_le(record, 76),
        _u32_le(record, 80),
        i64(record[84]),
        i64(record[85]),
        _u32_le(record, 86),
        _u32_le(record, 90),
        _u32_le(record, 94),
        _u32_le(record, 98),
        i64(record[102]),
        i64(record[103]),
        _u32_le(record, 104),
        _u32_le(record, 108),
        _u32_le(record, 112),
        _u16_le(record, 116),
        i64(record[118]),
        i64(record[119]),
        i64(record[120]),
        i64(record[121]),
        i64(record[122]),
    )


def pack_tcp(
    deadline: i64,
    packets: i64,
    sent: i64,
    answers: i64,
    received: i64,
    place: bytes,
    ip_change: i64,
    l4_change: i64,
    end: i64,
    maxend: i64,
    maxwin: i64,
    maxack: i64,
    scale: i64,
    flags: i64,
    r_end: i64,
    r_maxend: i64,
    r_maxwin: i64,
    r_maxack: i64,
    r_scale: i64,
    r_flags: i64,
    last_seq: i64,
    last_ack: i64,
    last_end: i64,
    last_win: i64,
    last_index: i64,
    last_dir: i64,
    last_scale: i64,
    last_flags: i64,
    retrans: i64,
) -> bytes:
    """Of TCP."""
    out = _begun(deadline, packets, sent, answers, received, place, ip_change, l4_change)
    _add32(out, end)
    _add32(out, maxend)
    _add32(out, maxwin)
    _add32(out, maxack)
    out.append(u8(scale))
    out.append(u8(flags))
    _add32(out, r_end)
    _add32(out, r_maxend)
    _add32(out, r_maxwin)
    _add32(out, r_maxack)
    out.append(u8(r_scale))
    out.append(u8(r_flags))
    _add32(out, last_seq)
    _add32(out, last_ack)
    _add32(out, last_end)
    _add16(out, last_win)
    out.append(u8(last_index))
    out.append(u8(last_dir))
    out.append(u8(last_scale))
    out.append(u8(last_flags))
    out.append(u8(retrans))
    return out.getvalue()


Udp = tuple[
    i64, i64, i64, i64, i64, bytes, i64, i64,
    i64,
]  # fmt: skip


def udp_record(record: bytes) -> Udp:
    """Of UDP."""
    return (
        read_i64_le(record, 0),
        read_i64_le(record, 8),
        read_i64_le(record, 16),
        read_i64_le(record, 24),
        read_i64_le(record, 32),
        record[40:64],
        _u16_le(record, 64),
        _u16_le(record, 66),
        read_i64_le(record, 68),
    )


def pack_udp(
    deadline: i64,
    packets: i64,
    sent: i64,
    answers: i64,
    received: i64,
    place: bytes,
    ip_change: i64,
    l4_change: i64,
    stream_from: i64,
) -> bytes:
    """Of UDP."""
    out = _begun(deadline, packets, sent, answers, received, place, ip_change, l4_change)
    write_i64_le(out, stream_from)
    return out.getvalue()


Icmp = tuple[
    i64, i64, i64, i64, i64, bytes, i64, i64,
]  # fmt: skip


def icmp_record(record: bytes) -> Icmp:
    """Of ICMP."""
    return (
        read_i64_le(record, 0),
        read_i64_le(record, 8),
        read_i64_le(record, 16),
        read_i64_le(record, 24),
        read_i64_le(record, 32),
        record[40:64],
        _u16_le(record, 64),
        _u16_le(record, 66),
    )


def pack_icmp(
    deadline: i64,
    packets: i64,
    sent: i64,
    answers: i64,
    received: i64,
    place: bytes,
    ip_change: i64,
    l4_change: i64,
) -> bytes:
    """Of ICMP."""
    out = _begun(deadline, packets, sent, answers, received, place, ip_change, l4_change)
    return out.getvalue()
