"""Routes by text, look-ups, what addresses and links take along, and what becomes of a packet that comes in."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from conntrack.netfilter.routing import Fib, Route

BOX = {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}
DEFAULTS = ["default dev out0", "-6 default dev out0"]
FORWARDING = {
    f"net.ipv{family}.conf.{device}.forwarding": 1 for family in (4, 6) for device in ("all", "lo", "in0", "out0")
}


def packed(text: str) -> bytes:
    return ip_address(text).packed


def box(*routes: str, sysctl: dict[str, int] | None = None, mtu: int | None = None) -> Fib:
    return Fib(BOX, [*DEFAULTS, *routes], mtu, {**FORWARDING, **(sysctl or {})})


def way(route: Route) -> tuple[str, str, str]:
    """(kind or reason, device, gateway)."""
    return route.why or route.kind, route.iface, str(ip_address(route.gateway)) if route.gateway else ""


# fmt: off
WRITTEN = [
    ("10.1.0.0/16 via 10.0.0.2",                       "10.1.2.3",     ("unicast", "in0", "10.0.0.2")),
    ("add 10.1.0.0/16 via inet 10.0.0.2 dev in0",      "10.1.2.3",     ("unicast", "in0", "10.0.0.2")),
    ("ip route add 192.0.2.0/24 dev in0 src 10.0.0.1 metric 100 mtu 1400 proto static scope link",
                                                       "192.0.2.9",    ("unicast", "in0", "")),
    ("192.0.2.0/24 via 203.0.113.1 dev in0 onlink",    "192.0.2.9",    ("unicast", "in0", "203.0.113.1")),
    ("unreachable 10.9.0.0/16",                        "10.9.0.1",     ("unreachable", "", "")),
    ("prohibit 10.9.0.0/16",                           "10.9.0.1",     ("prohibit", "", "")),
    ("blackhole 10.9.0.0/16",                          "10.9.0.1",     ("blackhole", "", "")),
    ("throw 10.9.0.0/16",                              "10.9.0.1",     ("no_route", "", "")),
    ("local 192.0.2.7 dev in0",                        "192.0.2.7",    ("local", "lo", "")),
    ("broadcast 192.0.2.255 dev in0",                  "192.0.2.255",  ("broadcast", "in0", "")),
    ("multicast 239.0.0.0/8 dev in0",                  "239.1.1.1",    ("multicast", "in0", "")),
    ("2001:db8:9::/48 via fd00:1::2 dev in0",          "2001:db8:9::1", ("unicast", "in0", "fd00:1::2")),
    ("2001:db8:9::/48 via fe80::9 dev in0",            "2001:db8:9::1", ("unicast", "in0", "fe80::9")),
    ("-6 unreachable 2001:db8:9::/48",                 "2001:db8:9::1", ("unreachable", "", "")),
    ("-6 throw 2001:db8:9::/48",                       "2001:db8:9::1", ("no_route", "", "")),
    ("local 2001:db8:9::7 dev lo",                     "2001:db8:9::7", ("local", "lo", "")),
]
# fmt: on


@pytest.mark.parametrize(("text", "destination", "expected"), WRITTEN)
def test_routes_are_written_as_people_write_them(text: str, destination: str, expected: tuple[str, ...]) -> None:
    assert way(box(text).output(packed(destination))) == expected


# fmt: off
REFUSED = [
    ("",                                          "no destination"),
    ("10.0.0.0/33 dev in0",                       "10.0.0.0/33"),
    ("10.1.2.3/16 dev in0",                       "has host bits set"),
    ("10.1.0.0/16",                               "No such device"),
    ("10.1.0.0/16 dev eth7",                      "no device 'eth7'"),
    ("10.1.0.0/16 via 172.16.0.1",                "Nexthop has invalid gateway"),
    ("10.1.0.0/16 via 10.0.0.255",                "Nexthop has invalid gateway"),
    ("10.1.0.0/16 via 10.0.0.2 dev out0",         "Nexthop has invalid gateway"),
    ("10.1.0.0/16 dev in0 onlink",                "onlink without a gateway"),
    ("10.1.0.0/16 dev in0 src 192.0.2.1",         "Invalid prefsrc"),
    ("10.1.0.0/16 dev in0 metric many",           "metric 'many'"),
    ("10.1.0.0/16 dev in0 table 100",             "only local and main"),
    ("10.1.0.0/16 nexthop via 10.0.0.2",          "'nexthop' is not supported"),
    ("10.1.0.0/16 via inet6 fe80::1 dev in0",     "is no IPv6 prefix"),
    ("10.1.0.0/16 dev in0 colour red",            "'colour' is not understood"),
    ("10.1.0.0/16 dev",                           "without a value"),
    ("unreachable 10.1.0.0/16 dev in0",           "neither gateway nor device"),
    ("local 10.1.0.1 via 10.0.0.2",               "can not have a gateway"),
    ("default via 198.51.100.9",                  "File exists"),
    ("2001:db8:9::/48 via 2001:db8:8::1",         "No route to host"),
    ("2001:db8:9::/48 via fd00:1::1",             "Gateway can not be a local address"),
    ("2001:db8:9::/48 via fe80::1",               "needs a device"),
    ("2001:db8:9::/48 via ff02::1 dev in0",       "Invalid gateway address"),
    ("2001:db8:9::/48 dev in0 src 2001:db8::9",   "Invalid source"),
    ("del 10.77.0.0/16",                          "No such process"),
]
# fmt: on


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_the_kernel_refuses_is_refused_with_its_reason(text: str, reason: str) -> None:
    fib = Fib(BOX, ["default via 198.51.100.254", "-6 default via 2001:db8:2::fe"])
    with pytest.raises(ValueError, match="route") as caught:
        fib.set_route(text)
    assert reason in str(caught.value) and repr(text) in str(caught.value)


def test_the_longest_prefix_wins_then_the_lower_metric_then_the_older_route() -> None:
    fib = box("10.1.0.0/16 via 10.0.0.2", "10.1.2.0/24 via 10.0.0.3 metric 10", "10.1.2.0/24 via 10.0.0.4 metric 5")
    fib.set_route("append 10.1.2.0/24 via 10.0.0.5 metric 5")
    assert way(fib.output(packed("10.1.2.9")))[2] == "10.0.0.4"
    assert way(fib.output(packed("10.1.3.9")))[2] == "10.0.0.2"
    fib.set_route("replace 10.1.2.0/24 via 10.0.0.6 metric 5")
    assert way(fib.output(packed("10.1.2.9")))[2] == "10.0.0.6"
    fib.set_route("del 10.1.2.0/24 metric 5")
    assert way(fib.output(packed("10.1.2.9")))[2] == "10.0.0.5"
    fib.set_route("10.1.2.0/24", present=False)
    assert way(fib.output(packed("10.1.2.9")))[2] == "10.0.0.3"


def test_a_longer_main_route_hides_a_local_one_in_ipv4_but_not_in_ipv6() -> None:
    # one trie for both tables [fib_trie.c]; IPv6 asks table local first
    fib = box("local 192.0.2.0/24 dev lo", "192.0.2.128/25 dev in0")
    for text in ("local 2001:db8:9::/48 dev lo", "2001:db8:9::/64 dev in0"):
        fib.set_route(text)
    assert way(fib.output(packed("192.0.2.200")))[:2] == ("unicast", "in0")
    assert way(fib.output(packed("192.0.2.1")))[:2] == ("local", "lo")
    assert way(fib.output(packed("2001:db8:9::1")))[:2] == ("local", "lo")
    assert not fib.is_local(packed("192.0.2.200"))


def test_an_address_brings_its_routes_and_takes_them_away() -> None:
    fib = Fib({"in0": []}, sysctl=FORWARDING)
    assert fib.output(packed("192.0.2.9")).why == "no_route"
    fib.set_address("in0", "192.0.2.1/24")
    fib.set_route("10.0.0.0/8 dev in0 src 192.0.2.1")
    fib.set_route("172.16.0.0/12 via 192.0.2.254")
    assert [way(fib.output(packed(text)))[0] for text in ("192.0.2.1", "192.0.2.9", "192.0.2.255")] == [
        "local",
        "unicast",
        "broadcast",
    ]
    assert fib.set_address("in0", "192.0.2.1/24", present=False) == (packed("192.0.2.1"),)
    # the last IPv4 address of a device takes every route over it along
    for text in ("192.0.2.1", "192.0.2.9", "10.1.1.1", "172.16.1.1"):
        assert fib.output(packed(text)).why == "no_route", text


def test_a_gateway_stays_when_only_its_subnets_address_goes() -> None:
    fib = Fib({"in0": ["192.0.2.1/24", "10.0.0.1/24"]}, ["172.16.0.0/12 via 192.0.2.254"])
    fib.set_address("in0", "192.0.2.1/24", present=False)
    assert way(fib.output(packed("172.16.1.1"))) == ("unicast", "in0", "192.0.2.254")


def test_ipv6_routes_lose_a_source_that_goes_but_stay() -> None:
    fib = Fib({"in0": ["fd00:1::1/64", "fd00:1::2/64"]}, ["2001:db8::/32 dev in0 src fd00:1::1"])
    assert fib.output(packed("2001:db8::1")).source == packed("fd00:1::1")
    fib.set_address("in0", "fd00:1::1/64", present=False)
    assert fib.output(packed("2001:db8::1")).source == packed("fd00:1::2")


def test_a_link_that_goes_down_takes_routes_and_ipv6_addresses_along() -> None:
    fib = box("10.1.0.0/16 via 10.0.0.2")
    assert fib.set_link("in0", False) == (packed("fd00:1::1"),)
    assert way(fib.output(packed("10.0.0.1"))) == ("local", "lo", "")  # still the box's own
    assert fib.output(packed("10.0.0.9")).iface == "out0"
    assert fib.set_link("in0", True) == ()
    assert fib.output(packed("10.0.0.9")).iface == "in0"  # the subnet is back
    assert fib.output(packed("10.1.0.9")).iface == "out0"  # what was set by hand is not
    assert not fib.is_own(packed("fd00:1::1"))
    assert fib.set_link("in0", True) == ()


def test_an_unknown_device_is_named() -> None:
    fib = box()
    for change in (lambda: fib.set_link("eth7", True), lambda: fib.set_address("eth7", "10.0.0.1/8")):
        with pytest.raises(ValueError, match="eth7"):
            change()


def test_a_route_knows_its_mtu() -> None:
    fib = box("10.1.0.0/16 dev in0 mtu 1400", "10.2.0.0/16 dev in0 mtu lock 1300", mtu=1450)
    mtus = [fib.output(packed(text)).mtu for text in ("10.1.0.1", "10.2.0.1", "10.0.0.9", "10.0.0.1")]
    assert mtus == [1400, 1300, 1450, 65536]
    assert Fib(BOX, mtu={"in0": 9000}).output(packed("10.0.0.9")).mtu == 9000
    with pytest.raises(ValueError, match="mtu 20 of in0"):
        Fib(BOX, mtu=20)


# ── coming in: as the kernel did (kernel comparison: test_routing_differential) ────────────────────────

_RP, _LOCALNET = "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.in0.route_localnet"
_OFF4, _OFF6 = {"net.ipv4.conf.in0.forwarding": 0}, {"net.ipv6.conf.all.forwarding": 0}
_FORCED = {**_OFF6, "net.ipv6.conf.in0.force_forwarding": 1}


# fmt: off
SORTED = [
    ("10.0.0.2",        "8.8.8.8",         "in0",  {},          ("unicast", "out0")),
    ("10.0.0.2",        "10.0.0.1",        "in0",  {},          ("local", "lo")),
    ("10.0.0.2",        "198.51.100.1",    "in0",  {},          ("local", "lo")),
    ("10.0.0.2",        "10.0.0.255",      "in0",  {},          ("broadcast", "in0")),
    ("10.0.0.2",        "198.51.100.255",  "in0",  {},          ("broadcast", "in0")),
    ("10.0.0.2",        "255.255.255.255", "in0",  {},          ("broadcast", "in0")),
    ("0.0.0.0",         "255.255.255.255", "in0",  {},          ("broadcast", "in0")),
    ("0.0.0.0",         "0.0.0.0",         "in0",  {},          ("broadcast", "in0")),
    ("10.0.0.2",        "224.0.0.1",       "in0",  {},          ("multicast", "in0")),
    ("10.0.0.2",        "224.0.0.5",       "in0",  {},          ("no_member", "in0")),
    ("10.0.0.2",        "240.0.0.1",       "in0",  {},          ("unicast", "out0")),
    ("0.0.0.0",         "8.8.8.8",         "in0",  {},          ("martian_source", "in0")),
    ("127.0.0.1",       "8.8.8.8",         "in0",  {},          ("martian_source", "in0")),
    ("224.0.0.1",       "8.8.8.8",         "in0",  {},          ("martian_source", "in0")),
    ("255.255.255.255", "8.8.8.8",         "in0",  {},          ("martian_source", "in0")),
    ("10.0.0.2",        "127.0.0.1",       "in0",  {},          ("martian_destination", "in0")),
    ("10.0.0.2",        "0.0.0.0",         "in0",  {},          ("martian_destination", "in0")),
    ("10.0.0.1",        "8.8.8.8",         "in0",  {},          ("local_source", "in0")),
    ("10.0.0.1",        "8.8.8.8",         "in0",  {"net.ipv4.conf.in0.accept_local": 1}, ("unicast", "out0")),
    ("10.0.0.255",      "8.8.8.8",         "in0",  {},          ("unicast", "out0")),
    ("10.0.0.255",      "8.8.8.8",         "in0",  {_RP: 1},    ("martian_source", "in0")),
    ("7.7.7.7",         "198.51.100.9",    "in0",  {},          ("unicast", "out0")),
    ("7.7.7.7",         "198.51.100.9",    "in0",  {_RP: 1},    ("rp_filter", "in0")),
    ("7.7.7.7",         "198.51.100.9",    "in0",  {_RP: 2},    ("unicast", "out0")),
    ("7.7.7.7",         "10.0.0.9",        "out0", {_RP: 1},    ("unicast", "in0")),
    ("10.0.0.2",        "127.0.0.1",       "in0",  {_LOCALNET: 1}, ("local", "lo")),
    ("10.0.0.2",        "8.8.8.8",         "in0",  _OFF4,       ("forwarding_off", "in0")),
    ("fd00:1::2",       "2600::1",         "in0",  {},          ("unicast", "out0")),
    ("fd00:1::2",       "fd00:1::1",       "in0",  {},          ("local", "lo")),
    ("fd00:1::2",       "fd00:1::",        "in0",  {},          ("anycast", "lo")),
    ("fd00:1::2",       "ff02::1",         "in0",  {},          ("multicast", "in0")),
    ("fd00:1::2",       "ff05::2",         "in0",  {},          ("multicast", "in0")),
    ("fd00:1::2",       "ff02::1:ff00:1",  "in0",  {},          ("no_member", "in0")),
    ("fd00:1::2",       "2600::1",         "in0",  _OFF6,       ("forwarding_off", "in0")),
    ("fd00:1::2",       "2600::1",         "in0",  _FORCED,     ("unicast", "out0")),
]
# fmt: on


@pytest.mark.parametrize(("source", "destination", "iface", "sysctl", "expected"), SORTED)
def test_packets_coming_in_are_sorted(
    source: str, destination: str, iface: str, sysctl: dict[str, int], expected: tuple[str, str]
) -> None:
    assert way(box(sysctl=sysctl).input(packed(source), packed(destination), iface))[:2] == expected


def test_refusals_name_the_icmp_error_that_they_cause() -> None:
    fib = box("unreachable 9.0.0.0/24", "prohibit 9.0.1.0/24", "blackhole 9.0.2.0/24", "throw 9.0.3.0/24")
    errors = [fib.input(packed("10.0.0.2"), packed(f"9.0.{part}.1"), "in0").error for part in range(4)]
    assert errors == [(3, 1), (3, 13), None, (3, 0)]
    fib = box("-6 unreachable 2600:1::/32", "-6 prohibit 2600:2::/32", "-6 blackhole 2600:3::/32")
    errors = [fib.input(packed("fd00:1::2"), packed(f"2600:{part}::1"), "in0").error for part in (1, 2, 3)]
    assert errors == [(1, 0), (1, 1), None]


# fmt: off
REDIRECTS = [
    ("198.51.100.9", "8.8.8.8",       "out0", {}, True),
    ("198.51.100.9", "198.51.100.77", "out0", {}, True),
    ("10.0.0.9",     "8.8.8.8",       "in0",  {}, False),
    ("10.9.0.9",     "10.0.0.9",      "in0",  {}, False),   # the sender is not on that link
    ("198.51.100.9", "8.8.8.8",       "out0", {"net.ipv4.conf.all.send_redirects": 0,
                                               "net.ipv4.conf.out0.send_redirects": 0}, False),
    ("198.51.100.9", "8.8.8.8",       "out0", {"net.ipv4.conf.out0.send_redirects": 0}, True),  # all is or'ed
]
# fmt: on


@pytest.mark.parametrize(("source", "destination", "iface", "sysctl", "redirect"), REDIRECTS)
def test_a_packet_that_leaves_where_it_came_from_calls_for_a_redirect(
    source: str, destination: str, iface: str, sysctl: dict[str, int], redirect: bool
) -> None:
    assert box(sysctl=sysctl).input(packed(source), packed(destination), iface).redirect is redirect


# The kernel's addrtype match over these addresses [shared sheet: 31 IPv4 and 14 IPv6 addresses checked].
# fmt: off
TYPES = [
    ("10.0.0.1",        None,   {"LOCAL"}),
    ("10.0.0.1",        "in0",  {"LOCAL"}),
    ("10.0.0.1",        "out0", {"UNICAST"}),
    ("127.255.255.254", None,   {"LOCAL"}),
    ("127.255.255.255", None,   {"BROADCAST"}),
    ("10.0.0.255",      None,   {"BROADCAST"}),
    ("255.255.255.255", None,   {"BROADCAST"}),
    ("0.0.0.0",         None,   {"BROADCAST"}),
    ("224.0.0.5",       None,   {"MULTICAST"}),
    ("10.0.0.0",        None,   {"UNICAST"}),
    ("240.0.0.1",       None,   {"UNICAST"}),
    ("0.1.2.3",         None,   {"UNICAST"}),
    ("9.0.0.1",         None,   {"UNICAST"}),     # unreachable
    ("192.0.2.7",       None,   {"LOCAL"}),
    ("::",              None,   {"UNSPEC", "ANYCAST"}),
    ("fd00:1::1",       None,   {"UNICAST", "LOCAL"}),
    ("fd00:1::",        None,   {"UNICAST", "ANYCAST"}),
    ("fd00:1::9",       None,   {"UNICAST"}),
    ("2600:1::1",       None,   {"UNICAST", "UNREACHABLE"}),
    ("ff02::1",         None,   {"MULTICAST"}),
]
# fmt: on


@pytest.mark.parametrize(("address", "iface", "types"), TYPES)
def test_address_types_are_those_of_the_addrtype_match(address: str, iface: str | None, types: set[str]) -> None:
    fib = box("unreachable 9.0.0.0/24", "local 192.0.2.7 dev in0", "-6 unreachable 2600:1::/32")
    assert fib.address_type(packed(address), iface) == types


def test_a_setting_that_changes_is_felt_at_once() -> None:
    class Counting(dict[str, int]):
        writes = 0

    sysctl = Counting(FORWARDING)
    fib = Fib(BOX, DEFAULTS, sysctl=sysctl)
    question = packed("7.7.7.7"), packed("198.51.100.9"), "in0"
    assert fib.input(*question).why == ""
    sysctl["net.ipv4.conf.in0.rp_filter"] = 1
    sysctl.writes += 1
    assert fib.input(*question).why == "rp_filter"
