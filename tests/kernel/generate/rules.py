"""Random rule sets as iptables-restore text.

One rule: what is drawn is always a text that iptables-restore takes; addresses and ports are those of `world.py`,
so that rules match.

    ruleset(rng, family, style) -> text     style: how NAT is done, and how much else there is
"""

from __future__ import annotations

import random

from .rules_nat import nat_table
from .world import CLIENTS, OWN, PUBLIC, SERVERS, SERVICES

Rng = random.Random

_BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
_LIMITS = {
    "PREROUTING": " --limit-iface-in",
    "INPUT": " --limit-iface-in",
    "OUTPUT": " --limit-iface-out",
    "POSTROUTING": " --limit-iface-out",
}
_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "NEW,RELATED")
_STATUSES = ("ASSURED", "CONFIRMED", "SEEN_REPLY", "EXPECTED", "NONE", "ASSURED,EXPECTED")
_REJECTS = {
    4: ("icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-port-unreachable",
        "icmp-net-prohibited", "icmp-host-prohibited", "icmp-admin-prohibited"),
    6: ("icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-port-unreachable",
        "icmp6-policy-fail", "icmp6-reject-route"),
}  # fmt: skip


def ruleset(rng: Rng, family: int, style: str) -> str:
    """A whole text of one family."""
    tables = []
    busy = {"none": 0.0, "plain": 0.25, "busy": 0.8}.get(style, 0.4)
    if rng.random() < busy * 0.7 or style == "zones":
        tables.append(_table(rng, family, "raw", style))
    if rng.random() < busy * 0.8:
        tables.append(_table(rng, family, "mangle", style))
    if style != "none" and rng.random() < 0.85:
        tables.append(nat_table(rng, family))
    if rng.random() < busy or style != "none":
        tables.append(_table(rng, family, "filter", style))
    if rng.random() < busy * 0.1:
        tables.append(_table(rng, family, "security", style))
    return "".join(tables)


def helper_rules(rng: Rng, family: int) -> str:
    """A raw table that gives flows to ports 21 and 69 their helpers."""
    del family
    lines = []
    for chain in ("PREROUTING", "OUTPUT"):
        lines.append(f"-A {chain} -p tcp -m tcp --dport 21 -j CT --helper ftp")
        lines.append(f"-A {chain} -p udp -m udp --dport 69 -j CT --helper tftp")
    if rng.random() < 0.2:
        lines = [line for line in lines if "OUTPUT" not in line]
    return "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n" + "\n".join(lines) + "\nCOMMIT\n"


def _table(rng: Rng, family: int, name: str, style: str) -> str:
    users = ["user1", "user2"][: rng.choice((0, 0, 1, 2))] if name in ("filter", "mangle") else []
    heads, rules = [], []
    for chain in _BUILT_IN[name]:
        policy = "DROP" if name == "filter" and rng.random() < 0.03 else "ACCEPT"
        heads.append(f":{chain} {policy} [0:0]")
        many = rng.choice((0, 1, 2, 3)) if style == "busy" else rng.choice((0, 0, 1, 2))
        rules += [_rule(rng, family, name, chain, users) for _ in range(many)]
    for user in users:
        heads.append(f":{user} - [0:0]")
        rules += [_rule(rng, family, name, user, []) for _ in range(rng.choice((1, 2)))]
    if name == "raw" and style == "zones":
        rules.insert(0, f"-A PREROUTING -j CT {_zone(rng)}")
    if name == "filter":
        # whatever else there is, tracking is on and most traffic passes
        rules.insert(0, "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
        if rng.random() < 0.3:
            rules.append("-A FORWARD -m conntrack --ctstate INVALID -j DROP")
    return f"*{name}\n" + "\n".join(heads + rules) + "\nCOMMIT\n"


def _rule(rng: Rng, family: int, table: str, chain: str, users: list[str]) -> str:
    proto, matches = _matches(rng, family, chain, table)
    return " ".join(
        part for part in (f"-A {chain}", matches, _target(rng, family, table, chain, proto, users)) if part
    )


# ── matches ─────────────────────────────────────────────────────────────────────────────────────────


def _matches(rng: Rng, family: int, chain: str, table: str) -> tuple[str, str]:
    """(protocol or "", words)."""
    words = []
    no = lambda: "! " if rng.random() < 0.15 else ""  # noqa: E731
    if rng.random() < 0.2:
        words.append(f"{no()}-s {address(rng, family)}")
    if rng.random() < 0.25:
        words.append(f"{no()}-d {address(rng, family)}")
    if rng.random() < 0.15 and chain in ("PREROUTING", "INPUT", "FORWARD"):
        words.append(f"{no()}-i {rng.choice(('in0', 'out0', 'in+', 'o+'))}")
    if rng.random() < 0.15 and chain in ("OUTPUT", "FORWARD", "POSTROUTING"):
        words.append(f"{no()}-o {rng.choice(('in0', 'out0', 'out+'))}")
    proto = ""
    if rng.random() < 0.6:
        proto, more = protocol(rng, family)
        words += more
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        words.append(_extra(rng, family, chain, table))
    return proto, " ".join(words)


def address(rng: Rng, family: int) -> str:
    """A host or a net."""
    hosts = (*CLIENTS[family], *SERVERS[family], *OWN[family].values(), *PUBLIC[family])
    nets = ("10.0.0.0/24", "203.0.113.0/24", "198.51.100.0/24", "10.0.0.2/31") if family == 4 else (
        "fd00:1::/64", "2600::/16", "2001:db8:2::/64", "2001:db8::/32")  # fmt: skip
    return rng.choice(hosts) if rng.random() < 0.5 else rng.choice(nets)


def protocol(rng: Rng, family: int) -> tuple[str, list[str]]:
    """(protocol, words)."""
    no = "! " if rng.random() < 0.1 else ""
    dice = rng.random()
    port = rng.choice(SERVICES)
    ports = rng.choice((str(port), f"{port}:{port + 1000}", "0:1023", "1024:65535", f":{port}"))
    side = rng.choice(("--dport", "--dport", "--sport"))
    if dice < 0.35:
        words = [f"-p tcp -m tcp {no}{side} {ports}"]
        words = rng.choice((
            words, words, ["-p tcp -m tcp --syn"], ["-p tcp -m tcp ! --syn"],
            ["-p tcp -m tcp --tcp-flags SYN,ACK,FIN,RST RST"], [f"-p tcp -m tcp {no}--tcp-option 3"],
            ["-p tcp -m tcp --tcp-flags ALL NONE"],
        ))  # fmt: skip
        return "tcp", words
    if dice < 0.6:
        return "udp", [f"-p udp -m udp {no}{side} {ports}"]
    if dice < 0.75:
        if family == 6:
            return "icmpv6", [
                f"-p ipv6-icmp -m icmp6 {no}--icmpv6-type {rng.choice(('128', '129', '1', '2', '3/0'))}"
            ]
        return "icmp", [f"-p icmp -m icmp {no}--icmp-type {rng.choice(('8', '0', '3', '3/3', '11', 'any'))}"]
    if dice < 0.82:
        more = rng.choice(
            (
                f"{no}--dport 5000",
                "--chunk-types any INIT",
                "--chunk-types only DATA",
                "--chunk-types all SHUTDOWN,DATA",
            )
        )
        return "sctp", [f"-p sctp -m sctp {more}"]
    if dice < 0.92:
        name = rng.choice(("tcp", "udp", "udplite", "sctp"))
        kind = rng.choice(("--dports", "--sports", "--ports"))
        return name, [f"-p {name} -m multiport {no}{kind} {rng.choice(('80,53', '1:511,8080', '21,69,5000:6000'))}"]
    name = rng.choice(("gre", "esp", "tcp", "udp"))
    return (name if not no else ""), [f"{no}-p {name}"]


def _extra(rng: Rng, family: int, chain: str, table: str) -> str:
    no = "! " if rng.random() < 0.2 else ""
    kinds = ["mark", "addrtype", "comment", "iprange"]
    if table != "raw":
        kinds += ["conntrack", "conntrack", "conntrack", "state", "connmark", "connmark"]
    kind = rng.choice(kinds)
    if kind == "mark":
        return f"-m mark {no}--mark {rng.choice(('0x1', '0x2/0x3', '0x0', '0x10/0xff'))}"
    if kind == "connmark":
        return f"-m connmark {no}--mark {rng.choice(('0x1', '0x2/0x3', '0x0', '0x10/0xff'))}"
    if kind == "comment":
        return f'-m comment --comment "{rng.choice(("a comment", "it said", "x"))}"'
    if kind == "iprange":
        low, high = ("10.0.0.2", "10.0.0.3") if family == 4 else ("fd00:1::2", "fd00:1::3")
        return f"-m iprange {no}--{rng.choice(('src', 'dst'))}-range {low}-{high}"
    if kind == "addrtype":
        types = ("LOCAL", "UNICAST", "MULTICAST", "LOCAL,MULTICAST") if family == 6 else (
            "LOCAL", "UNICAST", "BROADCAST", "MULTICAST", "LOCAL,BROADCAST")  # fmt: skip
        limit = ""
        if rng.random() < 0.2:
            limit = _LIMITS.get(chain, "")
        return f"-m addrtype {no}--{rng.choice(('src', 'dst'))}-type {rng.choice(types)}{limit}"
    if kind == "state":
        return f"-m state {no}--state {rng.choice(_STATES)}"
    return f"-m conntrack {_conntrack(rng, family, no)}"


def _conntrack(rng: Rng, family: int, no: str) -> str:
    dice = rng.random()
    if dice < 0.4:
        state = rng.choice(
            (
                "NEW",
                "ESTABLISHED",
                "RELATED",
                "INVALID",
                "UNTRACKED",
                "SNAT",
                "DNAT",
                "NEW,INVALID",
                "RELATED,ESTABLISHED",
            )
        )
        more = f" --ctdir {rng.choice(('ORIGINAL', 'REPLY'))}" if rng.random() < 0.3 else ""
        return f"{no}--ctstate {state}{more}"
    if dice < 0.55:
        return f"{no}--ctstatus {rng.choice(_STATUSES)}"
    if dice < 0.65:
        return f"--ctdir {rng.choice(('ORIGINAL', 'REPLY'))}"
    if dice < 0.75:
        return f"{no}--ctproto {rng.choice(('tcp', 'udp', '1'))}"
    if dice < 0.9:
        what = rng.choice(("origsrc", "origdst", "replsrc", "repldst"))
        return f"{no}--ct{what} {address(rng, family)}"
    what = rng.choice(("origsrcport", "origdstport", "replsrcport", "repldstport"))
    return f"--ctproto {rng.choice(('tcp', 'udp'))} {no}--ct{what} {rng.choice(('80', '1:1023', '1024:65535'))}"


# ── targets ─────────────────────────────────────────────────────────────────────────────────────────


def _target(rng: Rng, family: int, table: str, chain: str, proto: str, users: list[str]) -> str:
    mark = rng.choice(("0x1", "0x2/0x3", "0x10/0xff", "0x7"))
    kinds = ["ACCEPT", "RETURN", "mark", "LOG", ""]
    if users:
        kinds += ["jump", "jump", "goto"]
    if table in ("filter", "security"):
        kinds += ["ACCEPT", "ACCEPT", "DROP"]
    if table == "filter" and chain in ("INPUT", "FORWARD", "OUTPUT"):
        kinds += ["REJECT", "REJECT"]
    if table == "raw":
        kinds += ["CT", "CT", "NOTRACK"]
    if table == "mangle":
        kinds += ["mark", "CONNMARK", "CONNMARK", "CONNMARK", "TTL", "DROP"]
        if proto == "tcp" and chain in ("FORWARD", "POSTROUTING"):
            kinds += ["TCPMSS"] * 3
    if table == "filter":
        kinds += ["CONNMARK"]
    kind = rng.choice(kinds)
    if kind == "mark":
        kind = "MARK" if table == "mangle" else "ACCEPT"
    if kind in ("ACCEPT", "DROP", "RETURN", "NOTRACK"):
        return f"-j {kind}"
    if kind == "":
        return ""
    if kind == "LOG":
        return '-j LOG --log-prefix "seen "'
    if kind == "jump":
        return f"-j {rng.choice(users)}"
    if kind == "goto":
        return f"-g {rng.choice(users)}"
    if kind == "MARK":
        return f"-j MARK --{rng.choice(('set-xmark', 'set-mark'))} {mark}"
    if kind == "CONNMARK":
        plain = mark.split("/")[0]
        return "-j CONNMARK " + rng.choice((
            f"--set-mark {mark}", f"--set-xmark {mark}", "--save-mark", "--restore-mark", f"--or-mark {plain}",
            f"--and-mark {plain}", f"--xor-mark {plain}", "--save-mark --nfmask 0xf --ctmask 0xf0",
        ))  # fmt: skip
    if kind == "REJECT":
        if proto == "tcp" and rng.random() < 0.6:
            return "-j REJECT --reject-with tcp-reset"
        return f"-j REJECT --reject-with {rng.choice(_REJECTS[family])}"
    if kind == "TTL":
        name, option = ("HL", "--hl") if family == 6 else ("TTL", "--ttl")
        return f"-j {name} {option}-{rng.choice(('set 10', 'dec 1', 'inc 1', 'set 1'))}"
    if kind == "TCPMSS":
        return "-j TCPMSS " + rng.choice(("--set-mss 1200", "--set-mss 500", "--clamp-mss-to-pmtu"))
    return f"-j CT {_ct(rng)}"


def _zone(rng: Rng) -> str:
    return rng.choice(("--zone 5", "--zone mark", "--zone-orig 6", "--zone-reply 7", "--zone 0"))


def _ct(rng: Rng) -> str:
    return rng.choice(
        (
            _zone(rng),
            _zone(rng),
            "--notrack",
            "--ctevents new,destroy",
            "--ctevents new,related,assured,protoinfo,mark",
        )
    )
