"""The matches and the target of one line while it is being read: their options, and in the end their values.

One rule: of several `-m` of one name the last one takes the options; the target is asked before any match.

Sources: xtables.c (xtables_find_match), xtoptions.c (xtables_option_parse, xtables_options_fcheck), xshared.c
(command_match, command_jump) of iptables 1.8.9; x_tables.c (xt_check_match, xt_check_target).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..timeouts import Policies
from .errors import Refused, RuleError
from .extension import MATCH, TARGET, Argument, Extension, Given
from .getopt import NONE, REQUIRED, Found, Getopt, Long
from .names import protocol_name
from .registry import find, is_target_name
from .words import LONGEST_NAME, Word

# The match icmp6 under all names of its protocol.
_ICMP6 = frozenset(("icmpv6", "ipv6-icmp", "icmp6"))


@dataclass(slots=True)
class Instance:
    """A match or target that stands in the line, at `word`."""

    extension: Extension
    word: Word
    given: Given


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands: line, family, table, the hook of its chain (-1: a user chain), and what the box has of
    timeout policies."""

    line: int
    family: int
    table: str
    hook: int = -1
    policies: Policies = field(default_factory=dict)

    def error(self, word: Word, message: str) -> RuleError:
        """`word` is refused for `message`."""
        return RuleError(self.line, word.column, word.text, message)


class Loaded:
    """Matches in order, the target, and the long options they brought along, newest first."""

    __slots__ = ("long", "matches", "place", "target")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.matches: list[Instance] = []
        self.target: Instance | None = None
        self.long: list[Long] = []

    def _given(self) -> Given:
        return Given(self.place.family, self.place.policies)

    @property
    def instances(self) -> list[Instance]:
        """The matches, then the target."""
        return [*self.matches, *([self.target] if self.target else [])]

    def add_match(self, name: Word) -> None:
        """-m `name`."""
        if len(name.text.encode()) > LONGEST_NAME:
            raise self.place.error(name, f'Invalid match name "{name.text}" ({LONGEST_NAME} chars max)')
        if not self.try_match(name.text, name):
            raise self.place.error(name, f"Couldn't load match `{name.text}': it is not known here")

    def try_match(self, name: str, word: Word) -> bool:
        """Load the match `name` because of `word`, if there is one."""
        extension = find(MATCH, "icmp6" if name in _ICMP6 else name, self.place.family)
        if extension is None:
            return False
        if all(instance.extension is not extension for instance in self.matches):
            self._learn(extension)
        self.matches.append(Instance(extension, word, self._given()))
        return True

    def jump(self, name: Word) -> None:
        """-j `name`: a target, or else a chain."""
        extension = find(TARGET, name.text, self.place.family)
        if extension is not None:
            self.target = Instance(extension, name, self._given())
            self._learn(extension)
        elif is_target_name(name.text, self.place.family):
            raise self.place.error(name, f"Couldn't load target `{name.text}': it is not known here")

    def _learn(self, extension: Extension) -> None:
        self.long[:0] = [
            Long(option.name, REQUIRED if option.parse else NONE, (extension.kind, extension.name, option.called))
            for option in extension.options
        ]

    def option(self, found: Found, getopt: Getopt, inverted: bool, proto: int, not_proto: bool) -> None:
        """An option that one of them brought along; -p so far was `proto`."""
        assert isinstance(found.key, tuple)
        kind, name, key = found.key
        if kind == TARGET:
            assert self.target is not None
            instance = self.target
        else:
            instance = [instance for instance in self.matches if instance.extension.name == name][-1]
        option = next(option for option in instance.extension.options if option.called == key)
        if key in instance.given:
            raise self.place.error(found.word, f'{name}: option "--{option.name}" can only be used once')
        if inverted and not option.invert:
            raise self.place.error(found.word, f'{name}: option "--{option.name}" cannot be inverted')
        second = ""
        if option.words == 2:
            if not getopt.operand_follows():
                raise self.place.error(found.word, f"--{option.name} requires two args")
            second = getopt.take().text
        value: Any = True
        if option.parse is not None:
            assert found.value is not None
            argument = Argument(
                found.value.text, second, option.name, self.place.family, proto, not_proto, instance.given
            )
            value = self._try(option.parse, argument, instance, found.value)
        instance.given.put(key, value, inverted)

    def check(self) -> None:
        """What must be there is there, what must not be together is not."""
        for instance in self.instances:
            name, given = instance.extension.name, instance.given
            for option in instance.extension.options:
                if option.called not in given:
                    if option.required:
                        raise self.place.error(instance.word, f'{name}: option "--{option.name}" must be specified')
                    continue
                for other in option.needs:
                    if other not in given:
                        raise self.place.error(
                            instance.word, f'{name}: option "--{option.name}" also requires "--{other}"'
                        )
                for other in option.excludes:
                    if other != option.called and other in given:
                        raise self.place.error(
                            instance.word,
                            f'{name}: option "--{option.name}" cannot be used together with "--{other}"',
                        )

    def build(self, proto: int, not_proto: bool) -> list[Any]:
        """The values of all instances, each of which the kernel takes in this place."""
        return [self._build(instance, proto, not_proto) for instance in self.instances]

    def _build(self, instance: Instance, proto: int, not_proto: bool) -> Any:
        extension, given, place = instance.extension, instance.given, self.place
        given.proto, given.not_proto = proto, not_proto
        value = self._try(extension.build, given, instance, instance.word)
        wanted = extension.proto
        if wanted and (proto != wanted or not_proto):
            needs = f"{extension.name} needs -p {protocol_name(wanted)}"
            raise place.error(instance.word, f"RULE_APPEND failed (Invalid argument): {needs}")
        if extension.table and place.table != extension.table:
            only = f"{extension.name} is only valid in table {extension.table}"
            raise place.error(instance.word, f"RULE_APPEND failed (Invalid argument): {only}")
        if extension.check is not None:
            try:
                extension.check(value, place.hook)
            except Refused as refused:
                raise place.error(instance.word, f"{extension.name}: {refused.message}") from None
        return value

    def _try(self, function: Callable[[Any], Any], argument: object, instance: Instance, word: Word) -> Any:
        try:
            return function(argument)
        except Refused as refused:
            raise self.place.error(word, f"{instance.extension.name}: {refused.message}") from None

    def tracks(self, values: list[Any]) -> bool:
        """Does one of the `values` need connection tracking?"""
        return any(instance.extension.tracks(value) for instance, value in zip(self.instances, values, strict=True))

    def hooks(self) -> tuple[int, ...]:
        """The hooks that all of them allow, () if none restricts any."""
        allowed: set[int] | None = None
        for instance in self.instances:
            if instance.extension.hooks:
                own = set(instance.extension.hooks)
                allowed = own if allowed is None else allowed & own
        return () if allowed is None else tuple(sorted(allowed)) or (-1,)
