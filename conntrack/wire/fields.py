"""Numbers out of octets and back, for the fast path: the one module that exists twice.

Interpreted, one `Struct` call for many fields is the cheapest there is; compiled, such a call costs more than all
that is done with its result.  So each function here has a second form in `fields_native`, for the compiler alone.
setup.py tells mypyc that COMPILED is true; at import it is so if the neighbours were compiled.  Nothing else knows
of it.  tests/wire/test_fields.py holds both forms equal on the same octets.

    segment4, segment6   (octets, at) -> fields of the IP header, then of TCP's: UDP's length and sum lie where TCP
                         has the sequence, ICMP's where it has the ports
    record_le, record_be (octets, at) -> fields of a capture's record, and the Ethertype in the frame behind it
    ends4, ends6         (key) -> two addresses and two units, as `put_head4` and `put_head6` take them
    put_…                (into, at, numbers…) write in place
    tcp_record, …        (record of `conn`) -> its fields; pack_tcp, … (fields…) -> the record
    words                (octets, from, to) -> one's complement sum of the 16-bit words, modulo 0xFFFF
    Octets               octets that can be changed; `changeable` makes them, `part` gives some of them back
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from . import checksum

COMPILED: Final = str(checksum.__file__).endswith((".so", ".pyd"))

if COMPILED:
    from .fields_native import (
        OCTETS,
        Octets,
        changeable,
        ends4,
        ends6,
        icmp_record,
        pack_icmp,
        pack_tcp,
        pack_udp,
        part,
        put16,
        put_echo4,
        put_echo6,
        put_head4,
        put_head6,
        record_be,
        record_le,
        segment4,
        segment6,
        tcp_record,
        udp_record,
        words,
    )
else:
    # length, fragment word, protocol, header sum, key; then sequence, acknowledgement, offset, flags, window, sum
    segment4 = Struct("!xxHxxHxBH12sIIBBHH").unpack_from
    segment6 = Struct("!xxxxHBx36sIIBBHH").unpack_from  # payload length, next header, key; and so on
    # of a capture's record, little-endian or big-endian: seconds, fraction, octets captured, Ethertype behind it
    record_le = Struct("<III16xH").unpack_from
    record_be = Struct(">III16xH").unpack_from
    ends4 = Struct("!4s4sHH").unpack_from
    ends6 = Struct("!16s16sHH").unpack_from
    put_head4 = Struct("!H4s4sHH").pack_into  # header sum, addresses, units
    put_echo4 = Struct("!H4s4s").pack_into
    put_head6 = Struct("!16s16sHH").pack_into
    put_echo6 = Struct("!16s16s").pack_into
    put16 = Struct("!H").pack_into
    # clock, place (passed on as it is), changes; then what the tracker remembers
    _TCP: Final = Struct("<QqQqQ24sHHIIIIBBIIIIBBIIIHBBBBB")
    _UDP: Final = Struct("<QqQqQ24sHHQ")
    _ICMP: Final = Struct("<QqQqQ24sHH")
    tcp_record, pack_tcp = _TCP.unpack, _TCP.pack
    udp_record, pack_udp = _UDP.unpack, _UDP.pack
    icmp_record, pack_icmp = _ICMP.unpack, _ICMP.pack

    Octets = bytearray
    changeable = bytearray
    OCTETS: Final = (1 << 64) - 1  # counters of octets wrap there
    _number: Final = int.from_bytes

    def part(octets: bytearray, at: int, to: int) -> memoryview:
        """octets[at:to]."""
        return memoryview(octets)[at:to]

    def words(data: bytes, at: int, to: int) -> int:
        """The sum of data[at:to]; an odd last octet counts as high octet."""
        total = _number(data[at:to], "big") % 0xFFFF
        return (total << 8) % 0xFFFF if (to - at) & 1 else total


__all__ = [
    "OCTETS",
    "Octets",
    "changeable",
    "ends4",
    "ends6",
    "icmp_record",
    "pack_icmp",
    "pack_tcp",
    "pack_udp",
    "part",
    "put16",
    "put_echo4",
    "put_echo6",
    "put_head4",
    "put_head6",
    "record_be",
    "record_le",
    "segment4",
    "segment6",
    "tcp_record",
    "udp_record",
    "words",
]
