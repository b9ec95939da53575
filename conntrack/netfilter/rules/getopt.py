"""getopt_long as the tools call it: words in, options out, in the order in which they stand.

One rule: it is asked for one option at a time, with the long options known at that moment, because `-m`, `-j` and
`-p` add options while a line is being read.

A long option may be shortened as long as it stays unambiguous; an exact name wins, and among equal names the one
that was added last.  A word that is no option comes out as OPERAND.

Source: glibc's getopt.c with an option string that begins with "-:", as in xshared.h (IPT_OPTSTRING).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .words import Word

NONE, REQUIRED, OPTIONAL = 0, 1, 2  # argument
OPERAND: Final = "operand"
UNKNOWN: Final = "unknown"
MISSING: Final = "missing"  # an option without the argument it needs


class Long(NamedTuple):
    """A long option: its name, whether it takes an argument, and what it stands for."""

    name: str
    argument: int
    key: object


class Found(NamedTuple):
    """What stands next: `key` of the option (a letter or a Long's key) or OPERAND, UNKNOWN, MISSING.

    word  the word it stands in        value  its argument, None without one
    bare  the argument is a word of its own (-j X, not -jX)
    """

    key: object
    word: Word
    value: Word | None = None
    bare: bool = False


class Getopt:
    """Reads `words`; `short` maps the letters of short options to NONE, REQUIRED or OPTIONAL."""

    def __init__(self, words: Sequence[Word], short: dict[str, int]) -> None:
        self.words = words
        self._short = short
        self.at = 0  # the next word
        self._inside = 0  # offset in a cluster of short options, 0 outside

    def next(self, long: Sequence[Long]) -> Found | None:
        """The next option, or None at the end (or behind `--`)."""
        if self._inside:
            return self._cluster()
        if self.at >= len(self.words):
            return None
        word = self.words[self.at]
        if word.text == "--":
            self.at += 1
            return None
        if not word.text.startswith("-") or word.text == "-":
            self.at += 1
            return Found(OPERAND, word, word)
        if word.text.startswith("--"):
            return self._long(word, long)
        self._inside = 1
        return self._cluster()

    def again(self) -> None:
        """Back to the word just read, because more options are known now."""
        self.at -= 1
        self._inside = 0

    def operand_follows(self) -> bool:
        """Is the next word neither an option nor a `!` [xs_has_arg]?"""
        return self.at < len(self.words) and not self.words[self.at].text.startswith(("-", "!"))

    def take(self) -> Word:
        """The next word, whatever it is."""
        word = self.words[self.at]
        self.at += 1
        return word

    def _cluster(self) -> Found:
        word = self.words[self.at]
        letter = word.text[self._inside]
        self._inside += 1
        rest = word.text[self._inside :]
        if not rest:
            self.at += 1
            self._inside = 0
        takes = self._short.get(letter)
        if takes is None:
            return Found(UNKNOWN, word)
        if takes == NONE:
            return Found(letter, word)
        value: Word | None = None
        if rest:
            value = Word(rest, word.column + len(word.text) - len(rest))
            self.at += 1
            self._inside = 0
        elif takes == REQUIRED:
            if self.at >= len(self.words):
                return Found(MISSING, word)
            return Found(letter, word, self.take(), True)
        return Found(letter, word, value)

    def _long(self, word: Word, long: Sequence[Long]) -> Found:
        self.at += 1
        name, equals, given = word.text[2:].partition("=")
        option = _lookup(name, long)
        if option is None or (equals and option.argument == NONE):
            return Found(UNKNOWN, word)
        if equals:
            return Found(option.key, word, Word(given, word.column + len(name) + 3))
        if option.argument != REQUIRED:
            return Found(option.key, word)
        if self.at >= len(self.words):
            return Found(MISSING, word)
        return Found(option.key, word, self.take(), True)


def _lookup(name: str, long: Sequence[Long]) -> Long | None:
    """The option called `name`, or the only one that begins so."""
    begun = [option for option in long if option.name.startswith(name)]
    for option in begun:
        if option.name == name:
            return option
    if begun and all(option[1:] == begun[0][1:] for option in begun):
        return begun[0]
    return None
