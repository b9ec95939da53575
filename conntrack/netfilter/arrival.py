"""What the IP layer looks at before any hook: a packet that fails here was never there for netfilter.

    IPv4   20 octets, version, header length, total length within what arrived, header checksum
    IPv6   40 octets, version, addresses that must not appear on a wire, payload length, hop-by-hop options

One rule: what goes on is exactly the octets that the header claims; link padding is cut off.  The checks come in
the kernel's order, so the first that fails names the reason.

`bad_fragment` is the same for IPv6 fragments that only local delivery looks at.

Sources: ip_input.c (ip_rcv_core), ip6_input.c (ip6_rcv_core), exthdrs.c (ipv6_parse_hopopts, ip6_parse_tlv),
reassembly.c (ipv6_frag_rcv, ip6_frag_queue) of Linux 6.18; RFC 1122, RFC 4291, RFC 8200.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from .. import reasons
from ..wire.checksum import ones_sum

_HOP: Final = 0  # next header: hop-by-hop options
_LOOPBACK6: Final = bytes(15) + b"\1"
_PAD1, _PADN, _ROUTER_ALERT, _JUMBO = 0x00, 0x01, 0x05, 0xC2
_MOST_PADDING: Final = 7  # octets of padding in a row that Linux bears
_SKIPPED: Final = frozenset((0, 43, 60))  # hop by hop, routing, destination options
_FRAGMENT: Final = 44
_INCOMPLETE_HEADERS: Final = 3  # RFC 7112
_PAYLOAD_LENGTH: Final = 4  # where that field stands
_MAX_PAYLOAD: Final = 65535
_TRANSPORT_HEADER: Final = {6: 20, 17: 8, 58: 8}


class Arrival(NamedTuple):
    """The packet as it goes on (`data`), or why it does not.

    pointer  octet that an ICMPv6 parameter problem has to point at, -1: none is sent; code: its code
    """

    data: bytes
    reason: str = ""
    numbers: tuple[int, ...] = ()
    pointer: int = -1
    code: int = 0


def arrive(data: bytes, loopback: bool, sysctl: Mapping[str, int]) -> Arrival:
    """Check the octets that a device handed up; `loopback`: the device is lo."""
    version = data[0] >> 4 if data else 0
    if version == 4:
        return _arrive4(data)
    if version == 6:
        return _arrive6(data, loopback, sysctl)
    return Arrival(data, reasons.IP_HEADER, (len(data), version))


def _arrive4(data: bytes) -> Arrival:
    if len(data) < 20:
        return Arrival(data, reasons.IP_HEADER, (len(data), 4))
    header = (data[0] & 15) * 4
    if header < 20 or header > len(data):
        return Arrival(data, reasons.IP_HEADER, (header, 4))
    if ones_sum(data[:header]) != 0xFFFF:
        return Arrival(data, reasons.IP_CHECKSUM)
    length = int.from_bytes(data[2:4], "big")
    if length > len(data):
        return Arrival(data, reasons.IP_TRUNCATED, (length, len(data)))
    if length < header:
        return Arrival(data, reasons.IP_HEADER, (length, 4))
    return Arrival(data[:length])


def _arrive6(data: bytes, loopback: bool, sysctl: Mapping[str, int]) -> Arrival:
    if len(data) < 40:
        return Arrival(data, reasons.IP_HEADER, (len(data), 6))
    source, destination = data[8:24], data[24:40]
    if not loopback and _LOOPBACK6 in (source, destination):
        return Arrival(data, reasons.IP_ADDRESS)
    if destination[0] == 0xFF:
        scope = destination[1] & 15
        if scope == 0 or (scope == 1 and not loopback):
            return Arrival(data, reasons.IP_ADDRESS)
    if source[0] == 0xFF:
        return Arrival(data, reasons.IP_ADDRESS)
    payload = int.from_bytes(data[4:6], "big")
    if payload or data[6] != _HOP:
        if payload + 40 > len(data):
            return Arrival(data, reasons.IP_TRUNCATED, (payload + 40, len(data)))
        data = data[: payload + 40]
    if data[6] == _HOP:
        return _hop_by_hop(data, payload, sysctl)
    return Arrival(data)


def _hop_by_hop(data: bytes, payload: int, sysctl: Mapping[str, int]) -> Arrival:
    """Walk the hop-by-hop options; what a router does not know it may have to refuse."""
    bad = Arrival(data, reasons.IPV6_OPTIONS)
    if len(data) < 48:
        return bad
    end = 40 + (data[41] + 1) * 8
    if end > len(data) or end - 40 > sysctl["net.ipv6.max_hbh_length"]:
        return bad
    most = sysctl["net.ipv6.max_hbh_opts_number"]
    refuse_unknown = most < 0
    most = abs(most)
    at, padding, seen = 42, 0, 0
    while at < end:
        kind = data[at]
        if kind == _PAD1:
            padding += 1
            if padding > _MOST_PADDING:
                return bad
            at += 1
            continue
        if end - at < 2:
            return bad
        size = data[at + 1] + 2
        if size > end - at:
            return bad
        if kind == _PADN:
            # padding is for alignment to 8 octets at most, and zero: a hidden channel otherwise
            padding += size
            if padding > _MOST_PADDING or any(data[at + 2 : at + size]):
                return bad
        else:
            seen += 1
            if seen > most:
                return bad
            padding = 0
            if kind == _ROUTER_ALERT:
                if data[at + 1] != 2:
                    return bad
            elif kind == _JUMBO:
                found = _jumbo(data, at, payload)
                if found is not None:
                    return found
                if data[at + 1] == 4:
                    data = data[: int.from_bytes(data[at + 2 : at + 6], "big") + 40]
            elif refuse_unknown or kind >> 6:
                return _unknown_option(data, at, kind)
        at += size
    return Arrival(data)


def _jumbo(data: bytes, at: int, payload: int) -> Arrival | None:
    """A jumbo payload option: only for more than 65,535 octets, with a payload length of 0 (RFC 2675)."""
    if data[at + 1] != 4 or at & 3 != 2:
        return Arrival(data, reasons.IPV6_OPTIONS)
    length = int.from_bytes(data[at + 2 : at + 6], "big")
    if length <= 65535:
        return Arrival(data, reasons.IPV6_OPTIONS, (), at + 2)
    if payload:
        return Arrival(data, reasons.IPV6_OPTIONS, (), at)
    if length > len(data) - 40:
        return Arrival(data, reasons.IP_TRUNCATED, (length + 40, len(data)))
    return None


def _unknown_option(data: bytes, at: int, kind: int) -> Arrival:
    """The two high bits say what to do with a packet whose option is unknown: 1 drop, 2 and 3 say so too."""
    action = kind >> 6
    if action == 2 or (action == 3 and data[24] != 0xFF):
        return Arrival(data, reasons.IPV6_OPTIONS, (kind,), at, 2)
    return Arrival(data, reasons.IPV6_OPTIONS, (kind,))


def bad_fragment(data: bytes | bytearray) -> tuple[int, int] | None:
    """What is wrong with an IPv6 fragment for the box itself, as code and pointer of a parameter problem."""
    at = _fragment_header(data)
    if at == 0:
        return None
    if at + 8 > len(data):
        return 0, at
    word = data[at + 2] << 8 | data[at + 3]
    offset, more = word & 0xFFF8, word & 1
    end = offset + len(data) - at - 8
    if not offset and more and _cut_in_headers(data, data[at], at + 8):
        return _INCOMPLETE_HEADERS, 0
    if end > _MAX_PAYLOAD:
        return 0, at + 2
    if more and end & 7:
        return 0, _PAYLOAD_LENGTH
    return None


def is_atomic(data: bytes | bytearray) -> bool:
    """Does the fragment header say that this is all (RFC 6946)?  Such a packet needs no gathering."""
    at = _fragment_header(data)
    return at > 0 and at + 8 <= len(data) and not (data[at + 2] << 8 | data[at + 3]) & 0xFFF9


def _fragment_header(data: bytes | bytearray) -> int:
    """Where it stands, 0 if nowhere."""
    kind, at = data[6], 40
    while kind in _SKIPPED and at + 8 <= len(data):
        kind, at = data[at], at + (data[at + 1] + 1) * 8
    return at if kind == _FRAGMENT else 0


def _cut_in_headers(data: bytes | bytearray, kind: int, at: int) -> bool:
    """Does a first fragment lack part of the headers up to the transport's [ipv6frag_thdr_truncated]?"""
    while kind in _SKIPPED:
        if at + 8 > len(data):
            return True
        kind, at = data[at], at + (data[at + 1] + 1) * 8
    return at + _TRANSPORT_HEADER.get(kind, 1) > len(data)
