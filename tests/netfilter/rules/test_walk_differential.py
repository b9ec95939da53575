"""Which rules match: random rules and random packets through `walk` and through the running kernel.

Rules that only count, jump, mark and now and then decide stand in mangle PREROUTING of a namespace without
connection tracking, so that fragments arrive as they are.  After a burst of packets every counter of every rule is
compared; where they differ the packets are sent again one by one, and the first that counts differently is shown.
"""

from __future__ import annotations

import os
import re
from random import Random

import pytest

from conntrack.netfilter.rules import RuleError, load, walk
from conntrack.netfilter.skb import Skb
from conntrack.verdict import PREROUTING
from conntrack.wire.packet import parse

from .fakes import FakeBox
from .kernel_rules import Kernel
from .lines import random_rule
from .packets_at_random import random_packet

ROUNDS = int(os.environ.get("CONNTRACK_RULE_ROUNDS", "12"))
PACKETS = 150
RULES = 25

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel():
    try:
        kernel = Kernel()
    except OSError as error:
        pytest.skip(f"no namespace with TUN devices: {error}")
    yield kernel
    kernel.close()


def random_rules(random: Random, family: int) -> str:
    """A mangle table that both accept, with two user chains."""
    lines = ["*mangle", ":PREROUTING ACCEPT [0:0]", ":A - [0:0]", ":B - [0:0]"]
    while len(lines) < RULES:
        chain = random.choice(("PREROUTING", "PREROUTING", "A", "B"))
        line = f"-A {chain} {random_rule(random, family, chain)}"
        try:
            load("\n".join([*lines[:4], line, "COMMIT\n"]), family)
        except RuleError:
            continue
        lines.append(line)
    return "\n".join([*lines, "COMMIT", ""])


def ours(text: str, family: int, packets: list[bytes]) -> str:
    """The counters of our walk, as iptables-save prints them."""
    rules = load(text, family)
    box = FakeBox()
    for data in packets:
        found = rules.base("mangle", PREROUTING)
        assert found is not None
        walk(*found, Skb(parse(data), "in0"), PREROUTING, box)
    return rules.save(counters=True)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_rules_count_the_packets_that_they_count_in_the_kernel(kernel: Kernel, seed: int) -> None:
    random = Random(seed)
    family = random.choice((4, 6))
    text = random_rules(random, family)
    packets = [random_packet(random, family) for _ in range(PACKETS)]
    kernel.load(text, family)
    for packet in packets:
        kernel.send(packet)
    if (theirs := kernel.saved(family)) != ours(text, family, packets):
        assert theirs == ours(text, family, packets), first_difference(kernel, text, family, packets)


def first_difference(kernel: Kernel, text: str, family: int, packets: list[bytes]) -> str:
    for packet in packets:
        kernel.load(text, family)
        kernel.send(packet)
        theirs, mine = kernel.saved(family).splitlines(), ours(text, family, [packet]).splitlines()
        for one, other in zip(theirs, mine, strict=True):
            if re.sub(r"^\[\d+:\d+\] ", "", one) and one != other:
                return f"packet {packet.hex()}\nkernel {one}\nhere   {other}"
    return "no single packet makes the difference"
