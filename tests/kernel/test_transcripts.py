"""What the kernel did with the fixed scenarios, replayed on a Host: the same comparison where there is no root.

Each transcript is a scenario and the kernel's answer to each step, with its times and what it drew at random (see
`record.py`).  A difference prints the scenario as a packet script.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import machine
import pytest
from compare import Late, differences
from host_side import HostSide, Unseen
from packet_script import report
from scenario import Scenario, answers_of

FOLDER = Path(__file__).parent / "transcripts"
LIMIT = 2_500_000  # octets of all transcripts together


def transcripts() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        for transcript in json.loads(path.read_text()):
            found.append(pytest.param(transcript, id=transcript["scenario"]["name"]))
    return found


@pytest.mark.parametrize("transcript", transcripts())
def test_a_host_answers_as_the_kernel_did(transcript: dict[str, Any]) -> None:
    scenario = Scenario.from_dict(transcript["scenario"])
    side, late = HostSide(scenario, machine.FEWEST_BUCKETS), Late()
    answers = []
    for step, answer in zip(scenario.steps, answers_of(transcript), strict=True):
        answers.append(answer)
        try:
            reply = side.play(step, answer)
        except Unseen:
            pytest.skip("compiled: what the kernel drew cannot be handed on")
        found = differences(answer, reply, late)
        if found:
            del scenario.steps[len(answers) :]
            pytest.fail(report(scenario, found, answers, {"kernel": answer, "host": reply}), pytrace=False)


def test_transcripts_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < LIMIT
