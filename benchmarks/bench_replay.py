"""Whole replays: read a capture, track, translate, write the translated capture.

One rule: what is timed is what `pyconntrack replay --masquerade --write` does, from the first octet read to the
last one written, without the command line's start and summary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import traffic
from traffic import INSIDE4, INSIDE6, PUBLIC4, PUBLIC6

from conntrack import Engine, Masquerade
from conntrack.drivers.capture import create_capture, open_capture
from conntrack.drivers.replay import Replay
from conntrack.drivers.vantage import GATEWAY, INSIDE, Vantage

MIXED = Path(__file__).resolve().parents[2] / "shared" / "captures" / "mixed-large.pcap"
FLOWS = 100_000
PACKETS = 500_000


def replay(source: Path, target: Path | None, view: str, nat: list[Masquerade] | None) -> tuple[int, int]:
    """Frames and connections; `target` None: nothing is written."""
    engine = Engine(nat, seed=1)
    with open_capture(source) as reader:
        writer = create_capture(target, like=reader) if target is not None else None
        replay = Replay(reader, engine, Vantage(engine, view), writer)
        for _ in replay.steps():
            pass
        if writer is not None:
            writer.close()
    return replay.frames, engine.count()


@pytest.mark.skipif(not MIXED.exists(), reason="the capture is not here")
@pytest.mark.parametrize("nat", [False, True], ids=["track", "masquerade and write"])
def test_mixed(meter: Any, tmp_path: Path, nat: bool) -> None:
    """16 seconds of web browsing, seen from inside."""
    rules = [Masquerade(PUBLIC4), Masquerade(PUBLIC6)] if nat else None
    target = tmp_path / "out.pcap" if nat else None
    view = INSIDE if nat else GATEWAY
    frames, _ = replay(MIXED, target, view, rules)
    what = f"replay mixed-large.pcap, {'masquerade and write' if nat else 'track only'}"
    meter(what, lambda: replay(MIXED, target, view, rules), frames, rounds=7)


@pytest.mark.parametrize("nat", [False, True], ids=["track", "masquerade and write"])
def test_many_flows(meter: Any, tmp_path: Path, nat: bool) -> None:
    """100,000 connections; without NAT seen where there is none."""
    source = tmp_path / "flows.pcap"
    view = traffic.GATEWAY if nat else traffic.PLAIN
    traffic.write(source, traffic.generate(PACKETS, FLOWS, seed=1, view=view))
    rules = [Masquerade(PUBLIC4, source=INSIDE4), Masquerade(PUBLIC6, source=INSIDE6)] if nat else None
    target = tmp_path / "out.pcap" if nat else None
    what = f"replay {PACKETS:,} packets of {FLOWS:,} flows, {'masquerade and write' if nat else 'track only'}"
    meter(what, lambda: replay(source, target, GATEWAY, rules), PACKETS, rounds=1)
