"""Matches are tested through rules text: a rule that only counts, and a packet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rules.fakes import FakeBox

from conntrack.netfilter.rules import load
from conntrack.netfilter.skb import Skb
from conntrack.verdict import DROP, PREROUTING
from conntrack.wire.packet import parse


@pytest.fixture
def counts() -> Callable[..., str]:
    """counts(conditions, skb or octets) -> "yes", "no" or "drop" for a rule in mangle PREROUTING."""

    def counts(conditions: str, packet: bytes | Skb, hook: int = PREROUTING, box: FakeBox | None = None) -> str:
        skb = packet if isinstance(packet, Skb) else Skb(parse(packet), "in0")
        rules = load(f"*mangle\n:X - [0:0]\n-A X {conditions}\nCOMMIT\n", skb.packet.family)
        (rule,) = rules.tables["mangle"].chains["X"].rules
        if rule.selects(skb, hook, box or FakeBox()):  # type: ignore[arg-type]
            return "yes"
        return "drop" if skb.packet.verdict == DROP else "no"

    return counts
