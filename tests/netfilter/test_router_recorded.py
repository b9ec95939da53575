"""What the kernel did with random packets on routers without rules, written down, and what ours does.

The record is made by tests/kernel/record_router.py; nothing here needs root.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kernel"))

from plain_box import OurBox
from router_boxes import blank

RECORDS = json.loads((Path(__file__).parent / "router.json").read_text())


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: " ".join(record["interfaces"]["in0"]) or "bare")
def test_packets_fare_as_they_did_with_the_kernel(record: dict[str, Any]) -> None:
    box = OurBox(record["interfaces"], record["routes"], record["sysctl"])
    if "reject" in record:
        box.rejects(tuple(record["reject"]))
    for now, iface, octets, out in record["steps"]:
        found = blank(box.send(bytes.fromhex(octets), iface, 10**12 + now))
        assert [list(row) for row in found] == out, f"{iface} {octets}"
