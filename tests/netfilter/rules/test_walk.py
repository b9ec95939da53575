"""The way of a packet through chains: jumps, returns, policies, counters."""

from __future__ import annotations

import pytest
from packets import UDP, ip, udp

from conntrack.netfilter.rules import load, walk
from conntrack.netfilter.skb import Skb
from conntrack.verdict import ACCEPT, DROP, FORWARD
from conntrack.wire.packet import parse

from .fakes import FakeBox

PACKET = ip("10.0.0.2", "192.0.2.1", UDP, udp(1000, 53, b"abc"))

# rules of FORWARD and of user chains, verdict, and which of them counted (1) in their order of printing
WAYS = [
    ("-A FORWARD", ACCEPT, "1"),
    (":FORWARD DROP [0:0]\n-A FORWARD", DROP, "1"),
    ("-A FORWARD -j DROP\n-A FORWARD", DROP, "10"),
    ("-A FORWARD -p tcp -j DROP\n-A FORWARD -j ACCEPT\n-A FORWARD", ACCEPT, "010"),
    (":FORWARD DROP [0:0]\n-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT", DROP, "10"),
    ("-N X\n-A FORWARD -j X\n-A FORWARD -j DROP\n-A X", DROP, "111"),
    ("-N X\n-A FORWARD -j X\n-A FORWARD -j DROP\n-A X -j RETURN\n-A X -j ACCEPT", DROP, "1110"),
    ("-N X\n-A FORWARD -g X\n-A FORWARD -j DROP\n-A X", ACCEPT, "101"),
    ("-N X\n-A FORWARD -g X\n-A FORWARD -j DROP\n-A X -j RETURN", ACCEPT, "101"),
    (
        # the goto in X leaves no way back to X, but the jump to X leaves one to FORWARD
        "-N X\n-N Y\n-A FORWARD -j X\n-A FORWARD -j DROP\n-A X -g Y\n-A X -j ACCEPT\n-A Y",
        DROP,
        "11101",
    ),
    ("-N X\n-A FORWARD -j X\n-A FORWARD -j X\n-A X", ACCEPT, "112"),
]


@pytest.mark.parametrize(("lines", "verdict", "counted"), WAYS)
def test_chains_are_walked_as_the_kernel_walks_them(lines: str, verdict: str, counted: str) -> None:
    rules = load(f"*filter\n{lines}\nCOMMIT\n", 4)
    found = rules.base("filter", FORWARD)
    assert found is not None
    box = FakeBox()
    assert walk(*found, Skb(parse(PACKET), "in0"), FORWARD, box) == verdict
    chains = rules.tables["filter"].ordered()
    counters = [rule.counter for chain in chains for rule in chain.rules]
    assert "".join(str(counter.packets) for counter in counters) == counted
    assert [counter.octets for counter in counters] == [int(count) * len(PACKET) for count in counted]


def test_a_policy_counts_only_in_a_chain_that_was_given_one() -> None:
    for line, counted in ((":FORWARD ACCEPT [0:0]", "[1:31]"), ("-A FORWARD", "[0:0]")):
        rules = load(f"*filter\n{line}\nCOMMIT\n", 4)
        found = rules.base("filter", FORWARD)
        assert found is not None
        walk(*found, Skb(parse(PACKET), "in0"), FORWARD, FakeBox())
        assert f":FORWARD ACCEPT {counted}" in rules.save()


def test_counters_are_announced_before_they_change_so_that_a_trial_can_put_them_back() -> None:
    rules = load("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD\nCOMMIT\n", 4)
    found = rules.base("filter", FORWARD)
    assert found is not None
    box = FakeBox()
    seen = []
    box.touch = lambda memory: seen.append((memory, memory.save()))  # type: ignore[method-assign, attr-defined]
    walk(*found, Skb(parse(PACKET), "in0"), FORWARD, box)
    assert [saved for _, saved in seen] == [(0, 0), (0, 0)]
    for memory, saved in seen:
        memory.restore(saved)
    assert "[1:" not in rules.save(counters=True)
