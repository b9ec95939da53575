"""Rules that ask for connections: every counter of every rule of a Host and of the kernel, after random traffic.

Both get the same rules and the same packets of a few flows, answers, ICMP errors and nonsense among them; what the
Host's rules counted must be what iptables-save -c prints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from random import Random

import pytest
from packets import ICMP, TCP, UDP, icmp, icmp_error, ip, tcp, udp

from conntrack.netfilter import Host
from conntrack.netfilter.rules import load

from .fakes import INTERFACES
from .kernel_rules import QUIET, Kernel
from .stateful import random_stateful

ROUNDS = int(os.environ.get("CONNTRACK_RULE_ROUNDS", "12"))
PACKETS = 60

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    try:
        kernel = Kernel()
    except OSError as error:
        pytest.skip(f"no namespace with TUN devices: {error}")
    yield kernel
    kernel.close()


def traffic(random: Random) -> Iterator[tuple[bytes, str]]:
    """Packets of a few flows, from either side, now and then an error about an earlier one."""
    sent: list[bytes] = []
    for _ in range(PACKETS):
        client, server = random.choice(("10.0.0.2", "10.0.0.3")), random.choice(("192.0.2.1", "198.51.100.9"))
        near, far = random.choice((1000, 1001, 3000)), random.choice((53, 80))
        proto = random.choice((TCP, UDP, UDP, ICMP))
        back = random.random() < 0.4
        if proto == TCP:
            flags = random.choice(("S", "SA" if back else "S", "A", "A", "R", "FA"))
            ends = (far, near) if back else (near, far)
            l4 = tcp(*ends, flags, seq=random.choice((1000, 1001)), ack=random.choice((0, 1001, 1002)))
        elif proto == UDP:
            l4 = udp(far, near, b"x") if back else udp(near, far, b"x")
        else:
            l4 = icmp(0 if back else random.choice((8, 8, 0, 13)), 0, near)
        iface = "out0" if back else "in0"
        if sent and random.random() < 0.08:
            quoted = random.choice(sent)[:28]
            back = random.random() < 0.5
            iface = "out0" if back else "in0"
            proto, l4 = ICMP, icmp_error(3, 1, quoted)
        source, destination = (server, client) if back else (client, server)
        packet = ip(source, destination, proto, l4)
        if random.random() < 0.03:
            packet = packet[:-1] + bytes((packet[-1] ^ 1,))  # a wrong checksum
        sent.append(packet)
        yield packet, iface


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_rules_count_what_they_count_in_the_kernel(kernel: Kernel, seed: int) -> None:
    random = Random(seed)
    text = random_stateful(random)
    rules = load(text, 4)
    host = Host(INTERFACES, ["default via 198.51.100.254 dev out0"], sysctl=QUIET)
    host._router.set_rules(4, rules)
    kernel.load("*filter\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*raw\nCOMMIT\n", 4)
    kernel.forget()
    kernel.load(text, 4)
    for n, (packet, iface) in enumerate(traffic(random)):
        outcome = host.receive(packet, iface, time.time_ns())
        kernel.send(packet, iface)
        if os.environ.get("CONNTRACK_RULE_STEPS"):
            theirs = kernel.saved(4, "")
            assert theirs == rules.save(counters=True), f"seed {seed}, packet {n} {iface} {packet.hex()} {outcome}"
    assert kernel.saved(4, "") == rules.save(counters=True), f"seed {seed}\n{text}"
