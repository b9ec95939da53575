"""-j REJECT: drops the packet and answers with an ICMP error or a TCP reset.

A kind may be shortened; of several that begin so the first in the kernel's order is taken.

Sources: libipt_REJECT.c, libip6t_REJECT.c of iptables 1.8.9; ipt_REJECT.c, ip6t_REJECT.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, FORWARD, LOCAL_IN, LOCAL_OUT, TCP
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..skb import Skb

# (name, alias) in the kernel's order, which decides what a shortened name means
_KINDS = {
    4: (
        ("icmp-net-unreachable", "net-unreach"),
        ("icmp-host-unreachable", "host-unreach"),
        ("icmp-proto-unreachable", "proto-unreach"),
        ("icmp-port-unreachable", "port-unreach"),
        ("icmp-net-prohibited", "net-prohib"),
        ("icmp-host-prohibited", "host-prohib"),
        ("tcp-reset", "tcp-rst"),
        ("icmp-admin-prohibited", "admin-prohib"),
    ),
    6: (
        ("icmp6-no-route", "no-route"),
        ("icmp6-adm-prohibited", "adm-prohibited"),
        ("icmp6-addr-unreachable", "addr-unreach"),
        ("icmp6-port-unreachable", "port-unreach"),
        ("tcp-reset", "tcp-reset"),
        ("icmp6-policy-fail", "policy-fail"),
        ("icmp6-reject-route", "reject-route"),
    ),
}
_DEFAULT = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}


@dataclass(frozen=True, slots=True)
class Reject:
    """kind: the word behind --reject-with"""

    kind: str

    @property
    def name(self) -> str:
        """-j REJECT"""
        return "REJECT"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Answer and drop."""
        box.reject(skb, hook, self.kind)
        return DROP

    def text(self) -> str:
        """The options."""
        return f"--reject-with {self.kind}"


def _parse(argument: Argument) -> str:
    text = argument.text.lower()
    for name, alias in _KINDS[argument.family]:
        if name.startswith(text) or alias.startswith(text):
            return name
    raise Refused(f'unknown reject type "{argument.text}"')


def _build(given: Given) -> Reject:
    kind = given.get("reject-with", _DEFAULT[given.family])
    refuse_unless(
        kind != "tcp-reset" or (given.proto == TCP and not given.not_proto), "TCP_RESET invalid for non-tcp"
    )
    return Reject(kind)


EXTENSION = Extension(
    TARGET,
    "REJECT",
    _build,
    (Option("reject-with", _parse),),
    table="filter",
    hooks=(LOCAL_IN, FORWARD, LOCAL_OUT),
)
