"""A router without rules: random packets under random settings, through the kernel and through our parts.

Which packet is answered by which, forwarded or dropped, each octet of it, how often and with which options.  What
the kernel draws is blanked (IP identification, flow label) and so are times of day.  The clock of our box is the
kernel's tick (CLOCK_MONOTONIC_COARSE), so rate limits end on the same one.

CONNTRACK_OWN_SEEDS says how many boxes there shall be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random

import pytest
from harness import available
from odd_packets import ROUTES, odd_packet
from packets import UDP, ip, udp
from plain_box import KernelBox, OurBox
from router_boxes import BOXES, REJECTS, UNLIMITED, accepted, blank, random_settings, rejecting

_TICK = 6  # CLOCK_MONOTONIC_COARSE of time.h, which Python does not name
SEEDS = int(os.environ.get("CONNTRACK_OWN_SEEDS", "8"))
PACKETS, TRIES = 1000, 5

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(available() is not None, reason=available() or ""),
]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_router_under_random_settings_does_and_says_what_the_kernel_does(seed: int) -> None:
    random = Random(f"own {seed}")
    box, settings = BOXES[seed % len(BOXES)], random_settings(random)
    routes = list(accepted(box, [text for text in ROUTES if random.random() < 0.85]))
    _compare(f"packets {seed}", lambda: (KernelBox(box, routes, settings), OurBox(box, routes, settings)), PACKETS)


@pytest.mark.parametrize("words", REJECTS, ids=lambda words: " ".join(words))
def test_reject_answers_whom_the_kernel_answers(words: tuple[str, str]) -> None:
    def boxes() -> tuple[KernelBox, OurBox]:
        kernel, ours = KernelBox(BOXES[0], ROUTES, UNLIMITED), OurBox(BOXES[0], ROUTES, UNLIMITED)
        rejecting(kernel, words)
        ours.rejects(words)
        return kernel, ours

    _compare(f"reject {words}", boxes, PACKETS // 2)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"net.ipv4.icmp_ratelimit": 200, "net.ipv6.icmp.ratelimit": 1000},
        {"net.ipv4.icmp_ratelimit": 10, "net.ipv4.icmp_ratemask": 0xFFFF, "net.ipv6.icmp.ratelimit": 300},
    ],
    ids=["default", "slower", "every type"],
)
def test_errors_and_redirects_are_sent_as_seldom_as_by_the_kernel(limits: dict[str, int]) -> None:
    settings = {"net.ipv4.icmp_msgs_per_sec": 10**6, "net.ipv4.icmp_msgs_burst": 10**6, **limits}
    routes = [*ROUTES[:3], "-6 unreachable 2600:1::/32", "-6 2600:7::/48 dev out0", "-6 2600:8::9/128 dev out0"]
    boxes = lambda: (KernelBox(BOXES[1], routes, settings), OurBox(BOXES[1], routes, settings))  # noqa: E731
    _compare(f"limits {limits}", boxes, 250, few=True)


def _compare(seed: str, boxes: Callable[[], tuple[KernelBox, OurBox]], count: int, few: bool = False) -> None:
    """Both must do the same with `count` packets.

    If a tick passed during one, nobody knows on which side of it the kernel was, and a limit may end one tick
    apart: a difference then calls for another try, with the same packets.
    """
    for _ in range(TRIES):
        difference, raced = _first_difference(Random(seed), *boxes(), count, few)
        if not raced:
            break
    assert not difference, difference


def _first_difference(random: Random, kernel: KernelBox, ours: OurBox, count: int, few: bool) -> tuple[str, bool]:
    """(what differs, did a tick pass during a packet before?); ("", False) if nothing does."""
    raced = False
    try:
        for number in range(count):
            if few and random.random() < 0.12:
                time.sleep(random.choice((0.004, 0.02, 0.1, 0.2)))
            iface, octets = _from_few(random) if few else odd_packet(random)
            now = time.clock_gettime_ns(_TICK)
            out = kernel.send(octets, iface)
            raced = raced or time.clock_gettime_ns(_TICK) != now
            theirs, mine = blank(out), blank(ours.send(octets, iface, now))
            if theirs != mine:
                return f"packet {number} on {iface}: {octets.hex()}\nkernel {theirs}\nours   {mine}", raced
    finally:
        kernel.close()
    return "", False


def _from_few(random: Random) -> tuple[str, bytes]:
    """Errors to a few hosts, again and again."""
    if random.random() < 0.5:
        source, target = random.choice(("10.0.0.9", "10.0.0.8")), random.choice(("8.8.8.8", "10.0.0.1", "9.0.0.1"))
        if random.random() < 0.3:
            target = "10.0.0.55"
        return "in0", ip(source, target, UDP, udp(1, 2), ttl=random.choice((1, 9)))
    iface = random.choice(("in0", "out0"))
    sources = ("fd00:1::9", "fd00:1::8") if iface == "in0" else ("2600:8::9", "2600:7::9", "2600::9")
    target = random.choice(("2600::5", "fd00:1::1", "2600:1::1", "fd00:1::55"))
    return iface, ip(random.choice(sources), target, UDP, udp(1, 2), hop_limit=random.choice((1, 9)))
