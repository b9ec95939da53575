"""FTP and TFTP as hosts speak it, well and badly: two ends with sequence numbers of their own, and what they say.

One rule: an end knows only what it was sent.  Its acknowledgements, SACK blocks and retransmissions follow from
that, so translation has to be right for a talk to go on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import ip_address

from packets import TCP, header_length, ip, tcp, tcp_options

MASK = 0xFFFFFFFF


@dataclass
class End:
    """One side of a control connection, as it sees it: its own address, and the other's as it knows it."""

    rng: random.Random
    own: tuple[str, int]
    peer: tuple[str, int]
    iface: str
    server: bool
    next: int = 0  # sequence number to send
    heard: int = 0  # what it expects from the other
    sent: list[tuple[int, str, bytes]] = field(default_factory=list)
    sackok: bool = False

    def segment(self, flags: str, payload: bytes = b"", *, seq: int | None = None, remember: bool = True) -> bytes:
        """A segment at `seq`, or where the end stands."""
        options = b""
        if "S" in flags:
            options = tcp_options(sackok=self.sackok, wscale=7)
        elif self.sackok and self.rng.random() < 0.3:
            low = (self.heard + self.rng.randrange(-60, 60)) & MASK
            blocks = [(low, (low + self.rng.randrange(1, 60)) & MASK) for _ in range(self.rng.randrange(1, 4))]
            options = tcp_options(sack=blocks, ts=self.rng.random() < 0.3)
        elif self.rng.random() < 0.2:
            options = tcp_options(ts=True)
        at = self.next if seq is None else seq
        if seq is None:
            if remember:
                self.sent.append((at, flags, payload))
            self.next = (at + len(payload) + ("S" in flags) + ("F" in flags)) & MASK
        ack = self.heard if "A" in flags else 0
        l4 = tcp(self.own[1], self.peer[1], flags, at, ack, 8192, payload, options)
        more = {} if ":" in self.own[0] else {"identification": self.rng.randrange(1 << 16)}
        return ip(self.own[0], self.peer[0], TCP, l4, **more)

    def again(self) -> bytes:
        """Something it sent, once more."""
        seq, flags, payload = self.rng.choice(self.sent[-4:])
        return self.segment(flags, payload, seq=seq)

    def receive(self, packet: bytes) -> None:
        """The other's segment arrives."""
        l4 = packet[header_length(packet) :]
        seq, flags = int.from_bytes(l4[4:8], "big"), l4[13]
        size = len(l4) - (l4[12] >> 4) * 4 + (flags >> 1 & 1) + (flags & 1)
        if flags & 2 or seq == self.heard:
            self.heard = (seq + size) & MASK


@dataclass
class Talk:
    """A control connection.  `public` is the server's address as clients know it."""

    rng: random.Random
    client: End
    server: End
    step: int = 0

    def next(self) -> tuple[str, bytes]:
        """(interface, packet): the handshake first, then anything."""
        rng, client, server = self.rng, self.client, self.server
        self.step += 1
        if self.step == 1:
            client.sackok = rng.random() < 0.6
            return client.iface, client.segment("S")
        if self.step == 2:
            server.sackok = client.sackok
            return server.iface, server.segment("SA")
        if self.step == 3:
            return client.iface, client.segment("A", remember=False)
        if self.step == 4:
            return server.iface, server.segment("PA", b"220 ready\r\n")
        if self.step == 5:
            return client.iface, client.segment("PA", b"USER anonymous\r\n")
        end = rng.choice((client, server))
        dice = rng.random()
        if dice < 0.15 and end.sent:
            return end.iface, end.again()
        if dice < 0.3:
            return end.iface, end.segment("A", remember=False)
        if dice < 0.32:
            return end.iface, end.segment("FA")
        if dice < 0.33:
            return end.iface, end.segment("R")
        return end.iface, end.segment("PA", said(rng, end))


def said(rng: random.Random, end: End) -> bytes:
    """One line or some, perhaps an announcement, perhaps a broken one."""
    dice = rng.random()
    if dice < 0.25:
        return rng.choice(
            (b"NOOP\r\n", b"200 ok\r\n", b"LIST", b"\r\n", b"x" * rng.randrange(1, 400) + b"\n", b"P")
        )
    address = end.own[0] if rng.random() < 0.93 else rng.choice(("10.9.9.9", "fd00:9::9"))
    port = rng.choice((rng.randrange(1024, 65536), rng.randrange(1024, 65536), 5001, 65535, 255, 0))
    line = announcement(rng, end.server, address, port)
    if rng.random() < 0.1:
        line = line[: rng.randrange(1, len(line))]
    elif rng.random() < 0.1:
        line = line.swapcase()
    elif rng.random() < 0.05:
        place = rng.randrange(len(line))
        line = line[:place] + bytes((rng.randrange(256),)) + line[place + 1 :]
    return line + rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"", b"\r\nNOOP\r\n"))


def written(rng: random.Random, address: str) -> str:
    """An IPv6 address in one of its forms, now and then with a character too many or too few."""
    packed = ip_address(address).packed
    tail = ".".join(map(str, packed[12:]))
    forms = (address, address, ip_address(address).exploded, address.upper(), f"{address[:-1]}{tail}")
    shown = rng.choice(forms)
    if rng.random() < 0.15:
        place = rng.randrange(len(shown))
        shown = shown[:place] + rng.choice(("", ":", "0", ".", "g", "::")) + shown[place + rng.randrange(2) :]
    return shown


def announcement(rng: random.Random, server: bool, address: str, port: int) -> bytes:
    """A command, or a reply, that announces `address` and `port`, without the end of the line."""
    six = ":" in address
    octets = ip_address(address).packed
    numbers = ",".join(map(str, (*octets[:4], port >> 8, port & 255)))
    blank = rng.choice((" ", " ", " ", "  ", " x "))
    mark = rng.choice("||||!#,.a~")
    if server:
        if rng.random() < 0.4:
            return f"229 Entering{blank}({mark * 3}{port}{mark})".encode()
        return rng.choice((f"227 Passive{blank}({numbers})", f"227 {numbers}.", f"227 ={numbers} go")).encode()
    if six or rng.random() < 0.4:
        shown = written(rng, address) if six else address
        return f"EPRT{blank}{mark}{2 if six else 1}{mark}{shown}{mark}{port}{mark}".encode()
    return f"PORT{blank}{numbers}".encode()
