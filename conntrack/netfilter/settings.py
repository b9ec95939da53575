"""The sysctls of a whole box: connection tracking's from the engine, and those of routing and ICMP.

One mapping, names as Linux users know them: full, or bare for connection tracking's own.  Device settings are
`net.ipv4.conf.<device>.<name>`, with `all` and `default` beside the devices; how `all` and a device combine is the
reader's affair, as it is in the kernel.  A write to `ip_forward` or to a family's `conf.all.forwarding` reaches
every device.

One departure: a Host forwards from the start.  Linux does so only when told; a box of which the first question is
always "what becomes of this packet on its way through" would answer "nothing".

Sources: ip-sysctl.rst, devinet.c, addrconf.c; defaults read from Linux 6.18.44.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Final

from ..sysctl import Sysctl

_INT: Final = (-(2**31), 2**31 - 1)
_BOOL: Final = (0, 1)

# fmt: off
# name -> (default, least, greatest)
_GLOBAL: Final[dict[str, tuple[int, tuple[int, int]]]] = {
    "net.ipv4.ip_default_ttl":                      (64, (1, 255)),
    "net.ipv4.ip_no_pmtu_disc":                     (0, (0, 3)),
    "net.ipv4.ip_forward_use_pmtu":                 (0, _INT),
    "net.ipv4.ip_early_demux":                      (1, (0, 255)),
    "net.ipv4.ip_nonlocal_bind":                    (0, (0, 255)),
    "net.ipv4.fwmark_reflect":                      (0, (0, 255)),
    "net.ipv4.icmp_echo_ignore_all":                (0, _BOOL),
    "net.ipv4.icmp_echo_ignore_broadcasts":         (1, _BOOL),
    "net.ipv4.icmp_echo_enable_probe":              (0, _BOOL),
    "net.ipv4.icmp_errors_use_inbound_ifaddr":      (0, _BOOL),
    "net.ipv4.icmp_ignore_bogus_error_responses":   (1, _BOOL),
    "net.ipv4.icmp_ratelimit":                      (1000, (0, 2**31 - 1)),  # ms between two to one destination
    "net.ipv4.icmp_ratemask":                       (6168, _INT),  # types 3, 4, 11, 12
    "net.ipv4.icmp_msgs_per_sec":                   (1000, (0, 2**31 - 1)),
    "net.ipv4.icmp_msgs_burst":                     (50, (0, 2**31 - 1)),
    "net.ipv4.route.redirect_load":                 (5, _INT),   # jiffies: HZ / 50
    "net.ipv4.route.redirect_number":               (9, _INT),
    "net.ipv4.route.redirect_silence":              (5120, _INT),  # jiffies: (HZ / 50) << 10
    "net.ipv6.icmp.ratelimit":                      (100, (0, 2**31 - 1)),  # ms
    "net.ipv6.icmp.ratemask":                       (0, _INT),  # kept as the kernel's default list: 0-1,3-127
    "net.ipv6.icmp.echo_ignore_all":                (0, _BOOL),
    "net.ipv6.icmp.echo_ignore_multicast":          (0, _BOOL),
    "net.ipv6.icmp.echo_ignore_anycast":            (0, _BOOL),
    "net.ipv6.icmp.error_anycast_as_unicast":       (0, _BOOL),
    "net.ipv6.anycast_src_echo_reply":              (0, _BOOL),
    "net.ipv6.auto_flowlabels":                     (1, (0, 3)),
    "net.ipv6.flowlabel_reflect":                   (0, (0, 7)),
    "net.ipv6.fwmark_reflect":                      (0, _INT),
    "net.ipv6.ip_nonlocal_bind":                    (0, _INT),
    "net.ipv6.max_dst_opts_number":                 (8, _INT),
    "net.ipv6.max_hbh_opts_number":                 (8, _INT),
    "net.ipv6.max_dst_opts_length":                 (2**31 - 1, _INT),
    "net.ipv6.max_hbh_length":                      (2**31 - 1, _INT),
    "net.ipv6.ip6frag_time":                        (60, _INT),
    "net.ipv6.ip6frag_high_thresh":                 (4194304, _INT),
    "net.ipv6.ip6frag_low_thresh":                  (3145728, _INT),
    "net.netfilter.nf_log_all_netns":               (0, _BOOL),  # kept; a box has one log
}

# Device settings by family; those without effect in a box without neighbours and routing daemons are kept all
# the same, so that a list of settings can be given as it is.
_DEVICE: Final[dict[str, dict[str, int]]] = {
    "ipv4": {
        "forwarding": 1, "rp_filter": 0, "accept_local": 0, "accept_source_route": 1, "accept_redirects": 1,
        "secure_redirects": 1, "send_redirects": 1, "shared_media": 1, "log_martians": 0, "route_localnet": 0,
        "src_valid_mark": 0, "bc_forwarding": 0, "mc_forwarding": 0, "medium_id": 0, "bootp_relay": 0, "tag": 0,
        "arp_accept": 0, "arp_announce": 0, "arp_evict_nocarrier": 1, "arp_filter": 0, "arp_ignore": 0,
        "arp_notify": 0, "disable_policy": 0, "disable_xfrm": 0, "drop_gratuitous_arp": 0,
        "drop_unicast_in_l2_multicast": 0, "force_igmp_version": 0, "ignore_routes_with_linkdown": 0,
        "igmpv2_unsolicited_report_interval": 10000, "igmpv3_unsolicited_report_interval": 1000,
        "promote_secondaries": 0, "proxy_arp": 0, "proxy_arp_pvlan": 0,
    },
    "ipv6": {
        "forwarding": 1, "force_forwarding": 0, "hop_limit": 64, "accept_source_route": 0, "disable_ipv6": 0,
        "mtu": 1280, "accept_dad": 1, "accept_ra": 1, "accept_ra_defrtr": 1, "accept_ra_from_local": 0,
        "accept_ra_min_hop_limit": 1, "accept_ra_min_lft": 0, "accept_ra_mtu": 1, "accept_ra_pinfo": 1,
        "accept_ra_rt_info_max_plen": 0, "accept_ra_rt_info_min_plen": 0, "accept_ra_rtr_pref": 1,
        "accept_redirects": 1, "accept_untracked_na": 0, "addr_gen_mode": 0, "autoconf": 1, "dad_transmits": 1,
        "disable_policy": 0, "drop_unicast_in_l2_multicast": 0, "drop_unsolicited_na": 0, "enhanced_dad": 1,
        "force_mld_version": 0, "force_tllao": 0, "ignore_routes_with_linkdown": 0, "ioam6_enabled": 0,
        "keep_addr_on_down": 0, "max_addresses": 16, "max_desync_factor": 600, "mc_forwarding": 0,
        "mldv1_unsolicited_report_interval": 10000, "mldv2_unsolicited_report_interval": 1000,
        "ndisc_evict_nocarrier": 1, "ndisc_notify": 0, "ndisc_tclass": 0, "optimistic_dad": 0, "proxy_ndp": 0,
        "router_solicitations": -1, "router_solicitation_delay": 1, "router_solicitation_interval": 4,
        "suppress_frag_ndisc": 1, "temp_prefered_lft": 86400, "temp_valid_lft": 604800, "use_oif_addrs_only": 0,
        "use_optimistic": 0, "use_tempaddr": 0,
    },
}
# fmt: on
_ALL: Final = {"net.ipv4.conf.all.accept_source_route": 0, "net.ipv6.conf.all.accept_dad": 0}
_FORWARDING: Final = {
    "net.ipv4.ip_forward": "ipv4",
    "net.ipv4.conf.all.forwarding": "ipv4",
    "net.ipv6.conf.all.forwarding": "ipv6",
}
_REACHES_ALL: Final = {"net.ipv6.conf.all.disable_ipv6": "disable_ipv6"}


class HostSysctl(MutableMapping[str, int]):
    """Sysctl names and values of one box; `tracking` is its engine's, `devices` are its interfaces.

    Raises ValueError, quoting the text, for an unknown name or a value out of range.
    """

    def __init__(
        self, tracking: Sysctl, devices: Iterable[str], values: Mapping[str, int | str] | None = None
    ) -> None:
        self.writes: int = 0  # counts them: who caches what depends on a setting looks here
        self._tracking = tracking
        self._devices = ("all", "default", *devices)
        self._values: dict[str, int] = {name: row[0] for name, row in _GLOBAL.items()}
        self._values["net.ipv4.ip_forward"] = 1
        for family, names in _DEVICE.items():
            for device in self._devices:
                for name, default in names.items():
                    full = f"net.{family}.conf.{device}.{name}"
                    self._values[full] = _ALL.get(full, default)
        for name, value in (values or {}).items():
            self[name] = value  # type: ignore[assignment]

    def __getitem__(self, name: str) -> int:
        full = name.replace("/", ".")
        value = self._values.get(full)
        return self._tracking[full] if value is None else value

    def __setitem__(self, name: str, value: int) -> None:
        full = name.replace("/", ".")
        if full not in self._values:
            self._tracking[full] = value
            return
        try:
            number = int(value, 0) if isinstance(value, str) else int(value)
        except (TypeError, ValueError):
            raise ValueError(f"sysctl {name}: {value!r} is no whole number") from None
        low, high = _GLOBAL[full][1] if full in _GLOBAL else _INT
        if isinstance(value, float) or not low <= number <= high:
            raise ValueError(f"sysctl {name}: {value!r} is not within {low}..{high}")
        self._values[full] = number
        self.writes += 1
        family = _FORWARDING.get(full)
        if family is not None:
            self._spread(family, "forwarding", number)
        elif full in _REACHES_ALL:
            self._spread("ipv6", _REACHES_ALL[full], number)

    def _spread(self, family: str, name: str, number: int) -> None:
        for device in self._devices:
            self._values[f"net.{family}.conf.{device}.{name}"] = number
        if family == "ipv4":
            self._values["net.ipv4.ip_forward"] = number

    def __delitem__(self, name: str) -> None:
        raise ValueError(f"sysctl {name!r} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        yield from self._tracking
        yield from self._values

    def __len__(self) -> int:
        return len(self._tracking) + len(self._values)
