"""The tool's own options: their spellings, and what may stand beside what.

Source: xtables.c (original_opts), xshared.h (IPT_OPTSTRING), xshared.c (commands_v_options, inverse_for_options) of
iptables 1.8.9.
"""

from __future__ import annotations

from typing import Final

from .getopt import NONE, OPTIONAL, REQUIRED, Long

SHORT: Final = {
    **dict.fromkeys("ACDEIMNPRcdgijmopst", REQUIRED),
    **dict.fromkeys("FLSWXZhw", OPTIONAL),
    **dict.fromkeys("46Vbfnvx", NONE),
}
_NAMES = """
    append:A delete:D check:C insert:I replace:R list:L list-rules:S flush:F zero:Z new-chain:N delete-chain:X
    rename-chain:E policy:P source:s destination:d src:s dst:d protocol:p in-interface:i jump:j table:t match:m
    numeric:n out-interface:o verbose:v wait:w wait-interval:W exact:x fragments:f version:V help:h line-numbers:0
    modprobe:M set-counters:c goto:g ipv4:4 ipv6:6
"""
LONG: Final = tuple(
    Long(name, SHORT.get(letter, NONE), letter) for name, letter in (entry.split(":") for entry in _NAMES.split())
)

COMMANDS: Final = frozenset("ACDEFILNPRSXZ")
# These end the tool, or belong to its command line: they have no place in a rules text.
NOWHERE: Final = frozenset("tVhwWMb")
# Which options a command may have beside -v; -m and its kin are not asked about.
_RULE_OPTIONS: Final = frozenset("sdpjiocf")
ALLOWED: Final = {
    **dict.fromkeys("AIR", _RULE_OPTIONS),
    **dict.fromkeys("DC", _RULE_OPTIONS - {"c"}),
    "P": frozenset("c"),
    "L": frozenset("nx0"),
}
INVERTIBLE: Final = frozenset("sdpiof")
