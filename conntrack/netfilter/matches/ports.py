"""Ports in the transport header, as nf_tables compares them: what -m tcp and -m udp have in common.

    one port     equal, or not               [0, q]   not above, or above
    [p, q]       within, or not within       both ports given, one each, above 0, both inverted or neither:
                                             four octets compared at once

The last line is no shorthand: `! --sport 5 ! --dport 6` is true of all packets but those from 5 to 6.

Source: add_nft_tcpudp, expr_gen_range_cmp16 (nft.c) of iptables 1.8.9.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...wire.packet import Packet
from ..rules.transport import octets

ANY = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Ports:
    """Ranges of source and destination port; ANY is no condition, inverted or not."""

    source: tuple[int, int] = ANY
    destination: tuple[int, int] = ANY
    not_source: bool = False
    not_destination: bool = False

    def hold(self, packet: Packet) -> bool:
        """Do the packet's ports fit?  Not if they cannot be read."""
        if self.source == self.destination == ANY:
            return True
        if self._at_once():
            both = octets(packet, 0, 4)
            wanted = self.source[0] << 16 | self.destination[0]
            return both is not None and (int.from_bytes(both, "big") == wanted) != self.not_source
        for offset, (low, high), inverted in (
            (0, self.source, self.not_source),
            (2, self.destination, self.not_destination),
        ):
            if (low, high) != ANY:
                port = octets(packet, offset, 2)
                if port is None or (low <= int.from_bytes(port, "big") <= high) == inverted:
                    return False
        return True

    def _at_once(self) -> bool:
        (low, high), (low2, high2) = self.source, self.destination
        return 0 < low == high and 0 < low2 == high2 and self.not_source == self.not_destination

    def read_back(self, earlier: Ports | None) -> Ports:
        """As they are printed, over what an `earlier` match of the rule had.

        `! --dport 0:7` has become `--dport 8:65535`; of ANY no inversion is left; one that was read stays.
        """
        before = earlier or NO_PORTS
        source, not_source = _read_back(self.source, self.not_source, before.source, before.not_source)
        destination, not_destination = _read_back(
            self.destination, self.not_destination, before.destination, before.not_destination
        )
        return Ports(source, destination, not_source, not_destination)

    def text(self) -> list[str]:
        """The options."""
        return [
            f"{'! ' * inverted}--{option} {low}" + (f":{high}" if high != low else "")
            for option, (low, high), inverted in (
                ("sport", self.source, self.not_source),
                ("dport", self.destination, self.not_destination),
            )
            if (low, high) != ANY
        ]


NO_PORTS = Ports()


def _read_back(
    ports: tuple[int, int], inverted: bool, before: tuple[int, int], was_inverted: bool
) -> tuple[tuple[int, int], bool]:
    low, high = ports
    if ports == ANY:
        return before, was_inverted
    if low == 0 < high:
        return ((min(high + 1, 0xFFFF), before[1]) if inverted else (before[0], high)), was_inverted
    return ports, inverted or was_inverted


def hold_plainly(ports: Ports, source: int, destination: int) -> bool:
    """As xtables itself compares them: each range by itself, inverted ANY never fits."""
    return (ports.source[0] <= source <= ports.source[1]) != ports.not_source and (
        ports.destination[0] <= destination <= ports.destination[1]
    ) != ports.not_destination
