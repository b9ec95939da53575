"""Peers: everything a user could take instead, and what it costs beside this library, in one table.

    python benchmarks/peers [--turns 3] [--rows big,kernel,…] [--short] [--compiled PYTHON] [--out FILE]

Makes what it needs in the work folder (`build/peers`, out of git's sight): seeded captures, a virtual environment
with the peers that are Python, Debian's packages for those that are not, Open vSwitch's library from source, a
compiled build of this library.  What cannot be had stands in the table with the reason.

    captures.py   what is replayed                    run_*.py, ovs_replay.c   the programs that replay it
    provide.py    what is installed and built         turns.py     runs them, turn by turn, and takes the time
    programs.py   who runs on what                    report.py    ratios with their floors and goals

One rule: whole processes, user + system CPU as the system charges it, imports and start included; where only a
loop counts the table says so.  Times of a shared machine differ by 20 to 50 % from run to run: programs take
turns, ratios are taken within a turn, and the share of a processor that others used stands beside each.

Rows: big (1,000,000 packets in 107,000 flows), slow (tshark, scapy), workers, kernel, flood, ten, mixed, growth,
memory, switches, import, same (the frames written, beside those of the others).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from programs import BUILDS, GROUPS, PROGRAMS, Place  # noqa: E402
from provide import ROOT, Missing  # noqa: E402
from report import Facts, commands, heading, ratios, runs  # noqa: E402
from turns import bare_memory, import_times, note, run, take_turns  # noqa: E402

SHORT = 0.05


def same(place: Place, builds: list[str]) -> list[str]:
    """The share of the first build's frames that the others wrote as well."""
    kept, lines = {}, []
    for program in PROGRAMS:
        if program.key.partition(" ")[0] not in ("big", "workers", "ovs") or program.build not in ("", *builds):
            continue
        try:
            run([str(word) for word in program.command(place)], program.build, place.work)
        except Missing as error:
            lines.append(f"  {program.title:42}not here: {error}")
            continue
        kept[program.title] = place.output().rename(place.work / f"same-{len(kept)}")
    if len(kept) < 2:
        return lines
    (first, path), *others = kept.items()
    command = [place.peers(), HERE / "same.py", path, *(path for _, path in others)]
    found = json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout)
    lines += [f"  {title:42}{100 * found[str(path)]:.3f} %" for title, path in others]
    for path in kept.values():
        path.unlink()
    return [f"frames of {first!r} on `big` that are, octet for octet, also among those of", *lines, ""]


def main() -> int:
    """Provide, run, report."""
    parser = argparse.ArgumentParser(prog="benchmarks/peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=0, help="default: 3, with --short 1")
    parser.add_argument("--rows", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--short", action="store_true", help="captures of a twentieth, one turn, nothing kept")
    parser.add_argument("--scale", type=float, default=0.0, help="of packets and flows; default: 1, --short 0.05")
    parser.add_argument("--builds", default=",".join(BUILDS), help="of this library")
    parser.add_argument("--compiled", default="", metavar="PYTHON", help="interpreter that has a compiled build")
    parser.add_argument("--wait", action="store_true", help="wait for kernel tests to be done with the machine")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/peers.txt for a whole run, else none")
    given = parser.parse_args()
    scale = given.scale or (SHORT if given.short else 1.0)
    turns = given.turns or (1 if given.short else 3)
    chosen, builds = given.rows.split(","), given.builds.split(",")
    unknown = [name for name in chosen if name not in GROUPS] + [name for name in builds if name not in BUILDS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}")
    given.work.mkdir(parents=True, exist_ok=True)
    place = Place(given.work.resolve(), scale, given.compiled, given.wait)
    begun = time.strftime("%Y-%m-%d %H:%M")
    programs = [
        program
        for program in PROGRAMS
        if set(program.groups) & set(chosen) and program.build in ("", *builds)
    ]
    programs.sort(key=lambda program: GROUPS.index(program.groups[0]))  # what is compared runs close together
    results = take_turns(programs, place, turns)
    imports: dict[str, tuple[float, float]] = {}
    bare: dict[str, int] = {}
    for build in builds:
        try:
            if "import" in chosen:
                imports[build] = import_times(place, build)
            if "memory" in chosen:
                bare[build] = bare_memory(place, build)
        except Missing as error:
            note(f"{build}: {error}")
    facts = Facts(imports, bare)
    lines = heading(turns, scale, place.peers(), sys.argv[1:])
    lines += [f"begun {begun}, ended {time.strftime('%Y-%m-%d %H:%M')}", ""]
    lines += ["Ratios: CPU per packet of the other / of conntrack; memory, import and growth as they are", ""]
    lines += [*ratios(results, facts), "", "Runs", "", *runs(results), ""]
    for build, (empty, whole) in imports.items():
        lines.append(f"import conntrack, {build}: {whole * 1000:.1f} ms of CPU, bare Python {empty * 1000:.1f} ms")
    for build, octets in bare.items():
        lines.append(f"bare Python, {build}: {octets / 2**20:.1f} MiB resident")
    lines += [""] if imports or bare else []
    if "same" in chosen:
        lines += same(place, builds)
    lines += ["Commands", "", *commands(results, place.work), ""]
    text = "\n".join(lines)
    whole = set(chosen) == set(GROUPS) and scale == 1 and set(builds) == set(BUILDS)
    out = given.out or (HERE.parent / "results" / "peers.txt" if whole else None)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
