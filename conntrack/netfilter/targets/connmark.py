"""-j CONNMARK: changes the connection's mark, or carries marks between packet and connection.

    set       ct = shift((ct & ~ctmask) ^ value)
    save      ct = (ct & ~ctmask) ^ shift(nf & nfmask)
    restore   nf = (nf & ~nfmask) ^ shift(ct & ctmask)

Without a connection nothing happens.

Sources: libxt_CONNMARK.c of iptables 1.8.9; xt_connmark.c (connmark_tg_shift).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..box import CONTINUE, Box
from ..rules import attached
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, always, refuse_unless
from ..rules.text import number
from ..skb import Skb
from .mark import ALL_ONES, XMARK_OPTIONS, xmark_options

_MODES = (*XMARK_OPTIONS, "save-mark", "restore-mark")


@dataclass(frozen=True, slots=True)
class Connmark:
    """mode: "set", "save" or "restore"; value (set only) and masks; shift: bits to the left, negative: right"""

    mode: str
    value: int = 0
    ctmask: int = ALL_ONES
    nfmask: int = ALL_ONES
    shift: int = 0

    @property
    def name(self) -> str:
        """-j CONNMARK"""
        return "CONNMARK"

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Change a mark."""
        old = attached.mark(skb)
        if old is None:
            return CONTINUE
        if self.mode == "restore":
            skb.mark = (skb.mark & ~self.nfmask) ^ self._shifted(old & self.ctmask)
            return CONTINUE
        if self.mode == "set":
            new = self._shifted((old & ~self.ctmask) ^ self.value)
        else:
            new = (old & ~self.ctmask) ^ self._shifted(skb.mark & self.nfmask)
        if skb.conn is not None:
            box.engine.set_mark(skb.conn, new)
        return CONTINUE

    def _shifted(self, mark: int) -> int:
        return (mark << self.shift if self.shift > 0 else mark >> -self.shift) & ALL_ONES

    def text(self) -> str:
        """The options."""
        if self.mode == "set":
            words = f"--set-xmark {self.value:#x}/{self.ctmask:#x}"
        else:
            words = f"--{self.mode}-mark --nfmask {self.nfmask:#x} --ctmask {self.ctmask:#x}"
        if self.shift:
            words += f" --{'left' if self.shift > 0 else 'right'}-shift-mark {abs(self.shift)}"
        return words


def _parse_mask(argument: Argument) -> int:
    value = number(argument.text)
    if value is None:
        raise Refused(f'bad value for option "--{argument.option}", or out of range (0-4294967295)')
    return value


def _parse_shift(argument: Argument) -> int:
    value = number(argument.text, 0, 32)
    if value is None:
        raise Refused(f'bad value for option "--{argument.option}", or out of range (0-32)')
    return value


def _build(given: Given) -> Connmark:
    modes = [key for key in given.order if key in _MODES]
    refuse_unless(modes, "No operation specified")
    mode = modes[0]
    masks = {"ctmask": ALL_ONES, "nfmask": ALL_ONES}
    value, shift = 0, 0
    for key in given.order:  # what comes later wins, as it writes to the same place
        if key in XMARK_OPTIONS:
            value, masks["ctmask"] = given.get(key)
        elif key == "mask":
            masks["ctmask"] = masks["nfmask"] = given.get(key)
        elif key in masks:
            masks[key] = given.get(key)
        elif key == "left-shift-mark":
            shift = given.get(key)
        elif key == "right-shift-mark":
            shift = -given.get(key)
    name = "set" if mode in XMARK_OPTIONS else mode.removesuffix("-mark")
    refuse_unless(abs(shift) < 32, "RULE_APPEND failed (Invalid argument): a shift by 32")
    nfmask = ALL_ONES if name == "set" else masks["nfmask"]
    return Connmark(name, value, masks["ctmask"], nfmask, shift)


EXTENSION = Extension(
    TARGET,
    "CONNMARK",
    _build,
    (
        *xmark_options(_MODES),
        Option("save-mark", excludes=_MODES),
        Option("restore-mark", excludes=_MODES),
        Option("left-shift-mark", _parse_shift),
        Option("right-shift-mark", _parse_shift),
        Option("ctmask", _parse_mask, excludes=("mask",)),
        Option("nfmask", _parse_mask, excludes=("mask",)),
        Option("mask", _parse_mask, excludes=("ctmask", "nfmask")),
    ),
    tracks=always,
)
