"""The bucketed tuple table: every confirmed connection, findable by either direction.

Two structures, one truth:
    by_protocol[p][key] -> Conn     look-up: one dict probe, nothing else
    heads[bucket] -> None | Conn | tuple of Conns     the kernel's hash chains, newest first

Only the chains decide what the kernel decides by place: early drop's victims, the chain limit, the order of a
dump or a sweep.  A bucket is a keyed universal hash of the key (multiplication by a secret modulo the prime
2**127 - 1), computed once per direction at confirmation, so victims depend on the seed and never on
PYTHONHASHSEED, and nobody without the secret can aim at a bucket.

Expiry is lazy as in the kernel: an entry is dead to every look-up from its deadline on, but stays, and counts,
until it is met.  `find` is such a meeting; so are `early_drop`, a dump and the gc (see `expiry`).

Zones of one direction let two connections have the same tuple in the same zone, one as original, one as reply:
which one a packet belongs to depends on its own zone in that direction.  The newer one then stands in the dict and
the older in `shadows`, until the newer ends.

Sources: nf_conntrack_core.c (____nf_conntrack_find, __nf_conntrack_confirm, early_drop_list, nf_ct_delete).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from .choices import ChoiceSource
from .conn import NOWHERE, RECORD, Conn
from .journal import Journal
from .tuples import Zone, bare, invert
from .verdict import ASSURED, CONFIRMED, DYING, NAT_CLASH, NAT_MASK, ORIGINAL, REPLY

_PRIME: Final = (1 << 127) - 1
_PIECE: Final = 12  # octets per step of the hash: always below the prime
EARLY_DROP_BUCKETS: Final = 8  # NF_CT_EVICTION_RANGE
_MIN_CHAIN: Final = 50  # _MIN_CHAINLEN; the limit is drawn from 50..79, and two more are let in

# Why a connection ended (the `end_reason` of flow records).
TIMEOUT: Final = "timeout"
EVICTED: Final = "early_drop"

Cell = None | Conn | tuple[Conn, ...]


def _nothing(conn: Conn, reason: str) -> None:
    """Nobody wants to know."""


class Table:
    """All connections of one engine.  `count` includes those not yet confirmed, as the kernel's does."""

    __slots__ = (
        "_secret",
        "buckets",
        "by_protocol",
        "choices",
        "count",
        "deleted",
        "heads",
        "journal",
        "now",
        "serial",
        "shadows",
        "statuses",
    )

    def __init__(self, choices: ChoiceSource, buckets: int) -> None:
        self.choices = choices
        self.now: int = 0
        self.count: int = 0
        self.serial: int = 0
        self.buckets = buckets
        self.by_protocol: list[dict[bytes, Conn]] = [{} for _ in range(256)]
        self.shadows: dict[bytes, tuple[Conn, ...]] = {}  # protocol and key -> connections, newest first
        self.heads: list[Cell] = [None] * buckets
        self.deleted: Callable[[Conn, str], None] = _nothing
        self.journal: Journal | None = None
        self.statuses: dict[int, int] = {}
        self._secret = choices.hash_secret() | 1

    # --- look-up ---------------------------------------------------------------------------------------

    def find(self, key: bytes, proto: int) -> Conn | None:
        """The live connection one of whose tuples is `key`; an expired one met here is deleted."""
        conn = self.by_protocol[proto].get(key)
        if conn is not None and conn.deadline <= self.now:
            self.delete(conn, TIMEOUT)
            return self.find(key, proto) if self.shadows else None
        return conn

    def find_in(self, key: bytes, proto: int, zone: Zone, number: int) -> Conn | None:
        """As `find`, for a packet whose `zone` may be one of a single direction; `number` is the zone in `key`."""
        for conn in self.nodes(key, proto):
            if conn.deadline <= self.now:
                self.delete(conn, TIMEOUT)
            elif zone.effective(direction_of(conn, key)) == number:
                return conn
        return None

    def nodes(self, key: bytes, proto: int) -> tuple[Conn, ...]:
        """All connections one of whose tuples is `key`, newest first; nearly always one at most."""
        conn = self.by_protocol[proto].get(key)
        if conn is None:
            return ()
        return (conn, *self.shadows.get(_shadow(key, proto), ())) if self.shadows else (conn,)

    def taken(self, key: bytes, conn: Conn) -> bool:
        """Would reply tuple `key` collide with another connection than `conn` [nf_conntrack_tuple_taken]?

        One with the same original tuple does not count: that is the same flow, seen twice.
        """
        zone = conn.extra.zone
        if zone.directions == 3:
            other = self.find(key, conn.proto)
        else:
            other = self.find_in(key, conn.proto, zone, zone.effective(REPLY))
        return other is not None and other is not conn and other.orig != conn.orig

    def confirmed(self, key: bytes, conn: Conn, direction: int) -> Conn | None:
        """The connection that keeps `conn` from having `key` in `direction`, living or not."""
        zone = conn.extra.zone
        if zone.directions == 3:
            return self.by_protocol[conn.proto].get(key)
        for other in self.nodes(key, conn.proto):
            if zone.effective(direction_of(other, key)) == zone.effective(direction):
                return other
        return None

    def __iter__(self) -> Iterator[Conn]:
        """Every confirmed connection, expired ones too, in order of creation."""
        conns = [
            conn
            for by_key in self.by_protocol
            if by_key
            for key, conn in by_key.items()
            if key == conn.reply
        ]
        for key, shadowed in self.shadows.items():
            conns += [conn for conn in shadowed if conn.reply == key[1:]]
        conns.sort(key=_serial)
        return iter(conns)

    # --- making and ending -----------------------------------------------------------------------------

    def allocate(self, orig: bytes, reply: bytes, proto: int) -> Conn:
        """A new, unconfirmed connection; it counts from now on."""
        self.count += 1
        self.serial += 1
        record = RECORD.pack(0, -1, 0, -1, 0, self.serial, NOWHERE, 0, 0, 0)
        return Conn(self, orig, reply, proto, record)

    def shared_status(self, status: int) -> int:
        """The same number, in the one object that all connections with this status share (32 octets each)."""
        return status if self.journal is not None else self.statuses.setdefault(status, status)

    def release(self, conn: Conn) -> None:
        """An unconfirmed connection goes with its packet and leaves nothing."""
        self.count -= 1

    def insert(self, conn: Conn, reply_only: bool = False) -> tuple[int, int]:
        """Confirm: put both directions in; (0, 0), or the (length, limit) of a chain that is too long.

        `reply_only`: the loser of a clash, findable by its answers alone.  The caller has checked that the keys
        are free.
        """
        first, second = self.bucket(conn.orig, conn.proto), self.bucket(conn.reply, conn.proto)
        length = max(self.chain_length(first), self.chain_length(second))
        if length >= _MIN_CHAIN + 2:
            limit = _MIN_CHAIN + self.choices.chain_limit(conn.orig)
            if length >= limit + 2:
                return length, limit
        conn.buckets = first << 32 | second
        by_key = self.by_protocol[conn.proto]
        journal = self.journal
        if not reply_only:
            if conn.extra.zone.directions != 3:
                self._shade(conn.orig, conn)
            if journal is not None:
                journal.item(by_key, conn.orig)
            by_key[conn.orig] = conn
            self._push(first, conn)
        if conn.extra.zone.directions != 3:
            self._shade(conn.reply, conn)
        if journal is not None:
            journal.item(by_key, conn.reply)
        by_key[conn.reply] = conn
        self._push(second, conn)
        return 0, 0

    def places(self, orig: bytes, reply: bytes, proto: int) -> int:
        """The places of a connection with these keys, as `Conn.buckets` has them; -1 if a chain is so long that a
        limit would have to be drawn."""
        first, second = self.bucket(orig, proto), self.bucket(reply, proto)
        for cell in (self.heads[first], self.heads[second]):
            if isinstance(cell, tuple) and len(cell) >= _MIN_CHAIN:
                return -1
        return first << 32 | second

    def place(self, conn: Conn, places: int) -> None:
        """Put both directions of a connection of the default zone in where `places` says; nobody has its keys, and
        no trial is running."""
        by_key = self.by_protocol[conn.proto]
        by_key[conn.orig] = by_key[conn.reply] = conn
        self._push(places >> 32, conn)
        self._push(places & 0xFFFFFFFF, conn)

    def delete(self, conn: Conn, reason: str) -> None:
        """Take a confirmed connection out, mark it DYING and tell `deleted`."""
        if conn.status & DYING:
            return
        journal = self.journal
        if journal is not None:
            journal.touch(conn)
        by_key = self.by_protocol[conn.proto]
        if not conn.status & NAT_CLASH:
            if journal is not None:
                journal.item(by_key, conn.orig)
            if self.shadows:
                self._unshade(conn.orig, conn)
            else:
                del by_key[conn.orig]
            self._drop(conn.buckets >> 32, conn)
        if conn.reply in by_key:
            if journal is not None:
                journal.item(by_key, conn.reply)
            if self.shadows:
                self._unshade(conn.reply, conn)
            else:
                del by_key[conn.reply]
        self._drop(conn.buckets & 0xFFFFFFFF, conn)
        self.count -= 1
        conn.status |= DYING
        self.deleted(conn, reason)

    def _shade(self, key: bytes, conn: Conn) -> None:
        """`conn` is about to take `key`: whoever has it steps back."""
        older = self.nodes(key, conn.proto)
        if older and older[0] is not conn:
            name = _shadow(key, conn.proto)
            if self.journal is not None:
                self.journal.item(self.shadows, name)
            self.shadows[name] = older

    def _unshade(self, key: bytes, conn: Conn) -> None:
        """`conn` leaves `key`: the next older one steps forward."""
        rest = tuple([other for other in self.nodes(key, conn.proto) if other is not conn])
        by_key, name = self.by_protocol[conn.proto], _shadow(key, conn.proto)
        if self.journal is not None and name in self.shadows:
            self.journal.item(self.shadows, name)
        self.shadows.pop(name, None)
        if not rest:
            by_key.pop(key, None)
            return
        by_key[key] = rest[0]
        if len(rest) > 1:
            self.shadows[name] = rest[1:]

    # --- buckets ---------------------------------------------------------------------------------------

    def bucket(self, key: bytes, proto: int) -> int:
        """The bucket of `key`: polynomial hash over 12-octet pieces, squared, scaled to the number of buckets.

        The polynomial alone is linear in a counting port or address and would spread such keys more evenly than
        chance does; chains would then be shorter than the kernel's.
        """
        secret = self._secret
        value = proto + 1
        if len(key) == _PIECE:  # IPv4: one piece, and nothing to keep small on the way
            value = (value * secret + int.from_bytes(key, "big")) * secret % _PRIME
        else:
            for at in range(0, len(key), _PIECE):
                value = (value * secret + int.from_bytes(key[at : at + _PIECE], "big")) % _PRIME
            value = value * secret % _PRIME
        return (value * value % _PRIME) * self.buckets >> 127

    def chain(self, bucket: int) -> tuple[Conn, ...]:
        """The connections with a node in `bucket`, newest first; twice those with both."""
        cell = self.heads[bucket]
        if cell is None:
            return ()
        return cell if isinstance(cell, tuple) else (cell,)

    def chain_length(self, bucket: int) -> int:
        """Nodes in `bucket`."""
        cell = self.heads[bucket]
        if cell is None:
            return 0
        return len(cell) if isinstance(cell, tuple) else 1

    def occupied(self) -> list[Cell]:
        """The cells that hold something, in bucket order; what a sweep of the whole table walks."""
        if self.count * 64 > self.buckets:
            return [cell for cell in self.heads if cell is not None]
        filled = {bucket for conn in self for bucket in (conn.buckets >> 32, conn.buckets & 0xFFFFFFFF)}
        return [self.heads[bucket] for bucket in sorted(filled) if self.heads[bucket] is not None]

    def _push(self, bucket: int, conn: Conn) -> None:
        if self.journal is not None:
            self.journal.item(self.heads, bucket)
        cell = self.heads[bucket]
        if cell is None:
            self.heads[bucket] = conn
        else:
            self.heads[bucket] = (conn, *cell) if isinstance(cell, tuple) else (conn, cell)

    def _drop(self, bucket: int, conn: Conn) -> None:
        if self.journal is not None:
            self.journal.item(self.heads, bucket)
        cell = self.heads[bucket]
        if not isinstance(cell, tuple):
            self.heads[bucket] = None
            return
        at = cell.index(conn)
        rest = cell[:at] + cell[at + 1 :]
        self.heads[bucket] = rest if len(rest) > 1 else rest[0]

    def resize(self, buckets: int) -> None:
        """`nf_conntrack_buckets` at run time: everything moves, nothing is lost, no chain limit applies."""
        conns = list(self)
        self.buckets = buckets
        self.heads = [None] * buckets
        for conn in conns:
            first, second = self.bucket(conn.orig, conn.proto), self.bucket(conn.reply, conn.proto)
            conn.buckets = first << 32 | second
            if not conn.status & NAT_CLASH:
                self._push(first, conn)
            self._push(second, conn)

    def reap(self, key: bytes, proto: int) -> None:
        """What a look-up that misses does to its chain: delete the expired ones.

        `find` does without (a dict has no chain to walk); only a full table makes the difference visible.
        """
        for conn in self.chain(self.bucket(key, proto)):
            if conn.deadline <= self.now:
                self.delete(conn, TIMEOUT)

    def early_drop(self, key: bytes, proto: int) -> int:
        """Make room near `key`'s bucket: evict, in the first of eight buckets that has any, all connections
        that are not ASSURED; how many that were.  Expired ones met go too, but are no success."""
        chosen = self.choices.victims(key, proto)
        if chosen is not None:
            found = [self.by_protocol[other].get(orig) for orig, other in chosen]
            gone = [conn for conn in found if conn is not None and not conn.status & (ASSURED | DYING)]
            for conn in gone:
                self.delete(conn, EVICTED)
            return len(gone)
        first = self.bucket(key, proto)
        for step in range(EARLY_DROP_BUCKETS):
            victims = 0
            for conn in self.chain((first + step) % self.buckets):
                if conn.status & DYING:
                    continue
                if conn.deadline <= self.now:
                    self.delete(conn, TIMEOUT)
                elif not conn.status & ASSURED:
                    self.delete(conn, EVICTED)
                    victims += 1
            if victims:
                return victims
        return 0

    # --- invariants ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert every invariant of the table (for tests; walks everything)."""
        nodes: dict[tuple[int, int], int] = {}
        for bucket, cell in enumerate(self.heads):
            if isinstance(cell, tuple):
                assert len(cell) > 1, f"bucket {bucket} holds a tuple of {len(cell)}"
            for conn in self.chain(bucket):
                place = (conn.serial, bucket)
                nodes[place] = nodes.get(place, 0) + 1
        confirmed = list(self)
        for conn in confirmed:
            assert conn.status & CONFIRMED and not conn.status & DYING, conn
            assert conn in self.nodes(conn.reply, conn.proto), f"{conn} not found by its reply tuple"
            clash = bool(conn.status & NAT_CLASH)
            assert clash or conn in self.nodes(conn.orig, conn.proto), f"{conn} not found by its original tuple"
            places = [(conn.reply, conn.buckets & 0xFFFFFFFF)] + (
                [] if clash else [(conn.orig, conn.buckets >> 32)]
            )
            for key, bucket in places:
                assert self.bucket(key, conn.proto) == bucket, f"{conn} stands in the wrong bucket"
                left = nodes.get((conn.serial, bucket), 0)
                assert left > 0, f"{conn} has no node in bucket {bucket}"
                nodes[conn.serial, bucket] = left - 1
            if not conn.status & NAT_MASK:
                assert bare(conn.reply) == invert(bare(conn.orig), conn.proto), f"{conn} changed without NAT"
        assert not any(nodes.values()), "nodes of connections that are not in the table"
        keys = sum(len(by_key) for by_key in self.by_protocol)
        keys += sum(len(shadowed) for shadowed in self.shadows.values())
        expected = sum(1 if conn.status & NAT_CLASH or conn.orig == conn.reply else 2 for conn in confirmed)
        assert keys == expected, f"{keys} keys for {len(confirmed)} connections"
        assert self.count >= len(confirmed), f"count {self.count} below {len(confirmed)}"


def _shadow(key: bytes, proto: int) -> bytes:
    return bytes((proto,)) + key


def _serial(conn: Conn) -> int:
    return conn.serial


def direction_of(conn: Conn, key: bytes) -> int:
    """The direction of a packet with `key`.  A tuple that is its own answer counts as reply: the kernel puts
    the reply node in front."""
    return REPLY if key == conn.reply else ORIGINAL
