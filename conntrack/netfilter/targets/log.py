"""-j LOG: a record for the host's log; the packet goes on.

Sources: libxt_LOG.c of iptables 1.8.9; xt_LOG.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import CONTINUE, Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import number
from ..rules.words import cut, quote
from ..skb import Skb

_WARNING = 4  # what is not given and not printed
_LONGEST_PREFIX = 29  # octets: struct xt_log_info
_LEVELS = {name: level for level, name in enumerate(("emerg", "alert", "crit", "error", "warning", "notice"))} | {
    "panic": 0,
    "info": 6,
    "debug": 7,
}
_FLAGS = ("tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode")


@dataclass(frozen=True, slots=True)
class Log:
    """prefix, level 0–7, flags: of "tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode" """

    prefix: str = ""
    level: int = _WARNING
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """-j LOG"""
        return "LOG"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Log the packet."""
        box.log(skb, hook, {"prefix": self.prefix, "level": self.level, "flags": self.flags})
        return CONTINUE

    def text(self) -> str:
        """The options."""
        words = [f"--log-prefix {quote(self.prefix)}"] if self.prefix else []
        if self.level != _WARNING:
            words.append(f"--log-level {self.level}")
        return " ".join([*words, *(f"--log-{flag}" for flag in self.flags)])


def _parse_level(argument: Argument) -> int:
    level = number(argument.text, 0, 7)
    if level is None:
        level = _LEVELS.get(argument.text)
    if level is None:
        raise Refused(f'log level "{argument.text}" unknown')
    return level


def _parse_prefix(argument: Argument) -> str:
    refuse_unless(argument.text, "Argument must have a minimum length of 1 characters")
    refuse_unless("\n" not in argument.text, "Newlines not allowed in --log-prefix")
    return cut(argument.text, _LONGEST_PREFIX)


def _build(given: Given) -> Log:
    flags = tuple(flag for flag in _FLAGS if f"log-{flag}" in given)
    return Log(given.get("log-prefix", ""), given.get("log-level", _WARNING), flags)


EXTENSION = Extension(
    TARGET,
    "LOG",
    _build,
    (
        Option("log-level", _parse_level),
        Option("log-prefix", _parse_prefix),
        *(Option(f"log-{flag}") for flag in _FLAGS),
    ),
)
