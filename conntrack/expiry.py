"""Who removes the dead: the kernel's gc worker, in packet time, or an eager clock.

    gc="linux"   sweeps the whole table at the kernel's pace; DESTROY comes with the sweep (or whoever meets
                 the entry first), up to a minute after the deadline
    gc="eager"   deletes each entry at its deadline; for those who want one DESTROY per connection, on time

The kernel's pace: after a sweep pause n jiffies, n starting at 60 s and pulled by each living node towards its
remaining time, with integer division towards zero, so that the first nodes weigh most; then the timer wheel
rounds up.  A sweep also does the early-drop mode that a full table has armed.

A capture's clock jumps.  While nothing can expire, sweeps change nothing and are skipped arithmetically, so a
gap of years costs no more than the entries that end in it.

Sources: nf_conntrack_core.c (gc_worker); kernel/time/timer.c (calc_index).  HZ is 250 as on the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .conn import Conn
from .sysctl import JIFFY, SECOND, Settings
from .table import TIMEOUT, Table
from .trackers import Tracker
from .verdict import ASSURED, DYING

if TYPE_CHECKING:
    from sortedcontainers import SortedDict

_MAX_PAUSE: Final = 15000  # jiffies: 60 s, GC_SCAN_INTERVAL_MAX
_MIN_PAUSE: Final = 250  # 1 s
_CLAMP: Final = 75000  # 300 s: longer remaining times count as this
_SWEEP: Final = 1  # a sweep counts as one jiffy at least, and a model's sweep takes no time
_INITIAL_WEIGHT: Final = 100  # GC_SCAN_INITIAL_COUNT
_MAX_KILLS: Final = 257  # evictions of one sweep's early-drop mode
_NEVER: Final = 1 << 62  # later than every time
EVICTED_BY_GC: Final = "early_drop_gc"


def wheel(now: int, pause: int) -> int:
    """The jiffy at which a timer set at jiffy `now` for `pause` jiffies goes off."""
    at, level, start = now + pause, 0, 63
    while pause >= start and level < 8:
        level += 1
        start <<= 3
    return ((at >> level * 3) + 1) << level * 3


class LinuxGc:
    """The gc worker.  `run(now)` does what the kernel would have done until `now`; nothing before `due` (ns)."""

    __slots__ = ("_began", "_table", "_trackers", "armed", "due")

    def __init__(self, table: Table, trackers: tuple[Tracker, ...]) -> None:
        self._table = table
        self._trackers = trackers
        self._began = -1
        self.due = -1
        self.armed = False

    def save(self) -> tuple[int, int, bool]:
        """For the trial journal."""
        return self._began, self.due, self.armed

    def restore(self, saved: tuple[int, int, bool]) -> None:
        """For the trial journal."""
        self._began, self.due, self.armed = saved

    def watch(self, conn: Conn) -> None:
        """Nothing: sweeps find everything."""

    def run(self, now: int, settings: Settings) -> None:
        """All sweeps due by `now` (ns)."""
        if self.due < 0:
            self._began = now
            self.due = now + wheel(0, _MIN_PAUSE) * JIFFY  # the worker starts 1 s after boot
        table = self._table
        while self.due <= now:
            at = self.due
            table.now = at
            pause, earliest = self._sweep(settings)
            jiffies = (at - self._began) // JIFFY
            # Nothing can end, and nothing pulls the pause, before `earliest` is 300 s away.
            idle = now if earliest < 0 else min(now, earliest - _CLAMP * JIFFY)
            due = wheel(jiffies, pause)
            if pause == _MAX_PAUSE - 1 and not self.armed:
                period = wheel(due, pause) - due
                skipped = ((idle - self._began) // JIFFY - due) // period
                if skipped > 0:
                    due += skipped * period
            self.due = self._began + due * JIFFY

    def _sweep(self, settings: Settings) -> tuple[int, int]:
        """Delete what is dead; (pause in jiffies, earliest deadline of the living or -1)."""
        table = self._table
        now = table.now
        goal = settings.max_connections // 100 * 95 if self.armed else 0
        self.armed = False
        pause, weight, gone, earliest = _MAX_PAUSE, _INITIAL_WEIGHT, 0, -1
        for cell in table.occupied():
            for conn in cell if isinstance(cell, tuple) else (cell,):
                if conn is None or conn.status & DYING:
                    continue
                left = conn.deadline - now
                if left <= 0:
                    table.delete(conn, TIMEOUT)
                    gone += 1
                    continue
                if earliest < 0 or conn.deadline < earliest:
                    earliest = conn.deadline
                jiffies = min(max(left // JIFFY, _MIN_PAUSE), _CLAMP)
                weight += 1
                step = jiffies - pause
                pause += step // weight if step >= 0 else -(-step // weight)
                if goal and table.count >= goal and gone < _MAX_KILLS and self._evictable(conn):
                    table.delete(conn, EVICTED_BY_GC)
                    gone += 1
        return min(max(pause, _MIN_PAUSE), _MAX_PAUSE) - _SWEEP, earliest

    def _evictable(self, conn: Conn) -> bool:
        return not conn.status & ASSURED or conn.state in self._trackers[conn.proto].early_drop


class EagerGc:
    """Deletes every connection at its deadline, in order of deadlines.

    The index is lazy: an entry is filed under the second its deadline falls in, renewals do not move it, and
    one that comes up too early is filed again.
    """

    __slots__ = ("_filed", "_table", "armed")

    def __init__(self, table: Table) -> None:
        self._table = table
        # Imported here: a fifth of `import conntrack`, for those few who are eager.
        from sortedcontainers import SortedDict

        self._filed: SortedDict = SortedDict()  # second -> list of connections
        self.armed = False

    @property
    def due(self) -> int:
        """Nothing ends before (ns)."""
        filed = self._filed
        return filed.peekitem(0)[0] * SECOND if filed else _NEVER

    def save(self) -> tuple[dict[int, list[Conn]], bool]:
        """For the trial journal (the eager index is copied whole: it is the price of `eager`)."""
        return {second: list(conns) for second, conns in self._filed.items()}, self.armed

    def restore(self, saved: tuple[dict[int, list[Conn]], bool]) -> None:
        """For the trial journal."""
        self._filed.clear()
        self._filed.update(saved[0])
        self.armed = saved[1]

    def watch(self, conn: Conn) -> None:
        """File a newly confirmed connection, or one whose deadline came nearer."""
        second = conn.deadline // SECOND
        filed = self._filed.get(second)
        if filed is None:
            self._filed[second] = [conn]
        else:
            filed.append(conn)

    def run(self, now: int, settings: Settings) -> None:
        """Delete everything whose deadline is at or before `now`."""
        due = self._filed
        table = self._table
        while due:
            second, conns = due.peekitem(0)
            if second * SECOND > now:
                break
            ripe = []
            late = []
            for conn in conns:
                if conn.status & DYING:
                    continue
                if conn.deadline // SECOND > second:
                    self.watch(conn)
                elif conn.deadline <= now:
                    ripe.append(conn)
                else:
                    late.append(conn)
            ripe.sort(key=_deadline)
            for conn in ripe:
                table.now = conn.deadline
                table.delete(conn, TIMEOUT)
            if late:
                due[second] = late
                break
            del due[second]


def _deadline(conn: Conn) -> tuple[int, int]:
    return conn.deadline, conn.serial
