"""One line of rules text as a command: `-A INPUT -p tcp --dport 22 -j ACCEPT` and its kin.

One rule: words are read from left to right, once, as the tool does.  What an option means is decided where it
stands: `-m multiport --dports 80 -p tcp` is refused, because the ports come before the protocol.

    words ─► getopt ─► command, header conditions ──────► Rule, one for each pair of -s and -d addresses
                  └──► loaded: options of matches, target ─► values ─┘

`-p tcp` loads the match `tcp` at the first option that nothing else knows.

Source: xshared.c (do_parse, command_default) of iptables 1.8.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..timeouts import NO_POLICIES, Policies
from .base_options import ALLOWED, COMMANDS, INVERTIBLE, LONG, NOWHERE, SHORT
from .errors import Refused, RuleError
from .getopt import MISSING, OPERAND, UNKNOWN, Found, Getopt
from .loaded import Loaded, Place
from .names import protocol_name
from .registry import is_target_name
from .rule import Counter, Header, Network, Rule
from .ruleset import BUILT_IN
from .text import networks, number, protocol
from .words import BLANKS, LONGEST_NAME, Word

_LONGEST_IFACE: Final = 15  # IFNAMSIZ - 1
_MOST_RULES: Final = 0x7FFFFFFF  # INT_MAX


@dataclass(frozen=True, slots=True)
class Command:
    """What a line asks for.

    kind    the letter of the command; "" for a line of the other family, which asks for nothing
    number  of a rule, from 1; 0 without         rules  of -A, -I, -D, -C, -R, in the order of the text
    policy  of -P       new_name  of -E          word   where the line begins, for complaints
    """

    kind: str
    line: int
    word: Word
    chain: str = ""
    number: int = 0
    rules: tuple[Rule, ...] = ()
    policy: str = ""
    new_name: str = ""

    def error(self, message: str) -> RuleError:
        """The whole line is refused for `message`."""
        return RuleError(self.line, self.word.column, self.word.text, message)


def parse_line(
    words: Sequence[Word],
    line: int,
    family: int,
    table: str,
    counters: tuple[str, str] | None = None,
    policies: Policies = NO_POLICIES,
) -> Command:
    """The command in `words` (line number `line`), for `table` of `family`; RuleError if the tool would refuse it.

    `counters` are those that stood before it in brackets, to be taken.
    """
    reader = _Reader(words, Place(line, family, table, policies=policies))
    if counters is not None:
        first = words[0] if words else Word("", 1)
        reader.options["c"] = first
        reader.set_counters(*counters, first)
    return reader.read()


class _Reader:
    """The state of a line that is being read."""

    def __init__(self, words: Sequence[Word], place: Place) -> None:
        self.line, self.family, self.table = place.line, place.family, place.table
        self.getopt = Getopt(words, SHORT)
        self.first = words[0] if words else Word("", 1)
        self.loaded = Loaded(place)
        self.commands: list[str] = []
        self.chain: Word | None = None
        self.number = 0
        self.new_name = self.policy = ""
        self.options: dict[str, Word] = {}  # header options by letter, with the word of their argument
        self.inverted: set[str] = set()
        self.proto = 0
        self.proto_text = ""
        self.proto_tried = False  # the protocol's own match was loaded because of an unknown option
        self.goto = False
        self.counter = (0, 0)
        self.bang: Word | None = None
        self.foreign = False  # the line is for the other family from here on

    def fail(self, word: Word, message: str) -> RuleError:
        """`word` is refused for `message`."""
        return RuleError(self.line, word.column, word.text, message)

    # --- reading ---------------------------------------------------------------------------------------

    def read(self) -> Command:
        """The whole line."""
        while not self.foreign:
            found = self.getopt.next((*LONG, *self.loaded.long))
            if found is None:
                break
            if found.key == OPERAND:
                self._operand(found.word)
                continue
            if found.key in (UNKNOWN, MISSING):
                if self._load_protocol(found.word):
                    self.getopt.again()
                    continue
                if found.key == MISSING:
                    raise self.fail(found.word, f'option "{found.word.text}" requires an argument')
                raise self.fail(found.word, f'unknown option "{found.word.text}"')
            if isinstance(found.key, str):
                self._base(found.key, found)
            else:
                self.loaded.option(found, self.getopt, self.bang is not None, self.proto, "p" in self.inverted)
            self.bang = None
        return self._finish()

    def _operand(self, word: Word) -> None:
        if word.text != "!":
            raise self.fail(word, f"Bad argument `{word.text}'")
        if self.bang is not None:
            raise self.fail(word, "multiple consecutive ! not allowed")
        self.bang = word

    def _load_protocol(self, word: Word) -> bool:
        """Load the match of the protocol that -p names, once in a line."""
        if not self.proto_text or self.proto_tried:
            return False
        value = number(self.proto_text, 0, 255)
        self.proto_tried = self.loaded.try_match(self.proto_text if value is None else protocol_name(value), word)
        return self.proto_tried

    def _base(self, letter: str, found: Found) -> None:
        """An option of the tool itself."""
        if letter in COMMANDS:
            self._command(letter, found)
        elif letter in "46":
            self.foreign = int(letter) != self.family
        elif letter == "m":
            if self.bang is not None:
                raise self.fail(self.bang, "unexpected ! flag before --match")
            assert found.value is not None
            self.loaded.add_match(found.value)
        elif letter in NOWHERE:
            raise self.fail(found.word, f"-{letter} has no place in a line of rules text")
        elif letter != "v":
            self._header(letter, found)

    def _command(self, letter: str, found: Found) -> None:
        if self.bang is not None:
            raise self.fail(self.bang, "unexpected '!' flag")
        if letter == "N":
            self._check_new_name(found.value or found.word)
        both = {*self.commands, letter}
        if self.commands and not (len(both) == 2 and "Z" in both and both & {"L", "S"}):
            raise self.fail(found.word, f"Cannot use -{letter} with -{self.commands[0]}")
        self.commands.append(letter)
        take, follows = self.getopt.take, self.getopt.operand_follows
        value = found.value
        if value is None and letter in "FLSXZ" and follows():
            value = take()
        if value is not None:
            self.chain = value
        if letter in "DLSZ" and follows():
            self.number = self._rule_number(take())
        elif letter in "IR":
            if follows():
                self.number = self._rule_number(take())
            elif letter == "R":
                raise self.fail(found.word, "-R requires a rule number")
            else:
                self.number = 1
        elif letter in "EP":
            if not follows():
                what = "old-chain-name and new-chain-name" if letter == "E" else "a chain and a policy"
                raise self.fail(found.word, f"-{letter} requires {what}")
            text = take().text
            if letter == "E":
                self.new_name = text
            else:
                self.policy = text

    def _rule_number(self, word: Word) -> int:
        value = number(word.text, 1, _MOST_RULES)
        if value is None:
            raise self.fail(word, f"Invalid rule number `{word.text}'")
        return value

    def _check_new_name(self, word: Word) -> None:
        try:
            check_chain_name(word.text, self.family)
        except Refused as refused:
            raise self.fail(word, refused.message) from None

    def _header(self, letter: str, found: Found) -> None:
        """A condition on the header, a jump, counters."""
        # Some options read the whole word: -p tcp is well, -ptcp is the protocol "-ptcp".
        assert found.value is not None or letter in "fnx0"
        argument = found.value or found.word
        whole = argument if found.bare or letter in "gcfnx0" else found.word
        if letter in "io" and not argument.text:
            raise self.fail(argument, "Empty interface is likely to be undesired")
        option = "j" if letter == "g" else letter
        if option in self.options:
            raise self.fail(found.word, f"multiple -{option} flags not allowed")
        if self.bang is not None:
            if option not in INVERTIBLE:
                raise self.fail(found.word, f"cannot have ! before -{option}")
            self.inverted.add(option)
        self.options[option] = whole
        if letter == "p":
            self._protocol(whole)
        elif letter in "gj":
            self._jump(letter, whole, found.word)
        elif letter in "io":
            if len(whole.text.encode()) > _LONGEST_IFACE:
                raise self.fail(whole, f"interface name `{whole.text}' must be shorter than IFNAMSIZ (15)")
        elif letter == "f" and self.family == 6:
            raise self.fail(found.word, "`-f' is not supported in IPv6, use -m frag instead")
        elif letter == "c":
            self._counters(found)

    def _protocol(self, word: Word) -> None:
        self.proto_text = word.text.lower()
        try:
            self.proto = protocol(self.proto_text)
        except Refused as refused:
            raise self.fail(word, refused.message) from None
        if self.proto == 0 and "p" in self.inverted:
            raise self.fail(word, "rule would never match protocol")

    def _jump(self, letter: str, name: Word, option: Word) -> None:
        self.goto = letter == "g"
        if not name.text:
            raise self.fail(option, "Invalid target name (too short)")
        if len(name.text.encode()) > LONGEST_NAME:
            raise self.fail(name, f"Invalid target name `{name.text}' ({LONGEST_NAME} chars max)")
        if not BLANKS.isdisjoint(name.text):
            raise self.fail(name, f"Invalid target name `{name.text}'")
        if not self.goto:
            self.loaded.jump(name)

    def _counters(self, found: Found) -> None:
        assert found.value is not None
        packets, comma, octets = found.value.text.partition(",")
        if not comma:
            if not self.getopt.operand_follows():
                raise self.fail(found.word, "-c requires packet and byte counter")
            octets = self.getopt.take().text
        self.set_counters(packets, octets, found.word)

    def set_counters(self, packets: str, octets: str, word: Word) -> None:
        """Take the counters in `packets` and `octets`."""
        values = [_scan(packets), _scan(octets)]
        for value, what in zip(values, ("packet", "byte"), strict=True):
            if value is None:
                raise self.fail(word, f"-c {what} counter not numeric")
        self.counter = (values[0] or 0, values[1] or 0)

    # --- the end of the line ---------------------------------------------------------------------------

    def _finish(self) -> Command:
        jump = self.options.get("j")
        if self.table == "nat" and "DROP" in (self.policy, jump.text if jump else ""):
            raise self.fail(
                jump or self.first, 'The "nat" table is not intended for filtering, the use of DROP is inhibited'
            )
        if self.foreign:
            return self._made(())
        self.loaded.check()
        if self.getopt.at < len(self.getopt.words):
            raise self.fail(self.getopt.words[self.getopt.at], "unknown arguments found on commandline")
        if not self.commands:
            raise self.fail(self.first, "no command specified")
        if self.bang is not None:
            raise self.fail(self.bang, "nothing appropriate following !")
        pairs = self._addresses()
        self._check_allowed()
        chain = self.chain
        if chain is not None and len(chain.text.encode()) > LONGEST_NAME:
            raise self.fail(chain, f"chain name `{chain.text}' too long (must be under {LONGEST_NAME + 1} chars)")
        if self.commands[0] not in "ADCIR" or (self.commands[0] == "D" and self.number):
            return self._made(())
        assert chain is not None
        for names, letter in ((("PREROUTING", "INPUT"), "o"), (("POSTROUTING", "OUTPUT"), "i")):
            if chain.text in names and letter in self.options:
                raise self.fail(self.options[letter], f"Can't use -{letter} with {chain.text}")
        self.loaded.place = replace(self.loaded.place, hook=BUILT_IN[self.table].get(chain.text, -1))
        values = self.loaded.build(self.proto, "p" in self.inverted)
        return self._made(tuple(self._rule(source, destination, values) for source, destination in pairs))

    def _made(self, rules: tuple[Rule, ...]) -> Command:
        kind = self.commands[0] if self.commands else ""
        chain = self.chain.text if self.chain is not None else ""
        return Command(kind, self.line, self.first, chain, self.number, rules, self.policy, self.new_name)

    def _check_allowed(self) -> None:
        allowed = frozenset[str]().union(*(ALLOWED.get(letter, frozenset()) for letter in self.commands))
        if self.commands[0] == "D" and self.number:
            allowed = frozenset()
        for letter, word in self.options.items():
            if letter not in allowed:
                raise self.fail(word, f"Illegal option `-{letter}' with this command")

    def _addresses(self) -> list[tuple[Network | None, Network | None]]:
        lists: list[list[tuple[bytes, bytes]]] = []
        for letter in "sd":
            word = self.options.get(letter)
            if word is None:
                lists.append([(b"", b"")])
                continue
            try:
                lists.append(networks(word.text, self.family))
            except Refused as refused:
                raise self.fail(word, refused.message) from None
        sources, destinations = lists
        if (len(sources) > 1 or len(destinations) > 1) and self.inverted & {"s", "d"}:
            raise self.fail(self.first, "! not allowed with multiple source or destination IP addresses")
        return [
            (self._network("s", source), self._network("d", destination))
            for source in sources
            for destination in destinations
        ]

    def _network(self, letter: str, pair: tuple[bytes, bytes]) -> Network | None:
        """The condition, None for 0/0."""
        if any(pair[1]):
            return pair
        if letter in self.inverted:
            word = self.options[letter]
            raise self.fail(word, f"RULE_APPEND failed (Invalid argument): ! -{letter} {word.text} matches nothing")
        return None

    def _rule(self, source: Network | None, destination: Network | None, values: list[Any]) -> Rule:
        jump = self.options.get("j")
        wildcard = {letter: letter not in self.inverted for letter in "io"}
        ifaces = {letter: self.options[letter].text if letter in self.options else "" for letter in "io"}
        for letter, text in ifaces.items():
            if text == "+" and wildcard[letter]:
                ifaces[letter] = ""  # any device is no condition
        header = Header(
            source,
            destination,
            ifaces["i"],
            ifaces["o"],
            self.proto & 0xFF,  # 262, "mptcp", becomes 6 in the kernel
            "f" in self.options,
            "s" in self.inverted,
            "d" in self.inverted,
            "i" in self.inverted,
            "o" in self.inverted,
            "p" in self.inverted,
            "f" in self.inverted,
        )
        return Rule(
            header,
            tuple(values[: len(self.loaded.matches)]),
            values[-1] if self.loaded.target else None,
            jump.text if jump and not self.loaded.target else "",
            self.goto,
            Counter(*self.counter),
            self.loaded.tracks(values),
            self.loaded.hooks(),
        )


def check_chain_name(name: str, family: int) -> None:
    """May a chain be called so [assert_valid_chain_name]?"""
    if len(name.encode()) > LONGEST_NAME:
        raise Refused(f"chain name `{name}' too long (must be under {LONGEST_NAME + 1} chars)")
    if name.startswith(("-", "!")):
        raise Refused(f"chain name not allowed to start with `{name[0]}'")
    if not name or is_target_name(name, family):
        raise Refused("chain name may not clash with target name")
    if not BLANKS.isdisjoint(name):
        raise Refused(f"Invalid chain name `{name}'")


def _scan(text: str) -> int | None:
    """sscanf("%llu"): digits at the beginning, a sign allowed."""
    stripped = text.lstrip("".join(BLANKS))
    sign, digits = (stripped[0], stripped[1:]) if stripped[:1] in ("+", "-") else ("", stripped)
    end = 0
    while end < len(digits) and "0" <= digits[end] <= "9":
        end += 1
    if not end:
        return None
    value = min(int(digits[:end]), 0xFFFFFFFFFFFFFFFF)
    return -value & 0xFFFFFFFFFFFFFFFF if sign == "-" else value
