"""-m icmp and -m icmp6: type and code.

A name may be shortened as long as only one begins so; it stands for its type and, where there is one, its code.
`any` (255) is every ICMP type.  A packet that is too short for the header is dropped.

Sources: libxt_icmp.h, libipt_icmp.c, libip6t_icmp6.c of iptables 1.8.9; icmp_match, icmp6_match (xt_tcpudp.c).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, ICMP, ICMPV6
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option
from ..rules.text import strtoul
from ..rules.transport import transport
from ..skb import Skb

_ANY = 255
_HEADER = 8  # octets

# name: type, or type/code; several names of one thing side by side (RFC 792, RFC 1812; RFC 4443, RFC 4861)
_TYPES = """
    any:255 echo-reply:0 pong:0 destination-unreachable:3 network-unreachable:3/0 host-unreachable:3/1
    protocol-unreachable:3/2 port-unreachable:3/3 fragmentation-needed:3/4 source-route-failed:3/5
    network-unknown:3/6 host-unknown:3/7 network-prohibited:3/9 host-prohibited:3/10 TOS-network-unreachable:3/11
    TOS-host-unreachable:3/12 communication-prohibited:3/13 host-precedence-violation:3/14 precedence-cutoff:3/15
    source-quench:4 redirect:5 network-redirect:5/0 host-redirect:5/1 TOS-network-redirect:5/2
    TOS-host-redirect:5/3 echo-request:8 ping:8 router-advertisement:9 router-solicitation:10 time-exceeded:11
    ttl-exceeded:11 ttl-zero-during-transit:11/0 ttl-zero-during-reassembly:11/1 parameter-problem:12
    ip-header-bad:12/0 required-option-missing:12/1 timestamp-request:13 timestamp-reply:14 address-mask-request:17
    address-mask-reply:18
"""
_TYPES6 = """
    destination-unreachable:1 no-route:1/0 communication-prohibited:1/1 beyond-scope:1/2 address-unreachable:1/3
    port-unreachable:1/4 failed-policy:1/5 reject-route:1/6 packet-too-big:2 time-exceeded:3 ttl-exceeded:3
    ttl-zero-during-transit:3/0 ttl-zero-during-reassembly:3/1 parameter-problem:4 bad-header:4/0
    unknown-header-type:4/1 unknown-option:4/2 echo-request:128 ping:128 echo-reply:129 pong:129
    router-solicitation:133 router-advertisement:134 neighbour-solicitation:135 neighbor-solicitation:135
    neighbour-advertisement:136 neighbor-advertisement:136 redirect:137
"""
_ALL_CODES = (0, 255)


@dataclass(frozen=True, slots=True)
class Icmp:
    """family, type, codes (least, greatest)"""

    family: int
    type: int
    codes: tuple[int, int] = _ALL_CODES
    invert: bool = False

    @property
    def name(self) -> str:
        """-m icmp, -m icmp6"""
        return "icmp" if self.family == 4 else "icmp6"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Do type and code fit?"""
        head = transport(skb.packet)
        if head is None or head.fragment:
            return False
        if head.at + _HEADER > skb.packet.end:
            skb.packet.verdict = DROP
            return False
        type_, code = skb.packet.data[head.at : head.at + 2]
        if self.type == _ANY and self.family == 4:
            fits = True
        else:
            fits = type_ == self.type and self.codes[0] <= code <= self.codes[1]
        return fits != self.invert

    def text(self) -> str:
        """The options."""
        option = "icmp-type" if self.family == 4 else "icmpv6-type"
        value = "any" if self.type == _ANY and self.family == 4 else str(self.type)
        if value != "any" and self.codes != _ALL_CODES:
            value += f"/{self.codes[0]}"
        return f"{'! ' * self.invert}--{option} {value}"


def _table(text: str) -> dict[str, tuple[int, tuple[int, int]]]:
    table = {}
    for entry in text.split():
        name, _, numbers = entry.partition(":")
        type_, slash, code = numbers.partition("/")
        table[name] = int(type_), (int(code), int(code)) if slash else _ALL_CODES
    return table


_NAMES = {4: _table(_TYPES), 6: _table(_TYPES6)}


def _parse(argument: Argument) -> tuple[int, tuple[int, int]]:
    text, family = argument.text, argument.family
    what = "ICMP" if family == 4 else "ICMPv6"
    begun = [name for name in _NAMES[family] if name.lower().startswith(text.lower())]
    if len(begun) > 1:
        raise Refused(f"Ambiguous {what} type `{text}': `{begun[0]}' or `{begun[1]}'?")
    if begun:
        return _NAMES[family][begun[0]]
    types, rest = _range(text, f"Unknown {what} type `{text}'")
    codes = _ALL_CODES
    if rest.startswith("/"):
        codes, rest = _range(rest[1:], f"Unknown {what} code `{text}'")
    if rest:
        raise Refused(f"unknown character {rest[0]}")
    if types[0] != types[1]:
        raise Refused(f"{what} type range not supported")
    return types[0], codes


def _range(text: str, complaint: str) -> tuple[tuple[int, int], str]:
    """`n` or `n:m` at the beginning of `text`, and the rest."""
    values = []
    for _ in range(2):
        read = strtoul(text)
        if read is None or read[0] > 255:
            raise Refused(complaint)
        values.append(read[0])
        text = text[read[1] :]
        if not text.startswith(":") or len(values) == 2:
            break
        text = text[1:]
    return (values[0], values[-1]), text


def _build(given: Given) -> Icmp:
    option = "icmp-type" if given.family == 4 else "icmpv6-type"
    type_, codes = given.get(option)
    return Icmp(given.family, type_, codes, given.inverted(option))


EXTENSIONS = (
    Extension(
        MATCH,
        "icmp",
        _build,
        (Option("icmp-type", _parse, invert=True, required=True),),
        families=(4,),
        proto=ICMP,
    ),
    Extension(
        MATCH,
        "icmp6",
        _build,
        (Option("icmpv6-type", _parse, invert=True, required=True),),
        families=(6,),
        proto=ICMPV6,
    ),
)
