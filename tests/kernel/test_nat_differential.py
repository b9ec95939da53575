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
from dataclasses import dataclass
from typing import Any

import pytest
from harness import Kernel, available
from packets import addresses, header_length, protocol
from test_tcp_udp_differential import unrouted
from world import ICMP, ICMPV6, OWN, SCTP, TCP, UDP, UDPLITE, Traffic, side

from conntrack import Dnat, Engine, Masquerade, Netmap, Snat
from conntrack.choices import Choices
from conntrack.nat.rules import NatRule
from conntrack.wire.packet import parse

STEPS = int(os.environ.get("CONNTRACK_KERNEL_STEPS", "1000"))

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_translation_is_the_kernels_octet_by_octet(case: Case) -> None:
    seed = int(os.environ.get("CONNTRACK_KERNEL_SEED", "1"))
    head = "*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n"
    rules = [f"{head}{text}\nCOMMIT\n" if text else "" for text in (case.rules, case.rules6)]
    if case.nat is not None:
        rules = [text or f"{head}COMMIT\n-" for text in rules]
    # a table without a rule registers no NAT hook; one that never matches does
    rules = [text.replace("COMMIT\n-", "-A POSTROUTING -o none -j ACCEPT\nCOMMIT\n") for text in rules]
    traffic = Traffic(random.Random(seed), case.public, case.public6, case.dport)
    drawn = Drawn(case.least)
    with Kernel(rules=rules[0], rules6=rules[1]) as kernel:
        engine = Engine(nat=case.nat, sysctl={"nf_conntrack_acct": 1}, choices=drawn)
        for number in range(STEPS):
            iface, packet = traffic.next()
            conn = engine.find(parse(packet).key, UDP)
            if conn is not None and isinstance(conn.memory, int) and abs(time.time_ns() - conn.memory) < 20_000_000:
                continue  # the moment from which on UDP may be a stream: two clocks would not agree
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
