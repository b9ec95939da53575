"""Addresses in payloads, read as the kernel's own scanners read them: up to a delimiter, which may be any octet.

They accept what the usual grammar accepts, and leading zeros without end; the end of the payload and a zero octet
delimit too, and a dotted tail may also end at a colon.

Source: net/core/utils.c (in4_pton, in6_pton) of Linux 6.18.
"""

from __future__ import annotations

_COLON, _DOT = 0x3A, 0x2E
_GROUPS = 8  # 16-bit words of an IPv6 address
_HEX = {octet: int(chr(octet), 16) for octet in b"0123456789abcdefABCDEF"}
_NOTHING = (b"", 0)


def parse_ipv6(text: bytes, at: int, delimiter: int) -> tuple[bytes, int]:
    """(16 octets, offset of the octet that ended it), or (b"", 0).

    >>> parse_ipv6(b"|2|fd00:1::2|5001|", 3, ord("|"))[0].hex(), parse_ipv6(b"::ffff:1.2.3.4|", 0, ord("|"))[1]
    ('fd000001000000000000000000000002', 14)
    """
    groups: list[int] = []
    gap = -1  # groups before the "::"
    if _colon(text, at, delimiter) and _colon(text, at + 1, delimiter):
        gap = 0
        at += 2
    while True:
        taken = len(groups) + (gap >= 0)  # a gap stands for one group at least
        value, behind = _hexadecimal(text, at, delimiter)
        octet = text[behind] if behind < len(text) else 0
        ends = octet in (0, delimiter)
        if octet == _DOT and not ends:
            tail, behind = parse_ipv4(text, at, delimiter)
            if not tail or not (taken <= 6 if gap >= 0 else taken == 6):
                return _NOTHING
            groups += [int.from_bytes(tail[:2], "big"), int.from_bytes(tail[2:], "big")]
            break
        if behind == at:
            if ends and gap == len(groups):
                break
            return _NOTHING
        if taken == _GROUPS:
            return _NOTHING
        groups.append(value)
        if ends:
            if gap < 0 and len(groups) < _GROUPS:
                return _NOTHING
            break
        if octet != _COLON or taken + 1 == _GROUPS:
            return _NOTHING
        at = behind + 1
        if gap < 0 and _colon(text, at, delimiter):
            gap = len(groups)
            at += 1
    if gap >= 0:
        groups[gap:gap] = [0] * (_GROUPS - len(groups))
    return b"".join(group.to_bytes(2, "big") for group in groups), behind


def parse_ipv4(text: bytes, at: int, delimiter: int) -> tuple[bytes, int]:
    """(4 octets, offset of the octet that ended it: the delimiter, a colon, a zero, the end), or (b"", 0)."""
    out = bytearray()
    value, digits = 0, False
    for place in range(at, len(text) + 1):
        octet = text[place] if place < len(text) else 0
        ends = octet in (0, delimiter, _COLON)
        if ends or octet == _DOT:
            if not digits:
                return _NOTHING
            out.append(value)
            value, digits = 0, False
            if ends:
                return (bytes(out), place) if len(out) == 4 else _NOTHING
            if len(out) == 4:
                return _NOTHING
        elif 48 <= octet <= 57:
            value, digits = value * 10 + octet - 48, True
            if value > 255:
                return _NOTHING
        else:
            return _NOTHING
    return _NOTHING


def _colon(text: bytes, at: int, delimiter: int) -> bool:
    return at < len(text) and text[at] == _COLON and delimiter != _COLON


def _hexadecimal(text: bytes, at: int, delimiter: int) -> tuple[int, int]:
    """(value, offset behind it) of the digits at `at`, as many as fit into 16 bits."""
    value = 0
    while at < len(text) and text[at] != delimiter and text[at] in _HEX and not value & 0xF000:
        value = value << 4 | _HEX[text[at]]
        at += 1
    return value, at
