"""The recorded tool and the recorded kernel: see `record.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conntrack.netfilter.rules import RuleError, load, walk
from conntrack.netfilter.skb import Skb
from conntrack.verdict import PREROUTING
from conntrack.wire.packet import parse

from .fakes import FakeBox

TEXTS = json.loads((Path(__file__).parent / "tool.json").read_text())
WALKS = json.loads((Path(__file__).parent / "walk.json").read_text())


@pytest.mark.parametrize(("family", "text", "saved"), TEXTS)
def test_texts_are_taken_refused_and_printed_as_by_the_recorded_tool(
    family: int, text: str, saved: str | None
) -> None:
    if saved is None:
        with pytest.raises(RuleError) as caught:
            load(text, family)
        assert 1 <= caught.value.line <= text.count("\n") + 1
    else:
        assert load(text, family).save() == saved


@pytest.mark.parametrize("recorded", WALKS)
def test_rules_count_the_packets_that_they_counted_in_the_recorded_kernel(recorded: dict[str, Any]) -> None:
    rules = load(recorded["rules"], recorded["family"])
    found = rules.base("mangle", PREROUTING)
    assert found is not None
    box = FakeBox()
    for packet in recorded["packets"]:
        walk(*found, Skb(parse(bytes.fromhex(packet)), "in0"), PREROUTING, box)
    assert rules.save(counters=True) == recorded["saved"]
