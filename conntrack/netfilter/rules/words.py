"""A line of rules text cut into words, each with its column.

Words are separated by blanks.  Inside double quotes everything but `"` and the backslash, which takes the next
character as it is, belongs to the word.  A closing quote ends the word (`"a"b` is two words), an opening one does
not begin one (`a"b"` is `ab`).  Empty quotes are a word only where the line goes on.

Source: xshared.c (add_param_to_argv) of iptables 1.8.9.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .errors import RuleError

# From xshared.c and xtables.h: the buffer of one parameter, MAX_ARGC less what the tool adds in front.
LONGEST_WORD: Final = 1023
MOST_WORDS: Final = 251
LONGEST_NAME: Final = 28  # octets of the name of a chain, match or target: XT_EXTENSION_MAXNAMELEN - 1
BLANKS: Final = frozenset(" \t\n\v\f\r")  # isspace(3)
_PLAIN = re.compile("[^ \t\n]+")


class Word(NamedTuple):
    """One word and the column (from 1) at which it begins."""

    text: str
    column: int


def split(line: str, number: int, start: int = 0) -> list[Word]:
    """The words of `line` (its number is `number`) from offset `start` on; RuleError for what is too long."""
    if '"' not in line:  # most lines: the same, quickly
        return _limited([Word(found[0], found.start() + 1) for found in _PLAIN.finditer(line, start)], number)
    words: list[Word] = []
    text: list[str] = []
    begin = -1
    quoted = escaped = False

    def finish() -> None:
        nonlocal begin
        words.append(Word("".join(text), begin + 1))
        text.clear()
        begin = -1

    for at in range(start, len(line)):
        char = line[at]
        if quoted:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
                continue
            elif char == '"':
                quoted = False
                finish()
                continue
        elif char == '"':
            quoted = True
            begin = at if begin < 0 else begin
            continue
        elif char in " \t\n":
            if text:
                finish()
            continue
        begin = at if begin < 0 else begin
        text.append(char)
    if text:
        finish()
    return _limited(words, number)


def _limited(words: list[Word], number: int) -> list[Word]:
    """The same words, unless they are too many or too long for the tool."""
    if len(words) > MOST_WORDS:
        raise RuleError(number, words[-1].column, words[-1].text, "Parser cannot handle more arguments")
    for word in words:
        if len(word.text) > LONGEST_WORD:
            raise RuleError(number, word.column, word.text[:40] + "…", "Parameter too long!")
    return words


def quote(text: str) -> str:
    """`text` as iptables-save prints a free text: bare if it is plain, else in quotes with escapes.

    >>> print(quote("dns"), quote("it's"), quote(""))
    dns "it\\'s" ""
    """
    if text and text.isascii() and all(char.isalnum() or char in "_-" for char in text):
        return text
    return '"' + "".join("\\" + char if char in "\"\\'" else char for char in text) + '"'


def cut(text: str, octets: int) -> str:
    """`text` cut to what fits into `octets` octets, as the tools cut a string that is too long."""
    return text.encode("utf-8", "surrogateescape")[:octets].decode("utf-8", "surrogateescape")
