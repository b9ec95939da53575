"""-m conntrack and -m state: what connection tracking knows of the packet.

Without a connection (INVALID, UNTRACKED) --ctstate alone decides, and all other conditions are passed over;
without --ctstate nothing matches.  SNAT and DNAT are virtual states: bits of the connection's status, true for all
its packets.

Sources: libxt_conntrack.c of iptables 1.8.9; xt_conntrack.c (conntrack_mt).
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import verdict
from ...tuples import halves
from ...verdict import ASSURED, CONFIRMED, DST_NAT, EXPECTED, SEEN_REPLY, SRC_NAT
from ..box import Box
from ..rules.attached import Entry, entry, has_template
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option, always, refuse_unless
from ..rules.text import getaddrinfo_ports, host_and_mask, host_text, masked, numbers, protocol
from ..skb import Skb

_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")  # as they are printed
# What a shortened word may mean, in the order in which the tool tries.
_GUESSES = ("INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED", "SNAT", "DNAT")
_STATUS = {"EXPECTED": EXPECTED, "SEEN_REPLY": SEEN_REPLY, "ASSURED": ASSURED, "CONFIRMED": CONFIRMED}
_STATUS_GUESSES = ("NONE", *_STATUS)
_REPLIES = (verdict.ESTABLISHED_REPLY, verdict.RELATED_REPLY)
_ADDRESSES = ("ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst")
_PORTS = tuple(f"{option}port" for option in _ADDRESSES)


@dataclass(frozen=True, slots=True)
class Conntrack:
    """Conditions by option, in the order in which they are printed: (option, value, inverted).

    ctstate, ctstatus   a frozenset of names             ctexpire   (least, greatest) seconds
    ctorigsrc, …        (address, mask)                  ctorigsrcport, …   (least, greatest)
    ctproto             a number                         ctdir      "ORIGINAL" or "REPLY"
    """

    conditions: tuple[tuple[str, object, bool], ...]
    name: str = "conntrack"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Do all conditions hold?"""
        conn = entry(skb)
        for option, value, inverted in self.conditions:
            if option == "ctstate":
                if (not value.isdisjoint(_states(skb))) == inverted:  # type: ignore[attr-defined]
                    return False
                if conn is None:
                    return True
            elif conn is None or _holds(option, value, conn, skb, box) == inverted:
                return False
        return True

    def text(self) -> str:
        """The options."""
        return " ".join(
            f"{'! ' * inverted}--{'state' if self.name == 'state' else option} {_text(option, value)}"
            for option, value, inverted in self.conditions
        )


def _states(skb: Skb) -> tuple[str, ...]:
    """The states of the packet, virtual ones included."""
    conn = skb.conn
    if conn is None:
        if has_template(skb):
            return ("NEW",)
        return ("UNTRACKED",) if skb.ctinfo == verdict.UNTRACKED else ("INVALID",)
    virtual = tuple(name for name, bit in (("SNAT", SRC_NAT), ("DNAT", DST_NAT)) if conn.status & bit)
    return (verdict.CTINFO_NAMES[skb.ctinfo], *virtual)


def _holds(option: str, value: object, conn: Entry, skb: Skb, box: Box) -> bool:
    match value:
        case frozenset():  # ctstatus
            return any(conn.status & _STATUS[name] for name in value)
        case (bytes() as address, bytes() as mask):
            place = _ADDRESSES.index(option)
            found = halves(conn.orig if place < 2 else conn.reply)[place % 2]
            return masked(found, mask) == masked(address, mask)
        case (int() as least, int() as greatest) if option == "ctexpire":
            # before confirmation the kernel's deadline is a mere span and counts as past
            left = conn.timeout(box.engine.now) if conn.status & CONFIRMED else 0
            return least <= left <= greatest
        case (int() as least, int() as greatest):
            place = _PORTS.index(option)
            part = halves(conn.orig if place < 2 else conn.reply)[2 + place % 2]
            return least <= int.from_bytes(part, "big") <= greatest
        case int():  # ctproto
            return conn.proto == value
        case _:  # ctdir
            return (skb.ctinfo in _REPLIES) == (value == "REPLY")


def _text(option: str, value: object) -> str:
    match value:
        case frozenset():
            order = _STATES if option == "ctstate" else tuple(_STATUS)
            return ",".join(name for name in order if name in value) or "NONE"
        case (bytes() as address, bytes() as mask):
            return host_text(address, mask)
        case (int() as least, int() as greatest):
            if greatest == least or (greatest == 0 and option != "ctexpire"):
                return str(least)
            return f"{least}:{greatest}"
        case _:
            return str(value)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def _listed(text: str, guesses: tuple[str, ...], what: str) -> frozenset[str]:
    """Names between commas, each of which may be shortened to its beginning."""
    found = set()
    for part in text.split(","):
        name = next((guess for guess in guesses if part and guess.startswith(part.upper())), None)
        if name is None:
            raise Refused(f'Bad {what} "{text}"')
        found.add(name)
    return frozenset(found - {"NONE"})


def _parse_state(argument: Argument) -> frozenset[str]:
    plain_only = argument.option == "state"
    return _listed(argument.text, _GUESSES[:5] if plain_only else _GUESSES, argument.option)


def _parse_status(argument: Argument) -> frozenset[str]:
    return _listed(argument.text, _STATUS_GUESSES, "ctstatus")


def _parse_proto(argument: Argument) -> int:
    value = protocol(argument.text)
    # the tool means to refuse `! --ctproto 0`, but looks at the bit of an inverted --ctstatus before it
    refuse_unless(value or not argument.given.inverted("ctstatus"), "rule would never match protocol")
    return value & 0xFF  # 262, "mptcp", becomes 6


def _parse_host(argument: Argument) -> tuple[bytes, bytes]:
    return host_and_mask(argument.text, argument.family, argument.option)


def _parse_ports(argument: Argument) -> tuple[int, int]:
    return getaddrinfo_ports(argument.text, argument.option)


def _parse_expire(argument: Argument) -> tuple[int, int]:
    return numbers(argument.text, 0xFFFFFFFF, argument.option)


def _parse_direction(argument: Argument) -> str:
    direction = argument.text.upper()
    refuse_unless(direction in ("ORIGINAL", "REPLY"), f'Bad value for "--ctdir" option: "{argument.text}"')
    return direction


_OPTIONS = (
    Option("ctstate", _parse_state, invert=True),
    Option("ctproto", _parse_proto, invert=True),
    *(Option(option, _parse_host, invert=True) for option in _ADDRESSES),
    *(Option(option, _parse_ports, invert=True) for option in _PORTS),
    Option("ctstatus", _parse_status, invert=True),
    Option("ctexpire", _parse_expire, invert=True),
    Option("ctdir", _parse_direction),
)


def _build(given: Given) -> Conntrack:
    refuse_unless(given, "At least one option is required")
    return Conntrack(
        tuple(
            (option.name, given.get(option.name), given.inverted(option.name))
            for option in _OPTIONS
            if option.name in given
        )
    )


def _build_state(given: Given) -> Conntrack:
    return Conntrack((("ctstate", given.get("state"), given.inverted("state")),), "state")


EXTENSIONS = (
    Extension(MATCH, "conntrack", _build, _OPTIONS, tracks=always),
    Extension(
        MATCH,
        "state",
        _build_state,
        (Option("state", _parse_state, invert=True, required=True),),
        tracks=always,
    ),
)
