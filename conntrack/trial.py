"""Trials: `with engine.trial():` processes packets and leaves no trace.

Explanation and what-if stand on this.  What packets change is journalled at its first touch (`journal`) and put
back on exit; the few counters that every packet moves are saved whole.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from .journal import Journal

if TYPE_CHECKING:
    from .engine import Engine


class Trial:
    """Journals what packets change, and puts it back on exit."""

    __slots__ = ("_engine", "_journal", "_saved")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._journal = Journal()
        self._saved: tuple[Any, ...] = ()

    def __enter__(self) -> Engine:
        engine = self._engine
        table = engine._table
        if table.journal is not None:
            raise ValueError("a trial is already running")
        events = engine._events
        self._saved = (
            table.now,
            table.count,
            table.serial,
            engine.stats.save(),
            engine._choices.save(),
            engine._gc.save(),
            engine._expectations.save(),
            engine._due,
            engine._fast.until,
            events,
            0 if events is None else len(events),
        )
        table.journal = engine._reassembler.journal = self._journal
        engine._fast.until = 0  # it journals nothing
        return engine

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine = self._engine
        table = engine._table
        table.journal = engine._reassembler.journal = None
        self._journal.rollback()
        (
            table.now,
            table.count,
            table.serial,
            stats,
            choices,
            gc,
            expectations,
            engine._due,
            engine._fast.until,
            events,
            length,
        ) = self._saved
        engine.stats.restore(stats)
        engine._choices.restore(choices)
        engine._gc.restore(gc)
        engine._expectations.restore(expectations)
        engine._events = events
        engine._listen()
        if events is not None:
            events.truncate(length)
