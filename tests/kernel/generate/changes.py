"""What an administrator does in mid-run: rules, sysctls, addresses, links, routes, flushes.

One rule: every change is one that can be taken back, and most are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .rules import ruleset
from .world import Step, World

# Values of sysctls worth trying, the defaults first.
SYSCTLS: dict[str, tuple[int, ...]] = {
    "nf_conntrack_tcp_loose": (1, 0),
    "nf_conntrack_tcp_be_liberal": (0, 1),
    "nf_conntrack_tcp_ignore_invalid_rst": (0, 1),
    "nf_conntrack_tcp_max_retrans": (3, 1, 0),
    "nf_conntrack_checksum": (1, 0),
    "nf_conntrack_acct": (1, 0),
    "nf_conntrack_timestamp": (0, 1),
    "nf_conntrack_events": (2, 1, 0),
    "nf_conntrack_log_invalid": (255, 0, 6, 17),
    "nf_conntrack_udp_timeout": (30, 40),
    "nf_conntrack_udp_timeout_stream": (120, 60),
    "nf_conntrack_tcp_timeout_established": (432000, 200, 600),
    "nf_conntrack_tcp_timeout_unacknowledged": (300, 100),
    "nf_conntrack_tcp_timeout_max_retrans": (300, 150),
    "nf_conntrack_tcp_timeout_close": (10, 20),
    "nf_conntrack_tcp_timeout_syn_sent": (120, 50),
    "nf_conntrack_icmp_timeout": (30, 35),
    "nf_conntrack_generic_timeout": (600, 100),
    "nf_conntrack_gre_timeout": (30, 50),
    "nf_conntrack_sctp_timeout_established": (210, 100),
    "nf_conntrack_tcp_timeout_syn_recv": (60, 33),
    "nf_conntrack_tcp_timeout_fin_wait": (120, 34),
    "nf_conntrack_tcp_timeout_close_wait": (60, 37),
    "nf_conntrack_tcp_timeout_last_ack": (30, 38),
    "nf_conntrack_tcp_timeout_time_wait": (120, 39),
    "nf_conntrack_icmpv6_timeout": (30, 36),
    "nf_conntrack_gre_timeout_stream": (180, 90),
    "nf_conntrack_sctp_timeout_closed": (10, 21),
    "nf_conntrack_sctp_timeout_cookie_wait": (3, 22),
    "nf_conntrack_sctp_timeout_cookie_echoed": (3, 23),
    "nf_conntrack_sctp_timeout_shutdown_sent": (3, 24),
    "nf_conntrack_sctp_timeout_shutdown_recd": (3, 25),
    "nf_conntrack_sctp_timeout_shutdown_ack_sent": (3, 26),
    "nf_conntrack_sctp_timeout_heartbeat_sent": (30, 27),
    "net.ipv4.ip_forward": (1, 0),
    "net.ipv6.conf.all.forwarding": (1, 0),
    "net.ipv4.ip_default_ttl": (64, 3),
    "net.ipv4.ip_forward_use_pmtu": (0, 1),
}


class Changes:
    """One change now and then."""

    def __init__(self, world: World, style: str, kinds: tuple[str, ...]) -> None:
        self.world = world
        self.style = style
        self.kinds = kinds
        self.undo: list[Step] = []

    def next(self) -> Step | None:
        """A change, or an earlier one taken back."""
        world, rng = self.world, self.world.rng
        # a device's first address takes the later ones of its net with it, a link its routes: one thing at a time
        if self.undo and (self.undo[-1]["op"] in ("address", "link") or world.maybe(0.6)):
            return self.undo.pop()
        step: Step = getattr(self, f"_{rng.choice(self.kinds)}")()
        return step

    def saw(self, record: dict[str, Any]) -> None:
        """Nothing to learn."""

    def _sysctl(self) -> Step:
        return sysctl_step(self.world, SYSCTLS, self.undo)

    def _rules(self) -> Step:
        rng = self.world.rng
        step: Step = {"op": "rules"}
        if self.world.maybe(0.7):
            step["rules"] = ruleset(rng, 4, self.style)
        else:
            step["rules6"] = ruleset(rng, 6, self.style)
        return step

    def _address(self) -> Step:
        rng = self.world.rng
        choices = [("out0", "198.51.100.1/24"), ("out0", "198.51.100.33/24"), ("in0", "10.0.0.9/24")]
        if "link" not in self.kinds:  # a link that goes down takes its IPv6 addresses with it
            choices.append(("out0", "2001:db8:2::1/64"))
        iface, address = rng.choice(choices)
        present = address in ("198.51.100.33/24", "10.0.0.9/24")
        step = {"op": "address", "iface": iface, "address": address, "present": present}
        self.undo.append({**step, "present": not present})
        return step

    def _link(self) -> Step:
        iface = self.world.rng.choice(("out0", "out0", "in0"))
        self.undo.append({"op": "link", "iface": iface, "up": True})
        return {"op": "link", "iface": iface, "up": False}

    def _flush(self) -> Step:
        return {"op": "flush"}


def sysctl_step(world: World, sysctls: Mapping[str, Sequence[int]], undo: list[Step]) -> Step:
    """One of `sysctls` gets one of its values; `undo` learns how it gets its first, the default, back."""
    name = world.rng.choice(list(sysctls))
    undo.append({"op": "sysctl", "name": name, "value": sysctls[name][0]})
    return {"op": "sysctl", "name": name, "value": world.rng.choice(sysctls[name])}
