"""Routes and the tables that hold them: insertion, removal, longest prefix.

One rule: a table only orders.  What a route means is `routing`'s affair.

IPv4 keeps local and main in one trie: the longest prefix wins whatever table it is in, and only of equal
prefixes that of table local comes first.  IPv6 asks local, then main.  Among equals the lower metric comes first,
then the older route.

Sources: fib_trie.c (fib_insert_alias, fib_table_lookup), ip6_fib.c (fib6_add_rt2node), fib_rules.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .addresses import UNIVERSE

KINDS = ("unicast", "local", "broadcast", "multicast", "anycast", "unreachable", "prohibit", "blackhole", "throw")
REJECTS = frozenset(("unreachable", "prohibit", "blackhole", "throw"))  # kinds without a next hop


_REFUSALS = frozenset(("no_route", "unreachable", "prohibit", "blackhole", "forwarding_off"))


@dataclass(frozen=True, slots=True)
class Route:
    """A route, and what a look-up answers.

    kind     one of KINDS, "none": there is no way        iface    output device, "" if none
    gateway  packed next hop, b"" if on link              source   packed preferred source address, or b""
    mtu      route's MTU, else the device's               scope    of the destination; next_scope: of the next hop
    why      for a packet that is not to be delivered or forwarded: the reason, else ""
    error    ICMP type and code the sender is told, or None
    redirect the sender could have gone to the next hop itself (same device)
    """

    kind: str = "none"
    iface: str = ""
    gateway: bytes = b""
    source: bytes = b""
    mtu: int = 0
    prefix: bytes = b""
    prefix_length: int = 0
    scope: int = UNIVERSE
    metric: int = 0
    table: str = "main"
    protocol: str = "boot"
    onlink: bool = False
    next_scope: int = UNIVERSE
    redirect: bool = False
    why: str = ""
    error: tuple[int, int] | None = None

    @property
    def refuses(self) -> bool:
        """Was a way found that leads nowhere?  (Else `why` says that none was looked for, as with martians.)

        The packet goes that way up to its end: IPv4 options are read before.
        """
        return self.why in _REFUSALS


class Table:
    """The routes of one family; `split`: is table local asked before main (IPv6) or together with it (IPv4)?"""

    def __init__(self, bits: int, split: bool) -> None:
        self.bits = bits
        self.split = split
        self._rows: dict[tuple[str, int], dict[int, list[Route]]] = {}  # (table, prefix length) -> prefix -> routes
        self._order: list[tuple[str, int]] = []

    def add(self, route: Route, replace: bool = False) -> bool:
        """Put it in its place; False if one of that prefix, table and metric is there and `replace` is not set."""
        where = route.table, route.prefix_length
        row = self._rows.setdefault(where, {}).setdefault(self._number(route.prefix, route.prefix_length), [])
        at = 0
        while at < len(row) and row[at].metric < route.metric:
            at += 1
        if at < len(row) and row[at].metric == route.metric:
            if not replace:
                return False
            row[at] = route
        else:
            row.insert(at, route)
        self._sort()
        return True

    def append(self, route: Route) -> None:
        """Put it behind those of equal prefix and metric, unless the very same is there."""
        where = route.table, route.prefix_length
        row = self._rows.setdefault(where, {}).setdefault(self._number(route.prefix, route.prefix_length), [])
        if route not in row:
            at = len(row)
            while at and row[at - 1].metric > route.metric:
                at -= 1
            row.insert(at, route)
            self._sort()

    def discard(self, doomed: Callable[[Route], bool]) -> list[Route]:
        """Take out all routes of which `doomed` is true; returns them."""
        gone = [route for route in self if doomed(route)]
        for route in gone:
            self.remove(route)
        return gone

    def remove(self, route: Route) -> None:
        """Take out exactly this route."""
        where, number = (route.table, route.prefix_length), self._number(route.prefix, route.prefix_length)
        row = self._rows[where][number]
        row.remove(route)
        if not row:
            del self._rows[where][number]
            if not self._rows[where]:
                del self._rows[where]
                self._sort()

    def exact(self, table: str, prefix: bytes, prefix_length: int) -> list[Route]:
        """The routes of exactly this prefix."""
        return list(self._rows.get((table, prefix_length), {}).get(self._number(prefix, prefix_length), ()))

    def matching(self, address: bytes, table: str = "") -> Iterator[Route]:
        """All routes that cover `address`, best first; of one table only, if named."""
        number = int.from_bytes(address, "big")
        for where in self._order:
            if table and where[0] != table:
                continue
            yield from self._rows[where].get(number >> self.bits - where[1], ())

    def __iter__(self) -> Iterator[Route]:
        for where in self._order:
            for row in self._rows[where].values():
                yield from row

    def _number(self, prefix: bytes, length: int) -> int:
        return int.from_bytes(prefix, "big") >> self.bits - length

    def _sort(self) -> None:
        """Longest prefix first; table local (the lesser word) before main, wholly or within one length."""
        if self.split:
            self._order = sorted(self._rows, key=lambda where: (where[0], -where[1]))
        else:
            self._order = sorted(self._rows, key=lambda where: (-where[1], where[0]))
