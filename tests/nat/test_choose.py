"""Which address and port a flow gets: keep, share, hash, search; and what happens when nothing is free.

Facts and numbers: nf_nat_core.c, xt_nat.c, xt_NETMAP.c, nf_nat_masquerade.c of Linux 6.18, seen on a running
kernel.
"""

from __future__ import annotations

from typing import Any

import packets
import pytest
from draws import Draws
from packets import ESP, GRE, ICMP, SCTP, TCP, UDP, ip

from conntrack import Dnat, Engine, Masquerade, Netmap, Outcome, Redirect, Snat

SERVER = "8.8.8.8"


def engine(*rules: Any, offsets: tuple[int, ...] = (), **sysctl: int) -> Engine:
    settings = {"nf_conntrack_buckets": 512} | {"nf_conntrack_" + name: value for name, value in sysctl.items()}
    return Engine(rules, settings, choices=Draws(1, offsets=offsets))


def send(box: Engine, src: str, sport: int, dst: str, dport: int, proto: int = UDP, **more: Any) -> Outcome:
    """One new packet of a protocol with ports, at a time when nothing expires."""
    build = {TCP: packets.tcp, UDP: packets.udp, packets.UDPLITE: packets.udplite}[proto]
    return box.process(ip(src, dst, proto, build(sport, dport, **more)), 1000.0)


def ends(outcome: Outcome) -> tuple[str, int, str, int]:
    """Source and destination of what came out."""
    (src, dst), (sport, dport) = packets.addresses(outcome.packet), packets.ports(outcome.packet)
    return src, sport, dst, dport


# ── the pool's address ──────────────────────────────────────────────────────────────────────────────

SOURCE_POOLS = [
    ("198.51.100.10-198.51.100.20", False, "10.0.0.2", "8.8.8.8", "198.51.100.14"),
    ("198.51.100.10-198.51.100.20", False, "10.0.0.2", "8.8.4.4", "198.51.100.10"),
    ("198.51.100.10-198.51.100.20", False, "10.0.0.2", "1.1.1.1", "198.51.100.18"),
    ("198.51.100.10-198.51.100.20", False, "10.0.0.2", "9.9.9.9", "198.51.100.16"),
    ("198.51.100.10-198.51.100.20", True, "10.0.0.2", "8.8.8.8", "198.51.100.20"),
    ("198.51.100.10-198.51.100.20", True, "10.0.0.2", "1.1.1.1", "198.51.100.20"),
    ("2001:db8:b::10-2001:db8:b::20", False, "2001:db8:a::2", "2001:db8:ffff::9", "2001:db8:b::13"),
    ("2001:db8:b::10-2001:db8:b::20", False, "2001:db8:a::2", "2600::1", "2001:db8:b::1e"),
    (
        "2001:db8:b::-2001:db8:b:1:ffff:ffff:ffff:ffff",
        *(False, "2001:db8:a::2", "2600::1", "2001:db8:b:1::d2eb:92da"),
    ),
    (
        "2001:db8:b::-2001:db8:b:1:ffff:ffff:ffff:ffff",
        *(True, "2001:db8:a::2", "2600::1", "2001:db8:b:0:5f7:4680:5f7:4680"),
    ),
]


@pytest.mark.parametrize(("pool", "persistent", "client", "server", "chosen"), SOURCE_POOLS)
def test_the_address_from_a_pool_is_the_kernels(
    pool: str, persistent: bool, client: str, server: str, chosen: str
) -> None:
    box = engine(Snat(pool, persistent=persistent))
    for sport in (4444, 5555):  # ports play no part
        assert ends(send(box, client, sport, server, 53)) == (chosen, sport, server, 53)


def test_the_address_from_a_destination_pool_is_the_kernels() -> None:
    box = engine(Dnat("10.0.0.5-10.0.0.8"))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", 80)) == ("203.0.113.5", 999, "10.0.0.8", 80)


# ── keep, share, class of the port ──────────────────────────────────────────────────────────────────


def test_the_source_port_is_kept_while_its_answers_are_nobody_elses() -> None:
    box = engine(Masquerade("203.0.113.1"))
    for number in range(50):  # many clients, one public port, as many servers
        outcome = send(box, f"10.0.0.{number}", 4444, f"192.0.2.{number}", 53)
        assert ends(outcome)[:2] == ("203.0.113.1", 4444)


# current port, start offset that is drawn, port that comes out
PORT_CLASSES = [
    (100, 0, 1), (100, 510, 511), (100, 511, 1), (100, 65535, 65535 % 511 + 1), (0, 7, 8), (511, 20, 21),
    (512, 0, 600), (512, 423, 1023), (512, 424, 600), (600, 1, 601), (1023, 104, 704),
    (1024, 1, 1025), (1024, 64511, 65535), (1024, 64513, 1025), (65535, 65535, 2047),
]  # fmt: skip


@pytest.mark.parametrize("proto", [TCP, UDP, packets.UDPLITE])
@pytest.mark.parametrize(("current", "offset", "chosen"), PORT_CLASSES)
def test_a_taken_port_is_replaced_within_its_class(proto: int, current: int, offset: int, chosen: int) -> None:
    box = engine(Masquerade("203.0.113.1"), offsets=(offset,), checksum=0)
    assert ends(send(box, "10.0.0.2", current, SERVER, 53, proto))[1] == current
    assert ends(send(box, "10.0.0.3", current, SERVER, 53, proto))[1] == chosen


def test_the_search_goes_up_from_its_start_and_wraps() -> None:
    box = engine(Masquerade("203.0.113.1"), offsets=(510,))
    for port in (511, 1):
        send(box, "10.0.0.2", port, SERVER, 53)
    assert ends(send(box, "10.0.0.3", 1, SERVER, 53))[1] == 2  # 511 and 1 are taken


def test_a_mapping_is_shared_by_all_flows_of_one_source() -> None:
    """Endpoint-independent mapping (RFC 4787 REQ-1): the port once given is given again for other servers."""
    box = engine(Masquerade("203.0.113.1"), offsets=(54408,))
    send(box, "10.0.0.2", 4444, SERVER, 53)
    assert ends(send(box, "10.0.0.3", 4444, SERVER, 53))[1] == 55432
    for server in ("1.1.1.1", "9.9.9.9"):
        assert ends(send(box, "10.0.0.3", 4444, server, 53))[1] == 55432
    assert ends(send(box, "10.0.0.3", 4445, "1.1.1.1", 53))[1] == 4445
    assert ends(send(box, "10.0.0.3", 4444, "1.1.1.1", 53, TCP))[1] == 4444  # another protocol, another source


def test_an_inside_port_in_the_range_is_kept_and_another_is_not() -> None:
    box = engine(Snat("203.0.113.1", protocol="udp", ports="5000-5003"), offsets=(2,))
    assert ends(send(box, "10.0.0.2", 5001, SERVER, 53))[:2] == ("203.0.113.1", 5001)
    assert ends(send(box, "10.0.0.2", 4444, SERVER, 53))[:2] == ("203.0.113.1", 5002)


def test_random_does_not_keep_even_a_free_port() -> None:
    box = engine(Masquerade("203.0.113.1", random=True), offsets=(1, 2))
    assert ends(send(box, "10.0.0.2", 4444, SERVER, 53))[1] == 1025
    assert ends(send(box, "10.0.0.2", 4444, "1.1.1.1", 53))[1] == 1026  # nor is a mapping shared


def test_a_source_already_in_the_range_stays_as_it_is() -> None:
    box = engine(Snat("198.51.100.10-198.51.100.20"))
    outcome = send(box, "198.51.100.12", 4444, SERVER, 53)
    assert ends(outcome)[:2] == ("198.51.100.12", 4444) and not outcome.rewritten


def test_min_and_max_of_a_port_range_may_be_swapped() -> None:
    box = engine(Snat("203.0.113.1", protocol="udp", ports="5003-5000"), offsets=(0,))
    assert ends(send(box, "10.0.0.2", 4444, SERVER, 53))[1] == 5000


def test_a_taken_identifier_is_replaced_by_any_other() -> None:
    box = engine(Masquerade("203.0.113.1"), offsets=(65535,))
    for client, identifier in (("10.0.0.2", 7), ("10.0.0.3", 65535)):
        outcome = box.process(ip(client, SERVER, ICMP, packets.icmp(8, 0, 7)), 0.0)
        assert int.from_bytes(outcome.packet[24:26], "big") == identifier


@pytest.mark.parametrize("proto", [ESP, GRE, 4, 33])
def test_what_has_no_ports_cannot_be_told_apart_and_is_dropped(proto: int) -> None:
    box = engine(Masquerade("203.0.113.1"))
    for client, verdict in (("10.0.0.2", "ACCEPT"), ("10.0.0.3", "DROP")):
        assert box.process(ip(client, SERVER, proto, bytes(16)), 0.0).verdict == verdict
    assert box.process(ip("10.0.0.3", "1.1.1.1", proto, bytes(16)), 0.0).verdict == "ACCEPT"
    assert (box.count(), box.stats.insert_failed, box.stats.drop) == (2, 1, 1)


def test_sctp_ports_are_chosen_as_others_are() -> None:
    box = engine(Masquerade("203.0.113.1"), offsets=(5,))
    for client, port in (("10.0.0.2", 4444), ("10.0.0.3", 1029)):
        init = packets.sctp(4444, 80, 0, packets.chunk(1, (7).to_bytes(4, "big") + bytes(12)))
        assert packets.ports(box.process(ip(client, SERVER, SCTP, init), 0.0).packet)[0] == port


# ── destinations ────────────────────────────────────────────────────────────────────────────────────


def test_a_destination_range_fills_up_from_its_low_end() -> None:
    box = engine(Dnat("10.0.0.5", protocol="udp", ports="50-60"))
    for public, port in ((7000, 50), (7001, 51), (7002, 52)):
        assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", public)) == ("203.0.113.5", 999, "10.0.0.5", port)
    assert ends(send(box, "203.0.113.5", 1000, "198.51.100.1", 7000))[3] == 50


def test_a_destination_port_inside_the_range_is_kept() -> None:
    box = engine(Dnat("10.0.0.5", protocol="udp", ports="50-60"))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", 55))[3] == 55
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.2", 55))[3] == 50


def test_a_random_destination_port_is_drawn() -> None:
    box = engine(Dnat("10.0.0.5", protocol="udp", ports="50-60", random=True), offsets=(13,))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", 55))[3] == 52


@pytest.mark.parametrize(
    ("public", "port"), [(8000, 50), (8007, 57), (8010, 60), (8011, 50), (7999, 65535 % 11 + 50)]
)
def test_a_shifted_range_maps_its_base_to_the_first_port(public: int, port: int) -> None:
    box = engine(Dnat("10.0.0.5", protocol="udp", ports="50-60", base=8000))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", public))[3] == port


def test_a_shifted_range_does_not_keep_a_port_inside_it() -> None:
    box = engine(Dnat("10.0.0.5", protocol="udp", ports="50-60", base=55))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", 55))[3] == 50


def test_redirect_changes_the_port_and_the_address_it_is_given() -> None:
    box = engine(Redirect(3128, protocol="tcp", dport=80, address="10.0.0.1"))
    assert ends(send(box, "10.0.0.2", 999, SERVER, 80, TCP))[2:] == ("10.0.0.1", 3128)
    assert ends(send(box, "10.0.0.2", 999, SERVER, 81, TCP))[2:] == (SERVER, 81)


def test_redirect_without_an_address_only_changes_the_port() -> None:
    box = engine(Redirect("3128-3129", protocol="tcp", dport=80))
    assert ends(send(box, "10.0.0.2", 999, SERVER, 80, TCP))[2:] == (SERVER, 3128)


def test_netmap_keeps_the_host_bits_and_the_ports() -> None:
    outward, inward = (
        Netmap("198.51.100.0/24", source="10.1.2.0/24"),
        Netmap("10.1.2.0/24", destination="192.0.2.0/24"),
    )
    box = engine(outward, inward)
    assert ends(send(box, "10.1.2.77", 999, SERVER, 53))[:2] == ("198.51.100.77", 999)
    assert ends(send(box, "203.0.113.5", 999, "192.0.2.200", 80))[2:] == ("10.1.2.200", 80)
    six = engine(Netmap("2001:db8:1::/48", source="fd00:1::/48"))
    assert ends(send(six, "fd00:1:0:7::9", 9, "2600::1", 53))[0] == "2001:db8:1:7::9"


def test_a_hairpin_is_translated_on_both_sides() -> None:
    box = engine(Dnat("10.0.0.5", destination="198.51.100.1", protocol="tcp", dport=8080, ports=80),
                 Masquerade("10.0.0.1", source="10.0.0.0/24", destination="10.0.0.0/24"))  # fmt: skip
    outcome = send(box, "10.0.0.2", 4444, "198.51.100.1", 8080, TCP)
    assert ends(outcome) == ("10.0.0.1", 4444, "10.0.0.5", 80)
    conn = outcome.conn
    assert conn is not None
    assert (conn.original.dst, conn.original.dport) == ("198.51.100.1", 8080)
    assert (conn.answer.src, conn.answer.sport, conn.answer.dst, conn.answer.dport) == (
        *("10.0.0.5", 80),
        *("10.0.0.1", 4444),
    )
    answer = box.process(ip("10.0.0.5", "10.0.0.1", TCP, packets.tcp(80, 4444, "SA", ack=1)), 1000.0)
    assert ends(answer) == ("198.51.100.1", 8080, "10.0.0.2", 4444)


# ── null bindings ───────────────────────────────────────────────────────────────────────────────────


def test_a_null_binding_changes_a_source_port_that_two_destination_mappings_made_collide() -> None:
    """No rule asks for it: 999 is of the class 512..1023, whose new ports start at 600."""
    box = engine(Dnat("10.0.0.5", protocol="udp", ports=80), offsets=(104,))
    assert ends(send(box, "203.0.113.5", 999, "198.51.100.1", 7000)) == ("203.0.113.5", 999, "10.0.0.5", 80)
    outcome = send(box, "203.0.113.5", 999, "198.51.100.1", 7001)
    assert ends(outcome) == ("203.0.113.5", 704, "10.0.0.5", 80)
    back = box.process(ip("10.0.0.5", "203.0.113.5", UDP, packets.udp(80, 704)), 1000.0)
    assert ends(back) == ("198.51.100.1", 7001, "203.0.113.5", 999)


def test_without_rules_nothing_is_bound_and_without_hooks_nothing_is_decided() -> None:
    for box, done in ((engine(), True), (Engine(seed=1), False)):
        conn = send(box, "10.0.0.2", 999, SERVER, 53).conn
        assert conn is not None
        names = conn.to_dict()["status"]
        assert ("SRC_NAT_DONE" in names, "DST_NAT_DONE" in names) == (done, done)
        assert "SRC_NAT" not in names and "DST_NAT" not in names


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_rule_that_matches_decides() -> None:
    box = engine(
        Snat("203.0.113.1", source="10.0.0.0/24", destination="!192.0.2.0/24"),
        Snat("203.0.113.2", protocol="tcp", dport="80-90"),
        Snat("203.0.113.3", out_iface="wan+"),
        Snat("203.0.113.4", source=["10.9.0.0/16", "10.8.0.1"]),
    )
    for src, dst, dport, proto, out, expected in (
        ("10.0.0.2", SERVER, 80, TCP, None, "203.0.113.1"),
        ("10.0.0.2", "192.0.2.1", 80, TCP, None, "203.0.113.2"),
        ("10.0.0.2", "192.0.2.1", 91, TCP, None, "10.0.0.2"),
        ("10.0.0.2", "192.0.2.1", 91, TCP, "wan0", "203.0.113.3"),
        ("10.0.0.2", "192.0.2.1", 91, UDP, "lan0", "10.0.0.2"),
        ("10.9.1.1", SERVER, 53, UDP, None, "203.0.113.4"),
        ("10.8.0.1", SERVER, 53, UDP, None, "203.0.113.4"),
        ("10.8.0.2", SERVER, 53, UDP, None, "10.8.0.2"),
    ):
        l4 = packets.tcp(999, dport) if proto == TCP else packets.udp(999, dport)
        outcome = box.process(ip(src, dst, proto, l4), 0.0, out_iface=out)
        assert ends(outcome)[0] == expected, (src, dst, dport, out)
        box.flush()


def test_source_rules_see_what_destination_rules_made() -> None:
    box = engine(Snat("203.0.113.1", destination="10.0.0.5"), Dnat("10.0.0.5", destination="198.51.100.1"))
    assert ends(send(box, "192.0.2.9", 999, "198.51.100.1", 80)) == ("203.0.113.1", 999, "10.0.0.5", 80)


def test_invalid_packets_leave_untranslated() -> None:
    box = engine(Masquerade("203.0.113.1"))
    packet = ip("10.0.0.2", SERVER, TCP, packets.tcp(999, 80, "FA"))
    outcome = box.process(packet, 0.0)
    assert (outcome.ctinfo, outcome.packet) == ("INVALID", packet)


def test_a_masqueraded_flow_that_leaves_elsewhere_ends_and_begins_anew() -> None:
    box = engine(Masquerade("203.0.113.1", out_iface="wan0"), Masquerade("198.51.100.1", out_iface="wan1"))
    query = ip("10.0.0.2", SERVER, UDP, packets.udp(999, 53))
    results = [box.process(query, 0.0, out_iface=out) for out in ("wan0", "wan0", "wan1", "wan1")]
    assert [outcome.verdict for outcome in results] == ["ACCEPT", "ACCEPT", "DROP", "ACCEPT"]
    assert results[2].reason == "masquerade_interface"
    assert [ends(results[at])[0] for at in (0, 1, 3)] == ["203.0.113.1", "203.0.113.1", "198.51.100.1"]


def test_a_plain_snat_flow_keeps_its_mapping_on_every_interface() -> None:
    box = engine(Snat("203.0.113.1", out_iface="wan0"), Snat("198.51.100.1", out_iface="wan1"))
    query = ip("10.0.0.2", SERVER, UDP, packets.udp(999, 53))
    sources = [ends(box.process(query, 0.0, out_iface=out))[0] for out in ("wan0", "wan1")]
    assert sources == ["203.0.113.1", "203.0.113.1"]


# ── when nothing is free ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_flow_without_a_free_port_is_dropped_and_leaves_nothing(proto: int) -> None:
    box = engine(Snat("203.0.113.1", protocol=proto, ports="5000-5003"))
    verdicts = [send(box, f"10.0.0.{number}", 4444, SERVER, 53, proto).verdict for number in range(6)]
    assert verdicts == ["ACCEPT"] * 4 + ["DROP"] * 2
    assert (box.count(), box.stats.insert_failed, box.stats.drop) == (4, 2, 2)
    assert send(box, "10.0.0.9", 4444, SERVER, 53, proto).reason == "clash"
    box.check()


def test_a_dropped_flow_sends_no_event_and_its_packet_does_not_count() -> None:
    box = engine(Snat("203.0.113.1", protocol="udp", ports=5000))
    events = box.events
    send(box, "10.0.0.2", 4444, SERVER, 53)
    outcome = send(box, "10.0.0.3", 4444, SERVER, 53)
    assert (outcome.verdict, outcome.packets, outcome.counted) == ("DROP", (), False)
    assert [event.type for event in events] == ["NEW"]


def filled(first: int, last: int, proto: int = UDP) -> Engine:
    """A box whose range of public ports is taken completely."""
    box = engine(Snat("203.0.113.1", protocol=proto, ports=(first, last)))
    for port in range(first, last + 1):
        assert send(box, "10.0.0.2", port, SERVER, 53, proto).verdict == "ACCEPT"
    box._choices.asked.clear()  # type: ignore[union-attr]
    box.stats.found = 0
    return box


@pytest.mark.parametrize(("size", "draws", "probes"), [
    (1, 1, 1), (15, 1, 15), (128, 1, 128), (129, 5, 128 + 64 + 32 + 16 + 8), (400, 5, 128 + 64 + 32 + 16 + 8),
])  # fmt: skip
def test_the_search_gives_up_after_ever_shorter_rounds(size: int, draws: int, probes: int) -> None:
    box = filled(10000, 9999 + size)
    assert send(box, "10.0.0.3", 4444, SERVER, 53).verdict == "DROP"
    assert (box._choices.asked["offset"], box.stats.found) == (draws, probes)  # type: ignore[union-attr]


# ── port reuse by eviction ──────────────────────────────────────────────────────────────────────────


def play(box: Engine, client: str, sport: int, lines: str, now: float = 1000.0) -> list[Outcome]:
    """A TCP conversation with SERVER:80 behind the box: `> S 999 0`, direction, flags, seq, ack."""
    outcomes = []
    conn = None
    for line in lines.split(","):
        direction, flags, seq, ack = line.split()
        if direction == ">":
            packet = ip(client, SERVER, TCP, packets.tcp(sport, 80, flags, int(seq), int(ack)))
        else:
            assert conn is not None
            back = conn.answer
            packet = ip(back.src, back.dst, TCP, packets.tcp(80, back.dport, flags, int(seq), int(ack)))
        outcomes.append(box.process(packet, now))
        conn = outcomes[-1].conn
    return outcomes


TO_TIME_WAIT = "> S 999 0,< SA 4999 1000,> A 1000 5000,> FA 1000 5000,< FA 5000 1001,> A 1001 5001"
TO_CLOSE = "> S 999 0,< SA 4999 1000,> A 1000 5000,> R 1000 0"
EVICTIONS = [  # what the first flow did, sequence number of the second's SYN, is the port taken over?
    ("in TIME_WAIT, overtaken", TO_TIME_WAIT, 90000, True),
    ("in TIME_WAIT, by one", TO_TIME_WAIT, 1002, True),
    ("in TIME_WAIT, level", TO_TIME_WAIT, 1001 - 1, False),
    ("in TIME_WAIT, behind", TO_TIME_WAIT, 500, False),
    ("closed by a RST", TO_CLOSE, 90000, True),
    ("in SYN_SENT", "> S 999 0", 90000, False),
    ("established", "> S 999 0,< SA 4999 1000,> A 1000 5000", 90000, False),
    ("in LAST_ACK", "> S 999 0,< SA 4999 1000,> A 1000 5000,> FA 1000 5000,< FA 5000 1001", 90000, False),
]


@pytest.mark.parametrize(("name", "before", "seq", "evicted"), EVICTIONS, ids=[row[0] for row in EVICTIONS])
def test_a_finished_connection_gives_its_port_to_a_syn_that_is_ahead(
    name: str, before: str, seq: int, evicted: bool
) -> None:
    box = engine(Masquerade("203.0.113.1", protocol="tcp", ports=5000))
    play(box, "10.0.0.2", 4444, before)
    (second,) = play(box, "10.0.0.3", 4444, f"> S {seq} 0")
    assert (second.verdict == "ACCEPT") == evicted
    assert box.count() == 1
    (conn,) = box.conns()
    assert conn.original.src == ("10.0.0.3" if evicted else "10.0.0.2")
    assert (box.stats.insert_failed, box.stats.drop) == ((0, 0) if evicted else (1, 1))
    box.check()


def test_only_the_last_32_probes_of_a_round_evict() -> None:
    box = engine(Masquerade("203.0.113.1", protocol="tcp", ports="5000-5039"), offsets=(3, *range(39), 10))
    play(box, "10.0.0.2", 4444, TO_TIME_WAIT)
    for number in range(39):
        (_, *_) = play(box, f"10.0.1.{number}", 4444, TO_TIME_WAIT)
    assert box.count() == 40
    (outcome,) = play(box, "10.0.0.3", 4444, "> S 90000 0")
    # forty attempts: the first eight, ports 5010 to 5017, only look
    assert ends(outcome)[1] == 5018
    assert box.count() == 40
