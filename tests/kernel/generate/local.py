"""Traffic of the box itself: to its addresses, and sent by programs in it.

One rule: what a program in the box sends has a complete header; what it answers is the kernel's doing.
"""

from __future__ import annotations

from typing import Any

from . import octets
from .octets import ACK, ICMP, ICMPV6, SYN, TCP, UDP
from .world import CLIENTS, OWN, SERVERS, SERVICES, Step, World


class Local:
    """Packets to the box, from the box, and answers to the latter."""

    def __init__(self, world: World) -> None:
        self.world = world

    def next(self) -> Step | None:
        """One of the three."""
        world, rng = self.world, self.world.rng
        family = world.family()
        inside = world.maybe(0.5)
        iface = "in0" if inside else "out0"
        if world.maybe(0.45):
            src = rng.choice((CLIENTS if inside else SERVERS)[family])
            dst = OWN[family][rng.choice(("in0", "out0"))]
            proto, l4 = self._body(src, dst, family)
            return world.arrive(iface, world.wrap(src, dst, proto, l4))
        src = OWN[family]["in0" if world.maybe(0.5) else "out0"]
        dst = rng.choice((CLIENTS if inside else SERVERS)[family])
        if world.maybe(0.05):
            dst = OWN[family]["in0"]
        proto, l4 = self._body(src, dst, family)
        return {"op": "send", "packet": world.wrap(src, dst, proto, l4, ttl=64).hex()}

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn beyond the wires."""

    def _body(self, src: str, dst: str, family: int) -> tuple[int, bytes]:
        world, rng = self.world, self.world.rng
        dice = rng.random()
        if dice < 0.4:
            proto, l4 = (
                UDP,
                octets.udp(world.port(), rng.choice(SERVICES), rng.randbytes(rng.choice((0, 10, 1000)))),
            )
        elif dice < 0.7:
            flags = rng.choice((SYN, SYN, SYN, ACK, SYN | ACK, 4, 17))
            proto = TCP
            l4 = octets.tcp(
                world.port(), rng.choice(SERVICES), flags, rng.getrandbits(32), rng.getrandbits(32), 8192
            )
        else:
            proto = ICMPV6 if family == 6 else ICMP
            kind = rng.choice((128, 128, 128, 129, 139)) if family == 6 else rng.choice((8, 8, 8, 0, 13, 15, 17))
            l4 = octets.icmp(
                kind, 0, rng.choice((b"\0\1", b"\0\2")) + b"\0\1", rng.randbytes(rng.choice((0, 8, 56)))
            )
        return proto, octets.seal(src, dst, proto, l4)
