"""The registry of matches and targets: what the words behind -m and -j mean.

An extension is one file in `matches/` or `targets/` that holds `EXTENSION = Extension(…)`, or several `EXTENSIONS`.
Nothing else has to be told: the files found there are the registry.  Such a file has

    a frozen dataclass   name, text() and matches(skb, hook, box) or apply(skb, hook, box): the value in the rule
    its options          name, argument's parser, whether ! may stand before it, what it excludes
    a builder            from what was given to the value, or `Refused`

What the kernel checks beyond the tool's own checks is declared beside them: the table, the hooks from which the
extension may be reached, the protocol that -p has to name.  `tracks` says that a rule with it switches connection
tracking on.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Final

from .extension import Extension

# Every target that iptables 1.8.9 installs: no chain may be called so, whether it is known here or not.
_NAMES = """
    ACCEPT AUDIT CHECKSUM CLASSIFY CONNMARK CONNSECMARK CT DNAT DROP DSCP HMARK IDLETIMER LED LOG MARK MASQUERADE
    NETMAP NFLOG NFQUEUE NOTRACK QUEUE RATEEST REDIRECT REJECT RETURN SECMARK SET SNAT SYNPROXY TCPMSS TCPOPTSTRIP
    TEE TOS TPROXY TRACE standard
"""
_TARGET_NAMES: Final = frozenset(_NAMES.split())
_TARGET_NAMES_OF: Final = {4: frozenset(("CLUSTERIP", "ECN", "TTL", "ULOG")), 6: frozenset(("DNPT", "HL", "SNPT"))}


def find(kind: str, name: str, family: int) -> Extension | None:
    """The extension called `name` for rules of `family`."""
    return _registry().get((kind, name, family))


def is_target_name(name: str, family: int) -> bool:
    """Is `name` that of a target of iptables?"""
    return name in _TARGET_NAMES or name in _TARGET_NAMES_OF[family]


@functools.cache  # found once, when the first rule asks: the files import this package themselves
def _registry() -> dict[tuple[str, str, int], Extension]:
    found: dict[tuple[str, str, int], Extension] = {}
    for package_name in ("matches", "targets"):
        package = importlib.import_module(f"...{package_name}", __name__)
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            extensions: Iterable[Extension] = getattr(module, "EXTENSIONS", ())
            if hasattr(module, "EXTENSION"):
                extensions = (module.EXTENSION,)
            for extension in extensions:
                for family in extension.families:
                    found[extension.kind, extension.name, family] = extension
    return found
