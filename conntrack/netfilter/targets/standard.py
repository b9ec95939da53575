"""-j ACCEPT, -j DROP, -j RETURN: verdicts, without options.

Source: add_action (nft.c) of iptables 1.8.9.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import verdict
from ..box import RETURN, Box
from ..rules.extension import TARGET, Extension, Given
from ..skb import Skb


@dataclass(frozen=True, slots=True)
class Standard:
    """ "ACCEPT", "DROP" or "RETURN"."""

    name: str

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Say it."""
        return self.name

    def text(self) -> str:
        """No options."""
        return ""


def _builder(name: str) -> Extension:
    target = Standard(name)

    def build(given: Given) -> Standard:
        return target

    return Extension(TARGET, name, build)


EXTENSIONS = tuple(_builder(name) for name in (verdict.ACCEPT, verdict.DROP, RETURN))
