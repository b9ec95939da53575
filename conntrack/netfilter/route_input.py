"""What becomes of a packet that came in: forwarded, for the box, or refused, and why.

    IPv4  martian source? ─► broadcast? ─► martian destination? ─► table ─► source validated (rp_filter) ─► way
    IPv6  table (on the device itself for link-local and multicast) ─► way

One rule: the order of the questions is the kernel's; a packet that fails at two of them fails for the first.

Sources: net/ipv4/route.c (ip_route_input_rcu, ip_route_input_slow, __mkroute_input, ip_mc_validate_source),
fib_frontend.c (fib_validate_source), igmp.c (ip_check_mc_rcu); net/ipv6/route.c (ip6_route_input), ip6_output.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .addresses import HOST, LINK, LOOPBACK6, contains, is_link_local
from .fib import REJECTS, Route
from .route_output import ANY4, LAST4, refuses6, rejected, with_mtu

if TYPE_CHECKING:
    from .routing import Fib

_IGMP = 2
ALL_HOSTS = bytes((224, 0, 0, 1))


def validate(fib: Fib, source: bytes, destination: bytes, iface: str, proto: int) -> Route:
    """See `Fib.input`."""
    if len(destination) == 16:
        return _input6(fib, source, destination, iface)
    if destination[0] >> 4 == 14:
        return _multicast4(fib, source, destination, iface, proto)
    return _input4(fib, source, destination, iface)


def _drop(why: str, iface: str, kind: str = "none") -> Route:
    return Route(kind, iface, why=why)


def _input4(fib: Fib, source: bytes, destination: bytes, iface: str) -> Route:
    conf = fib.conf
    if source[0] >> 4 == 14 or source == LAST4:
        return _drop("martian_source", iface)
    if destination == LAST4 or source == destination == ANY4:
        return _broadcast4(fib, source, iface)
    if source == ANY4:
        return _drop("martian_source", iface)
    if destination == ANY4:
        return _drop("martian_destination", iface)
    if 127 in (source[0], destination[0]) and not conf.any4("route_localnet", iface) and iface != "lo":
        return _drop("martian_destination" if destination[0] == 127 else "martian_source", iface)
    route = fib.lookup(destination)
    forwarding = bool(conf.own4("forwarding", iface))
    if route is None or route.kind in REJECTS:
        return rejected(route, 4, iface) if forwarding else _drop("forwarding_off", iface)
    if route.kind == "broadcast" and not conf.both4("bc_forwarding", iface):
        return _broadcast4(fib, source, iface)
    if route.kind == "local":
        why, _ = _source4(fib, source, iface, "")
        return _drop(why, iface) if why else with_mtu(fib, replace(route, iface="lo", source=destination))
    if not forwarding and route.kind != "broadcast":
        return _drop("forwarding_off", iface)
    if route.kind not in ("unicast", "broadcast"):
        return _drop("martian_destination", iface)
    why, near = _source4(fib, source, iface, route.iface)
    if why:
        return _drop(why, iface)
    redirect = near and _redirect(fib, route, source, iface)
    # A gateway that is the box itself is none [rt_set_nexthop].
    gateway = route.gateway if route.next_scope == LINK else b""
    return with_mtu(fib, replace(route, kind="unicast", gateway=gateway, redirect=redirect))


def _broadcast4(fib: Fib, source: bytes, iface: str) -> Route:
    if source != ANY4:
        why, _ = _source4(fib, source, iface, "")
        if why:
            return _drop(why, iface)
    return Route("broadcast", iface, mtu=fib.interfaces[iface].mtu)


def _multicast4(fib: Fib, source: bytes, destination: bytes, iface: str, proto: int) -> Route:
    """Delivered if the device is a member of the group: of 224.0.0.1, or any for IGMP [ip_check_mc_rcu]."""
    if destination != ALL_HOSTS or iface == "lo":
        return _drop("no_member", iface, "multicast")
    if source[0] >> 4 == 14 or source == LAST4:
        return _drop("martian_source", iface, "multicast")
    if source[0] == 127 and not fib.conf.any4("route_localnet", iface):
        return _drop("martian_source", iface, "multicast")
    if source != ANY4:
        why, _ = _source4(fib, source, iface, "")
        if why:
            return _drop(why, iface, "multicast")
    return Route("multicast", iface, mtu=fib.interfaces[iface].mtu)


def _redirect(fib: Fib, route: Route, source: bytes, iface: str) -> bool:
    """Could the sender have gone to the next hop itself?"""
    if route.iface != iface or not fib.conf.any4("send_redirects", iface):
        return False
    if fib.conf.any4("shared_media", iface):
        return True
    return any(  # inet_addr_onlink
        contains(address, source) and (not route.gateway or contains(address, route.gateway))
        for address in fib.interfaces[iface].ipv4
    )


def _source4(fib: Fib, source: bytes, iface: str, out_iface: str) -> tuple[str, bool]:
    """Why a packet from `source` is not taken from `iface` ("": it is), and if the sender is on that link.

    The short way, without rp_filter: only an own address is refused [fib_validate_source].
    """
    conf = fib.conf
    mode = conf.most4("rp_filter", iface)
    local = conf.any4("accept_local", iface)
    if not mode and (iface != out_iface or not conf.any4("send_redirects", iface)):
        if local:
            return "", False
        if not fib.custom_local:
            return ("local_source" if fib.is_own(source) else ""), False
    route = fib.lookup(source)
    bare = not fib.interfaces[iface].ipv4
    if route is None or route.kind in REJECTS:
        return ("rp_filter" if mode else ""), False
    if route.kind == "local" and not local:
        return "local_source", False
    if route.kind not in ("unicast", "local"):
        return "martian_source", False
    if route.iface == iface or (route.kind == "local" and iface == "lo"):
        return "", route.next_scope >= HOST
    if bare:
        return ("rp_filter" if mode else ""), False
    if mode == 1:
        return "rp_filter", False
    route = fib.lookup(source, iface)
    return "", route is not None and route.kind == "unicast" and route.next_scope >= HOST


# ── IPv6 ────────────────────────────────────────────────────────────────────────────────────────────


def _input6(fib: Fib, source: bytes, destination: bytes, iface: str) -> Route:
    strict = destination[0] == 0xFF or is_link_local(destination) or destination == LOOPBACK6
    route = fib.lookup6(destination, iface, strict)
    if route is None or refuses6(route):
        return rejected(route, 6, iface)
    if route.kind == "multicast":
        member = destination in groups6(fib, iface)
        return replace(with_mtu(fib, route), iface=iface, why="" if member else "no_member")
    if route.kind in ("local", "anycast"):
        return with_mtu(fib, replace(route, iface="lo", source=destination))
    if not fib.conf.forwards6(iface):
        return _drop("forwarding_off", iface)
    return with_mtu(fib, replace(route, redirect=route.iface == iface))


def groups6(fib: Fib, iface: str) -> tuple[bytes, ...]:
    """The multicast groups of a device: all nodes, and all routers where it forwards.

    A device without neighbour discovery (TUN) is no member of solicited-node groups.
    """
    groups = tuple(_group(scope, 1) for scope in (1, 2))
    if fib.conf.own6("forwarding", iface):
        groups += tuple(_group(scope, 2) for scope in (1, 2, 5))
    return groups


def _group(scope: int, number: int) -> bytes:
    return bytes((0xFF, scope)) + bytes(13) + bytes((number,))
