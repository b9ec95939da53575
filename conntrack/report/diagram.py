"""State diagrams, generated from the grids the trackers use, so that they cannot lie.

Mermaid (stateDiagram-v2) renders on code hosts and needs no library.  An arrow says which packets, from which
side, take a connection from state to state: `>` the originator's, `<` the answerer's.  Cells that keep the state,
ignore the packet or refuse it are left out; the grid itself shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..trackers import sctp, tcp

_GRIDS: Final[dict[str, tuple[Sequence[Sequence[Sequence[int]]], tuple[str, ...], tuple[str, ...]]]] = {
    "tcp": (tcp.GRID, tcp.STATES, tcp.CLASSES),
    "sctp": (sctp.GRID, sctp.STATES, sctp.CHUNKS),
}
# What the protocols without a grid do, in the same notation.
_WITHOUT_GRID: Final = {
    "udp": (
        ("[*]", "UNREPLIED", "> any"),
        ("UNREPLIED", "REPLIED", "< any"),
        ("REPLIED", "STREAM", "any, 2 s after the first"),
    ),
    "udplite": (
        ("[*]", "UNREPLIED", "> any"),
        ("UNREPLIED", "REPLIED", "< any"),
        ("REPLIED", "STREAM", "any"),
    ),
    "gre": (("[*]", "UNREPLIED", "> any"), ("UNREPLIED", "REPLIED", "< any"), ("REPLIED", "STREAM", "any")),
    "icmp": (("[*]", "ASKED", "> query"), ("ASKED", "ASKED", "> query, < answer")),
    "icmpv6": (("[*]", "ASKED", "> query"), ("ASKED", "ASKED", "> query, < answer")),
    "generic": (("[*]", "KNOWN", "> any"), ("KNOWN", "KNOWN", "any")),
}
PROTOCOLS: Final = (*_GRIDS, *_WITHOUT_GRID)


def arrows(protocol: str) -> list[tuple[str, str, str]]:
    """(from, to, label) of every change of state of `protocol`; ValueError quotes an unknown one."""
    if protocol in _WITHOUT_GRID:
        return list(_WITHOUT_GRID[protocol])
    if protocol not in _GRIDS:
        raise ValueError(f"{protocol!r}: no such protocol; known are {', '.join(PROTOCOLS)}")
    grid, states, classes = _GRIDS[protocol]
    labels: dict[tuple[str, str], list[str]] = {}
    for direction, rows in enumerate(grid):
        for kind, row in zip(classes, rows, strict=False):
            for old, new in enumerate(row):
                if new >= len(states) or new == old:
                    continue
                ends = ("[*]" if old == 0 else states[old], states[new])
                labels.setdefault(ends, []).append(f"{'><'[direction]} {kind}")
    return [(start, end, ", ".join(texts)) for (start, end), texts in labels.items()]


def diagram_text(protocol: str) -> str:
    """The Mermaid text of `protocol`'s diagram.

    >>> print(diagram_text("udp").splitlines()[1])
        [*] --> UNREPLIED: > any
    """
    lines = ["stateDiagram-v2"]
    lines += [f"    {start} --> {end}: {label}" for start, end, label in arrows(protocol)]
    return "\n".join(lines)
