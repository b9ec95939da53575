"""What rules may ask of the box they stand in, and the contract of matches and targets.

A rule is matches and a target.  Both are values: frozen dataclasses built once from the rule's text, with one
method.

    Match.matches(skb, hook, box) -> bool                 pure, but for a memory of its own
    Target.apply(skb, hook, box)  -> verdict              may change the packet, its mark, its connection

A match or target with memory (limit, recent, quota…) keeps it in one picklable value and announces a change to
`box.touch` before it makes it, so that a trial can put it back.

Source: struct xt_match, struct xt_target (x_tables.h).
"""

from __future__ import annotations

from typing import Final, Protocol

from ..engine import Engine
from ..journal import Restorable
from .routing import Fib
from .skb import Skb

# What a target says beside verdict.ACCEPT and verdict.DROP.
CONTINUE: Final = "CONTINUE"  # go on with the next rule
RETURN: Final = "RETURN"  # go on behind the rule that jumped here; in a built-in chain: its policy


class Box(Protocol):
    """The services of a host to its rules."""

    @property
    def engine(self) -> Engine:
        """Its connection tracking and NAT."""

    @property
    def fib(self) -> Fib:
        """Its interfaces, addresses and routes."""

    def reject(self, skb: Skb, hook: int, kind: str) -> None:
        """Answer `skb` as REJECT does; `kind` is the canonical word behind --reject-with."""

    def log(self, skb: Skb, hook: int, record: dict[str, object]) -> None:
        """Keep a log record of a LOG rule (prefix, level, …)."""

    def touch(self, memory: Restorable) -> None:
        """`memory` is about to change."""


class Match(Protocol):
    """One condition of a rule."""

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Does the packet at `hook` fulfil it?"""


class Target(Protocol):
    """What a rule does to the packets it matches."""

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """verdict.ACCEPT, verdict.DROP, CONTINUE or RETURN."""
