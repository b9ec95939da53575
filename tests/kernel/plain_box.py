"""Two boxes without a rule, side by side: the kernel in a namespace of its own, and `routing`, `ip_options` and
`own` strung together as simply as can be.

One rule: neither knows of the other.  Both take octets on a device and say which octets left by which.

Source: ip_input.c, ip_forward.c, ip6_output.c for the order of things.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

from namespace import drain, new_namespace, open_tun, run, visit, write_sysctl

from conntrack.choices import Choices
from conntrack.netfilter import ip_options
from conntrack.netfilter.arrival import arrive
from conntrack.netfilter.datagram import TCP, finished_tcp, unfinished_tcp
from conntrack.netfilter.ip_options import Options
from conntrack.netfilter.own import Own
from conntrack.netfilter.routing import Fib, Route
from conntrack.netfilter.settings import HostSysctl
from conntrack.netfilter.ttl import lower_hop_limit
from conntrack.sysctl import Sysctl
from conntrack.verdict import FORWARD, LOCAL_IN
from conntrack.wire.packet import Packet, parse, walk_ipv6

Out = list[tuple[str, bytes]]
Addresses = Mapping[str, Iterable[str]]


class KernelBox:
    """The running kernel with these devices (TUN), addresses, routes and settings; it forwards."""

    def __init__(
        self, interfaces: Addresses, routes: Iterable[str], sysctl: Mapping[str, int] | None = None
    ) -> None:
        with new_namespace() as self._namespace:
            self._devices = {name: open_tun(name) for name in interfaces}
            for name in ("all", "default", "lo", *interfaces):
                write_sysctl(f"net.ipv6.conf.{name}.addr_gen_mode", 1)  # no link-local address by itself
                write_sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
                write_sysctl(f"net.ipv6.conf.{name}.accept_ra", 0)
            write_sysctl("net.ipv4.ip_forward", 1)
            write_sysctl("net.ipv6.conf.all.forwarding", 1)
            for name, value in (sysctl or {}).items():
                write_sysctl(name, value)
            run("ip", "link", "set", "lo", "up")
            for name, texts in interfaces.items():
                run("ip", "link", "set", name, "up")
                for text in texts:
                    run("ip", "address", "add", *text.split(), "dev", name, *(["nodad"] if ":" in text else []))
            for text in routes:
                words = text.split()
                family = [words.pop(0)] if words[0] in ("-6", "-4") else []
                run("ip", *family, "route", "add", *words)
        self.read()

    def send(self, octets: bytes, iface: str) -> Out:
        """Let a packet arrive; what left."""
        with contextlib.suppress(OSError):
            os.write(self._devices[iface], octets)
        return self.read()

    def read(self) -> Out:
        """What left meanwhile, but for the kernel's own multicast listener reports and router solicitations."""
        found = [(name, octets) for name, fd in self._devices.items() for octets in drain(fd)]
        return [(name, octets) for name, octets in found if octets[0] >> 4 == 4 or octets[24] != 0xFF]

    def run(self, *command: str) -> str:
        """Run a program in the namespace."""
        with visit(self._namespace):
            return run(*command)

    def sysctl(self, name: str, value: int) -> None:
        """Write a setting."""
        with visit(self._namespace):
            write_sysctl(name, value)

    def close(self) -> None:
        """Let go of everything; the kernel then removes the namespace."""
        for fd in (*self._devices.values(), self._namespace):
            os.close(fd)


class OurBox:
    """The same box of our parts."""

    def __init__(
        self, interfaces: Addresses, routes: Iterable[str], sysctl: Mapping[str, int] | None = None
    ) -> None:
        self.settings = HostSysctl(Sysctl(), ("lo", *interfaces), dict(sysctl or {}))
        self.fib = Fib(interfaces, routes, sysctl=self.settings)
        self.own = Own(self.fib, self.settings, Choices())
        self.out: Out = []
        self.reject = {4: "", 6: ""}  # a word of --reject-with: what a REJECT rule in FORWARD and INPUT says
        self.only_tcp: frozenset[int] = frozenset()  # families where that rule is for TCP only

    def rejects(self, words: tuple[str, str]) -> None:
        """From now on FORWARD and INPUT have a REJECT rule for each family."""
        self.reject = {4: words[0], 6: words[1]}
        self.only_tcp = frozenset(family for family, word in self.reject.items() if word == "tcp-reset")

    def send(self, octets: bytes, iface: str, now: int) -> Out:
        """Let a packet arrive at `now`; what left."""
        self.out = []
        self._arrive(octets, iface, now)
        return self.out

    def _say(self, octets: bytes | None, now: int, route: Route | None = None, anywhere: bool = False) -> None:
        """An own packet: out by its route, or straight in again; `anywhere`: whatever device the cause came by."""
        if octets is None:
            return
        middle, end = (16, 20) if octets[0] >> 4 == 4 else (24, 40)
        source = octets[12:16] if end == 20 else octets[8:24]
        if route is None:
            device = "" if anywhere else near(octets, self.iface)
            route = self.fib.output(octets[middle:end], source if any(source) else b"", device)
        if route.why:
            return
        if route.iface == "lo":
            self._arrive(octets, "lo", now)
        else:
            # the reset of a closed port comes with its sum left to the card, REJECT's does not
            left = octets[0] >> 4 == 6 and octets[6] == TCP and octets == unfinished_tcp(octets)
            self.out.append((route.iface, finished_tcp(octets) if left else octets))

    def _arrive(self, octets: bytes, iface: str, now: int) -> None:
        self.iface = iface
        arrived = arrive(octets, iface == "lo", self.settings)
        packet = parse(arrived.data)
        if arrived.reason:
            if arrived.pointer >= 0:
                self._say(self.own.error(packet, iface, 4, arrived.code, arrived.pointer, now), now)
            return
        addresses = packet.addresses()
        half = len(addresses) // 2
        route = self.fib.input(addresses[:half], addresses[half:], iface, packet.proto)
        if route.why and not route.refuses:
            return
        options = None
        if packet.family == 4 and packet.data[0] & 15 > 5:
            found = ip_options.receive(packet, iface, route, self.fib, now)
            options, route = found.options, found.route or route
            if found.error is not None:
                self._say(self.own.error(packet, iface, *found.error, now, options), now)
            if found.reason:
                return
        if route.why:
            if route.error is not None:
                self._say(self.own.error(packet, iface, *route.error, 0, now, options), now)
            return
        if route.kind != "unicast" and packet.family == 4 and packet.fragment:
            return
        word = self.reject[packet.family]
        if packet.family in self.only_tcp and not _is_tcp(packet):
            word = ""
        if route.kind != "unicast" and word and iface != "lo":
            self._reject(packet, LOCAL_IN, word, now, options)
            return
        if route.kind != "unicast":
            for answer in self.own.answers(packet, iface, route, now, options):
                self._say(answer.octets, now, answer.route)
            return
        exceeded, hops = (11, packet.data[8]) if packet.family == 4 else (3, packet.data[7])
        if hops <= 1:
            self._say(self.own.error(packet, iface, exceeded, 0, 0, now, options), now)
            return
        strict = options is not None and options.strict and options.route
        if strict and route.gateway:
            self._say(self.own.error(packet, iface, 3, 5, 0, now, options), now)
            return
        if packet.family == 6 and route.redirect:
            self._say(self.own.redirect(packet, iface, route, now), now)
        elif packet.family == 6 and not self._source6(packet.data, iface, now):
            return
        if packet.length > route.mtu and (packet.family == 6 or packet.data[6] & 0x40):
            kind = (3, 4) if packet.family == 4 else (2, 0)
            self._say(self.own.error(packet, iface, *kind, route.mtu, now, options), now)
            return
        lower_hop_limit(packet)
        if packet.family == 4 and route.redirect:
            self._say(self.own.redirect(packet, iface, route, now, options), now)
        if word:
            self._reject(packet, FORWARD, word, now, options)
            return
        if options is not None:
            ip_options.forward(packet, options, route, self.fib)
        self.out.append((route.iface, bytes(packet.data)))

    def _reject(self, packet: Packet, hook: int, word: str, now: int, options: Options | None) -> None:
        answer = self.own.reject(packet, self.iface, hook, word, now, options)
        self._say(answer, now, anywhere=word == "tcp-reset")

    def _source6(self, data: bytes | bytearray, iface: str, now: int) -> bool:
        """May it leave by another device? [ip6_forward]"""
        if not any(data[8:24]):
            return False
        if data[8] == 0xFE and data[9] & 0xC0 == 0x80:
            self._say(self.own.error(parse(bytes(data)), iface, 1, 2, 0, now), now)
            return False
        return True


def _is_tcp(packet: Packet) -> bool:
    """As -p tcp sees it."""
    if packet.family == 4:
        return packet.data[9] == 6
    proto, _, _, fault = walk_ipv6(packet.data, 0, packet.end, packet.length)
    return proto == 6 and not fault


def near(octets: bytes, iface: str) -> str:
    """The device of a packet to a link-local address."""
    return iface if octets[0] >> 4 == 6 and octets[24] == 0xFE and octets[25] & 0xC0 == 0x80 else ""
