"""-j TTL and -j HL: set, lower or raise the time to live (IPv4) or hop limit (IPv6), between 0 and 255.

Sources: libipt_TTL.c, libip6t_HL.c of iptables 1.8.9; xt_HL.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...nat.rewrite import writable
from ...wire.checksum import GOOD, update
from ..box import CONTINUE, Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import number
from ..skb import Skb

_MODES = ("set", "dec", "inc")
_NAMES = {4: "TTL", 6: "HL"}


@dataclass(frozen=True, slots=True)
class Ttl:
    """family; mode: "set", "dec" or "inc"; by or to what"""

    family: int
    mode: str
    value: int

    @property
    def name(self) -> str:
        """-j TTL, -j HL"""
        return _NAMES[self.family]

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Change the field, and in IPv4 the header's checksum."""
        packet = skb.packet
        at = 8 if packet.family == 4 else 7
        old = packet.data[at]
        new = {"set": self.value, "dec": max(old - self.value, 0), "inc": min(old + self.value, 255)}[self.mode]
        if new != old:
            data = writable(packet)
            data[at] = new
            if packet.family == 6:
                skb.stale_sum = packet.checksum == GOOD  # a sum over the whole packet was kept, and is wrong now
            else:
                checksum = update(data[10] << 8 | data[11], (new - old << 8) % 0xFFFF)
                data[10:12] = checksum.to_bytes(2, "big")
        return CONTINUE

    def text(self) -> str:
        """The options."""
        return f"--{self.name.lower()}-{self.mode} {self.value}"


def _parse(argument: Argument) -> int:
    least = 0 if argument.option.endswith("set") else 1
    value = number(argument.text, least, 255)
    if value is None:
        raise Refused(f'bad value for option "--{argument.option}", or out of range ({least}-255)')
    return value


def _build(given: Given) -> Ttl:
    refuse_unless(given, "You must specify an action")
    return Ttl(given.family, given.order[0].rpartition("-")[2], given.get(given.order[0]))


def _extension(family: int) -> Extension:
    name = _NAMES[family]
    options = tuple(f"{name.lower()}-{mode}" for mode in _MODES)
    return Extension(
        TARGET,
        name,
        _build,
        tuple(Option(option, _parse, excludes=options) for option in options),
        families=(family,),
        table="mangle",
    )


EXTENSIONS = (_extension(4), _extension(6))
