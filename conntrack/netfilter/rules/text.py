"""Numbers, marks, ports and addresses as rules text writes them.

The tools read each of these in more than one way, and which one depends on the option; the functions are called
after the forms, not after the options:

    number       C's strtoul with base 0: 16, 0x10, 020       mark_and_mask   0x10/0xff
    port         number, or a service of that protocol         getaddrinfo_port  decimal modulo 65536, or a service
    address      1.2.3.4, also 10.1 = 10.1.0.0                  getaddrinfo_host  1.2.3.4, also 10.1 = 10.0.0.1

All raise `Refused`.  Names of hosts are refused: a library cannot ask the DNS.

Sources: xtables.c (xtables_strtoul, xtables_ipparse_multiple, …), xtoptions.c of iptables 1.8.9; strtoul(3),
inet_aton(3).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from ...tuples import address_text
from .errors import Refused
from .names import protocol_number, service_port

_MAX32: Final = 0xFFFFFFFF
_STRTOUL = re.compile(r"[ \t\n\v\f\r]*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]+)")


def strtoul(text: str) -> tuple[int, int] | None:
    """(value, characters read) as C's strtoul with base 0 reads it, None if there is no number (or a minus).

    >>> strtoul("0x10/7"), strtoul("010"), strtoul("-1")
    ((16, 4), (8, 3), None)
    """
    found = _STRTOUL.match(text)
    if found is None:
        return None
    digits = found[1]
    base = 16 if digits[1:2] in ("x", "X") else 8 if digits[0] == "0" else 10
    return int(digits, base), found.end()


def number(text: str, least: int = 0, greatest: int = _MAX32) -> int | None:
    """The whole of `text` as a number within [least, greatest], else None."""
    read = strtoul(text)
    if read is None or read[1] != len(text) or not least <= read[0] <= greatest:
        return None
    return read[0]


def numbers(text: str, greatest: int, option: str) -> tuple[int, int]:
    """`a`, `a:b`, `a:`, `:b`; an open end is 0 or `greatest` [xtopt_parse_mint with two components]."""
    parts = text.split(":")
    if len(parts) > 2:
        raise Refused(f'Too many components for option "--{option}" (max: 2)')
    values = []
    for at, part in enumerate(parts):
        value = number(part, 0, greatest) if part else greatest if at == 1 else 0
        if value is None:
            raise Refused(f'bad value for option "--{option}" near "{part}", or out of range (0-{greatest})')
        values.append(value)
    return values[0], values[-1]


def mark_and_mask(text: str, option: str) -> tuple[int, int]:
    """`value[/mask]`, 32 bits each; without a mask all ones."""
    values = []
    rest = text
    for last in (False, True):
        read = strtoul(rest)
        if read is None or read[0] > _MAX32:
            raise Refused(f'bad integer value for option "--{option}", or out of range')
        values.append(read[0])
        rest = rest[read[1] :]
        if not rest:
            return values[0], values[1] if last else _MAX32
        if last or rest[0] != "/":
            break
        rest = rest[1:]
    raise Refused(f'trailing garbage after value for option "--{option}"')


def protocol(text: str) -> int:
    """A protocol by number or name."""
    value = number(text, 0, 255)
    if value is None:
        value = protocol_number(text)
    if value is None:
        raise Refused(f'unknown protocol "{text}" specified')
    return value


def port(text: str, proto: str) -> int:
    """A port by number or by its service name over `proto`."""
    value = number(text, 0, 0xFFFF)
    if value is None:
        value = service_port(text, proto)
    if value is None:
        raise Refused(f"invalid port/service `{text}' specified")
    return value


def port_range(text: str, proto: str) -> tuple[int, int]:
    """`p`, `p:q`, `p:`, `:q`, never backwards [parse_tcp_ports]."""
    low, colon, high = text.partition(":")
    if not colon:
        value = port(low, proto)
        return value, value
    ports = port(low, proto) if low else 0, port(high, proto) if high else 0xFFFF
    if ports[0] > ports[1]:
        raise Refused("invalid portrange (min > max)")
    return ports


def getaddrinfo_port(text: str) -> int:
    """What getaddrinfo makes of a service: decimal digits, taken modulo 65536, or a name."""
    found = _DECIMAL.fullmatch(text)
    if found:
        return int(found[1]) & 0xFFFF
    value = service_port(text)
    if value is None:
        raise Refused(f'Port "{text}" does not resolve to anything')
    return value


def getaddrinfo_ports(text: str, option: str) -> tuple[int, int]:
    """`p`, `p:q`, `p:`, `:q`, also backwards [xtopt_parse_mport]."""
    parts = text.split(":")
    if len(parts) > 2:
        raise Refused(f'Too many components for option "--{option}" (max: 2)')
    values = [0, 0xFFFF]
    for at, part in enumerate(parts):
        if part:
            values[at] = getaddrinfo_port(part)
    if len(parts) == 1:
        values[1] = values[0]
    return values[0], values[1]


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────


def ones(family: int) -> bytes:
    """The mask of one host."""
    return b"\xff" * (4 if family == 4 else 16)


def mask_of(length: int, family: int) -> bytes:
    """The mask with `length` leading ones."""
    size = 4 if family == 4 else 16
    return (((1 << length) - 1) << (size * 8 - length)).to_bytes(size, "big")


def prefix_length(mask: bytes) -> int:
    """The number of leading ones of `mask`, -1 if there are others."""
    value, bits = int.from_bytes(mask, "big"), len(mask) * 8
    length = value.bit_count()
    return length if value == ((1 << length) - 1) << (bits - length) else -1


def masked(address: bytes, mask: bytes) -> bytes:
    """`address` without its host bits."""
    return bytes(a & m for a, m in zip(address, mask, strict=True))


def pton(text: str, family: int) -> bytes | None:
    """inet_pton: the canonical forms only."""
    if family == 4:
        parts = text.split(".")
        plain = len(parts) == 4 and all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts)
        if not plain or any(int(part) > 255 or (part[0] == "0" and part != "0") for part in parts):
            return None
        return bytes(map(int, parts))
    if "%" in text:
        return None
    try:
        return IPv6Address(text).packed
    except ValueError:
        return None


def numeric(text: str, family: int, whole: bool = False) -> bytes | None:
    """iptables' own reading: parts in any base; missing ones are zeros behind, unless `whole`; IPv6: inet_pton."""
    if family == 6:
        return pton(text, 6)
    parts = text[:19].split(".", 3)
    octets = [number(part, 0, 255) for part in parts]
    if None in octets or (whole and len(octets) < 4):
        return None
    return bytes(octet or 0 for octet in octets).ljust(4, b"\0")


def aton(text: str) -> bytes | None:
    """inet_aton: one to four parts in any base, the last one fills what is left."""
    parts = text.split(".")
    values = []
    for part in parts:
        value = number(part) if part[:1].isdigit() else None
        if value is None:
            return None
        values.append(value)
    last = values.pop()
    if len(parts) > 4 or any(value > 255 for value in values) or last >= 1 << 8 * (4 - len(values)):
        return None
    return bytes(values) + last.to_bytes(4 - len(values), "big")


def networks(text: str, family: int) -> list[tuple[bytes, bytes]]:
    """The (address, mask) pairs of -s and -d: a list with commas, host bits cleared."""
    return [network(part.lstrip(" \t\n\v\f\r"), family) for part in text.split(",")]


def network(text: str, family: int) -> tuple[bytes, bytes]:
    """One `address[/mask]`, host bits cleared; under a null mask any name will do."""
    name, slash, mask_text = text.rpartition("/") if "/" in text else (text, "", "")
    mask = _mask(mask_text, family) if slash else ones(family)
    if not any(mask):
        return bytes(len(mask)), mask
    address = numeric(name, family)
    if address is None:
        raise Refused(f"host/network `{name}' not found")
    return masked(address, mask), mask


def _mask(text: str, family: int) -> bytes:
    dotted = numeric(text, family, whole=True)
    if dotted is not None:
        return dotted
    length = number(text, 0, 32 if family == 4 else 128)
    if length is None:
        raise Refused(f"invalid mask `{text}' specified")
    return mask_of(length, family)


def host(text: str, family: int) -> bytes:
    """One address as getaddrinfo reads it."""
    address = aton(text) if family == 4 else pton(text, 6)
    if address is None:
        raise Refused(f"getaddrinfo: Name or service not known ({text})")
    return address


def host_and_mask(text: str, family: int, option: str) -> tuple[bytes, bytes]:
    """`address[/length or mask]`, host bits kept [xtopt_parse_hostmask]."""
    name, slash, mask_text = text.partition("/")
    address = host(name, family)
    if not slash:
        return address, ones(family)
    most = 32 if family == 4 else 128
    length = number(mask_text, 0, most)
    if length is not None:
        return address, mask_of(length, family)
    mask = aton(mask_text) if family == 4 else pton(mask_text, 6)
    if mask is None:
        raise Refused(f'bad value for option "--{option}", neither a valid network mask nor valid CIDR (0-{most})')
    return address, mask if prefix_length(mask) >= 0 else ones(family)  # a mask with holes becomes that of a host


def ntop(address: bytes) -> str:
    """inet_ntop of glibc: as `address_text`, but for the old ::a.b.c.d.

    >>> ntop(bytes(12) + bytes((1, 2, 3, 4))), ntop(bytes(15) + b"\\1")
    ('::1.2.3.4', '::1')
    """
    if len(address) == 16 and not any(address[:12]) and any(address[12:14]):
        return "::" + ".".join(map(str, address[12:]))
    return address_text(address)


def slash_mask(mask: bytes) -> str:
    """The mask as it is printed behind a slash: its length, or itself where it has holes."""
    length = prefix_length(mask)
    return str(length) if length >= 0 else ntop(mask)


def host_text(address: bytes, mask: bytes) -> str:
    """`address/length`, the length left out for one host."""
    return ntop(address) + ("" if mask == b"\xff" * len(mask) else "/" + slash_mask(mask))
