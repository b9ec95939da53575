"""A rule: conditions on the IP header, matches, a counter, and what is then done.

A Rule knows nothing of iptables' spelling but how to print itself; another front end may build the same values.

Sources: struct ipt_ip, ip6t_ip6 (ip_tables.h, ip6_tables.h); nft_ipv4_add (nft-ipv4.c), xshared.c
(save_rule_details) of iptables 1.8.9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..box import Box
from ..skb import Skb
from .names import protocol_name
from .text import ntop, slash_mask
from .transport import transport


class RuleMatch(Protocol):
    """A match as it stands in a rule: what `box.Match` asks, and name and options as iptables-save prints them."""

    @property
    def name(self) -> str:
        """Behind -m."""

    def text(self) -> str:
        """Its options, "" without."""

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """See `box.Match`.  To drop the packet (xtables' hotdrop), set its verdict to DROP and say False."""


class RuleTarget(Protocol):
    """A target as it stands in a rule: what `box.Target` asks, name and options."""

    @property
    def name(self) -> str:
        """Behind -j."""

    def text(self) -> str:
        """Its options, "" without."""

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """See `box.Target`."""


class Counter:
    """Packets and IP octets that came so far."""

    __slots__ = ("octets", "packets")

    def __init__(self, packets: int = 0, octets: int = 0) -> None:
        self.packets = packets
        self.octets = octets

    def count(self, octets: int) -> None:
        """One more packet."""
        self.packets += 1
        self.octets += octets

    def save(self) -> tuple[Any, ...]:
        """For `journal.Journal`."""
        return (self.packets, self.octets)

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to `saved`."""
        self.packets, self.octets = saved

    def __str__(self) -> str:
        return f"[{self.packets}:{self.octets}]"


Network = tuple[bytes, bytes]  # address without host bits, mask


@dataclass(frozen=True, slots=True)
class Header:
    """Conditions on the IP header and the devices; what is None (0, "", False) is no condition.

    iface, out_iface  a name, or a beginning of names with + behind it
    fragment          second and later fragments only
    not_…             the condition is inverted
    """

    source: Network | None = None
    destination: Network | None = None
    iface: str = ""
    out_iface: str = ""
    proto: int = 0
    fragment: bool = False
    not_source: bool = False
    not_destination: bool = False
    not_iface: bool = False
    not_out_iface: bool = False
    not_proto: bool = False
    not_fragment: bool = False
    # (from, to, mask, value, inverted) of each address, as numbers: every packet of a table meets these first
    addresses: tuple[tuple[int, int, int, int, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        addresses = []
        for place, network, inverted in (
            (0, self.source, self.not_source),
            (1, self.destination, self.not_destination),
        ):
            if network is not None:
                size = len(network[0])
                at = (12 if size == 4 else 8) + place * size
                value, mask = (int.from_bytes(octets, "big") for octets in network)
                addresses.append((at, at + size, mask, value, inverted))
        object.__setattr__(self, "addresses", tuple(addresses))

    def matches(self, skb: Skb) -> bool:
        """Do all conditions hold?"""
        packet = skb.packet
        data = packet.data
        if self.iface and _named(self.iface, skb.iface) == self.not_iface:
            return False
        if self.out_iface and _named(self.out_iface, skb.out_iface) == self.not_out_iface:
            return False
        if self.proto:
            if packet.family == 4:
                same = packet.proto == self.proto
            else:
                head = transport(packet)
                if head is None:
                    return False  # even inverted
                same = head.proto == self.proto
            if same == self.not_proto:
                return False
        for at, end, mask, value, inverted in self.addresses:
            if (int.from_bytes(data[at:end], "big") & mask == value) == inverted:
                return False
        return not self.fragment or bool((data[6] & 0x1F) | data[7]) != self.not_fragment

    def text(self) -> str:
        """The conditions as iptables-save prints them.

        >>> Header(iface="eth+", not_iface=True, proto=6).text()
        '! -i eth+ -p tcp'
        """
        words = []
        for letter, network, inverted in (
            ("s", self.source, self.not_source),
            ("d", self.destination, self.not_destination),
        ):
            if network is not None:
                words.append(f"{'! ' * inverted}-{letter} {ntop(network[0])}/{slash_mask(network[1])}")
        if self.iface:
            words.append(f"{'! ' * self.not_iface}-i {self.iface}")
        if self.out_iface:
            words.append(f"{'! ' * self.not_out_iface}-o {self.out_iface}")
        if self.proto:
            words.append(f"{'! ' * self.not_proto}-p {protocol_name(self.proto) or self.proto}")
        if self.fragment:
            words.append(f"{'! ' * self.not_fragment}-f")
        return " ".join(words)


def _named(pattern: str, name: str) -> bool:
    """Does a device name fit?  (`! -i +` says "no device at all": nothing fits `+` there, see `Header.matches`.)"""
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.  At most one of target and jump is there; neither: it counts and goes on.

    target  what is done       jump  the user chain it goes to, with `goto` not to come back
    tracks  it needs connection tracking
    hooks   the only hooks it may be reached from, by its target or a match; (): any
    """

    header: Header = field(default_factory=Header)
    matches: tuple[RuleMatch, ...] = ()
    target: RuleTarget | None = None
    jump: str = ""
    goto: bool = False
    counter: Counter = field(default_factory=Counter, compare=False)
    tracks: bool = field(default=False, compare=False)
    hooks: tuple[int, ...] = field(default=(), compare=False)

    def selects(self, skb: Skb, hook: int, box: Box) -> bool:
        """Does the packet fulfil every condition?"""
        if not self.header.matches(skb):
            return False
        for match in self.matches:  # noqa: SIM110 (a generator costs more than this loop)
            if not match.matches(skb, hook, box):
                return False
        return True

    @property
    def text(self) -> str:
        """The rule as iptables-save prints it, without `-A CHAIN`."""
        words = [self.header.text()]
        words += [f"-m {match.name} {match.text()}".rstrip() for match in printed(self.matches)]
        if self.target is not None:
            words.append(f"-j {self.target.name} {self.target.text()}".rstrip())
        elif self.jump:
            words.append(f"-{'g' if self.goto else 'j'} {self.jump}")
        return " ".join(word for word in words if word)


@runtime_checkable
class Melting(Protocol):
    """A match that may be no expression of its own in nf_tables, so that its bounds are lost in the rule."""

    @property
    def plain(self) -> bool:
        """Is it?"""

    def melt(self, earlier: Any) -> RuleMatch | None:
        """What is printed for it, together with an `earlier` plain one of its name (or None); None: nothing."""


def printed(matches: tuple[RuleMatch, ...]) -> list[RuleMatch]:
    """The matches as they are printed: those that melt, melted into the first of their name."""
    out: list[RuleMatch] = []
    first: dict[str, int] = {}
    for match in matches:
        if not isinstance(match, Melting) or not match.plain:
            out.append(match)
            continue
        at = first.get(match.name)
        melted = match.melt(None if at is None else out[at])
        if melted is not None and at is not None:
            out[at] = melted
        elif melted is not None:
            first[match.name] = len(out)
            out.append(melted)
    return out
