"""Where a packet of the box itself goes, and what kind of address an address is.

One rule: the answer's `source` is the packet's source address; without one there is no packet.

Sources: net/ipv4/route.c (ip_route_output_key_hash_rcu, __mkroute_output), net/ipv6/route.c
(ip6_route_output_flags, ip6_pol_route), xt_addrtype.c, fib_frontend.c (inet_addr_type).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .addresses import HOST, LINK, LOOPBACK6, UNIVERSE, is_link_local
from .fib import REJECTS, Route

if TYPE_CHECKING:
    from .routing import Fib

Question = Callable[..., Route]

ANY4, ANY6, LAST4 = bytes(4), bytes(16), b"\xff" * 4
_LOOPBACK4 = bytes((127, 0, 0, 1))

# What a reject says: the reason, and ICMP type and code for IPv4 and for IPv6 [fib_props; fib6_prop_to_error].
_REJECT: dict[str, tuple[str, tuple[int, int] | None, tuple[int, int] | None]] = {
    "unreachable": ("unreachable", (3, 1), (1, 0)),
    "prohibit": ("prohibit", (3, 13), (1, 1)),
    "blackhole": ("blackhole", None, None),
}


def rejected(route: Route | None, family: int, iface: str = "") -> Route:
    """The answer for a route that delivers nothing, or for no route at all."""
    if route is None:
        return Route("none", iface, why="no_route", error=(3, 0) if family == 4 else (1, 0))
    why, error4, error6 = _REJECT.get(route.kind, _REJECT["unreachable"])
    return replace(route, why=why, error=error4 if family == 4 else error6)


def output(fib: Fib, destination: bytes, source: bytes, iface: str, bound: int) -> Route:
    """See `Fib.output`."""
    if len(destination) == 16:
        return _output6(fib, destination, source, iface)
    device = fib.interfaces.get(iface)
    if iface and (device is None or not device.up):
        return Route("none", iface, why="link_down")
    return _output4(fib, destination, source, iface, bool(bound))


def with_mtu(fib: Fib, route: Route) -> Route:
    """The route with the MTU that holds on it."""
    return replace(route, mtu=route.mtu or fib.interfaces[route.iface].mtu)


def _output4(fib: Fib, destination: bytes, source: bytes, iface: str, bound: bool) -> Route:
    if source and (source[0] >> 4 == 14 or source in (LAST4, ANY4)):
        return Route("none", iface, why="bad_source")
    wide = destination[0] >> 4 == 14 or destination == LAST4
    if source and wide and not iface:
        home = fib.lookup(source)
        if home is None or home.kind != "local":
            return Route("none", why="foreign_source")
        return _make4(fib, Route("unicast", home.iface), destination, source)
    if bound and source and not (fib.is_own(source) or fib.is_local(source)):
        return Route("none", iface, why="foreign_source")
    if iface and (destination == LAST4 or destination[:3] == b"\xe0\0\0"):
        return _make4(fib, Route("unicast", iface), destination, source or _select(fib, iface, LINK))
    if iface and not source and wide:
        source = _select(fib, iface, UNIVERSE)
    if destination == ANY4:
        source = source or (_select(fib, iface, HOST) if iface else b"")
        destination = source or _LOOPBACK4
        return _make4(fib, Route("local", "lo"), destination, source or destination)
    route = fib.lookup(destination, iface)
    if route is None or route.kind in REJECTS:
        if iface:  # a device was asked for: the destination is taken to be on link
            return _make4(fib, Route("unicast", iface), destination, source or _select(fib, iface, LINK))
        return rejected(route, 4)
    if route.kind == "local":
        source = source or route.source or destination
        return _make4(fib, replace(route, iface="lo"), destination, source)
    if not source:
        source = fib.preferred(route)
    return _make4(fib, route, destination, source)


def _make4(fib: Fib, route: Route, destination: bytes, source: bytes) -> Route:
    """[__mkroute_output]"""
    if source[:1] == b"\x7f" and route.iface != "lo" and not fib.conf.any4("route_localnet", route.iface):
        return Route("none", route.iface, why="loopback_source")
    kind = route.kind
    if destination == LAST4:
        kind = "broadcast"
    elif destination[0] >> 4 == 14:
        kind = "multicast"
    elif destination == ANY4:
        return Route("none", route.iface, why="bad_destination")
    gateway = b"" if kind in ("broadcast", "local") or route.next_scope != LINK else route.gateway
    if kind == "multicast" and route.prefix_length < 4:
        gateway = b""  # multicast does not follow a default route's gateway
    return with_mtu(fib, replace(route, kind=kind, source=source, gateway=gateway))


def _select(fib: Fib, iface: str, scope: int) -> bytes:
    return fib.select_address(iface, b"", 4, scope)


def _output6(fib: Fib, destination: bytes, source: bytes, iface: str) -> Route:
    # Without a source address the device asked for is the only one that counts [ip6_route_output_flags_noref].
    strict = destination[0] == 0xFF or is_link_local(destination) or destination == LOOPBACK6 or not source
    route = fib.lookup6(destination, iface, strict and bool(iface))
    if route is None or refuses6(route):
        return rejected(route, 6)
    if route.kind == "local" or (route.kind == "anycast" and route.protocol == "kernel"):
        out = replace(route, iface="lo")
        home = route.iface
    else:
        out, home = route, route.iface
    if not source:
        source = route.source or fib.select_address(home, destination, 6)
        if not source:
            return Route("none", home, why="no_source")
    return with_mtu(fib, replace(out, source=source))


def refuses6(route: Route) -> bool:
    """Does the route deliver nothing?  One over lo refuses, if no local one [fib6_is_reject]."""
    return route.kind in REJECTS or (route.kind == "unicast" and route.iface == "lo")


def address_type(fib: Fib, address: bytes, iface: str | None) -> set[str]:
    """See `Fib.address_type`; for IPv4 rejects do not count, for IPv6 they do."""
    if len(address) == 4:
        if address in (ANY4, LAST4):
            return {"BROADCAST"}
        if address[0] >> 4 == 14:
            return {"MULTICAST"}
        found = fib.lookup(address)
        special = found is not None and found.kind not in REJECTS and iface in (None, found.iface)
        kind = found.kind if found is not None and special else "unicast"
        return {kind.upper()}
    types = _shape6(address)
    route = fib.lookup6(address, iface or "", iface is not None)
    if route is None or refuses6(route):
        return types | {"UNREACHABLE"}
    if fib.is_own(address, iface) if iface is not None else route.kind == "local":
        types.add("LOCAL")
    if is_anycast(route, address):
        types.add("ANYCAST")
    return types


def _shape6(address: bytes) -> set[str]:
    """What an IPv6 address is by its bits alone; an IPv4 address in disguise is nothing."""
    if address == ANY6:
        return {"UNSPEC"}
    if address[0] == 0xFF:
        return {"MULTICAST"}
    return set() if address.startswith(bytes(10) + b"\xff\xff") else {"UNICAST"}


def is_anycast(route: Route, address: bytes) -> bool:
    """Is `address`, to which `route` leads, an anycast one: a subnet's lowest [ipv6_anycast_destination]?"""
    if route.kind == "anycast" and route.protocol == "kernel":
        return True
    connected = route.prefix_length < 127 and not route.gateway and route.kind != "local"
    return connected and route.prefix == address
