"""A Linux box of one's own: the running kernel behind the same face as `conntrack.netfilter.Host`.

    with KernelBox(interfaces, routes, rules) as box:
        step = box.receive(packet, "in0")

One rule: it asks and reports; what should have come is no business of this module.

A box is a network namespace whose devices are TUNs.  A write to a TUN runs the whole way of the packet before it
returns, so everything there is to see (what left, what the probes logged, events, counters, the table) can be read
at once.  A step is one record:

    fate, ctinfo, direction, out [[device, hex]…], local [hex…], events, stats (counters that moved), log (the
    kernel's own reasons), table, expectations, time (ns, when the step began); and for those who replay its draws:
    heads [[hook, hex]…] (the packet behind NAT), own [hex…] (packets that the box made in answer), own_log

Forwarding is on, reverse path filters are off, and the box says nothing by itself.  The bucket count is the
machine's: see `machine.py`, without whose 512 buckets each dump walks the usual 262,144.

Sources: raw(7), ip-address(8), ip-route(8), Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import ipaddress
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import netlink
import probes
from namespace import drain, new_namespace, open_tun, run, sysctl_path, visit, write_sysctl

Step = dict[str, Any]

# What the Host takes for granted and a fresh namespace may not have.
_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.netfilter.nf_conntrack_log_invalid": 255,
}
_DEVICE_SYSCTLS = {
    "net.ipv4.conf.{}.rp_filter": 0,
    # silence
    "net.ipv6.conf.{}.accept_ra": 0,
    "net.ipv6.conf.{}.accept_dad": 0,
    "net.ipv6.conf.{}.addr_gen_mode": 1,  # no link-local address, so no router solicitations
}
_CLOCK_REALTIME_COARSE = 5  # time.h; it moves with the jiffies
_JIFFY = 4_000_000  # ns
_WORKER = 0.15  # seconds: ten times what it takes on a busy machine
_RTF_LOCAL = 0x80000000  # ipv6_route.h
_SIOCGIFFLAGS = 0x8913
_PATIENCE = 30  # seconds
# Rules that switch connection tracking on for sure (it may be on without them, never off with them).
_TRACKS = re.compile(
    r"^-A .*(-m (conntrack|state|connmark)\b|-j (CONNMARK|MASQUERADE|SNAT|DNAT|REDIRECT|NETMAP)\b"
    r"|-j CT --(zone|helper|ctevents|expevents|timeout))",
    re.M,
)


@functools.cache
def available() -> str | None:
    """None where a KernelBox can be made, else the reason why not, as one sentence."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    if os.geteuid():
        return "namespaces and TUN devices need root"
    for program in ("ip", "iptables-restore", "ip6tables-restore", "nft"):
        if not shutil.which(program):
            return f"{program} is not installed"
    try:
        with KernelBox({"in0": ["10.0.0.1/24"]}, []) as box:
            box.observe()
    except OSError as error:
        return f"no namespace with TUN devices, NFLOG and conntrack: {error}"
    return None


class KernelBox:
    """See the module.  `mtu` maps devices to numbers; everything else is as a Host has it."""

    def __init__(
        self,
        interfaces: Mapping[str, Sequence[str]],
        routes: Sequence[str],
        rules: str = "",
        rules6: str = "",
        sysctl: Mapping[str, int | str] | None = None,
        mtu: Mapping[str, int] | None = None,
    ) -> None:
        self._records: dict[bytes, dict[str, Any]] = {}
        self._tracking_probes: set[str] = set()
        with new_namespace() as self._namespace:
            self._devices = {name: open_tun(name) for name in interfaces}
            self._numbers = {name: socket.if_nametoindex(name) for name in interfaces}
            self._ask = netlink.Netlink()
            self._log = netlink.Netlink()
            probes.bind(self._log)
            self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_NETFILTER)
            self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._events.bind((0, 0))
            for group in netlink.EVENT_GROUPS:
                self._events.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
            for family in (2, 10):
                write_sysctl(f"net.netfilter.nf_log.{family}", "nfnetlink_log")
            for name, value in _SYSCTLS.items():
                write_sysctl(name, value)
            for name, value in _DEVICE_SYSCTLS.items():
                for device in ("all", "default", *interfaces):
                    write_sysctl(name.format(device), value)
            run("nft", "-f", "-", text=probes.RULES)
            self._load(rules, rules6)
            run("ip", "-batch", "-", text="".join(_set_up(interfaces, routes, mtu or {})))
            _wait_for_addresses()
        self.sysctl: MutableMapping[str, int | str] = _Sysctls(self._namespace)
        for name, value in (sysctl or {}).items():
            self.sysctl[name] = value
        self.restart()

    def __enter__(self) -> KernelBox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; the kernel then removes the namespace."""
        for one in (self._ask.socket, self._log.socket, self._events):
            one.close()
        for fd in (*self._devices.values(), self._namespace):
            os.close(fd)

    def restart(self) -> None:
        """Forget what setting up left to be read; counters count from here."""
        self._collect_log()
        self._collect_events()
        for fd in self._devices.values():
            list(drain(fd))
        self._stats = self._ask.stats()

    # --- packets ----------------------------------------------------------------------------------------

    def receive(self, packet: bytes, iface: str) -> Step:
        """A packet arrives on `iface`."""
        began = _now()
        with contextlib.suppress(OSError):  # the TUN device itself: no IP version in the first octet, or down
            os.write(self._devices[iface], packet)
        return self._step(began, self._numbers[iface])

    def send(self, packet: bytes) -> Step:
        """A program in the box sends a packet with a header of its own making."""
        six = packet[0] >> 4 == 6
        family = socket.AF_INET6 if six else socket.AF_INET
        with visit(self._namespace):
            raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        target = str(ipaddress.ip_address(packet[24:40] if six else packet[16:20]))
        began = _now()
        with raw, contextlib.suppress(OSError):  # no route, or a rule dropped it; open, it would take protocol 255
            raw.sendto(packet, (target, 0))
        return self._step(began, 0)

    def tick(self) -> Step:
        """Nothing arrives; what has happened by itself meanwhile."""
        return self._step(_now(), -1)

    def _step(self, began: int, device: int) -> Step:
        entries = self._collect_log()
        out = [[name, data.hex()] for name, fd in self._devices.items() for data in drain(fd)]
        step = self.observe()
        step["time"] = began
        left: dict[int, int] = {}
        for name, _ in out:
            left[self._numbers[name]] = left.get(self._numbers[name], 0) + 1
        sight = probes.look(entries, device, left)
        step["fate"] = sight.fate if device >= 0 else ""
        step["ctinfo"], step["direction"] = sight.ctinfo, sight.direction
        step["out"] = out
        step["local"] = [data.hex() for data in sight.local]
        step["log"], step["own_log"] = sight.log, sight.own_log
        step["own"] = [data.hex() for data in sight.own]
        step["heads"] = [[name, data.hex()] for name, data in sight.heads]
        return step

    # --- looking ----------------------------------------------------------------------------------------

    def observe(self) -> Step:
        """Events since the last look, counters that moved, the whole table, expectations.

        The dump of the table deletes expired entries: their DESTROY events are among those of the next look.
        """
        stats = self._ask.stats()
        moved = {name: value - self._stats.get(name, 0) for name, value in stats.items()}
        self._stats = stats
        events = self._collect_events()
        return {
            "events": events,
            "stats": {name: value for name, value in moved.items() if value},
            "table": self.conns(),
            "expectations": self.expectations(),
        }

    def conns(self) -> list[dict[str, Any]]:
        """The whole table as records."""
        known, fresh = self._records, {}
        for body in self._ask.table():
            fresh[body] = known.get(body) or netlink.connection(body)
        self._records = fresh
        return list(fresh.values())

    def expectations(self) -> list[dict[str, Any]]:
        """All expectations as records."""
        return self._ask.expectations()

    def run(self, *command: str, text: str = "") -> str:
        """Run a program in the namespace; what it printed."""
        with visit(self._namespace):
            return run(*command, text=text)

    def _collect_log(self) -> list[dict[str, Any]]:
        return [netlink.logged(body) for kind, _, _, body in netlink.received(self._log.socket) if kind >> 8 == 4]

    def _collect_events(self) -> list[dict[str, Any]]:
        found = netlink.received(self._events)
        return [netlink.event(kind, flags, body) for kind, flags, _, body in found]

    # --- changes ----------------------------------------------------------------------------------------

    def set_rules(self, rules: str | None = None, rules6: str | None = None) -> None:
        """Replace the rules of a family; None leaves it alone."""
        with visit(self._namespace):
            for family, text in (("ip", rules), ("ip6", rules6)):
                if text is not None and family in self._tracking_probes:
                    self._tracking_probes.remove(family)
                    run("nft", "delete", "table", family, "probe_ct")
            self._load(rules, rules6)

    def _load(self, rules: str | None, rules6: str | None) -> None:
        """In the namespace: what iptables-restore does, tables that the text does not name emptied as well."""
        for family, text in (("ip", rules), ("ip6", rules6)):
            if text is None:
                continue
            names = set(re.findall(r"^\*(\w+)", text, re.M))
            present = set(re.findall(rf"^table {family} (raw|mangle|nat|filter|security)$", self._tables(), re.M))
            for name in sorted(present - names):
                run("nft", "delete", "table", family, name)
            if text.strip():
                run("iptables-restore" if family == "ip" else "ip6tables-restore", text=text)
            if _TRACKS.search(text):
                run("nft", "-f", "-", text=probes.tracking_rules(family))
                self._tracking_probes.add(family)

    def _tables(self) -> str:
        return run("nft", "list", "tables") if hasattr(self, "sysctl") else ""

    def set_address(self, iface: str, address: str, present: bool = True) -> None:
        """Add an address with its prefix length, or take it away."""
        flags = ("nodad",) if ":" in address and present else ()
        self.run("ip", "address", "add" if present else "del", address, "dev", iface, *flags)
        self._settle()

    def set_link(self, iface: str, up: bool) -> None:
        """Set a device up or down."""
        self.run("ip", "link", "set", iface, "up" if up else "down")
        self._settle()

    def _settle(self) -> None:
        """Masquerading clears its connections from a worker after a device or address went: let it run."""
        with visit(self._namespace):
            _wait_for_addresses()
        time.sleep(_WORKER)

    def set_route(self, route: str, present: bool = True) -> None:
        """Add a route in the words of `ip route`, or take it away."""
        self.run("ip", *_family(route), "route", "add" if present else "del", *route.split())

    def flush(self) -> None:
        """`conntrack -F`."""
        self._ask.flush()


class _Sysctls(MutableMapping[str, "int | str"]):
    """The namespace's sysctls by full name or as a bare ``nf_conntrack_…``."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace

    def _path(self, name: str) -> str:
        return sysctl_path(name if "." in name else f"net.netfilter.{name}")

    def __getitem__(self, name: str) -> int | str:
        with visit(self._namespace), open(self._path(name)) as file:
            text = file.read().strip()
        return int(text) if text.lstrip("-").isdigit() else text

    def __setitem__(self, name: str, value: int | str) -> None:
        with visit(self._namespace), open(self._path(name), "w") as file:
            file.write(str(value))

    def __delitem__(self, name: str) -> None:
        raise TypeError("a sysctl cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _now() -> int:
    """Wall time in ns, shifted by less than a jiffy: the kernel's jiffies begin at multiples of 4 ms of it.

    The kernel counts its limits in jiffies; with this clock a Host counts the same ones (HZ 250).
    """
    return time.time_ns() - time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) % _JIFFY


def _set_up(
    interfaces: Mapping[str, Sequence[str]], routes: Sequence[str], mtu: Mapping[str, int]
) -> Iterator[str]:
    """Lines for `ip -batch`."""
    for name, addresses in interfaces.items():
        if name in mtu:
            yield f"link set {name} mtu {mtu[name]}\n"
        for address in addresses:
            yield f"address add {address} dev {name}{' nodad' if ':' in address else ''}\n"
        yield f"link set {name} up\n"
    yield "link set lo up\n"
    for route in routes:
        # `ip -batch` takes no -4 or -6; a default route without an address is meant for both families
        words = route.split()
        if words[0] == "default" and not _family(route):
            yield f"route add 0.0.0.0/0 {' '.join(words[1:])}\n"
            yield f"route add ::/0 {' '.join(words[1:])}\n"
        elif words[0] == "default":
            yield f"route add {'::/0' if _family(route) == ('-6',) else '0.0.0.0/0'} {' '.join(words[1:])}\n"
        else:
            yield f"route add {route}\n"


def _family(route: str) -> tuple[str, ...]:
    """The family that a route's addresses tell, as an option of ip(8)."""
    for word in route.split():
        with contextlib.suppress(ValueError):
            return ("-6",) if ipaddress.ip_interface(word).version == 6 else ("-4",)
    return ()


def _wait_for_addresses() -> None:
    """In the namespace: IPv6 addresses become local in a worker, some milliseconds after they were added; on a
    machine with much to do, seconds.

    Those of a device that is down never do.
    """
    until = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ask:
        while True:
            with open("/proc/thread-self/net/if_inet6") as file:
                addresses = {line[:32] for line in file if _is_up(ask, line.split()[5])}
            with open("/proc/thread-self/net/ipv6_route") as file:
                local = {line[:32] for line in file if int(line.split()[8], 16) & _RTF_LOCAL}
            if addresses <= local:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"not local after {_PATIENCE} s: {', '.join(sorted(addresses - local))}")
            time.sleep(0.001)


def _is_up(ask: socket.socket, device: str) -> bool:
    flags: bytes = fcntl.ioctl(ask, _SIOCGIFFLAGS, device.encode().ljust(40, b"\0"))
    return bool(flags[16] & 1)
