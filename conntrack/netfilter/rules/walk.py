"""Walking a chain: rule after rule, into user chains and back, to a verdict.

One rule: this is nf_tables' interpreter.  A rule counts when all its conditions hold, before its target acts.
The end of a user chain, and RETURN, go back behind the jump that led there; `goto` leaves no way back.  Where there
is no way back the base chain's policy decides.

Sources: nft_do_chain (nf_tables_core.c), nft_compat.c (__nft_match_eval, nft_target_eval_xt) of Linux 6.18.
"""

from __future__ import annotations

from ... import verdict
from ..box import CONTINUE, RETURN, Box
from ..skb import Skb
from .ruleset import Chain, Table


def walk(table: Table, base: Chain, skb: Skb, hook: int, box: Box) -> str:
    """What `base`, a built-in chain of `table`, says to the packet at `hook`: verdict.ACCEPT or verdict.DROP."""
    way_back: list[tuple[Chain, int]] = []
    chain, at = base, 0
    while True:
        if at == len(chain.rules):
            if not way_back:
                break
            chain, at = way_back.pop()
            continue
        rule = chain.rules[at]
        at += 1
        if not rule.selects(skb, hook, box):
            if skb.packet.verdict == verdict.DROP:  # a match could not stand it (hotdrop)
                return verdict.DROP
            continue
        box.touch(rule.counter)
        rule.counter.count(skb.packet.length)
        if rule.jump:
            if not rule.goto:
                way_back.append((chain, at))
            chain, at = table.chains[rule.jump], 0
        elif rule.target is not None:
            said = rule.target.apply(skb, hook, box)
            if said == RETURN:
                if not way_back:
                    break
                chain, at = way_back.pop()
            elif said != CONTINUE:
                return said
    if base.counter is not None:
        box.touch(base.counter)
        base.counter.count(skb.packet.length)
    return base.policy
