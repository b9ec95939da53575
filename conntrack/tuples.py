"""The tuple: what names one direction of a connection, for machines as octets and for people as text.

A key is `src + dst + src.u + dst.u` (12 octets IPv4, 36 IPv6) and, only when the direction has a zone other
than 0, two more octets with its number.  Family and protocol are not in it: the family shows in the length,
and the table keeps one dict per protocol.  Two packets of one direction of one connection have equal keys, and
only they.

`invert` builds the key of the answers.  Ports and addresses change places; an ICMP identifier and code stay
and the type becomes the answer's, so what has no answer has no inverse.

Sources: nf_conntrack_tuple.h; nf_ct_invert_tuple, nf_conntrack_invert_icmp_tuple, …_icmpv6_tuple.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .verdict import GRE, ICMP, ICMPV6
from .wire.packet import PORT_PROTOCOLS

# ICMP types and their answers: echo, timestamp, information, address mask; ICMPv6: echo, node information.
ICMP_ANSWER = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
ICMPV6_ANSWER = {128: 129, 129: 128, 139: 140, 140: 139}
_ANSWERS = {ICMP: ICMP_ANSWER, ICMPV6: ICMPV6_ANSWER}


class Zone(NamedTuple):
    """A conntrack zone: number, and the directions (bit 0 original, bit 1 reply) in which it counts."""

    id: int = 0
    directions: int = 3

    def effective(self, direction: int) -> int:
        """The zone number that counts in `direction`: `id`, or 0 where the zone does not reach."""
        return self.id if self.directions >> direction & 1 else 0


DEFAULT_ZONE = Zone()


def zoned(key: bytes, zone: int) -> bytes:
    """`key` (without zone) as it is looked up in zone number `zone`."""
    return key + zone.to_bytes(2, "big") if zone else key


def bare(key: bytes) -> bytes:
    """`key` without its zone."""
    return key[:12] if len(key) < 16 else key[:36]


def zone_of(key: bytes) -> int:
    """The zone number in `key`, 0 if it has none."""
    return int.from_bytes(key[12:] if len(key) < 16 else key[36:], "big")


def family_of(key: bytes) -> int:
    """4 or 6."""
    return 4 if len(key) < 16 else 6


def source(key: bytes) -> bytes:
    """The source address, 4 or 16 octets."""
    return key[:4] if len(key) < 16 else key[:16]


def destination(key: bytes) -> bytes:
    """The destination address, 4 or 16 octets."""
    return key[4:8] if len(key) < 16 else key[16:32]


def halves(key: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """(src, dst, src.u, dst.u) of `key`."""
    if len(key) < 16:
        return key[:4], key[4:8], key[8:10], key[10:12]
    return key[:16], key[16:32], key[32:34], key[34:36]


_MAPPED = bytes(10) + b"\xff\xff"


def address_text(packed: bytes) -> str:
    """A packed address as text, the same on every Python version.

    >>> address_text(bytes(10) + b"\\xff\\xff" + bytes((192, 0, 2, 1)))
    '::ffff:192.0.2.1'
    """
    if len(packed) == 4:
        return ".".join(map(str, packed))
    if packed.startswith(_MAPPED):
        return "::ffff:" + ".".join(map(str, packed[12:]))  # what `ipaddress` says from 3.13 on, and inet_ntop
    from ipaddress import IPv6Address  # for people; nothing that tracks imports it

    return str(IPv6Address(packed))


def invert(key: bytes, proto: int) -> bytes:
    """The key (without zone) of the answers to packets of `key`; b"" where no answer is defined."""
    if proto != ICMP and proto != ICMPV6:
        if len(key) < 16:
            return key[4:8] + key[:4] + key[10:12] + key[8:10]
        return key[16:32] + key[:16] + key[34:36] + key[32:34]
    src, dst, src_u, dst_u = halves(key)
    answer = _ANSWERS[proto].get(dst_u[0])
    if answer is None:
        return b""
    return dst + src + src_u + bytes((answer, dst_u[1]))


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction's tuple for people: addresses as text, numbers in host order.

    `sport`, `dport` hold src.u and dst.u: ports, GRE keys, or (sport = identifier, dport = type * 256 + code)
    for ICMP.
    """

    proto: int
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    zone: int = 0

    @classmethod
    def from_key(cls, key: bytes, proto: int) -> Tuple:
        """The tuple that `key` packs."""
        src, dst, src_u, dst_u = halves(key)
        return cls(
            proto,
            address_text(src),
            address_text(dst),
            int.from_bytes(src_u, "big"),
            int.from_bytes(dst_u, "big"),
            zone_of(key),
        )

    def key(self) -> bytes:
        """The packed tuple.

        >>> Tuple(6, "10.0.0.2", "192.0.2.1", 1234, 80).key().hex()
        '0a000002c000020104d20050'
        """
        from ipaddress import ip_address

        packed = ip_address(self.src).packed + ip_address(self.dst).packed
        return zoned(packed + self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big"), self.zone)

    def to_dict(self, with_zone: bool = False) -> dict[str, str | int]:
        """The JSON shape of `docs/records.schema.json`; `with_zone` for a zone of this direction only."""
        out: dict[str, str | int] = {"src": self.src, "dst": self.dst}
        if self.proto in PORT_PROTOCOLS:
            out["sport"] = self.sport
            out["dport"] = self.dport
        elif self.proto in (ICMP, ICMPV6):
            out["type"] = self.dport >> 8
            out["code"] = self.dport & 255
            out["id"] = self.sport
        elif self.proto == GRE:
            out["srckey"] = self.sport
            out["dstkey"] = self.dport
        if with_zone:
            out["zone"] = self.zone
        return out
