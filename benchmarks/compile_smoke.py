"""Compiled: the hot modules, unchanged, through mypyc, and the same octets out of both builds.

    python benchmarks/compile_smoke.py [--optimize 0…3] [PACKAGE]

One rule: the source is the interpreted source.  The package (this repository's, or the folder PACKAGE) is copied
twice to a temporary folder; in one copy the hot modules (pyproject.toml, tool.conntrack) are compiled.  Each copy
then replays the shipped gateway capture with masquerade, seen from both sides, and prints a digest of every outcome
and of the table; the digests must agree.

Exit status 0 and one line with the ratio of CPU times; 0 and the reason where there is no mypyc or compiler;
1 if a module does not compile, is not the compiled one when imported, or behaves differently.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CAPTURES = HERE.parent / "captures"
_PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
HOT: list[str] = _PROJECT["tool"]["conntrack"]["hot"]
ROUNDS = 30
# the gateway that made the capture, see captures/README.md
PUBLIC = ("198.51.100.1", "2001:db8:b::1")


def compiled(root: Path, optimize: int) -> str:
    """Compile in place below `root`; what mypyc said if it failed, else ""."""
    files = [f"conntrack/{name}.py" for name in HOT]
    options = ["--ignore-missing-imports", "--always-true=COMPILED"]  # see conntrack/wire/fields.py
    command = [sys.executable, "-c", "from mypyc.__main__ import main; main()", *options, *files]
    environment = os.environ | {"MYPYC_OPT_LEVEL": str(optimize), "MYPYC_DEBUG_LEVEL": "0"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "error" in line)
    return ""


def replay(root: str) -> None:
    """In a process of its own: digests, CPU seconds and module files of the package below `root`, as JSON."""
    sys.path.insert(0, root)
    from conntrack import Engine, Masquerade
    from conntrack.drivers.capture import open_capture
    from conntrack.drivers.replay import Replay
    from conntrack.drivers.vantage import Vantage

    said: dict[str, object] = {}
    spent = 0.0
    for side, view in (("inside", "inside"), ("outside", "gateway")):
        digest = hashlib.sha256()
        for _ in range(ROUNDS):
            with open_capture(CAPTURES / f"gateway-{side}.pcap") as reader:
                rule = Masquerade(PUBLIC, source=None)
                engine = Engine([rule], {"nf_conntrack_acct": 1}, seed=1)
                begun = time.process_time()
                steps = list(Replay(reader, engine, Vantage(engine, view)).steps())
                spent += time.process_time() - begun
        for step in steps:
            if step.outcome is not None:
                digest.update(repr((step.number, step.outcome.to_dict(), step.outcome.packets)).encode())
        digest.update(engine.listing(extended=True).encode())
        digest.update(engine.stats.text().encode())
        said[side] = digest.hexdigest()
    names = ["conntrack." + name.replace("/", ".").removesuffix(".__init__") for name in HOT]
    said["files"] = [str(getattr(sys.modules.get(name), "__file__", f"{name} was not imported")) for name in names]
    said["cpu"] = spent
    print(json.dumps(said))


def main() -> int:
    """Copy, compile, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=HERE.parent / "conntrack", metavar="PACKAGE")
    parser.add_argument("--optimize", type=int, default=1, help="gcc's -O (1: half the time to compile)")
    parser.add_argument("--replay", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replay:
        replay(given.replay)
        return 0
    if importlib.util.find_spec("mypyc") is None:
        print("not compiled: mypyc is not installed")
        return 0
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        print("not compiled: there is no C compiler")
        return 0
    with tempfile.TemporaryDirectory() as name:
        roots = {"interpreted": Path(name) / "interpreted", "compiled": Path(name) / "compiled"}
        for root in roots.values():
            shutil.copytree(
                given.package, root / "conntrack", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c")
            )
        problem = compiled(roots["compiled"], given.optimize)
        if problem:
            print(f"does not compile:\n{problem}")
            return 1
        said: dict[str, dict[str, object]] = {}
        least: dict[str, float] = {}
        for _ in range(3):
            for build, root in roots.items():
                command = [sys.executable, str(Path(__file__).resolve()), "--replay", str(root)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"the {build} build failed:\n{done.stderr}")
                    return 1
                said[build] = json.loads(done.stdout)
                least[build] = min(least.get(build, 1e9), float(str(said[build]["cpu"])))
    files = said["compiled"]["files"]
    assert isinstance(files, list)
    stray = [file for file in files if not file.endswith((".so", ".pyd"))]
    if stray:
        print(f"imported, but not compiled: {stray}")
        return 1
    differing = [side for side in ("inside", "outside") if said["compiled"][side] != said["interpreted"][side]]
    if differing:
        print(f"the builds differ on gateway-{', '.join(differing)}.pcap")
        return 1
    ratio = least["interpreted"] / least["compiled"]
    print(f"{len(HOT)} modules compiled, outputs and tables equal, {ratio:.2f} times as fast (-O{given.optimize})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
