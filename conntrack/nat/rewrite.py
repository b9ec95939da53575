"""Rewriting: one address and one port (identifier, key) of a packet, and the checksums that cover them.

One rule: nothing is summed again.  A rewrite adds the difference of what it replaced to each checksum that
covers it, so a right sum stays right and a wrong one exactly as wrong, and a packet cut by the snap length is
translated as far as it was captured.  SCTP's CRC32c is the exception: it is computed anew, as the kernel does,
or, for a packet that was cut, moved by the difference's own CRC (a CRC is linear).

An ICMP error carries the head of the packet it is about.  That quoted packet travelled the other way, so its
*opposite* half is rewritten, to the other direction's tuple itself.

Sources: nf_nat_proto.c (*_manip_pkt, nf_nat_icmp_reply_translation, nf_nat_icmpv6_reply_translation).
"""

from __future__ import annotations

from typing import Final

from .. import reasons
from ..conn import Conn
from ..tuples import bare, halves, invert
from ..verdict import (
    DST,
    GRE,
    ICMP,
    ICMPV6,
    NAT_DONE_MASK,
    NAT_MASK,
    ORIGINAL,
    REPLY,
    SCTP,
    SRC,
    TCP,
    UDP,
    UDPLITE,
)
from ..wire.checksum import BAD, GOOD, PARTIAL, crc32c, difference, fold, ones_sum, pseudo_sum, update, verify
from ..wire.packet import Packet, examine, walk_ipv6

_QUERIES: Final = frozenset((0, 8, 13, 14, 15, 16, 17, 18))  # ICMP types that carry an identifier
_ECHO6: Final = frozenset((128, 129))
REDIRECT4, REDIRECT6 = 5, 137


def writable(packet: Packet) -> bytearray:
    """The packet's octets, ready to be changed; the caller's own octets never are."""
    data = packet.data
    if not packet.owned or not isinstance(data, bytearray):
        data = bytearray(data)
        packet.data = data
        packet.owned = True
    return data


def translate(packet: Packet, conn: Conn, manip: int, direction: int) -> str:
    """Make half `manip` of the packet what the other direction's tuple demands; "" or why it is dropped."""
    # What is demanded is the inverse of that tuple, so its source half is what the destination becomes.
    src, dst, src_u, dst_u = halves(conn.orig if direction == REPLY else conn.reply)
    if manip == SRC:
        return _mangle(packet, 0, conn.proto, packet.l4, SRC, dst, dst_u, src_u)
    return _mangle(packet, 0, conn.proto, packet.l4, DST, src, src_u, src_u)


def replace(packet: Packet, proto: int, manip: int, target: bytes) -> str:
    """Rewrite half `manip` of the packet to that of the key `target`; "" or why that cannot be done."""
    return _mangle_to(packet, 0, proto, packet.l4, manip, target)


def replace_quoted(packet: Packet, manip: int, target: bytes) -> str:
    """Rewrite half `manip` of the packet that an ICMP error quotes, and the error's own checksum with it."""
    quote, end = packet.l4 + 8, packet.end
    data = writable(packet)
    proto, l4, known = _inner(packet, quote)
    before = ones_sum(data[quote:end])
    if known:
        covered = _covered(packet, quote, l4)
        reason = _mangle_to(packet, quote, proto, l4, manip, target)
        if reason:
            return reason
        if _checksum_hidden(packet, proto, l4):
            # a snap length hid the quoted checksum: it changed against what it covers, and we are covering it
            before += _covered(packet, quote, l4) - covered
    if packet.checksum != PARTIAL:
        _patch(data, packet.l4 + 2, (ones_sum(data[quote:end]) - before) % 0xFFFF)
    return ""


def _covered(packet: Packet, quote: int, l4: int) -> int:
    """Sum of what a translation changes under a quoted TCP or UDP checksum: addresses and ports."""
    data = packet.data
    addresses = data[quote + 12 : quote + 20] if packet.family == 4 else data[quote + 8 : quote + 40]
    return ones_sum(addresses) + ones_sum(data[l4 : min(l4 + 4, packet.end)])


def _checksum_hidden(packet: Packet, proto: int, l4: int) -> bool:
    """Is the quoted transport checksum there, but beyond what was captured?  (That a UDP sum is 0 is unlikely.)"""
    if proto == TCP:
        return l4 + 20 <= packet.length and l4 + 18 > packet.end
    return proto == UDP and l4 + 8 <= packet.length and l4 + 8 > packet.end


def replace_address(packet: Packet, manip: int, address: bytes) -> int:
    """Write `address` into the IP header at half `manip`, as in a fragment without a transport header."""
    return _put_address(writable(packet), 0, manip, address)


def _put_address(data: bytearray, base: int, manip: int, address: bytes) -> int:
    """Write the address into the IP header at `base`; what that adds to sums that cover it."""
    at, change = _address_change(data, base, manip, address)
    data[at : at + len(address)] = address
    if len(address) == 4:
        _patch(data, base + 10, change)
    return change


def _address_change(data: bytearray, base: int, manip: int, address: bytes) -> tuple[int, int]:
    """Where the address stands in the IP header at `base`, and what the new one adds to sums that cover it."""
    size = len(address)
    at = base + (12 if size == 4 else 8) + (size if manip == DST else 0)
    return at, difference(bytes(data[at : at + size]), address)


def _mangle_to(packet: Packet, base: int, proto: int, l4: int, manip: int, target: bytes) -> str:
    src, dst, src_u, dst_u = halves(target)
    address, part = (src, src_u) if manip == SRC else (dst, dst_u)
    return _mangle(packet, base, proto, l4, manip, address, part, src_u)


def _mangle(
    packet: Packet, base: int, proto: int, l4: int, manip: int, address: bytes, part: bytes, identifier: bytes
) -> str:
    """Rewrite half `manip` of the IP packet at `base` (transport header at `l4`): address, port or identifier."""
    need = _NEED.get(proto, 0)
    if need and l4 + need > packet.length:
        packet.numbers = (need, max(packet.length - l4, 0))
        return reasons.NAT_TRUNCATED
    data = writable(packet)
    partial = base == 0 and _left_to_card(packet, proto)
    # the transport header first: in a quote whose header length lies it may lie over the addresses
    change = _address_change(data, base, manip, address)[1]
    reason = _mangle_l4(packet, data, proto, l4, manip, part, identifier, change, partial)
    if not reason:
        _put_address(data, base, manip, address)
    if partial and not reason:
        # left to the card: again exactly the pseudo-header's sum
        at = l4 + _CHECKSUM_AT[proto]
        total = fold(pseudo_sum(packet.addresses(), proto, packet.length - l4))
        data[at : at + 2] = total.to_bytes(2, "big")
    return reason


def _mangle_l4(
    packet: Packet,
    data: bytearray,
    proto: int,
    l4: int,
    manip: int,
    part: bytes,
    identifier: bytes,
    change: int,
    partial: bool,
) -> str:
    """The transport header's share; `change` is what the address adds to the pseudo-header."""
    end = packet.end
    if proto in (TCP, UDP, UDPLITE, SCTP):
        at = l4 if manip == SRC else l4 + 2
        if at + 2 <= end:
            change = (change + difference(bytes(data[at : at + 2]), part)) % 0xFFFF
            old = bytes(data[at : at + 2])
            data[at : at + 2] = part
            if partial:
                return ""  # the pseudo-header's sum is set when the address is in place
            if proto == TCP:
                if l4 + 18 <= end and l4 + 20 <= packet.length:
                    _patch(data, l4 + 16, change)
            elif proto == SCTP:
                _patch_crc(packet, data, l4, at, old)
            elif l4 + 8 <= end and (proto == UDPLITE or data[l4 + 6] or data[l4 + 7]):
                _patch(data, l4 + 6, change)
                if not (data[l4 + 6] or data[l4 + 7]):
                    data[l4 + 6] = data[l4 + 7] = 0xFF  # zero would mean "no checksum"
    elif proto == ICMP:
        if l4 + 8 <= end and data[l4] in _QUERIES:
            _patch(data, l4 + 2, difference(bytes(data[l4 + 4 : l4 + 6]), identifier))
            data[l4 + 4 : l4 + 6] = identifier
    elif proto == ICMPV6:
        if l4 + 8 <= end:
            if data[l4] in _ECHO6:
                change = (change + difference(bytes(data[l4 + 4 : l4 + 6]), identifier)) % 0xFFFF
                data[l4 + 4 : l4 + 6] = identifier
            if not partial:
                _patch(data, l4 + 2, change)
    elif proto == GRE and manip == DST and l4 + 2 <= end:
        version = data[l4 + 1] & 7
        if version > 1:
            packet.numbers = (version,)
            return reasons.NAT_GRE_VERSION
        if version == 1 and l4 + 8 <= end:
            data[l4 + 6 : l4 + 8] = part
    return ""


# Octets of transport header without which the kernel drops a packet it should rewrite.
_NEED: Final = {TCP: 8, UDP: 8, UDPLITE: 8, SCTP: 8, ICMP: 8, ICMPV6: 8, GRE: 8}
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6, ICMPV6: 2}


def _patch(data: bytearray, at: int, change: int) -> None:
    value = update((data[at] << 8) | data[at + 1], change)
    data[at] = value >> 8
    data[at + 1] = value & 0xFF


def _left_to_card(packet: Packet, proto: int) -> bool:
    """Does the packet hold only the pseudo-header's sum where its checksum belongs?"""
    at = _CHECKSUM_AT.get(proto)
    if at is None or packet.checksum == GOOD or packet.checksum == BAD:
        return False
    if packet.checksum == PARTIAL:
        return True
    if packet.lacks(at + 2):
        return False
    data, l4 = packet.data, packet.l4
    sum_ = fold(pseudo_sum(packet.addresses(), proto, packet.length - l4))
    if (data[l4 + at] << 8 | data[l4 + at + 1]) != sum_:
        return False
    if packet.end < packet.length:
        packet.checksum = PARTIAL  # a cut packet: the odds are 65,535 to 1
    else:
        packet.checksum = verify(data[l4:], pseudo_sum(packet.addresses(), proto, packet.length - l4), at)
    return packet.checksum == PARTIAL


def _patch_crc(packet: Packet, data: bytearray, l4: int, at: int, old: bytes) -> None:
    end = packet.end
    if l4 + 12 > end:
        return
    if end == packet.length:
        head = bytes(data[l4 : l4 + 8]) + b"\0\0\0\0"
        crc = crc32c(data[l4 + 12 : end], crc32c(head))
    else:
        # crc(a ^ d) = crc(a) ^ crc(d) ^ crc(0): only the difference runs through, over the missing octets too
        size = packet.length - l4
        flipped = bytearray(size)
        flipped[at - l4] = old[0] ^ data[at]
        flipped[at - l4 + 1] = old[1] ^ data[at + 1]
        crc = int.from_bytes(data[l4 + 8 : l4 + 12], "little") ^ crc32c(flipped) ^ crc32c(bytes(size))
    data[l4 + 8 : l4 + 12] = crc.to_bytes(4, "little")


def translate_error(packet: Packet, conn: Conn, manip: int, direction: int) -> str:
    """An ICMP error about `conn` at a NAT hook; "" or why it is dropped."""
    v4 = packet.family == 4
    proto, l4 = packet.proto, packet.l4
    need = 28 if v4 else 48
    if packet.l4 + need > packet.length:
        return packet.shortage(need, reasons.NAT_TRUNCATED)
    found = packet.checksum
    if found < 0:
        examine(packet, 0 if v4 else ICMPV6, 2)
        if found == _AGAIN and v4 and ones_sum(packet.data[:l4]) != 0xFFFF:
            packet.checksum = BAD  # summed from the IP header on, and options were filled in meanwhile
    if packet.checksum == BAD:
        return reasons.NAT_ICMP_CHECKSUM
    if packet.data[l4] == (REDIRECT4 if v4 else REDIRECT6) and (
        conn.status & NAT_DONE_MASK != NAT_DONE_MASK or conn.status & NAT_MASK
    ):
        return reasons.NAT_REDIRECT
    if not changes(conn, manip, direction):
        return ""
    other = bare(conn.orig if direction == REPLY else conn.reply)
    told = packet.data[l4 + 20 : l4 + 28] if v4 else packet.data[l4 + 16 : l4 + 48]
    reason = replace_quoted(packet, 1 - manip, other)
    if reason:
        return reason
    renamed = told != (packet.data[l4 + 20 : l4 + 28] if v4 else packet.data[l4 + 16 : l4 + 48])
    target = invert(other, conn.proto)
    reason = replace(packet, proto, manip, target)
    if found == -1 and packet.checksum == GOOD and renamed and _resummed(packet, conn.proto):
        packet.checksum = _AGAIN
    return reason


# Summed here first, not by connection tracking: what the kernel keeps of the sum (CHECKSUM_COMPLETE) misses the
# quoted checksum that changed with its addresses, so who asks again has everything summed anew.
_AGAIN: Final = -2


def _resummed(packet: Packet, proto: int) -> bool:
    """Did the quoted packet's own checksum change with its addresses [inet_proto_csum_replace4]?"""
    quoted, at, known = _inner(packet, packet.l4 + 8)
    if not known or quoted != proto:
        return False
    if proto == TCP:
        return at + 20 <= packet.length
    if proto == UDP:
        return at + 8 <= packet.end and any(packet.data[at + 6 : at + 8])
    return proto == UDPLITE or proto == ICMPV6


def _inner(packet: Packet, quote: int) -> tuple[int, int, bool]:
    """(protocol, l4 offset, readable) of the quoted packet."""
    data, end = packet.data, packet.end
    if packet.family == 4:
        if quote + 20 > end:
            return 0, 0, False
        return data[quote + 9], quote + (data[quote] & 15) * 4, True
    if quote + 40 > end:
        return 0, 0, False
    proto, l4, _, fault = walk_ipv6(data, quote, end, packet.length)
    return proto, l4, not fault


def changes(conn: Conn, manip: int, direction: int) -> bool:
    """Does the connection's mapping change half `manip` of packets in `direction`?

    Answers to source-translated packets change in their destination, and the other way round.
    """
    half = manip if direction == ORIGINAL else 1 - manip
    return bool(conn.status & (NAT_MASK & (0x10 << half)))


def changes_of(conn: Conn) -> tuple[int, int]:
    """`Conn.changes`: what its mapping adds to sums over addresses, and over addresses and ports or identifier.

    A sum does not ask where a word stands, so both tuples may be summed as they are, inverted or not.
    """
    orig, reply = bare(conn.orig), bare(conn.reply)
    size = len(orig) - 4
    ip_change = difference(orig[:size], reply[:size])
    if conn.proto == ICMP:
        return ip_change, difference(orig[size : size + 2], reply[size : size + 2])
    if conn.proto == ICMPV6:  # the key has type and code behind the identifier: they stay
        return ip_change, difference(orig[: size + 2], reply[: size + 2])
    return ip_change, difference(orig, reply)
