"""What the peers need, fetched and built in the work folder: each thing once, each failure a sentence.

    Python packages     a virtual environment of their own, `venv`
    C programs          Debian's packages, installed where missing and allowed (root)
    Open vSwitch        Debian's package openvswitch-source, its library built, `ovs_replay.c` linked with it
    compiled build      a second virtual environment, `compiled`, with CONNTRACK_COMPILE=1 pip install

One rule: nothing here ends the comparison.  `Missing` carries the reason, and the reason stands in the table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("dpkt", "nfstream", "scapy")
DEBIAN = {
    "argus": "argus-server",
    "softflowd": "softflowd",
    "nfpcapd": "nfdump",
    "tshark": "tshark",
    "nft": "nftables",
    "ip": "iproute2",
}
OVS_TOOLS = {
    "autoreconf": "autoconf",
    "automake": "automake",
    "libtoolize": "libtool",
    "make": "make",
    "gcc": "gcc",
}


class Missing(Exception):
    """Something cannot be had here; the text says why."""


def _run(*command: str | Path, cwd: Path | None = None, more: dict[str, str] | None = None) -> str:
    """What a command printed; Missing with its last line if it fails."""
    environment = {**os.environ, **(more or {})}
    try:
        done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    except OSError as error:
        raise Missing(str(error)) from None
    if done.returncode:
        said = done.stdout.strip().splitlines() or ["(said nothing)"]
        raise Missing(f"{' '.join(map(str, command[:4]))}: {said[-1].strip()}")
    return done.stdout


def _project() -> list[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return list(tomllib.load(file)["tool"]["conntrack"]["needed"])


def virtual_environment(work: Path) -> Path:
    """The interpreter of the peers' environment: their packages, and what this library needs, but not itself."""
    python = work / "venv" / "bin" / "python"
    done = work / "venv" / "complete"
    if not done.exists():
        _run(sys.executable, "-m", "venv", work / "venv")
        _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *_project())
        for package in PACKAGES:
            try:
                _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package)
            except Missing as error:
                (work / "venv" / f"no-{package}").write_text(str(error))
        done.touch()
    return python


def python_package(work: Path, name: str) -> None:
    """Missing if pip could not install it."""
    reason = work / "venv" / f"no-{name}"
    if reason.exists():
        raise Missing(reason.read_text())


def _copied(source: Path) -> Path:
    """What pip builds from, without what an earlier build left in the tree."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, source)
    shutil.copytree(ROOT / "conntrack", source / "conntrack", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return source


def compiled(work: Path, given: str) -> Path:
    """The interpreter of a compiled build: the `given` one, or one made now from this tree."""
    if given:
        python = Path(given).absolute()
    else:
        setup = ROOT / "setup.py"
        if not setup.exists() or "CONNTRACK_COMPILE" not in setup.read_text(encoding="utf-8"):
            raise Missing("this tree has no compiled build (no setup.py that knows CONNTRACK_COMPILE)")
        python = work / "compiled" / "bin" / "python"
        if not python.exists():
            _run(sys.executable, "-m", "venv", work / "compiled")
        source = _copied(work / "source")
        _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--force-reinstall", source,
             more={"CONNTRACK_COMPILE": "1"})  # fmt: skip
    where = _run(python, "-c", "import conntrack.engine as e; print(e.__file__)", cwd=work).strip()
    if where.endswith(".py"):
        raise Missing(f"the build in {python.parents[1].name} is not compiled")
    return python


_updated: list[bool] = []


def programs(names: Sequence[str], packages: dict[str, str]) -> None:
    """Missing unless the programs are here, installed now if need be."""
    for name in names:
        if shutil.which(name):
            continue
        if not shutil.which("apt-get") or os.geteuid():
            raise Missing(f"{name} is not installed, and this is not root on Debian")
        if not _updated:
            _updated.append(True)
            _run("apt-get", "update", "-qq")
        # at run level 1 no daemon is started by what is installed
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", packages[name], more=quiet)
        if not shutil.which(name):
            raise Missing(f"Debian's package {packages[name]} has no {name}")


def open_vswitch(work: Path) -> Path:
    """The program of `ovs_replay.c`; some minutes the first time."""
    folder = work / "openvswitch"
    program, source = folder / "ovs_replay", HERE / "ovs_replay.c"
    library = folder / "lib" / "libopenvswitch.la"
    if not library.exists():
        programs(list(OVS_TOOLS), OVS_TOOLS)
        if not shutil.which("apt-get"):
            raise Missing("no apt-get to fetch Open vSwitch's sources with")
        fetched = work / "fetched"
        fetched.mkdir(exist_ok=True)
        if not list(fetched.glob("openvswitch-source_*.deb")):
            if not _updated and not os.geteuid():
                _updated.append(True)
                _run("apt-get", "update", "-qq")
            _run("apt-get", "download", "-qq", "openvswitch-source", cwd=fetched)
        (package,) = fetched.glob("openvswitch-source_*.deb")
        _run("dpkg", "-x", package, fetched)
        _run("tar", "-xzf", fetched / "usr/src/openvswitch/openvswitch.tar.gz", "-C", work)
        _run("autoreconf", "--install", cwd=folder)
        _run("./configure", "CFLAGS=-O2", "--disable-ssl", "--disable-libcapng", cwd=folder)
        # only the library, and the headers that are made first
        wanted = "include Makefile\nlibrary: $(BUILT_SOURCES)\n\t$(MAKE) lib/libopenvswitch.la\n"
        (folder / "library.mk").write_text(wanted)
        _run("make", f"-j{os.cpu_count() or 1}", "-f", "library.mk", "library", cwd=folder)
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        options = ("-O2", "-std=gnu99", "-D_GNU_SOURCE", "-DHAVE_CONFIG_H", "-I.", "-Iinclude", "-Ilib")
        libraries = ("lib/libopenvswitch.la", "-lpthread", "-lrt", "-lm")
        _run("./libtool", "--quiet", "--tag=CC", "--mode=link", "gcc", *options, source, *libraries,
             "-o", program, cwd=folder)  # fmt: skip
    return program
