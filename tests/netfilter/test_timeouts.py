"""Timeout policies; the values are those that nfct listed on Linux 6.18, which took and refused the same rules."""

from __future__ import annotations

import pytest
from packets import TCP, UDP, ip, tcp, udp

from conntrack import Engine
from conntrack.netfilter import Host
from conntrack.netfilter.rules import RuleError
from conntrack.netfilter.timeouts import timeout_policy
from conntrack.sysctl import SECOND

INTERFACES = {"in0": ["10.0.0.1/24"], "out0": ["198.51.100.1/24"]}


@pytest.mark.parametrize(
    ("protocol", "given", "seconds"),
    [
        ("tcp", {"established": 100, "close": 7}, (120, 120, 60, 100, 120, 60, 30, 120, 7, 120, 300, 300)),
        ("tcp", {"syn_sent": 4}, (4, 4, 60, 432000, 120, 60, 30, 120, 10, 120, 300, 300)),
        ("udp", {"replied": 9, "unreplied": 5}, (5, 9)),
        ("udplite", {"replied": 5}, (30, 5)),
        ("gre", {"replied": 5}, (30, 5)),
        ("sctp", {"established": 5}, (10, 10, 3, 3, 5, 3, 3, 3, 30)),
        ("icmp", {"timeout": 4}, (4,)),
        ("generic", {"timeout": 4}, (4,)),
    ],
)
def test_a_policy_takes_from_the_sysctls_what_it_does_not_say(
    protocol: str, given: dict[str, int], seconds: tuple[int, ...]
) -> None:
    policy = timeout_policy(Engine(), 4, protocol, given)
    assert tuple(timeout // SECOND for timeout in policy.timeouts) == seconds


@pytest.mark.parametrize(
    ("family", "protocol", "given"),
    [(5, "tcp", {}), (4, "esp", {}), (4, "udp", {"established": 1}), (4, "udp", {"replied": -1})],
)
def test_what_a_policy_cannot_be_is_refused(family: int, protocol: str, given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"family|protocol|state|within"):
        timeout_policy(Engine(), family, protocol, given)


def box(rule: str) -> Host:
    host = Host(INTERFACES, ["default dev out0"])
    host.add_timeout_policy("slow", 4, "tcp", {"syn_sent": 77})
    host.add_timeout_policy("rest", 4, "generic", {"timeout": 9})
    host.set_rules(f"*raw\n-A PREROUTING {rule}\nCOMMIT\n")
    return host


def test_a_connection_lives_by_the_policy_of_the_rule_that_it_met() -> None:
    host = box("-p tcp -j CT --timeout slow")
    host.receive(ip("10.0.0.2", "192.0.2.1", TCP, tcp(1, 2, "S")), "in0", 0.0)
    host.receive(ip("10.0.0.2", "192.0.2.1", UDP, udp(1, 2)), "in0", 0.0)
    assert [conn.timeout() for conn in host.conns()] == [77, 30]
    host.sysctl["nf_conntrack_tcp_timeout_syn_sent"] = 5
    host.receive(ip("10.0.0.2", "192.0.2.1", TCP, tcp(3, 2, "S")), "in0", 0.0)
    assert [conn.timeout() for conn in host.conns()] == [77, 30, 77]


def test_the_generic_policy_is_for_protocols_without_a_tracker() -> None:
    host = box("-p 50 -j CT --timeout rest")
    host.receive(ip("10.0.0.2", "192.0.2.1", 50, bytes(8), seal=False), "in0", 0.0)
    assert [conn.timeout() for conn in host.conns()] == [9]


@pytest.mark.parametrize("rule", ["-p udp -j CT --timeout slow", "-j CT --timeout slow", "-p 6 -j CT --timeout x"])
def test_a_policy_for_something_else_is_refused(rule: str) -> None:
    with pytest.raises(RuleError):
        box(rule)
