"""Choosing the mapping: one decision per connection and manipulation, before it is confirmed.

    keep      the packet's own source is in the range and free           (not with `random`)
    share     an earlier connection of this very source has a mapping in the range, and it is free here too
    address   the pool's address by hash; the port as it is, if it is in the range and free
    search    ports or identifiers from a start offset on, up to 128 + 64 + 32 + 16 + 8 of them

"Free" means that no other connection would claim the answers.  The search may fail; the tuple it ends with is
then taken, and the packet is dropped at confirmation, as in the kernel.

Sources: nf_nat_core.c (nf_nat_setup_info, get_unique_tuple, nf_nat_l4proto_unique_tuple,
nf_nat_used_tuple_harder) of Linux 6.18.
"""

from __future__ import annotations

from typing import Final

from ..choices import ChoiceSource
from ..conn import Conn
from ..stats import Stats
from ..table import Table, direction_of
from ..trackers import tcp
from ..trackers.table import TRACKERS
from ..tuples import bare, halves, invert, zoned
from ..verdict import (
    CONFIRMED,
    DST_NAT,
    DST_NAT_DONE,
    DYING,
    FIXED_TIMEOUT,
    GRE,
    ICMP,
    ICMPV6,
    NAT_MASK,
    ORIGINAL,
    REPLY,
    SEQ_ADJUST,
    SRC,
    SRC_NAT,
    SRC_NAT_DONE,
    TCP,
)
from ..wire.packet import PORT_PROTOCOLS
from .ranges import NatRange
from .seqadj import NO_CHANGE

_MAX_ATTEMPTS: Final = 128
_MIN_ATTEMPTS: Final = 16  # below this many a further round is not tried
_EVICTING: Final = 32  # the last so many probes of a round may evict a finished TCP connection
EVICTED: Final = "evicted"
DONE: Final = (SRC_NAT_DONE, DST_NAT_DONE)
_CHANGED: Final = (SRC_NAT, DST_NAT)


class Chooser:
    """Chooses mappings for one table and remembers them by source."""

    __slots__ = ("_choices", "_stats", "_table", "sources")

    def __init__(self, table: Table, choices: ChoiceSource, stats: Stats) -> None:
        self._table = table
        self._choices = choices
        self._stats = stats
        # Chains by hash of protocol, original source and zone, newest first, linked through `Conn.older`; as many
        # as the table has buckets when the first is made, as in the kernel.  (A dict took 100 octets for each.)
        self.sources: list[Conn | None] = []

    def setup(self, conn: Conn, nat_range: NatRange, manip: int) -> None:
        """Decide `manip` for an unconfirmed connection; a confirmed one stays as it is."""
        if conn.status & CONFIRMED:
            return
        current = invert(bare(conn.reply), conn.proto)
        new = self._unique(current, nat_range, conn, manip)
        if new != current:
            conn.reply = self._reply_key(new, conn)
            conn.status |= _CHANGED[manip]
            if conn.extra.helper and conn.extra.seqadj is None:
                conn.own_extra().seqadj = NO_CHANGE
        if manip == SRC:
            self.remember(conn, _source_key(conn, conn.orig))
        conn.status |= DONE[manip]

    def remember(self, conn: Conn, source: bytes) -> None:
        """`conn` has a mapping of `source`, as `_source_key` writes it."""
        place = self._place(source)
        if self._table.journal is not None:
            self._table.journal.item(self.sources, place)
            self._table.journal.touch(conn)
        conn.older = self.sources[place]
        self.sources[place] = conn

    def known(self, source: bytes) -> bool:
        """Has any connection a mapping of `source`?"""
        place = self._place(source)  # which may make the list
        conn = self.sources[place]
        while conn is not None:
            if _source_key(conn, conn.orig) == source:
                return True
            conn = conn.older
        return False

    def forget(self, conn: Conn) -> None:
        """The connection is gone."""
        if not conn.status & SRC_NAT_DONE:
            return
        journal, place = self._table.journal, self._place(_source_key(conn, conn.orig))
        newer: Conn | None = None
        other = self.sources[place]
        while other is not None and other is not conn:
            newer, other = other, other.older
        if other is None:
            return
        if journal is not None:
            journal.touch(conn)
        if newer is None:
            if journal is not None:
                journal.item(self.sources, place)
            self.sources[place] = conn.older
        else:
            if journal is not None:
                journal.touch(newer)
            newer.older = conn.older
        conn.older = None  # else whoever keeps a dead connection would keep all older ones

    def _place(self, source: bytes) -> int:
        """Where the chain of `source` begins in `sources`."""
        if not self.sources:
            self.sources = [None] * self._table.buckets
        return hash(source) % len(self.sources)

    def check(self, live: int) -> None:
        """Assert that nothing is remembered twice or for ever (`live` connections at most)."""
        remembered: list[Conn] = []
        for place, head in enumerate(self.sources):
            conn = head
            while conn is not None:
                assert self._place(_source_key(conn, conn.orig)) == place, f"{conn} stands under another source"
                remembered.append(conn)
                conn = conn.older
        assert len(remembered) == len({id(conn) for conn in remembered}) <= live, "by-source memory leaks"
        assert not any(conn.status & DYING for conn in remembered), "by-source memory holds a dead connection"

    # ---------------------------------------------------------------------------------------------------

    def _known(self, source: bytes) -> list[Conn]:
        """The connections of `source`, newest first."""
        found = []
        place = self._place(source)
        conn = self.sources[place]
        while conn is not None:
            if _source_key(conn, conn.orig) == source:
                found.append(conn)
            conn = conn.older
        return found

    def _reply_key(self, key: bytes, conn: Conn) -> bytes:
        return zoned(invert(key, conn.proto), conn.extra.zone.effective(REPLY))

    def _used(self, key: bytes, conn: Conn) -> bool:
        if self._table.taken(self._reply_key(key, conn), conn):
            self._stats.found += 1
            return True
        return False

    def _mirrored(self, key: bytes, conn: Conn) -> bool:
        """Is `key` used only by the same flow seen from its other end, untranslated [nf_nat_used_tuple_new]?

        Both ends may send first while neither packet has passed all hooks; confirmation merges the two.  Tuples
        are compared without their zones: a zone of one direction begins flows that meet only there.
        """
        if not TRACKERS[conn.proto].allow_clash:
            return False
        other = self._met(key, conn) or self._met(invert(key, conn.proto), conn)
        return other is None or (
            not other.status & (NAT_MASK | SEQ_ADJUST)
            and bare(other.orig) == bare(conn.reply)
            and bare(other.reply) == bare(conn.orig)
        )

    def _met(self, key: bytes, conn: Conn) -> Conn | None:
        """The connection that a packet with `key` in the zone of `conn` would find."""
        zone = conn.extra.zone
        for number in {zone.effective(ORIGINAL), zone.effective(REPLY)}:
            found = self._table.find_in(zoned(key, number), conn.proto, zone, number)
            if found is not None:
                return found
        return None

    def _unique(self, current: bytes, wanted: NatRange, conn: Conn, manip: int) -> bytes:
        if manip == SRC and not wanted.random:
            if wanted.source_in_range(current, conn.proto):
                if not self._used(current, conn) or self._mirrored(current, conn):
                    return current
            else:
                shared = self._shared(current, wanted, conn)
                if shared and not self._used(shared, conn):
                    return shared
        key = _with_address(current, wanted.pick_address(current, manip, conn.extra.zone.id), manip)
        if not wanted.random:
            if wanted.ports is None:
                if not self._used(key, conn):
                    return key
            elif (
                wanted.base is None
                and wanted.port_in_range(key, conn.proto, manip)
                and (wanted.ports[0] == wanted.ports[1] or not self._used(key, conn))
            ):
                return key
        return self._search(key, wanted, conn, manip)

    def _shared(self, current: bytes, wanted: NatRange, conn: Conn) -> bytes:
        """The mapping that another connection from the same source has, towards this destination; or b""."""
        size = (len(current) - 4) // 2
        for other in self._known(_source_key(conn, current)):  # as the other half's translation left it
            mapped = invert(bare(other.reply), other.proto)
            src, _, src_u, _ = halves(mapped)
            key = src + current[size : 2 * size] + src_u + current[-2:]
            if wanted.source_in_range(key, conn.proto):
                return key
        return b""

    def _search(self, key: bytes, wanted: NatRange, conn: Conn, manip: int) -> bytes:
        """A free port, identifier or key in the range, or the last one tried."""
        proto = conn.proto
        at = len(key) - (4 if manip == SRC or proto in (ICMP, ICMPV6) else 2)
        current = int.from_bytes(key[at : at + 2], "big")
        if proto in PORT_PROTOCOLS:
            if wanted.ports is not None:
                least, size = _span(wanted.ports)
            elif manip != SRC:
                return key  # a destination port changes only if the rule says so
            else:
                # a privileged port stays privileged; above 512 they stand for credentials (rlogin)
                least, size = (1, 511) if current < 512 else (600, 424) if current < 1024 else (1024, 64512)
        elif proto in (ICMP, ICMPV6):
            least, size = (0, 65536) if wanted.ports is None else _span(wanted.ports)
        elif proto == GRE and conn.extra.master is not None:
            least, size = (1, 65535) if wanted.ports is None else _span(wanted.ports)
        else:
            return key
        if wanted.base is not None:
            offset = (current - wanted.base) & 0xFFFF
        elif wanted.random or manip == SRC:
            offset = self._choices.port_offset(key, proto)
        else:
            offset = 0  # destination ranges fill up from the low end
        attempts = min(size, _MAX_ATTEMPTS)
        while True:
            for tried in range(attempts):
                port = (least + ((offset + tried) & 0xFFFF) % size) & 0xFFFF
                key = key[:at] + port.to_bytes(2, "big") + key[at + 2 :]
                if not self._used_harder(key, conn, attempts - tried):
                    return key
            if attempts >= size or attempts < _MIN_ATTEMPTS:
                return key
            attempts //= 2
            offset = self._choices.port_offset(key, proto)

    def _used_harder(self, key: bytes, conn: Conn, left: int) -> bool:
        """As `_used`; among the last probes a finished TCP connection that this one has overtaken is evicted."""
        if left > _EVICTING or conn.proto != TCP or conn.state != tcp.SS:
            return self._used(key, conn)
        reply = self._reply_key(key, conn)
        other = self._table.find(reply, conn.proto)
        if other is None:
            return False
        if (
            direction_of(other, reply) != REPLY
            or other.state < tcp.TW
            or not other.status & SRC_NAT
            or other.status & (FIXED_TIMEOUT | DYING)
            or not _overtaken(other, conn)
        ):
            return True
        self._table.delete(other, EVICTED)
        return False


def _overtaken(old: Conn, new: Conn) -> bool:
    """The new connection's sequence numbers are ahead of the old one's, as TIME_WAIT reuse demands."""
    assert isinstance(old.memory, bytes) and isinstance(new.memory, bytes)
    ahead: int = (tcp.MEMORY.unpack(new.memory)[0] - tcp.MEMORY.unpack(old.memory)[0]) & tcp.MASK
    return 0 < ahead < tcp.SIGN


def _span(ports: tuple[int, int]) -> tuple[int, int]:
    return min(ports), abs(ports[1] - ports[0]) + 1


def _with_address(key: bytes, address: bytes, manip: int) -> bytes:
    size = len(address)
    if manip == SRC:
        return address + key[size:]
    return key[:size] + address + key[2 * size :]


def _source_key(conn: Conn, key: bytes) -> bytes:
    """Protocol and source of `key`, and a zone that is not the default: as hashed (only if it counts both ways) and
    as compared.  (Without a zone the fast path builds the same.)"""
    zone = conn.extra.zone
    source = key[:4] + key[8:10] if len(key) < 16 else key[:16] + key[32:34]
    if not zone.id:
        return bytes((conn.proto,)) + source
    hashed = zone.id if zone.directions == 3 else 0
    zones = hashed.to_bytes(2, "big") + zone.effective(ORIGINAL).to_bytes(2, "big")
    return bytes((conn.proto,)) + source + zones
