"""From bytes to a `Packet`: where the transport header is, and the tuple that names the connection.

One rule: after `parse` no accessor can fail.  What cannot be read becomes `fault`, a reason's name, and the
packet travels on as INVALID.

    version ─► IPv4 header (options)      ─┐
            └► IPv6 header, extension walk ┴► protocol, l4 offset ─► key: src dst src.u dst.u

The key is the tuple as packed octets: both addresses, then the two 16-bit halves that the protocol gives
(ports; ICMP: identifier, then type and code; GRE: source key, call id; otherwise zeros).  For TCP and UDP in
IPv4 without options and in IPv6 without extension headers these octets lie side by side on the wire, so the
key is one slice.

Lengths: `length` is what the IP header says, `end` how many of these octets were captured.  A snap length
makes end < length; what then lies beyond `end` is `cut`, not "short".  An IPv4 total length of 0 with octets behind
it is what Linux shows for super-packets (segmentation offload): the frame's length counts; in IPv6, where a length
of 0 is legal, only for frames longer than Ethernet has.

Sources: nf_conntrack_core.c (ipv4_get_l4proto, ipv6_get_l4proto, nf_ct_get_tuple), exthdrs_core.c
(ipv6_skip_exthdr), nf_conntrack_proto_gre.c (gre_pkt_to_tuple).
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from .. import reasons
from .checksum import PARTIAL, UNKNOWN, pseudo_sum, verify

_IPV4 = Struct("!BxHxxHxB")  # version and header length, total length, fragment word, protocol
_U16 = Struct("!H")

# Protocols whose tuple is the two ports: TCP, UDP, SCTP, UDP-Lite.  (DCCP lost its tracker in 6.17.)
PORT_PROTOCOLS = frozenset((6, 17, 132, 136))
_ICMP = frozenset((1, 58))
_ZERO4 = bytes(4)
_LONGEST_FRAME = 1500  # octets of IP in an Ethernet frame without offload

# IPv6 headers that ipv6_skip_exthdr walks over; 59 ends every walk.
_HOP, _ROUTING, _FRAGMENT, _AUTH, _NONE, _DEST = 0, 43, 44, 51, 59, 60
_EXTENSIONS = frozenset((_HOP, _ROUTING, _FRAGMENT, _AUTH, _NONE, _DEST))


class Packet:
    """One IP packet, its header offsets and its tuple; `data` is replaced by a bytearray when rewritten.

    data     L3 octets without link padding         proto   transport protocol number
    length   octets by the IP header                l4      offset of the transport header
    end      octets of these that were captured     key     tuple as octets, b"" when there is none
    family   4 or 6 (0: neither)                    fault   reason why it has no tuple, or ""
    fragment a fragment that needs reassembly       numbers what decided the fault
    checksum what `examine` found of the L4 checksum
    grown    octets that a helper added (negative: took away)
    ack_shift what tracking has to take from acknowledgements (see nat/seqadj.py)
    """

    __slots__ = (
        "ack_shift",
        "checksum",
        "counted",
        "data",
        "end",
        "family",
        "fault",
        "fragment",
        "grown",
        "key",
        "l4",
        "length",
        "numbers",
        "owned",
        "pieces",
        "proto",
        "verdict",
    )

    def __init__(self, data: bytes | bytearray) -> None:
        self.data: bytes | bytearray = data
        self.length: int = len(data)
        self.end: int = len(data)
        self.family: int = 0
        self.proto: int = 0
        self.l4: int = 0
        self.key: bytes = b""
        self.fault: str = ""
        self.fragment: bool = False
        self.numbers: tuple[int | str, ...] = ()
        self.owned: bool = False  # `data` is ours to change
        self.verdict: str = "ACCEPT"  # or "DROP" or "HELD", once somebody decided so
        self.counted: bool = False  # it entered its connection's counters
        self.pieces: Any = None  # how a reassembled packet came in (see `reassembly`)
        self.checksum: int = -1  # what `examine` found, -1 before it looked
        self.grown: int = 0
        self.ack_shift: int = 0

    def addresses(self) -> bytes:
        """Source and destination address together, 8 or 32 octets, as the IP header has them now."""
        return bytes(self.data[12:20] if self.family == 4 else self.data[8:40])

    def lacks(self, need: int) -> bool:
        """True if fewer than `need` octets of the transport header were captured."""
        return self.l4 + need > self.end

    def shortage(self, need: int, fault: str) -> str:
        """The reason for lacking `need` transport octets: `fault`, or `cut` if only the capture lacks them."""
        self.numbers = (need, max(self.end - self.l4, 0))
        return fault if self.l4 + need > self.length else reasons.CUT


def parse(data: bytes | bytearray, wire_length: int | None = None) -> Packet:
    """The packet in `data` (L3 octets, link padding allowed); never raises, on any octets.

    `wire_length` is the number of octets that were on the wire from the IP header on (None: all are in
    `data`); it tells a snap length's cut from a truncated packet.
    """
    packet = Packet(data)
    present = len(data)
    wire = present if wire_length is None or wire_length < present else wire_length
    version = data[0] >> 4 if present else 0
    if version == 4 and present >= 20:
        _parse_ipv4(packet, present, wire)
    elif version == 6 and present >= 40:
        _parse_ipv6(packet, present, wire)
    else:
        packet.length = wire
        packet.numbers = (present, version)
        packet.fault = (
            reasons.CUT if version in (4, 6) and wire >= (20 if version == 4 else 40) else reasons.IP_HEADER
        )
    return packet


def _parse_ipv4(packet: Packet, present: int, wire: int) -> None:
    data = packet.data
    first, length, frag, proto = _IPV4.unpack_from(data)
    packet.family = 4
    packet.proto = proto
    header = (first & 15) * 4
    _bound(packet, length, present, wire)
    if header < 20 or packet.length < header:
        packet.fault = reasons.IP_HEADER
        packet.numbers = (packet.length, 4)
        return
    packet.l4 = header
    if frag & 0x3FFF:
        packet.fragment = True
        packet.key = bytes(data[12:20]) + _ZERO4
        if frag & 0x1FFF:
            packet.fault = packet.fault or reasons.FRAGMENT
            packet.numbers = packet.numbers or ((frag & 0x1FFF) * 8,)
            return
    if header == 20 and proto in PORT_PROTOCOLS and packet.end >= 24:
        packet.key = bytes(data[12:24])  # the common case, for speed: one slice
    else:
        _key(packet)


def _parse_ipv6(packet: Packet, present: int, wire: int) -> None:
    data = packet.data
    packet.family = 6
    (payload,) = _U16.unpack_from(data, 4)
    # A payload length of 0 with more behind it than an Ethernet frame holds is a super-packet (see above); below
    # that Linux takes it at its word, and what follows is padding, unless hop-by-hop options come first, which may
    # tell a jumbo payload's length.
    _bound(packet, payload + 40 if payload or (wire <= _LONGEST_FRAME and data[6]) else wire, present, wire)
    proto = data[6]
    if proto not in _EXTENSIONS:
        packet.proto = proto
        packet.l4 = 40
        if proto in PORT_PROTOCOLS and packet.end >= 44:
            packet.key = bytes(data[8:44])
            return
        _key(packet)
        return
    proto, l4, fragment, fault = walk_ipv6(data, 0, packet.end, packet.length)
    packet.proto = proto
    packet.fragment = fragment
    if fault:
        packet.fault = packet.fault or fault
        packet.key = bytes(data[8:40]) + _ZERO4
        return
    packet.l4 = l4
    _key(packet)


def _bound(packet: Packet, length: int, present: int, wire: int) -> None:
    """Settle `length` and `end`, cut link padding off, notice a promise that the wire did not keep."""
    if length == 0:
        length = wire
    packet.length = length
    if length > wire:
        packet.fault = reasons.IP_TRUNCATED
        packet.numbers = (length, wire)
    if present > length:
        packet.data = packet.data[:length]
        present = length
    packet.end = present


def walk_ipv6(data: bytes | bytearray, base: int, end: int, length: int) -> tuple[int, int, bool, str]:
    """Skip the extension headers of the IPv6 packet at `base`: (protocol, l4 offset, fragment, fault).

    `fragment` says that a fragment header was met, that of an "atomic" fragment (RFC 6946) included: Linux
    gathers those too and sends them on without the header.
    """
    fragment = False
    proto = data[base + 6]
    at = base + 40
    while proto in _EXTENSIONS:
        if proto == _NONE:
            return proto, at, fragment, reasons.NO_NEXT_HEADER
        if at + (4 if proto == _FRAGMENT else 2) > end:
            # half a fragment header is one that reassembly refuses
            gathered = fragment or proto == _FRAGMENT
            return proto, at, gathered, reasons.CUT if end < length else reasons.EXTENSION_HEADERS
        following = data[at]
        if proto == _FRAGMENT:
            word = (data[at + 2] << 8) | data[at + 3]
            if word & 0xFFF8:
                return following, at, True, reasons.FRAGMENT
            size = 8
            fragment = True
        elif proto == _AUTH:
            size = (data[at + 1] + 2) * 4
        else:
            size = (data[at + 1] + 1) * 8
        proto = following
        at += size
    return proto, at, fragment, ""


def _key(packet: Packet) -> None:
    """Fill in key, or fault, from the protocol's own part of the tuple."""
    data = packet.data
    addresses = bytes(data[12:20]) if packet.family == 4 else bytes(data[8:40])
    key, need = tuple_of(data, addresses, packet.proto, packet.l4, packet.end)
    if need < 0:
        packet.numbers = (0, packet.end - packet.l4)
        packet.fault = packet.fault or reasons.NO_TUPLE
    elif need and packet.proto == (1 if packet.family == 4 else 58) and (packet.family == 6 or not packet.fragment):
        # too short for a tuple; the tracker's own check comes first, and counts it as an error
        if packet.fragment:
            packet.key = addresses + _ZERO4
    elif need:
        fault = packet.shortage(need, reasons.NO_TUPLE)
        packet.fault = packet.fault or fault
        if packet.fragment:
            packet.key = addresses + _ZERO4
    else:
        packet.key = key


def tuple_of(data: bytes | bytearray, addresses: bytes, proto: int, l4: int, end: int) -> tuple[bytes, int]:
    """(key, 0), or (b"", octets that the protocol needs) if there are too few, or (b"", -1): has no tuple.

    PPTP's GRE (version 1) carries only the receiver's call id; the sender's comes from the helper's keymap.
    """
    if proto in PORT_PROTOCOLS:
        if l4 + 4 > end:
            return b"", 4
        return addresses + bytes(data[l4 : l4 + 4]), 0
    if proto in _ICMP:
        if l4 + 8 > end:
            return b"", 8
        return addresses + bytes(data[l4 + 4 : l4 + 6]) + bytes(data[l4 : l4 + 2]), 0
    if proto == 47 and l4 + 8 <= end and data[l4 + 1] & 7 == 1:
        if data[l4 + 2] != 0x88 or data[l4 + 3] != 0x0B:
            return b"", -1
        return addresses + b"\0\0" + bytes(data[l4 + 6 : l4 + 8]), 0
    return addresses + _ZERO4, 0


def quoted(data: bytes | bytearray, family: int, at: int, end: int) -> tuple[int, int, bytes]:
    """The packet that an ICMP error quotes at offset `at`: (protocol, l4 offset, key), key b"" if unreadable.

    As in the kernel nothing but what the tuple needs is looked at: no version, checksum or length.
    """
    if family == 4:
        if at + 20 > end:
            return 0, 0, b""
        header = (data[at] & 15) * 4
        if (data[at + 6] & 0x1F) | data[at + 7] or at + header > end:
            return 0, 0, b""
        proto, l4 = data[at + 9], at + header
        addresses = bytes(data[at + 12 : at + 20])
    else:
        if at + 40 > end:
            return 0, 0, b""
        proto, l4, _, fault = walk_ipv6(data, at, end, end)
        if fault:
            return 0, 0, b""
        addresses = bytes(data[at + 8 : at + 40])
    key, _ = tuple_of(data, addresses, proto, l4, end)
    return proto, l4, key


def examine(packet: Packet, protocol: int, at: int) -> int:
    """Verify the L4 checksum at offset `at` of the transport header; the verdict is kept in `packet.checksum`.

    `protocol` is the pseudo-header's, 0 for none (ICMP).  As in the kernel [nf_ip_checksum] the sum runs over
    everything behind the IP header, whatever a length field of the transport header says.
    """
    if packet.checksum == PARTIAL:
        return PARTIAL
    if packet.end < packet.length or packet.l4 + at + 2 > packet.end:
        packet.checksum = UNKNOWN
    else:
        l4 = packet.l4
        pseudo = pseudo_sum(packet.addresses(), protocol, packet.length - l4) if protocol else 0
        packet.checksum = verify(packet.data[l4:], pseudo, at)
    return packet.checksum
