"""The whole box by its face: fates, run-time changes and their consequences, the box's own packets, records.

What is expected here was seen on Linux 6.18 (docs/host.md); the differential suite compares everything else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from packets import (
    ICMP,
    TCP,
    UDP,
    addresses,
    icmp,
    ip,
    ipv4,
    ports,
    protocol,
    sealed,
    tcp,
    udp,
    wrong_sums,
)

from conntrack.netfilter import Host
from conntrack.netfilter.rules import RuleError

INTERFACES = {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}
TRACK = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
MASQUERADE = "*nat\n-A POSTROUTING -o out0 -j MASQUERADE\nCOMMIT\n"
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "records.schema.json").read_text())
CLIENT, SERVER = "10.0.0.2", "203.0.113.5"


def box(rules: str = TRACK, rules6: str = "", **more: Any) -> Host:
    return Host(INTERFACES, ["default dev out0"], rules, rules6, **more)


def query(sport: int = 1111, payload: bytes = b"query", **more: Any) -> bytes:
    return ip(CLIENT, SERVER, UDP, udp(sport, 53, payload), **more)


def syn(sport: int = 2000) -> bytes:
    return ip(CLIENT, SERVER, TCP, tcp(sport, 80, "S", 999))


# ── fates ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_packet_on_its_way_through_leaves_with_one_hop_less() -> None:
    outcome = box().receive(query(ttl=7), "in0", 0.0)
    assert (outcome.fate, outcome.ctinfo, outcome.direction) == ("forwarded", "NEW", "original")
    assert outcome.out == (("out0", query(ttl=6)),)
    assert not outcome.rewritten and outcome.counted


def test_without_a_rule_that_asks_for_connections_there_are_none() -> None:
    host = box("*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n")
    outcome = host.receive(query(), "in0", 0.0)
    assert (outcome.fate, outcome.ctinfo, outcome.reason) == ("forwarded", "", "no_tracking")
    assert not list(host.conns())


def test_a_notrack_rule_makes_a_packet_untracked() -> None:
    host = box(TRACK + "*raw\n-A PREROUTING -p udp -j NOTRACK\nCOMMIT\n")
    assert host.receive(query(), "in0", 0.0).ctinfo == "UNTRACKED"
    assert host.receive(syn(), "in0", 0.0).ctinfo == "NEW"


@pytest.mark.parametrize(
    ("rules", "fate", "ctinfo"),
    [
        ("*raw\n-A PREROUTING -p udp -j DROP\nCOMMIT\n", "held", ""),
        ("*mangle\n-A PREROUTING -p udp -j DROP\nCOMMIT\n", "dropped", "NEW"),
        ("*filter\n:FORWARD DROP\n-A FORWARD -m state --state ESTABLISHED\nCOMMIT\n", "dropped", "NEW"),
        ("*mangle\n-A POSTROUTING -p udp -j DROP\nCOMMIT\n", "dropped", "NEW"),
    ],
)
def test_where_a_rule_drops_a_packet_shows_in_its_fate(rules: str, fate: str, ctinfo: str) -> None:
    host = box(rules if "state" in rules else TRACK + rules)
    outcome = host.receive(query(), "in0", 0.0)
    assert (outcome.fate, outcome.ctinfo, outcome.out) == (fate, ctinfo, ())
    assert not list(host.conns()) and host.engine.count() == 0


def test_a_wrong_header_checksum_never_gets_to_netfilter() -> None:
    packet = bytearray(query())
    packet[10] ^= 1
    outcome = box().receive(bytes(packet), "in0", 0.0)
    assert (outcome.fate, outcome.reason, outcome.ctinfo) == ("ip_drop", "ip_checksum", "")


def test_a_full_table_drops_in_connection_tracking() -> None:
    host = box(sysctl={"nf_conntrack_max": 1})
    assert host.receive(query(1), "in0", 0.0).fate == "forwarded"
    outcome = host.receive(query(2), "in0", 0.0)
    assert (outcome.fate, outcome.reason, outcome.stats) == ("ct_drop", "table_full", {"drop": 1})


def test_fragments_are_held_until_the_datagram_is_whole() -> None:
    host = box()
    l4 = sealed(CLIENT, SERVER, UDP, udp(1111, 53, bytes(range(40))))
    first = ipv4(CLIENT, SERVER, UDP, l4[:24], fragment=0x2000)
    last = ipv4(CLIENT, SERVER, UDP, l4[24:], fragment=3)
    assert host.receive(last, "in0", 0.0).fate == "held"
    outcome = host.receive(first, "in0", 0.0)
    assert outcome.fate == "forwarded"
    assert [packet[6:8].hex() for _, packet in outcome.out] == ["2000", "0003"]


# ── the router ──────────────────────────────────────────────────────────────────────────────────────


def test_the_last_hop_is_told_to_the_sender_and_leaves_no_connection() -> None:
    host = box()
    outcome = host.receive(query(ttl=1), "in0", 0.0)
    assert (outcome.fate, outcome.reason) == ("dropped", "ttl_exceeded")
    ((device, error),) = outcome.out
    assert device == "in0" and addresses(error) == ("10.0.0.1", CLIENT) and not wrong_sums(error)
    assert error[20:22] == bytes((11, 0)) and error[28:] == query(ttl=1)
    assert not list(host.conns())


def test_a_large_packet_that_may_not_be_cut_is_answered_with_the_mtu() -> None:
    host = box(mtu={"out0": 600})
    packet = query(payload=bytes(700), fragment=0x4000)
    outcome = host.receive(packet, "in0", 0.0)
    assert (outcome.fate, outcome.reason) == ("dropped", "too_big")
    ((_, error),) = outcome.out
    assert error[20:22] == bytes((3, 4)) and int.from_bytes(error[26:28], "big") == 600


def test_a_large_packet_that_may_be_cut_leaves_in_fragments() -> None:
    outcome = box(mtu={"out0": 600}).receive(query(payload=bytes(700)), "in0", 0.0)
    assert outcome.fate == "forwarded"
    assert [(len(packet), packet[6:8].hex()) for _, packet in outcome.out] == [(596, "2000"), (152, "0048")]


def test_a_packet_for_the_box_is_delivered_and_answered() -> None:
    ping = ip(CLIENT, "10.0.0.1", ICMP, icmp(8, 0, 7, 1, b"abc"))
    outcome = box().receive(ping, "in0", 0.0)
    assert (outcome.fate, outcome.local) == ("local", (ping,))
    ((device, reply),) = outcome.out
    assert device == "in0" and addresses(reply) == ("10.0.0.1", CLIENT) and reply[20] == 0 and reply[28:] == b"abc"


@pytest.mark.parametrize("silent", [{"local_output": False}, {"local_input": False}])
def test_a_box_can_be_made_to_answer_nothing(silent: dict[str, bool]) -> None:
    host = box(**silent)
    ping = ip(CLIENT, "10.0.0.1", ICMP, icmp(8, 0, 7, 1, b"abc"))
    outcome = host.receive(ping, "in0", 0.0)
    assert (outcome.fate, outcome.local, outcome.out) == ("local", (ping,), ())
    assert len(list(host.conns())) == 1
    assert bool(host.receive(query(ttl=1), "in0", 0.0).out) == silent.get("local_output", True)


def test_a_packet_of_the_box_to_itself_makes_one_connection() -> None:
    host = box(TRACK)
    packet = ip("10.0.0.1", "10.0.0.1", UDP, udp(5, 6, b"x"))
    outcome = host.send(packet, 0.0)
    assert (outcome.fate, outcome.ctinfo, outcome.local[0]) == ("local", "NEW", packet)
    assert outcome.local[1][20:22] == bytes((3, 3))  # nobody listens, and the box tells itself so
    conns = [conn.to_dict() for conn in host.conns() if conn.proto == UDP]
    assert len(conns) == 1


def test_a_closed_port_answers_syn_with_reset() -> None:
    packet = ip(CLIENT, "10.0.0.1", TCP, tcp(2000, 80, "S", 999))
    outcome = box().receive(packet, "in0", 0.0)
    ((_, reset),) = outcome.out
    assert outcome.fate == "local" and protocol(reset) == TCP and reset[33] == 0x14
    assert int.from_bytes(reset[28:32], "big") == 1000


def test_reject_answers_and_closes() -> None:
    rules = (
        "*filter\n-A FORWARD -p tcp -m conntrack --ctstate ESTABLISHED -j REJECT --reject-with tcp-reset\n"
        "-A FORWARD -p udp -j REJECT\nCOMMIT\n"
    )
    host = box(rules)
    ((_, error),) = host.receive(query(), "in0", 0.0).out
    assert error[20:22] == bytes((3, 3)) and addresses(error) == ("10.0.0.1", CLIENT)
    host.receive(syn(), "in0", 0.0)
    answer = ip(SERVER, CLIENT, TCP, tcp(80, 2000, "SA", 5000, 1000))
    outcome = host.receive(answer, "out0", 0.0)
    ((device, reset),) = outcome.out
    assert outcome.fate == "dropped" and device == "out0"
    assert addresses(reset) == (CLIENT, SERVER) and reset[33] == 4
    (conn,) = (conn.to_dict() for conn in host.conns() if conn.proto == TCP)
    assert (conn["state"], conn["timeout"]) == ("CLOSE", 10)


# ── changes at run time ─────────────────────────────────────────────────────────────────────────────


def test_new_nat_rules_do_not_touch_connections_that_are_there() -> None:
    host = box("*nat\n-A POSTROUTING -o none -j ACCEPT\nCOMMIT\n" + TRACK)
    host.receive(query(1), "in0", 0.0)
    host.set_rules("*nat\n-A POSTROUTING -o out0 -j SNAT --to-source 198.51.100.9\nCOMMIT\n")
    assert addresses(host.receive(query(1), "in0", 1.0).out[0][1])[0] == CLIENT
    assert addresses(host.receive(query(2), "in0", 1.0).out[0][1])[0] == "198.51.100.9"


def test_masqueraded_connections_end_with_their_address_and_with_no_other() -> None:
    host = box(MASQUERADE)
    host.set_address("out0", "198.51.100.7/24")
    host.receive(query(), "in0", 0.0)
    host.set_address("out0", "198.51.100.7/24", False)
    assert len(list(host.conns())) == 1 and not host.tick(1.0)
    host.set_address("out0", "198.51.100.1/24", False)
    assert not list(host.conns())
    (outcome,) = host.tick(2.0)
    assert [event.type for event in outcome.events] == ["DESTROY"] and outcome.fate == ""


def test_masqueraded_connections_end_with_their_device() -> None:
    host = box(MASQUERADE)
    host.receive(query(), "in0", 0.0)
    host.set_link("out0", False)
    assert not list(host.conns())


def test_a_masqueraded_connection_that_leaves_elsewhere_is_killed_and_the_next_packet_begins_anew() -> None:
    interfaces = {**INTERFACES, "out1": ["192.0.2.1/24"]}
    rules = "*nat\n-A POSTROUTING -s 10.0.0.0/24 -j MASQUERADE\nCOMMIT\n"
    host = Host(interfaces, ["default via 198.51.100.254 dev out0"], rules)
    assert addresses(host.receive(query(), "in0", 0.0).out[0][1])[0] == "198.51.100.1"
    host.set_route("replace default via 192.0.2.254 dev out1")
    outcome = host.receive(query(), "in0", 1.0)
    assert (outcome.fate, outcome.reason) == ("dropped", "masquerade_interface")
    device, packet = host.receive(query(), "in0", 2.0).out[0]
    assert device == "out1" and addresses(packet)[0] == "192.0.2.1"


def test_sysctls_are_read_and_written_by_full_or_bare_name() -> None:
    host = box(sysctl={"nf_conntrack_udp_timeout": 7, "net.ipv4.conf.in0.rp_filter": 1})
    assert host.sysctl["net.netfilter.nf_conntrack_udp_timeout"] == 7
    assert host.sysctl["net/ipv4/conf/in0/rp_filter"] == 1
    host.receive(query(), "in0", 0.0)
    assert next(host.conns()).timeout() == 7
    host.sysctl["net.ipv4.ip_forward"] = 0
    assert host.sysctl["net.ipv4.conf.out0.forwarding"] == 0
    assert host.receive(query(5), "in0", 0.0).reason == "forwarding_off"
    with pytest.raises(ValueError, match="nosuch"):
        host.sysctl["net.ipv4.nosuch"] = 1


# ── helpers, records, errors ────────────────────────────────────────────────────────────────────────


def test_tftp_through_masquerade_expects_the_answer_and_takes_it_home() -> None:
    rules = MASQUERADE + "*raw\n-A PREROUTING -p udp --dport 69 -j CT --helper tftp\nCOMMIT\n"
    host = box(rules)
    read = ip(CLIENT, SERVER, UDP, udp(3000, 69, b"\0\1file\0octet\0"))
    first = host.receive(read, "in0", 0.0)
    (expected,) = [one.to_dict() for one in host.expectations()]
    assert expected["tuple"]["dst"] == "198.51.100.1" and expected["helper"] == "tftp"
    assert [event.type for event in first.events] == ["EXP_NEW", "NEW"]
    data = ip(SERVER, "198.51.100.1", UDP, udp(40000, ports(first.out[0][1])[0], b"\0\3\0\1data"))
    outcome = host.receive(data, "out0", 0.5)
    ((device, home),) = outcome.out
    assert (outcome.ctinfo, device) == ("RELATED", "in0")
    assert addresses(home) == (SERVER, CLIENT) and ports(home) == (40000, 3000)
    assert not list(host.expectations())


def test_every_outcome_is_a_valid_record() -> None:
    validator = Draft202012Validator({**SCHEMA, "$ref": "#/$defs/outcome"})
    host = box(MASQUERADE + TRACK, sysctl={"nf_conntrack_acct": 1})
    packets = [query(), syn(), query(ttl=1), b"", b"\x45", bytes(30), query()[:25], ip(CLIENT, SERVER, 50, b"")]
    packets += [ip(CLIENT, "10.0.0.1", ICMP, icmp(8, 0, 7, 1)), ip(SERVER, "198.51.100.1", TCP, tcp(80, 9, "R"))]
    outcomes = [host.receive(packet, iface, at) for at, packet in enumerate(packets) for iface in ("in0", "out0")]
    outcomes += host.tick(1000.0)
    assert not outcomes[-1].fate
    for outcome in outcomes:
        validator.validate(json.loads(json.dumps(outcome.to_dict())))


def test_what_is_not_known_is_refused_with_its_place() -> None:
    with pytest.raises(RuleError) as caught:
        box("*filter\n-A FORWARD -m nosuch --x 1 -j DROP\nCOMMIT\n")
    assert (caught.value.line, caught.value.text) == (2, "nosuch") and caught.value.column == 15
    with pytest.raises(ValueError, match="nodev"):
        box().receive(query(), "nodev", 0.0)
    with pytest.raises(ValueError, match="gateway"):
        Host(INTERFACES, ["default via 192.0.2.9"])


def test_rules_that_are_refused_leave_the_old_ones() -> None:
    host = box("*filter\n-A FORWARD -p udp -j DROP\nCOMMIT\n")
    with pytest.raises(RuleError):
        host.set_rules("*filter\n-A FORWARD -j NOSUCH\nCOMMIT\n", "")
    assert host.receive(query(), "in0", 0.0).fate == "dropped"


def test_the_same_packets_and_seed_give_the_same_bytes_and_events() -> None:
    runs = []
    for _ in range(2):
        host = box("*nat\n-A POSTROUTING -o out0 -j MASQUERADE --random\nCOMMIT\n", seed=3)
        outcomes = [host.receive(query(port), "in0", port / 10) for port in range(1000, 1050)]
        runs.append([(one.out, [event.to_dict() for event in one.events]) for one in outcomes])
    assert runs[0] == runs[1]
