"""How a device's settings are read: net.ipv4.conf.* and net.ipv6.conf.*, of the device and of `all`.

    any    all | device     accept_local, send_redirects, shared_media, route_localnet
    both   all & device     accept_source_route, bc_forwarding
    most   the greater      rp_filter
    own    the device's     forwarding (a write to `all` reaches every device)

One rule: a name that the mapping lacks has the default of a fresh network namespace.

Sources: inetdevice.h (IN_DEV_ANDCONF, IN_DEV_ORCONF, IN_DEV_MAXCONF), ip6_output.c (ip6_forward).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Of the names read here, those not 0: (value of all, value of a device), seen in a fresh namespace of Linux 6.18.
_DEFAULTS: Final = {
    "accept_redirects": (1, 1),
    "send_redirects": (1, 1),
    "shared_media": (1, 1),
    "accept_source_route": (0, 1),
    "hop_limit": (64, 64),
}


class Conf:
    """Reads the device settings in `sysctl`, a mapping of full names."""

    __slots__ = ("sysctl",)

    def __init__(self, sysctl: Mapping[str, int]) -> None:
        self.sysctl = sysctl

    def stamp(self) -> int:
        """How often a setting was written; -1: the mapping does not count."""
        count: int = getattr(self.sysctl, "writes", -1)
        return count

    def any4(self, setting: str, iface: str) -> bool:
        """all | device, IPv4."""
        return bool(self.own4(setting, "all") or self.own4(setting, iface))

    def both4(self, setting: str, iface: str) -> bool:
        """all & device, IPv4."""
        return bool(self.own4(setting, "all") and self.own4(setting, iface))

    def most4(self, setting: str, iface: str) -> int:
        """The greater of all and device, IPv4."""
        return max(self.own4(setting, "all"), self.own4(setting, iface))

    def own4(self, setting: str, iface: str) -> int:
        """The device's own value, IPv4."""
        return self._read(f"net.ipv4.conf.{iface}.{setting}", setting, iface)

    def own6(self, setting: str, iface: str) -> int:
        """The device's own value, IPv6."""
        return self._read(f"net.ipv6.conf.{iface}.{setting}", setting, iface)

    def forwards6(self, iface: str) -> bool:
        """Does the box forward IPv6 packets that came in by this device?"""
        return bool(self.own6("forwarding", "all") or self.own6("force_forwarding", iface))

    def _read(self, name: str, setting: str, iface: str) -> int:
        return self.sysctl.get(name, _DEFAULTS.get(setting, (0, 0))[iface != "all"])
