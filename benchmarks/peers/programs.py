"""Who runs on what: the table of programs, and how each becomes a command line.

One rule: a program is a whole process on one capture.  What this library does comes once per build (`pure`, and
`compiled` where there is one); the two differ in nothing but the interpreter that runs the same file.

    ours      run_ours.py: read, track with windows, verify checksums, masquerade, write; all defaults
    track     run_ours.py without NAT and output, on what trackers get
    cli       `python -m conntrack replay`, and with --workers 2

A trackers-only peer gets the plain capture; `…-gw` gives it the gateway's view all the same (see `captures`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import provide
from provide import HERE, ROOT, Missing

BUILDS = ("pure", "compiled")
MASQUERADE = ("--masquerade", "203.0.113.5", "--masquerade", "2001:db8:5::5")
INSIDE = ("--inside", "10.0.0.0/8", "--inside", "fd00::/8", "--view", "gateway")
NO_SUMS, ACCT_ON = "nf_conntrack_checksum=0", "nf_conntrack_acct=1"
ROOMY = ("--sysctl", "nf_conntrack_buckets=2097152", "--sysctl", "nf_conntrack_max=2097152")


@dataclass
class Place:
    """The work folder, and what is found or made in it; whatever is missing says so each time it is asked for."""

    work: Path
    scale: float
    compiled: str = ""
    wait: bool = False
    _kept: dict[str, Path | Missing] = field(default_factory=dict)

    def get(self, name: str, make: Callable[[], Path]) -> Path:
        """What `make` gives, once."""
        if name not in self._kept:
            try:
                self._kept[name] = make()
            except Missing as error:
                self._kept[name] = error
        found = self._kept[name]
        if isinstance(found, Missing):
            raise found
        return found

    def peers(self) -> Path:
        """The interpreter with the peers' packages."""
        return self.get("venv", lambda: provide.virtual_environment(self.work))

    def python(self, build: str) -> Path:
        """The interpreter of a build of this library."""
        if build == "pure":
            return self.peers()
        return self.get("compiled", lambda: provide.compiled(self.work, self.compiled))

    def capture(self, name: str) -> Path:
        """A capture, made now unless it is there."""

        def make() -> Path:
            import captures

            if name == "mixed" and not captures.MIXED.exists():
                raise Missing(f"{captures.MIXED.name} is not here")
            folder = self.work / f"captures-{self.scale:g}"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{name}.pcap"
            if not file.exists():
                # in a process of its own: a small parent keeps children's peak memory theirs
                provide._run(self.peers(), HERE / "captures.py", name, file, "--scale", str(self.scale))
            return file

        return self.get(f"capture {name}", make)

    def output(self) -> Path:
        """Where programs write; the next one overwrites it."""
        return self.work / "output"


Command = Callable[[Place], list[str | Path]]


@dataclass(frozen=True)
class Program:
    """One line of the table: its key, its groups, what it is called, its capture and its command.

    loop     its own `loop` seconds count, not those of the process
    build    of this library; "": somebody else's
    """

    key: str
    groups: tuple[str, ...]
    title: str
    capture: str
    command: Command
    loop: bool = False
    build: str = ""


def _ours(build: str, capture: str, *options: str, fill: str = "", written: bool = True) -> Command:
    def command(place: Place) -> list[str | Path]:
        target = place.output() if written else ""
        more = ["--fill", place.capture(fill)] if fill else []
        return [place.python(build), HERE / "run_ours.py", place.capture(capture), target, *more, *options]

    return command


def _cli(build: str, capture: str, *options: str) -> Command:
    def command(place: Place) -> list[str | Path]:
        python = place.python(build)
        words = [python, "-m", "conntrack", "replay"]
        if "--workers" in options:
            shown = subprocess.run([*words, "--help"], text=True, capture_output=True, env=environment(build))
            if "--workers" not in shown.stdout:
                raise Missing("this build's `replay` has no --workers")
        return [*words, place.capture(capture), *MASQUERADE, *INSIDE, "--write", place.output(), *options]

    return command


def _script(package: str, capture: str) -> Command:
    """run_PACKAGE.py in the peers' environment."""

    def command(place: Place) -> list[str | Path]:
        python = place.peers()
        provide.python_package(place.work, {"naive": "dpkt"}.get(package, package))
        return [python, HERE / f"run_{package}.py", place.capture(capture)]

    return command


def _debian(capture: str, *words: str) -> Command:
    """One of Debian's programs; CAPTURE and OUT stand for the files."""

    def command(place: Place) -> list[str | Path]:
        provide.programs(words[:1], provide.DEBIAN)
        output = place.output()
        if words[0] == "nfpcapd":  # writes into a folder
            output = place.work / "nfpcapd"
            output.mkdir(exist_ok=True)
        names = {"CAPTURE": place.capture(capture), "OUT": output}
        return [names.get(word, word) for word in words]

    return command


def _kernel(capture: str) -> Command:
    def command(place: Place) -> list[str | Path]:
        provide.programs(("ip", "nft"), provide.DEBIAN)
        waits = ["--wait"] if place.wait else []
        return [place.peers(), HERE / "run_kernel.py", place.capture(capture), *waits]

    return command


def _ovs(capture: str, written: bool = True) -> Command:
    def command(place: Place) -> list[str | Path]:
        program = place.get("ovs", lambda: provide.open_vswitch(place.work))
        return [program, place.capture(capture), *([place.output()] if written else [])]

    return command


def environment(build: str) -> dict[str, str]:
    """More for a child's environment: the pure build is this tree, as it stands."""
    return {"PYTHONPATH": str(ROOT)} if build == "pure" else {}


def _of(build: str) -> list[Program]:
    """What one build of this library does."""

    def row(key: str, groups: str, title: str, capture: str, command: Command, loop: bool = False) -> Program:
        names = tuple(groups.split())
        return Program(f"{key} {build}", names, f"{title}, {build}", capture, command, loop, build)

    def held(family: str) -> Command:
        return _ours(build, f"held-{family}", "--sysctl", ACCT_ON, written=False)

    def hit(number: int) -> Program:
        command = _ours(build, f"hit-{number}", *ROOMY, fill=f"fill-{number}")
        return row(f"hit-{number}", "growth", f"{number:,} connections hit", f"hit-{number}", command, True)

    def mid(*options: str) -> Command:
        return _ours(build, "mid", *options)

    workers = _cli(build, "big", "--workers", "2")
    track = _ours(build, "big-plain", "--no-nat", written=False)
    mixed = _ours(build, "mixed", "--view", "inside")
    # fmt: off
    return [
        row("big",        "big",             "conntrack",                    "big",       _ours(build, "big")),
        row("track",      "big",             "conntrack, no NAT, no output", "big-plain", track),
        row("cli",        "workers",         "replay",                       "big",       _cli(build, "big")),
        row("workers",    "workers",         "replay --workers 2",           "big",       workers),
        row("mid",        "kernel switches", "conntrack",                    "mid",       mid()),
        row("flood",      "flood",           "conntrack",                    "flood",     _ours(build, "flood")),
        row("ten",        "ten",             "conntrack",                    "ten",       _ours(build, "ten")),
        row("mixed",      "mixed",           "conntrack",                    "mixed",     mixed),
        hit(10_000),
        hit(100_000),
        hit(1_000_000),
        row("held-4",     "memory",          "IPv4 held, acct=1",            "held-4",    held("4")),
        row("held-6",     "memory",          "IPv6 held, acct=1",            "held-6",    held("6")),
        row("checksum=0", "switches",        "checksum=0",                   "mid",       mid("--sysctl", NO_SUMS)),
        row("acct=1",     "switches",        "acct=1",                       "mid",       mid("--sysctl", ACCT_ON)),
        row("events",     "switches",        "events read",                  "mid",       mid("--events")),
    ]
    # fmt: on


# fmt: off
PROGRAMS: tuple[Program, ...] = (
    *_of("pure"),
    *_of("compiled"),
    Program("naive",       ("big",),    "naive dpkt + dict",       "big-plain", _script("naive", "big-plain")),
    Program("naive-gw",    ("big",),    "naive dpkt + dict",       "big",       _script("naive", "big")),
    Program("nfstream",    ("big",),    "NFStream",                "big-plain", _script("nfstream", "big-plain")),
    Program("nfstream-gw", ("big",),    "NFStream",                "big",       _script("nfstream", "big")),
    Program("scapy",       ("slow",),   "scapy flow grouping",     "few-plain", _script("scapy", "few-plain")),
    Program("tshark",      ("slow",),   "tshark -z conv,tcp",      "big-plain",
            _debian("big-plain", "tshark", "-r", "CAPTURE", "-q", "-z", "conv,tcp")),
    Program("argus",       ("big",),    "argus",                   "big-plain",
            _debian("big-plain", "argus", "-X", "-r", "CAPTURE", "-w", "OUT")),
    Program("softflowd",   ("big",),    "softflowd",               "big-plain",
            _debian("big-plain", "softflowd", "-6", "-r", "CAPTURE", "-m", "1000000")),
    Program("nfpcapd",     ("big",),    "nfpcapd",                 "big-plain",
            _debian("big-plain", "nfpcapd", "-r", "CAPTURE", "-w", "OUT")),
    Program("ovs",         ("big",),    "Open vSwitch, SNAT",      "big",       _ovs("big")),
    Program("ovs-no-out",  ("big",),    "Open vSwitch, SNAT, no output", "big", _ovs("big", written=False)),
    Program("kernel",      ("kernel",), "Linux through two TUNs",  "mid",       _kernel("mid"), loop=True),
    Program("naive-flood", ("flood",),  "naive dpkt + dict",       "flood",     _script("naive", "flood")),
    Program("ovs-flood",   ("flood",),  "Open vSwitch, SNAT",      "flood",     _ovs("flood")),
    Program("naive-ten",   ("ten",),    "naive dpkt + dict",       "ten",       _script("naive", "ten")),
    Program("ovs-ten",     ("ten",),    "Open vSwitch, SNAT",      "ten",       _ovs("ten")),
    Program("naive-mixed", ("mixed",),  "naive dpkt + dict",       "mixed",     _script("naive", "mixed")),
    Program("naive-held",  ("memory",), "naive dpkt + dict, held", "held-4",    _script("naive", "held-4")),
)
# fmt: on
GROUPS = (*dict.fromkeys(group for program in PROGRAMS for group in program.groups), "import", "same")
