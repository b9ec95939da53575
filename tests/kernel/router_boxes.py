"""The boxes that router comparisons use, their random settings, and what of a packet is drawn by chance.

One rule: whatever the kernel draws, and every time of day, is the same after `blank`.

Sources: RFC 791 (timestamp option), RFC 792 (timestamp reply), ip-sysctl.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from random import Random

from plain_box import KernelBox, Out

UNLIMITED = {
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.icmp.ratelimit": 0,
    "net.ipv4.icmp_msgs_per_sec": 10**6,  # its price is drawn: out of the way
    "net.ipv4.icmp_msgs_burst": 10**6,
}
BOXES = (
    {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]},
    {
        "in0": ["10.0.0.1/24", "10.0.0.2/24", "10.9.0.1/16 brd +", "fd00:1::1/64", "fd00:1::2/64", "fe80::1/64"],
        "out0": ["198.51.100.1/24", "2001:db8:2::1/64", "fe80::2/64"],
    },
    {
        "in0": ["10.0.0.1/24", "fd00:1::1/64"],
        "out0": [
            "198.51.100.1/31",
            "10.0.0.200/32",
            "169.254.1.1/16 scope link",
            "2001:db8:2::1/127",
            "2600::7/128",
        ],
    },
    {"in0": [], "out0": ["198.51.100.1/24", "2001:db8:2::1/64", "fd00:1::1/128"]},
    {"in0": ["fe80::1/64"], "out0": ["fe80::1/64", "2001:db8:2::1/64"]},
)
_BOTH = (
    *(("rp_filter", (0, 1, 2), 0.3), ("accept_local", (0, 1), 0.2), ("accept_source_route", (0, 1), 0.6)),
    *(("send_redirects", (0, 1), 0.3), ("shared_media", (0, 1), 0.3), ("route_localnet", (0, 1), 0.15)),
    ("bc_forwarding", (0, 1), 0.2),
)


# what REJECT rules say, IPv4 and IPv6
REJECTS = (
    *(("icmp-net-unreachable", "icmp6-no-route"), ("icmp-host-unreachable", "icmp6-adm-prohibited")),
    *(("icmp-proto-unreachable", "icmp6-addr-unreachable"), ("icmp-port-unreachable", "icmp6-port-unreachable")),
    *(("icmp-net-prohibited", "icmp6-policy-fail"), ("icmp-host-prohibited", "icmp6-reject-route")),
    *(("icmp-admin-prohibited", "tcp-reset"), ("tcp-reset", "icmp6-port-unreachable")),
)


def rejecting(kernel: KernelBox, words: tuple[str, str]) -> None:
    """REJECT rules in FORWARD and INPUT, but for lo, with these words behind --reject-with."""
    for program, word in zip(("iptables", "ip6tables"), words, strict=True):
        protocol = ("-p", "tcp") if word == "tcp-reset" else ()
        for chain in ("FORWARD", "INPUT"):
            kernel.run(program, "-A", chain, "!", "-i", "lo", *protocol, "-j", "REJECT", "--reject-with", word)


def random_settings(random: Random) -> dict[str, int]:
    """Settings that change what a router does; `all.forwarding` first, as its write reaches the devices."""
    settings = dict(UNLIMITED)

    def perhaps(name: str, values: tuple[int, ...], chance: float) -> None:
        if random.random() < chance:
            settings[name] = random.choice(values)

    perhaps("net.ipv6.conf.all.forwarding", (0,), 0.1)
    for device in ("all", "in0", "out0"):
        for name, values, chance in _BOTH:
            perhaps(f"net.ipv4.conf.{device}.{name}", values, chance)
    for device in ("in0", "out0"):
        perhaps(f"net.ipv4.conf.{device}.forwarding", (0,), 0.1)
        perhaps(f"net.ipv6.conf.{device}.forwarding", (0,), 0.1)
        perhaps(f"net.ipv6.conf.{device}.force_forwarding", (1,), 0.1)
        perhaps(f"net.ipv6.conf.{device}.hop_limit", (33,), 0.2)
    for name in ("echo_ignore_all", "echo_ignore_multicast", "echo_ignore_anycast", "error_anycast_as_unicast"):
        perhaps(f"net.ipv6.icmp.{name}", (1,), 0.15)
    perhaps("net.ipv6.anycast_src_echo_reply", (1,), 0.2)
    perhaps("net.ipv4.icmp_errors_use_inbound_ifaddr", (1,), 0.3)
    perhaps("net.ipv4.icmp_echo_ignore_all", (1,), 0.1)
    perhaps("net.ipv4.icmp_echo_ignore_broadcasts", (0,), 0.4)
    perhaps("net.ipv4.ip_default_ttl", (99,), 0.2)
    return settings


def accepted(box: dict[str, list[str]], texts: Iterable[str]) -> Iterator[str]:
    """Those routes that this box can have, as the kernel judges."""
    kernel = KernelBox(box, ())
    for text in texts:
        words = text.split()
        try:
            kernel.run("ip", *(words[:1] if words[0] == "-6" else ()), "route", "add", *words[words[0] == "-6" :])
        except OSError:
            continue
        yield text
    kernel.close()


# ── what is drawn, and what time it is ──────────────────────────────────────────────────────────────


def blank(out: Out) -> list[tuple[str, str]]:
    """By device, as two devices cannot be read in the order of time."""
    return sorted(((device, _still(bytearray(octets)).hex()) for device, octets in out), key=lambda row: row[0])


def _still(octets: bytearray) -> bytearray:
    if octets[0] >> 4 == 6:
        octets[1] &= 0xF0
        octets[2:4] = b"\0\0"
        return octets
    octets[4:6] = octets[10:12] = b"\0\0"
    header = (octets[0] & 15) * 4
    _stop_clocks(octets, 0)
    if octets[9] == 1 and len(octets) >= header + 8:
        octets[header + 2 : header + 4] = b"\0\0"
        if octets[header] == 14:
            octets[header + 12 : header + 20] = bytes(8)
        elif octets[header] in (3, 5, 11, 12):
            _stop_clocks(octets, header + 8)
    return octets


_OWN_WORDS = {bytes(4), *(ip_address(text).packed for text in ("10.0.0.1", "10.0.0.7", "198.51.100.1"))}


def _stop_clocks(octets: bytearray, base: int) -> None:
    """Blank the times in the timestamp options of the IPv4 header at `base`: all words that are no address."""
    if base >= len(octets):
        return
    at, end = base + 20, min(base + (octets[base] & 15) * 4, len(octets))
    while at + 1 < end and octets[at]:
        size = 1 if octets[at] == 1 else octets[at + 1]
        if size < 1 or at + size > end:
            return
        if octets[at] == 0x44:
            for place in range(at + 4, at + size - 3, 4):
                if bytes(octets[place : place + 4]) not in _OWN_WORDS:
                    octets[place : place + 4] = struct.pack("!I", 0xFFFFFFFF)
        at += size
