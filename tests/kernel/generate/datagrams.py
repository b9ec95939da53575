"""Protocols without connections of their own: UDP, UDP-Lite, ICMP and ICMPv6 queries, GRE, ESP and others.

One rule: who answers, answers what reached its wire.
"""

from __future__ import annotations

from typing import Any

from . import octets
from .octets import ESP, GRE, ICMP, ICMPV6, UDP, UDPLITE
from .world import SERVICES, Step, World

_ANSWER = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}  # query types and their answers
_QUERIES = {4: (8, 8, 8, 13, 15, 17), 6: (128, 128, 128, 139)}
_OTHERS = {4: (0, 14, 3, 9, 10, 19, 30, 255), 6: (129, 140, 130, 133, 135, 138, 143, 151, 153, 200)}


class Datagrams:
    """Fresh packets and answers to packets, of every protocol that is not TCP or SCTP."""

    def __init__(
        self, world: World, kinds: tuple[str, ...] = ("udp", "udp", "icmp", "udplite", "gre", "raw")
    ) -> None:
        self.world = world
        self.kinds = kinds

    def next(self) -> Step | None:
        """Something new, something repeated, or an answer."""
        world = self.world
        dice = world.rng.random()
        if dice < 0.5:
            return self._fresh()
        if dice < 0.6 and world.sent:
            return world.arrive(*world.rng.choice(world.sent))
        heard = world.overheard()
        if heard is None:
            return self._fresh()
        name, packet = heard
        reply = answer(world, packet)
        return world.arrive(name, reply) if reply else self._fresh()

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn beyond the wires."""

    def _fresh(self) -> Step:
        world = self.world
        family = world.family()
        iface, src, dst = world.pair(family)
        kind = world.rng.choice(self.kinds)
        proto, l4 = getattr(self, f"_{kind}")(src, dst, family)
        return world.arrive(iface, world.wrap(src, dst, proto, l4))

    def _udp(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        world, rng = self.world, self.world.rng
        payload = rng.randbytes(rng.choice((0, 1, 5, 60, 500)))
        dport = rng.choice(SERVICES) if world.maybe(0.9) else world.port()
        l4 = octets.udp(world.port(), dport, payload)
        if world.maybe(0.1):
            return UDP, l4  # without a checksum
        l4 = octets.seal(src, dst, UDP, l4)
        return UDP, l4[:6] + rng.randbytes(2) + l4[8:] if world.maybe(0.02) else l4

    def _udplite(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        rng = self.world.rng
        payload = rng.randbytes(rng.choice((0, 4, 20)))
        coverage = rng.choice((0, 0, 8, 8 + len(payload), 7, 200))
        l4 = octets.udp(self.world.port(), rng.choice(SERVICES), payload, coverage)
        if self.world.maybe(0.05):
            return UDPLITE, l4
        return UDPLITE, octets.seal(src, dst, UDPLITE, l4, coverage)

    def _icmp(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        world, rng = self.world, self.world.rng
        proto = ICMPV6 if family == 6 else ICMP
        if world.maybe(0.03):
            proto = ICMP + ICMPV6 - proto  # the other family's
        kind = rng.choice(_QUERIES[family]) if world.maybe(0.85) else rng.choice(_OTHERS[family])
        code = rng.choice((1, 9)) if world.maybe(0.05) else 0
        ident = rng.choice((7, 8, 9, 0, 65535)).to_bytes(2, "big") + rng.randbytes(2)
        l4 = octets.icmp(kind, code, ident, rng.randbytes(rng.choice((0, 8, 32))))
        l4 = octets.seal(src, dst, proto, l4)
        return proto, l4[:2] + rng.randbytes(2) + l4[4:] if world.maybe(0.02) else l4

    def _gre(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        rng = self.world.rng
        plain = bytes((0, 0, 8, 0)) + rng.randbytes(8)
        call = rng.choice((1, 2, 500)).to_bytes(2, "big")
        pptp = bytes((0x30, 1, 0x88, 0x0B, 0, 4)) + call + rng.randbytes(8)
        odd = bytes((0x30, 1, 8, 0, 0, 4)) + call + rng.randbytes(4)
        version2 = bytes((0, 2, 8, 0)) + rng.randbytes(8)
        return GRE, rng.choice((plain, plain, pptp, pptp, odd, version2, b"\0", pptp[:7]))

    def _raw(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        rng = self.world.rng
        return rng.choice((ESP, ESP, 4, 33, 41, 89, 103, 253)), rng.randbytes(rng.choice((0, 4, 8, 20, 40)))


def answer(world: World, packet: bytes) -> bytes | None:
    """What the receiver of `packet` would say; None if nothing."""
    src, dst = octets.ends(packet)
    proto, l4 = octets.transport(packet)
    rng = world.rng
    if octets.is_fragment(packet) or len(l4) < 8:
        return None
    if proto in (UDP, UDPLITE):
        coverage = 0
        turned = octets.udp(
            int.from_bytes(l4[2:4], "big"), int.from_bytes(l4[:2], "big"), rng.randbytes(rng.choice((0, 8, 100)))
        )
        if proto == UDPLITE:
            turned = turned[:4] + bytes(4) + turned[8:]
        if not (proto == UDP and world.maybe(0.1)):
            turned = octets.seal(dst, src, proto, turned, coverage)
        return world.wrap(dst, src, proto, turned)
    if proto in (ICMP, ICMPV6):
        kind = _ANSWER.get(l4[0])
        if kind is None:
            return None
        return world.wrap(dst, src, proto, octets.seal(dst, src, proto, bytes((kind, l4[1], 0, 0)) + l4[4:]))
    if proto in (octets.TCP, octets.SCTP):
        return None
    return world.wrap(dst, src, proto, l4)
