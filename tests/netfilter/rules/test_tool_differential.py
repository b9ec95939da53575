"""What is accepted, what is refused, and what is printed: `load` beside iptables-restore and iptables-save.

Random lines and random sequences of commands go to both.  What the one refuses the other must refuse, and what both
take must read the same when saved.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from random import Random

import pytest
from namespace import new_namespace, run, visit

from conntrack.netfilter.rules import RuleError, load

from .lines import random_session, random_text

LINES = int(os.environ.get("CONNTRACK_RULE_LINES", "300"))

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def namespace() -> Iterator[int]:
    try:
        with new_namespace() as descriptor:
            run("iptables-restore", text="*filter\n-A INPUT\nCOMMIT\n")
    except OSError as error:
        pytest.skip(f"no namespace with iptables-restore: {error}")
    yield descriptor
    os.close(descriptor)


def theirs(namespace: int, text: str, family: int, counters: bool = False) -> tuple[str | None, str]:
    """(what iptables-save prints afterwards, None if the text was refused; what the tool said)."""
    restore, save = (
        ("iptables-restore", "iptables-save") if family == 4 else ("ip6tables-restore", "ip6tables-save")
    )
    option = ["-c"] if counters else []
    with visit(namespace):
        run("nft", "flush", "ruleset")
        done = subprocess.run([restore, *option], input=text, text=True, capture_output=True)
        if done.returncode:
            return None, done.stderr
        saved = run(save, *option)
    return "".join(line + "\n" for line in saved.splitlines() if not line.startswith("#")), done.stderr


def ours(text: str, family: int, counters: bool = False) -> tuple[str | None, str]:
    try:
        return load(text, family, counters=counters).save(counters=counters), ""
    except RuleError as error:
        return None, str(error)


@pytest.mark.parametrize("part", range(4))
def test_lines_are_taken_refused_and_printed_as_by_the_tool(namespace: int, part: int) -> None:
    for seed in range(part * LINES, (part + 1) * LINES):
        random = Random(seed)
        family = random.choice((4, 6))
        text = random_text(random, family)
        (their_text, said), (our_text, why) = theirs(namespace, text, family), ours(text, family)
        assert our_text == their_text, f"seed {seed}, family {family}\n{text}tool: {said}\nhere: {why}"


@pytest.mark.parametrize("part", range(2))
def test_commands_have_the_effects_that_the_tool_gives_them(namespace: int, part: int) -> None:
    for seed in range(part * LINES, (part + 1) * LINES):
        random = Random(seed)
        counters = random.random() < 0.5
        text = random_session(random)
        (their_text, said), (our_text, why) = theirs(namespace, text, 4, counters), ours(text, 4, counters)
        assert our_text == their_text, f"seed {seed}\n{text}tool: {said}\nhere: {why}"
