"""NAT rules as values: what `Engine(nat=[...])` takes.

A rule is a match and a target.  The first rule of a kind whose match fits the connection's first packet decides;
destination rules are asked before source rules, as PREROUTING comes before POSTROUTING.  Once asked, a
connection is decided: later changes of the rules do not touch it.

    Snat, Masquerade, Netmap(source=…)       the source half, at POSTROUTING
    Dnat, Redirect, Netmap(destination=…)    the destination half, at PREROUTING

A rule applies to the families of its addresses and networks; one without any applies to both.  Everything is
checked at construction: a ValueError quotes what is wrong.

Sources: xt_nat.c, xt_MASQUERADE.c, xt_REDIRECT.c, xt_NETMAP.c; iptables-extensions(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..tuples import halves
from ..verdict import DST, ICMP, ICMPV6, SCTP, SRC, TCP, UDP, UDPLITE
from ..wire.packet import PORT_PROTOCOLS
from .ranges import NatRange

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "udplite": UDPLITE, "sctp": SCTP, "icmp": ICMP, "icmpv6": ICMPV6}
Ports = int | str | tuple[int, int] | None
Networks = str | Sequence[str] | None
# Source NAT to one address: mask and network of the source, address to give, and masks and networks of the
# destinations that are spared.
PlainRule = tuple[int, int, bytes, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The match all rules share; every part that is given must fit.

    source, destination  network or address, or several ("10.0.0.0/8"); "!" in front: none of these
    protocol             "tcp", "udp", "udplite", "sctp", "icmp", "icmpv6" or a number
    sport, dport         port, "low-high" or (low, high); need a protocol with ports
    in_iface, out_iface  interface name, "eth+" for all that begin so; never match a packet without one
    """

    source: Networks = None
    destination: Networks = None
    protocol: str | int | None = None
    sport: Ports = None
    dport: Ports = None
    in_iface: str | None = None
    out_iface: str | None = None


@dataclass(frozen=True, slots=True)
class Snat(Rule):
    """Source NAT to an address or a pool ("198.51.100.1-198.51.100.9"), optionally to a range of ports."""

    to: str
    ports: Ports = None
    random: bool = False
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Dnat(Rule):
    """Destination NAT to an address or a pool, optionally to ports; `base` shifts: base maps to the first port."""

    to: str
    ports: Ports = None
    base: int | None = None
    random: bool = False
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Masquerade(Rule):
    """Source NAT to the address of the box's outgoing interface: one per family, given here."""

    to: str | Sequence[str]
    ports: Ports = None
    random: bool = False


@dataclass(frozen=True, slots=True)
class Redirect(Rule):
    """Destination NAT to the box itself: to other ports, and to `address` (the incoming interface's first).

    Without `address` (an engine has no interfaces) the destination address stays.
    """

    to: Ports = None
    address: str | None = None
    random: bool = False


@dataclass(frozen=True, slots=True)
class Netmap(Rule):
    """Maps a network onto one of the same size: the host bits stay.  With `source` it maps sources, else
    destinations."""

    to: str


NatRule = Snat | Dnat | Masquerade | Redirect | Netmap


class CompiledRule:
    """A rule with its text understood: what the packet path asks."""

    __slots__ = (
        "_destination",
        "_dport",
        "_families",
        "_in_iface",
        "_map",
        "_out_iface",
        "_protocol",
        "_ranges",
        "_source",
        "_sport",
        "manip",
        "masquerade",
        "rule",
    )

    def __init__(self, rule: NatRule) -> None:
        self.rule = rule
        self.masquerade = isinstance(rule, Masquerade)
        self.manip: int = SRC
        self._map: tuple[int, int, int] | None = None  # Netmap: network, host mask, address octets
        self._ranges: dict[int, NatRange] = {}  # by address octets; 0: any family
        try:
            self._compile(rule)
        except ValueError as error:
            raise ValueError(f"{rule}: {error}") from None

    def _compile(self, rule: NatRule) -> None:
        self._protocol = _protocol(rule.protocol)
        self._source = _networks(rule.source)
        self._destination = _networks(rule.destination)
        self._sport = _ports(rule.sport)
        self._dport = _ports(rule.dport)
        if (self._sport or self._dport) and self._protocol not in PORT_PROTOCOLS:
            raise ValueError("sport and dport need a protocol with ports")
        self._in_iface = rule.in_iface
        self._out_iface = rule.out_iface
        match rule:
            case Snat() | Dnat():
                self.manip = SRC if isinstance(rule, Snat) else DST
                ports = self._target_ports(rule.ports)
                base = rule.base if isinstance(rule, Dnat) else None
                if base is not None and (ports is None or not 0 <= base <= 65535):
                    raise ValueError(f"base {base!r} needs ports and 0..65535")
                addresses = _pool(rule.to)
                self._ranges[len(addresses[0])] = NatRange(addresses, ports, base, rule.random, rule.persistent)
            case Masquerade():
                ports = self._target_ports(rule.ports)
                for text in [rule.to] if isinstance(rule.to, str) else rule.to:
                    address = _address(text)
                    if len(address) in self._ranges:
                        raise ValueError(f"{text!r}: a second address of the same family")
                    self._ranges[len(address)] = NatRange((address, address), ports, None, rule.random)
                if not self._ranges:
                    raise ValueError("no address")
            case Redirect():
                self.manip = DST
                ports = self._target_ports(rule.to)
                if ports is None and rule.address is None:
                    raise ValueError("neither ports nor an address to redirect to")
                if rule.address is None:
                    self._ranges[0] = NatRange(None, ports, None, rule.random)
                else:
                    address = _address(rule.address)
                    self._ranges[len(address)] = NatRange((address, address), ports, None, rule.random)
            case Netmap():
                if (rule.source is None) == (rule.destination is None):
                    raise ValueError("needs either source or destination: the side it maps")
                self.manip = SRC if rule.source is not None else DST
                network = _network(rule.to)
                size = network.max_prefixlen // 8
                self._map = (int(network.network_address), int(network.hostmask), size)
                self._ranges[size] = NatRange()
        self._families = self._match_families()

    def _target_ports(self, ports: Ports) -> tuple[int, int] | None:
        parsed = _ports(ports)
        if parsed is not None and self._protocol not in PORT_PROTOCOLS:
            raise ValueError("ports to translate to need a protocol with ports")
        return parsed

    def _match_families(self) -> frozenset[int]:
        """Address sizes (octets) this rule can apply to."""
        families = {4, 16} if 0 in self._ranges else set(self._ranges)
        for networks in (self._source, self._destination):
            if networks is not None:
                families &= {size for size, _, _ in networks[1]}
        if not families:
            raise ValueError("IPv4 and IPv6 mixed")
        return frozenset(families)

    def applies(self, size: int) -> bool:
        """Can it match addresses of `size` octets?"""
        return size in self._families

    def plain(self, size: int) -> list[PlainRule] | None:
        """The rule for addresses of `size` octets, source network by source network, if it says no more than a
        `PlainRule` can."""
        asked = self._protocol, self._sport, self._dport, self._in_iface, self._out_iface
        nat_range = self._ranges.get(size)
        if self.manip != SRC or self._map is not None or nat_range is None or any(x is not None for x in asked):
            return None
        if nat_range.addresses is None or nat_range != NatRange(nat_range.addresses):
            return None
        least, greatest = nat_range.addresses
        sources = (False, [(size, 0, 0)]) if self._source is None else self._source
        outside = (True, []) if self._destination is None else self._destination
        if least != greatest or sources[0] or not outside[0]:
            return None
        spared = tuple([(mask, network) for width, network, mask in outside[1] if width == size])
        return [(mask, network, least, spared) for width, network, mask in sources[1] if width == size]

    def range_for(self, key: bytes, proto: int, iface: str | None, out_iface: str | None) -> NatRange | None:
        """The range for a packet with tuple `key` (as it looks now), None if the rule does not match."""
        src, dst, src_u, dst_u = halves(key)
        if len(src) not in self._families or (self._protocol is not None and proto != self._protocol):
            return None
        if not _within(self._source, src) or not _within(self._destination, dst):
            return None
        for ports, part in ((self._sport, src_u), (self._dport, dst_u)):
            if ports is not None and not ports[0] <= int.from_bytes(part, "big") <= ports[1]:
                return None
        if not _iface_matches(self._in_iface, iface) or not _iface_matches(self._out_iface, out_iface):
            return None
        if self._map is not None:
            network, host_mask, size = self._map
            current = int.from_bytes(src if self.manip == SRC else dst, "big")
            address = (network | (current & host_mask)).to_bytes(size, "big")
            return NatRange((address, address))
        return self._ranges.get(len(src)) or self._ranges.get(0)


def plain_rules(rules: tuple[CompiledRule, ...], size: int) -> tuple[PlainRule, ...] | None:
    """The rules that can match addresses of `size` octets, if all of them are plain; else None."""
    out: list[PlainRule] = []
    for rule in rules:
        if rule.applies(size):
            plain = rule.plain(size)
            if plain is None:
                return None
            out += plain
    return tuple(out)


def _within(networks: tuple[bool, list[tuple[int, int, int]]] | None, address: bytes) -> bool:
    if networks is None:
        return True
    negated, rows = networks
    value, size = int.from_bytes(address, "big"), len(address)
    return any(size == width and value & mask == network for width, network, mask in rows) != negated


def _iface_matches(wanted: str | None, name: str | None) -> bool:
    if wanted is None:
        return True
    if name is None:
        return False
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _network(text: str) -> IPv4Network | IPv6Network:
    from ipaddress import ip_network  # for those who have rules

    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network") from None


def _networks(given: Networks) -> tuple[bool, list[tuple[int, int, int]]] | None:
    """(negated, rows of (address octets, network, mask))."""
    if given is None:
        return None
    texts = [given] if isinstance(given, str) else list(given)
    negated = bool(texts) and texts[0].startswith("!")
    if not texts or any(text.startswith("!") != negated for text in texts):
        raise ValueError(f"{given!r}: no network, or '!' before some of them only")
    rows = []
    for text in texts:
        network = _network(text.removeprefix("!").strip())
        rows.append((network.max_prefixlen // 8, int(network.network_address), int(network.netmask)))
    return negated, rows


def _address(text: str) -> bytes:
    from ipaddress import ip_address

    try:
        return ip_address(text.strip()).packed
    except ValueError:
        raise ValueError(f"{text!r} is no address") from None


def _pool(text: str) -> tuple[bytes, bytes]:
    first, _, last = text.partition("-")
    least = _address(first)
    greatest = _address(last) if last else least
    if len(least) != len(greatest) or least > greatest:
        raise ValueError(f"{text!r} is no range of addresses")
    return least, greatest


def _ports(ports: Ports) -> tuple[int, int] | None:
    if ports is None:
        return None
    try:
        if isinstance(ports, str):
            first, _, last = ports.partition("-")
            low, high = int(first), int(last or first)
        elif isinstance(ports, int):
            low = high = ports
        else:
            low, high = ports
    except (TypeError, ValueError):
        raise ValueError(f"{ports!r} is no port or range of ports") from None
    if not (0 <= low <= 65535 and 0 <= high <= 65535):
        raise ValueError(f"{ports!r}: ports are 0..65535")
    return min(low, high), max(low, high)


def _protocol(protocol: str | int | None) -> int | None:
    if protocol is None:
        return None
    text = str(protocol).lower()
    number = _PROTOCOLS.get(text, int(text) if text.isdigit() else -1)
    if not 0 <= number <= 255:
        raise ValueError(f"{protocol!r} is no protocol")
    return number
