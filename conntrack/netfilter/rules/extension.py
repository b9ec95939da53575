"""What a match or target is to the reader of rules text: its options, its builder, what the kernel asks of it.

See `registry` for how one is added.

Sources: struct xtables_match, xtables_target, xt_option_entry (xtables.h); struct xt_match, xt_target (x_tables.h).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..timeouts import NO_POLICIES, Policies
from .errors import Refused

MATCH: Final = "match"
TARGET: Final = "target"


@dataclass(frozen=True, slots=True)
class Argument:
    """The argument of an option and what is known where it stands (later options of the line are not)."""

    text: str
    second: str  # of options with two arguments
    option: str
    family: int
    proto: int  # of -p so far, 0 without
    not_proto: bool
    given: Given  # of this extension so far


Parser = Callable[[Argument], Any]


def plain(argument: Argument) -> str:
    """The argument as it stands."""
    return argument.text


@dataclass(frozen=True, slots=True)
class Option:
    """One long option of an extension.

    parse     makes a value of the argument; None: there is none       words  arguments: 0, 1 or 2
    key       the name under which the builder finds it; synonyms share one
    invert    ! may stand before it           required  it must be there
    excludes  keys that must not stand beside it            needs  keys that must
    """

    name: str
    parse: Parser | None = None
    key: str = ""
    words: int = 1
    invert: bool = False
    required: bool = False
    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """Its key."""
        return self.key or self.name


class Given:
    """What stood in the rule for one extension: values by key, which of them inverted, in which order."""

    __slots__ = ("_inverted", "_values", "family", "not_proto", "order", "policies", "proto")

    def __init__(self, family: int, policies: Policies = NO_POLICIES) -> None:
        self.family = family
        self.policies = policies  # of timeouts, by name
        self.proto = 0  # the rule's -p, complete when the builder is called
        self.not_proto = False
        self.order: list[str] = []
        self._values: dict[str, Any] = {}
        self._inverted: set[str] = set()

    def put(self, key: str, value: Any, inverted: bool) -> None:
        """Note an option."""
        self._values[key] = value
        self.order.append(key)
        if inverted:
            self._inverted.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of option `key`."""
        return self._values.get(key, default)

    def inverted(self, key: str) -> bool:
        """Did a ! stand before it?"""
        return key in self._inverted

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __bool__(self) -> bool:
        return bool(self._values)


def never(value: Any) -> bool:
    """Not for any value."""
    return False


def always(value: Any) -> bool:
    """For every value."""
    return True


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or target: see the module.

    build     the value for what was given          options  see `Option`
    families  4, 6                                  proto    the protocol that -p must name, not inverted; 0: any
    table     the only table for it, "": any        hooks    hooks it may be reached from; (): any
    check     further refusals: called with the value and the hook of the rule's chain, -1 in a user chain
    tracks    does this value need connection tracking?
    """

    kind: str
    name: str
    build: Callable[[Given], Any]
    options: tuple[Option, ...] = ()
    families: tuple[int, ...] = (4, 6)
    proto: int = 0
    table: str = ""
    hooks: tuple[int, ...] = ()
    check: Callable[[Any, int], None] | None = None
    tracks: Callable[[Any], bool] = never


def refuse_unless(condition: object, message: str) -> None:
    """Refuse with `message` if the condition does not hold."""
    if not condition:
        raise Refused(message)
