"""Chance, given in: every number the kernel would draw comes from a `Choices` object.

Each method is one kind of draw.  The default hashes (seed, kind, tuple, counter of that kind), so the same seed
gives the same run on every Python version, and draws of one kind do not shift those of another.  To script a
test or to model another generator, pass an object with methods of these names to the engine; what it does not have
is drawn as by default.

Where the kernel draws: nf_nat_core.c (get_random_u16 for the port offset), nf_nat_helper.c (ports of expectations),
nf_conntrack_core.c (the chain limit, the connection id, the hash key), ip_fragment/ip6_output (identification of
new fragments).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, cast


class ChoiceSource(Protocol):
    """What an engine asks; one method per kind of draw."""

    def port_offset(self, key: bytes, proto: int) -> int:
        """Where the search for a free port starts, 0..65535."""

    def chain_limit(self, key: bytes) -> int:
        """How far above the least chain limit this insertion's limit lies, 0..29."""

    def connection_id(self, key: bytes, serial: int) -> int:
        """The 32-bit id of the connection with original tuple `key`, the `serial`-th made."""

    def expect_port(self, key: bytes) -> int:
        """How far above the wanted port the next one for expectation `key` is tried, 0..65535, modulo the span."""

    def fragment_id(self, key: bytes) -> int:
        """The identification of new IPv6 fragments of the packet with tuple `key`, 1..2**32-1."""

    def ip_id(self, key: bytes) -> int:
        """The identification of an IPv4 packet that the box makes, 0..65535; `key`: addresses and protocol."""

    def flow_label(self, key: bytes) -> int:
        """The flow label of an IPv6 packet that the box makes, 0..2**20-1, one number per flow `key`."""

    def icmp_credits(self, key: bytes) -> int:
        """How much of the common rate limit an ICMP error to `key` uses up, 0..2."""

    def victims(self, key: bytes, proto: int) -> tuple[tuple[bytes, int], ...] | None:
        """Which connections, by original tuple and protocol, a newcomer `key` evicts from a full table.

        None: those that stand in its buckets, as `hash_secret` has it.
        """

    def hash_secret(self) -> int:
        """The 126-bit secret of the bucket hash; asked once per engine."""

    def save(self) -> dict[str, int]:
        """What a trial must put back."""

    def restore(self, saved: dict[str, int]) -> None:
        """Back to what `save` gave."""


class Choices:
    """The default: a keyed hash of kind, tuple and the kind's own counter."""

    __slots__ = ("_digest", "counters", "seed")

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.counters: dict[str, int] = {}
        # Imported here: `import conntrack` needs no OpenSSL, which takes a tenth of its time.
        from hashlib import blake2b

        self._digest: Callable[..., Any] = blake2b

    def draw(self, kind: str, key: bytes) -> int:
        """The next 64-bit number of `kind` for `key`."""
        count = self.counters.get(kind, 0)
        self.counters[kind] = count + 1
        return self._hash(kind, key, count)

    def _hash(self, kind: str, key: bytes, count: int) -> int:
        text = f"{self.seed}/{kind}/{count}/".encode() + key
        return int.from_bytes(self._digest(text, digest_size=8).digest(), "big")

    def port_offset(self, key: bytes, proto: int) -> int:
        """Uniform 0..65535."""
        return self.draw("port_offset", key + bytes((proto,))) & 0xFFFF

    def chain_limit(self, key: bytes) -> int:
        """Uniform 0..29 (get_random_u32_below(MAX_CHAINLEN - MIN_CHAINLEN))."""
        return self.draw("chain_limit", key) % 30

    def connection_id(self, key: bytes, serial: int) -> int:
        """A hash of the tuple and the serial number, so it does not matter when it is asked."""
        return self._hash("connection_id", key, serial) & 0xFFFFFFFF

    def expect_port(self, key: bytes) -> int:
        """Uniform 0..65535 (get_random_u32_below(65535 - wanted))."""
        return self.draw("expect_port", key) & 0xFFFF

    def fragment_id(self, key: bytes) -> int:
        """Uniform 1..2**32-1 (ipv6_select_ident: never 0)."""
        return self.draw("fragment_id", key) % 0xFFFFFFFF + 1

    def ip_id(self, key: bytes) -> int:
        """Uniform 0..65535 (the kernel counts on from a random number per address pair: __ip_select_ident)."""
        return self.draw("ip_id", key) & 0xFFFF

    def flow_label(self, key: bytes) -> int:
        """A hash of the flow, the same each time (skb_get_hash_flowi6)."""
        return self._hash("flow_label", key, 0) & 0xFFFFF

    def icmp_credits(self, key: bytes) -> int:
        """Uniform 0..2 (icmp_global_consume)."""
        return self.draw("icmp_credits", key) % 3

    def victims(self, key: bytes, proto: int) -> tuple[tuple[bytes, int], ...] | None:
        """As the bucket hash says."""
        return None

    def hash_secret(self) -> int:
        """From the seed alone."""
        return (self._hash("hash_secret", b"high", 0) << 64 | self._hash("hash_secret", b"low", 0)) >> 2

    def save(self) -> dict[str, int]:
        """The counters of all kinds."""
        return dict(self.counters)

    def restore(self, saved: dict[str, int]) -> None:
        """Back to `saved`."""
        self.counters = dict(saved)


def completed(source: object, seed: int) -> ChoiceSource:
    """`source`, and for the kinds of draw that it has no method for, the default.

    >>> class Fixed:
    ...     def port_offset(self, key, proto):
    ...         return 7
    >>> choices = completed(Fixed(), seed=1)
    >>> choices.port_offset(b"", 6), choices.chain_limit(b"") == Choices(1).chain_limit(b"")
    (7, True)
    """
    names = [name for name in vars(ChoiceSource) if not name.startswith("_")]
    if all(hasattr(source, name) for name in names):
        return cast(ChoiceSource, source)
    default = Choices(seed)
    methods = {name: getattr(source, name, getattr(default, name)) for name in names}
    return cast(ChoiceSource, SimpleNamespace(**methods))
