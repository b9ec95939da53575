"""FTP and TFTP sessions, with whatever helper and NAT stand between the two.

One rule: a peer acts on the text that reached its wire: it opens the data connection to the address and port that
it read there, as translated.  Lines are mostly right; some are split, cut, misspelt, or name somebody else.
"""

from __future__ import annotations

import re
from typing import Any

from . import octets
from .octets import TCP, UDP
from .tcp import Conversation
from .world import CLIENTS, OWN, PUBLIC, SERVERS, Step, World


def _pair(world: World) -> tuple[str, str, str]:
    """Client and server of a session: mostly from inside out, or from outside to a DNATed address."""
    family = 6 if world.maybe(world.six) else 4
    if world.maybe(0.75):
        return "in0", world.rng.choice(CLIENTS[family]), world.rng.choice(SERVERS[family])
    return "out0", world.rng.choice(SERVERS[family]), world.rng.choice(PUBLIC[family])


class Ftp:
    """A control connection and the data connections it announces."""

    def __init__(self, world: World) -> None:
        self.world = world
        iface, src, dst = _pair(world)
        self.control = Conversation(world, (iface, src, dst), 21)
        self.six = ":" in src
        self.at = 0
        self.data: list[Conversation] = []
        self.current: Conversation = self.control
        self.said = -1  # who just sent a line on the control connection

    def next(self) -> Step | None:
        """The next segment of the control connection, or of a data connection."""
        world, rng = self.world, self.world.rng
        self.said = -1
        if self.data and world.maybe(0.35):
            self.current = rng.choice(self.data[-3:])
            return self.current.next()
        self.current = control = self.control
        self.at += 1
        if self.at <= 3:
            return control.segment(*((0, "syn"), (1, "synack"), (0, "ack"))[self.at - 1])
        dice = rng.random()
        if self.at == 4 or dice < 0.1:
            return control.segment(1, "data", b"220 ready\r\n")
        if dice < 0.25:
            return control.segment(
                0, "data", rng.choice((b"USER x\r\n", b"PASS y\r\n", b"LIST\r\n", b"noop", b"X\n"))
            )
        if dice < 0.40:
            return control.segment(rng.randrange(2), rng.choice(("ack", "ack", "sack")))
        if dice < 0.48:
            return control.next()
        self.said = 0 if dice < 0.75 else 1
        line = self._command() if self.said == 0 else self._reply()
        if world.maybe(0.06):
            line = line[: rng.randrange(1, len(line))]
        if world.maybe(0.04):
            line = b"250 first line\r\n" + line
        return control.segment(self.said, "data", line)

    def saw(self, record: dict[str, Any]) -> None:
        """Learn as a conversation does; then the peer acts on the line that reached it."""
        self.current.saw(record)
        if self.said < 0:
            return
        listener = self.control.ends[1 - self.said]
        for name, data in record["out"]:
            packet = bytes.fromhex(data)
            proto, l4 = octets.transport(packet)
            if name != listener.iface or proto != TCP or len(l4) < 20 or octets.is_fragment(packet):
                continue
            target = _announced(l4[(l4[12] >> 4) * 4 :], self.control.ends[1 - self.said].peer[0])
            if target:
                self._open(listener.iface, listener.me[0], *target)

    def _open(self, iface: str, src: str, dst: str, port: int) -> None:
        if len(self.data) > 6 or (":" in src) != (":" in dst):
            return
        data = Conversation(self.world, (iface, src, dst), port)
        if self.world.maybe(0.5):
            data.ends[0].me = (src, 20)
            data.ends[1].peer = (src, 20)
        self.data.append(data)

    def _numbers(self, side: int) -> tuple[str, int]:
        """Address and port that `side` announces: mostly its own."""
        world, rng = self.world, self.world.rng
        address = self.control.ends[side].me[0]
        if world.maybe(0.08):
            address = rng.choice((*CLIENTS[6 if self.six else 4], *SERVERS[6 if self.six else 4], *OWN[4].values()))
        port = rng.choice((rng.randint(1024, 65535), 5001, 5002, 20, 0, 65535))
        return address, port

    def _command(self) -> bytes:
        rng = self.world.rng
        address, port = self._numbers(0)
        if self.six or ":" in address or self.world.maybe(0.3):
            mark = rng.choice("|||!#")
            net = 2 if ":" in address else 1
            if self.world.maybe(0.05):
                net = 3 - net
            return f"EPRT {mark}{net}{mark}{address}{mark}{port}{mark}\r\n".encode()
        word = rng.choice(("PORT", "PORT", "port", "Port", "PORTX"))
        end = rng.choice(("\r\n", "\r\n", "\r\n", "\n", "\r", " \r\n"))
        return f"{word} {address.replace('.', ',')},{port >> 8},{port & 255}{end}".encode()

    def _reply(self) -> bytes:
        rng = self.world.rng
        address, port = self._numbers(1)
        if self.six or ":" in address or self.world.maybe(0.3):
            mark = rng.choice("|||!")
            return f"229 Entering Extended Passive Mode ({mark * 3}{port}{mark})\r\n".encode()
        numbers = f"{address.replace('.', ',')},{port >> 8},{port & 255}"
        return rng.choice((
            f"227 Entering Passive Mode ({numbers}).\r\n", f"227 ({numbers})\r\n", f"227 x {numbers}\r\n",
            f"227 Entering Passive Mode {numbers}", f"227 ={numbers}.\r\n",
        )).encode()  # fmt: skip


def _announced(line: bytes, sender: str) -> tuple[str, int] | None:
    """(address, port) of a PORT, EPRT, 227 or 229 line."""
    found = re.search(rb"(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)", line)
    if found:
        numbers = [int(part) for part in found.groups()]
        if max(numbers) < 256:
            return ".".join(map(str, numbers[:4])), numbers[4] << 8 | numbers[5]
        return None
    found = re.match(rb"(?i)EPRT (.)[12]\1([0-9a-f.:]+)\1(\d{1,5})\1", line)
    if found and int(found[3]) < 65536:
        return found[2].decode(), int(found[3])
    found = re.search(rb"^229 .*\((.)\1\1(\d{1,5})\1", line)
    if found and int(found[2]) < 65536:
        return sender, int(found[2])
    return None


class Tftp:
    """Read and write requests to port 69; the server answers from a port of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.iface, self.src, self.dst = _pair(world)
        self.sport = world.rng.randint(1024, 65535)
        self.server: tuple[str, str, str, int, int] | None = None  # iface, own, client as seen, its port, own port
        self.requested = False

    def next(self) -> Step | None:
        """A request, or data between the two."""
        world, rng = self.world, self.world.rng
        self.requested = self.server is None or world.maybe(0.2)
        if self.requested:
            if world.maybe(0.2):
                self.sport = rng.choice((rng.randint(1024, 65535), 69, 2000))
            opcode = rng.choice((1, 1, 2, 2, 3, 5))
            payload = opcode.to_bytes(2, "big") + rng.choice((b"file\0octet\0", b"", b"f"))
            if world.maybe(0.03):
                payload = b"\0"
            return self._send(self.iface, self.src, self.dst, self.sport, 69, payload)
        assert self.server is not None
        iface, me, client, cport, port = self.server
        if world.maybe(0.6):
            return self._send(iface, me, client, port, cport, b"\0\3\0\1" + rng.randbytes(20))
        return self._send(self.iface, self.src, self.dst, self.sport, port, b"\0\4\0\1")

    def saw(self, record: dict[str, Any]) -> None:
        """The server hears a request and chooses a port."""
        if not self.requested:
            return
        for name, data in record["out"]:
            packet = bytes.fromhex(data)
            proto, l4 = octets.transport(packet)
            if proto == UDP and len(l4) >= 8 and not octets.is_fragment(packet) and name != self.iface:
                src, dst = octets.ends(packet)
                port = 69 if self.world.maybe(0.1) else self.world.rng.randint(1024, 65535)
                self.server = name, dst, src, int.from_bytes(l4[:2], "big"), port

    def _send(self, iface: str, src: str, dst: str, sport: int, dport: int, payload: bytes) -> Step:
        l4 = octets.seal(src, dst, UDP, octets.udp(sport, dport, payload))
        if self.world.maybe(0.05):
            l4 = l4[:6] + b"\0\0" + l4[8:]
        return self.world.arrive(iface, self.world.wrap(src, dst, UDP, l4))
