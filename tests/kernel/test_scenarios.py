"""The running kernel and a Host play the same scenarios: all fixed ones, and some seeds of the generator.

    CONNTRACK_KERNEL_SEEDS=20000 pytest tests/kernel/test_scenarios.py -m kernel

`run.py` does the same from the command line, for long runs, and shrinks what differs.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cases
import machine
import pytest
from box import available
from pair import play
from run import one_seed
from scenario import Scenario

SEEDS = int(os.environ.get("CONNTRACK_KERNEL_SEEDS", "80"))
FIRST = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))
STEPS = 40
JOBS = 4 * (os.cpu_count() or 1)  # making and removing a box is mostly waiting

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(available() is not None, reason=f"kernel comparison: {available()}"),
]


def test_every_fixed_scenario_is_the_kernels() -> None:
    scenarios = list(cases.everything().values())
    with machine.small_table(), ProcessPoolExecutor(JOBS, mp_context=get_context("fork")) as pool:
        wrong = [text for text in pool.map(_differs, scenarios) if text]
    assert not wrong, f"{len(wrong)} of {len(scenarios)} differ:\n" + "\n".join(wrong)


def _differs(scenario: Scenario) -> str:
    played, found, _ = play(scenario)
    return f"{scenario.name}, step {played}: {found}" if found else ""


def test_generated_scenarios_are_the_kernels(tmp_path: Path) -> None:
    with machine.small_table(), ProcessPoolExecutor(JOBS, mp_context=get_context("fork")) as pool:
        results = [result for result in pool.map(_seed, range(FIRST, FIRST + SEEDS)) if result["found"]]
    for result in results:
        (tmp_path / f"{result['seed']}.txt").write_text(result["text"])
    wrong = [f"seed {result['seed']}, step {result['steps']}: {result['found']}" for result in results]
    assert not wrong, f"{len(wrong)} of {SEEDS} differ (scripts in {tmp_path}):\n" + "\n".join(wrong)


def test_full_tables_evict_as_the_kernels_do() -> None:
    with machine.small_table(machine.SMALL_MAX), ProcessPoolExecutor(JOBS, mp_context=get_context("fork")) as pool:
        results = [result for result in pool.map(_full, range(FIRST, FIRST + SEEDS // 4)) if result["found"]]
    assert not results, "\n".join(f"seed {result['seed']}: {result['found']}" for result in results)


def _full(seed: int) -> dict[str, object]:
    return one_seed(seed, STEPS, "full")


def _seed(seed: int) -> dict[str, object]:
    return one_seed(seed, STEPS)
