"""Counters print as the kernel's files and tools print them."""

from __future__ import annotations

from packets import ip, udp

from conntrack import Engine, Snat
from conntrack.stats import Stats

HEADER = (
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error"
    "  expect_new expect_create expect_delete search_restart"
)


def test_the_line_of_conntrack_s() -> None:
    stats = Stats()
    stats.found, stats.insert_failed, stats.drop = 72, 2, 2
    assert stats.text() == (
        "cpu=0   \tfound=72 invalid=0 insert=0 insert_failed=2 drop=2 early_drop=0 error=0 search_restart=0 "
        "clash_resolve=0 chaintoolong=0 "
    )


def test_proc_net_stat_has_a_column_for_every_name() -> None:
    stats = Stats()
    stats.found, stats.error, stats.chaintoolong = 0x48, 3, 5
    header, row = stats.proc_text(entries=300).splitlines()
    assert header == HEADER
    columns = dict(zip(header.split(), row.split(), strict=True))
    assert columns["entries"] == "0000012c"
    assert (columns["found"], columns["icmp_error"], columns["chainlength"]) == ("00000048", "00000003", "00000005")
    assert sum(value == "00000000" for value in columns.values()) == len(columns) - 4
    # two blanks behind `entries` and `icmp_error`, in both lines
    assert row[8:10] == "  " and row.split("  ")[1].count(" ") == header.split("  ")[1].count(" ")


def test_exhausted_ports_count_as_the_kernel_counts_them() -> None:
    """SNAT to four ports: the 5th and 6th flow are dropped, insert_failed 2, drop 2 (nf_nat_core.c, checked)."""
    engine = Engine(nat=[Snat("198.51.100.10", protocol="udp", ports="2000-2003")])
    for client in range(6):
        engine.process(ip(f"10.0.0.{2 + client}", "203.0.113.5", 17, udp(999, 53)), 0.0)
    counted = engine.stats.as_dict()
    assert (counted["insert_failed"], counted["drop"], counted["invalid"]) == (2, 2, 0)
    assert engine.count() == 4
