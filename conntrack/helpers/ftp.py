"""FTP: four ways to say where the data connection will go.

    direction  line begins   then            says                              form
    original   PORT          first blank     h1,h2,h3,h4,p1,p2 CR              RFC 959
    original   EPRT          first blank     |1|10.0.0.2|5001|  or |2|fd00::2|5001|, any delimiter   RFC 2428
    reply      227␣          first digit     h1,h2,h3,h4,p1,p2 and any octet   RFC 1123, 4.1.2.6
    reply      229␣          "("             |||5001|                          RFC 2428

Only the start of a packet is compared, and only of one that begins where a line begins: the helper remembers the
sequence numbers behind the last two packets of each direction that ended in a newline.  So the first line of a
direction is never read, and a retransmission is read again.

A packet that ends within the command is dropped: tracking would miss what the rest says.  An address other than
the sender's own is not believed (the kernel's module parameter `loose` is off): no expectation, the packet passes.
Numbers are not range-checked but shifted together as they come, as in the kernel.

Under translation the text becomes that of the public address and of a port that is free there.

Sources: nf_conntrack_ftp.c, nf_nat_ftp.c, lib's in4_pton and in6_pton (Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from .. import reasons
from ..expect import Policy
from ..sysctl import SECOND
from ..tuples import address_text
from ..verdict import ESTABLISHED, ESTABLISHED_REPLY, ORIGINAL, REPLY, TCP
from . import Answer, Edit, Expect, Helper, View
from .inet import parse_ipv6

_SIGN: Final = 0x80000000
_REMEMBERED: Final = 2  # NUM_SEQ_TO_REMEMBER

# Sequence numbers behind a newline, per direction, in the order in which they were first noted.
Lines = tuple[tuple[int, ...], tuple[int, ...]]
_NO_LINES: Final[Lines] = ((), ())


@dataclass(frozen=True, slots=True)
class Found:
    """A command's numbers: `length` octets at `at` of the payload."""

    at: int
    length: int
    address: bytes
    port: int


Numbers = Callable[[bytes, int, bytes], Found | None]
Words = Callable[[bytes, int], bytes]


def read(view: View) -> Answer:
    """One packet [help of nf_conntrack_ftp.c]."""
    lines: Lines = view.memory if isinstance(view.memory, tuple) else _NO_LINES
    if view.ctinfo not in (ESTABLISHED, ESTABLISHED_REPLY) or not view.payload:
        return Answer(lines)
    after = _noted(lines, view) if view.payload.endswith(b"\n") else lines
    if view.seq not in lines[view.direction]:
        return Answer(after)
    own = view.here[0]
    for command in COMMANDS[view.direction]:
        if _begins(view.payload, command.pattern):
            found = command.find(view.payload, own)
            if found is None:
                return Answer(lines, reason=reasons.HELPER_PARTIAL, numbers=("ftp", command.pattern.decode()))
            if found.address != own:
                return Answer(after)
            return _announce(view, command, found, after)
    return Answer(after)


def _announce(view: View, command: Command, found: Found, lines: Lines) -> Answer:
    """The data connection comes from the other side to the address under which the other side knows this one."""
    peer, public, _, _ = view.there
    if not view.nat:
        return Answer(lines, (Expect(TCP, public, found.port, src=peer),))
    expect = Expect(
        TCP,
        public,
        found.port,
        src=peer,
        search=True,
        follow=True,
        saved_port=found.port,
        direction=REPLY if view.direction == ORIGINAL else ORIGINAL,
    )
    return Answer(lines, (expect, Edit(found.at, found.length, partial(command.say, public))))


def _noted(lines: Lines, view: View) -> Lines:
    """The memory with the end of this packet [update_nl_seq]: the older of two gives way to a newer one."""
    seq = (view.seq + len(view.payload)) & 0xFFFFFFFF
    known = lines[view.direction]
    if seq in known:
        return lines
    if len(known) < _REMEMBERED:
        known = (*known, seq)
    else:
        oldest = 0 if (known[0] - known[1]) & _SIGN else 1
        if not (known[oldest] - seq) & _SIGN:
            return lines
        known = (seq, known[1]) if oldest == 0 else (known[0], seq)
    return (known, lines[REPLY]) if view.direction == ORIGINAL else (lines[ORIGINAL], known)


def _begins(payload: bytes, pattern: bytes) -> bool:
    """Does the payload begin like `pattern`, whatever the case, or is it the beginning of `pattern`?"""
    head = payload[: len(pattern)].upper()
    return pattern.startswith(head)


# --- the commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """One of the four: what the line begins with, what to skip to behind it, how the numbers are read, how said."""

    pattern: bytes
    skip: bytes  # b"": nothing
    numbers: Numbers
    say: Words

    def find(self, payload: bytes, own: bytes) -> Found | None:
        """The numbers in a payload that begins like the pattern; None: they are not all there, or no numbers."""
        at = len(self.pattern)
        if len(payload) <= at:
            return None
        if self.skip:
            at = payload.find(self.skip, at) + 1
            if at == 0:
                return None
        return self.numbers(payload, at, own)


def _digits(payload: bytes, at: int, count: int, separator: int, end: int) -> tuple[list[int], int]:
    """(`count` decimal numbers from `at` on, the offset of the octet behind them), or ([], 0) [try_number].

    `end` is the octet that must stand there, 0 for any; there must be one.
    """
    values = [0]
    for place in range(at, len(payload)):
        octet = payload[place]
        if 48 <= octet <= 57:
            values[-1] = (values[-1] * 10 + octet - 48) & 0xFFFFFFFF
        elif octet == separator:
            if len(values) == count:
                break
            values.append(0)
        elif len(values) == count and end in (0, octet):
            return values, place
        else:
            break
    return [], 0


def _six_numbers(payload: bytes, at: int, own: bytes, end: int) -> Found | None:
    values, behind = _digits(payload, at, 6, 0x2C, end)
    if not values or behind == at:
        return None
    address = (values[0] << 24 | values[1] << 16 | values[2] << 8 | values[3]) & 0xFFFFFFFF
    # On an IPv6 connection the four octets land in the front of the sender's own address.
    port = (values[4] << 8 | values[5]) & 0xFFFF
    return Found(at, behind - at, address.to_bytes(4, "big") + own[4:], port)


def _port_command(payload: bytes, at: int, own: bytes) -> Found | None:
    return _six_numbers(payload, at, own, 0x0D)


def _passive_reply(payload: bytes, at: int, own: bytes) -> Found | None:
    while at < len(payload) and not 48 <= payload[at] <= 57:
        at += 1
    return _six_numbers(payload, at, own, 0)


def _eprt_command(payload: bytes, at: int, own: bytes) -> Found | None:
    delimiter = _delimiter(payload, at)
    kind = 0x31 if len(own) == 4 else 0x32
    if not delimiter or payload[at + 1] != kind or payload[at + 2] != delimiter:
        return None
    if kind == 0x31:
        values, behind = _digits(payload, at + 3, 4, 0x2E, delimiter)
        if not values or behind == at + 3:
            return None
        number = (values[0] << 24 | values[1] << 16 | values[2] << 8 | values[3]) & 0xFFFFFFFF
        address = number.to_bytes(4, "big")
    else:
        address, behind = parse_ipv6(payload, at + 3, delimiter)
        if not address:
            return None
    port, end = _port(payload, behind + 1, delimiter)
    return Found(at, end - at, address, port) if port else None


def _epsv_reply(payload: bytes, at: int, own: bytes) -> Found | None:
    delimiter = _delimiter(payload, at)
    if not delimiter or payload[at + 1] != delimiter or payload[at + 2] != delimiter:
        return None
    port, end = _port(payload, at + 3, delimiter)
    return Found(at, end - at, own, port) if port else None


def _delimiter(payload: bytes, at: int) -> int:
    """The delimiter at `at`, printable and no digit; 0: none, or too little behind it."""
    if len(payload) - at <= 3 or not 33 <= payload[at] <= 126 or 48 <= payload[at] <= 57:
        return 0
    return payload[at]


def _port(payload: bytes, at: int, delimiter: int) -> tuple[int, int]:
    """(port, offset behind its delimiter); port 0: none [get_port]."""
    port = 0
    for place in range(at, len(payload)):
        octet = payload[place]
        if octet == delimiter:
            return port, place + 1
        if not 48 <= octet <= 57:
            break
        port = (port * 10 + octet - 48) & 0xFFFF
    return 0, 0


def _say_numbers(address: bytes, port: int) -> bytes:
    return ",".join(map(str, (*address[:4], port >> 8, port & 0xFF))).encode()


def _say_eprt(address: bytes, port: int) -> bytes:
    if len(address) == 4:
        return f"|1|{address_text(address)}|{port}|".encode()
    written_out = ":".join(address[at : at + 2].hex() for at in range(0, 16, 2))  # %pI6
    return f"|2|{written_out}|{port}|".encode()


def _say_epsv(address: bytes, port: int) -> bytes:
    return f"|||{port}|".encode()


COMMANDS: Final = (
    (Command(b"PORT", b" ", _port_command, _say_numbers), Command(b"EPRT", b" ", _eprt_command, _say_eprt)),
    (Command(b"227 ", b"", _passive_reply, _say_numbers), Command(b"229 ", b"(", _epsv_reply, _say_epsv)),
)

# 300 s: nf_conntrack_ftp.c
HELPER: Final = Helper("ftp", TCP, 21, (Policy(1, 300 * SECOND),), read, contiguous=True)
