"""The sysctls, named, ranged and defaulted exactly as Linux 6.18 has them.

`Sysctl` is the mutable mapping users know (`net.netfilter.nf_conntrack_max` or bare `nf_conntrack_max`);
`Settings` is what the packet path reads: the same values as plain attributes, timeouts as nanoseconds in
tuples indexed by state.  A write rebuilds `Settings`, so a packet never looks a name up.

Sources: nf_conntrack_standalone.c, nf_conntrack_proto_*.c, nf_conntrack_reasm.c, ip_fragment.c;
Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping

SECOND = 1_000_000_000  # nanoseconds
JIFFY = SECOND // 250  # the reference kernel's tick, HZ 250

_BOOL = (0, 1)
_OCTET = (0, 255)
_SECONDS = (0, (2**31 - 1) // 250)  # kept in jiffies in an int, HZ 250
_INT = (0, 2**31 - 1)

# fmt: off
# name -> (default, least, greatest).  262144: buckets of every machine with more than 4 GiB, and max = buckets.
_TABLE: dict[str, tuple[int, tuple[int, int]]] = {
    "nf_conntrack_max":                               (262144, _INT),
    "nf_conntrack_buckets":                           (262144, (1, 2**28 - 512)),
    "nf_conntrack_expect_max":                        (4096, (1, 2**31 - 1)),
    "nf_conntrack_checksum":                          (1, _BOOL),
    "nf_conntrack_log_invalid":                       (0, _OCTET),
    "nf_conntrack_acct":                              (0, _BOOL),
    "nf_conntrack_events":                            (2, (0, 2)),
    "nf_conntrack_timestamp":                         (0, _BOOL),
    "nf_conntrack_generic_timeout":                   (600, _SECONDS),
    "nf_conntrack_tcp_timeout_syn_sent":              (120, _SECONDS),
    "nf_conntrack_tcp_timeout_syn_recv":              (60, _SECONDS),
    "nf_conntrack_tcp_timeout_established":           (432000, _SECONDS),  # 5 days; RFC 5382 asks for 2 h 4 min
    "nf_conntrack_tcp_timeout_fin_wait":              (120, _SECONDS),
    "nf_conntrack_tcp_timeout_close_wait":            (60, _SECONDS),
    "nf_conntrack_tcp_timeout_last_ack":              (30, _SECONDS),
    "nf_conntrack_tcp_timeout_time_wait":             (120, _SECONDS),
    "nf_conntrack_tcp_timeout_close":                 (10, _SECONDS),
    "nf_conntrack_tcp_timeout_max_retrans":           (300, _SECONDS),
    "nf_conntrack_tcp_timeout_unacknowledged":        (300, _SECONDS),
    "nf_conntrack_tcp_loose":                         (1, _BOOL),
    "nf_conntrack_tcp_be_liberal":                    (0, _BOOL),
    "nf_conntrack_tcp_ignore_invalid_rst":            (0, _BOOL),
    "nf_conntrack_tcp_max_retrans":                   (3, _OCTET),
    "nf_conntrack_udp_timeout":                       (30, _SECONDS),
    "nf_conntrack_udp_timeout_stream":                (120, _SECONDS),
    "nf_conntrack_icmp_timeout":                      (30, _SECONDS),
    "nf_conntrack_icmpv6_timeout":                    (30, _SECONDS),
    "nf_conntrack_gre_timeout":                       (30, _SECONDS),
    "nf_conntrack_gre_timeout_stream":                (180, _SECONDS),
    "nf_conntrack_sctp_timeout_closed":               (10, _SECONDS),
    "nf_conntrack_sctp_timeout_cookie_wait":          (3, _SECONDS),
    "nf_conntrack_sctp_timeout_cookie_echoed":        (3, _SECONDS),
    "nf_conntrack_sctp_timeout_established":          (210, _SECONDS),
    "nf_conntrack_sctp_timeout_shutdown_sent":        (3, _SECONDS),
    "nf_conntrack_sctp_timeout_shutdown_recd":        (3, _SECONDS),
    "nf_conntrack_sctp_timeout_shutdown_ack_sent":    (3, _SECONDS),
    "nf_conntrack_sctp_timeout_heartbeat_sent":       (30, _SECONDS),
    "nf_conntrack_frag6_timeout":                     (60, _SECONDS),
    "nf_conntrack_frag6_high_thresh":                 (4194304, _INT),
    "nf_conntrack_frag6_low_thresh":                  (3145728, _INT),
    "net.ipv4.ipfrag_time":                           (30, _SECONDS),
    "net.ipv4.ipfrag_high_thresh":                    (4194304, _INT),
    "net.ipv4.ipfrag_low_thresh":                     (3145728, _INT),
    "net.ipv4.ipfrag_max_dist":                       (64, _INT),
}
# fmt: on
_READ_ONLY = "nf_conntrack_count"
_PREFIX = "net.netfilter."


def bucket_count(buckets: int) -> int:
    """`nf_conntrack_buckets` as the kernel takes it: a whole page of 512 pointers at least."""
    return (buckets + 511) // 512 * 512


class Sysctl(MutableMapping[str, int]):
    """Sysctl names and values; writes are checked as the kernel checks them.

    Raises ValueError, quoting the text, for an unknown name, a value out of range or one that is no number,
    and for a write to `nf_conntrack_count`.
    """

    def __init__(self, values: Mapping[str, int | str] | None = None) -> None:
        self._values = {name: row[0] for name, row in _TABLE.items()}
        self.count: Callable[[], int] = int
        self.changed: Callable[[str], object] = str
        for name, value in (values or {}).items():
            self[name] = value  # type: ignore[assignment]

    def __getitem__(self, name: str) -> int:
        bare = _bare(name)
        if bare == _READ_ONLY:
            return self.count()
        if bare not in self._values:
            raise KeyError(f"unknown sysctl {name!r}")
        return self._values[bare]

    def __setitem__(self, name: str, value: int) -> None:
        bare = _bare(name)
        if bare == _READ_ONLY:
            raise ValueError(f"sysctl {name!r} is read-only")
        if bare not in _TABLE:
            raise ValueError(f"unknown sysctl {name!r}")
        try:
            number = int(value, 0) if isinstance(value, str) else int(value)
        except (TypeError, ValueError):
            raise ValueError(f"sysctl {name}: {value!r} is no whole number") from None
        low, high = _TABLE[bare][1]
        if isinstance(value, float) or not low <= number <= high:
            raise ValueError(f"sysctl {name}: {value!r} is not within {low}..{high}")
        self._values[bare] = bucket_count(number) if bare == "nf_conntrack_buckets" else number
        self.changed(bare)

    def __delitem__(self, name: str) -> None:
        raise ValueError(f"sysctl {name!r} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        yield from self._values
        yield _READ_ONLY

    def __len__(self) -> int:
        return len(self._values) + 1


def _bare(name: str) -> str:
    text = name.replace("/", ".")
    if text == "net.nf_conntrack_max":
        return "nf_conntrack_max"
    return text.removeprefix(_PREFIX)


_TCP = (
    "syn_sent",
    "syn_sent",
    "syn_recv",
    "established",
    "fin_wait",
    "close_wait",
    "last_ack",
    "time_wait",
    "close",
)
_SCTP = (
    "closed",
    "closed",
    "cookie_wait",
    "cookie_echoed",
    "established",
    "shutdown_sent",
    "shutdown_recd",
    "shutdown_ack_sent",
    "heartbeat_sent",
)


class Settings:
    """The values the packet path reads.  Timeouts are tuples of nanoseconds, indexed as each tracker says."""

    __slots__ = (
        "acct",
        "be_liberal",
        "checksum",
        "events",
        "ignore_invalid_rst",
        "log_invalid",
        "loose",
        "max_connections",
        "max_retrans",
        "timeouts",
        "timestamp",
        "udplite_quirk",
    )

    def __init__(self, sysctl: Sysctl, udplite_quirk: bool = True) -> None:
        def value(name: str) -> int:
            return sysctl["nf_conntrack_" + name]

        def seconds(*names: str) -> tuple[int, ...]:
            return tuple(value(name) * SECOND for name in names)

        self.acct = bool(value("acct"))
        self.be_liberal = bool(value("tcp_be_liberal"))
        self.checksum = bool(value("checksum"))
        self.events = value("events")
        self.ignore_invalid_rst = bool(value("tcp_ignore_invalid_rst"))
        self.log_invalid = value("log_invalid")
        self.loose = bool(value("tcp_loose"))
        self.max_connections = value("max")
        self.max_retrans = value("tcp_max_retrans")
        self.timestamp = bool(value("timestamp"))
        self.udplite_quirk = udplite_quirk
        tcp = tuple(value("tcp_timeout_" + name) * SECOND for name in _TCP)
        generic = seconds("generic_timeout")
        by_protocol = [generic] * 256
        # states 0..8, SYN_SENT2 (no sysctl of its own), then the "retrans" and "unack" timers
        by_protocol[6] = (
            *tcp,
            120 * SECOND,
            *seconds("tcp_timeout_max_retrans", "tcp_timeout_unacknowledged"),
        )
        by_protocol[17] = by_protocol[136] = seconds("udp_timeout", "udp_timeout_stream")
        by_protocol[1] = seconds("icmp_timeout")
        by_protocol[58] = seconds("icmpv6_timeout")
        by_protocol[47] = seconds("gre_timeout", "gre_timeout_stream")
        by_protocol[132] = tuple(value("sctp_timeout_" + name) * SECOND for name in _SCTP)
        self.timeouts: tuple[tuple[int, ...], ...] = tuple(by_protocol)
