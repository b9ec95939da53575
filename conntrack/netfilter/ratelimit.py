"""How often the box speaks: the rate limits of ICMP errors and redirects.

    global   one bucket for all errors of both families; how much of it an error costs is drawn: 0, 1 or 2
    peer     per destination: a token a jiffy; an error costs icmp_ratelimit, six can be saved up
             the same purse pays for "no route" (a second each, five can be saved up) and times redirects

One rule: time is jiffies of 4 ms, as limits are counted in the kernel; a purse that never spoke is full.

Sources: icmp.c (icmp_global_allow, icmp_global_consume), inetpeer.c (inet_peer_xrlim_allow), route.c (ip_error,
ip_rt_send_redirect) of Linux 6.18.
"""

from __future__ import annotations

from typing import Any, Final

from ..sysctl import JIFFY

HZ: Final = 250
_BURST: Final = 6  # XRLIM_BURST_FACTOR
_ERROR_COST, _ERROR_BURST = HZ, 5 * HZ  # net.ipv4.route.error_cost, error_burst
_LOAD, _NUMBER = HZ // 50, 9  # net.ipv4.route.redirect_load, redirect_number
_SILENCE: Final = (HZ // 50) << (_NUMBER + 1)  # net.ipv4.route.redirect_silence
_OLD: Final = 600 * HZ  # inet_peer_maxttl: a purse not used for so long is forgotten
_MANY: Final = 65536  # purses, from which on old ones are looked for (inet_peer_threshold)


class RateLimits:
    """All purses; a `Restorable`, so that a trial can put them back."""

    __slots__ = ("_credit", "_peers", "_stamp")

    def __init__(self) -> None:
        self._credit = 0
        self._stamp: int | None = None  # jiffy of the last refill
        self._peers: dict[bytes, tuple[int, int, int]] = {}  # address -> tokens, jiffy of last use, redirects sent

    def any_left(self, now: int, per_second: int, burst: int) -> bool:
        """Is there credit for one more error of any kind? [icmp_global_allow]"""
        if self._credit > 0:
            return True
        jiffy = now // JIFFY
        past = HZ if self._stamp is None else min(jiffy - self._stamp, HZ)
        if past < HZ // 50:
            return False
        more = per_second * past // HZ
        if not more:
            return False
        self._stamp = jiffy
        self._credit = min(self._credit + more, burst)
        return True

    def spend(self, credits: int) -> None:
        """One error was sent and cost `credits`."""
        self._credit -= credits

    def allow(self, peer: bytes, now: int, cost: int) -> bool:
        """May an error go to `peer`?  `cost` in jiffies. [inet_peer_xrlim_allow]"""
        jiffy = now // JIFFY
        tokens, last, redirects = self._purse(peer, jiffy)
        if jiffy != last:  # within one jiffy even a purse too full for this price stays as it is
            tokens = min(tokens + jiffy - last, _BURST * cost)
        good = tokens >= cost
        self._peers[peer] = (tokens - cost if good else tokens, jiffy, redirects)
        return good

    def allow_unreachable(self, peer: bytes, now: int) -> bool:
        """May `peer` be told that there is no way (IPv4)? [ip_error]"""
        jiffy = now // JIFFY
        tokens, last, redirects = self._purse(peer, jiffy)
        tokens = min(tokens + jiffy - last, _ERROR_BURST)
        good = tokens >= _ERROR_COST
        self._peers[peer] = (tokens - _ERROR_COST if good else tokens, jiffy, redirects)
        return good

    def allow_redirect(self, peer: bytes, now: int) -> bool:
        """May `peer` be told a better way (IPv4)?  Ever more seldom, nine times at most. [ip_rt_send_redirect]

        Ask `sent_redirect` afterwards.
        """
        jiffy = now // JIFFY
        tokens, last, redirects = self._purse(peer, jiffy)
        if jiffy > last + _SILENCE:
            tokens, redirects = 0, 0
        if redirects >= _NUMBER:
            self._peers[peer] = tokens, jiffy, redirects
            return False
        self._peers[peer] = tokens, last, redirects
        return redirects == 0 or jiffy > last + (_LOAD << redirects)

    def sent_redirect(self, peer: bytes, now: int) -> None:
        """One was tried: the clock of the next starts."""
        tokens, _, redirects = self._peers[peer]
        self._peers[peer] = tokens, now // JIFFY, redirects + 1

    def turns(self) -> list[int]:
        """Moments (ns) at which a peer that was silenced, or told a better way, may be told again."""
        found = []
        for tokens, last, redirects in self._peers.values():
            if tokens < _ERROR_COST:
                found.append((last + _ERROR_COST - tokens) * JIFFY)
            if redirects:
                found.append((last + (_LOAD << redirects) + 1) * JIFFY)
        return found

    def _purse(self, peer: bytes, jiffy: int) -> tuple[int, int, int]:
        known = self._peers.get(peer)
        if known is not None:
            return known
        if len(self._peers) >= _MANY:
            self._peers = {name: row for name, row in self._peers.items() if jiffy - row[1] < _OLD}
        return 0, jiffy - 60 * HZ, 0

    def save(self) -> tuple[Any, ...]:
        """All of it."""
        return self._credit, self._stamp, dict(self._peers)

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to `saved`."""
        self._credit, self._stamp, peers = saved
        self._peers = dict(peers)
