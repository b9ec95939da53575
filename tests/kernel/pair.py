"""Both sides play the same steps; the first difference stops them.

One rule: a step is given to the Host at the time it was given to the kernel, and not within 20 ms of a moment at
which something changes by itself (an expiry, UDP's two seconds): two clocks would not agree on its side of it.
"""

from __future__ import annotations

import time
from typing import Any

import machine
from compare import Late, differences
from host_side import HostSide
from scenario import KernelSide, Record, Scenario, Step

_NEAR = 20_000_000  # ns: five jiffies at HZ 250


class Pair:
    """A kernel and a Host with the same box."""

    def __init__(self, scenario: Scenario) -> None:
        self.host = HostSide(scenario, machine.FEWEST_BUCKETS)
        self.kernel = KernelSide(scenario)
        self.answers: list[Record] = []
        self.replies: list[Record] = []
        self.late = Late()

    def play(self, step: Step) -> list[str]:
        """One step; how the answers differ."""
        self._wait()
        answer = self.kernel.play(step)
        self.answers.append(answer)
        try:
            reply = self.host.play(step, answer)
        except Exception as error:
            reply = {}
            self.replies.append(reply)
            return [f"host raised {type(error).__name__}: {error}"]
        self.replies.append(reply)
        return differences(answer, reply, self.late)

    def _wait(self) -> None:
        now = time.time_ns()
        due = [at for at in self.host.deadlines() if at - now < _NEAR]
        near = [at for at in due if at - now > -_NEAR]
        if near:
            time.sleep((max(near) + _NEAR - now) / 1e9)
        if due:  # who meets an expired entry is chance: let both meet all of them now
            self.kernel.box.conns()
            self.host.meet(time.time_ns())

    def close(self) -> None:
        """Let go of the kernel's side, and look at the Host's a last time."""
        self.kernel.close()
        self.host.close()


def play(scenario: Scenario) -> tuple[int, list[str], Pair]:
    """All steps of a scenario: (steps played, differences of the last, the pair)."""
    pair = Pair(scenario)
    found: list[str] = []
    played = 0
    try:
        for step in scenario.steps:
            found = pair.play(step)
            played += 1
            if found:
                break
    finally:
        pair.close()
    return played, found, pair


def last(pair: Pair) -> dict[str, Any]:
    """The last answers of both, for reports."""
    return {"kernel": pair.answers[-1], "host": pair.replies[-1]}
