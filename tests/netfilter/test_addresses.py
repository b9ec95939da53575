"""The order of addresses and which of them speaks for the box."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from conntrack.netfilter.addresses import (
    HOST,
    LINK,
    UNIVERSE,
    Interface,
    insert,
    label,
    parse_address,
    remove,
    select6,
)
from conntrack.netfilter.routing import Fib


def packed(text: str) -> bytes:
    return ip_address(text).packed


def texts(interface: Interface) -> list[str]:
    return [str(ip_address(one.local)) for one in (*interface.ipv4, *interface.ipv6)]


def holding(*addresses: str) -> Interface:
    interface = Interface("in0")
    for text in addresses:
        insert(interface, parse_address(text))
    return interface


def test_ipv4_primaries_stand_before_secondaries_in_the_order_of_their_coming() -> None:
    # seen with `ip address`: 10.0.0.2 is "secondary", and behind the later 10.1.0.1
    interface = holding("10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16")
    assert texts(interface) == ["10.0.0.1", "10.1.0.1", "10.0.0.2"]
    assert [one.secondary for one in interface.ipv4] == [False, False, True]


def test_ipv4_addresses_of_narrower_scope_stand_first() -> None:
    assert texts(holding("10.0.0.1/24", "169.254.1.1/16 scope link")) == ["169.254.1.1", "10.0.0.1"]


def test_the_secondaries_of_a_subnet_go_with_its_primary() -> None:
    interface = holding("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/25")
    gone = remove(interface, parse_address("10.0.0.1/24"))
    assert [str(ip_address(one.local)) for one in gone] == ["10.0.0.2", "10.0.0.1"]
    assert texts(interface) == ["10.0.0.3"]


def test_the_youngest_ipv6_address_stands_first_but_behind_wider_scopes() -> None:
    interface = holding("fe80::1/64", "fd00:1::1/64", "fd00:1::2/64", "fe80::2/64")
    assert texts(interface) == ["fd00:1::2", "fd00:1::1", "fe80::2", "fe80::1"]


def test_broadcast_and_scope_are_read() -> None:
    address = parse_address("10.0.0.1/24 brd + scope link")
    assert (address.broadcast, address.scope) == (packed("10.0.0.255"), LINK)
    assert parse_address("127.0.0.9/8").scope == HOST
    assert parse_address("192.0.2.1").prefix_length == 32


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/33", "10.0.0.1/24 brd here", "10.0.0.1/24 scope", "x", "10.0.0.1/24 label a"]
)
def test_an_address_that_is_not_understood_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=f"address '{text}'"):
        parse_address(text)


def test_an_address_is_there_once() -> None:
    interface = holding("10.0.0.1/24", "fd00:1::1/64")
    for text in ("10.0.0.1/24", "fd00:1::1/64"):
        with pytest.raises(ValueError, match="already"):
            insert(interface, parse_address(text))
    with pytest.raises(ValueError, match=r"no address 10\.0\.0\.9/24"):
        remove(interface, parse_address("10.0.0.9/24"))


def test_the_same_ipv4_address_with_another_prefix_is_another() -> None:
    assert texts(holding("10.0.0.1/24", "10.0.0.1/16")) == ["10.0.0.1", "10.0.0.1"]


# fmt: off
MASQUERADED = [
    ("10.0.0.9",   UNIVERSE, "10.0.0.1"),    # of the next hop's subnet
    ("10.1.0.9",   UNIVERSE, "10.1.0.1"),
    ("192.0.2.9",  UNIVERSE, "10.0.0.1"),    # of none: the first
    ("192.0.2.9",  LINK,     "169.254.1.1"), # link scope is enough: the first of all
    ("10.1.0.9",   LINK,     "10.1.0.1"),
]
# fmt: on


@pytest.mark.parametrize(("next_hop", "scope", "expected"), MASQUERADED)
def test_masquerade_prefers_the_next_hops_subnet(next_hop: str, scope: int, expected: str) -> None:
    fib = Fib({"out0": ["10.0.0.1/24", "10.1.0.1/16", "169.254.1.1/16 scope link"]})
    assert fib.select_address("out0", packed(next_hop), scope=scope) == packed(expected)


def test_a_device_without_address_speaks_with_that_of_another() -> None:
    fib = Fib({"in0": ["10.0.0.1/24"], "out0": []})
    assert fib.select_address("out0", packed("192.0.2.1")) == packed("10.0.0.1")
    assert Fib({"out0": []}).select_address("out0", packed("192.0.2.1")) == b""


# RFC 6724, 10.1: examples of default source address selection that do not need deprecated or temporary addresses.
# fmt: off
CHOSEN = [
    ("2001:db8:1::1",    ["2001:db8:3::1", "fe80::1"],                 "2001:db8:3::1"),
    ("ff05::1",          ["2001:db8:3::1", "fe80::1"],                 "2001:db8:3::1"),
    ("2001:db8:1::1",    ["2001:db8:1::1", "2001:db8:2::1"],           "2001:db8:1::1"),
    ("fe80::1",          ["fe80::2", "2001:db8:1::1"],                 "fe80::2"),
    ("2001:db8:1::1",    ["2001:db8:1::2", "2001:db8:3::2"],           "2001:db8:1::2"),
    ("2002:c633:6401::1", ["2002:c633:6401::d5e3", "2001:db8:1::2"],   "2002:c633:6401::d5e3"),
]
# fmt: on


@pytest.mark.parametrize(("destination", "candidates", "expected"), CHOSEN)
def test_ipv6_sources_are_chosen_as_rfc_6724_shows(destination: str, candidates: list[str], expected: str) -> None:
    interface = holding(*(f"{text}/64" for text in candidates))
    assert select6([interface], interface, packed(destination)) == packed(expected)


def test_an_address_of_the_outgoing_device_wins_over_one_that_looks_more_alike() -> None:
    # seen: an error to 2600::9 about a packet from in0 has the source fd00:1::1, which has another label
    here, there = holding("fd00:1::1/64"), holding("2001:db8:2::1/64")
    assert select6([here, there], here, packed("2600::9")) == packed("fd00:1::1")


# RFC 6724, 2.1, and Linux's row for ORCHID
@pytest.mark.parametrize(
    ("address", "expected"),
    [("::1", 0), ("2001:db8::1", 1), ("2002::1", 2), ("::ffff:1.2.3.4", 4), ("2001::1", 6), ("fd00::1", 5)]
    + [("fec0::1", 11), ("3ffe::1", 12), ("2001:10::1", 7)],
)
def test_labels_are_those_of_the_default_policy_table(address: str, expected: int) -> None:
    assert label(packed(address)) == expected


def test_redirect_takes_the_first_address_of_the_device() -> None:
    fib = Fib({"in0": ["10.0.0.1/24", "10.0.0.2/24", "fe80::1/64", "fd00:1::1/64"]})
    assert fib.first_address("in0", 4) == packed("10.0.0.1")
    assert fib.first_address("in0", 6, packed("2001:db8::1")) == packed("fd00:1::1")
    assert fib.first_address("in0", 6, packed("fe80::9")) == packed("fe80::1")
    assert fib.first_address("none", 4) == b""
