"""-j CT and -j NOTRACK: what tracking is to do with the packet, told before it gets there.

The first of them that a packet meets wins; the walk goes on with the next rule.  NOTRACK marks the packet
UNTRACKED, CT attaches a template: a zone, a helper, event masks.

--ctevents or --expevents alone leaves the other mask empty; neither: no mask, all events.

Sources: libxt_CT.c of iptables 1.8.9; xt_CT.c (xt_ct_target, xt_ct_tg_check).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...conn import Template
from ...helpers.registry import HELPERS
from ...tuples import DEFAULT_ZONE, Zone
from ...verdict import UNTRACKED
from ..box import CONTINUE, Box
from ..rules.errors import Refused
from ..rules.extension import TARGET, Argument, Extension, Given, Option, refuse_unless
from ..rules.text import number
from ..rules.words import cut
from ..skb import NOT_TRACKED_YET, Skb

# names of bits 0, 1, … (enum ip_conntrack_events)
_EVENTS = (
    *("new", "related", "destroy", "reply", "assured", "protoinfo", "helper", "mark", "natseqinfo", "secmark"),
)
_EXPECT_EVENTS = ("new",)
_ORIGINAL, _REPLY, _BOTH = 1, 2, 3
_HELPER_NAME = 15  # octets that the kernel's structure holds of a helper's name, 31 of a policy's
_POLICY_NAME = 31
_POLICY_READ_BACK = 4  # what the kernel gives back of it: its notion of the user's part ends there


@dataclass(frozen=True, slots=True)
class Ct:
    """What the rule says; `template` is what that means.

    zone     number, None for the packet mark's low 16 bits    directions  bit 0 original, bit 1 reply
    policy   of timeouts, its name; timeouts: what it says (none beside --notrack, where nobody looks for it)
    """

    notrack: bool = False
    helper: str = ""
    events: int = 0
    expect_events: int = 0
    zone: int | None = 0
    directions: int = _BOTH
    policy: str = ""
    timeouts: tuple[int, ...] | None = None
    name: str = "CT"

    @property
    def template(self) -> Template:
        """For `Skb.template`."""
        zone = Zone(self.zone or 0, self.directions) if self.zone is None or self.zone else DEFAULT_ZONE
        return Template(zone, self.zone is None, self.helper, self.timeouts, self.events, self.expect_events)

    def apply(self, skb: Skb, hook: int, box: Box) -> str:
        """Mark the packet, unless an earlier rule or an earlier pass did."""
        if skb.conn is None and skb.template is None and skb.ctinfo == NOT_TRACKED_YET and not skb.spoken_for:
            if self.notrack:
                skb.ctinfo = UNTRACKED
            else:
                skb.template = self.template
        return CONTINUE

    def text(self) -> str:
        """The options."""
        if self.name == "NOTRACK":
            return ""
        words = ["--notrack"] if self.notrack else []
        if self.helper:
            words.append(f"--helper {self.helper}")
        if self.policy:
            words.append(f"--timeout {self.policy[:_POLICY_READ_BACK]}")
        for option, names, mask in (
            ("ctevents", _EVENTS, self.events),
            ("expevents", _EXPECT_EVENTS, self.expect_events),
        ):
            if mask:
                words.append(f"--{option} {','.join(name for bit, name in enumerate(names) if mask >> bit & 1)}")
        if self.zone is None or self.zone:
            side = {_ORIGINAL: "-orig", _REPLY: "-reply"}.get(self.directions, "")
            words.append(f"--zone{side} {'mark' if self.zone is None else self.zone}")
        return " ".join(words)


def _parse_zone(argument: Argument) -> int | None:
    if argument.text.lower() == "mark":
        return None
    value = number(argument.text, 0, 0xFFFF)
    if value is None:
        raise Refused(f"Cannot parse {argument.text} as a zone ID")
    return value


def _parse_helper(argument: Argument) -> str:
    return cut(argument.text, _HELPER_NAME)


def _parse_policy(argument: Argument) -> str:
    return cut(argument.text, _POLICY_NAME)


def _parse_events(argument: Argument) -> int:
    names = _EVENTS if argument.option == "ctevents" else _EXPECT_EVENTS
    mask = 0
    for name in argument.text.split(","):
        if name not in names:
            raise Refused(f'Unknown event type "{name}"')
        mask |= 1 << names.index(name)
    return mask


_ZONES = {"zone": 0, "zone-orig": _ORIGINAL, "zone-reply": _REPLY}


def _build(given: Given) -> Ct:
    notrack, helper = "notrack" in given, given.get("helper", "")
    zone: int | None = 0
    directions, by_mark = 0, False
    for key in given.order:
        if key in _ZONES:
            zone = given.get(key)
            by_mark = by_mark or zone is None
            directions |= _ZONES[key]
    if helper and not notrack:  # the kernel looks at nothing else of a rule with --notrack
        refuse_unless(
            given.proto and not given.not_proto, "You must specify a L4 protocol and not use inversions on it"
        )
        found = HELPERS.get(helper)
        refuse_unless(
            found is not None and found.proto == given.proto, f'No such helper "{helper}" for this protocol'
        )
    policy = given.get("timeout", "")
    timeouts: tuple[int, ...] | None = None
    if policy and not notrack:
        known = given.policies.get(policy)
        refuse_unless(known is not None, f'No such timeout policy "{policy}"')
        refuse_unless(
            given.proto and not given.not_proto, "You must specify a L4 protocol and not use inversions on it"
        )
        assert known is not None
        refuse_unless(
            known.fits(given.family, given.proto), f'Timeout policy "{policy}" is for another protocol or family'
        )
        timeouts = known.timeouts
    return Ct(
        notrack,
        helper,
        given.get("ctevents", 0),
        given.get("expevents", 0),
        None if by_mark else zone,
        directions or _BOTH,
        policy,
        timeouts,
    )


def _build_notrack(given: Given) -> Ct:
    return Ct(notrack=True, name="NOTRACK")


def _tracks(target: Ct) -> bool:
    return not target.notrack


EXTENSIONS = (
    Extension(
        TARGET,
        "CT",
        _build,
        (
            Option("notrack"),
            Option("helper", _parse_helper),
            Option("timeout", _parse_policy),
            Option("ctevents", _parse_events),
            Option("expevents", _parse_events),
            Option("zone-orig", _parse_zone),
            Option("zone-reply", _parse_zone),
            Option("zone", _parse_zone),
        ),
        table="raw",
        tracks=_tracks,
    ),
    Extension(TARGET, "NOTRACK", _build_notrack, table="raw"),
)
