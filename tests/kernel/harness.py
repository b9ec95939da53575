"""The running Linux kernel as one object: give it a packet, see what it forwards and what it remembers.

One rule: nothing here knows how connection tracking works. It asks the kernel, by the same roads as any
program would, and reports in the shape of docs/records.schema.json.

    write ──► in0 (TUN) ─► PREROUTING ─► routing ─► FORWARD ─► POSTROUTING ─► out0 (TUN) ──► read
    read  ◄── in0 (TUN) ◄──────────── the same, other way ◄─────────────────── out0 (TUN) ◄── write

A Kernel owns a network namespace with two TUN devices. The thread that makes it visits the namespace and
comes home; devices and sockets opened during the visit stay there. Forwarding through a TUN happens inside
write(), so what comes out can be read when write() returns: no waiting, no threads, some ten thousand
packets a second.

The class of a packet (NEW, ESTABLISHED…) has to come out together with it: five rules in mangle FORWARD
write it into the DSCP field, from where `send` takes it; the sender's own DSCP is put back. As these rules
use conntrack they also switch it on (its hooks exist only while a rule needs them).

Sources: Documentation/networking/tuntap.rst, include/uapi/linux/netfilter/nfnetlink_conntrack.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import sys
from typing import Any

import netlink
from namespace import drain, new_namespace, open_tun, run, visit, write_sysctl

CTSTATES = ("UNTRACKED", "INVALID", "NEW", "ESTABLISHED", "RELATED")  # marked as DSCP 8, 9, 10, 11, 12
_FIRST_MARK = 8

DEVICES = {
    "in0": ("10.0.0.1/24", "fd00:1::1/64"),
    "out0": ("198.51.100.1/24", "2001:db8:b::1/64"),
}

# Packets of any source are to be forwarded, and the namespace is to say nothing by itself.
_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.icmp.ratelimit": 0,
}
_DEVICE_SYSCTLS = {
    "net.ipv4.conf.{}.rp_filter": 0,
    "net.ipv4.conf.{}.accept_local": 1,
    "net.ipv4.conf.{}.send_redirects": 0,
    "net.ipv6.conf.{}.accept_ra": 0,
    "net.ipv6.conf.{}.accept_dad": 0,
    "net.ipv6.conf.{}.addr_gen_mode": 1,  # no link-local address, so no router solicitations
}


@functools.cache
def available() -> str | None:
    """None where a Kernel can be made, else the reason why not, as one sentence."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    if os.geteuid():
        return "namespaces and TUN devices need root"
    for program in ("ip", "iptables-restore", "ip6tables-restore"):
        if not shutil.which(program):
            return f"{program} is not installed"
    try:
        with Kernel() as kernel:
            kernel.table()
    except OSError as error:
        return f"no namespace with TUN devices and conntrack: {error}"
    return None


class Kernel:
    """A forwarding Linux host of its own, between the interfaces in0 and out0.

    ``rules`` and ``rules6`` are texts for iptables-restore and ip6tables-restore (tables are added to what
    the harness needs itself), ``sysctl`` maps full or bare nf_conntrack names to values.

        with Kernel(sysctl={"nf_conntrack_tcp_loose": 0}) as kernel:
            print(kernel.send(packet, "in0"), kernel.ctstate, kernel.table())
    """

    def __init__(self, sysctl: dict[str, int] | None = None, rules: str = "", rules6: str = "") -> None:
        self.ctstate: str | None = None  # class of the last packet; None if it did not come out
        with new_namespace() as self._namespace:
            self._devices = {name: open_tun(name) for name in DEVICES}
            self._netlink = netlink.Netlink()
            for name, value in _SYSCTLS.items():
                write_sysctl(name, value)
            for name, value in _DEVICE_SYSCTLS.items():
                for device in ("all", "default", *DEVICES):
                    write_sysctl(name.format(device), value)
            for family, text in (("", rules), ("6", rules6)):
                run(f"ip{family}tables-restore", text=_marking_rules(family))
                if text:
                    run(f"ip{family}tables-restore", "--noflush", text=text)
            write_sysctl("net.netfilter.nf_conntrack_acct", 1)
            for name, (address, address6) in DEVICES.items():
                run("ip", "address", "add", address, "dev", name)
                run("ip", "address", "add", address6, "dev", name, "nodad")
                run("ip", "link", "set", name, "up")
            for family in ("-4", "-6"):
                run("ip", family, "route", "add", "default", "dev", "out0")
        for name, number in (sysctl or {}).items():
            self.sysctl(name, number)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; the kernel then removes the namespace."""
        self._netlink.socket.close()
        for fd in (*self._devices.values(), self._namespace):
            os.close(fd)

    def sysctl(self, name: str, value: int) -> None:
        """Set a sysctl of the namespace, by its full name or as a bare ``nf_conntrack_…``."""
        with visit(self._namespace):
            write_sysctl(name if "." in name else f"net.netfilter.{name}", value)

    def run(self, *command: str, text: str = "") -> str:
        """Run a program in the namespace, with ``text`` as its input; returns what it printed."""
        with visit(self._namespace):
            return run(*command, text=text)

    def send(self, packet: bytes, iface: str) -> list[tuple[str, bytes]]:
        """Let a packet arrive on ``iface``; returns what left, as (interface, bytes), and sets ``ctstate``.

        A packet that the TUN device itself refuses (no IP version in its first octet) leaves nothing.
        """
        self.ctstate = None
        with contextlib.suppress(OSError):
            os.write(self._devices[iface], packet)
        return [(name, self._unmark(out, packet)) for name, fd in self._devices.items() for out in drain(fd)]

    def _unmark(self, out: bytes, sent: bytes) -> bytes:
        """Read the class from the DSCP field and put the sender's DSCP back."""
        mark = _dscp(out)
        if _FIRST_MARK <= mark < _FIRST_MARK + len(CTSTATES):
            self.ctstate = CTSTATES[mark - _FIRST_MARK]
            return _with_dscp(out, _dscp(sent))
        return out  # the host's own packet: an ICMP error of its routing, for example

    def table(self) -> list[dict[str, Any]]:
        """All entries, as ctnetlink dumps them. Like every dump it deletes the expired ones that it meets.

        The kernel walks the hash table of all namespaces for this: some 15 ms with its usual 262,144 buckets.
        """
        return [netlink.connection(body) for body in self._netlink.table()]

    def entry(self, proto: int, end: dict[str, Any]) -> dict[str, Any] | None:
        """The one entry with this tuple record in either direction (TCP, UDP, ICMP); some 20 µs."""
        family = socket.AF_INET6 if ":" in end["src"] else socket.AF_INET
        try:
            get = netlink.SUBSYS_CTNETLINK | netlink.CT_GET
            wanted = netlink.tuple_attribute(proto, end)
            return netlink.connection(self._netlink.request(get, netlink.NLM_F_ACK, family, wanted)[0])
        except FileNotFoundError:
            return None

    def flush(self) -> None:
        """Empty the table."""
        self._netlink.flush()


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────


def _marking_rules(family: str) -> str:
    marks = "".join(
        f"-A FORWARD -m conntrack --ctstate {state} -j DSCP --set-dscp {mark}\n"
        for mark, state in enumerate(CTSTATES, _FIRST_MARK)
    )
    silence = "*raw\n-A OUTPUT -d ff00::/8 -j DROP\nCOMMIT\n" if family else ""  # multicast listener reports
    return f"*mangle\n{marks}COMMIT\n{silence}"


# ── the DSCP field ──────────────────────────────────────────────────────────────────────────────────


def _dscp(packet: bytes) -> int:
    if packet[0] >> 4 == 4:
        return packet[1] >> 2
    return (packet[0] << 8 | packet[1]) >> 6 & 0x3F


def _with_dscp(packet: bytes, dscp: int) -> bytes:
    """The packet with another DSCP; an IPv4 header checksum is computed anew."""
    out = bytearray(packet)
    if packet[0] >> 4 == 6:
        out[0] = 0x60 | dscp >> 2
        out[1] = (dscp & 3) << 6 | packet[1] & 0x3F
        return bytes(out)
    out[1] = dscp << 2 | packet[1] & 3
    out[10:12] = b"\0\0"
    header = out[: (packet[0] & 15) * 4]
    out[10:12] = (0xFFFF - int.from_bytes(header, "big") % 0xFFFF).to_bytes(2, "big")
    return bytes(out)
