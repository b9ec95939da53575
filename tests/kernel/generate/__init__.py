"""Random scenarios, seeded: a box, its rules, and traffic that answers to what comes out.

One rule: a seed is a scenario.  The same seed gives the same actors and the same choices; only what the kernel
itself draws (a port, an identification) can make two runs differ.

    play = Play(seed, steps)         Play is asked for one step at a time and told what became of it
    while step := play.next():
        play.saw(step, kernel.play(step))

     world.py     hosts, wires            tcp.py sctp.py datagrams.py    the protocols
     octets.py    packets                 fragments.py malformed.py      the same, broken
     rules*.py    rule sets               errors.py                      complaints about them
     changes.py   the administrator       helpers.py local.py            FTP, TFTP; the box itself
     routing.py   odd ways and addresses
"""

from __future__ import annotations

import random
from typing import Any

from machine import SMALL_MAX
from scenario import ROUTES as USUAL_ROUTES
from scenario import Scenario, Step

from .changes import SYSCTLS, Changes
from .datagrams import Datagrams
from .errors import Errors
from .fragments import Fragments
from .helpers import Ftp, Tftp
from .local import Local
from .malformed import Malformed
from .routing import ROUTES, SETTINGS, Routing
from .rules import helper_rules, ruleset
from .sctp import Association
from .tcp import Conversation
from .world import Actor, World

# What a scenario is about, how often, and which actors with which weight it has.
THEMES: dict[str, tuple[int, dict[str, float]]] = {
    "mixed": (
        25,
        {"tcp": 5, "datagrams": 3, "errors": 1, "sctp": 1, "fragments": 0.5, "malformed": 0.5, "local": 0.7},
    ),
    "tcp": (20, {"tcp": 10, "errors": 0.5}),
    "sctp": (6, {"sctp": 10, "errors": 0.5}),
    "datagrams": (12, {"datagrams": 10, "errors": 1}),
    "errors": (10, {"tcp": 2, "datagrams": 4, "sctp": 0.5, "errors": 5}),
    "fragments": (8, {"fragments": 8, "datagrams": 1, "errors": 0.5}),
    "ftp": (9, {"ftp": 10, "errors": 0.3}),
    "tftp": (3, {"tftp": 10, "errors": 0.3}),
    "malformed": (7, {"malformed": 6, "datagrams": 3, "tcp": 2}),
    "local": (7, {"local": 8, "datagrams": 1, "errors": 1.5}),
    "routing": (5, {"routing": 8, "datagrams": 2, "errors": 1, "tcp": 1}),
    "full": (0, {"datagrams": 12, "tcp": 3, "sctp": 1, "errors": 0.5, "local": 1}),
    "changes": (8, {"tcp": 4, "datagrams": 4, "changes": 1.2, "errors": 0.5}),
}
STYLES = {"none": 4, "plain": 30, "busy": 30, "zones": 8}


class Play:
    """The steps of one seed, one at a time; `scenario` is what has been played so far."""

    def __init__(self, seed: int, length: int, wanted: str = "") -> None:
        rng = random.Random(f"scenario {seed}")
        theme = rng.choices(list(THEMES), [weight for weight, _ in THEMES.values()])[0]
        theme = wanted or theme  # "full": about a table of SMALL_MAX entries, which the machine has to be set to
        style = rng.choices(list(STYLES), list(STYLES.values()))[0]
        self.left = length
        self.world = World(rng, six=rng.choice((0.0, 0.3, 0.3, 0.5, 1.0)))
        self.scenario = Scenario.of(
            f"seed {seed}: {theme}, {style}", *_rules(rng, theme, style), **_box(rng, theme)
        )
        self._style = style
        self._weights = THEMES[theme][1]
        self._actors: dict[str, list[Actor]] = {kind: [] for kind in self._weights}
        self._actor: Actor | None = None

    def next(self) -> Step | None:
        """The next step, None after the last."""
        if not self.left:
            return None
        self.left -= 1
        step = None
        while step is None:
            kind = self.world.rng.choices(list(self._weights), list(self._weights.values()))[0]
            self._actor = self._choose(kind)
            step = self._actor.next()
        self.scenario.steps.append(step)
        return step

    def saw(self, record: dict[str, Any]) -> None:
        """What became of the last step."""
        self.world.saw(record)
        if self._actor is not None:
            self._actor.saw(record)

    def _choose(self, kind: str) -> Actor:
        """One of the actors of a kind; conversations are several at a time and come and go."""
        actors, rng = self._actors[kind], self.world.rng
        many = {"tcp": 4, "sctp": 2, "ftp": 2, "tftp": 3}.get(kind, 1)
        if len(actors) < many and (not actors or rng.random() < 0.25):
            actors.append(self._make(kind))
            return actors[-1]
        at = rng.randrange(len(actors))
        if many > 1 and rng.random() < 0.03:
            actors[at] = self._make(kind)
        return actors[at]

    def _make(self, kind: str) -> Actor:
        world = self.world
        makers: dict[str, Any] = {
            "tcp": Conversation, "sctp": Association, "datagrams": Datagrams, "errors": Errors, "local": Local,
            "fragments": Fragments, "malformed": Malformed, "ftp": Ftp, "tftp": Tftp,
        }  # fmt: skip
        if kind == "changes":
            choices = (("sysctl",), ("rules",), ("sysctl", "flush"), ("address",), ("link", "address"))
            return Changes(world, self._style, world.rng.choice(choices))
        if kind == "routing":
            return Routing(world, tuple(self.scenario.box["routes"]))
        actor: Actor = makers[kind](world)
        return actor


def _rules(rng: random.Random, theme: str, style: str) -> tuple[str, str]:
    texts = [ruleset(rng, family, style) for family in (4, 6)]
    if theme in ("ftp", "tftp"):
        texts = [helper_rules(rng, 4) + _without_raw(texts[0]), helper_rules(rng, 6) + _without_raw(texts[1])]
    return texts[0], texts[1]


def _without_raw(text: str) -> str:
    """The text without its raw table."""
    if not text.startswith("*raw"):
        return text
    return text[text.index("COMMIT\n") + 7 :]


def _box(rng: random.Random, theme: str) -> dict[str, Any]:
    """What differs from the usual box."""
    sysctl = {name: rng.choice(values) for name, values in SYSCTLS.items() if rng.random() < 0.08}
    if theme == "full":
        sysctl["nf_conntrack_max"] = SMALL_MAX
    # free errors empty the purse of "no route" if a jiffy begins between the two: let them not touch it
    sysctl["net.ipv4.icmp_ratemask"] = 0
    box: dict[str, Any] = {"sysctl": sysctl}
    if theme == "routing":
        sysctl |= {name: rng.choice(values) for name, values in SETTINGS.items() if rng.random() < 0.15}
        box["routes"] = [*USUAL_ROUTES, *(route for route in ROUTES if rng.random() < 0.3)]
    if rng.random() < 0.15:
        box["mtu"] = {"out0": rng.choice((1280, 1400))}
    return box
