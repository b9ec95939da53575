"""The differential suite from the command line.

    python tests/kernel/run.py --seeds 0:20000 --steps 50 --jobs 6

plays generated scenarios on the kernel and on a Host, shrinks what differs and writes each difference as a packet
script and as a scenario that can be played again:

    python tests/kernel/run.py --play differences/0017.json

One rule: the exit status is 0 only if every step of every seed was equal.  Boxes are made and removed while others
wait for packets, so several jobs per processor are worth while.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import machine  # noqa: E402
from generate import Play  # noqa: E402
from packet_script import report  # noqa: E402
from pair import Pair, last, play  # noqa: E402
from scenario import Scenario  # noqa: E402
from shrink import labels, shrink  # noqa: E402

Result = dict[str, Any]


def one_seed(seed: int, steps: int, theme: str = "") -> Result:
    """Play a seed; what differed, if anything."""
    game = Play(seed, steps, theme)
    scenario = game.scenario
    found: list[str] = []
    played = 0
    pair = None
    try:
        pair = Pair(scenario)
        while step := game.next():
            found = pair.play(step)
            played += 1
            if found:
                break
            game.saw(pair.answers[-1])
    except Exception as error:  # a rule that one side refuses, a bug of the suite: never silent
        found = [f"raised: {type(error).__name__}: {error}"]
    finally:
        if pair:
            pair.close()
    text = report(scenario, found, pair.answers, last(pair)) if found and pair and pair.answers else str(found)
    return {"seed": seed, "steps": played, "found": found, "scenario": scenario.to_dict(), "text": text}


def differs(scenario: Scenario) -> list[str]:
    """For shrinking: the first difference of a scenario; cuts the scenario there."""
    try:
        played, found, _ = play(scenario)
    except Exception as error:
        return [f"raised: {type(error).__name__}: {error}"]
    if found:
        del scenario.steps[played:]
    return found


def shrunk(result: Result) -> Result:
    """A result with the shortest scenario that shows the same."""
    scenario = shrink(Scenario.from_dict(result["scenario"]), result["found"], differs)
    try:
        _, found, pair = play(scenario)
    except Exception:
        return result
    if not found:
        return result
    text = report(scenario, found, pair.answers, last(pair))
    return {**result, "found": found, "scenario": scenario.to_dict(), "text": text}


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="compare the running kernel with a Host")
    parser.add_argument("--seeds", default="0:100", help="FIRST:LAST, the last not included")
    parser.add_argument("--steps", type=int, default=50, help="steps of each seed")
    parser.add_argument("--jobs", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--differences", type=Path, default=Path("differences"), help="where to write what differs")
    parser.add_argument("--shrink", type=int, default=2, help="how many of each kind of difference to shrink")
    parser.add_argument("--stop", type=int, default=1000, help="stop after so many differences")
    parser.add_argument("--theme", default="", help='scenarios of this theme only; "full": about a full table')
    parser.add_argument("--play", type=Path, help="play one written scenario instead")
    options = parser.parse_args(arguments)
    with machine.small_table(machine.SMALL_MAX if options.theme == "full" else None):
        if options.play:
            return _replay(options.play)
        return _seeds(options)


def _replay(path: Path) -> int:
    scenario = Scenario.from_dict(json.loads(path.read_text()))
    played, found, pair = play(scenario)
    del scenario.steps[played:]
    print(report(scenario, found, pair.answers, last(pair)))
    return 1 if found else 0


def _seeds(options: argparse.Namespace) -> int:
    first, last_seed = (int(part) for part in options.seeds.split(":"))
    began, steps, seeds, kinds = time.time(), 0, 0, collections.Counter[str]()
    jobs = [(seed, options.steps, options.theme) for seed in range(first, last_seed)]
    context = multiprocessing.get_context("fork")
    with context.Pool(options.jobs, maxtasksperchild=200) as pool:
        for result in pool.imap_unordered(_star, jobs, chunksize=1):
            seeds += 1
            steps += result["steps"]
            if seeds % 500 == 0:
                print(
                    f"{seeds} seeds, {steps} steps, {sum(kinds.values())} differences, {time.time() - began:.0f} s",
                    flush=True,
                )
            if not result["found"]:
                continue
            kind = " ".join(sorted(labels(result["found"])))
            kinds[kind] += 1
            _write(options, result, kinds[kind])
            if sum(kinds.values()) >= options.stop:
                pool.terminate()
                break
    seconds = time.time() - began
    total = sum(kinds.values())
    print(f"{seeds} seeds, {steps} steps, {total} differences, {seconds:.0f} s, {steps / seconds:.0f} steps/s")
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")
    return 1 if kinds else 0


def _star(job: tuple[int, int, str]) -> Result:
    return one_seed(*job)


def _write(options: argparse.Namespace, result: Result, count: int) -> None:
    options.differences.mkdir(parents=True, exist_ok=True)
    if count <= options.shrink:
        result = shrunk(result)
    path = options.differences / f"{result['seed']:06}"
    path.with_suffix(".txt").write_text(result["text"])
    path.with_suffix(".json").write_text(json.dumps(result["scenario"]))
    print(f"seed {result['seed']}: {result['found'][0][:300]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
