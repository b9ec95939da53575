"""NatRange: the one value to which every origin of a translation reduces.

Sources: include/uapi/linux/netfilter/nf_nat.h (struct nf_nat_range2); nf_nat_core.c (find_best_ips_proto).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from ..tuples import halves
from ..verdict import DST, GRE, ICMP, ICMPV6, SRC
from ..wire.packet import PORT_PROTOCOLS

_MASK: Final = 0xFFFFFFFF
_LE1, _LE4 = Struct("<I"), Struct("<IIII")
_BE1, _BE4 = Struct(">I"), Struct(">IIII")


@dataclass(frozen=True, slots=True)
class NatRange:
    """What a mapping may look like.

    addresses  (least, greatest), packed; None: the address stays
    ports      (least, greatest) port, ICMP identifier or GRE key; None: the protocol's default range
    base       shifted ranges: the port that maps to the range's first; None: not shifted
    random     draw the port even if the current one is free (`random` and `random-fully` are one thing now)
    persistent the same address for a source whatever its destination
    """

    addresses: tuple[bytes, bytes] | None = None
    ports: tuple[int, int] | None = None
    base: int | None = None
    random: bool = False
    persistent: bool = False

    def port_in_range(self, key: bytes, proto: int, manip: int) -> bool:
        """Is the part of `key` that `manip` may change within `ports` [l4proto_in_range]?"""
        if self.ports is None:
            return True
        if proto in (ICMP, ICMPV6):
            value = halves(key)[2]
        elif proto in PORT_PROTOCOLS or proto == GRE:
            value = halves(key)[2 if manip == SRC else 3]
        else:
            return True
        return self.ports[0] <= int.from_bytes(value, "big") <= self.ports[1]

    def source_in_range(self, key: bytes, proto: int) -> bool:
        """Is the source of `key` within the range as it is [nf_in_range]?"""
        if self.addresses is not None and not self.addresses[0] <= halves(key)[0] <= self.addresses[1]:
            return False
        return self.port_in_range(key, proto, SRC)

    def pick_address(self, key: bytes, manip: int, zone: int) -> bytes:
        """The address for `key`: the only one, or the pool's by a hash of source and destination address.

        Bit-exact [find_best_ips_proto]; with `persistent` the destination is left out of the hash.
        """
        src, dst, _, _ = halves(key)
        if self.addresses is None:
            return src if manip == SRC else dst
        least, greatest = self.addresses
        if least == greatest:
            return least
        little, big = (_LE1, _BE1) if len(src) == 4 else (_LE4, _BE4)
        raw_src, raw_dst = little.unpack(src), list(little.unpack(dst))
        raw_src = (*raw_src, 0, 0, 0)[:4]
        value = lookup3(raw_src, 0 if self.persistent else raw_dst[-1] ^ zone)
        low, high = big.unpack(least), big.unpack(greatest)
        chosen: list[int] = []
        free = False  # an earlier word was below the maximum: the rest may be anything
        for i in range(len(low)):
            start, size = (0, _MASK) if free else (low[i], (high[i] - low[i] + 1) & _MASK)
            word = (start + (value * size >> 32)) & _MASK
            chosen.append(word)
            free = free or word != high[i]
            if not self.persistent:
                # for DNAT the destination word is by now the one just chosen
                value ^= raw_dst[i] if manip == SRC else int.from_bytes(word.to_bytes(4, "big"), "little")
        return big.pack(*chosen)


def lookup3(words: tuple[int, ...], seed: int) -> int:
    """Bob Jenkins' lookup3 over 32-bit words (jhash2)."""
    a = b = c = (0xDEADBEEF + 4 * len(words) + seed) & _MASK
    at = 0
    while len(words) - at > 3:
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        a = ((a - c) ^ _rol(c, 4)) & _MASK
        c = (c + b) & _MASK
        b = ((b - a) ^ _rol(a, 6)) & _MASK
        a = (a + c) & _MASK
        c = ((c - b) ^ _rol(b, 8)) & _MASK
        b = (b + a) & _MASK
        a = ((a - c) ^ _rol(c, 16)) & _MASK
        c = (c + b) & _MASK
        b = ((b - a) ^ _rol(a, 19)) & _MASK
        a = (a + c) & _MASK
        c = ((c - b) ^ _rol(b, 4)) & _MASK
        b = (b + a) & _MASK
        at += 3
    rest = (*words[at:], 0, 0)
    a, b, c = (a + rest[0]) & _MASK, (b + rest[1]) & _MASK, (c + rest[2]) & _MASK
    c = ((c ^ b) - _rol(b, 14)) & _MASK
    a = ((a ^ c) - _rol(c, 11)) & _MASK
    b = ((b ^ a) - _rol(a, 25)) & _MASK
    c = ((c ^ b) - _rol(b, 16)) & _MASK
    a = ((a ^ c) - _rol(c, 4)) & _MASK
    b = ((b ^ a) - _rol(a, 14)) & _MASK
    return ((c ^ b) - _rol(b, 24)) & _MASK


def _rol(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def null_binding(key: bytes, manip: int) -> NatRange:
    """The mapping of a packet that no rule matched: keep the address; the port only if it is free."""
    src, dst, _, _ = halves(key)
    address = dst if manip == DST else src
    return NatRange(addresses=(address, address))
