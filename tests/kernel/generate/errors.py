"""ICMP errors and redirects about whatever went by, from the end, a router on the way, or a liar.

One rule: the quote is what the complainer saw on its wire, so the four directions of a translated flow come by
themselves; then it may be cut short, be about nobody, or be quoted with changes.
"""

from __future__ import annotations

from typing import Any

from . import octets
from .octets import ICMP, ICMPV6
from .world import OWN, ROUTERS, Step, World

_KINDS = {
    4: ((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0), (5, 0), (5, 1)),
    6: ((1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 1), (100, 0), (127, 3)),
}


class Errors:
    """Complaints."""

    def __init__(self, world: World) -> None:
        self.world = world

    def next(self) -> Step | None:
        """A complaint about a packet that left, or (rarely) about one that arrived."""
        world, rng = self.world, self.world.rng
        if world.sent and world.maybe(0.12):
            name, packet = rng.choice(world.sent)
        else:
            heard = world.overheard()
            if heard is None:
                return None
            name, packet = heard
        if len(packet) < 28:
            return None
        src, dst = octets.ends(packet)
        if octets.family(packet) == 6 and packet[24] == 0xFF:
            return None
        return world.arrive(name, self._complaint(packet, src, dst))

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn."""

    def _complaint(self, packet: bytes, src: str, dst: str) -> bytes:
        world, rng = self.world, self.world.rng
        family = octets.family(packet)
        proto = ICMPV6 if family == 6 else ICMP
        sender = dst if world.maybe(0.5) else ROUTERS[family]
        receiver = src
        if world.maybe(0.06):
            receiver = rng.choice((world.insider(family), world.outsider(family), OWN[family]["out0"]))
        head = 40 if family == 6 else (packet[0] & 15) * 4
        cut = rng.choice((head + 8, head + 8, len(packet), len(packet), head + 20, head + 4, head + 3, head))
        if world.maybe(0.08):
            cut = rng.randrange(len(packet) + 1)
        quote = packet[: min(cut, 576)]
        if world.maybe(0.05) and quote:
            at = rng.randrange(len(quote))
            quote = quote[:at] + rng.randbytes(1) + quote[at + 1 :]
        if family == 6 and world.maybe(0.08):
            return self._redirect(packet, quote, src, dst)
        kind, code = rng.choice(_KINDS[family])
        rest = bytes(4)
        if (kind, code) in ((3, 4), (2, 0)):
            rest = (1400).to_bytes(4, "big")
        if kind == 5 and family == 4:
            rest = octets.packed(rng.choice((OWN[4]["in0"], "10.0.0.3", "198.51.100.7")))
        if kind == 12:
            rest = bytes((1, 0, 0, 0))
        l4 = octets.seal(sender, receiver, proto, octets.icmp(kind, code, rest, quote))
        if world.maybe(0.03):
            l4 = l4[:2] + rng.randbytes(2) + l4[4:]
        if world.maybe(0.02):
            l4 = l4[: rng.randrange(9)]
        return world.wrap(sender, receiver, proto, l4)

    def _redirect(self, packet: bytes, quote: bytes, src: str, dst: str) -> bytes:
        """ICMPv6 137, with the ways in which it can be wrong."""
        world, rng = self.world, self.world.rng
        sender = "fe80::9" if world.maybe(0.7) else dst
        quote = quote[: len(quote) & ~7]
        option = bytes((4, 1 + len(quote) // 8)) + bytes(6) + quote
        option = rng.choice((option, option, option, b"", bytes((1, 1)) + bytes(6) + option, bytes(8)))
        targets = octets.packed("fe80::8") + octets.packed(dst)
        l4 = octets.icmp(137, 1 if world.maybe(0.1) else 0, bytes(4), targets + option)
        if world.maybe(0.1):
            l4 = l4[: rng.randrange(8, 40)]
        hops = 255 if world.maybe(0.8) else 64
        return octets.ipv6(sender, src, ICMPV6, octets.seal(sender, src, ICMPV6, l4), ttl=hops)
