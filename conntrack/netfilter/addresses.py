"""Interfaces and their addresses: which there are, in the kernel's order, and which one speaks for the box.

One rule: order decides.  IPv4 keeps primary addresses by descending scope, then by age; a further address of a
subnet is secondary and goes when its primary goes.  IPv6 keeps them by descending scope, the youngest first.

    select4 ─ the first primary address that suits the scope, one of the next hop's subnet before all others
    select6 ─ RFC 6724: the same address, scope, device, label, longest common prefix

Sources: devinet.c (__inet_insert_ifa, __inet_del_ifa, inet_select_addr), addrconf.c (ipv6_link_dev_addr,
ipv6_dev_get_saddr), addrlabel.c; RFC 6724.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

# Scopes of addresses and routes [rtnetlink.h]: the greater, the nearer.
UNIVERSE, SITE, LINK, HOST, NOWHERE = 0, 200, 253, 254, 255
SCOPES = {"global": UNIVERSE, "universe": UNIVERSE, "site": SITE, "link": LINK, "host": HOST, "nowhere": NOWHERE}

# RFC 6724, 2.1, with Linux's rows: prefix -> label.
# fmt: off
_LABELS = (
    ("::1",       128, 0),
    ("::ffff:0:0", 96, 4),
    ("2001::",     32, 6),   # Teredo
    ("2001:10::",  28, 7),   # ORCHID
    ("3ffe::",     16, 12),  # 6bone
    ("2002::",     16, 2),   # 6to4
    ("fec0::",     10, 11),
    ("fc00::",      7, 5),
    ("::",         96, 3),
    ("::",          0, 1),
)
# fmt: on
_LABEL_ROWS = tuple((int(ip_address(text)) >> 128 - size, 128 - size, label) for text, size, label in _LABELS)


@dataclass(frozen=True, slots=True)
class Address:
    """One address of an interface: packed `local`, its subnet, and how it got there."""

    local: bytes
    prefix: bytes
    prefix_length: int
    broadcast: bytes = b""
    scope: int = UNIVERSE
    secondary: bool = False


@dataclass(slots=True)
class Interface:
    """A device: up or down, its MTU, and its addresses of both families in the kernel's order."""

    name: str
    mtu: int = 1500
    up: bool = True
    ipv4: list[Address] = field(default_factory=list)
    ipv6: list[Address] = field(default_factory=list)

    @property
    def loopback(self) -> bool:
        """Is it lo?"""
        return self.name == "lo"

    def of(self, family: int) -> list[Address]:
        """Its addresses of family 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6


def parse_address(text: str) -> Address:
    """The `Address` in the text of `ip address add`: "10.0.0.1/24", with "brd +", "brd ADDRESS" or "scope WORD".

    Raises ValueError quoting the text.
    """
    words = text.split()
    try:
        given = ip_interface(words[0])
    except (IndexError, ValueError):
        raise ValueError(f"address {text!r}: not an address with a prefix length") from None
    found = _address(given)
    rest = iter(words[1:])
    for word in rest:
        value = "" if word in ("nodad", "noprefixroute") else next(rest, "")
        if word in ("brd", "broadcast") and found.prefix_length < 31:
            found = replace(found, broadcast=_broadcast(text, given, value))
        elif word == "scope" and value in SCOPES:
            found = replace(found, scope=SCOPES[value] if given.version == 4 else found.scope)
        elif word != "nodad":
            raise ValueError(f"address {text!r}: {word!r} is not understood")
    return found


def _address(given: IPv4Interface | IPv6Interface) -> Address:
    local = given.packed
    network = given.network
    if given.version == 4:
        scope = HOST if local[0] == 127 else UNIVERSE
    else:
        scope = scope6(local)
    return Address(local, network.network_address.packed, network.prefixlen, scope=scope)


def _broadcast(text: str, given: IPv4Interface | IPv6Interface, value: str) -> bytes:
    if value == "+":
        return given.network.broadcast_address.packed
    try:
        return ip_address(value).packed
    except ValueError:
        raise ValueError(f"address {text!r}: {value!r} is no broadcast address") from None


def insert(interface: Interface, address: Address) -> Address:
    """Put `address` where the kernel puts it; returns it as it now is (primary or secondary).

    Raises ValueError if the interface has it already.
    """
    if len(address.local) == 16:
        if any(other.local == address.local for other in interface.ipv6):
            raise ValueError(f"{interface.name} has the address {ip_address(address.local)} already")
        at = 0
        while at < len(interface.ipv6) and _order6(interface.ipv6[at]) > _order6(address):
            at += 1
        interface.ipv6.insert(at, address)
        return address
    at = 0
    for place, other in enumerate(interface.ipv4):
        if other.prefix_length == address.prefix_length and other.prefix == address.prefix:
            if other.local == address.local:
                raise ValueError(f"{interface.name} has the address {ip_address(address.local)} already")
            address = replace(address, secondary=True)
        if not other.secondary and address.scope <= other.scope:
            at = place + 1
    interface.ipv4.insert(len(interface.ipv4) if address.secondary else at, address)
    return address


def remove(interface: Interface, address: Address) -> list[Address]:
    """Take `address` away; returns all that went with it: the secondaries of its subnet too.

    Raises ValueError if the interface does not have it.
    """
    held = interface.of(6 if len(address.local) == 16 else 4)
    for mine in held:
        if mine.local == address.local and mine.prefix_length == address.prefix_length:
            break
    else:
        raise ValueError(f"{interface.name} has no address {ip_address(address.local)}/{address.prefix_length}")
    gone = [mine]
    if len(mine.local) == 4 and not mine.secondary:
        gone[:0] = [other for other in held if other.secondary and _same_subnet(other, mine)]
    for one in gone:
        held.remove(one)
    return gone


def _same_subnet(one: Address, other: Address) -> bool:
    return one.prefix_length == other.prefix_length and one.prefix == other.prefix


def contains(address: Address, other: bytes) -> bool:
    """Is `other` in the subnet of `address`?"""
    shift = len(other) * 8 - address.prefix_length
    return int.from_bytes(other, "big") >> shift == int.from_bytes(address.prefix, "big") >> shift


# ── IPv4 ────────────────────────────────────────────────────────────────────────────────────────────


def select4(
    interfaces: Iterable[Interface], interface: Interface | None, next_hop: bytes, scope: int, localnet: bool
) -> bytes:
    """The box's IPv4 address for sending out of `interface` to `next_hop`, b"" if it has none [inet_select_addr].

    `localnet`: route_localnet is set there, so that loopback addresses count as link-wide.
    """
    host = LINK if localnet else HOST
    found = b""
    for address in interface.ipv4 if interface else ():
        if address.secondary or min(address.scope, host) > scope:
            continue
        if not next_hop or contains(address, next_hop):
            return address.local
        found = found or address.local
    if found:
        return found
    for other in interfaces:
        for address in other.ipv4:
            if not address.secondary and address.scope != LINK and address.scope <= scope:
                return address.local
    return b""


# ── IPv6 ────────────────────────────────────────────────────────────────────────────────────────────


def scope6(address: bytes) -> int:
    """Scope of an IPv6 address: HOST, LINK, SITE, UNIVERSE as `ip address` prints it."""
    return {1: HOST, 2: LINK, 5: SITE}.get(reach(address), UNIVERSE)


def reach(address: bytes) -> int:
    """The scope number of RFC 4291: 1 interface, 2 link, 5 site, 14 global; 0 of the unspecified address."""
    if address[0] == 0xFF:
        return address[1] & 15
    if not any(address):
        return 0
    if address == LOOPBACK6 or is_link_local(address):
        return 2  # RFC 6724, 3.4: loopback counts as link-local
    return 5 if address[0] == 0xFE and address[1] & 0xC0 == 0xC0 else 14


def sort_of(address: bytes) -> int:
    """What REDIRECT tells IPv6 addresses apart by [ipv6_addr_scope]: 1 loopback, 2 link, 5 site, 8 an IPv4 address
    behind zeros, 0 everything else."""
    if address[0] == 0xFF:
        scope = address[1] & 15
        return scope if scope in (1, 2, 5) else 0
    if not any(address[:12]) and any(address):
        return 1 if address == LOOPBACK6 else 8
    return {0x80: 2, 0xC0: 5}.get(address[1] & 0xC0, 0) if address[0] == 0xFE else 0


LOOPBACK6 = bytes(15) + b"\1"


def is_link_local(address: bytes) -> bool:
    """fe80::/10?"""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def _order6(address: Address) -> int:
    return reach(address.local)


def select6(interfaces: Iterable[Interface], interface: Interface | None, destination: bytes) -> bytes:
    """The box's IPv6 address for sending out of `interface` to `destination`, b"" if none [ipv6_dev_get_saddr].

    Link-local and multicast destinations are only spoken to with an address of that interface.
    """
    near = destination[0] == 0xFF or reach(destination) <= 2
    candidates = _candidates(interfaces, interface, near)
    best: tuple[int, ...] = ()
    chosen = b""
    for device, address in candidates:
        score = _score(address, destination, device is interface)
        if score > best:
            best, chosen = score, address.local
    return chosen


def _candidates(
    interfaces: Iterable[Interface], interface: Interface | None, near: bool
) -> Iterator[tuple[Interface, Address]]:
    for device in interfaces:
        if not near or device is interface:
            for address in device.ipv6:
                yield device, address


def _score(address: Address, destination: bytes, here: bool) -> tuple[int, ...]:
    """RFC 6724's rules 1, 2, 5, 6 and 8 as a tuple that compares like them."""
    mine, theirs = reach(address.local), reach(destination)
    # Rule 2: the smallest scope that is not too small, failing that the largest.
    scope = 100 - mine if mine >= theirs else mine - 100
    same = int.from_bytes(address.local, "big") ^ int.from_bytes(destination, "big")
    return (
        address.local == destination,
        scope,
        here,
        label(address.local) == label(destination),
        min(128 - same.bit_length(), address.prefix_length),
    )


def label(address: bytes) -> int:
    """Its label in the default policy table."""
    number = int.from_bytes(address, "big")
    return next(label for prefix, shift, label in _LABEL_ROWS if number >> shift == prefix)
