"""A small world of clients and servers: random packets, and answers and errors made from what went by.

Used against the running kernel and for captures taken on one side of a NAT.  Answers are made from what came out on
a wire, so they are what a host there would send.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import ip_address

from packets import addresses, chunk, header_length, icmp, icmp_error, ip, protocol, sctp, tcp, udp

CLIENTS = ("10.0.0.2", "10.0.0.3", "10.0.0.4")
SERVERS = ("203.0.113.5", "203.0.113.6", "198.51.100.7")
CLIENTS6 = ("fd00:1::2", "fd00:1::3")
SERVERS6 = ("2001:db8:ffff::9", "2600::1")
OWN = ("198.51.100.1", "2001:db8:b::1")
PORTS = (80, 300, 511, 512, 800, 1023, 1024, 5000, 40000)
TCP, UDP, ICMP, ICMPV6, SCTP, GRE, ESP, UDPLITE = 6, 17, 1, 58, 132, 47, 50, 136


@dataclass
class Traffic:
    """Packets of a small world; remembers what went by on either wire."""

    rng: random.Random
    public: tuple[str, ...] = ()  # addresses that outside hosts know
    public6: tuple[str, ...] = ()
    dport: int = 0  # the port they connect to there
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
        public = self.public6 if six else self.public
        sport, dport = rng.choice(PORTS), rng.choice((80, 53, 5000))
        if public and rng.random() < 0.5:
            inside = rng.random() < 0.2
            src, dst = rng.choice(clients if inside else servers), rng.choice(public)
            iface, dport = "in0" if inside else "out0", self.dport
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
