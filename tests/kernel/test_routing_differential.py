"""Random addresses, routes and links, step by step in a namespace and in a `Fib`; then: where does this packet go?

Each step must be accepted or refused by both; afterwards `ip route get` is asked for many packets, made here and
coming in, and must name the same kind, device, gateway, source and redirect.

CONNTRACK_ROUTE_SEEDS says how many configurations there shall be.

Source: ip-route(8), ip-address(8).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from random import Random
from typing import Any

import pytest
from harness import available
from namespace import visit
from packets import UDP, ip, udp
from plain_box import KernelBox

from conntrack.netfilter.routing import Fib, Route

SEEDS = int(os.environ.get("CONNTRACK_ROUTE_SEEDS", "40"))
QUESTIONS = 14  # a family

_NETWORKS = {
    4: ("10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "10.0.0.0/25", "172.16.0.0/12", "0.0.0.0/0", "10.0.0.2/32")
    + ("198.51.100.0/26", "127.1.0.0/16", "10.0.0.1/32", "240.0.0.0/4", "224.0.0.0/4", "239.1.0.0/16"),
    6: ("2001:db8::/32", "2001:db8:1::/48", "fd00:1::/64", "::/0", "fd00:1::5/128", "2600::/12", "fe80::/10")
    + ("ff0e::/16", "fd00:1::/128"),
}
_ADDRESSES = {
    4: ("10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/16", "198.51.100.1/24", "192.0.2.9/31", "192.0.2.77/32")
    + ("10.0.0.129/25", "169.254.3.1/16 scope link", "10.0.0.5/8 brd +", "127.0.0.9/8", "0.1.0.1/24")
    + ("198.51.100.77/24 brd 198.51.100.200",),
    6: ("fd00:1::1/64", "fd00:1::2/64", "2001:db8:2::1/64", "2001:db8:2::5/128", "fe80::1/64", "fd00:2::1/127")
    + ("2002:1::1/48", "fd00:1:0:0:8000::1/65"),
}
_GATEWAYS = {
    4: ("10.0.0.2", "10.0.0.9", "198.51.100.254", "10.1.0.7", "192.0.2.8", "10.0.0.1", "172.20.0.1", "10.0.0.255")
    + ("224.0.0.5", "8.8.8.8"),
    6: ("fd00:1::2", "fd00:1::9", "fe80::9", "2001:db8:2::7", "fd00:1::1", "2001:db8:5::1", "ff02::1"),
}
_OTHERS = {
    4: ("127.0.0.1", "255.255.255.255", "0.0.0.0", "0.0.0.9", "8.8.8.8", "224.0.0.1"),
    6: ("::1", "::", "ff02::1", "ff02::2", "ff05::2", "2600::7"),
}
_REJECTS = ("unreachable", "prohibit", "blackhole", "throw")
_KINDS = ("unicast", "local", "broadcast", "multicast", "anycast", *_REJECTS, "")
_OFTEN = (2, 1.2, 1, 0.4, 0.4, 0.7, 0.7, 0.7, 0.7, 8)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(available() is not None, reason=available() or ""),
]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_configurations_route_as_the_kernel_does(seed: int) -> None:
    random = Random(f"routes {seed}")
    kernel = KernelBox({"in0": [], "out0": []}, ())
    fib = Fib({"in0": [], "out0": []}, sysctl=_forwarding())
    try:
        steps = []
        for _ in range(random.randrange(4, 16)):
            command, ours = _step(random, fib)
            theirs, mine = _refusal(lambda command=command: kernel.run(*command)), _refusal(ours)  # type: ignore[misc]
            steps.append(" ".join(command))
            assert bool(theirs) == bool(mine), f"{steps}\nkernel: {theirs}\nours: {mine}"
        for family in (4, 6):
            for _ in range(QUESTIONS):
                _ask(random, kernel, fib, family, steps)
    finally:
        kernel.close()


def _forwarding() -> dict[str, int]:
    return {
        f"net.ipv{family}.conf.{device}.forwarding": 1
        for family in (4, 6)
        for device in ("all", "default", "lo", "in0", "out0")
    }


def _refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


# ── steps ───────────────────────────────────────────────────────────────────────────────────────────


def _step(random: Random, fib: Fib) -> tuple[list[str], Callable[[], object]]:
    """(the command, the same for a Fib)."""
    which = random.random()
    if which < 0.35:
        text = random.choice(_ADDRESSES[random.choice((4, 4, 6))])
        device, present = random.choice(("in0", "out0", "in0", "out0", "lo")), random.random() < 0.75
        command = ["ip", "address", "add" if present else "del", *text.split(), "dev", device]
        if ":" in text and present:
            command.append("nodad")
        return command, lambda: fib.set_address(device, text, present)
    if which < 0.85:
        family = random.choice((4, 4, 6))
        verb = random.choices(("add", "replace", "append", "del"), (8, 1, 1, 1.5))[0]
        text = f"-{family} {verb} {_route(random, family)}"
        words = text.split()
        return ["ip", words[0], "route", *words[1:]], lambda: fib.set_route(text)
    device, up = random.choice(("in0", "out0")), random.random() < 0.5
    return ["ip", "link", "set", device, "up" if up else "down"], lambda: fib.set_link(device, up)


def _route(random: Random, family: int) -> str:
    kind = random.choices(_KINDS, _OFTEN)[0]
    words = [kind] if kind else []
    words.append(random.choice(_NETWORKS[family]))

    def perhaps(chance: float, *more: str) -> None:
        if random.random() < chance:
            words.extend(more)

    if kind not in _REJECTS:
        perhaps(0.5, "via", random.choice(_GATEWAYS[family]))
        perhaps(0.7, "dev", random.choice(("in0", "out0", "in0", "out0", "lo")))
        perhaps(0.25, "src", random.choice(_ADDRESSES[family]).split("/")[0])
        perhaps(0.08, "onlink")
        perhaps(0.08, "scope", random.choice(("link", "host", "global")))
    perhaps(0.3, "metric", random.choice(("1", "5", "100", "256", "1024")))
    perhaps(0.15, "mtu", random.choice(("1400", "1300")))
    perhaps(0.1, "table", random.choice(("local", "main")))
    perhaps(0.2, "proto", random.choice(("static", "kernel")))
    return " ".join(words)


# ── questions ───────────────────────────────────────────────────────────────────────────────────────


def _ask(random: Random, kernel: KernelBox, fib: Fib, family: int, steps: list[str]) -> None:
    destination, source = _address(random, family), _address(random, family)
    how = random.random()
    words = [destination]
    iface = random.choice(("in0", "out0"))
    if how > 0.55:  # coming in
        if not fib.interfaces[iface].up:
            return
        words += ["from", source, "iif", iface]
        ours = fib.input(_packed(source), _packed(destination), iface)
    else:
        packed = b""
        if how < 0.25:
            words += ["from", source]
            packed = _packed(source) if any(_packed(source)) else b""
        device = iface if 0.15 < how < 0.35 else ""
        words += ["oif", device] if device else []
        ours = fib.output(_packed(destination), packed, device, bound=True)
    theirs = _route_get(kernel, family, words)
    if theirs is None:
        # IPv6: `ip` cannot show a multicast route for a packet that comes in
        assert ours.why or ours.kind == "multicast", f"{steps}\n{words}\nkernel: refused\nours: {ours}"
        return
    if ours.why in ("no_source", "no_member") or (ours.why and theirs.get("type") in _REJECTS):
        return  # `ip route get` shows the way; a packet would find no source address, no member, or a reject
    assert _told(theirs, words) == _answer(ours, words), f"{steps}\n{words}\nkernel: {theirs}\nours: {ours}"


def _route_get(kernel: KernelBox, family: int, words: list[str]) -> dict[str, Any] | None:
    with visit(kernel._namespace):
        done = subprocess.run(["ip", f"-{family}", "-j", "route", "get", *words], text=True, capture_output=True)
    return None if done.returncode else json.loads(done.stdout)[0]


def _told(got: dict[str, Any], words: list[str]) -> dict[str, Any]:
    kind = got.get("type", "unicast")
    told = {"kind": kind, "gateway": got.get("gateway", "")}
    if "iif" not in words or kind == "unicast":
        told["device"] = got.get("dev")
    if "from" not in words:
        told["source"] = got.get("prefsrc", "")
    if "iif" in words and ":" not in words[0] and kind == "unicast":
        told["redirect"] = "redirect" in got.get("cache", [])
    return told


def _answer(route: Route, words: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {"kind": route.kind, "gateway": _text(route.gateway)}
    if "iif" not in words or route.kind == "unicast":
        answer["device"] = route.iface
    if "from" not in words:
        answer["source"] = _text(route.source)
    if "iif" in words and ":" not in words[0] and route.kind == "unicast":
        answer["redirect"] = route.redirect
    return answer


def _address(random: Random, family: int) -> str:
    """An address that means something in some configuration."""
    which = random.random()
    if which < 0.4:
        network = ip_network(random.choice(_NETWORKS[family]))
        last = network.num_addresses - 1
        return str(network[random.choice((0, min(random.randrange(1 << 20), last), last))])
    if which < 0.75:
        interface = ip_interface(random.choice(_ADDRESSES[family]).split()[0])
        network = interface.network
        return str(random.choice((interface.ip, network.network_address, network.broadcast_address)))
    return random.choice(_GATEWAYS[family] + _OTHERS[family])


def _packed(text: str) -> bytes:
    return ip_address(text).packed


def _text(packed: bytes) -> str:
    return str(ip_address(packed)) if packed else ""


# ── types of addresses ──────────────────────────────────────────────────────────────────────────────

_BOX = {
    "in0": ["10.0.0.1/24", "10.9.0.1/16 brd +", "fd00:1::1/64", "fe80::1/64"],
    "out0": ["198.51.100.1/24", "2001:db8:2::1/64"],
}
_ROUTES = (
    *("default dev out0", "-6 default dev out0", "unreachable 9.0.0.0/24", "prohibit 9.0.1.0/24"),
    *("blackhole 9.0.2.0/24", "local 192.0.2.7 dev in0", "local 203.0.113.0/24 dev lo", "203.0.113.128/25 dev in0"),
    *("broadcast 192.0.2.9 dev out0", "broadcast 192.0.2.10 dev in0 table main", "-6 unreachable 2600:1::/32"),
    *("-6 blackhole 2600:3::/32", "-6 local 2001:db8:99::/48 dev lo", "-6 anycast 2600:7::7 dev in0"),
)
_TYPES = {
    "iptables": ("UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"),
    "ip6tables": ("UNSPEC", "UNICAST", "LOCAL", "ANYCAST", "MULTICAST", "UNREACHABLE"),
}
_TYPED = {
    "iptables": ("10.0.0.1", "10.0.0.9", "10.0.0.0", "10.0.0.255", "10.9.255.255", "198.51.100.1", "198.51.100.255")
    + ("127.0.0.1", "127.255.255.255", "255.255.255.255", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1")
    + ("240.0.0.1", "8.8.8.8", "9.0.0.1", "9.0.1.1", "9.0.2.1", "192.0.2.7", "192.0.2.9", "192.0.2.10")
    + ("203.0.113.1", "203.0.113.200", "203.0.113.255"),
    "ip6tables": ("::", "fd00:1::1", "fd00:1::", "fd00:1::9", "2001:db8:2::1", "2001:db8:2::", "2001:db8:2::9")
    + ("fe80::1", "fe80::9", "fe80::", "ff02::1", "ff0e::1", "2600::1", "2600:1::1", "2600:3::1")
    + ("2001:db8:99::1", "2600:7::7", "::ffff:1.2.3.4"),
}


@pytest.mark.parametrize("limit", [False, True], ids=["any device", "limit-iface-in"])
@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
def test_addresses_have_the_types_that_the_addrtype_match_sees(program: str, limit: bool) -> None:
    kernel, fib = KernelBox(_BOX, _ROUTES), Fib(_BOX, _ROUTES, sysctl=_forwarding())
    rule = (program, "-t", "raw", "-A", "PREROUTING", "-i", "in0")
    for name in _TYPES[program]:
        kernel.run(*rule, "-m", "addrtype", "--dst-type", name, *(("--limit-iface-in",) if limit else ()))
    kernel.run(*rule, "-j", "DROP")
    try:
        for text in _TYPED[program]:
            kernel.run(program, "-t", "raw", "-Z")
            kernel.send(ip("fd00:1::2" if ":" in text else "10.0.0.2", text, UDP, udp(1, 2)), "in0")
            lines = kernel.run(program, "-t", "raw", "-vnxL", "PREROUTING").splitlines()
            seen = {
                line.split("dst-type ")[1].split()[0] for line in lines if "dst-type" in line and _counted(line)
            }
            assert seen == fib.address_type(_packed(text), "in0" if limit else None), text
    finally:
        kernel.close()


def _counted(line: str) -> bool:
    return int(line.split()[0]) > 0
