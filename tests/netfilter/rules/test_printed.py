"""What iptables-save prints for what was given: rows found out with iptables 1.8.9 (nf_tables), both families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conntrack.netfilter.rules import RuleError, load

ROWS = json.loads((Path(__file__).parent / "printed.json").read_text())


@pytest.mark.parametrize(("family", "table", "given", "printed"), ROWS)
def test_rules_are_printed_as_iptables_save_prints_them(family: int, table: str, given: str, printed: str) -> None:
    user = ":CH - [0:0]\n" if "CH" in given.split() else ""
    text = f"*{table}\n{user}{given}\nCOMMIT\n"
    if "refused" in printed:
        with pytest.raises(RuleError):
            load(text, family)
        return
    saved = load(text, family).save()
    assert " ; ".join(line for line in saved.splitlines() if line.startswith("-A")) == printed
    assert load(saved, family).save() == saved, "what is printed reads the same again"
