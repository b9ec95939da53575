"""-j SNAT, DNAT, MASQUERADE, REDIRECT, NETMAP: decide the connection's translation, once.

All reduce to a NatRange and one call of the engine.  A later packet of the connection never gets here.

    SNAT, DNAT    addresses and ports as given
    MASQUERADE    the address that the output device would choose towards the next hop
    REDIRECT      the first address of the input device; for packets made here, loopback
    NETMAP        the packet's own address, its network part replaced

Sources: libxt_NAT.c, libipt_NETMAP.c of iptables 1.8.9; xt_nat.c, nf_nat_masquerade.c, nf_nat_redirect.c,
xt_NETMAP.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...nat.ranges import NatRange
from ...tuples import halves
from ...verdict import (
    ACCEPT,
    DROP,
    DST,
    ICMP,
    LOCAL_IN,
    LOCAL_OUT,
    POSTROUTING,
    PREROUTING,
    SCTP,
    SRC,
    TCP,
    UDP,
)
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, always, refuse_unless
from ..rules.names import service_port
from ..rules.text import host_and_mask, masked, ntop, pton, slash_mask, strtoul
from ..skb import Skb

_DCCP = 33
# ICMP's "port" is its identifier; the tool's complaint does not mention it.
_WITH_PORTS = frozenset((TCP, UDP, SCTP, _DCCP, ICMP))
_LOOPBACK = {4: bytes((127, 0, 0, 1)), 6: bytes(15) + b"\1"}
_FLAGS = ("random", "random-fully", "persistent")


@dataclass(frozen=True, slots=True)
class Nat:
    """name: of the target; what the mapping may look like; the flags as they were given"""

    name: str
    range: NatRange = field(default_factory=NatRange)
    flags: tuple[str, ...] = ()

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Decide the mapping."""
        conn = skb.conn
        if conn is None:
            return ACCEPT
        nat_range = self.range
        manip = SRC if hook in (POSTROUTING, LOCAL_IN) else DST
        if self.name == "MASQUERADE":
            if skb.packet.family == 4 and not any(halves(conn.orig)[0]):
                return ACCEPT  # from 0.0.0.0: made here, and not meant
            address = _masquerade(skb, box)
            if not address:
                return DROP
            nat_range = replace(nat_range, addresses=(address, address))
            box.touch(conn)
            conn.own_extra().out_iface = skb.out_iface
        elif self.name == "REDIRECT":
            address = _redirect(skb, hook, box)
            if not address:
                return DROP
            nat_range = replace(nat_range, addresses=(address, address))
        box.engine.setup(conn, nat_range, manip)
        return ACCEPT

    def text(self) -> str:
        """The options."""
        words = []
        option = {"SNAT": "to-source", "DNAT": "to-destination"}.get(self.name)
        where = _range_text(self.range)
        if option is None:
            option, where = "to-ports", where.removeprefix(":")
        if where:
            words.append(f"--{option} {where}")
        return " ".join([*words, *(f"--{flag}" for flag in _FLAGS if flag in self.flags)])


def _masquerade(skb: Skb, box: Box) -> bytes:
    packet = skb.packet
    addresses = packet.addresses()
    destination = addresses[len(addresses) // 2 :]
    gateway = skb.route.gateway if skb.route is not None and packet.family == 4 else b""
    return box.fib.select_address(skb.out_iface, gateway or destination, packet.family)


def _redirect(skb: Skb, hook: int, box: Box) -> bytes:
    family = skb.packet.family
    if hook == LOCAL_OUT:
        return _LOOPBACK[family]
    addresses = skb.packet.addresses()
    return box.fib.first_address(skb.iface, family, addresses[len(addresses) // 2 :])


@dataclass(frozen=True, slots=True)
class Netmap:
    """network (address without host bits) and its mask"""

    network: bytes
    mask: bytes

    @property
    def name(self) -> str:
        """-j NETMAP"""
        return "NETMAP"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Decide the mapping."""
        conn = skb.conn
        if conn is None:
            return ACCEPT
        manip = SRC if hook in (POSTROUTING, LOCAL_IN) else DST
        addresses = skb.packet.addresses()
        half = len(addresses) // 2
        own = addresses[:half] if manip == SRC else addresses[half:]
        host = masked(own, bytes(octet ^ 0xFF for octet in self.mask))
        address = bytes(a | b for a, b in zip(host, self.network, strict=True))
        box.engine.setup(conn, NatRange(addresses=(address, address)), manip)
        return ACCEPT

    def text(self) -> str:
        """The options."""
        return f"--to {ntop(self.network)}/{slash_mask(self.mask)}"


def _range_text(nat_range: NatRange) -> str:
    text = ""
    if nat_range.addresses is not None:
        least, greatest = nat_range.addresses
        text = ntop(least) if least == greatest else f"{ntop(least)}-{ntop(greatest)}"
        if len(least) == 16 and nat_range.ports is not None:
            text = f"[{text}]"
    if nat_range.ports is not None:
        low, high = nat_range.ports
        text += f":{low}" + (f"-{high}" if high != low else "")
        if nat_range.base is not None:
            text += f"/{nat_range.base}"
    return text


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def _number(text: str, least: int = 0) -> tuple[int, str] | None:
    """A port at the beginning of `text`, and the rest."""
    read = strtoul(text)
    return None if read is None or not least <= read[0] <= 0xFFFF else (read[0], text[read[1] :])


def _named(text: str) -> int:
    port = service_port(text)
    if port is None:
        raise Refused(f"Port `{text}' not valid")
    return port


def _parse_ports(argument: Argument) -> NatRange:
    return _ports(argument.text, argument)


def _ports(text: str, argument: Argument) -> NatRange:
    if argument.proto not in _WITH_PORTS:
        raise Refused("Need TCP, UDP, SCTP or DCCP with port specification")
    read = _number(text)
    low, rest = (_named(text), "") if read is None else read
    if not rest:
        return NatRange(ports=(low, low))
    if rest[0] == ":":
        raise Refused("Invalid port:port syntax - use dash")
    if rest[0] != "-":
        raise Refused(f"Garbage after port value: `{rest}'")
    read = _number(rest[1:])
    if read is None:
        raise Refused(f"Port `{rest[1:]}' not valid")
    high, rest = read
    if high < low:
        raise Refused(f"Port range `{text}' funky")
    if not rest:
        return NatRange(ports=(low, high))
    if rest[0] != "/":
        raise Refused(f"Garbage after port range: `{rest}'")
    read = _number(rest[1:], 1)
    base = _named(rest[1:]) if read is None else read[0]
    return NatRange(ports=(low, high), base=base)


def _parse_to(argument: Argument) -> NatRange:
    """`address[-address][:port[-port[/base]]]`, IPv6 addresses in brackets where ports follow."""
    text, family = argument.text, argument.family
    where, ports = text, None
    if "[" in text:
        if family == 4 or "]" not in text[text.index("[") :]:
            raise Refused("Invalid address format")
        start = text.index("[") + 1
        end = text.index("]", start)
        where = text[start:end]
        colon = text.find(":", end + 1)
        if colon >= 0:
            ports = text[colon + 1 :]
            if colon == 2:  # nothing but brackets before it
                return _ports(ports, argument)
    elif text.count(":") == 1:
        where, _, ports = text.partition(":")
    nat_range = _ports(ports, argument) if ports is not None else NatRange()
    if not where and ports is not None:
        return nat_range
    ends = where.split("-", 1)
    packed = []
    for one in (ends[0], ends[-1]):
        address = pton(one, family)
        if address is None:
            raise Refused(f'Bad IP address "{one}"')
        packed.append(address)
    return replace(nat_range, addresses=(packed[0], packed[1]))


def _builder(name: str, option: str, flags: tuple[str, ...], hooks: tuple[int, ...]) -> Extension:
    def build(given: Given) -> Nat:
        found = tuple(flag for flag in flags if flag in given)
        nat_range = given.get(option, NatRange())
        if nat_range.base is not None and name != "DNAT":
            # only DNAT's structure has a place for the base; for the others it is 0, which two of them take
            refuse_unless(name != "REDIRECT", "Shifted portmap ranges not supported with this kernel")
            nat_range = replace(nat_range, base=0)
        nat_range = replace(
            nat_range,
            random="random" in found or "random-fully" in found,
            persistent="persistent" in found,
        )
        return Nat(name, nat_range, found)

    mandatory = name in ("SNAT", "DNAT")
    parse = _parse_to if mandatory else _parse_ports
    options = (Option(option, parse, required=mandatory), *(Option(flag) for flag in flags))
    return Extension(TARGET, name, build, options, table="nat", hooks=hooks, tracks=always)


def _parse_network(argument: Argument) -> tuple[bytes, bytes]:
    address, mask = host_and_mask(argument.text, argument.family, argument.option)
    return masked(address, mask), mask


def _build_netmap(given: Given) -> Netmap:
    return Netmap(*given.get("to"))


EXTENSIONS = (
    _builder("SNAT", "to-source", _FLAGS, (LOCAL_IN, POSTROUTING)),
    _builder("DNAT", "to-destination", ("random", "persistent"), (PREROUTING, LOCAL_OUT)),
    _builder("MASQUERADE", "to-ports", ("random", "random-fully"), (POSTROUTING,)),
    _builder("REDIRECT", "to-ports", ("random",), (PREROUTING, LOCAL_OUT)),
    Extension(
        TARGET,
        "NETMAP",
        _build_netmap,
        (Option("to", _parse_network, required=True),),
        table="nat",
        hooks=(PREROUTING, LOCAL_IN, LOCAL_OUT, POSTROUTING),
        tracks=always,
    ),
)
