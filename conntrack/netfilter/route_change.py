"""A route by its text, checked against the box as the kernel checks it, and its removal.

One rule: what Linux would refuse raises ValueError, with the text and the kernel's reason.

Sources: fib_semantics.c (fib_create_info, fib_check_nh, fib_check_nh_v4_gw, fib_check_nh_nongw), fib_trie.c
(fib_table_delete), net/ipv6/route.c (ip6_route_info_create, ip6_validate_gw, ip6_route_check_nh, ip6_route_del) of
Linux 6.18.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from . import addresses
from .addresses import HOST, LINK, NOWHERE, UNIVERSE
from .fib import REJECTS, Route, Table
from .route_text import Request

if TYPE_CHECKING:
    from .routing import Fib

_METRIC6 = 1024  # IP6_RT_PRIO_USER
_NOT_BEYOND = REJECTS | {"local", "anycast"}
# What a removal goes by, if it is given.
_DELETE_BY6 = {"via": "gateway", "dev": "iface", "metric": "metric", "proto": "protocol"}
_DELETE_BY = {
    "kind": "kind",
    "via": "gateway",
    "dev": "iface",
    "src": "source",
    "metric": "metric",
    "proto": "protocol",
    "scope": "scope",
    "mtu": "mtu",
}


def resolve4(fib: Fib, request: Request) -> Route:
    """The IPv4 route asked for, with the device and scope of its next hop [fib_create_info]."""
    route, text = request.route, request.text
    if route.kind in REJECTS:
        return route
    if {"local": HOST, "broadcast": LINK, "anycast": LINK}.get(route.kind, UNIVERSE) > route.scope:
        raise ValueError(f"route {text!r}: scope is too wide for a {route.kind} route (Invalid scope)")
    if route.scope >= NOWHERE:
        raise ValueError(f"route {text!r}: Invalid scope")
    if route.iface:
        _up(fib, text, route.iface, local=route.scope == HOST)
    elif not route.gateway:
        raise ValueError(f"route {text!r}: neither a gateway nor a device (No such device)")
    if route.source and not fib.is_local(route.source):
        raise ValueError(f"route {text!r}: {ip_address(route.source)} is no local address (Invalid prefsrc)")
    if route.scope == HOST:
        if route.gateway:
            raise ValueError(f"route {text!r}: Route with host scope can not have a gateway")
        return replace(route, next_scope=NOWHERE)
    if route.gateway:
        return _gateway4(fib, text, route)
    if route.onlink:
        raise ValueError(f"route {text!r}: onlink without a gateway (Invalid flags for nexthop)")
    return replace(route, next_scope=HOST)


def _gateway4(fib: Fib, text: str, route: Route) -> Route:
    """The route with the device and scope of its next hop [fib_check_nh_v4_gw]."""
    invalid = f"route {text!r}: Nexthop has invalid gateway"
    if route.onlink:
        if route.scope >= LINK or not route.iface:
            raise ValueError(f"route {text!r}: onlink asks for a device and a scope wider than link")
        if fib.address_type(route.gateway) != {"UNICAST"}:
            raise ValueError(invalid)
        return replace(route, next_scope=LINK)
    # The gateway must be on link: a route narrower than this one, and none of scope universe.
    found = fib.lookup(route.gateway, route.iface, max(route.scope + 1, LINK))
    if found is None or found.kind not in ("unicast", "local"):
        raise ValueError(invalid)
    _up(fib, text, found.iface)
    return replace(route, iface=found.iface, next_scope=found.scope)


def resolve6(fib: Fib, request: Request) -> Route:
    """The IPv6 route asked for, with the device of its next hop [ip6_route_info_create]."""
    route, text = request.route, request.text
    if not route.metric:
        route = replace(route, metric=_METRIC6)
    near = addresses.is_link_local(route.source or bytes(16))
    if route.source and not fib.is_own(route.source, route.iface if near else ""):
        raise ValueError(f"route {text!r}: {ip_address(route.source)} is no local address (Invalid source)")
    if route.kind in REJECTS:
        return replace(route, iface="", gateway=b"")
    if route.gateway:
        route = _gateway6(fib, text, route)
    elif not route.iface:
        raise ValueError(f"route {text!r}: neither a gateway nor a device (No such device)")
    _up(fib, text, route.iface)
    if route.iface == "lo" and route.gateway:
        raise ValueError(f"route {text!r}: Egress device can not be loopback device for this route")
    return route


def _gateway6(fib: Fib, text: str, route: Route) -> Route:
    """The route with the device of its next hop [ip6_validate_gw, ip6_route_check_nh]."""
    gateway, iface = route.gateway, route.iface
    if gateway[0] == 0xFF or gateway == bytes(16):
        raise ValueError(f"route {text!r}: Invalid gateway address")
    near = addresses.is_link_local(gateway)
    if fib.is_own(gateway, iface if near else ""):
        raise ValueError(f"route {text!r}: Gateway can not be a local address")
    if near or route.onlink:
        if not iface:
            raise ValueError(f"route {text!r}: the gateway needs a device (Invalid argument)")
        found = fib.lookup6(gateway, iface) if route.onlink else None
        if found and found.prefix_length and (found.iface != iface or found.kind in _NOT_BEYOND):
            raise ValueError(f"route {text!r}: Nexthop has invalid gateway or device mismatch")
        return route
    for table in (route.table, ""):
        found = fib.lookup6(gateway, iface, table=table)
        if found and not found.gateway and found.kind not in REJECTS and iface in ("", found.iface):
            return replace(route, iface=found.iface)
    raise ValueError(f"route {text!r}: the gateway is not on link (No route to host)")


def delete(fib: Fib, request: Request) -> None:
    """Take out the first route that has all that was given."""
    wanted, given = request.route, request.given
    table = fib.ipv4 if request.family == 4 else fib.ipv6
    for route in table.exact(wanted.table, wanted.prefix, wanted.prefix_length):
        if all(
            getattr(route, name) == getattr(wanted, name)
            for word, name in (_DELETE_BY if request.family == 4 else _DELETE_BY6).items()
            if word in given and (word != "metric" or wanted.metric)
        ):
            table.remove(route)
            return
    raise ValueError(f"route {request.text!r}: there is none such (No such process)")


def _up(fib: Fib, text: str, iface: str, local: bool = False) -> None:
    if iface not in fib.interfaces:
        raise ValueError(f"route {text!r}: there is no device {iface!r}")
    if not fib.interfaces[iface].up and not local:
        raise ValueError(f"route {text!r}: {iface} is not up")


def twin(table: Table, route: Route) -> bool:
    """Is there one of the same prefix, metric and next hop?"""
    return any(
        (other.metric, other.iface, other.gateway) == (route.metric, route.iface, route.gateway)
        for other in table.exact(route.table, route.prefix, route.prefix_length)
    )
