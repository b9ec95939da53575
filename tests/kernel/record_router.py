"""Writes down what the kernel does with random packets, for machines without root: tests/netfilter/router.json.

    python tests/kernel/record_router.py            (root; prints how much was written)

Each box of `test_own_differential` gets packets until enough were answered or forwarded; of those that nothing came
of a few are kept.  What the kernel draws and times of day are blanked.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from odd_packets import ROUTES, odd_packet
from plain_box import KernelBox
from router_boxes import BOXES, REJECTS, UNLIMITED, accepted, blank, random_settings, rejecting

FILE = Path(__file__).parent.parent / "netfilter" / "router.json"
_TICK = 6  # CLOCK_MONOTONIC_COARSE of time.h
ANSWERED, REJECTED, SILENT, LONGEST = 45, 20, 10, 130


def main() -> None:
    records = []
    for number, box in enumerate(BOXES):
        for plain in (True, False):
            random = Random(f"record {number} {plain}")
            settings = dict(UNLIMITED) if plain else random_settings(random)
            routes = list(accepted(box, list(ROUTES)))
            steps = _steps(random, KernelBox(box, routes, settings), ANSWERED)
            records.append({"interfaces": box, "routes": routes, "sysctl": settings, "steps": steps})
    for words in REJECTS:
        kernel = KernelBox(BOXES[0], ROUTES, UNLIMITED)
        rejecting(kernel, words)
        record = {"interfaces": BOXES[0], "routes": list(ROUTES), "sysctl": UNLIMITED, "reject": words}
        records.append({**record, "steps": _steps(Random(f"record {words}"), kernel, REJECTED)})
    lines = ",\n".join(json.dumps(record) for record in records)
    FILE.write_text(f"[\n{lines}\n]\n")
    print(f"{sum(len(record['steps']) for record in records)} packets, {FILE.stat().st_size} octets in {FILE}")


def _steps(random: Random, kernel: KernelBox, answered: int) -> list[list[object]]:
    """[nanoseconds since the first, device, packet, [[device, packet], …]] each."""
    steps: list[list[object]] = []
    left = {True: answered, False: SILENT}
    start = time.clock_gettime_ns(_TICK)
    while any(left.values()):
        iface, octets = odd_packet(random)
        if len(octets) > LONGEST:
            continue
        now = time.clock_gettime_ns(_TICK) - start
        out = blank(kernel.send(octets, iface))
        # every packet counts for the limits, so none is left out
        steps.append([now, iface, octets.hex(), out])
        left[bool(out)] = max(left[bool(out)] - 1, 0)
    kernel.close()
    return steps


if __name__ == "__main__":
    main()
