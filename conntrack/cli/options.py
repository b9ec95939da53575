"""Option texts to values: NAT rules and sysctl settings as the command line writes them.

A rule is `TO[,name=value…]`, the names those of the rule's fields:

    --snat 198.51.100.1-198.51.100.9,source=10.0.0.0/8,protocol=tcp,ports=1024-2047,random
    --dnat 10.0.0.5,destination=198.51.100.1,protocol=tcp,dport=8080,ports=80
    --redirect 3128,protocol=tcp,dport=80
    --netmap 10.1.0.0/24,source=192.168.0.0/24
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..nat.rules import Dnat, Masquerade, NatRule, Netmap, Redirect, Snat

# What `--inside` means when it is not given: RFC 1918, RFC 6598 and RFC 4193 addresses.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")


def parse_rule(kind: type[Snat] | type[Dnat] | type[Redirect] | type[Netmap], text: str) -> NatRule:
    """The rule that `text` writes; ValueError quotes what is wrong."""
    known = {field.name for field in fields(kind)}
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals:
            if name in ("random", "persistent") and name in known:
                values[name] = True
                continue
            name, value = "to", name
        if name not in known:
            raise ValueError(f"{text!r}: unknown part {part!r}")
        if name in values:
            raise ValueError(f"{text!r}: {name} is given twice")
        if name == "base":
            if not value.isdigit():
                raise ValueError(f"{text!r}: base {value!r} is no number")
            values[name] = int(value)
        elif name in ("random", "persistent"):
            raise ValueError(f"{text!r}: {name} takes no value")
        else:
            values[name] = value
    if "to" not in values and kind is not Redirect:
        raise ValueError(f"{text!r}: what to translate to is missing")
    return kind(**values)


def outbound(inside: Sequence[str], family: int) -> dict[str, Any]:
    """The match "from inside, to elsewhere" for one family, as `Rule` fields."""
    nets = [text for text in inside if (":" in text) == (family == 6)]
    return {"source": nets, "destination": ["!" + text for text in nets]} if nets else {}


def masquerades(addresses: Sequence[str], inside: Sequence[str]) -> list[NatRule]:
    """One Masquerade per address, for what comes from inside and leaves it."""
    rules: list[NatRule] = []
    for address in addresses:
        match = outbound(inside, 6 if ":" in address else 4)
        if match:
            rules.append(Masquerade(address, **match))
    return rules


def with_inside(rule: NatRule, inside: Sequence[str]) -> NatRule:
    """`rule` itself, or, if it is an Snat that names no source, limited to what leaves `inside`."""
    if isinstance(rule, Snat) and rule.source is None:
        match = outbound(inside, 6 if ":" in rule.to else 4)
        if match and rule.destination is None:
            values = {field.name: getattr(rule, field.name) for field in fields(rule)}
            return Snat(**{**values, **match})
    return rule


def parse_sysctls(texts: Sequence[str]) -> dict[str, int | str]:
    """NAME=VALUE texts as a mapping; ValueError quotes one without "="."""
    values: dict[str, int | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--sysctl {text!r}: NAME=VALUE expected")
        values[name.strip()] = value.strip()
    return values
