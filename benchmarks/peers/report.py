"""The table of ratios, and the table of runs behind it, as text.

One rule: a ratio is taken turn by turn between runs that followed each other, and its median counts, least and
greatest beside it.  "times": how much more CPU per packet the other takes than this library; a floor is what must
be reached, a goal what is hoped for (issue 4's words: pure / compiled).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from programs import BUILDS
from provide import DEBIAN, HERE, PACKAGES, ROOT
from turns import Result

sys.path.insert(0, str(HERE.parent))

Results = dict[str, Result]
Figure = tuple[float, float, float]  # median, least, greatest


@dataclass(frozen=True)
class Facts:
    """What was measured beside the programs, per build: CPU seconds of a bare and of an importing interpreter,
    and octets of a bare one."""

    imports: dict[str, tuple[float, float]]
    bare: dict[str, int]


@dataclass(frozen=True)
class Row:
    """A line of ratios.  `figure` gives it for one build, or None; `bounds`: the floors and the goals of both."""

    title: str
    figure: Callable[[Results, Facts, str], Figure | None]
    bounds: tuple[float, float, float, float] | None = None  # floor pure, compiled; goal pure, compiled
    unit: str = "x"
    more_is_better: bool = True


def spread(values: list[float]) -> Figure | None:
    """Median, least and greatest; None of nothing."""
    return (median(values), min(values), max(values)) if values else None


def _ratio(over: list[float], under: list[float]) -> Figure | None:
    return spread([one / other for one, other in zip(over, under, strict=False) if other])


def against(peer: str, ours: str) -> Callable[[Results, Facts, str], Figure | None]:
    """CPU per packet of the peer, in ours."""

    def figure(results: Results, facts: Facts, build: str) -> Figure | None:
        first, second = results.get(peer), results.get(f"{ours} {build}")
        return _ratio(first.ns, second.ns) if first and second else None

    return figure


def price(dear: str, cheap: str) -> Callable[[Results, Facts, str], Figure | None]:
    """CPU per packet of one of ours, in another's."""

    def figure(results: Results, facts: Facts, build: str) -> Figure | None:
        first, second = results.get(f"{dear} {build}"), results.get(f"{cheap} {build}")
        return _ratio(first.ns, second.ns) if first and second else None

    return figure


def _workers(results: Results, facts: Facts, build: str) -> Figure | None:
    """Wall time: two processes are there to be sooner, not cheaper."""
    one, two = results.get(f"cli {build}"), results.get(f"workers {build}")
    return _ratio([run.wall for run in one.runs], [run.wall for run in two.runs]) if one and two else None


def memory(family: str, above_bare: bool) -> Callable[[Results, Facts, str], Figure | None]:
    """Octets a connection: above a bare interpreter, or above the same process before its first packet."""

    def figure(results: Results, facts: Facts, build: str) -> Figure | None:
        held = results.get(f"held-{family} {build}")
        if not held or not held.runs or build not in facts.bare:
            return None
        said = [run.said for run in held.runs]
        return spread([(s["rss"] - (facts.bare[build] if above_bare else s["empty"])) / s["live"] for s in said])

    return figure


def _import(results: Results, facts: Facts, build: str) -> Figure | None:
    if build not in facts.imports:
        return None
    bare, whole = facts.imports[build]
    return spread([(whole - bare) * 1000])


def _fast(key: str) -> Callable[[Results, Facts, str], Figure | None]:
    def figure(results: Results, facts: Facts, build: str) -> Figure | None:
        result = results.get(f"{key} {build}")
        if not result or result.said("fast") is None:
            return None
        return spread([100 * result.said("fast") / (result.said("seen") or 1)])

    return figure


LESS = False  # is better

# fmt: off
ROWS: tuple[Row, ...] = (
    #   what                                    figure                             floors    goals
    Row("naive dpkt + dict, plain capture",     against("naive", "big"),           (3, 9,     4.5, 16)),
    Row("naive dpkt + dict, gateway's capture", against("naive-gw", "big"),        (3, 9,     4.5, 16)),
    Row("NFStream, plain capture",              against("nfstream", "big"),        (3, 9,     4.5, 15)),
    Row("NFStream, gateway's capture",          against("nfstream-gw", "big"),     (3, 9,     4.5, 15)),
    Row("the kernel through two TUNs, loop",    against("kernel", "mid"),          (1, 3.5,   1.4, 5)),
    Row("Open vSwitch's userspace conntrack",   against("ovs", "big"),             (.45, 1.5, .7, 2.5)),
    Row("SYN flood: naive dpkt + dict",         against("naive-flood", "flood"),   (1.7, 5,   3, 8)),
    Row("SYN flood: Open vSwitch",              against("ovs-flood", "flood")),
    Row("two workers against one, wall",        _workers,                          (1.4, 1.4, 1.8, 1.8)),
    Row("memory, IPv4, above bare Python",      memory("4", True),                 (420, 420, 300, 300), "B", LESS),
    Row("memory, IPv6, above bare Python",      memory("6", True),                 (500, 500, 300, 300), "B", LESS),
    Row("memory, IPv4, above the empty engine", memory("4", False),                None, "B", LESS),
    Row("memory, IPv6, above the empty engine", memory("6", False),                None, "B", LESS),
    Row("growth, 10,000 to 1,000,000",          price("hit-1000000", "hit-10000"), (2.5, 2.5, 1.8, 1.8), "x", LESS),
    Row("growth, 10,000 to 100,000",            price("hit-100000", "hit-10000"),  None, "x", LESS),
    Row("import above bare Python",             _import,                           (40, 40,   20, 20), "ms", LESS),
    Row("argus",                                against("argus", "big")),
    Row("softflowd",                            against("softflowd", "big")),
    Row("nfpcapd",                              against("nfpcapd", "big")),
    Row("tshark -z conv,tcp",                   against("tshark", "big")),
    Row("scapy, fewer packets",                 against("scapy", "big")),
    Row("Open vSwitch without output",          against("ovs-no-out", "big")),
    Row("no NAT, no output: naive dpkt + dict", against("naive", "track")),
    Row("no NAT, no output: NFStream",          against("nfstream", "track")),
    Row("10 flows: naive dpkt + dict",          against("naive-ten", "ten")),
    Row("10 flows: Open vSwitch",               against("ovs-ten", "ten")),
    Row("a real capture: naive dpkt + dict",    against("naive-mixed", "mixed")),
    Row("checksum=0, of the default",           price("checksum=0", "mid"),        None, "x", LESS),
    Row("acct=1, of the default",               price("acct=1", "mid"),            None, "x", LESS),
    Row("events read, of the default",          price("events", "mid"),            None, "x", LESS),
    Row("fast path: 107,000 flows",             _fast("big"),                      None, "%"),
    Row("fast path: 10 flows",                  _fast("ten"),                      None, "%"),
    Row("fast path: a real capture",            _fast("mixed"),                    None, "%"),
    Row("fast path: SYN flood",                 _fast("flood"),                    None, "%"),
)
# fmt: on


def _verdict(row: Row, value: float, floor: float, goal: float) -> str:
    sign = 1 if row.more_is_better else -1
    return "goal" if sign * value >= sign * goal else "floor" if sign * value >= sign * floor else "MISSED"


def _number(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 10 or unit in ("ms", "%") else f"{value:.2f}"


def ratios(results: Results, facts: Facts) -> list[str]:
    """One line per row that has something to say, both builds beside each other."""
    names = "".join(f"{build:>10}{'least – most':>17}{'floor':>6}{'goal':>5}{'':8}" for build in BUILDS)
    lines = [f"{'':42}{names}".rstrip()]
    for row in ROWS:
        figures = [row.figure(results, facts, build) for build in BUILDS]
        if not any(figures) and row.bounds is None:
            continue
        line = f"{row.title:42}"
        for place, figure in enumerate(figures):
            floor, goal = (row.bounds[place], row.bounds[place + 2]) if row.bounds else (None, None)
            if figure is None:
                line += f"{'-':>10}{'':17}"
            else:
                middle, least, most = (_number(value, row.unit) for value in figure)
                line += f"{middle + ' ' + row.unit:>10}{least + ' – ' + most:>17}"
            line += f"{floor if floor is not None else '':>6}{goal if goal is not None else '':>5}"
            known = figure is not None and floor is not None and goal is not None
            line += f" {_verdict(row, figure[0], floor, goal) if known else '':7}"  # type: ignore[index,arg-type]
        lines.append(line.rstrip())
    return lines


def runs(results: Results) -> list[str]:
    """One line per program: what it took; then those that there are none of, by reason."""
    lines = [
        f"{'program':38}{'capture':>12}{'packets':>11}{'CPU s':>8}{'least – most':>16}{'wall s':>8}"
        f"{'packets/CPU s':>15}{'ns/packet':>11}{'peak MiB':>10}{'others %':>10}  said"
    ]
    missing: dict[str, list[str]] = {}
    for result in results.values():
        program, seconds = result.program, result.seconds
        if not seconds:
            missing.setdefault(result.missing, []).append(program.key)
            continue
        middle, wall = median(seconds), median(run.wall for run in result.runs)
        between = f"{min(seconds):.2f} – {max(seconds):.2f}"
        peak = median(run.peak for run in result.runs) / 2**20
        others = 100 * median(run.others for run in result.runs)
        lines.append(
            f"{program.title:38}{program.capture:>12}{result.packets:>11,}{middle:>8.2f}{between:>16}{wall:>8.2f}"
            f"{result.packets / middle:>15,.0f}{middle / result.packets * 1e9:>11,.0f}{peak:>10.0f}{others:>10.0f}"
            f"  {_remark(result)}".rstrip()
        )
    for reason, keys in missing.items():
        lines += ["", f"not here: {reason}", f"    {', '.join(keys)}"]
    return lines


def _remark(result: Result) -> str:
    said = result.runs[-1].said
    words = []
    if said.get("live") is not None:
        words.append(f"{said['live']:,} connections")
    if said.get("fast") is not None:
        words.append(f"{100 * said['fast'] / (said['seen'] or 1):.1f} % fast")
    if "forwarded" in said:
        words.append(f"{100 * said['forwarded'] / said['packets']:.1f} % forwarded, {said['buckets']:,} buckets")
    elif said.get("packets", result.packets) != result.packets:
        words.append(f"counted {said['packets']:,} packets")
    if said.get("rss") and said.get("live", 0) > 1000:
        words.append(f"{said['rss'] / 2**20:.0f} MiB at the end")
    if result.program.loop:
        words.append("CPU of its loop")
    return ", ".join(words)


def _debian(package: str) -> str:
    """Its version, or "-"."""
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        return subprocess.run(command, text=True, capture_output=True).stdout or "-"
    except OSError:
        return "-"


def heading(turns: int, scale: float, python: Path, words: list[str]) -> list[str]:
    """Machine, versions, day, and the command that made the file."""
    import conftest

    script = "import sys, importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep='; ')"
    here = [name for name in PACKAGES if not (python.parents[1] / f"no-{name}").exists()]
    found = subprocess.run([python, "-c", script, *here], text=True, capture_output=True).stdout.strip()
    debian = [f"{package} {_debian(package)}" for package in dict.fromkeys(DEBIAN.values())]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], text=True, capture_output=True, cwd=ROOT)
    scaled = "" if scale == 1 else f" on captures of {scale:g} times the size"
    return [
        "This library beside its peers: raw results of benchmarks/peers",
        conftest.heading(),
        f"{platform.system()} {platform.release()}, {os.cpu_count()} processors; commit {commit.stdout.strip()}",
        "; ".join([found, *debian]),
        f"python benchmarks/peers {' '.join(words)}".rstrip() + f": {turns} turn{'s' if turns > 1 else ''}{scaled}",
    ]


def commands(results: Results, work: Path) -> list[str]:
    """How each program was called."""
    lines = []
    for result in results.values():
        if result.command:
            shown = " ".join(result.command).replace(str(work), "WORK").replace(str(ROOT) + "/", "")
            lines.append(f"  {result.program.key:24}{shown}")
    return lines
