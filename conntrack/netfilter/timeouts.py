"""Timeout policies: what `nfct add timeout` makes and `-j CT --timeout` gives to a connection.

One rule: a policy is whole.  States that it does not name have the values that the sysctls had when it was made;
later writes to them do not reach it.

Sources: nfnetlink_cttimeout.c (ctnl_timeout_parse_policy), nf_conntrack_proto_*.c (*_timeout_nlattr_to_obj),
xt_CT.c (xt_ct_set_timeout); nfct(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..engine import Engine
from ..sysctl import SECOND
from ..verdict import GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE

GENERIC: Final = 255  # what the kernel calls every protocol without a tracker of its own
_MOST: Final = (2**31 - 1) // 250  # seconds: kept in jiffies in an int

_PAIR: Final = ("unreplied", "replied")
# protocol -> names of nfct's policy in the order of the tracker's timeouts; TCP's first repeats syn_sent
_STATES: Final[dict[int, tuple[str, ...]]] = {
    TCP: (
        *("syn_sent", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait"),
        *("close", "syn_sent2", "retrans", "unacknowledged"),
    ),
    UDP: _PAIR,
    UDPLITE: _PAIR,
    GRE: _PAIR,
    SCTP: (
        *("closed", "closed", "cookie_wait", "cookie_echoed", "established", "shutdown_sent", "shutdown_recd"),
        *("shutdown_ack_sent", "heartbeat_sent"),
    ),
    ICMP: ("timeout",),
    ICMPV6: ("timeout",),
    GENERIC: ("timeout",),
}
_NUMBERS: Final = {
    "tcp": TCP,
    "udp": UDP,
    "udplite": UDPLITE,
    "gre": GRE,
    "sctp": SCTP,
    "icmp": ICMP,
    "icmpv6": ICMPV6,
    "generic": GENERIC,
}


@dataclass(frozen=True, slots=True)
class TimeoutPolicy:
    """Timeouts (ns, by the tracker's states) of connections of one family and protocol number."""

    family: int
    proto: int
    timeouts: tuple[int, ...]

    def fits(self, family: int, proto: int) -> bool:
        """May a rule of `family` for `-p proto` use it?"""
        return family == self.family and self.proto == (proto if proto in _STATES else GENERIC)


Policies = Mapping[str, TimeoutPolicy]
NO_POLICIES: Final[Policies] = {}


def timeout_policy(engine: Engine, family: int, protocol: str, seconds: Mapping[str, int]) -> TimeoutPolicy:
    """A policy for `protocol` ("tcp", "udp", "udplite", "gre", "sctp", "icmp", "icmpv6", "generic").

    `seconds` by state as nfct names them; ValueError, quoting the text, for what it does not know.
    """
    proto = _NUMBERS.get(protocol)
    if family not in (4, 6):
        raise ValueError(f"family {family!r} is neither 4 nor 6")
    if proto is None:
        raise ValueError(f"timeout policy: unknown protocol {protocol!r}")
    names = _STATES[proto]
    for name, value in seconds.items():
        if name not in names:
            raise ValueError(f"timeout policy: {protocol} has no state {name!r}")
        if not 0 <= value <= _MOST:
            raise ValueError(f"timeout policy: {name} {value!r} is not within 0..{_MOST}")
    default = engine.timeouts(0 if proto == GENERIC else proto)
    given = [seconds.get(name) for name in names]
    mixed = [old if new is None else new * SECOND for new, old in zip(given, default, strict=True)]
    return TimeoutPolicy(family, proto, tuple(mixed))
