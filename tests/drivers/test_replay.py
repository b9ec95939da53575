"""`Replay.run` does what walking through `Replay.steps` does, whichever way the octets come in."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from conntrack import Engine, Masquerade
from conntrack.drivers.capture import create_capture, open_capture
from conntrack.drivers.replay import Replay

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = [
    path
    for folder in (ROOT / "captures", ROOT.parent / "shared" / "captures")
    for path in sorted(folder.glob("*.pcap*"))
]


class Trickle:
    """A file that gives a few octets at a time."""

    name = "trickle"

    def __init__(self, octets: bytes, most: int) -> None:
        self._file = io.BytesIO(octets)
        self._most = most

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def replayed(octets: bytes, most: int, how: str) -> tuple[bytes, list[object]]:
    """What is written, and what was counted."""
    engine = Engine([Masquerade(("198.51.100.1", "2001:db8:b::1"))], {"nf_conntrack_acct": 1}, seed=1)
    out = io.BytesIO()
    numbers = []
    read = 0

    def progress(more: int) -> None:
        nonlocal read
        read += more

    with open_capture(Trickle(octets, most)) as reader, create_capture(out, like=reader) as writer:
        replay = Replay(reader, engine, None, writer)
        if how == "run":
            replay.run(lambda step: numbers.append((step.number, step.frame)), progress)
        else:
            numbers = [(step.number, step.frame) for step in replay.steps()]
        counts = [replay.frames, replay.written, replay.short, dict(replay.not_ip), reader.frames_read]
        said = reader.problem
    return out.getvalue(), [
        *counts,
        said,
        engine.listing(extended=True, show_id=True),
        engine.stats.as_dict(),
        numbers,
    ]


@pytest.mark.parametrize("path", CAPTURES, ids=[path.name for path in CAPTURES])
def test_running_through_is_walking_through(path: Path) -> None:
    octets = path.read_bytes()
    if octets[:2] == b"\x1f\x8b":
        pytest.skip("packed")
    walked, counted = replayed(octets, 1 << 20, "steps")
    numbers = dict(counted.pop())
    for most in (1 << 20, 1000):
        written, found = replayed(octets, most, "run")
        steps = found.pop()
        assert written == walked
        assert found == counted
        assert all(numbers[number] == frame for number, frame in steps)


@pytest.mark.parametrize("cut", [1, 10, 16, 17, 29, 31, 60, 100])
def test_a_capture_that_ends_early_ends_the_same_way(cut: int) -> None:
    octets = (ROOT / "captures" / "gateway-outside.pcap").read_bytes()[:-cut]
    walked, counted = replayed(octets, 1 << 20, "steps")
    written, found = replayed(octets, 5000, "run")
    assert (written, found[:-1]) == (walked, counted[:-1])
    assert found[5] == counted[5]
    assert str(found[5] or "").startswith("ends in the middle of record")


def test_a_corrupt_length_ends_the_same_way() -> None:
    octets = bytearray((ROOT / "captures" / "gateway-outside.pcap").read_bytes())
    octets[24 + 8 : 24 + 12] = b"\xff\xff\xff\x7f"
    assert replayed(bytes(octets), 1 << 20, "run")[1][:-1] == replayed(bytes(octets), 1 << 20, "steps")[1][:-1]
