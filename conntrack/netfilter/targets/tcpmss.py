"""-j TCPMSS: lowers the MSS option of a SYN, or adds one where there is none.

    option there       lowered to the new value, never raised
    none, no payload   inserted behind the fixed header, 536 (IPv4) or 1220 (IPv6) at most
    none, payload      left alone

The new value is given, or what the path takes: the smaller MTU of the way out and of the way back, less the two
headers.  A header that cannot be right, or a path without room, drops the packet.

Sources: libxt_TCPMSS.c of iptables 1.8.9; xt_TCPMSS.c; RFC 9293 3.7.1 (536), RFC 8200 5 (1220).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...nat.rewrite import writable
from ...verdict import DROP, FORWARD, LOCAL_OUT, POSTROUTING, TCP
from ...wire.checksum import PARTIAL, difference, update
from ...wire.packet import Packet, parse
from ...wire.refragment import contiguous
from ..box import CONTINUE, Box
from ..datagram import unfinished_tcp
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import number
from ..rules.transport import transport
from ..skb import Skb

_HEADER = 20  # octets of a TCP header without options
_LONGEST_HEADER = 60
_MSS, _NOP = 2, 1  # kinds of option
_MSS_SIZE = 4
_DEFAULT: Final = {4: 536, 6: 1220}
_HEADERS: Final = {4: 40, 6: 60}  # octets of IP and TCP header
_NO_LIMIT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Tcpmss:
    """value, None: clamp to the path's MTU"""

    value: int | None

    @property
    def name(self) -> str:
        """-j TCPMSS"""
        return "TCPMSS"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Change the option."""
        packet = skb.packet
        head = transport(packet)
        if head is not None and head.fragment:
            return CONTINUE
        if packet.family == 6 and (head is None or packet.l4 < _HEADERS[6] - _HEADER):
            return DROP
        contiguous(packet)
        l4, end = packet.l4, packet.end
        size = (packet.data[l4 + 12] >> 4) * 4 if l4 + _HEADER <= end else 0
        if size < _HEADER or l4 + size > end:
            return DROP
        new = self.value
        if new is None:
            room = _path_mtu(skb, box) - _HEADERS[packet.family]
            if room <= 0:
                return DROP
            new = room & 0xFFFF
        at = _find(packet.data, l4 + _HEADER, l4 + size)
        if at:
            _lower(packet, at, new)
        elif l4 + size == end and size < _LONGEST_HEADER:
            skb.packet = _inserted(packet, min(new, _DEFAULT[packet.family]))
        if skb.partial:
            skb.packet = parse(unfinished_tcp(bytes(skb.packet.data)))
            skb.packet.checksum = PARTIAL
        return CONTINUE

    def text(self) -> str:
        """The options."""
        return "--clamp-mss-to-pmtu" if self.value is None else f"--set-mss {self.value}"


def _path_mtu(skb: Skb, box: Box) -> int:
    """The smaller MTU of the packet's route and of a route to its sender."""
    addresses = skb.packet.addresses()
    back = box.fib.output(addresses[: len(addresses) // 2])
    out = skb.route.mtu if skb.route is not None else 0
    return min(out or _NO_LIMIT, back.mtu or _NO_LIMIT)


def _find(data: bytes | bytearray, at: int, end: int) -> int:
    """The offset of the MSS option in data[at:end], 0 if there is none."""
    while at <= end - _MSS_SIZE:
        if data[at] == _MSS and data[at + 1] == _MSS_SIZE:
            return at
        at += 1 if data[at] <= _NOP else data[at + 1] or 1
    return 0


def _lower(packet: Packet, at: int, new: int) -> None:
    old = bytes(packet.data[at + 2 : at + 4])
    if int.from_bytes(old, "big") <= new:
        return
    data = writable(packet)
    data[at + 2 : at + 4] = new.to_bytes(2, "big")
    # inet_proto_csum_replace2 takes the option for two aligned octets even where it is not
    _patch(data, packet.l4 + 16, difference(old, bytes(data[at + 2 : at + 4])))


def _inserted(packet: Packet, value: int) -> Packet:
    """The packet with an MSS option behind the fixed header, read anew."""
    data = bytearray(packet.data[: packet.end])
    l4 = packet.l4
    option = bytes((_MSS, _MSS_SIZE)) + value.to_bytes(2, "big")
    old = bytes(data[l4 + 12 : l4 + 14])
    data[l4 + 12] += _MSS_SIZE // 4 << 4
    # the pseudo-header's length, the option itself, the data offset
    change = _MSS_SIZE + int.from_bytes(option, "big") + difference(old, bytes(data[l4 + 12 : l4 + 14]))
    _patch(data, l4 + 16, change % 0xFFFF)
    data[l4 + _HEADER : l4 + _HEADER] = option
    if packet.family == 4:
        before = bytes(data[2:4])
        data[2:4] = (packet.length + _MSS_SIZE & 0xFFFF).to_bytes(2, "big")
        _patch(data, 10, difference(before, bytes(data[2:4])))
    else:
        data[4:6] = (int.from_bytes(data[4:6], "big") + _MSS_SIZE & 0xFFFF).to_bytes(2, "big")
    fresh = parse(data)
    fresh.owned = True
    fresh.pieces, fresh.fault, fresh.numbers = packet.pieces, packet.fault, packet.numbers
    fresh.counted, fresh.verdict, fresh.checksum = packet.counted, packet.verdict, packet.checksum
    return fresh


def _patch(data: bytearray, at: int, change: int) -> None:
    data[at : at + 2] = update(data[at] << 8 | data[at + 1], change).to_bytes(2, "big")


def _parse(argument: Argument) -> int:
    most = 0xFFFF - (20 if argument.family == 4 else 40)
    value = number(argument.text, 0, most)
    if value is None:
        raise Refused(f'bad value for option "--set-mss", or out of range (0-{most})')
    return value


def _build(given: Given) -> Tcpmss:
    refuse_unless(given, "At least one parameter is required")
    return Tcpmss(None if given.order[-1] == "clamp-mss-to-pmtu" else given.get("set-mss"))


def _check(target: Tcpmss, hook: int) -> None:
    refuse_unless(
        target.value is not None or hook in (-1, FORWARD, LOCAL_OUT, POSTROUTING),
        "path-MTU clamping only supported in FORWARD, OUTPUT and POSTROUTING hooks",
    )


EXTENSION = Extension(
    TARGET,
    "TCPMSS",
    _build,
    (Option("set-mss", _parse), Option("clamp-mss-to-pmtu")),
    proto=TCP,
    check=_check,
)
