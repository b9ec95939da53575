"""This library, as one of the peers: read a capture, track, verify checksums, masquerade, write the capture.

    python run_ours.py CAPTURE OUT [--fill CAPTURE] [--view gateway] [--sysctl NAME=VALUE]… [--events] [--no-nat]

One rule: everything that is not asked for is as the library has it by default.  Which build is measured is the
interpreter's affair: this file imports `conntrack` from wherever that finds it.

Prints JSON: `packets`, `written`, `live` connections, `fast` (packets that took the fast path; null where the
engine does not count them), `loop` (CPU seconds of the replay alone; with --fill, without the filling), `rss`
(octets at the end) and `empty` (before the first packet), `compiled`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path

from conntrack import Engine, Masquerade, engine
from conntrack.drivers.capture import create_capture, open_capture
from conntrack.drivers.replay import Replay
from conntrack.drivers.vantage import Vantage


def cpu() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss() -> int:
    """Octets of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def replay(source: str, target: str | None, box: Engine, view: str, events: bool) -> Replay:
    """One capture through the engine."""
    with open_capture(source) as reader:
        writer = create_capture(target, like=reader) if target else None
        replay = Replay(reader, box, Vantage(box, view), writer)
        if events:
            stream = box.events
            for _ in replay.steps():
                for _ in stream:
                    pass
        else:
            replay.run()
        if writer is not None:
            writer.close()
    return replay


def main() -> None:
    """Replay, and say what happened."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--fill", default="")
    parser.add_argument("--view", default="gateway")
    parser.add_argument("--sysctl", action="append", default=[])
    parser.add_argument("--events", action="store_true")
    parser.add_argument("--no-nat", action="store_true")
    given = parser.parse_args()
    inside = ("10.0.0.0/8", "fd00::/8") if given.view == "gateway" else ("0.0.0.0/0", "::/0")
    rules = [Masquerade(to, source=of) for to, of in zip(("203.0.113.5", "2001:db8:5::5"), inside, strict=True)]
    sysctl = dict(pair.split("=", 1) for pair in given.sysctl)
    box = Engine(None if given.no_nat else rules, sysctl, seed=1)
    empty = rss()
    if given.fill:
        replay(given.fill, None, box, given.view, False)
    begun, seen, fast = cpu(), box.stats.packets, getattr(box.stats, "fast", None)
    done = replay(given.source, given.target or None, box, given.view, given.events)
    loop = cpu() - begun
    said = {
        "packets": done.frames,
        "written": done.written,
        "live": box.count(),
        "seen": box.stats.packets - seen,
        "fast": None if fast is None else box.stats.fast - fast,
        "loop": loop,
        "rss": rss(),
        "empty": empty,
        "compiled": not engine.__file__.endswith(".py"),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
