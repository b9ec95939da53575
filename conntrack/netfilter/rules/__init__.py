"""Rules: iptables-restore text in, chains to walk, iptables-save text out.

text ─► restore ─► line ─► words, getopt ─► Rule values in Chains, Tables, a Ruleset ─► walk
                     └──► registry ─► matches/, targets/

load(text, family)  the Ruleset, or RuleError with line, column and the offending text
walk(table, chain, skb, hook, box)  what a chain says to a packet
"""

from .errors import RuleError
from .restore import load
from .ruleset import Chain, Ruleset, Table
from .walk import walk

__all__ = ["Chain", "RuleError", "Ruleset", "Table", "load", "walk"]
