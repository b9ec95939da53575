"""The IP layer's sysctls: net.ipv4.* and net.ipv6.* as far as a router's packets feel them.

One rule: values and consequences are Linux's.  `conf.all` and `conf.default` are names of their own; how they reach
an interface depends on the setting:

    or    accept_local, send_redirects, shared_media, route_localnet      all | interface
    and   accept_source_route, bc_forwarding                              all & interface
    max   rp_filter                                                       the greater of both
    own   forwarding                             writing `all` writes `default` and every interface

Writing an IPv4 `default` also writes every interface that was not written itself.

Sources: devinet.c (devinet_conf_proc, inet_forward_change), inetdevice.h (IN_DEV_ANDCONF…), addrconf.c
(addrconf_fixup_forwarding), sysctl_net_ipv4.c, icmp.c (both), Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

_BOOL, _INT, _ANY = (0, 1), (0, 2**31 - 1), (-(2**31), 2**31 - 1)

# fmt: off
# name -> (default, (least, greatest)); the defaults are those of a fresh namespace of Linux 6.18.
_PLAIN: dict[str, tuple[int, tuple[int, int]]] = {
    "net.ipv4.ip_default_ttl":                  (64, (1, 255)),
    "net.ipv4.ip_forward_use_pmtu":             (0, (0, 255)),
    "net.ipv4.ip_no_pmtu_disc":                 (0, (0, 3)),
    "net.ipv4.icmp_echo_ignore_all":            (0, _BOOL),
    "net.ipv4.icmp_echo_ignore_broadcasts":     (1, _BOOL),
    "net.ipv4.icmp_errors_use_inbound_ifaddr":  (0, _BOOL),
    "net.ipv4.icmp_ratelimit":                  (1000, _INT),   # ms
    "net.ipv4.icmp_ratemask":                   (6168, _ANY),   # types 3, 4, 11, 12
    "net.ipv4.icmp_msgs_per_sec":               (1000, _INT),
    "net.ipv4.icmp_msgs_burst":                 (50, _INT),
    "net.ipv4.tcp_timestamps":                  (1, (0, 2)),
    "net.ipv6.icmp.ratelimit":                  (100, _INT),    # ms; 1000 before 6.17
    "net.ipv6.icmp.echo_ignore_all":            (0, _BOOL),
    "net.ipv6.icmp.echo_ignore_multicast":      (0, _BOOL),
    "net.ipv6.icmp.echo_ignore_anycast":        (0, _BOOL),
    "net.ipv6.icmp.error_anycast_as_unicast":   (0, _BOOL),
    "net.ipv6.icmp.ratemask":                   (2**128 - 5, (0, 2**256 - 1)),  # 0-1,3-127
    "net.ipv6.anycast_src_echo_reply":          (0, _BOOL),
    "net.ipv6.flowlabel_reflect":               (0, (0, 7)),
    "net.ipv6.auto_flowlabels":                 (1, (0, 3)),
}
# setting -> (value of all, value of default and of interfaces)
_CONF4: dict[str, tuple[int, int]] = {
    "forwarding":          (0, 0),
    "mc_forwarding":       (0, 0),
    "bc_forwarding":       (0, 0),
    "accept_local":        (0, 0),
    "rp_filter":           (0, 0),
    "accept_redirects":    (1, 1),
    "accept_source_route": (0, 1),
    "send_redirects":      (1, 1),
    "secure_redirects":    (1, 1),
    "shared_media":        (1, 1),
    "route_localnet":      (0, 0),
    "log_martians":        (0, 0),
    "src_valid_mark":      (0, 0),
}
_CONF6: dict[str, tuple[int, int]] = {
    "forwarding":          (0, 0),
    "force_forwarding":    (0, 0),
    "accept_redirects":    (1, 1),
    "accept_source_route": (0, 0),
    "accept_ra":           (1, 1),
    "accept_dad":          (0, 1),
    "addr_gen_mode":       (0, 0),
    "disable_ipv6":        (0, 0),
    "hop_limit":           (64, 64),
    "keep_addr_on_down":   (0, 0),
    "use_oif_addrs_only":  (0, 0),
}
# fmt: on
_CONFS = {"4": _CONF4, "6": _CONF6}
_FORWARDING = "net.ipv4.conf.all.forwarding"


class IpSysctl(MutableMapping[str, int]):
    """The settings by their full names, for a box with these `interfaces`.

    Raises ValueError, quoting the text, for an unknown name, a value out of range or one that is no number.

    >>> sysctl = IpSysctl(["in0"], {"net.ipv4.ip_forward": 1})
    >>> sysctl["net.ipv4.conf.in0.forwarding"], sysctl.any4("send_redirects", "in0")
    (1, True)
    """

    def __init__(self, interfaces: Iterable[str], values: Mapping[str, int | str] | None = None) -> None:
        self.interfaces = ("lo", *(name for name in interfaces if name != "lo"))
        self.writes = 0
        self._written: set[str] = set()
        self._values = {name: row[0] for name, row in _PLAIN.items()}
        for family, rows in _CONFS.items():
            for setting, (whole, each) in rows.items():
                for iface in ("all", "default", *self.interfaces):
                    self._values[_name(family, iface, setting)] = whole if iface == "all" else each
        self._values["net.ipv6.conf.lo.accept_dad"] = -1
        for name, value in (values or {}).items():
            self[name] = value  # type: ignore[assignment]

    def knows(self, name: str) -> bool:
        """Is it one of these names?"""
        return full_name(name) in self._values

    def __getitem__(self, name: str) -> int:
        try:
            return self._values[full_name(name)]
        except KeyError:
            raise KeyError(f"unknown sysctl {name!r}") from None

    def __setitem__(self, name: str, value: int) -> None:
        full = full_name(name)
        if full not in self._values:
            raise ValueError(f"unknown sysctl {name!r}")
        low, high = _PLAIN[full][1] if full in _PLAIN else _ANY
        number = _bitmap(value) if full.endswith("ratemask") else _number(value)
        if number is None or not low <= number <= high:
            raise ValueError(f"sysctl {name}: {value!r} is not within {low}..{high}")
        self._values[full] = number
        self._written.add(full)
        self.writes += 1
        if full not in _PLAIN:
            self._spread(full, number)

    def __delitem__(self, name: str) -> None:
        raise ValueError(f"sysctl {name!r} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _spread(self, full: str, number: int) -> None:
        """What a write to `all` or `default` does to the interfaces."""
        family, iface, setting = full[7], *full[len("net.ipv4.conf.") :].rsplit(".", 1)
        if iface == "all" and setting == "forwarding":
            number = int(number != 0)
            for other in ("all", "default", *self.interfaces):
                self._values[_name(family, other, setting)] = number
            if family == "4":
                self._values["net.ipv4.conf.all.accept_redirects"] = 1 - number
        elif iface == "default" and family == "4":
            for other in self.interfaces:
                if _name(family, other, setting) not in self._written:
                    self._values[_name(family, other, setting)] = number

    # ── how a packet's way asks ─────────────────────────────────────────────────────────────────────

    def any4(self, setting: str, iface: str) -> bool:
        """all | interface, IPv4."""
        return bool(self.own4(setting, "all") or self.own4(setting, iface))

    def both4(self, setting: str, iface: str) -> bool:
        """all & interface, IPv4."""
        return bool(self.own4(setting, "all") and self.own4(setting, iface))

    def most4(self, setting: str, iface: str) -> int:
        """The greater of all and interface, IPv4."""
        return max(self.own4(setting, "all"), self.own4(setting, iface))

    def own4(self, setting: str, iface: str) -> int:
        """The interface's own value, IPv4."""
        return self._values[f"net.ipv4.conf.{iface}.{setting}"]

    def own6(self, setting: str, iface: str) -> int:
        """The interface's own value, IPv6."""
        return self._values[f"net.ipv6.conf.{iface}.{setting}"]

    def forwards6(self, iface: str) -> bool:
        """Does the box forward IPv6 packets that came in by this interface? [ip6_forward]"""
        return bool(self.own6("forwarding", "all") or self.own6("force_forwarding", iface))


def full_name(name: str) -> str:
    """The one name of a setting: dots for slashes, net.ipv4.ip_forward by its other name."""
    text = name.replace("/", ".")
    return _FORWARDING if text == "net.ipv4.ip_forward" else text


def _name(family: str, iface: str, setting: str) -> str:
    return f"net.ipv{family}.conf.{iface}.{setting}"


def _number(value: object) -> int | None:
    try:
        return int(value, 0) if isinstance(value, str) else int(value) if isinstance(value, int) else None
    except ValueError:
        return None


def _bitmap(value: object) -> int | None:
    """A number, or the kernel's list form of a bitmap: "0-1,3-127"."""
    number = _number(value)
    if number is not None or not isinstance(value, str):
        return number
    mask = 0
    for part in value.split(",") if value.strip() else ():
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) > 255:
            return None
        for bit in range(int(first), int(last or first) + 1):
            mask |= 1 << bit
    return mask
