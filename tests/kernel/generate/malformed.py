"""Packets that lie: cut short, changed at random, wrong lengths, sums and versions.

One rule: it begins with something good that was seen, because most of what a box gets wrong is nearly right.
"""

from __future__ import annotations

from typing import Any

from . import octets
from .world import IP_OPTIONS, Step, World


class Malformed:
    """Damages packets."""

    def __init__(self, world: World) -> None:
        self.world = world

    def next(self) -> Step | None:
        """Something damaged."""
        world, rng = self.world, self.world.rng
        if not world.sent:
            return None
        iface, packet = rng.choice(world.sent)
        if len(packet) < 20:
            return None
        damage = rng.choice(
            (self._cut, self._octet, self._length, self._header, self._sum, self._trailer, self._addresses)
        )
        packet = damage(packet)
        # the device itself refuses a packet of neither version: nothing to compare
        if not packet or packet[0] >> 4 not in (4, 6):
            return None
        return {"op": "receive", "iface": iface, "packet": packet.hex()}

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn."""

    def _cut(self, packet: bytes) -> bytes:
        rng = self.world.rng
        packet = packet[: rng.randrange(1, len(packet) + 1)]
        if self.world.maybe(0.5):
            packet = self._fitted(packet)
        return packet

    def _fitted(self, packet: bytes) -> bytes:
        """The header's length made to fit."""
        if packet[0] >> 4 == 6:
            return (
                packet[:4] + max(len(packet) - 40, 0).to_bytes(2, "big") + packet[6:] if len(packet) > 6 else packet
            )
        if len(packet) < 20:
            return packet
        return _resum(packet[:2] + len(packet).to_bytes(2, "big") + packet[4:])

    def _octet(self, packet: bytes) -> bytes:
        rng = self.world.rng
        at = rng.randrange(1, len(packet))
        packet = packet[:at] + rng.randbytes(1) + packet[at + 1 :]
        return _resum(packet) if self.world.maybe(0.7) else packet

    def _length(self, packet: bytes) -> bytes:
        rng = self.world.rng
        at = 4 if packet[0] >> 4 == 6 else 2
        said = int.from_bytes(packet[at : at + 2], "big")
        said = rng.choice((0, 1, 19, 20, 21, said - 1, said + 1, said - 8, 65535)) & 0xFFFF
        packet = packet[:at] + said.to_bytes(2, "big") + packet[at + 2 :]
        return _resum(packet)

    def _header(self, packet: bytes) -> bytes:
        rng = self.world.rng
        if packet[0] >> 4 == 6:
            return packet[:6] + bytes((rng.choice((0, 43, 44, 50, 51, 59, 60, 135, 255)),)) + packet[7:]
        if self.world.maybe(0.4) and packet[0] == 0x45:
            options = rng.choice(
                (
                    *IP_OPTIONS,
                    b"\x83\x07\x04\x0a\x00\x00\x02\x00",
                    b"\x07\x02\x00\x00",
                    b"\x44\x00\x00\x00",
                    b"\x01\x07\x27\x04",
                )
            )
            packet = bytes((0x45 + len(options) // 4,)) + packet[1:20] + options + packet[20:]
            return self._fitted(packet)
        return _resum(bytes((0x40 | rng.randrange(16),)) + packet[1:])

    def _sum(self, packet: bytes) -> bytes:
        if packet[0] >> 4 == 6:
            return packet
        return packet[:10] + self.world.rng.randbytes(2) + packet[12:]

    def _trailer(self, packet: bytes) -> bytes:
        return packet + self.world.rng.randbytes(self.world.rng.choice((1, 6, 40)))

    def _addresses(self, packet: bytes) -> bytes:
        """Sources and destinations that no router lets pass."""
        rng = self.world.rng
        six = packet[0] >> 4 == 6
        odd = (
            ("::", "::1", "ff02::1", "ff0e::5", "fe80::5", "2001:db8:2::1", "::ffff:1.2.3.4", "2001:db8:2::")
            if six
            else ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.5", "240.0.0.1", "10.0.0.255", "198.51.100.1",
                  "10.0.0.1", "169.254.1.1", "239.1.1.1", "0.1.2.3", "10.0.0.0")
        )  # fmt: skip
        size, at = (16, 8) if six else (4, 12)
        if len(packet) < at + 2 * size:
            return packet
        at += rng.choice((0, size))
        packet = packet[:at] + octets.packed(rng.choice(odd)) + packet[at + size :]
        src, dst = octets.ends(packet)
        proto = packet[6] if six else packet[9]
        head = 40 if six else (packet[0] & 15) * 4
        return _resum(packet[:head] + octets.seal(src, dst, proto, packet[head:]))


def _resum(packet: bytes) -> bytes:
    """An IPv4 header with its right sum."""
    if packet[0] >> 4 != 4 or len(packet) < 20:
        return packet
    head = packet[:10] + b"\0\0" + packet[12 : max((packet[0] & 15) * 4, 20)]
    return packet[:10] + octets.internet_sum(head).to_bytes(2, "big") + packet[12:]
