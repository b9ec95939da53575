"""The shortest scenario that still shows a difference.

One rule: a smaller scenario is kept only if it differs in the same things (the words before the colon).  Steps go
first, in ever smaller groups, then lines of the rules, then sysctls.

What the kernel draws at random differs from run to run; a difference that does not come again is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from scenario import Scenario

Differs = Callable[[Scenario], list[str]]


def labels(found: list[str]) -> frozenset[str]:
    """What differs, without the values."""
    return frozenset(line.split(":")[0].split(" ")[0] for line in found)


def shrink(scenario: Scenario, found: list[str], differs: Differs, budget: int = 150) -> Scenario:
    """`differs` plays a scenario up to its first difference.  At most `budget` games."""
    wanted = labels(found)
    games = 0

    def still(candidate: Scenario) -> bool:
        nonlocal games
        games += 1
        return games <= budget and bool(labels(differs(candidate)) & wanted)

    best = scenario
    if not still(best):
        return scenario
    best = _steps(best, still)
    for name in ("rules", "rules6"):
        best = _lines(best, name, still)
    for name in list(best.box.get("sysctl", {})):
        candidate = _copy(best)
        del candidate.box["sysctl"][name]
        best = candidate if still(candidate) else best
    return _steps(best, still)


def _copy(scenario: Scenario) -> Scenario:
    return copy.deepcopy(scenario)


def _steps(best: Scenario, still: Callable[[Scenario], bool]) -> Scenario:
    size = max(len(best.steps) // 2, 1)
    while True:
        at = len(best.steps) - 1 - size  # the last step is the one that shows it
        while at > -size:
            candidate = _copy(best)
            del candidate.steps[max(at, 0) : at + size]
            if len(candidate.steps) < len(best.steps) and candidate.steps and still(candidate):
                best = candidate
            at -= size
        if size == 1:
            return best
        size //= 2


def _lines(best: Scenario, name: str, still: Callable[[Scenario], bool]) -> Scenario:
    """Without one rule after the other; without the whole text if that will do."""
    if not best.box.get(name):
        return best
    candidate = _copy(best)
    candidate.box[name] = ""
    if still(candidate):
        return candidate
    lines = best.box[name].splitlines()
    for at in reversed(range(len(lines))):
        if not lines[at].startswith("-A"):
            continue
        fewer = lines[:at] + lines[at + 1 :]
        candidate = _copy(best)
        candidate.box[name] = "\n".join(fewer) + "\n"
        if still(candidate):
            best, lines = candidate, fewer
    return best
