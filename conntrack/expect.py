"""Expectations: connections that a helper has announced and that have not come yet.

An FTP client says "PORT 10,0,0,2,19,137" on its control connection, the master; the helper that reads there makes
an expectation, and when a first packet matches it, the new connection is RELATED, knows its master and takes over
its mark.  One rule: an expectation lives as long as its timer and its master; used, it goes, unless PERMANENT.

    announced ─ add ─► [ tuple under mask, class, timer ] ─ match ─► used: the new connection is RELATED
                                     │                  └─ timer, master's end, eviction, flush ─► gone
                                     └─ INACTIVE ones wait for their helper to wake them

The mask leaves only the source open (address, port, or both); destination and protocol always count.  What `add`
does with a newcomer:

    the same tuple, mask, class and master    the old one goes first: its timer starts anew
    the same, but of another class            ALREADY
    both masks cannot tell them apart         BUSY
    the class of this master is at its limit  the oldest of the class goes first
    nf_conntrack_expect_max in all            FULL

Expectation timers are real timers: they fire at their time, not when somebody looks (a connection's end is lazy).
The kernel's timer wheel lets a 300 s timer fire up to 16 s late, by the phase of a clock nobody sees; here it is
exact.

Sources: nf_conntrack_expect.c (nf_ct_expect_related_report, __nf_ct_expect_check, nf_ct_find_expectation,
nf_ct_unlink_expect_report), nf_conntrack_netlink.c (ctnetlink_exp_dump_expect) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from .conn import Conn
from .stats import Stats
from .sysctl import SECOND
from .table import Table
from .tuples import Tuple, destination
from .verdict import CONFIRMED, DYING

# Flags: NF_CT_EXPECT_* of nf_conntrack_common.h.
PERMANENT: Final = 1  # it is not used up
INACTIVE: Final = 2  # it matches nothing until its helper wakes it
USERSPACE: Final = 4  # made by a process, through netlink
FLAG_NAMES: Final = ("PERMANENT", "INACTIVE", "USERSPACE")

# What `add` answers.
ADDED: Final = 0
BUSY: Final = 1
ALREADY: Final = 2
FULL: Final = 3

# Events: enum ip_conntrack_expect_events.
EVENT_NEW: Final = 1 << 0
EVENT_DESTROY: Final = 1 << 1

NEVER: Final = 1 << 62  # later than every time


@dataclass(frozen=True, slots=True)
class Policy:
    """What a helper allows one class of its expectations, per master.

    limit    how many at a time, 0: no limit       timeout  nanoseconds
    name     of the class, "" if it has none ("audio": /proc shows `sip/audio`)
    """

    limit: int
    timeout: int
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """One expected connection; a value that is replaced, never changed.

    master     the connection that announced it     helper   the name of the helper that did
    key        tuple of the expected first packet   mask     the bits of it that count, same form
    proto      its protocol                         flags    PERMANENT, INACTIVE, USERSPACE
    kind       the helper's class, from 0           kind_name  that class's name, ""
    assign     helper of the new connection, ""     follow   translate the new connection as the master is
    saved_port where the announcement really pointed before translation
    saved_address  the same address, b"": the master's own
    direction  of the new connection, seen from the master (for `follow`)
    deadline   ns; `serial` is the order of making
    """

    master: Conn
    key: bytes
    mask: bytes
    proto: int
    helper: str
    kind: int = 0
    kind_name: str = ""
    flags: int = 0
    assign: str = ""
    follow: bool = False
    saved_address: bytes = b""
    saved_port: int = 0
    direction: int = 0
    deadline: int = 0
    serial: int = 0

    @property
    def id(self) -> int:
        """A 32-bit id, stable for life."""
        return self.master.home.choices.connection_id(b"expect" + self.key, self.serial)

    @property
    def tuple(self) -> Tuple:
        """What the expected first packet looks like, under the mask."""
        return Tuple.from_key(self.key, self.proto)

    def timeout(self, now: int | None = None) -> int:
        """Whole seconds left at `now` (ns; None: the engine's last time), rounded down, never below 0."""
        return max(self.deadline - (self.master.home.now if now is None else now), 0) // SECOND

    def to_dict(self, now: int | None = None) -> dict[str, Any]:
        """The "expectation" shape of docs/records.schema.json at `now` (ns; None: the engine's last time)."""
        out: dict[str, Any] = {
            "master": self.master.original.to_dict(),
            "tuple": self.tuple.to_dict(),
            "mask": Tuple.from_key(self.mask, self.proto).to_dict(),
            "proto": self.proto,
            "timeout": self.timeout(now),
            "helper": self.helper,
            "flags": sorted(name for bit, name in enumerate(FLAG_NAMES) if self.flags >> bit & 1),
            "class": self.kind,
        }
        if self.kind_name:
            out["class_name"] = self.kind_name
        return out

    def text(self, now: int | None = None) -> str:
        """The line of `conntrack -L expect`."""
        from . import show  # text is for people: nothing that tracks imports it

        return show.expectation_line(self.to_dict(now))


def _nothing(expectation: Expectation, bit: int) -> None:
    """Nobody wants to know."""


class Expectations:
    """All expectations of one engine.

    `due` is a time (ns) before which none expires; `limit` is nf_conntrack_expect_max; `send` hears of each that
    comes (EVENT_NEW) or goes (EVENT_DESTROY).
    """

    __slots__ = ("_by_destination", "_by_master", "_stats", "_table", "by_serial", "due", "limit", "send", "serial")

    def __init__(self, table: Table, stats: Stats) -> None:
        self._table = table
        self._stats = stats
        self.limit: int = 4096
        self.send: Callable[[Expectation, int], None] = _nothing
        self.due: int = NEVER
        self.serial: int = 0
        self.by_serial: dict[int, Expectation] = {}
        # Newest first, as the kernel's chains are: by protocol and destination, and by the master's serial.
        self._by_destination: dict[bytes, tuple[Expectation, ...]] = {}
        self._by_master: dict[int, tuple[Expectation, ...]] = {}

    def __iter__(self) -> Iterator[Expectation]:
        """All, in order of making."""
        return iter([self.by_serial[serial] for serial in sorted(self.by_serial)])

    def add(self, new: Expectation, policy: Policy, any_master: bool = False) -> tuple[int, Expectation]:
        """(ADDED, the expectation as it stands now), or (BUSY, ALREADY or FULL, `new`).

        any_master: one with the same tuple and mask counts as the same whoever its master is, and is then ALREADY
        there (several SIP calls with one media address).
        """
        master = new.master
        for old in self._by_destination.get(_place(new.proto, new.key), ()):
            if old.key == new.key and old.mask == new.mask and (any_master or old.master is master):
                if _same_zone(old, master):
                    if old.kind != new.kind or old.master is not master:
                        return ALREADY, new
                    self.remove(old)
                    break
            if _overlap(old, new) and _same_zone(old, master):
                return BUSY, new
        if policy.limit:
            siblings = [other for other in self._by_master.get(master.serial, ()) if other.kind == new.kind]
            if len(siblings) >= policy.limit:
                self.remove(siblings[-1])
        if len(self.by_serial) >= self.limit:
            return FULL, new
        self.serial += 1
        deadline = self._table.now + policy.timeout
        new = replace(new, deadline=deadline, serial=self.serial, kind_name=policy.name)
        self._link(new)
        self._stats.expect_create += 1
        self.send(new, EVENT_NEW)
        return ADDED, new

    def match(self, key: bytes, proto: int, zone: int) -> Expectation | None:
        """The expectation that a first packet with tuple `key` (without zone) in zone number `zone` fulfils; it is
        used up, unless PERMANENT."""
        for found in self._by_destination.get(_place(proto, key), ()):
            if found.flags & INACTIVE or found.master.extra.zone.id != zone:
                continue
            if (int.from_bytes(key, "big") ^ int.from_bytes(found.key, "big")) & int.from_bytes(found.mask, "big"):
                continue
            # A master whose first packet is still on its way cannot have told anybody; a dying one is none.
            if found.master.status & (CONFIRMED | DYING) != CONFIRMED:
                return None
            if not found.flags & PERMANENT:
                self.remove(found)
            return found
        return None

    def of(self, master: Conn) -> tuple[Expectation, ...]:
        """The expectations of one master, newest first."""
        return self._by_master.get(master.serial, ())

    def remove(self, expectation: Expectation) -> None:
        """Take one out."""
        self._unlink(expectation)
        self.send(expectation, EVENT_DESTROY)
        self._stats.expect_delete += 1

    def forget(self, master: Conn) -> None:
        """The master is gone: so are its expectations."""
        for expectation in self.of(master):
            self.remove(expectation)

    def flush(self) -> int:
        """`conntrack -F expect`: take all out; how many there were."""
        everyone = list(self)
        for expectation in everyone:
            self.remove(expectation)
        return len(everyone)

    def expire(self, now: int) -> None:
        """Fire the timers that are due at `now` (ns), in their order."""
        for expectation in sorted(self.by_serial.values(), key=_deadline):
            if expectation.deadline > now:
                break
            self.remove(expectation)
        self.due = min((expectation.deadline for expectation in self.by_serial.values()), default=NEVER)

    def save(self) -> tuple[int, int]:
        """What a trial must put back beside what is journalled."""
        return self.due, self.serial

    def restore(self, saved: tuple[int, int]) -> None:
        """Back to `saved`."""
        self.due, self.serial = saved

    def check(self) -> None:
        """Assert every invariant (for tests; walks everything)."""
        everyone = list(self)
        for chains in (self._by_destination, self._by_master):
            assert sorted(each.serial for chain in chains.values() for each in chain) == sorted(self.by_serial)
            for chain in chains.values():
                assert chain, "an empty chain was left behind"
                serials = [each.serial for each in chain]
                assert serials == sorted(serials, reverse=True), "a chain is not newest first"
        for each in everyone:
            assert each.master.status & (CONFIRMED | DYING) == CONFIRMED, f"{each.tuple} outlived its master"
            assert each in self._by_master[each.master.serial], f"{each.tuple} stands under another master"
            assert each in self._by_destination[_place(each.proto, each.key)], f"{each.tuple} cannot be found"
            assert self.due <= each.deadline, f"{each.tuple} would not expire"
            assert self._table.now < each.deadline, f"{each.tuple} should have expired"
        assert len(everyone) <= self.limit or not everyone

    # ---------------------------------------------------------------------------------------------------

    def _link(self, new: Expectation) -> None:
        place = _place(new.proto, new.key)
        self._note(place, new)
        self._by_destination[place] = (new, *self._by_destination.get(place, ()))
        self._by_master[new.master.serial] = (new, *self.of(new.master))
        self.by_serial[new.serial] = new
        if new.deadline < self.due:
            self.due = new.deadline

    def _unlink(self, old: Expectation) -> None:
        place = _place(old.proto, old.key)
        self._note(place, old)
        _take(self._by_destination, place, old)
        _take(self._by_master, old.master.serial, old)
        del self.by_serial[old.serial]

    def _note(self, place: bytes, expectation: Expectation) -> None:
        journal = self._table.journal
        if journal is not None:
            journal.item(self._by_destination, place)
            journal.item(self._by_master, expectation.master.serial)
            journal.item(self.by_serial, expectation.serial)


def _take(chains: dict[Any, tuple[Expectation, ...]], key: Any, old: Expectation) -> None:
    rest = tuple(other for other in chains[key] if other is not old)
    if rest:
        chains[key] = rest
    else:
        del chains[key]


def _place(proto: int, key: bytes) -> bytes:
    """What the mask never leaves open: protocol, destination address, destination port."""
    return bytes((proto,)) + destination(key) + key[-2:]


def _overlap(one: Expectation, other: Expectation) -> bool:
    """Is there no bit that both masks know and the tuples differ in [expect_clash]?"""
    known = int.from_bytes(one.mask, "big") & int.from_bytes(other.mask, "big")
    return not (int.from_bytes(one.key, "big") ^ int.from_bytes(other.key, "big")) & known


def _same_zone(one: Expectation, master: Conn) -> bool:
    return one.master.extra.zone.id == master.extra.zone.id


def _deadline(expectation: Expectation) -> tuple[int, int]:
    return expectation.deadline, expectation.serial
