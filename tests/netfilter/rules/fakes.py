"""A box that has what stateless rules ask for, and remembers what they did."""

from __future__ import annotations

from conntrack import Engine
from conntrack.netfilter.routing import Fib
from conntrack.netfilter.skb import Skb

INTERFACES = {
    "in0": ("10.0.0.1/24", "fd00:1::1/64"),
    "out0": ("198.51.100.1/24", "2001:db8:b::1/64"),
}
FORWARDING = ("all", *INTERFACES)
ROUTES = ("default via 198.51.100.254 dev out0", "default via 2001:db8:b::fe dev out0")


class FakeBox:
    """engine, fib; `rejected` and `logged` hold what rules asked for."""

    def __init__(self) -> None:
        self.engine = Engine()
        forwarding = {f"net.ipv{family}.conf.{name}.forwarding": 1 for family in (4, 6) for name in FORWARDING}
        self.fib = Fib(INTERFACES, ROUTES, sysctl=forwarding)
        self.rejected: list[str] = []
        self.logged: list[dict[str, object]] = []
        self.touched: list[object] = []

    def reject(self, skb: Skb, hook: int, kind: str) -> None:
        self.rejected.append(kind)

    def log(self, skb: Skb, hook: int, record: dict[str, object]) -> None:
        self.logged.append(record)

    def touch(self, memory: object) -> None:
        self.touched.append(memory)
