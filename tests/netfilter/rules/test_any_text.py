"""Any text at all: a Ruleset, or a RuleError with a place in the text; nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from conntrack.netfilter.rules import RuleError, load

_TEXT = r"""
    -A INPUT -p tcp --dport -m -j ACCEPT ! -s 1.2.3.4 -- - " \\ : X -N -I -D 1 [1:2] COMMIT *nat -c = --x= -f -4 -i
    é --state CT conntrack --tcp-flags multiport 0x 1/2 -g [::1]:5 --to SNAT --ctstate -X -F -Z -P DROP -E -R 0 icmp
    --icmp-type 3/ --chunk-types any DATA: sctp --src-range - ::1-::2 iprange addrtype --src-type L LOG --log-prefix
"""
_WORDS = [*_TEXT.split(), "\n", "\n:X - [0:0]\n", "\n-A X ", '" "']


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(("filter", "nat", "raw")), st.lists(st.sampled_from(_WORDS) | st.text(max_size=5), max_size=14)
)
def test_text_is_read_or_refused_by_line_and_column(table: str, words: list[str]) -> None:
    for family in (4, 6):
        try:
            rules = load(f"*{table}\n-A {' '.join(words)}\nCOMMIT\n", family)
        except RuleError as error:
            assert error.line >= 1
            assert error.column >= 1
            continue
        rules.save(counters=True)
