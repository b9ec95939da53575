"""The trial journal: what `with engine.trial():` needs to leave no trace.

Whatever a packet is about to change is written down once, at its first touch; `rollback` puts it all back in
reverse order.  Nothing is copied that is not touched, and outside a trial there is no journal: the packet path
tests one attribute against None.
"""

from __future__ import annotations

from typing import Any, Protocol

_ABSENT: Any = object()


class Restorable(Protocol):
    """Something with a small state of its own that it can hand out and take back."""

    def save(self) -> tuple[Any, ...]:
        """A value that holds all of the state."""

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to what `save` gave."""


class Journal:
    """Old values, in the order in which they were first touched."""

    __slots__ = ("_items", "_objects", "_seen")

    def __init__(self) -> None:
        self._objects: list[tuple[Restorable, tuple[Any, ...]]] = []
        self._seen: set[int] = set()
        self._items: list[tuple[Any, Any, Any]] = []

    def touch(self, thing: Restorable) -> None:
        """Write `thing`'s state down, unless that was done before."""
        if id(thing) not in self._seen:
            self._seen.add(id(thing))
            self._objects.append((thing, thing.save()))

    def item(self, container: Any, key: Any) -> None:
        """Write container[key] down (a dict's key may be absent); values must be immutable or journalled."""
        old = container.get(key, _ABSENT) if isinstance(container, dict) else container[key]
        self._items.append((container, key, old))

    def rollback(self) -> None:
        """Everything as it was."""
        while self._items:
            container, key, old = self._items.pop()
            if old is _ABSENT:
                del container[key]
            else:
                container[key] = old
        while self._objects:
            thing, saved = self._objects.pop()
            thing.restore(saved)
        self._seen.clear()
