"""`conntrack -L`, `-E` and their `expect` forms: the text of the kernel's tools against a Host's, line by line.

One rule: lines are sorted and `id=`, `use=` and the ids of processes are blanked; nothing else is touched, only
that the seconds left may differ by one, since two clocks round them.  Fixed scenarios are played on both sides; the
tools run in the kernel's namespace.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import machine
import pytest
from box import available
from cases import everything
from namespace import visit
from pair import Pair
from scenario import Scenario

from conntrack.events import Event

REASON = available()
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
CASES = everything()
NUMBER = max(20, int(os.environ.get("CONNTRACK_KERNEL_STEPS", "1000")) // 50)
_BLANK = re.compile(r" \[USERSPACE\] portid=\d+( progname=\S*)?| (id|use)=\d+")


def lines(text: str) -> list[str]:
    return sorted(_BLANK.sub("", line).rstrip() for line in text.splitlines() if line.strip())


def _listeners(namespace: int) -> dict[str, int]:
    """The netfilter sockets of the namespace that have joined a group, and how many octets wait in them."""
    with visit(namespace), open("/proc/thread-self/net/netlink") as file:
        rows = [line.split() for line in file]
    return {row[0]: int(row[4]) for row in rows if row[1] == "12" and row[3] != "00000000"}


class Tool:
    """`conntrack -E …` in the kernel's namespace, from when it listens until it is stopped."""

    def __init__(self, namespace: int, *arguments: str) -> None:
        before = set(_listeners(namespace))
        with visit(namespace):
            self._process = subprocess.Popen(
                ("conntrack", "-E", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and set(_listeners(namespace)) == before:
            os.sched_yield()
        self._namespace = namespace
        self._own = set(_listeners(namespace)) - before

    def stop(self) -> str:
        """What it printed, once it has read everything."""
        while any(waiting for name, waiting in _listeners(self._namespace).items() if name in self._own):
            os.sched_yield()
        time.sleep(0.02)  # read, but perhaps not printed yet
        self._process.send_signal(signal.SIGINT)
        return self._process.communicate(timeout=10)[0]


def play(scenario: Scenario) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(the tools' lines, the Host's lines) by tool."""
    pair = Pair(scenario)
    try:
        namespace = pair.kernel.box._namespace
        tools = {"-E": Tool(namespace), "-E expect": Tool(namespace, "expect")}
        ours: dict[str, list[str]] = {"-E": [], "-E expect": []}
        for step in scenario.steps:
            found = pair.play(step)
            assert not found, f"{scenario.name}: {found[0]}"
            for event in pair.replies[-1]["events"]:
                tool = "-E expect" if event["event"].startswith("EXP") else "-E"
                ours[tool].append(Event(event["event"], 0, 0, event).text())
        theirs = {name: lines(tool.stop()) for name, tool in tools.items()}
        host = pair.host.host
        theirs["-L"] = lines(pair.kernel.box.run("conntrack", "-L"))
        theirs["-L expect"] = lines(pair.kernel.box.run("conntrack", "-L", "expect"))
        host.tick(time.time_ns())
        ours["-L"] = host.engine.listing().splitlines()
        ours["-L expect"] = [expectation.text() for expectation in host.expectations()]
        return theirs, {name: lines("\n".join(text)) for name, text in ours.items()}
    finally:
        pair.close()


@pytest.mark.parametrize("name", random.Random(7).sample(sorted(CASES), min(NUMBER, len(CASES))))
def test_the_tools_print_of_the_kernel_what_a_host_prints(name: str) -> None:
    with machine.small_table():
        theirs, ours = play(CASES[name])
    for tool in theirs:
        assert without_seconds(ours[tool]) == without_seconds(theirs[tool]), f"conntrack {tool}"
        for our, their in zip(seconds(ours[tool]), seconds(theirs[tool]), strict=True):
            assert abs(our - their) <= 1, f"conntrack {tool}: {our} and {their} s left"


_LEFT = re.compile(r"^((?: *\[\w+\] )?(?:\w+ +\d+ )?)(\d+) (?=\w+[ =])")


def without_seconds(text: list[str]) -> list[str]:
    return sorted(_LEFT.sub(r"\1", line) for line in text)


def seconds(text: list[str]) -> list[int]:
    """Seconds left in each line that tells them, in the order of the rest of the lines: the kernel counts ticks."""
    rows = sorted((_LEFT.sub(r"\1", line), int(found[2])) for line in text if (found := _LEFT.match(line)))
    return [left for _, left in rows]
