"""Turns: programs run one after the other, again and again, and what each run cost.

One rule: a run is a process, from its start to its end, and its cost is what the system charged for it and for
the children it waited for (wait4: user + system seconds, greatest resident memory).  Programs take turns
(A B C, A B C, …), so that a machine that grows slower does so for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from programs import Place, Program, environment
from provide import Missing


@dataclass(frozen=True)
class Cost:
    """One run: CPU and wall seconds, octets at most, the share of one processor that others used, what it said."""

    cpu: float
    wall: float
    peak: int
    others: float
    said: dict[str, Any]


class Result:
    """A program's runs, or why there are none."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.runs: list[Cost] = []
        self.missing = ""
        self.command: list[str] = []
        self.packets = 0

    @property
    def seconds(self) -> list[float]:
        """What counts of each run: the process, or its own loop."""
        return [run.said["loop"] if self.program.loop else run.cpu for run in self.runs]

    @property
    def ns(self) -> list[float]:
        """ns of CPU per packet, of each run."""
        return [taken / self.packets * 1e9 for taken in self.seconds]

    def said(self, name: str) -> Any:
        """What the last run said of `name`; None if it did not."""
        return self.runs[-1].said.get(name) if self.runs else None


def _busy() -> float:
    """Seconds that all processors were not idle."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def run(command: list[str], build: str, cwd: Path) -> Cost:
    """One process; Missing with its last words if it fails."""
    more = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment(build)
    busy, begun = _busy(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        try:
            child = subprocess.Popen(command, stdout=said, stderr=complained, cwd=cwd, env=more)
        except OSError as error:
            raise Missing(str(error)) from None
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall, cpu = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
        others = max(0.0, _busy() - busy - cpu) / wall
        said.seek(0)
        complained.seek(0)
        if child.returncode:
            lines = (complained.read().strip() or "said nothing").splitlines()
            raise Missing(f"failed ({child.returncode}): {lines[-1]}")
        last = said.read().strip().rpartition("\n")[2]
    words = json.loads(last) if last.startswith("{") else {}
    return Cost(cpu, wall, usage.ru_maxrss * 1024, others, words)


def frames(path: Path) -> int:
    """Frames of a classic pcap in this machine's order."""
    number = 0
    with path.open("rb") as file:
        file.seek(24)
        while len(head := file.read(16)) == 16:
            file.seek(int.from_bytes(head[8:12], sys.byteorder), 1)
            number += 1
    return number


def take_turns(programs: list[Program], place: Place, turns: int) -> dict[str, Result]:
    """All programs, `turns` times each."""
    results = {program.key: Result(program) for program in programs}
    counted: dict[str, int] = {}
    for program in programs:  # everything is made before anything is measured
        result = results[program.key]
        try:
            result.command = [str(word) for word in program.command(place)]
            if program.capture not in counted:
                counted[program.capture] = frames(place.capture(program.capture))
            result.packets = counted[program.capture]
        except Missing as error:
            result.missing = str(error)
        note(f"{program.title} [{program.capture}]: {result.missing or 'ready'}")
    for turn in range(turns):
        for result in results.values():
            if result.missing:
                continue
            try:
                cost = run(result.command, result.program.build, place.work)
            except Missing as error:
                result.missing, result.runs = str(error), []
                note(f"{result.program.key}: {error}")
                continue
            result.runs.append(cost)
            place.output().unlink(missing_ok=True)
            note(f"turn {turn + 1}, {result.program.key}: {result.seconds[-1]:.2f} s")
    return results


def import_times(place: Place, build: str, runs: int = 11) -> tuple[float, float]:
    """Median CPU seconds of a bare interpreter, and of one that imports the library; taken in turn."""
    python = str(place.python(build))
    taken: dict[str, list[float]] = {"pass": [], "import conntrack": []}
    for number in range(runs + 1):
        for code, costs in taken.items():
            cost = run([python, "-c", code], build, place.work)
            if number:  # the first writes bytecode
                costs.append(cost.cpu)
    bare, whole = (median(costs) for costs in taken.values())
    return bare, whole


def bare_memory(place: Place, build: str) -> int:
    """Octets of an interpreter that has done nothing but ask for its size."""
    code = "print('{\"rss\": %d}' % (int(open('/proc/self/statm').read().split()[1]) * 4096))"
    code = code.replace("4096", str(os.sysconf("SC_PAGE_SIZE")))
    return int(run([str(place.python(build)), "-c", code], build, place.work).said["rss"])


def note(text: str) -> None:
    """Progress."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
