"""-m addrtype: what kind of address the source or destination is to this box.

IPv4: an address has one type; any of the listed will do.  IPv6: types overlap, and the list means "all of
MULTICAST, UNICAST, UNSPEC that are listed, and one of LOCAL, ANYCAST, UNREACHABLE that are".

Sources: libxt_addrtype.c of iptables 1.8.9; xt_addrtype.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import LOCAL_IN, LOCAL_OUT, POSTROUTING, PREROUTING
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option, refuse_unless
from ..skb import Skb

# rtnetlink's order
_TYPES = (
    *("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"),
    *("THROW", "NAT", "XRESOLVE"),
)
_NOT_IPV6 = frozenset(("BROADCAST", "BLACKHOLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"))
_LOOKED_UP = frozenset(("LOCAL", "ANYCAST", "UNREACHABLE"))


@dataclass(frozen=True, slots=True)
class Addrtype:
    """Types of source and destination, empty for no condition; limit: "in" or "out", only that device's own"""

    source: frozenset[str] = frozenset()
    destination: frozenset[str] = frozenset()
    not_source: bool = False
    not_destination: bool = False
    limit: str = ""

    @property
    def name(self) -> str:
        """-m addrtype"""
        return "addrtype"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Are the addresses of these types?"""
        addresses = skb.packet.addresses()
        half = len(addresses) // 2
        iface = {"in": skb.iface, "out": skb.out_iface}.get(self.limit) or None
        for address, wanted, inverted in (
            (addresses[:half], self.source, self.not_source),
            (addresses[half:], self.destination, self.not_destination),
        ):
            if wanted and _fits(box.fib.address_type(address, iface), wanted, len(address)) == inverted:
                return False
        return True

    def text(self) -> str:
        """The options."""
        words = [
            f"{'! ' * inverted}--{option} {','.join(name for name in _TYPES if name in types)}"
            for option, types, inverted in (
                ("src-type", self.source, self.not_source),
                ("dst-type", self.destination, self.not_destination),
            )
            if types
        ]
        if self.limit:
            words.append(f"--limit-iface-{self.limit}")
        return " ".join(words)


def _fits(types: frozenset[str] | set[str], wanted: frozenset[str], size: int) -> bool:
    if size == 4:
        return not wanted.isdisjoint(types)
    if not wanted - _LOOKED_UP <= types:
        return False
    looked_up = wanted & _LOOKED_UP
    return not looked_up or not looked_up.isdisjoint(types)


def _parse(argument: Argument) -> frozenset[str]:
    found = set()
    for part in argument.text.split(","):
        name = next((name for name in _TYPES if part and name.startswith(part.upper())), None)
        if name is None:
            raise Refused(f"bad type `{argument.text}'")
        found.add(name)
    return frozenset(found)


def _build(given: Given) -> Addrtype:
    source, destination = given.get("src-type", frozenset()), given.get("dst-type", frozenset())
    refuse_unless(source or destination, "you must specify --src-type or --dst-type")
    if given.family == 6:
        foreign = (source | destination) & _NOT_IPV6
        refuse_unless(not foreign, f"ipv6 {','.join(sorted(foreign))} matching not supported")
    limit = "in" if "limit-iface-in" in given else "out" if "limit-iface-out" in given else ""
    return Addrtype(source, destination, given.inverted("src-type"), given.inverted("dst-type"), limit)


def _check(match: Addrtype, hook: int) -> None:
    refuse_unless(match.limit != "out" or hook not in (PREROUTING, LOCAL_IN), "no output device in this chain")
    refuse_unless(match.limit != "in" or hook not in (POSTROUTING, LOCAL_OUT), "no input device in this chain")


EXTENSION = Extension(
    MATCH,
    "addrtype",
    _build,
    (
        Option("src-type", _parse, invert=True),
        Option("dst-type", _parse, invert=True),
        Option("limit-iface-in", excludes=("limit-iface-out",)),
        Option("limit-iface-out", excludes=("limit-iface-in",)),
    ),
    check=_check,
)
