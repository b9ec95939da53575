"""How often the box speaks; numbers from Linux 6.18.44 (kernel comparison: test_own_differential)."""

from __future__ import annotations

from itertools import pairwise

from conntrack.netfilter.ratelimit import HZ, RateLimits
from conntrack.sysctl import JIFFY, SECOND

PEER = bytes((10, 0, 0, 2))
START = 1_000_000 * SECOND


def test_six_errors_at_once_then_one_a_second() -> None:
    # seen: six answers to a burst, then one per second [icmp_ratelimit 1000]
    limits = RateLimits()
    assert [limits.allow(PEER, START, HZ) for _ in range(8)] == [True] * 6 + [False] * 2
    assert not limits.allow(PEER, START + SECOND - JIFFY, HZ)
    assert limits.allow(PEER, START + SECOND, HZ)
    assert [limits.allow(PEER, START + 60 * SECOND, HZ) for _ in range(7)] == [True] * 6 + [False]


def test_every_peer_has_its_own_purse() -> None:
    limits = RateLimits()
    assert [limits.allow(bytes((10, 0, 0, last)), START, HZ) for last in range(20)] == [True] * 20


def test_no_way_is_said_five_times_at_once() -> None:
    # seen: five "network unreachable", then none
    limits = RateLimits()
    assert [limits.allow_unreachable(PEER, START) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limits.allow_unreachable(PEER, START + SECOND)


def test_an_unlimited_error_still_empties_the_purse_of_no_way() -> None:
    # seen with icmp_ratelimit 0: time exceeded, then no "network unreachable" for a second
    limits = RateLimits()
    assert limits.allow(PEER, START, 0)
    assert not limits.allow_unreachable(PEER, START)
    assert limits.allow_unreachable(PEER, START + SECOND)


def test_within_one_tick_a_purse_too_full_stays() -> None:
    limits = RateLimits()
    assert limits.allow_unreachable(PEER, START)
    assert limits.allow(PEER, START, 0)
    assert [limits.allow_unreachable(PEER, START) for _ in range(5)] == [True] * 4 + [False]


def test_redirects_get_ever_rarer_and_end_after_nine() -> None:
    # [ip_rt_send_redirect]: 5 jiffies doubled each time; 20.48 s of silence start it anew
    limits, sent, now = RateLimits(), [], START
    for _ in range(6000):
        if limits.allow_redirect(PEER, now):
            limits.sent_redirect(PEER, now)
            sent.append((now - START) // JIFFY)
        now += JIFFY
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert gaps == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert not limits.allow_redirect(PEER, now)
    assert limits.allow_redirect(PEER, now + 21 * SECOND)


def test_all_errors_together_have_a_purse_that_fills_every_twenty_milliseconds() -> None:
    limits = RateLimits()
    spoken = 0
    while limits.any_left(START, 1000, 50):
        limits.spend(1)
        spoken += 1
    assert spoken == 50
    assert not limits.any_left(START + 16_000_000, 1000, 50)
    assert limits.any_left(START + 20_000_000, 1000, 50)
    for _ in range(20):
        limits.spend(1)
    assert not limits.any_left(START + 20_000_000, 1000, 50)
    assert not RateLimits().any_left(START, 0, 50)


def test_a_trial_puts_everything_back() -> None:
    limits = RateLimits()
    limits.allow(PEER, START, HZ)
    saved = limits.save()
    for _ in range(9):
        limits.allow(PEER, START, HZ)
        limits.spend(2)
    limits.restore(saved)
    assert limits.save() == saved
    assert [limits.allow(PEER, START, HZ) for _ in range(6)] == [True] * 5 + [False]


def test_purses_not_used_for_ten_minutes_are_forgotten_when_there_are_many() -> None:
    limits = RateLimits()
    for number in range(65537):
        limits.allow(number.to_bytes(4, "big"), START, HZ)
    assert len(limits.save()[2]) == 65537
    limits.allow(b"late", START + 601 * SECOND, HZ)
    assert len(limits.save()[2]) == 1
