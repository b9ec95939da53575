"""Tables, chains, and the whole of one family's rules.

One rule: what exists here is what exists in nf_tables after iptables-restore.  A table is there once a chain was
made in it, a built-in chain once something was done with it; only then does it stand on its hook.

Source: xtables_ipv4 and nft_chain_save (nft.c) of iptables 1.8.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ...verdict import ACCEPT, FORWARD, LOCAL_IN, LOCAL_OUT, POSTROUTING, PREROUTING
from .rule import Counter, Rule

# Tables in the order in which iptables-save prints them, their built-in chains in the order of the hooks.
_PRE, _IN, _FWD = ("PREROUTING", PREROUTING), ("INPUT", LOCAL_IN), ("FORWARD", FORWARD)
_OUT, _POST = ("OUTPUT", LOCAL_OUT), ("POSTROUTING", POSTROUTING)
BUILT_IN: Final[dict[str, dict[str, int]]] = {
    "mangle": dict((_PRE, _IN, _FWD, _OUT, _POST)),
    "security": dict((_IN, _FWD, _OUT)),
    "raw": dict((_PRE, _OUT)),
    "filter": dict((_IN, _FWD, _OUT)),
    "nat": dict((_PRE, _IN, _OUT, _POST)),
}


@dataclass(slots=True, eq=False)
class Chain:
    """Rules in order.  A built-in chain has a hook (else -1) and a policy, ACCEPT or DROP.

    counter  of packets that reached the policy; None where nf_tables keeps none
    """

    name: str
    hook: int = -1
    policy: str = ACCEPT
    counter: Counter | None = None
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Table:
    """One table: its chains by name.  Not in `chains`: does not exist."""

    name: str
    chains: dict[str, Chain] = field(default_factory=dict)

    def base(self, hook: int) -> Chain | None:
        """The built-in chain on `hook`, None if it does not exist."""
        for name, its_hook in BUILT_IN[self.name].items():
            if its_hook == hook:
                return self.chains.get(name)
        return None

    def ordered(self) -> Iterator[Chain]:
        """Chains as they are printed: all built-in ones, existing or not, then user chains by their octets."""
        for name, hook in BUILT_IN[self.name].items():
            yield self.chains.get(name) or Chain(name, hook)
        users = [chain for chain in self.chains.values() if chain.hook < 0]
        yield from sorted(users, key=lambda chain: chain.name.encode())


class Ruleset:
    """All rules of one family, 4 or 6.  `tables` has those that exist.

    >>> from conntrack.netfilter.rules import load
    >>> rules = load("*filter\\n-A FORWARD -p tcp --syn -j DROP\\nCOMMIT\\n", 4)
    >>> print(rules.save())
    *filter
    :INPUT ACCEPT [0:0]
    :FORWARD ACCEPT [0:0]
    :OUTPUT ACCEPT [0:0]
    -A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
    COMMIT
    <BLANKLINE>
    """

    def __init__(self, family: int, tables: dict[str, Table] | None = None) -> None:
        self.family = family
        self.tables: dict[str, Table] = tables or {}

    def base(self, table: str, hook: int) -> tuple[Table, Chain] | None:
        """The table and its chain on `hook`, None if nothing stands there."""
        found = self.tables.get(table)
        chain = found.base(hook) if found is not None else None
        return None if found is None or chain is None else (found, chain)

    def rules(self) -> Iterator[tuple[str, str, int, Rule]]:
        """(table, chain, number from 1, rule) of every rule."""
        for name, table in self.tables.items():
            for chain in table.chains.values():
                for at, rule in enumerate(chain.rules, 1):
                    yield name, chain.name, at, rule

    @property
    def needs_conntrack(self) -> bool:
        """Are the hooks of defragmentation and connection tracking registered because of these rules?

        A rule that cannot be reached counts; a chain of the table nat does not, nor a lone NOTRACK.
        """
        return any(rule.tracks for _, _, _, rule in self.rules())

    @property
    def has_nat(self) -> bool:
        """Are NAT's hooks registered?  Then even packets that no rule matches get a null binding."""
        nat = self.tables.get("nat")
        return nat is not None and any(chain.hook >= 0 for chain in nat.chains.values())

    def save(self, counters: bool = False) -> str:
        """The text of iptables-save, without its two comments with the date; with `counters` as with -c."""
        lines = []
        for name in BUILT_IN:
            table = self.tables.get(name)
            if table is None:
                continue
            chains = list(table.ordered())
            lines.append(f"*{name}")
            for chain in chains:
                policy = chain.policy if chain.hook >= 0 else "-"
                lines.append(f":{chain.name} {policy} {chain.counter or Counter()}")
            for chain in chains:
                for rule in chain.rules:
                    prefix = f"{rule.counter} " if counters else ""
                    lines.append(f"{prefix}-A {chain.name} {rule.text}".rstrip())
            lines.append("COMMIT")
        return "".join(line + "\n" for line in lines)
