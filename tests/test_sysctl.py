"""The sysctls: names, defaults and what the kernel refuses.

Values: nf_conntrack_standalone.c and the nf_conntrack_proto_*.c of Linux 6.18, read from a running kernel.
"""

from __future__ import annotations

import packets
import pytest
from packets import UDP, ip

from conntrack import Engine
from conntrack.sysctl import Sysctl

DEFAULTS = """
    nf_conntrack_max                                262144
    nf_conntrack_buckets                            262144
    nf_conntrack_expect_max                         4096
    nf_conntrack_checksum                           1
    nf_conntrack_log_invalid                        0
    nf_conntrack_acct                               0
    nf_conntrack_events                             2
    nf_conntrack_timestamp                          0
    nf_conntrack_generic_timeout                    600
    nf_conntrack_tcp_timeout_syn_sent               120
    nf_conntrack_tcp_timeout_syn_recv               60
    nf_conntrack_tcp_timeout_established            432000
    nf_conntrack_tcp_timeout_fin_wait               120
    nf_conntrack_tcp_timeout_close_wait             60
    nf_conntrack_tcp_timeout_last_ack               30
    nf_conntrack_tcp_timeout_time_wait              120
    nf_conntrack_tcp_timeout_close                  10
    nf_conntrack_tcp_timeout_max_retrans            300
    nf_conntrack_tcp_timeout_unacknowledged         300
    nf_conntrack_tcp_loose                          1
    nf_conntrack_tcp_be_liberal                     0
    nf_conntrack_tcp_ignore_invalid_rst             0
    nf_conntrack_tcp_max_retrans                    3
    nf_conntrack_udp_timeout                        30
    nf_conntrack_udp_timeout_stream                 120
    nf_conntrack_icmp_timeout                       30
    nf_conntrack_icmpv6_timeout                     30
    nf_conntrack_gre_timeout                        30
    nf_conntrack_gre_timeout_stream                 180
    nf_conntrack_sctp_timeout_closed                10
    nf_conntrack_sctp_timeout_cookie_wait           3
    nf_conntrack_sctp_timeout_cookie_echoed         3
    nf_conntrack_sctp_timeout_established           210
    nf_conntrack_sctp_timeout_shutdown_sent         3
    nf_conntrack_sctp_timeout_shutdown_recd         3
    nf_conntrack_sctp_timeout_shutdown_ack_sent     3
    nf_conntrack_sctp_timeout_heartbeat_sent        30
    nf_conntrack_frag6_timeout                      60
    nf_conntrack_frag6_high_thresh                  4194304
    nf_conntrack_frag6_low_thresh                   3145728
    net.ipv4.ipfrag_time                            30
"""
ROWS = [(line.split()[0], int(line.split()[1])) for line in DEFAULTS.strip().splitlines()]


@pytest.mark.parametrize(("name", "value"), ROWS, ids=[name for name, _ in ROWS])
def test_every_default_is_the_kernels(name: str, value: int) -> None:
    sysctl = Sysctl()
    assert sysctl[name] == value
    if name.startswith("nf_"):
        assert sysctl["net.netfilter." + name] == sysctl["net/netfilter/" + name] == value
    assert name in list(sysctl)


BUCKETS = [
    (1, 512), (64, 512), (512, 512), (513, 1024), (1000, 1024), (1024, 1024), (65537, 66048), (100000, 100352),
    (300000, 300032), (10000000, 10000384), (268434944, 268434944),
]  # fmt: skip


@pytest.mark.parametrize(("written", "taken"), BUCKETS)
def test_buckets_are_rounded_up_to_a_page(written: int, taken: int) -> None:
    sysctl = Sysctl({"nf_conntrack_buckets": written})
    assert sysctl["nf_conntrack_buckets"] == taken


REFUSED = [
    *(("nf_conntrack_buckets", value) for value in (0, "many", 2**32 - 1, -1, 2**31 - 1, 268435455)),
    *(("nf_conntrack_max", value) for value in (-1, 2**31, "lots", "")),
    *(("nf_conntrack_tcp_max_retrans", value) for value in (-1, 256)),
    *(("nf_conntrack_tcp_loose", value) for value in (2, -1)),
    ("nf_conntrack_checksum", 2),
    ("nf_conntrack_log_invalid", 256),
    ("nf_conntrack_events", 3),
    ("nf_conntrack_udp_timeout", -1),
    ("nf_conntrack_udp_timeout", "1 hour"),
    ("nf_conntrack_udp_timeout", 1.5),
    ("nf_conntrack_udp_timeout", None),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_the_kernel_refuses_raises_quotes_and_changes_nothing(name: str, value: int) -> None:
    sysctl = Sysctl()
    before = dict(sysctl)
    with pytest.raises(ValueError) as error:
        sysctl[name] = value
    assert name in str(error.value) and repr(value) in str(error.value)
    assert dict(sysctl) == before


@pytest.mark.parametrize(("name", "value"), [
    ("nf_conntrack_max", 0), ("nf_conntrack_max", 2**31 - 1), ("nf_conntrack_tcp_max_retrans", 255),
    ("nf_conntrack_tcp_max_retrans", 0), ("nf_conntrack_udp_timeout", "17"), ("nf_conntrack_udp_timeout", 0),
])  # fmt: skip
def test_the_edges_are_taken(name: str, value: int | str) -> None:
    sysctl = Sysctl()
    sysctl[name] = value  # type: ignore[assignment]
    assert sysctl[name] == int(value)


def test_unknown_names_raise() -> None:
    sysctl = Sysctl()
    for name in ("nf_conntrack_tcp_timeout_fin", "net.ipv4.tcp_syncookies", ""):
        with pytest.raises(ValueError, match="unknown sysctl") as error:
            sysctl[name] = 1
        assert repr(name) in str(error.value)
        with pytest.raises(KeyError, match="unknown sysctl"):
            sysctl[name]
    with pytest.raises(ValueError, match="nf_conntrack_nonsense"):
        Engine(sysctl={"nf_conntrack_nonsense": 1})


def test_the_count_can_be_read_only() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512})
    assert engine.sysctl["nf_conntrack_count"] == 0
    engine.process(ip("10.0.0.2", "192.0.2.1", UDP, packets.udp(1, 2)), 0.0)
    assert engine.sysctl["net.netfilter.nf_conntrack_count"] == 1
    with pytest.raises(ValueError, match="read-only"):
        engine.sysctl["nf_conntrack_count"] = 0
    with pytest.raises(ValueError, match="cannot be removed"):
        del engine.sysctl["nf_conntrack_max"]


def test_the_older_name_of_the_limit_still_works() -> None:
    assert Sysctl({"net.nf_conntrack_max": 5})["nf_conntrack_max"] == 5


def test_a_write_counts_from_the_next_packet_on() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512})
    packet = ip("10.0.0.2", "192.0.2.1", UDP, packets.udp(1, 2))
    conn = engine.process(packet, 0.0).conn
    assert conn is not None
    engine.sysctl["nf_conntrack_udp_timeout"] = 90
    assert conn.timeout() == 30
    engine.process(packet, 1.0)
    assert conn.timeout() == 90


def test_accounting_and_timestamps_are_for_flows_made_while_they_are_on() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512})
    old = ip("10.0.0.2", "192.0.2.1", UDP, packets.udp(1, 2))
    new = ip("10.0.0.3", "192.0.2.1", UDP, packets.udp(1, 2))
    engine.process(old, 1.0)
    engine.sysctl["nf_conntrack_acct"] = engine.sysctl["nf_conntrack_timestamp"] = 1
    for packet in (old, new):
        engine.process(packet, 2.0)
    first, second = (conn.to_dict() for conn in engine.conns())
    assert "packets" not in first and "start" not in first
    assert (second["packets"], second["bytes"], second["start"]) == ([1, 0], [28, 0], "2.000000")


def test_an_engine_is_a_mapping_of_all_names() -> None:
    engine = Engine(sysctl={"nf_conntrack_buckets": 512})
    assert len(engine.sysctl) == len(list(engine.sysctl)) == len(dict(engine.sysctl))
    assert all(isinstance(value, int) for value in engine.sysctl.values())
