"""NAT, ICMP errors and the port-less protocols: the engine against the running kernel, packet by packet.

Each case is a rule in iptables' words and the same rule as values.  Random packets of all protocols go from and to
a few hosts; answers are made from what came out, errors quote what went by, on either side.  Where the kernel
draws a port or identifier, its draw is read from what it sent and handed to the engine as the engine's own, so
that every later packet can be compared octet by octet, and the table with it.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from harness import Kernel, available
from packets import (
    addresses,
    chunk,
    header_length,
    icmp,
    icmp_error,
    ip,
    protocol,
    sctp,
    tcp,
    udp,
)
from test_tcp_udp_differential import unrouted

from conntrack import Dnat, Engine, Masquerade, Netmap, Snat
from conntrack.choices import Choices
from conntrack.nat.rules import NatRule

STEPS = int(os.environ.get("CONNTRACK_KERNEL_STEPS", "1000"))
CLIENTS = ("10.0.0.2", "10.0.0.3", "10.0.0.4")
SERVERS = ("203.0.113.5", "203.0.113.6", "198.51.100.7")
CLIENTS6 = ("fd00:1::2", "fd00:1::3")
SERVERS6 = ("2001:db8:ffff::9", "2600::1")
OWN = ("198.51.100.1", "2001:db8:b::1")
PORTS = (80, 300, 511, 512, 800, 1023, 1024, 5000, 40000)
TCP, UDP, ICMP, ICMPV6, SCTP, GRE, ESP, UDPLITE = 6, 17, 1, 58, 132, 47, 50, 136

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(available() is not None, reason=f"kernel comparison: {available()}"),
]


@dataclass(frozen=True)
class Case:
    """One rule set in both languages; `public` are the addresses that outside hosts know."""

    name: str
    rules: str
    rules6: str
    nat: list[NatRule]
    public: tuple[str, ...] = ()
    public6: tuple[str, ...] = ()
    least: int = 0  # the rule's first port, 0: the default classes
    dport: int = 0  # a port that outside hosts connect to


CASES = [
    Case("no nat hooks", "", "", None),  # type: ignore[arg-type]
    Case(
        "masquerade",
        "-A POSTROUTING -o out0 -j MASQUERADE",
        "-A POSTROUTING -o out0 -j MASQUERADE",
        [Masquerade(["198.51.100.1", "2001:db8:b::1"], out_iface="out0")],
    ),
    Case(
        "pool",
        "-A POSTROUTING -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.10-198.51.100.20",
        "-A POSTROUTING -s fd00:1::/64 -j SNAT --to-source 2001:db8:b::10-2001:db8:b::20",
        [
            Snat("198.51.100.10-198.51.100.20", source="10.0.0.0/24"),
            Snat("2001:db8:b::10-2001:db8:b::20", source="fd00:1::/64"),
        ],
    ),
    Case(
        "persistent pool",
        "-A POSTROUTING -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.10-198.51.100.20 --persistent",
        "-A POSTROUTING -s fd00:1::/64 -j SNAT --to-source 2001:db8:b::10-2001:db8:b::20 --persistent",
        [
            Snat("198.51.100.10-198.51.100.20", source="10.0.0.0/24", persistent=True),
            Snat("2001:db8:b::10-2001:db8:b::20", source="fd00:1::/64", persistent=True),
        ],
    ),
    Case(
        "few ports",
        "-A POSTROUTING -s 10.0.0.0/24 -p udp -j SNAT --to-source 198.51.100.10:2000-2003",
        "-A POSTROUTING -s fd00:1::/64 -p udp -j SNAT --to-source [2001:db8:b::10]:2000-2003",
        [
            Snat("198.51.100.10", source="10.0.0.0/24", protocol="udp", ports="2000-2003"),
            Snat("2001:db8:b::10", source="fd00:1::/64", protocol="udp", ports="2000-2003"),
        ],
        least=2000,
    ),
    Case(
        "port forward",
        "-A PREROUTING -d 198.51.100.9 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80\n"
        "-A PREROUTING -d 198.51.100.9 -p udp --dport 8080 -j DNAT --to-destination 10.0.0.3-10.0.0.4:50-52",
        "-A PREROUTING -d 2001:db8:b::9 -p udp --dport 8080 -j DNAT --to-destination [fd00:1::2]:80",
        [
            Dnat("10.0.0.2", destination="198.51.100.9", protocol="tcp", dport=8080, ports=80),
            Dnat("10.0.0.3-10.0.0.4", destination="198.51.100.9", protocol="udp", dport=8080, ports="50-52"),
            Dnat("fd00:1::2", destination="2001:db8:b::9", protocol="udp", dport=8080, ports=80),
        ],
        public=("198.51.100.9",),
        public6=("2001:db8:b::9",),
        dport=8080,
    ),
    Case(
        "hairpin",
        "-A PREROUTING -d 198.51.100.9 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.4:80\n"
        "-A POSTROUTING -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.10",
        "",
        [
            Dnat("10.0.0.4", destination="198.51.100.9", protocol="tcp", dport=8080, ports=80),
            Snat("198.51.100.10", source="10.0.0.0/24"),
        ],
        public=("198.51.100.9",),
        dport=8080,
    ),
    Case(
        "netmap",
        "-A PREROUTING -d 198.51.100.0/24 -j NETMAP --to 10.0.0.0/24\n"
        "-A POSTROUTING -s 10.0.0.0/24 -j NETMAP --to 198.51.100.0/24",
        "-A POSTROUTING -s fd00:1::/64 -j NETMAP --to 2001:db8:5::/64",
        [
            Netmap("10.0.0.0/24", destination="198.51.100.0/24"),
            Netmap("198.51.100.0/24", source="10.0.0.0/24"),
            Netmap("2001:db8:5::/64", source="fd00:1::/64"),
        ],
        public=("198.51.100.2", "198.51.100.3"),
        dport=80,
    ),
]


class Drawn(Choices):
    """Gives the engine the port or identifier that the kernel was seen to use."""

    def __init__(self, least: int) -> None:
        super().__init__(0)
        self.least = least
        self.seen = -1

    def port_offset(self, key: bytes, proto: int) -> int:
        if self.seen < 0:
            return super().port_offset(key, proto)
        current = int.from_bytes(key[-4:-2], "big")
        if proto in (ICMP, ICMPV6):
            return self.seen
        least = self.least or (1 if current < 512 else 600 if current < 1024 else 1024)
        return (self.seen - least) & 0xFFFF


@dataclass
class Traffic:
    """Packets of a small world; remembers what went by on either wire."""

    rng: random.Random
    case: Case
    wires: dict[str, list[bytes]] = field(default_factory=lambda: {"in0": [], "out0": []})

    def next(self) -> tuple[str, bytes]:
        """(interface, packet)."""
        dice = self.rng.random()
        if dice < 0.45 or not any(self.wires.values()):
            return self.fresh()
        iface = self.rng.choice([name for name, seen in self.wires.items() if seen])
        seen = self.rng.choice(self.wires[iface][-40:])
        if dice < 0.85:
            return iface, self.answer(seen)
        return iface, self.error(seen)

    def fresh(self) -> tuple[str, bytes]:
        """Somebody begins something."""
        rng, six = self.rng, self.rng.random() < 0.3
        clients, servers = (CLIENTS6, SERVERS6) if six else (CLIENTS, SERVERS)
        public = self.case.public6 if six else self.case.public
        sport, dport = rng.choice(PORTS), rng.choice((80, 53, 5000))
        if public and rng.random() < 0.5:
            inside = rng.random() < 0.2
            src, dst = rng.choice(clients if inside else servers), rng.choice(public)
            iface, dport = "in0" if inside else "out0", self.case.dport
        else:
            src, dst, iface = rng.choice(clients), rng.choice(servers), "in0"
        kind = rng.choice((TCP, TCP, UDP, UDP, UDP, ICMP, SCTP, GRE, ESP, UDPLITE))
        if kind == TCP:
            return iface, ip(src, dst, TCP, tcp(sport, dport, "S", rng.randrange(1 << 32)))
        if kind == UDP:
            packet = ip(src, dst, UDP, udp(sport, dport, bytes(rng.randrange(40))))
            return iface, without_checksum(packet) if rng.random() < 0.2 else packet
        if kind == ICMP:
            number = rng.choice((7, 8, 9))
            return iface, ip(src, dst, ICMPV6 if six else ICMP, icmp(128 if six else 8, 0, number, 1, b"abcdefgh"))
        if kind == SCTP:
            init = chunk(1, rng.randbytes(4) + bytes(12))
            return iface, ip(src, dst, SCTP, sctp(sport, dport, 0, init))
        if kind == UDPLITE:
            return iface, wrong_udplite(src, dst, sport, dport)
        return iface, ip(src, dst, kind, rng.choice((bytes(8), b"\x00\x00\x08\x00" + bytes(8))), seal=False)

    def answer(self, packet: bytes) -> bytes:
        """The other end's answer to what it saw, more or less in order."""
        src, dst = addresses(packet)
        proto, at = protocol(packet), header_length(packet)
        l4 = packet[at:]
        if proto == TCP and len(l4) >= 20:
            sport, dport = int.from_bytes(l4[:2]), int.from_bytes(l4[2:4])
            seq, ack, flags = int.from_bytes(l4[4:8]), int.from_bytes(l4[8:12]), l4[13]
            ends = (seq + bool(flags & 2) + bool(flags & 1)) & 0xFFFFFFFF
            letters = "SA" if flags & 0x12 == 2 else self.rng.choice(("A", "A", "A", "FA", "RA"))
            return ip(dst, src, TCP, tcp(dport, sport, letters, ack, ends, 8000))
        if proto in (UDP, UDPLITE, SCTP):
            turned = l4[2:4] + l4[:2] + l4[4:]
            if proto == UDPLITE:
                return wrong_udplite(dst, src, int.from_bytes(l4[2:4]), int.from_bytes(l4[:2]))
            if proto == SCTP:
                tag = l4[16:20] if l4[12] == 1 else bytes(4)
                turned = turned[:4] + tag + bytes(4) + chunk(2, b"\0\0\0\1" + bytes(12))
            answer = ip(dst, src, proto, turned)
            return without_checksum(answer) if proto == UDP and l4[6:8] == b"\0\0" else answer
        if proto in (ICMP, ICMPV6):
            kind = {8: 0, 0: 8, 128: 129, 129: 128}.get(l4[0], l4[0])
            return ip(dst, src, proto, bytes((kind,)) + l4[1:])
        return ip(dst, src, proto, l4, seal=False)

    def error(self, packet: bytes) -> bytes:
        """A router on the way, or the end, complains about what it saw."""
        src, dst = addresses(packet)
        six = ":" in src
        sender = self.rng.choice((dst, "2001:db8:9::9" if six else "192.0.2.9"))
        quote = packet[: self.rng.choice((header_length(packet) + 8, 200))]
        kinds = ((1, 4), (3, 0), (2, 0)) if six else ((3, 3), (11, 0), (3, 4), (5, 1), (12, 0))
        kind, code = self.rng.choice(kinds)
        return ip(sender, src, ICMPV6 if six else ICMP, icmp_error(kind, code, quote))


def without_checksum(packet: bytes) -> bytes:
    at = header_length(packet) + 6
    return packet[:at] + b"\0\0" + packet[at + 2 :]


def wrong_udplite(src: str, dst: str, sport: int, dport: int) -> bytes:
    """UDP-Lite whose checksum is made with protocol 17: the only kind that Linux takes."""
    body = ip(src, dst, UDP, udp(sport, dport, b"lite"))
    l4 = body[header_length(body) :]
    return ip(src, dst, UDPLITE, l4[:4] + l4[4:6] + l4[6:], seal=False)


def side(address: str) -> str:
    inside = ip_address(address).packed[:8 if ":" in address else 3]
    return "in0" if inside in (ip_address("fd00:1::").packed[:8], ip_address("10.0.0.0").packed[:3]) else "out0"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_translation_is_the_kernels_octet_by_octet(case: Case) -> None:
    seed = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))
    head = "*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n"
    rules = [f"{head}{text}\nCOMMIT\n" if text else "" for text in (case.rules, case.rules6)]
    if case.nat is not None:
        rules = [text or f"{head}COMMIT\n-" for text in rules]
    # a table without a rule registers no NAT hook; one that never matches does
    rules = [text.replace("COMMIT\n-", "-A POSTROUTING -o none -j ACCEPT\nCOMMIT\n") for text in rules]
    traffic = Traffic(random.Random(seed), case)
    drawn = Drawn(case.least)
    with Kernel(rules=rules[0], rules6=rules[1]) as kernel:
        engine = Engine(nat=case.nat, sysctl={"nf_conntrack_acct": 1}, choices=drawn)
        for number in range(STEPS):
            iface, packet = traffic.next()
            if engine.count() > sum(1 for _ in engine.conns()) or protocol(packet) == SCTP:
                # A dead entry that nobody has met still shares its mapping, and who meets it (a neighbour in the
                # kernel's hash chain, the gc) is chance: let both sides meet all of them.
                kernel.table()
                engine.advance(time.time_ns())
                engine.reap()
            sent = kernel.send(packet, iface)
            theirs = [out for _, out in sent]
            drawn.seen = -1
            for out in theirs:
                if protocol(out) in (TCP, UDP, UDPLITE, SCTP):
                    drawn.seen = int.from_bytes(out[header_length(out) :][:2])
                elif protocol(out) in (ICMP, ICMPV6):
                    drawn.seen = int.from_bytes(out[header_length(out) + 4 :][:2])
            target = side(addresses(packet)[1])
            outcome = engine.process(packet, time.time_ns(), iface=iface, out_iface=target)
            where = (
                f"step {number} (seed {seed}) {iface} {packet.hex()}\nengine {outcome.to_dict()}\n"
                f"kernel sent {[out.hex() for out in theirs]}\nengine sent {[out.hex() for out in outcome.packets]}"
            )
            if addresses(packet)[1] in OWN and not outcome.rewritten and not theirs:
                continue  # for the box itself, where an engine has only the way through
            assert [unrouted(out) for out in theirs] == [unrouted(out) for out in outcome.packets], where
            if kernel.ctstate is not None:
                assert kernel.ctstate == outcome.ctinfo, where
            for name, out in sent:
                traffic.wires[name].append(out)
            if number % 20 == 0:
                engine.check()
                compare_tables(kernel, engine, where)


def compare_tables(kernel: Kernel, engine: Engine, where: str) -> None:
    """Every entry of either side; those about to expire may be missing on one."""
    fields = ("proto", "orig", "reply", "status", "state", "packets", "bytes")

    def listed(records: list[dict[str, Any]]) -> dict[str, int]:
        rows = ((json.dumps([record.get(name) for name in fields], sort_keys=True), record) for record in records)
        return {row: record["timeout"] for row, record in rows}

    engine.reap()  # as the dump does
    theirs, ours = listed(kernel.table()), listed([conn.to_dict(time.time_ns()) for conn in engine.conns()])
    only_kernel = [row for row in theirs if row not in ours and theirs[row] > 1]
    only_engine = [row for row in ours if row not in theirs and ours[row] > 1]
    assert not only_kernel and not only_engine, f"{where}\nkernel: {only_kernel[:3]}\nengine: {only_engine[:3]}"
    for row in theirs:
        pair = {theirs[row], ours.get(row, theirs[row])}
        # two clocks: within milliseconds of UDP's two seconds one side has 30 and the other 120 s
        at_two_seconds = json.loads(row)[0] == UDP and {left // 10 for left in pair} <= {2, 3, 11, 12}
        assert max(pair) - min(pair) <= 1 or at_two_seconds, f"{where}\n{row}: timeouts {pair}"
