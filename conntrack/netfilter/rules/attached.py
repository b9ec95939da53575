"""What is attached to a packet in the place of a connection, as rules see it.

Before tracking that may be the template of a CT rule, which in the kernel is an entry of its own kind: NEW,
confirmed, all zeros.  So a rule in table raw behind `-j CT` matches `--ctstate NEW`, and `-m connmark --mark 0`.

Source: nf_ct_get (nf_conntrack.h), nf_ct_tmpl_alloc.
"""

from __future__ import annotations

from typing import Final, Protocol

from ...verdict import CONFIRMED, TEMPLATE
from ..skb import NOT_TRACKED_YET, Skb


class Entry(Protocol):
    """Of a `Conn`, what the matches look at."""

    orig: bytes
    reply: bytes
    proto: int
    status: int

    def timeout(self, now: int | None = None) -> int:
        """Seconds left."""


class _Blank:
    """A template as an entry."""

    __slots__ = ("orig", "proto", "reply", "status")

    def __init__(self, family: int) -> None:
        self.orig = self.reply = bytes(12 if family == 4 else 36)
        self.proto = 0
        self.status = CONFIRMED | TEMPLATE

    def timeout(self, now: int | None = None) -> int:
        """None left."""
        return 0


_BLANKS: Final = {4: _Blank(4), 6: _Blank(6)}


def entry(skb: Skb) -> Entry | None:
    """The packet's connection, or the template in its place."""
    return _BLANKS[skb.packet.family] if has_template(skb) else skb.conn


def has_template(skb: Skb) -> bool:
    """Does a template stand in the connection's place?"""
    return skb.template is not None and skb.conn is None and skb.ctinfo == NOT_TRACKED_YET


def mark(skb: Skb) -> int | None:
    """The connection's mark, None without a connection.  (A template's stays 0 here; the kernel's can be set.)"""
    if skb.conn is not None:
        return skb.conn.extra.mark
    return 0 if has_template(skb) else None
