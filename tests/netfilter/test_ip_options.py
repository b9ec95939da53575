"""IPv4 options: every case with the octets that Linux 6.18.44 sent (in0 10.0.0.1/24, out0 198.51.100.1/24)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from packets import ipv4, word_sum

from conntrack.netfilter import ip_options
from conntrack.netfilter.routing import Fib
from conntrack.wire.packet import Packet, parse

# 2 h 3 min 4.005 s past midnight
NOW = (7384 * 1000 + 5) * 1_000_000
CLOCK = (7384 * 1000 + 5).to_bytes(4, "big").hex()
BOX = {"in0": ["10.0.0.1/24"], "out0": ["198.51.100.1/24"]}
FORWARDING = {f"net.ipv4.conf.{device}.forwarding": 1 for device in ("all", "lo", "in0", "out0")}
ROUTED = {"net.ipv4.conf.all.accept_source_route": 1}


def packed(text: str) -> bytes:
    return ip_address(text).packed


def arrive(
    options: str, target: str = "8.8.8.8", sysctl: dict[str, int] | None = None
) -> tuple[Packet, ip_options.Arrived, Fib]:
    fib = Fib(BOX, ["default dev out0"], sysctl={**FORWARDING, **(sysctl or {})})
    octets = bytes.fromhex(options)
    packet = parse(ipv4("10.0.0.2", target, 17, bytes(12), options=octets + bytes(-len(octets) % 4)))
    route = fib.input(packed("10.0.0.2"), packed(target), "in0")
    return packet, ip_options.receive(packet, "in0", route, fib, NOW), fib


def shown(packet: Packet) -> str:
    return bytes(packet.data[20 : packet.l4]).hex()


# fmt: off
FILLED = [  # sent, received for the box (8 octets of address or time filled in), and as it leaves by out0
    ("07070400000000",          "0707080a00000100",             "070708c633640100"),
    ("070b080102030400000000",  "070b0c010203040a00000100",     "070b0c01020304c633640100"),
    ("07070801020304",          "0707080102030400",             "0707080102030400"),
    ("440c05000000000000000000", "440c0900" + CLOCK + "00000000", "440c0900" + CLOCK + "00000000"),
    ("440c05010000000000000000", "440c0d010a000001" + CLOCK,    "440c0d010a000001" + CLOCK),
    ("441405030a00000100000000c633640100000000", "44140d030a000001" + CLOCK + "c633640100000000",
                                                 "44140d030a000001" + CLOCK + "c633640100000000"),
    ("441405030a00000700000000c633640100000000", "441405030a00000700000000c633640100000000",
                                                 "441405030a00000700000000c633640100000000"),
    ("4408091000000000",        "4408092000000000",             "4408092000000000"),
    ("94040000",                "94040000",                     "94040000"),
    ("01010100",                "01010100",                     "01010100"),
    ("00010203",                "00000000",                     "00000000"),
    ("88040000",                "88040000",                     "88040000"),
    ("99040000",                "99040000",                     "99040000"),
    ("070304",                  "07030400",                     "07030400"),
]
WRONG = [  # and the octet that the parameter problem points at
    ("0700", 20), ("0702", 21), ("07070300000000", 22), ("07090400000000", 20),   # record route
    ("0707040000000007070400000000", 27),                                         # a second one
    ("44030500", 21), ("44080400000000", 22), ("440809f000000000", 23),           # timestamp
    ("8302", 21), ("83040300", 22), ("830704080808088907040808080800", 27),       # source routes
    ("9403", 21), ("860600000001", 21), ("860a0000000101040000", 22),             # router alert, CIPSO
]
# fmt: on


@pytest.mark.parametrize(("sent", "received", "forwarded"), FILLED)
def test_the_boxs_entries_are_filled_in(sent: str, received: str, forwarded: str) -> None:
    packet, found, fib = arrive(sent)
    assert (found.reason, found.error) == ("", None)
    assert shown(packet) == received
    route = fib.input(packed("10.0.0.2"), packed("8.8.8.8"), "in0")
    ip_options.forward(packet, found.options, route, fib)
    assert shown(packet) == forwarded
    assert word_sum(bytes(packet.data[: packet.l4])) == 0xFFFF


def test_the_header_checksum_stays_the_senders_until_departure() -> None:
    packet, _, _ = arrive("07070400000000")
    assert word_sum(bytes(packet.data[: packet.l4])) != 0xFFFF


@pytest.mark.parametrize(("sent", "pointer"), WRONG)
def test_malformed_options_are_pointed_at(sent: str, pointer: int) -> None:
    _, found, _ = arrive(sent)
    assert (found.reason, found.error) == ("ip_options", (12, 0, pointer))


def test_a_source_route_is_refused_unless_all_and_the_device_accept_it() -> None:
    assert arrive("83070408080808", "10.0.0.1")[1].reason == "ip_options"
    assert arrive("83070408080808", "10.0.0.1")[1].error is None
    refused = {**ROUTED, "net.ipv4.conf.in0.accept_source_route": 0}
    assert arrive("83070408080808", "10.0.0.1", refused)[1].reason == "ip_options"


def test_a_source_route_leads_on_to_its_next_address() -> None:
    packet, found, fib = arrive("83070408080808", "10.0.0.1", ROUTED)
    assert found.reason == "" and found.route is not None and found.route.iface == "out0"
    ip_options.forward(packet, found.options, found.route, fib)
    assert shown(packet) == "830708c633640100" and bytes(packet.data[16:20]) == packed("8.8.8.8")


def test_a_strict_source_route_does_not_pass_a_box_it_does_not_name() -> None:
    assert arrive("89070408080808", "8.8.8.8", ROUTED)[1].error == (12, 0, 16)
    assert arrive("83070408080808", "8.8.8.8", ROUTED)[1].reason == ""


# fmt: off
ECHOED = [  # received at 10.0.0.1, echoed in an answer from there
    ("07070400000000",          "0707080a00000100"),
    ("440c05000000000000000000", "440c0d00" + CLOCK + CLOCK),
    ("440c05010000000000000000", "440c0d010a000001" + CLOCK),
    ("94040000",                ""),
    ("01010100",                ""),
    ("88040000",                ""),
    ("07030400",                "07030400"),
]
# fmt: on


@pytest.mark.parametrize(("sent", "expected"), ECHOED)
def test_answers_echo_route_and_time(sent: str, expected: str) -> None:
    packet, found, _ = arrive(sent, "10.0.0.1")
    own = packed("10.0.0.1")
    echoed = ip_options.echo(packet.data, found.options, lambda: own, lambda address: address != own, NOW)
    assert echoed is not None and echoed.hex() == expected


def test_an_answer_goes_back_the_source_route() -> None:
    # seen: 10.0.0.1 > 8.8.8.8 with 830b040a000009c6336476 for a packet from 198.51.100.118 by 10.0.0.9 and 8.8.8.8
    octets = bytes.fromhex("830b0c0a0000090808080800")
    packet = parse(ipv4("198.51.100.118", "10.0.0.1", 17, bytes(8), options=octets))
    fib = Fib(BOX, ["default dev out0"], sysctl={**FORWARDING, **ROUTED})
    route = fib.input(packed("198.51.100.118"), packed("10.0.0.1"), "out0")
    found = ip_options.receive(packet, "out0", route, fib, NOW)
    assert ip_options.first_hop(packet.data, found.options) == packed("8.8.8.8")
    echoed = ip_options.echo(packet.data, found.options, lambda: packed("10.0.0.1"), lambda _: True, NOW)
    assert echoed is not None and echoed.hex() == "830b040a000009c633647600"
