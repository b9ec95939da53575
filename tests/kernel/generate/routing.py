"""Packets whose addresses or ways are out of the ordinary, and the settings and routes that decide about them.

One rule: between two such packets nothing is undone but what a change takes back itself, so that connections meet
a routing that is not the one they began with.
"""

from __future__ import annotations

from typing import Any

from . import octets
from .changes import sysctl_step
from .octets import ICMP, ICMPV6, SYN, TCP, UDP
from .world import CLIENTS, OWN, PUBLIC, SERVERS, SERVICES, Step, World

ODD = {
    4: ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.3.3.3", "224.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "10.0.0.0", "10.0.0.255", "198.51.100.0", "198.51.100.255", "169.254.7.7", "192.168.9.9",
        "172.16.0.9", "10.9.9.9"),
    6: ("::", "::1", "ff02::1", "ff02::2", "ff02::5", "ff01::1", "ff05::2", "fe80::1", "fe80::99", "fd00:1::",
        "2001:db8:2::", "::ffff:10.0.0.2", "::7", "fd00:9::9", "2001:db8:bad::1", "fec0::1"),
}  # fmt: skip
# Routes that a box may have beside those of its interfaces.
ROUTES = (
    "192.168.0.0/16 via 10.0.0.4", "blackhole 172.16.0.0/12", "unreachable 203.0.113.6", "prohibit 10.9.0.0/16",
    "throw 169.254.0.0/16", "203.0.113.0/28 via 198.51.100.7 dev out0 mtu 1300", "10.9.9.9 dev out0",
    "fd00:9::/64 via fd00:1::3", "blackhole 2001:db8:bad::/48", "unreachable 2001:db8:ffff::/48",
    "prohibit 2600::/16", "2001:db8:9::/64 via 2001:db8:2::7 dev out0",
)  # fmt: skip
SETTINGS = {
    "net.ipv4.conf.all.rp_filter": (0, 1, 2),
    "net.ipv4.conf.in0.rp_filter": (0, 1, 2),
    "net.ipv4.conf.out0.rp_filter": (0, 1, 2),
    "net.ipv4.conf.out0.accept_local": (0, 1),
    "net.ipv4.conf.in0.route_localnet": (0, 1),
    "net.ipv4.conf.in0.send_redirects": (0, 1),
    "net.ipv4.conf.in0.forwarding": (1, 0),
    "net.ipv4.ip_default_ttl": (64, 9),
    "net.ipv6.conf.in0.hop_limit": (64, 9),
    "net.ipv4.icmp_errors_use_inbound_ifaddr": (0, 1),
    "net.ipv4.icmp_echo_ignore_all": (0, 1),
    "net.ipv4.icmp_echo_ignore_broadcasts": (1, 0),
}


class Routing:
    """Odd packets, and now and then a change of a route or a setting."""

    def __init__(self, world: World, routes: tuple[str, ...] = ()) -> None:
        self.world = world
        self.undo: list[Step] = []
        self.routes = list(routes)  # those that stand

    def next(self) -> Step | None:
        """A packet, or a change."""
        world, rng = self.world, self.world.rng
        if world.maybe(0.08):
            if self.undo and world.maybe(0.5):
                return self.undo.pop()
            return self._setting() if world.maybe(0.6) else self._route()
        family = world.family()
        inside = world.maybe(0.5)
        near = (CLIENTS if inside else SERVERS)[family]
        far = (*(SERVERS if inside else CLIENTS)[family], *PUBLIC[family])
        src = rng.choice((*ODD[family], *OWN[family].values())) if world.maybe(0.35) else rng.choice(near)
        dst = rng.choice((*ODD[family], *OWN[family].values())) if world.maybe(0.6) else rng.choice(far)
        proto, l4 = self._body(family)
        packet = world.wrap(src, dst, proto, octets.seal(src, dst, proto, l4))
        if world.maybe(0.08):
            src = rng.choice(list(OWN[family].values()))
            packet = world.wrap(src, dst, proto, octets.seal(src, dst, proto, l4), ttl=64)
            return {"op": "send", "packet": packet.hex()}
        return world.arrive("in0" if inside else "out0", packet)

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn."""

    def _body(self, family: int) -> tuple[int, bytes]:
        world, rng = self.world, self.world.rng
        dice = rng.random()
        if dice < 0.45:
            return UDP, octets.udp(world.port(), rng.choice(SERVICES), rng.randbytes(rng.choice((0, 10, 1300))))
        if dice < 0.65:
            flags = rng.choice((SYN, SYN, 16, 18, 4))
            return TCP, octets.tcp(world.port(), rng.choice(SERVICES), flags, rng.getrandbits(32), 0, 8192)
        if dice < 0.9:
            ident = rng.choice((7, 8)).to_bytes(2, "big") + b"\0\1"
            kind = 128 if family == 6 else 8
            return (ICMPV6 if family == 6 else ICMP), octets.icmp(kind, 0, ident, rng.randbytes(24))
        return rng.choice((2, 47, 50, 89, 103)), rng.randbytes(rng.choice((8, 20)))

    def _setting(self) -> Step:
        return sysctl_step(self.world, SETTINGS, self.undo)

    def _route(self) -> Step:
        route = self.world.rng.choice(ROUTES)
        present = route not in self.routes
        if present:
            self.routes.append(route)
        else:
            self.routes.remove(route)
        return {"op": "route", "route": route, "present": present}
