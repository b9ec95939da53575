"""Octets to a dict of fields and back."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

from packets import ICMP, ICMPV6, TCP, UDP, sealed, transport_checksum, word_sum

Fields = dict[str, Any]


def text(packed: bytes) -> str:
    return str(ip_address(packed))


def without_padding(data: bytes) -> bytes:
    """The packet as long as its header says; Ethernet pads short ones."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        return data[: int.from_bytes(data[2:4], "big") or len(data)]
    if len(data) >= 40 and data[0] >> 4 == 6:
        return data[: 40 + int.from_bytes(data[4:6], "big")]
    return data


def read(data: bytes) -> Fields | None:
    """The packet's fields; None if there is no tuple to be had."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        header = (data[0] & 15) * 4
        length = int.from_bytes(data[2:4], "big")
        if header < 20 or length < header or length > len(data):
            return None
        fields = {"family": 4, "proto": data[9], "src": text(data[12:16]), "dst": text(data[16:20])}
    elif len(data) >= 40 and data[0] >> 4 == 6:
        length = 40 + int.from_bytes(data[4:6], "big")
        if length > len(data):
            return None
        fields = {"family": 6, "src": text(data[8:24]), "dst": text(data[24:40])}
        proto, header = data[6], 40
        while proto in (0, 43, 60):  # hop-by-hop, routing, destination options
            if header + 2 > length:
                return None
            proto, header = data[header], header + (data[header + 1] + 1) * 8
        if proto == 59:
            return None
        fields["proto"] = proto
    else:
        return None
    fields |= {"header": data[:header], "l4": data[header:length], "length": length}
    numbers = upper(fields["proto"], fields["l4"])
    if numbers is None:
        return None
    fields["tuple"] = (fields["src"], fields["dst"], *numbers)
    return fields


def short_icmp(data: bytes) -> bool:
    """A whole packet whose ICMP message (of its own family) has fewer than 8 octets."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        length, header = int.from_bytes(data[2:4], "big"), (data[0] & 15) * 4
        return data[9] == ICMP and 20 <= header <= length <= len(data) and length < header + 8
    if len(data) >= 40 and data[0] >> 4 == 6:
        length = 40 + int.from_bytes(data[4:6], "big")
        return data[6] == ICMPV6 and length <= len(data) and length < 48
    return False


def upper(proto: int, l4: bytes) -> tuple[int, int] | None:
    """The transport's part of the tuple: ports; ICMP: identifier, then type * 256 + code; else zeros."""
    if proto in (TCP, UDP, 132, 136):
        return struct.unpack("!HH", l4[:4]) if len(l4) >= 4 else None
    if proto in (ICMP, ICMPV6):
        if len(l4) < 8:
            return None
        kind, code, _, identifier = struct.unpack("!BBHH", l4[:6])
        return identifier, kind * 256 + code
    return 0, 0


def right_checksum(fields: Fields) -> bool:
    """Is the transport checksum right (an absent one of UDP is)?"""
    proto, l4 = fields["proto"], fields["l4"]
    if proto == UDP and l4[6:8] == b"\0\0":
        return True
    at = {ICMP: 2, ICMPV6: 2, TCP: 16, UDP: 6}.get(proto)
    if at is None:
        return True
    there = int.from_bytes(l4[at : at + 2], "big")
    right = transport_checksum(fields["src"], fields["dst"], proto, l4)
    return there == right or {there, right} == {0, 0xFFFF}  # both zeros sum alike


def write(fields: Fields, seal: bool = True) -> bytes:
    """The octets, with the addresses that `fields` has now and all checksums computed anew."""
    header, l4 = fields["header"], fields["l4"]
    both = ip_address(fields["src"]).packed + ip_address(fields["dst"]).packed
    if fields["family"] == 4:
        header = header[:12] + both + header[20:]
        total = word_sum(header[:10] + b"\0\0" + header[12:])
        header = header[:10] + (total ^ 0xFFFF).to_bytes(2, "big") + header[12:]
    else:
        header = header[:8] + both + header[40:]
    absent = fields["proto"] == UDP and l4[6:8] == b"\0\0"
    if seal and not absent:
        l4 = sealed(fields["src"], fields["dst"], fields["proto"], l4)
    return header + l4


def adjusted(checksum: int, old: bytes, new: bytes) -> int:
    """A checksum over octets of which `old` became `new`: RFC 1624, equation 3, one word at a time."""
    total = checksum ^ 0xFFFF
    for before, after in zip(struct.iter_unpack("!H", old), struct.iter_unpack("!H", new), strict=True):
        for word in (before[0] ^ 0xFFFF, after[0]):
            total += word
            total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
