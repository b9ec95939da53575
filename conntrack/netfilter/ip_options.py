"""IPv4 options on their way through the box: read on arrival, filled in, echoed in answers.

    receive  arrival, behind routing: malformed ones are refused, record route and timestamp get this box's entry,
             a source route is refused, or followed if accept_source_route is set
    forward  departure: the entry of record route becomes the address of the outgoing device
    echo     the options of an answer: route, timestamp and CIPSO label as received, source route reversed

One rule: the octets are changed where they lie, and their header checksum only on departure; so what the box quotes
in an ICMP error shows its own entries under the sender's checksum, as with Linux.

Sources: ip_options.c (__ip_options_compile, ip_options_rcv_srr, ip_forward_options, __ip_options_echo,
ip_options_build), ip_input.c (ip_rcv_options), cipso_ipv4.c (cipso_v4_validate) of Linux 6.18; RFC 791, RFC 1812.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import reasons
from ..wire.checksum import internet_checksum
from ..wire.packet import Packet
from .fib import REJECTS, Route

if TYPE_CHECKING:
    from .routing import Fib

_END, _NOP, _RECORD, _TIME, _ALERT, _CIPSO = 0, 1, 7, 68, 148, 134
_LOOSE, _STRICT = 131, 137
_TIME_ONLY, _TIME_ADDRESS, _PRESPECIFIED = 0, 1, 3
_DAY: Final = 86_400_000  # milliseconds

AddressOf = Callable[[], bytes]
IsUnicast = Callable[[bytes], bool]


@dataclass(slots=True)
class Options:
    """Where the options of a packet lie (offset in the IP header, 0: absent), and what they still need.

    pointer  octet that a parameter problem points at, -1: nothing is wrong
    next_hop of a source route that names this box: the next address
    """

    length: int = 0
    route: int = 0
    strict: bool = False
    record: int = 0
    record_filled: bool = False
    time: int = 0
    time_address: bool = False
    time_stamped: bool = False
    alert: int = 0
    cipso: int = 0
    changed: bool = False
    pointer: int = -1
    next_hop: bytes = b""


def time_of_day(now: int) -> bytes:
    """Milliseconds since midnight UT as the timestamp option and ICMP timestamps have it; `now` in nanoseconds."""
    return (now // 1_000_000 % _DAY).to_bytes(4, "big")


class Arrived(NamedTuple):
    """What came of the options of a packet: they go on, or it does not.

    reason  why it is dropped, ""; error: (type, code, info) of an ICMP error to its sender, or None
    route   another route, of the next address of a source route, or None
    """

    options: Options
    reason: str = ""
    error: tuple[int, int, int] | None = None
    route: Route | None = None


def receive(packet: Packet, iface: str, route: Route, fib: Fib, now: int) -> Arrived:
    """Take in the options of `packet`, which came in by `iface` and is to go by `route` [ip_rcv_options]."""
    data = bytearray(packet.data)
    sender, target = bytes(data[12:16]), bytes(data[16:20])

    def address() -> bytes:
        return target if route.kind == "local" else fib.spec_dst(sender, iface) or bytes(4)

    options = read(data, address, lambda other: "UNICAST" in fib.address_type(other), now)
    found = _problem(options.pointer) if options.pointer >= 0 else Arrived(options)
    if options.route and not found.reason:
        if fib.conf.both4("accept_source_route", iface):
            found = _follow(data, options, iface, route, fib)
        else:
            found = Arrived(options, reasons.IP_OPTIONS)
    if data != packet.data:
        packet.data = data
    return found._replace(options=options)


def _problem(pointer: int) -> Arrived:
    return Arrived(Options(), reasons.IP_OPTIONS, (12, 0, pointer))


def _follow(data: bytearray, options: Options, iface: str, route: Route, fib: Fib) -> Arrived:
    """The next address of a source route that names this box [ip_options_rcv_srr]."""
    if route.kind == "unicast":  # not addressed to this box: a strict route does not pass by
        return _problem(16) if options.strict else Arrived(options)
    if route.kind != "local":
        return Arrived(options, reasons.IP_OPTIONS)
    at = options.route
    place, size = data[at + 2], data[at + 1]
    sender = bytes(data[12:16])
    onward: Route | None = None
    while place <= size:
        if place + 3 > size:
            return _problem(at + 2)
        hop = bytes(data[at + place - 1 : at + place + 3])
        onward = fib.input(sender, hop, iface)
        if onward.why or onward.kind not in ("unicast", "local"):
            return Arrived(options, reasons.IP_OPTIONS)
        options.changed = True
        if onward.kind != "local":
            options.next_hop = hop
            break
        data[16:20] = hop
        place += 4
    return Arrived(options, route=onward)


def read(data: bytearray, address: AddressOf, is_unicast: IsUnicast, now: int) -> Options:
    """Read the options in the octets of a packet that came in, and fill this box's entries in.

    `address` gives this box's address for them, `is_unicast` tells a foreign address from an own one.
    """
    options = Options((data[0] & 15) * 4 - 20)
    at, end = 20, 20 + options.length
    while at < end:
        kind = data[at]
        if kind == _END:
            if any(data[at:end]):
                data[at:end] = bytes(end - at)
                options.changed = True
            break
        if kind == _NOP:
            at += 1
            continue
        size = data[at + 1] if end - at >= 2 else 0
        wrong = 0 if not 2 <= size <= end - at else _read(data, at, size, options, address, is_unicast, now)
        if wrong >= 0:
            options.pointer = at + wrong
            return options
        at += size
    return options


def _read(
    data: bytearray, at: int, size: int, options: Options, address: AddressOf, is_unicast: IsUnicast, now: int
) -> int:
    """Take in the option at `at`; the offset in it of what is wrong, -1: nothing."""
    kind = data[at]
    if kind in (_LOOSE, _STRICT):
        if size < 3 or data[at + 2] < 4:
            return 1 if size < 3 else 2
        if options.route:
            return 0
        options.route, options.strict = at, kind == _STRICT
    elif kind == _RECORD:
        return _record(data, at, size, options, address)
    elif kind == _TIME:
        return _timestamp(data, at, size, options, address, is_unicast, now)
    elif kind == _ALERT:
        if size < 4:
            return 1
        if not data[at + 2] | data[at + 3]:
            options.alert = at
    elif kind == _CIPSO:
        if options.cipso:
            return 0
        options.cipso = at
        return 1 if size < 8 else 2  # no domain of interpretation is configured, so none is known
    return -1


def _record(data: bytearray, at: int, size: int, options: Options, address: AddressOf) -> int:
    if options.record:
        return 0
    if size < 3:
        return 1
    pointer = data[at + 2]
    if pointer < 4 or size - 3 < pointer <= size:
        return 2
    if pointer <= size:
        data[at + pointer - 1 : at + pointer + 3] = address()
        data[at + 2] = pointer + 4
        options.record_filled = options.changed = True
    options.record = at
    return -1


def _timestamp(
    data: bytearray, at: int, size: int, options: Options, address: AddressOf, is_unicast: IsUnicast, now: int
) -> int:
    if options.time:
        return 0
    if size < 4:
        return 1
    pointer, flag = data[at + 2], data[at + 3] & 15
    if pointer < 5 or size - 3 < pointer <= size:
        return 2
    if pointer > size:
        if flag != _PRESPECIFIED:
            overflow = data[at + 3] >> 4
            if overflow == 15:
                return 3
            data[at + 3] = (overflow + 1) << 4 | flag
            options.changed = True
    elif flag == _TIME_ONLY:
        data[at + pointer - 1 : at + pointer + 3] = time_of_day(now)
        data[at + 2] = pointer + 4
        options.time_stamped = options.changed = True
    elif flag in (_TIME_ADDRESS, _PRESPECIFIED):
        if pointer + 7 > size:
            return 2
        if flag == _TIME_ADDRESS:
            data[at + pointer - 1 : at + pointer + 3] = address()
            options.time_address = True
        elif is_unicast(bytes(data[at + pointer - 1 : at + pointer + 3])):
            options.time = at
            return -1
        data[at + pointer + 3 : at + pointer + 7] = time_of_day(now)
        data[at + 2] = pointer + 8
        options.time_stamped = options.changed = True
    options.time = at
    return -1


def forward(packet: Packet, options: Options, route: Route, fib: Fib) -> None:
    """Finish the options of a packet that leaves by `route`, the header checksum too [ip_forward_options]."""
    if options.record_filled or options.next_hop or options.changed:
        data = bytearray(packet.data)
        here = _leaving(fib, route, bytes(data[16:20]))
        onward = _leaving(fib, route, options.next_hop) if options.next_hop else here
        finish_options(data, options, here, onward)
        packet.data = data


def _leaving(fib: Fib, route: Route, target: bytes) -> bytes:
    """The box's address for what leaves by `route` to `target` [ip_rt_get_source]."""
    way = fib.lookup(target, route.iface)
    if way is not None and way.kind not in REJECTS:
        return fib.preferred(way) or bytes(4)
    return fib.select_address(route.iface, route.gateway or target) or bytes(4)


def finish_options(data: bytearray, options: Options, address: bytes, onward: bytes) -> None:
    """The octets' part of `forward`: the box's address towards the destination, and towards the next hop of a
    source route, which then becomes the destination."""
    if options.record_filled:
        at = options.record + data[options.record + 2] - 5
        data[at : at + 4] = address
        options.changed = True
    if options.next_hop:
        at = options.route
        for place in range(data[at + 2], data[at + 1] - 2, 4):
            if data[at + place - 1 : at + place + 3] == options.next_hop:
                data[16:20] = options.next_hop
                data[at + place - 1 : at + place + 3] = onward
                data[at + 2] = place + 4
                break
        if options.time_address:
            at = options.time + data[options.time + 2] - 9
            data[at : at + 4] = onward
        options.changed = True
    if options.changed:
        options.changed = False
        finish(data)


def finish(data: bytearray) -> None:
    """The header checksum anew."""
    data[10:12] = b"\0\0"
    data[10:12] = internet_checksum(data[: (data[0] & 15) * 4]).to_bytes(2, "big")


def echo(
    data: bytes | bytearray, options: Options, source: AddressOf, is_unicast: IsUnicast, now: int
) -> bytes | None:
    """The options with which a packet is answered from `source`; None: they cannot be, there is no answer."""
    out = bytearray()
    if options.record:
        part = bytearray(data[options.record : options.record + data[options.record + 1]])
        pointer, size = part[2], part[1]
        if options.record_filled and pointer <= size:
            if pointer + 3 > size:
                return None
            part[pointer - 1 : pointer + 3] = source()
            part[2] = pointer + 4
        out += part
    if options.time:
        part = bytearray(data[options.time : options.time + data[options.time + 1]])
        if not _echo_time(part, options, source, is_unicast, now):
            return None
        out += part
    if options.route:
        out += _reverse(data, options)[0]
    if options.cipso:
        out += data[options.cipso : options.cipso + data[options.cipso + 1]]
    out += bytes(-len(out) % 4)
    return bytes(out)


def _echo_time(part: bytearray, options: Options, source: AddressOf, is_unicast: IsUnicast, now: int) -> bool:
    pointer, size = part[2], part[1]
    if pointer > size:
        return True
    stamped = False
    if options.time_address:
        if pointer + 3 > size:
            return False
        pointer += 4
    if options.time_stamped:
        if pointer + 3 > size:
            return False
        if part[3] & 15 != _PRESPECIFIED:
            stamped = True
            pointer += 4
        elif pointer + 7 <= size and not is_unicast(bytes(part[pointer - 1 : pointer + 3])):
            stamped = True
            pointer += 8
    part[2] = pointer
    if options.time_address:
        part[pointer - 9 : pointer - 5] = source()
    if stamped:
        part[pointer - 5 : pointer - 1] = time_of_day(now)
    return True


def first_hop(data: bytes | bytearray, options: Options) -> bytes:
    """Where an answer goes first by the reversed source route; b"": straight to the sender."""
    return _reverse(data, options)[1] if options.route else b""


def _reverse(data: bytes | bytearray, options: Options) -> tuple[bytes, bytes]:
    """The way back of a source route: (option, address to send to first); nothing if there is no hop."""
    start, sender = options.route, bytes(data[12:16])
    hops = []
    place = min(data[start + 2], data[start + 1] + 1) - 4
    while place > 3:
        hops.append(bytes(data[start + place - 1 : start + place + 3]))
        place -= 4
    if hops and hops[-1] == sender:
        hops.pop()  # RFC 1812: a source route that lists the sender itself is put right
    if not hops:
        return b"", b""
    rest = [*hops[1:], sender]
    return bytes((data[start], 3 + 4 * len(rest), 4)) + b"".join(rest), hops[0]
