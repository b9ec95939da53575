"""The world around the box: who lives on which wire, and what has gone by.

One rule: what a host out there knows, it knows from the packets that reached its wire.

     clients 10.0.0.2…  fd00:1::2…  ── in0 [ box ] out0 ── servers 203.0.113.5…  2600::1…
                                                          └ neighbours 198.51.100.7, 2001:db8:2::7
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import octets

Step = dict[str, Any]

CLIENTS = {4: ("10.0.0.2", "10.0.0.3", "10.0.0.4"), 6: ("fd00:1::2", "fd00:1::3")}
SERVERS = {4: ("203.0.113.5", "203.0.113.6", "198.51.100.7"), 6: ("2600::1", "2001:db8:ffff::9", "2001:db8:2::7")}
ROUTERS = {4: "192.0.2.9", 6: "2001:db8:9::9"}
OWN = {4: {"in0": "10.0.0.1", "out0": "198.51.100.1"}, 6: {"in0": "fd00:1::1", "out0": "2001:db8:2::1"}}
# Addresses on the outer wire that nobody owns: DNAT rules serve them.
PUBLIC = {4: ("198.51.100.9", "198.51.100.10"), 6: ("2001:db8:2::9", "2001:db8:2::a")}
POOL = {4: "198.51.100.20-198.51.100.23", 6: "2001:db8:2::20-2001:db8:2::23"}
PORTS = (1, 80, 300, 511, 512, 800, 1023, 1024, 5000, 8080, 40000, 65535)
SERVICES = (21, 53, 69, 80, 443, 5000, 8080)


class Actor(Protocol):
    """Somebody who does things, one at a time."""

    def next(self) -> Step | None:
        """The next step, None if there is nothing to do."""

    def saw(self, record: dict[str, Any]) -> None:
        """What became of it."""


@dataclass
class World:
    """Shared by all actors of a scenario."""

    rng: random.Random
    six: float = 0.3  # how often IPv6
    wires: dict[str, deque[bytes]] = field(default_factory=dict)  # what left, by device
    sent: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=60))  # what arrived
    ident: int = 0

    def __post_init__(self) -> None:
        self.ident = self.rng.randrange(1 << 16)
        self.wires = {"in0": deque(maxlen=60), "out0": deque(maxlen=60)}

    def family(self) -> int:
        """4 or 6."""
        return 6 if self.rng.random() < self.six else 4

    def maybe(self, chance: float) -> bool:
        """True that often."""
        return self.rng.random() < chance

    def port(self) -> int:
        """A source port; half of the time from a few, so that they collide."""
        return self.rng.choice(PORTS) if self.maybe(0.6) else self.rng.randint(1024, 65535)

    def outsider(self, family: int) -> str:
        """Somebody beyond out0."""
        return self.rng.choice(SERVERS[family])

    def insider(self, family: int) -> str:
        """Somebody behind in0."""
        return self.rng.choice(CLIENTS[family])

    def pair(self, family: int) -> tuple[str, str, str]:
        """(device, source, destination) of something new: mostly from inside out."""
        dice = self.rng.random()
        if dice < 0.62:
            return "in0", self.insider(family), self.outsider(family)
        if dice < 0.80:
            return "out0", self.outsider(family), self.rng.choice(PUBLIC[family])
        if dice < 0.88:
            return "in0", self.insider(family), self.rng.choice(PUBLIC[family])
        if dice < 0.94:
            return "out0", self.outsider(family), self.insider(family)
        if dice < 0.97:
            return "in0", self.insider(family), self.rng.choice(list(OWN[family].values()))
        return "out0", self.outsider(family), OWN[family]["out0"]

    def wrap(self, src: str, dst: str, proto: int, l4: bytes, **more: int) -> bytes:
        """`l4` in IPv4 or IPv6, now and then with TOS, DF, options, a low TTL, extension headers."""
        rng = self.rng
        six = ":" in src
        ttl = more.pop("ttl", 0) or (rng.choice((0, 1, 2, 255)) if self.maybe(0.02) else 64)
        tos = rng.choice((0, 0, 0x10, 0xFF)) if self.maybe(0.1) else 0
        if six:
            label = rng.getrandbits(20) if self.maybe(0.1) else 0
            if self.maybe(0.04):
                proto, l4 = self.extended(proto, l4)
            return octets.ipv6(src, dst, proto, l4, ttl=ttl, tos=tos, label=label)
        self.ident = (self.ident + 1) & 0xFFFF
        fragment = 0x4000 if self.maybe(0.3) else 0
        options = rng.choice(IP_OPTIONS) if self.maybe(0.03) else b""
        return octets.ipv4(
            src, dst, proto, l4, ttl=ttl, ident=self.ident, fragment=fragment, tos=tos, options=options
        )

    def extended(self, proto: int, l4: bytes) -> tuple[int, bytes]:
        """One or two extension headers before `l4`: (first next header, octets)."""
        for _ in range(self.rng.choice((1, 1, 2))):
            kind = self.rng.choice((octets.DESTINATION, octets.DESTINATION, octets.ROUTING))
            body = bytes((1, 4, 0, 0, 0, 0)) if kind == octets.DESTINATION else bytes((0, 0, 0, 0, 0, 0))
            l4 = bytes((proto, 0)) + body + l4
            proto = kind
        if self.maybe(0.3):
            l4 = bytes((proto, 0, 1, 4, 0, 0, 0, 0)) + l4  # hop by hop, PadN
            proto = octets.HOP_BY_HOP
        return proto, l4

    def arrive(self, iface: str, packet: bytes) -> Step:
        """A packet arrives."""
        self.sent.append((iface, packet))
        return {"op": "receive", "iface": iface, "packet": packet.hex()}

    def saw(self, record: dict[str, Any]) -> None:
        """Remember what left."""
        for name, data in record["out"]:
            wire = self.wires.get(name)
            if wire is not None:
                wire.append(bytes.fromhex(data))

    def overheard(self) -> tuple[str, bytes] | None:
        """(device, packet) of something that left lately."""
        names = [name for name, wire in self.wires.items() if wire]
        if not names:
            return None
        name = self.rng.choice(names)
        wire = self.wires[name]
        return name, wire[-1 - min(int(self.rng.expovariate(0.25)), len(wire) - 1)]


# NOP NOP NOP EOL; record route (7), time stamp without room (68), router alert (148), unknown (200), EOL
IP_OPTIONS = (
    b"\x01\x01\x01\x00",
    b"\x07\x07\x04\x00\x00\x00\x00\x00",
    b"\x44\x08\x09\x00\x00\x00\x00\x00",
    b"\x94\x04\x00\x00",
    b"\xc8\x04\x00\x00",
    b"\x00\x00\x00\x00",
)
