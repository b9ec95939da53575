"""Routes as people write them: the text of `ip route add`, into a `Route` not yet checked against the box.

    default via 198.51.100.254 dev out0         unreachable 10.9.0.0/16
    192.0.2.0/24 dev in0 src 10.0.0.1 metric 100 mtu 1400 proto static scope link onlink

One rule: what is not understood is refused, with the text and the reason.

Sources: ip-route(8); iproute.c of iproute2 for the scope and table that a kind of route gets when none is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from .addresses import HOST, LINK, SCOPES
from .fib import KINDS, REJECTS, Route

_VERBS = frozenset(("add", "replace", "change", "del", "delete", "append", "prepend"))
_METRIC6 = 1024  # IP6_RT_PRIO_USER
# Words with a value that changes nothing here.
_IDLE = frozenset(
    ("pref", "advmss", "hoplimit", "rtt", "rttvar", "window", "cwnd", "initcwnd", "initrwnd", "realm")
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a text asks for: the verb ("add" if none stands there), the route, and which words were given."""

    text: str
    verb: str
    family: int
    route: Route
    given: frozenset[str]


def parse_route(text: str) -> Request:
    """Read a route; raises ValueError quoting the text and saying what is wrong with it."""
    words = text.split()
    verb, family = "add", 0
    while words and words[0] in ("ip", "route", "-4", "-6", *_VERBS):
        word = words.pop(0)
        family = int(word[1]) if word[0] == "-" else family
        verb = word if word in _VERBS else verb
    given = frozenset(("kind",)) if words and words[0] in KINDS else frozenset()
    kind = words.pop(0) if given else "unicast"
    if words and words[0] == "to":
        words.pop(0)
    if not words:
        raise ValueError(f"route {text!r}: no destination")
    target = words.pop(0)
    options = _options(text, words)
    family = family or _family(target, options)
    route = _destination(text, target, family, kind)
    return Request(text, verb, family, _apply(text, route, options, family), given | options.keys())


def _options(text: str, words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "onlink":
            options[word] = "yes"
            continue
        word = {"preference": "metric", "priority": "metric", "protocol": "proto"}.get(word, word)
        if word in ("nexthop", "nhid", "encap", "tos", "dsfield", "from") or word in options:
            raise ValueError(f"route {text!r}: {word!r} is not supported")
        value = next(rest, "")
        if word == "mtu" and value == "lock":
            value = next(rest, "")
        if word == "via" and value in ("inet", "inet6"):
            options["via family"] = value
            value = next(rest, "")
        if not value:
            raise ValueError(f"route {text!r}: {word!r} stands without a value")
        if word not in ("via", "dev", "src", "metric", "mtu", "proto", "scope", "table", *_IDLE):
            raise ValueError(f"route {text!r}: {word!r} is not understood")
        options[word] = value
    return options


def _family(target: str, options: dict[str, str]) -> int:
    for word in (target, options.get("via", ""), options.get("src", "")):
        if ":" in word:
            return 6
    return 4


def _destination(text: str, target: str, family: int, kind: str) -> Route:
    if target in ("default", "any", "all"):
        target = "0.0.0.0/0" if family == 4 else "::/0"
    try:
        network = ip_network(target, strict=family == 4)
    except ValueError as error:
        raise ValueError(f"route {text!r}: {error}") from None
    if network.version != family:
        raise ValueError(f"route {text!r}: {target!r} is no IPv{family} prefix")
    return Route(kind=kind, prefix=network.network_address.packed, prefix_length=network.prefixlen)


def _apply(text: str, route: Route, options: dict[str, str], family: int) -> Route:
    kind = route.kind
    table = options.get("table", "local" if kind in ("local", "broadcast", "anycast") else "main")
    table = {"255": "local", "254": "main"}.get(table, table)
    if table not in ("local", "main"):
        raise ValueError(f"route {text!r}: table {table!r} is not supported, only local and main")
    scope = 0
    if family == 4:
        scope = HOST if kind == "local" else LINK if kind in ("broadcast", "multicast", "anycast") else 0
        if kind == "unicast" and "via" not in options:
            scope = LINK
        if "scope" in options:
            if options["scope"] not in SCOPES and not options["scope"].isdecimal():
                raise ValueError(f"route {text!r}: {options['scope']!r} is no scope")
            scope = SCOPES[options["scope"]] if options["scope"] in SCOPES else int(options["scope"])
    gateway = _address(text, options.get("via", ""), family)
    device = options.get("dev", "")
    if kind in REJECTS and (gateway or device) and family == 4:
        raise ValueError(f"route {text!r}: a route of type {kind} has neither gateway nor device")
    if "via family" in options and options["via family"] != ("inet" if family == 4 else "inet6"):
        raise ValueError(f"route {text!r}: a gateway of the other family is not supported")
    metric = _number(text, options, "metric")
    return replace(
        route,
        table=table,
        scope=scope,
        gateway=gateway,
        iface=device,
        source=_address(text, options.get("src", ""), family),
        metric=_METRIC6 if family == 6 and not metric else metric,
        mtu=_number(text, options, "mtu"),
        protocol=options.get("proto", "boot"),
        onlink="onlink" in options,
    )


def _address(text: str, word: str, family: int) -> bytes:
    if not word:
        return b""
    try:
        address = ip_address(word)
    except ValueError:
        raise ValueError(f"route {text!r}: {word!r} is no address") from None
    if address.version != family:
        raise ValueError(f"route {text!r}: {word!r} is no IPv{family} address")
    return address.packed


def _number(text: str, options: dict[str, str], name: str) -> int:
    word = options.get(name, "0")
    try:
        number = int(word, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 2**32:
        raise ValueError(f"route {text!r}: {name} {word!r} is no number")
    return number
