"""The running kernel as something that rules are loaded into and packets sent through.

Sources: see `namespace` of the differential suite.
"""

from __future__ import annotations

import os

from namespace import drain, new_namespace, open_tun, run, visit, write_sysctl

from .fakes import INTERFACES, ROUTES

# The box's own errors are not to depend on what was sent before.
QUIET = {
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv4.icmp_msgs_per_sec": 100000,
    "net.ipv4.icmp_msgs_burst": 10000,
    **{f"net.ipv4.conf.{name}.send_redirects": 0 for name in ("all", "default", *INTERFACES)},
}


class Kernel:
    """A namespace with the interfaces of `fakes`, without connection tracking."""

    def __init__(self, forwarding: int = 1) -> None:
        with new_namespace() as self.namespace:
            self.tuns = {name: open_tun(name) for name in INTERFACES}
            write_sysctl("net.ipv4.ip_forward", forwarding)
            write_sysctl("net.ipv6.conf.all.forwarding", forwarding)
            for name, value in QUIET.items():
                write_sysctl(name, value)
            run("ip", "link", "set", "lo", "up")
            for name, addresses in INTERFACES.items():
                write_sysctl(f"net.ipv6.conf.{name}.addr_gen_mode", 1)
                write_sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
                run("ip", "link", "set", name, "up")
                for address in addresses:
                    run("ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            for route in ROUTES:
                run("ip", "route", "add", *route.split())

    def load(self, text: str, family: int) -> None:
        """Put the rules there."""
        with visit(self.namespace):
            run("iptables-restore" if family == 4 else "ip6tables-restore", text=text)

    def forget(self) -> None:
        """End all connections, and wait for nothing."""
        with visit(self.namespace):
            run("conntrack", "-F")

    def send(self, packet: bytes, iface: str = "in0") -> list[bytes]:
        """Let the packet come in by `iface`; what leaves of it by out0."""
        os.write(self.tuns[iface], packet)
        list(drain(self.tuns["in0"]))
        source = slice(12, 16) if packet[0] >> 4 == 4 else slice(8, 24)
        return [out for out in drain(self.tuns["out0"]) if out[source] == packet[source]]

    def saved(self, family: int, table: str = "mangle") -> str:
        """iptables-save -c of one table, or of all."""
        with visit(self.namespace):
            text = run(
                "iptables-save" if family == 4 else "ip6tables-save", "-c", *(["-t", table] if table else [])
            )
        return "".join(line + "\n" for line in text.splitlines() if not line.startswith("#"))

    def close(self) -> None:
        """Let it go."""
        for tun in self.tuns.values():
            os.close(tun)
        os.close(self.namespace)
