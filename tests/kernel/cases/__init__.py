"""Fixed scenarios, by theme: each is a name that says what happens, a box, and a packet script (see `notation`).

One rule: a case says nothing about its result.  The running kernel does, when the case is played on it and when its
transcript was recorded.

`case(…)` makes one; each module collects its own in CASES, and ALL has them by name.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from typing import Any

from scenario import Scenario

from .notation import steps

# Tracking on, nothing else: a rule that asks for a connection's state is enough.
TRACK = "*filter\n-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\n-A INPUT -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
# The same, and the NAT hooks with a rule that never matches.
NAT_HOOKS = TRACK + "*nat\n-A POSTROUTING -o none -j MASQUERADE\nCOMMIT\n"
MASQUERADE = TRACK + "*nat\n-A POSTROUTING -o out0 -j MASQUERADE\nCOMMIT\n"


def nat(*rules: str) -> str:
    """Tracking, and a nat table of these rules."""
    return TRACK + "*nat\n" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"


def table(name: str, *rules: str) -> str:
    """One table of these rules."""
    return f"*{name}\n" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"


def case(name: str, script: str, rules: str = TRACK, rules6: str = TRACK, **more: Any) -> Scenario:
    """A named scenario; `texts` holds rules that the script names, the rest goes to the box."""
    texts = more.pop("texts", {})
    scenario = Scenario.of(name, rules, rules6, **more)
    scenario.steps = steps(script, texts)
    return scenario


def by_theme() -> dict[str, list[Scenario]]:
    """All cases, by the module they stand in."""
    from . import (
        boxes,
        errors,
        fragments,
        helpers,
        nat_cases,
        others,
        regressions,
        rules_cases,
        selftests,
        tcp,
        udp_icmp,
        zones,
    )

    modules = (
        *(tcp, udp_icmp, others, nat_cases, errors, fragments, zones, helpers, rules_cases, boxes, selftests),
        regressions,
    )
    return {module.__name__.rpartition(".")[2]: module.CASES for module in modules}


def everything() -> dict[str, Scenario]:
    """All cases by name."""
    found: dict[str, Scenario] = {}
    for scenarios in by_theme().values():
        for scenario in scenarios:
            if scenario.name in found:
                raise ValueError(f"two cases are called {scenario.name!r}")
            found[scenario.name] = scenario
    return found
