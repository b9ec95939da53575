"""Random nat tables: source and destination NAT of every kind.

One rule: pools and ports are small, so that flows meet in them; what they translate to is reachable in `world.py`.
"""

from __future__ import annotations

import random

from .world import CLIENTS, OWN, POOL, PUBLIC, SERVERS

Rng = random.Random


def nat_table(rng: Rng, family: int) -> str:
    """A nat table."""
    rules = []
    for _ in range(rng.choice((0, 1, 1, 2))):
        rules.append(f"-A PREROUTING {_destination(rng, family)}")
    for _ in range(rng.choice((1, 1, 1, 2, 0))):
        rules.append(f"-A POSTROUTING {_source(rng, family)}")
    if rng.random() < 0.12:
        rules.append(f"-A OUTPUT {_output(rng, family)}")
    if rng.random() < 0.12:
        rules.append(f"-A INPUT {_input(rng, family)}")
    if rng.random() < 0.05:
        rules.insert(0, "-A PREROUTING -p udp -m udp --dport 53 -j ACCEPT")
    heads = [f":{chain} ACCEPT [0:0]" for chain in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")]
    return "*nat\n" + "\n".join(heads + rules) + "\nCOMMIT\n"


def _bracket(address: str, ports: str = "") -> str:
    """An address with ports, in iptables' words."""
    if not ports:
        return address
    return f"[{address}]:{ports}" if ":" in address else f"{address}:{ports}"


def _flags(rng: Rng, persistent: bool = False, fully: bool = False) -> str:
    words = ""
    if rng.random() < 0.15:
        words += " --random"
    elif fully and rng.random() < 0.1:
        words += " --random-fully"
    if persistent and rng.random() < 0.2:
        words += " --persistent"
    return words


def _inside(family: int) -> str:
    return "10.0.0.0/24" if family == 4 else "fd00:1::/64"


def _source(rng: Rng, family: int) -> str:
    proto = rng.choice(("", "", "-p udp ", "-p tcp ", "-p sctp ")) if rng.random() < 0.5 else ""
    where = rng.choice(("-o out0 ", "-o out0 ", f"-s {_inside(family)} ", ""))
    ports = rng.choice(("2000-2003", "100-103", "30000", "5000-40000")) if proto and rng.random() < 0.6 else ""
    dice = rng.random()
    if dice < 0.4:
        to = f" --to-ports {ports}" if ports else ""
        return f"{proto}{where}-j MASQUERADE{to}{_flags(rng, fully=True)}"
    if dice < 0.9:
        pool = rng.choice((POOL[family], POOL[family], POOL[family].split("-")[0], OWN[family]["out0"]))
        return f"{proto}{where}-j SNAT --to-source {_bracket(pool, ports)}{_flags(rng, True, True)}"
    net = "198.51.100.0/24" if family == 4 else "2001:db8:5::/64"
    return f"{proto}-s {_inside(family)} -j NETMAP --to {net}"


def _destination(rng: Rng, family: int) -> str:
    public = rng.choice(PUBLIC[family])
    service = rng.choice((80, 8080, 5000, 21, 69))
    proto = rng.choice(("tcp", "udp", "udp", "tcp", "sctp"))
    dice = rng.random()
    if dice < 0.25:
        return f"-d {public}/{32 if family == 4 else 128} -j DNAT --to-destination {rng.choice(CLIENTS[family])}"
    if dice < 0.65:
        match = f"-p {proto} -m {proto} --dport {service}" if rng.random() < 0.5 else f"-p {proto}"
        first = CLIENTS[family][0]
        target = rng.choice((first, f"{first}-{CLIENTS[family][-1]}"))
        ports = rng.choice(("80", "50-52", "8080-8090", "7000-7100/7000", "1024-65535"))
        where = f"-d {public} " if rng.random() < 0.8 else ""
        return f"{where}{match} -j DNAT --to-destination {_bracket(target, ports)}{_flags(rng, True)}"
    if dice < 0.8:
        where = f"-d {public} " if rng.random() < 0.6 else "-i in0 "
        ports = rng.choice(("", " --to-ports 5000", " --to-ports 5000-5003"))
        return f"{where}-p {proto} -j REDIRECT{ports}{_flags(rng)}"
    net = "198.51.100.0/24" if family == 4 else "2001:db8:2::/64"
    return f"-i out0 -d {net} -j NETMAP --to {_inside(family)}"


def _output(rng: Rng, family: int) -> str:
    server = rng.choice(SERVERS[family])
    if rng.random() < 0.3:
        return "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080"
    target = rng.choice((CLIENTS[family][0], SERVERS[family][1]))
    return f"-d {server} -p udp -j DNAT --to-destination {_bracket(target, rng.choice(('', '5353')))}"


def _input(rng: Rng, family: int) -> str:
    target = "10.0.0.77" if family == 4 else "fd00:1::77"
    return f"-p {rng.choice(('tcp', 'udp'))} -j SNAT --to-source {_bracket(target, rng.choice(('', '3000-3001')))}"
