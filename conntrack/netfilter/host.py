"""A Linux box in memory: interfaces, routes and rules around an engine.

    Host(interfaces, routes, rules, rules6, sysctl)        receive ─► Outcome      send ─► Outcome
         │                                                 tick ─► what time itself caused
         └─ set_rules, set_address, set_link, set_route: at run time, with the kernel's consequences

The same rules text, settings and packets give what the running kernel gives: the same packets out of the same
devices, the same table, expectations and events.  Nothing here opens a socket or reads a clock.

A Host is always a listener, as if `conntrack -E` ran on it.

Sources: nf_nat_masquerade.c (devices and addresses that go away); see `router`, `hooks`, `routing` for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .. import reasons
from ..choices import ChoiceSource
from ..conn import Conn
from ..engine import Engine
from ..expect import Expectation
from ..outcome import Outcome, Traces
from ..stats import EXPECT, KERNEL
from ..verdict import ACCEPT, DROP, HELD, UNTRACKED
from ..wire.packet import Packet, parse
from . import router
from .own import Own
from .routing import Fib
from .rules import load
from .settings import HostSysctl
from .skb import Skb
from .timeouts import TimeoutPolicy, timeout_policy

_TRACKING = "nf_conntrack"


class Host:
    """A box with interfaces, routes and rules; see the module.

    interfaces    device -> addresses: {"in0": ["10.0.0.1/24", "fd00:1::1/64"], …}
    routes        as `ip route add` takes them: ["default via 198.51.100.254 dev out0", …]
    rules, rules6 iptables-restore and ip6tables-restore text
    sysctl        initial settings by full or bare name; `host.sysctl` changes them while running
    mtu           octets that devices take, one number for all or by device (1500)
    seed, choices of what the kernel draws (see `Engine`)
    local_output  False: the box's own packets (ICMP errors, resets, echo replies) are not made
    local_input   False: packets for the box end after confirmation, nobody answers

    Raises ValueError, quoting the text, for what the kernel or its tools would refuse.

    >>> host = Host({"in0": ["10.0.0.1/24"], "out0": ["198.51.100.1/24"]}, ["default dev out0"],
    ...             rules="*nat\\n-A POSTROUTING -o out0 -j MASQUERADE\\nCOMMIT\\n")
    >>> query = bytes.fromhex("4500001c000100004011aecd0a000002c000020104d2003500082ed4")
    >>> outcome = host.receive(query, "in0", 0.0)
    >>> outcome.fate, outcome.ctinfo, [(device, octets[12:16].hex()) for device, octets in outcome.out]
    ('forwarded', 'NEW', [('out0', 'c6336401')])
    """

    def __init__(
        self,
        interfaces: Mapping[str, Sequence[str]],
        routes: Iterable[str],
        rules: str = "",
        rules6: str = "",
        sysctl: Mapping[str, int | str] | None = None,
        mtu: int | Mapping[str, int] | None = None,
        seed: int = 0,
        choices: ChoiceSource | None = None,
        local_output: bool = True,
        local_input: bool = True,
    ) -> None:
        self.engine = Engine(nat=(), seed=seed, choices=choices)
        self._events = self.engine.events
        self.engine.lost()  # from now on it keeps them
        self.sysctl = HostSysctl(self.engine.sysctl, ("lo", *interfaces), sysctl)
        self._fib = Fib(interfaces, (), mtu, self.sysctl)
        for route in _both_families(routes):
            self._fib.set_route(route)
        own = Own(self._fib, self.sysctl, self.engine.choices)
        self._router = router.Router(self.engine, self._fib, self.sysctl, own, local_output, local_input)
        self._policies: dict[str, TimeoutPolicy] = {}
        self.set_rules(rules, rules6)

    # ── packets and time ────────────────────────────────────────────────────────────────────────────

    def receive(self, packet: bytes, iface: str, now: int | float) -> Outcome:
        """A packet (L3 octets) arrives on `iface` at `now` (int nanoseconds or float seconds)."""
        device = self._fib.interfaces.get(iface)
        if device is None:
            raise ValueError(f"there is no device {iface!r}")
        before = self._begin(now)
        if not device.up:
            skb = Skb(parse(packet), iface)
            skb.fate, skb.packet.verdict, skb.packet.fault = router.IP_DROP, DROP, "link_down"
        else:
            skb = self._router.receive(packet, iface)
        return self._outcome(skb, before)

    def send(self, packet: bytes, now: int | float) -> Outcome:
        """A program of the box sends a finished packet (L3 octets, as over a raw socket with its own header)."""
        before = self._begin(now)
        return self._outcome(self._router.send(packet), before)

    def tick(self, now: int | float) -> list[Outcome]:
        """Let time pass without a packet; what that caused: at most one Outcome, with events and own packets."""
        before = self._begin(now)
        outcome = self._outcome(Skb(Packet(b"")), before)
        return [outcome] if outcome.events or outcome.out or outcome.stats else []

    def add_timeout_policy(self, name: str, family: int, protocol: str, seconds: Mapping[str, int]) -> None:
        """`nfct add timeout`: from now on rules may say `-j CT --timeout NAME` (see `timeouts`)."""
        self._policies[name] = timeout_policy(self.engine, family, protocol, seconds)

    # ── changes at run time ─────────────────────────────────────────────────────────────────────────

    def set_rules(self, rules: str | None = None, rules6: str | None = None) -> None:
        """Replace the rules of a family (None leaves it); connections stay.  After a ValueError nothing changed."""
        fresh = {4: rules, 6: rules6}
        parsed = {
            family: load(text, family, policies=self._policies)
            for family, text in fresh.items()
            if text is not None
        }
        for family, ruleset in parsed.items():
            self._router.set_rules(family, ruleset)

    def set_address(self, iface: str, address: str, present: bool = True) -> None:
        """Add an address to a device ("10.0.0.9/24"), or remove it; what is masqueraded with it then ends."""
        self._gone(iface, self._fib.set_address(iface, address, present))

    def set_link(self, iface: str, up: bool | str) -> None:
        """Set a device up or down (True, False, "up", "down"); what is masqueraded on one that goes down ends."""
        if isinstance(up, str):
            if up not in ("up", "down"):
                raise ValueError(f"link {up!r} is neither 'up' nor 'down'")
            up = up == "up"
        gone = self._fib.set_link(iface, up)
        if not up:
            self.engine.end_masqueraded(iface, None, "link")
        self._gone(iface, gone)

    def set_route(self, route: str, present: bool = True) -> None:
        """Add a route, as `ip route add` takes it, or remove it (`present` False, or "del …" in the text)."""
        self._fib.set_route(route, present)

    def _gone(self, iface: str, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self.engine.end_masqueraded(iface, address, "address")

    def flush(self) -> int:
        """`conntrack -F`: end every connection; how many there were."""
        return self.engine.flush()

    # ── looking ─────────────────────────────────────────────────────────────────────────────────────

    def conns(self) -> Iterator[Conn]:
        """The live connections, in order of creation; expired ones never."""
        return self.engine.conns()

    def expectations(self) -> Iterator[Expectation]:
        """The connections that helpers expect, in order of creation."""
        return self.engine.expectations()

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, now: int | float) -> tuple[int, ...]:
        path = self._router
        path.out, path.local, path.logs, path.invalid = [], [], [], []
        before = self.engine.stats.kernel()
        self.engine.advance(now)
        path.tell_lost()
        return before

    def _outcome(self, skb: Skb, before: tuple[int, ...]) -> Outcome:
        path = self._router
        after = self.engine.stats.kernel()
        names = KERNEL + EXPECT
        moved = {name: now - then for name, then, now in zip(names, before, after, strict=True) if now != then}
        events = tuple(self._events)
        traces = Traces(
            skb.fate, tuple(path.out), tuple(path.local), events, moved, tuple(path.logs), tuple(path.invalid)
        )
        packet = skb.packet
        if not packet.counted and not packet.fault:
            packet.fault = reasons.RULE_UNTRACKED if skb.ctinfo == UNTRACKED else reasons.NO_TRACKING
        word = ACCEPT if skb.fate in (router.FORWARDED, router.LOCAL) else packet.verdict
        octets = tuple(octets for _, octets in path.out) if skb.fate == router.FORWARDED else ()
        return Outcome(
            packet,
            octets,
            HELD if skb.fate == "held" else word,
            skb.conn,
            skb.ctinfo,
            self.engine.now,
            skb.iface or None,
            traces,
        )


def _both_families(routes: Iterable[str]) -> Iterator[str]:
    """The routes; a default route that names no family stands for both, unless one is given for IPv6.

    `ip route add default dev out0` makes the IPv4 one; on a box that is described in one breath, both are meant.
    """
    texts = list(routes)
    explicit = any(_is_default6(text) for text in texts)
    for text in dict.fromkeys(texts):
        yield text
        words = text.split()
        if words[:1] == ["default"] and "via" not in words and not explicit:
            yield f"-6 {text}"


def _is_default6(text: str) -> bool:
    words = text.split()
    default = "default" in words and ("-6" in words or any(":" in word for word in words))
    return default or "::/0" in words
