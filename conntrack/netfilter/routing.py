"""The box's interfaces, addresses and routes, and the answers to "where does this packet go?".

    set_address / set_link / set_route ──► interfaces, two tables ◄── output   a packet of the box itself
                                                                  ◄── input    a packet that came in

One rule: a `Fib` is changed only by its three setters, each with the consequences it has in Linux: an address
brings its local, subnet and broadcast routes and takes them away again, with every route that prefers it as source;
a link that goes down takes the routes over it along, and all its IPv6 addresses.

Sources: fib_frontend.c (fib_add_ifaddr, fib_del_ifaddr, fib_disable_ip), fib_semantics.c (fib_create_info,
fib_check_nh), addrconf.c, net/ipv6/route.c (ip6_route_info_create, fib6_nh_init) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from . import addresses, route_change, route_input, route_output
from .addresses import HOST, LINK, NOWHERE, UNIVERSE, Address, Interface
from .conf import Conf
from .fib import REJECTS, Route, Table
from .route_text import parse_route

__all__ = ["Fib", "Route"]

_DEVICE_MTU = 1500
_LOOPBACK_MTU = 65536
_KERNEL_METRIC6 = 256  # IP6_RT_PRIO_ADDRCONF
_CACHE = 4096  # answers kept


class Fib:
    """Interfaces with their addresses, and the routes of both families.

    interfaces  name -> addresses, as {"in0": ["10.0.0.1/24", "fd00:1::1/64"]}; lo is there by itself
    routes      texts of `ip route add`
    mtu         octets a device takes, for all or by name; 1500, lo 65536
    sysctl      net.ipv4.conf.* and net.ipv6.conf.* by full name, read when asked; what is missing has its default

    Raises ValueError, quoting the text, for an address or a route that the kernel would refuse.

    >>> fib = Fib({"in0": ["10.0.0.1/24"], "out0": ["198.51.100.1/24"]}, ["default via 198.51.100.254 dev out0"])
    >>> route = fib.output(bytes((192, 0, 2, 7)))
    >>> route.kind, route.iface, ".".join(map(str, route.gateway)), ".".join(map(str, route.source))
    ('unicast', 'out0', '198.51.100.254', '198.51.100.1')
    """

    def __init__(
        self,
        interfaces: Mapping[str, Iterable[str]],
        routes: Iterable[str] = (),
        mtu: int | Mapping[str, int] | None = None,
        sysctl: Mapping[str, int] | None = None,
    ) -> None:
        self.conf = Conf({} if sysctl is None else sysctl)
        self.interfaces: dict[str, Interface] = {}
        self.ipv4 = Table(32, split=False)
        self.ipv6 = Table(128, split=True)
        self.custom_local = False  # an IPv4 local route was added by hand: sources are looked at in full
        self._answers: dict[tuple[object, ...], Route] = {}
        self._stamp = self.conf.stamp()
        given = {"lo": ("127.0.0.1/8", "::1/128"), **{name: tuple(texts) for name, texts in interfaces.items()}}
        for name, texts in given.items():
            self.interfaces[name] = Interface(name, _mtu(name, mtu))
            if name != "lo":
                self._add(6, _kernel("multicast", name, b"\xff" + bytes(15), 8, metric=_KERNEL_METRIC6))
            for text in texts:
                self.set_address(name, text)
        for text in routes:
            self.set_route(text)

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────

    def set_address(self, iface: str, text: str, present: bool = True) -> tuple[bytes, ...]:
        """Add or remove the address `text` ("10.0.0.1/24"); returns the packed addresses that went away."""
        interface = self._interface(iface)
        address = addresses.parse_address(text)
        self._answers.clear()
        if present:
            address = addresses.insert(interface, address)
            self._announce(interface, address)
            return ()
        gone = addresses.remove(interface, address)
        for one in gone:
            self._retract(interface, one)
        return tuple(one.local for one in gone)

    def set_link(self, iface: str, up: bool) -> tuple[bytes, ...]:
        """Set a device up or down; returns the packed addresses that went away with it: its IPv6 ones."""
        interface = self._interface(iface)
        self._answers.clear()
        if interface.up == up:
            return ()
        interface.up = up
        if up:
            if not interface.loopback:
                self._add(6, _kernel("multicast", iface, b"\xff" + bytes(15), 8, metric=_KERNEL_METRIC6))
            elif not interface.ipv6:
                interface.ipv6.append(addresses.parse_address("::1/128"))
            for address in (*interface.ipv4, *interface.ipv6):
                self._announce(interface, address)
            return ()
        self.ipv4.discard(lambda route: route.iface == iface and route.next_scope != NOWHERE)
        self.ipv6.discard(lambda route: route.iface == iface)
        gone = [address.local for address in interface.ipv6]
        interface.ipv6.clear()
        for local in gone:
            self._forget_source(local)
        return tuple(gone)

    def set_route(self, text: str, present: bool = True) -> None:
        """Add a route, or remove one ("del …" in the text, or `present` false); raises ValueError."""
        request = parse_route(text)
        self._answers.clear()
        if request.verb in ("del", "delete") or not present:
            route_change.delete(self, request)
            return
        route = (
            route_change.resolve4(self, request) if request.family == 4 else route_change.resolve6(self, request)
        )
        table = self.ipv4 if request.family == 4 else self.ipv6
        if route.kind == "local" and request.family == 4:
            self.custom_local = True
        if request.verb == "append":
            if request.family == 6 and route_change.twin(table, route):
                raise ValueError(f"route {text!r}: there is one already (File exists)")
            table.append(route)
        elif not table.add(route, replace=request.verb in ("replace", "change")):
            raise ValueError(f"route {text!r}: there is one already (File exists)")

    # ── questions ───────────────────────────────────────────────────────────────────────────────────

    def output(self, destination: bytes, source: bytes = b"", iface: str = "", bound: bool = False) -> Route:
        """The route of a packet made here; `source` in the answer is its source address.

        A packet to the box itself gets kind "local" and device lo.  No way: kind "none", or what the route says
        (unreachable, prohibit, blackhole), and `why` is set.  `bound`: refuse a source that is not the box's, as
        for a socket (a raw one, and REJECT, may have any).
        """
        return self._answer(route_output.output, destination, source, iface, int(bound))

    def input(self, source: bytes, destination: bytes, iface: str, proto: int = 0) -> Route:
        """What becomes of a packet from `source` to `destination` that came in by `iface`.

        kind unicast: forwarded; local, broadcast, multicast: for the box.  `why` not empty: dropped for that
        reason, and if `error` is set and this device forwards, with that ICMP error to the sender.
        """
        return self._answer(route_input.validate, source, destination, iface, proto)

    def hears(self, destination: bytes, route: Route) -> bool:
        """Is the box among the many to whom it sends by `route`: a broadcast, or a group it is a member of?"""
        if route.iface == "lo" or route.kind not in ("broadcast", "multicast"):
            return False
        if len(destination) == 16:
            return destination in route_input.groups6(self, route.iface)
        return route.kind == "broadcast" or destination == route_input.ALL_HOSTS

    def lookup(self, destination: bytes, iface: str = "", scope: int = UNIVERSE) -> Route | None:
        """The best IPv4 route, rejects included but for throw; `iface`: only over this device [fib_lookup].

        Asking "table local" in Linux asks main too, as both are one trie: so it does for an address' type.
        """
        for route in self.ipv4.matching(destination):
            if route.kind in REJECTS:
                return None if route.kind == "throw" else route
            if route.scope >= scope and (not iface or route.iface == iface):
                return route
        return None

    def lookup6(self, destination: bytes, iface: str = "", strict: bool = False, table: str = "") -> Route | None:
        """The best IPv6 route; one over `iface` before equals, or only such (`strict`) [fib6_table_lookup]."""
        best: Route | None = None
        thrown = ""
        for route in self.ipv6.matching(destination, table):
            if route.table == thrown:
                continue
            if best and (route.table, route.prefix_length, route.metric) != (
                best.table,
                best.prefix_length,
                best.metric,
            ):
                break
            if route.kind == "anycast" and route.protocol == "kernel":
                if not self.conf.own6("forwarding", route.iface):
                    continue
            if route.kind == "throw":
                thrown = route.table
            elif route.iface == iface or not iface:
                return route
            elif not strict and best is None:
                best = route
        return best

    def select_address(self, iface: str, next_hop: bytes, family: int = 4, scope: int = UNIVERSE) -> bytes:
        """The address MASQUERADE takes on `iface` towards `next_hop`, b"" if there is none."""
        interface = self.interfaces.get(iface)
        everything = self.interfaces.values()
        if family == 6:
            return addresses.select6(everything, interface, next_hop)
        return addresses.select4(everything, interface, next_hop, scope, self.conf.any4("route_localnet", iface))

    def spec_dst(self, sender: bytes, iface: str) -> bytes:
        """The IPv4 address that the box gives itself on `iface` towards `sender` [fib_compute_spec_dst]."""
        if sender == bytes(4):
            return self.select_address(iface, sender, 4, LINK)
        route = self.lookup(sender)
        if route is None or route.kind in REJECTS:
            return self.select_address(iface, sender, 4)
        return self.preferred(route)

    def preferred(self, route: Route) -> bytes:
        """The address with which packets go by an IPv4 route [fib_result_prefsrc]."""
        return route.source or self.select_address(route.iface, route.gateway, 4, route.scope)

    def source_for(self, destination: bytes, iface: str = "") -> bytes:
        """The source address of a packet of the box to `destination`, b"" if there is no way."""
        return self.output(destination, b"", iface).source

    def first_address(self, iface: str, family: int, destination: bytes = b"") -> bytes:
        """The address REDIRECT takes: the first of `iface`, for IPv6 of the scope of `destination`; b"" if none."""
        interface = self.interfaces.get(iface)
        any_scope = family == 4 or not destination
        for address in interface.of(family) if interface else ():
            if any_scope or addresses.sort_of(address.local) == addresses.sort_of(destination):
                return address.local
        return b""

    def is_local(self, address: bytes) -> bool:
        """Is it delivered here, as one of the box's own addresses?"""
        found = self.lookup(address) if len(address) == 4 else self.lookup6(address, table="local")
        return found is not None and found.kind == "local"

    def is_own(self, address: bytes, iface: str = "") -> bool:
        """Is it configured on a device (on `iface`)?"""
        family = 4 if len(address) == 4 else 6
        return any(
            one.local == address
            for device in self.interfaces.values()
            if not iface or device.name == iface
            for one in device.of(family)
        )

    def addresses(self, iface: str) -> list[Address]:
        """The addresses of a device, IPv4 first."""
        interface = self._interface(iface)
        return [*interface.of(4), *interface.of(6)]

    def address_type(self, address: bytes, iface: str | None = None) -> set[str]:
        """The types of `address` for the addrtype match; with `iface`, only that device's addresses are special."""
        return route_output.address_type(self, address, iface)

    # ── the consequences of addresses ───────────────────────────────────────────────────────────────

    def _announce(self, interface: Interface, address: Address) -> None:
        """Insert the routes that `address` brings."""
        family = 4 if len(address.local) == 4 else 6
        for route in self._routes_of(interface, address):
            # A preferred source must be local by then [fib_valid_prefsrc].
            if family == 6 or route.prefix == route.source or self.is_local(route.source):
                self._add(family, route)

    def _retract(self, interface: Interface, address: Address) -> None:
        """Remove what only `address` brought, and what prefers it as source."""
        family = 4 if len(address.local) == 4 else 6
        table = self.ipv4 if family == 4 else self.ipv6
        kept = {
            (route.table, route.kind, route.prefix, route.prefix_length)
            for other in interface.of(family)
            for route in self._routes_of(interface, other)
        }
        for route in self._routes_of(interface, address):
            if (route.table, route.kind, route.prefix, route.prefix_length) not in kept:
                table.discard(
                    lambda other, route=route: (  # type: ignore[misc]
                        other.protocol == "kernel"
                        and (other.table, other.kind, other.iface) == (route.table, route.kind, route.iface)
                        and (other.prefix, other.prefix_length) == (route.prefix, route.prefix_length)
                    )
                )
        if not self.is_own(address.local):
            self._forget_source(address.local)
        if family == 4 and not interface.ipv4:
            self.ipv4.discard(lambda route: route.iface == interface.name)

    def _forget_source(self, local: bytes) -> None:
        """IPv4 routes that prefer the source `local` go; IPv6 ones stay without it [fib_sync_down_addr]."""
        if len(local) == 4:
            self.ipv4.discard(lambda route: route.source == local)
            return
        for route in self.ipv6.discard(lambda route: route.source == local):
            self.ipv6.append(replace(route, source=b""))

    def _routes_of(self, interface: Interface, address: Address) -> list[Route]:
        name, local, size = interface.name, address.local, address.prefix_length
        if len(local) == 16:
            routes = [_kernel("local", name, local, 128)]
            if interface.up and local != addresses.LOOPBACK6:
                routes.append(_kernel("unicast", name, address.prefix, size, metric=_KERNEL_METRIC6))
            if size < 127:  # RFC 6164: a /127 has no subnet-router anycast address
                routes.append(_kernel("anycast", name, address.prefix, 128))
            return routes
        prime = local
        if address.secondary:
            prime = next(
                (
                    other.local
                    for other in interface.ipv4
                    if not other.secondary and other.prefix == address.prefix and other.prefix_length == size
                ),
                local,
            )
        routes = [_kernel("local", name, local, 32, prime)]
        if interface.up:
            if address.broadcast and address.broadcast != b"\xff\xff\xff\xff":
                routes.append(_kernel("broadcast", name, address.broadcast, 32, prime))
            if any(address.prefix) and not address.secondary and (size < 32 or address.prefix != local):
                kind = "local" if interface.loopback else "unicast"
                routes.append(_kernel(kind, name, address.prefix, size, prime))
                if size < 31:
                    last = int.from_bytes(address.prefix, "big") | (1 << 32 - size) - 1
                    routes.append(_kernel("broadcast", name, last.to_bytes(4, "big"), 32, prime))
        return routes

    def _add(self, family: int, route: Route) -> None:
        (self.ipv4 if family == 4 else self.ipv6).append(route)

    def _interface(self, iface: str) -> Interface:
        if iface not in self.interfaces:
            raise ValueError(f"there is no device {iface!r}")
        return self.interfaces[iface]

    def _answer(self, ask: route_output.Question, one: bytes, other: bytes, iface: str, proto: int) -> Route:
        """Ask, or give the answer of last time, if no setting was written since."""
        stamp = self.conf.stamp()
        if stamp != self._stamp or stamp < 0 or len(self._answers) >= _CACHE:
            self._answers.clear()
            self._stamp = stamp
        key = ask, one, other, iface, proto
        known = self._answers.get(key)
        if known is None:
            known = self._answers[key] = ask(self, one, other, iface, proto)
        return known


def _mtu(name: str, mtu: int | Mapping[str, int] | None) -> int:
    given = mtu.get(name) if isinstance(mtu, Mapping) else None if name == "lo" else mtu
    if given is None:
        return _LOOPBACK_MTU if name == "lo" else _DEVICE_MTU
    if not 68 <= given <= 65536:  # RFC 791: every box forwards datagrams of 68 octets
        raise ValueError(f"mtu {given!r} of {name} is not within 68..65536")
    return given


def _kernel(kind: str, iface: str, prefix: bytes, size: int, source: bytes = b"", metric: int = 0) -> Route:
    """A route that an address or a device brings by itself."""
    scope = UNIVERSE if len(prefix) == 16 else HOST if kind == "local" else LINK
    return Route(
        kind,
        iface,
        source=source,
        prefix=prefix,
        prefix_length=size,
        scope=scope,
        metric=metric,
        table="main" if kind == "unicast" else "local",
        protocol="kernel",
        next_scope=NOWHERE if kind == "local" else HOST,
    )
