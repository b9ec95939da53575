"""RuleError: what a rules text is refused with, and where.

Parsers deep inside know what is wrong but not where they stand: they raise `Refused`.  The line that is being read
turns it into a RuleError with line, column and the offending text.
"""

from __future__ import annotations


class RuleError(ValueError):
    """A rules text that iptables-restore would refuse, or that asks for what is not known here.

    line, column  where, both counted from 1           text     the offending words as they stand there
    message       why, in the tool's spirit

    >>> print(RuleError(2, 14, "--dport", 'unknown option "--dport"'))
    line 2, column 14: unknown option "--dport": '--dport'
    """

    def __init__(self, line: int, column: int, text: str, message: str) -> None:
        self.line = line
        self.column = column
        self.text = text
        self.message = message
        super().__init__(f"line {line}, column {column}: {message}: {text!r}")


class Refused(Exception):
    """Why something cannot be; whoever knows the place makes a RuleError of it."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)
