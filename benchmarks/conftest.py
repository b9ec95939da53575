"""What the benchmarks share: how they are measured and how their figures are shown.

    pytest benchmarks/bench_stages.py benchmarks/bench_table.py benchmarks/bench_replay.py [--write-results]

One rule: a figure is a median of rounds, and its unit is the thing a user pays for, one packet or one
connection.  pytest-benchmark runs the rounds; `meter` divides by what a round did, and the figures stand in one
table at the end, or with --write-results in `results/<script>.txt`, machine and Python above them.

The cyclic garbage collector runs while measuring, as it does for users.
"""

from __future__ import annotations

import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

Row = tuple[str, str, str]  # what, figure, remark
_rows: dict[str, list[Row]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """--write-results: keep the tables."""
    parser.addoption("--write-results", action="store_true", help="write the figures to benchmarks/results")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Adds a row to the script's table: what, figure, remark."""
    rows = _rows.setdefault(request.path.stem, [])

    def add(what: str, figure: str, remark: str = "") -> None:
        rows.append((what, figure, remark))

    return add


Meter = Callable[..., None]


@pytest.fixture
def meter(benchmark: Any, note: Callable[[str, str, str], None]) -> Iterator[Meter]:
    """`meter(what, run, number, setup=None, rounds=15, unit="packet")`: ns of one of the `number` things that
    `run(*setup())` does; median of the rounds, least beside it."""

    def measure(
        what: str,
        run: Callable[..., object],
        number: int,
        setup: Callable[[], tuple[Any, ...]] | None = None,
        rounds: int = 15,
        unit: str = "packet",
    ) -> None:
        def prepared() -> tuple[tuple[Any, ...], dict[str, Any]]:
            given = setup() if setup is not None else ()
            gc.collect()
            return given, {}

        benchmark.pedantic(run, setup=prepared, rounds=rounds, warmup_rounds=min(1, rounds - 1), iterations=1)
        stats = benchmark.stats.stats
        benchmark.extra_info[f"ns/{unit}"] = round(stats.median / number * 1e9)
        figure = f"{stats.median / number * 1e9:,.0f} ns/{unit}"
        note(what, figure, f"least {stats.min / number * 1e9:,.0f}, {rounds} rounds of {number:,}")

    yield measure
    gc.collect()


def heading() -> str:
    """Machine, Python, day."""
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {implementation}, {time.strftime('%Y-%m-%d')}; medians; shared machine: read ratios"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The tables."""
    for script, rows in _rows.items():
        lines = [heading(), "", *(f"{what:58}{figure:>24}   {remark}".rstrip() for what, figure, remark in rows)]
        terminalreporter.section(script)
        terminalreporter.write_line("\n".join(lines))
        if config.getoption("--write-results"):
            (HERE / "results" / f"{script}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
