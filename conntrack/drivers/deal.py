"""Whose packet is it?  How the packets of one capture are dealt to several workers.

One rule: packets that could ever meet in one engine go to one worker, and what says so is the *remote* address, for
no translation touches it.  "Ours" are the networks inside and every address that a rule translates from or to; all
others are remote.  A reply tuple that two connections could both want holds the same remote, so each worker finds
free ports by itself, and no ports are parted between workers.

    source  destination   dealt by
    ours    remote        the destination
    remote  ours          the source
    remote  remote        both addresses, whichever comes first
    ours    ours          the same; with NAT, where both may be translated, worker 0 takes them all

The addresses are those of the packet; of an ICMP error those of the packet it quotes, for its connection's worker
must have it.  A fragment has addresses, and that is all it needs.  What is not IP goes to worker 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Final

from ..nat.rules import Dnat, Masquerade, NatRule, Netmap, Redirect, Snat
from ..trackers import icmp, icmpv6
from ..verdict import ICMP, ICMPV6
from ..wire import link
from ..wire.packet import parse
from .vantage import Networks

REMEMBERED: Final = 1 << 17  # addresses, and pairs of them, whose worker is not computed again
_OURS: Final = -1


class Deal:
    """Which worker has a packet: the table above."""

    __slots__ = ("_ends", "_nat", "_ours", "_workers")

    def __init__(self, workers: int, inside: Sequence[str], nat: Sequence[NatRule] | None) -> None:
        self._workers = workers
        self._nat = nat is not None
        self._ours = Networks([*inside, *_translated(nat or ())])
        self._ends: dict[bytes, int] = {}  # address -> its worker, _OURS; the last so many

    def addresses(self, pair: bytes) -> int:
        """By source and destination address side by side, 8 or 32 octets."""
        half = len(pair) // 2
        source, destination = self._end(pair[:half]), self._end(pair[half:])
        if destination < 0 <= source:
            return source
        if source < 0 <= destination:
            return destination
        if source < 0 and self._nat:
            return 0
        return self._drawn(min(pair, pair[half:] + pair[:half]))

    def _end(self, address: bytes) -> int:
        """The worker of a remote address, or _OURS."""
        known = self._ends.get(address)
        if known is None:
            if len(self._ends) >= REMEMBERED:
                self._ends.clear()
            known = _OURS if address in self._ours else self._drawn(address)
            self._ends[address] = known
        return known

    def _drawn(self, octets: bytes) -> int:
        """A worker, the same for the same octets always and everywhere."""
        return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big") % self._workers

    def frame(self, data: bytes, wire_length: int) -> tuple[int, bool]:
        """(worker, is it IP?) of an Ethernet frame of any kind."""
        offset, ethertype = link.locate(link.EN10MB, data)
        if offset < 0 or (ethertype != link.ETHERTYPE_IPV4 and ethertype != link.ETHERTYPE_IPV6):
            return 0, False
        packet = parse(data[offset:], wire_length - offset)
        if not packet.family:
            return 0, True  # without addresses it is INVALID wherever it is
        if packet.proto == (ICMP if packet.family == 4 else ICMPV6) and not packet.lacks(8):
            # a fragment goes where its other fragments go
            if packet.l4 and not (packet.fragment and _cut(packet.data, packet.family, packet.l4)):
                quote_offset = icmp.quote_offset if packet.family == 4 else icmpv6.quote_offset
                at = quote_offset(packet)[0]
                quote = packet.data[at + 12 : at + 20] if packet.family == 4 else packet.data[at + 8 : at + 40]
                if at and len(quote) == (8 if packet.family == 4 else 32):
                    return self.addresses(bytes(quote)), True
        return self.addresses(packet.addresses()), True


def _translated(nat: Sequence[NatRule]) -> Iterator[str]:
    """Every address that the rules translate from or to, as networks; ValueError for a rule that does not say."""
    for rule in nat:
        of_source = isinstance(rule, Snat | Masquerade) or (isinstance(rule, Netmap) and rule.source is not None)
        if isinstance(rule, Redirect) and rule.address is None:
            continue  # the address stays
        matched = rule.source if of_source else rule.destination
        texts = [matched] if isinstance(matched, str) else list(matched or ())
        if not texts or texts[0].startswith("!"):
            side = "source" if of_source else "destination"
            raise ValueError(
                f"workers: {rule}: names no {side}; it could translate any address, and none would tell the worker"
            )
        yield from texts
        yield from _targets(rule)


def _targets(rule: NatRule) -> Iterator[str]:
    """What a rule translates to, as networks."""
    match rule:
        case Snat() | Dnat():
            first, _, last = rule.to.partition("-")
            ends = ip_address(first.strip()), ip_address((last or first).strip())
            yield from map(str, summarize_address_range(*ends))
        case Masquerade():
            yield from [rule.to] if isinstance(rule.to, str) else rule.to
        case Redirect():
            yield rule.address or ""
        case Netmap():
            yield str(ip_network(rule.to, strict=False))


def _cut(data: bytes | bytearray, family: int, l4: int) -> bool:
    """Is the fragment at hand less than the whole packet?  (IPv6 has fragments that are all of it: RFC 6946.)"""
    return family == 4 or bool(data[l4 - 5] & 1)
