"""Differences that were found between the kernel and a Host, each by the shortest packets that showed it.

One rule: a name says what the kernel does.
"""



from __future__ import annotations

from scenario import Scenario

CASES: list[Scenario] = []
