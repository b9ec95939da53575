"""Choices for tests: first what the test says, then seeded random numbers; `asked` counts the draws by kind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable


class Draws:
    """An engine's choices by turn, whatever they are for (the keys are not looked at)."""

    def __init__(
        self,
        seed: int = 0,
        *,
        offsets: Iterable[int] = (),
        limits: Iterable[int] = (),
        expects: Iterable[int] = (),
    ) -> None:
        self.offsets, self.limits, self.expects = list(offsets), list(limits), list(expects)
        self.asked: Counter[str] = Counter()
        self._offsets, self._limits = random.Random(f"{seed} offsets"), random.Random(f"{seed} limits")
        self._expects = random.Random(f"{seed} expects")

    def port_offset(self, key: bytes, proto: int) -> int:
        self.asked["offset"] += 1
        return self.offsets.pop(0) if self.offsets else self._offsets.randrange(65536)

    def chain_limit(self, key: bytes) -> int:
        self.asked["limit"] += 1
        return self.limits.pop(0) if self.limits else self._limits.randrange(30)

    def connection_id(self, key: bytes, serial: int) -> int:
        return serial

    def expect_port(self, key: bytes) -> int:
        self.asked["expect"] += 1
        return self.expects.pop(0) if self.expects else self._expects.randrange(65536)

    def fragment_id(self, key: bytes) -> int:
        return 0x1234

    def ip_id(self, key: bytes) -> int:
        return 0x1234

    def flow_label(self, key: bytes) -> int:
        return 0

    def icmp_credits(self, key: bytes) -> int:
        return 1

    def victims(self, key: bytes, proto: int) -> None:
        return None

    def hash_secret(self) -> int:
        return 0x2B7E_1516_28AE_D2A6_ABF7_1588_09CF_4F3C  # no pattern: any would show in the places of neighbours

    def save(self) -> dict[str, int]:
        return {}

    def restore(self, saved: dict[str, int]) -> None:
        pass
