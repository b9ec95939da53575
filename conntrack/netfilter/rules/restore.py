"""iptables-restore: rules text to a Ruleset.

    *table        begins a transaction and empties the table        -A -I -D -N -P -F -X -Z …   commands
    :CHAIN POLICY [packets:octets]   sets a policy, or makes or empties a user chain
    COMMIT        the transaction is checked as the kernel would, and done

One rule: the commands of a transaction are tried in their order, so a chain must exist before a rule jumps to it;
what the kernel checks over the whole (jumps too deep or in a circle, targets out of place) is checked at COMMIT.

Sources: xtables-restore.c, nft.c (nft_prepare and what it calls), nft-cmd.c of iptables 1.8.9; nf_tables_api.c
(nft_chain_validate).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ...verdict import ACCEPT, DROP
from ..timeouts import NO_POLICIES, Policies
from .errors import Refused, RuleError
from .line import Command, check_chain_name, parse_line
from .rule import Counter, Rule
from .ruleset import BUILT_IN, Chain, Ruleset, Table
from .words import split

_LONGEST_LINE: Final = 10239  # fgets' buffer in xtables-restore.c; the rest would be read as a further line
_DEEPEST: Final = 16  # NFT_JUMP_STACK_SIZE


def load(
    text: str,
    family: int,
    base: Ruleset | None = None,
    counters: bool = False,
    policies: Policies = NO_POLICIES,
) -> Ruleset:
    """What iptables-restore (family 4) or ip6tables-restore (6) makes of `text`.

    base      what stood before: tables that the text does not name stay (and are shared with the result)
    counters  take the counters of the text, as -c
    policies  of timeouts, by name: what -j CT --timeout may name

    Raises RuleError with line, column and the offending words for all that the tools or the kernel would refuse,
    and for matches, targets and host names that are not known here.
    """
    ruleset = Ruleset(family, dict(base.tables) if base is not None else None)
    state: _Transaction | None = None
    number = 0
    for number, line in enumerate(_lines(text), 1):
        if len(line) > _LONGEST_LINE:
            raise RuleError(number, 1, line[:40] + "…", "line too long")
        if line[0] == "\n" or line[0] == "#":
            continue
        if state is not None and line.rstrip("\n") == "COMMIT":
            state.commit(ruleset)
            state = None
        elif state is None and line[0] == "*":
            state = _Transaction(_table_name(line, number), family, counters, policies)
        elif state is None:
            raise RuleError(number, 1, line.strip(), "no table: a line * must come first")
        elif line[0] == ":":
            state.chain_line(line, number)
        else:
            state.command_line(line, number)
    if state is not None:
        raise RuleError(number + 1, 1, "", "COMMIT expected")
    return ruleset


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, as fgets gives them: nothing but a line feed ends one."""
    *whole, rest = text.split("\n")
    yield from (line + "\n" for line in whole)
    if rest:
        yield rest


def _tokens(line: str) -> list[str]:
    """The words of a * or : line [strtok]."""
    return [word for word in re.split("[ \t\n]", line) if word]


def _table_name(line: str, number: int) -> str:
    name = next(iter(_tokens(line[1:])), "")
    if name not in BUILT_IN:
        raise RuleError(number, 2, name, f"table name `{name}' invalid")
    return name


class _Transaction:
    """One table between `*` and COMMIT."""

    def __init__(
        self, table: str, family: int, counters: bool, policies: Policies
    ) -> None:
        self.table = Table(table)
        self.policies = policies
        self.exists = False
        self.family = family
        self.counters = counters
        self.jumps: list[tuple[Command, Chain, Rule]] = []  # every rule that was added, for complaints

    # --- lines -----------------------------------------------------------------------------------------

    def chain_line(self, line: str, number: int) -> None:
        """`:CHAIN POLICY [packets:octets]`."""
        words = _tokens(line[1:])
        if not words:
            raise RuleError(number, 1, ":", "chain name invalid")
        name = words[0]
        column = line.index(name) + 1
        try:
            check_chain_name(name, self.family)
        except Refused as refused:
            raise RuleError(number, column, name, refused.message) from None
        if len(words) < 2:
            raise RuleError(number, column, name, "policy invalid")
        self.exists = True
        if name not in BUILT_IN[self.table.name]:
            chain = self.table.chains.setdefault(name, Chain(name))
            chain.rules.clear()
            return
        counter = Counter()
        if self.counters:
            values = _counters(words[2]) if len(words) > 2 else None
            if values is None:
                raise RuleError(number, column, name, f"invalid policy counters for chain '{name}'")
            counter = Counter(*values)
        self._set_policy(name, words[1], counter, RuleError(number, column, words[1], "Bad policy name."))

    def command_line(self, line: str, number: int) -> None:
        """A command, perhaps with counters in brackets before it."""
        start, counters = 0, None
        if line[0] == "[":
            end = line.find("]")
            packets, colon, octets = line[1:end].partition(":")
            if end < 0 or not colon or not packets or not octets:
                raise RuleError(number, 1, _tokens(line)[0], "Bad line: need [packets:octets]")
            start = end + 1
            if self.counters:
                counters = packets, octets
        words = split(line, number, start)
        self._do(parse_line(words, number, self.family, self.table.name, counters, self.policies))

    def _set_policy(self, name: str, policy: str, counter: Counter, error: RuleError) -> None:
        if policy not in (ACCEPT, DROP, "-"):
            raise error
        chain = self._base(name)
        if policy != "-":
            chain.policy = policy
        chain.counter = counter

    # --- commands --------------------------------------------------------------------------------------

    def _do(self, command: Command) -> None:
        chains = self.table.chains
        name = command.chain
        if command.kind in "ADCIR" and command.kind:
            for rule in command.rules:
                if rule.jump and rule.jump not in chains and rule.jump not in BUILT_IN[self.table.name]:
                    raise command.error(f"Chain '{rule.jump}' does not exist")
        match command.kind:
            case "A" | "I":
                self._add(command)
            case "D" | "C":
                self._delete(command)
            case "R":
                raise command.error("-R of a rule of the same text: iptables-restore cannot do it")
            case "N":
                self.exists = True
                if name in chains or name in BUILT_IN[self.table.name]:
                    raise command.error("Chain already exists.")
                chains[name] = Chain(name)
            case "P":
                if name not in BUILT_IN[self.table.name]:
                    raise command.error("Bad built-in chain name.")
                self._set_policy(name, command.policy, Counter(), command.error("Bad policy name."))
            case "E":
                raise command.error("CHAIN_RENAME failed (No such file or directory)")
            case "F":
                self._flush(command)
            case "X":
                self._delete_chains(command)
            case "L" | "S":
                raise command.error(f"-{command.kind} prints rules: it has no place in rules text")
            case "Z":
                self._zero(command)

    def _base(self, name: str) -> Chain:
        """The built-in chain `name`, made if it was not there."""
        self.exists = True
        return self.table.chains.setdefault(name, Chain(name, BUILT_IN[self.table.name][name]))

    def _chain(self, command: Command, make: bool = False) -> Chain:
        name = command.chain
        if make and name in BUILT_IN[self.table.name]:
            return self._base(name)
        self.exists = self.exists or make
        chain = self.table.chains.get(name)
        if chain is None:
            raise command.error("No chain/target/match by that name.")
        return chain

    def _add(self, command: Command) -> None:
        if not command.rules:
            return
        chain = self._chain(command, make=True)
        for rule in command.rules:
            if chain.hook >= 0 and rule.hooks and chain.hook not in rule.hooks:
                raise command.error(f"RULE_APPEND failed (Invalid argument): rule in chain {chain.name}")
            if rule.jump in BUILT_IN[self.table.name]:
                raise command.error(f"RULE_APPEND failed (Operation not supported): jump to {rule.jump}")
            at = len(chain.rules)
            if command.kind == "I":
                if command.number - 1 > len(chain.rules):
                    raise command.error("Index of insertion too big.")
                at = command.number - 1
            chain.rules.insert(at, rule)
            self.jumps.append((command, chain, rule))

    def _delete(self, command: Command) -> None:
        if command.number:
            rules = self._chain(command).rules
            if command.number > len(rules):
                raise command.error("Index of deletion too big.")
            del rules[command.number - 1]
            return
        for rule in command.rules:
            chain = self.table.chains.get(command.chain)
            if chain is None or rule not in chain.rules:
                raise command.error("Bad rule (does a matching rule exist in that chain?).")
            if command.kind == "D":
                chain.rules.remove(rule)

    def _flush(self, command: Command) -> None:
        # Without a chain the tool looks whether the table was there before the text, finds that * has emptied it,
        # and leaves what the text itself has put into it.
        if command.chain:
            self._chain(command, make=True).rules.clear()

    def _zero(self, command: Command) -> None:
        chains = [self._chain(command)] if command.chain else list(self.table.chains.values())
        if command.number:
            if command.number <= len(chains[0].rules):
                raise command.error("-Z of a rule of the same text: iptables-restore cannot do it")
            return  # no such rule: the tool does not mind
        for chain in chains:
            if chain.hook >= 0:
                # written back as the tool knows it: without the policy that the text gave it
                chain.counter, chain.policy = Counter(), ACCEPT
            if any(rule.counter.save() != (0, 0) for rule in chain.rules):
                raise command.error(f"RULE_REPLACE failed (Invalid argument): rule in chain {chain.name}")

    def _delete_chains(self, command: Command) -> None:
        chains = self.table.chains
        doomed = [self._chain(command)] if command.chain else list(chains.values())
        for chain in doomed:
            keep = chain.hook >= 0 and chain.rules
            if keep and command.chain:
                raise command.error("Directory not empty.")
            if not keep:
                del chains[chain.name]
            if chain.hook < 0:
                if chain.rules or self._referenced(chain.name):
                    raise command.error(f"CHAIN_DEL failed (Device or resource busy): chain {chain.name}")

    def _referenced(self, name: str) -> bool:
        return any(rule.jump == name for chain in self.table.chains.values() for rule in chain.rules)

    # --- COMMIT ----------------------------------------------------------------------------------------

    def commit(self, ruleset: Ruleset) -> None:
        """Check the whole as the kernel does and put it into `ruleset`."""
        for chain in self.table.chains.values():
            if chain.hook >= 0:
                self._validate(chain, chain.hook, (), {})
        ruleset.tables.pop(self.table.name, None)
        if self.exists:
            ruleset.tables[self.table.name] = self.table

    def _validate(self, chain: Chain, hook: int, above: tuple[str, ...], seen: dict[str, int]) -> None:
        """Follow every jump [nft_chain_validate]; `seen`: how deep each chain was found to be in order."""
        if seen.get(chain.name, -1) >= len(above):
            return
        for rule in chain.rules:
            if rule.hooks and hook not in rule.hooks:
                raise self._complaint(rule, f"RULE_APPEND failed (Invalid argument): rule in chain {chain.name}")
            if rule.jump:
                if len(above) + 1 >= _DEEPEST or rule.jump in above or rule.jump == chain.name:
                    raise self._complaint(rule, f"RULE_APPEND failed (Too many links): rule in chain {chain.name}")
                self._validate(self.table.chains[rule.jump], hook, (*above, chain.name), seen)
        seen[chain.name] = len(above)

    def _complaint(self, rule: Rule, message: str) -> RuleError:
        for command, _, known in self.jumps:
            if known is rule:
                return command.error(message)
        return RuleError(1, 1, rule.text, message)


def _counters(text: str) -> tuple[int, int] | None:
    """`[packets:octets]`."""
    found = re.match(r"\[\s*([0-9]+):\s*([0-9]+)", text, re.ASCII)
    return None if found is None else (int(found[1]), int(found[2]))
