"""Traffic: a seeded capture that looks like what a gateway sees, for benchmarks that must not flatter.

    python benchmarks/traffic.py OUT.pcap --packets 500000 --flows 100000 --seed 1

One rule: whatever makes real packets slower to track than toy packets is here, in shares that are steered to a
target and measured again from the finished octets:

    share                                       of                  target
    TCP / UDP / ICMP echo                       packets             80 / 18 / 2 %
    IPv6                                        flows               20 %
    NOP NOP timestamps                          TCP after the SYN   nine flows in ten
    SACK blocks (a loss behind the tap)         TCP packets         1 %
    frames of the full 1,500 octets             packets             20 %
    ICMP errors about a packet of a flow        packets             0.5 %
    fragments, IPv4 and IPv6                    packets             0.5 %

A flow is a generator of packets that knows its own sequence numbers, windows and clocks; a heap plays all flows
in order of time.  Flow lengths are skewed as on a real link: many have five packets, few have most.  TCP opens
with a handshake (MSS, SACK permitted, timestamps, window scale), answers requests in bursts that the receiver
acknowledges, and closes with FINs (a few with RST), unless the capture ends first.  All checksums are right.

Views of the same traffic:
    gateway  as a translating gateway receives it: questions from the private client, answers to the public
             address.  No two flows share an outside tuple, so a masquerade can keep every port
    plain    no translation: answers go to the client itself

The same arguments give the same octets on every Python version: of `random` only `random()` and
`getrandbits()` are used, whose sequences are guaranteed, and no float decides anything but a comparison.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from struct import Struct, pack, unpack_from

PUBLIC4, PUBLIC6 = "203.0.113.5", "2001:db8:5::5"
INSIDE4, INSIDE6 = "10.0.0.0/8", "fd00::/8"
GATEWAY, PLAIN = "gateway", "plain"

Item = tuple[int, bytes, int]  # ns since 1970, captured octets of the frame, octets it had on the wire

_PUBLIC = {4: bytes((203, 0, 113, 5)), 6: bytes.fromhex("20010db8000500000000000000000005")}
_START = 1_700_000_000 * 10**9
_SPREAD = 40 * 10**9  # ns in which flows begin
_MTU = 1500
_MILLI = 1_000_000
_INSIDE_MAC, _OUTSIDE_MAC = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
_GATEWAY_MAC = bytes.fromhex("020000000001")

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ORIGINAL, REPLY = 0, 1
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_CHECKSUM_AT = {_TCP: 16, _UDP: 6, _ICMP: 2, _ICMPV6: 2}

_TCP_HEADER = Struct("!HHIIBBHHH")
_TIMESTAMP = Struct("!BBBBII")
_SACK_BLOCK = Struct("!BBBBII")


class Dice:
    """All randomness, and the targets: `due` says whether a share has fallen behind."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.chance = self._random.random
        self.bits = self._random.getrandbits
        self.noise = bytes(self.bits(8) for _ in range(8192))
        self.done = Counter[str]()  # what happened, and "packets" and "tcp" to compare it with

    def below(self, limit: int) -> int:
        """0..limit-1; the small bias does no harm here."""
        return self.bits(32) * limit >> 32

    def due(self, what: str, share: float, of: str = "packets") -> bool:
        """Has `what` happened less often than its share?"""
        return self.done[what] < share * self.done[of]

    def payload(self, size: int) -> bytes:
        """`size` octets of noise."""
        start = self.bits(11)
        return self.noise[start : start + size]


class Way:
    """One direction of a flow at one place: addresses, and what they add to checksums."""

    __slots__ = ("dst", "family", "ident", "label", "src", "sum", "ttl")

    def __init__(self, src: bytes, dst: bytes, ttl: int, dice: Dice) -> None:
        self.src, self.dst, self.ttl = src, dst, ttl
        self.family = 4 if len(src) == 4 else 6
        self.sum = int.from_bytes(src + dst, "big") % 0xFFFF
        self.ident = dice.bits(16)
        self.label = dice.bits(20)

    def packet(self, proto: int, l4: bytes, dont_fragment: bool = True) -> bytes:
        """The IP packet around a transport packet whose checksum field is still zero."""
        l4 = self._finished(proto, l4)
        if self.family == 6:
            return pack("!IHBB16s16s", 6 << 28 | self.label, len(l4), proto, self.ttl, self.src, self.dst) + l4
        self.ident = self.ident + 1 & 0xFFFF
        return self._header4(len(l4), 0x4000 if dont_fragment else 0, proto) + l4

    def fragments(self, proto: int, l4: bytes) -> list[bytes]:
        """The same, cut into fragments of full size."""
        l4 = self._finished(proto, l4)
        room = 1480 if self.family == 4 else 1448
        out = []
        self.ident = self.ident + 1 & 0xFFFF
        for at in range(0, len(l4), room):
            piece = l4[at : at + room]
            more = at + room < len(l4)
            if self.family == 4:
                out.append(self._header4(len(piece), at >> 3 | more << 13, proto) + piece)
            else:
                middle = pack("!BBHI", proto, 0, at | more, self.label << 12 | self.ident)
                start = pack("!IHBB", 6 << 28 | self.label, len(piece) + 8, 44, self.ttl)
                out.append(start + self.src + self.dst + middle + piece)
        return out

    def _header4(self, size: int, word: int, proto: int) -> bytes:
        start = pack("!BBHHHBB", 0x45, 0, 20 + size, self.ident, word, self.ttl, proto)
        total = int.from_bytes(start + b"\0\0" + self.src + self.dst, "big")
        return start + (-total % 0xFFFF).to_bytes(2, "big") + self.src + self.dst

    def _finished(self, proto: int, l4: bytes) -> bytes:
        """With its checksum: minus the sum of everything, modulo 0xFFFF."""
        total = int.from_bytes(l4, "big") << (8 if len(l4) & 1 else 0)
        if proto != _ICMP:
            total += self.sum + proto + len(l4)
        value = -total % 0xFFFF or (0xFFFF if proto == _UDP else 0)
        at = _CHECKSUM_AT[proto]
        return l4[:at] + value.to_bytes(2, "big") + l4[at + 2 :]


Play = Iterator[tuple[int, int, list[bytes]]]  # pause in ns, direction, IP packets


class Flow:
    """Two ends, the ways between them, and the scripts of the three protocols."""

    __slots__ = ("dice", "family", "outside", "ports", "rtt", "sent", "ways")

    def __init__(self, dice: Dice, view: str, client: bytes, server: bytes, ports: tuple[int, int]) -> None:
        self.dice = dice
        self.family = 4 if len(client) == 4 else 6
        seen = _PUBLIC[self.family] if view == GATEWAY else client
        ttl = 50 + dice.bits(3)
        self.ways = (Way(client, server, 64, dice), Way(server, seen, ttl, dice))
        self.outside = Way(seen, server, 60, dice)  # the client's packets as a router further on sees them
        self.ports = ports
        self.rtt = (2 + dice.bits(6)) * _MILLI
        self.sent: tuple[int, bytes] | None = None  # the client's last packet, for an error to quote

    def play(self, proto: int, count: int) -> Play:
        """The first `count` packets of the flow."""
        script = {_TCP: self._tcp, _UDP: self._udp, _ICMP: self._echo}[proto](count)
        return islice(script, count)

    def _send(self, direction: int, proto: int, l4: bytes) -> list[bytes]:
        self.sent = None if direction else (proto, l4)
        return [self.ways[direction].packet(proto, l4)]

    # --- TCP -------------------------------------------------------------------------------------------

    def _tcp(self, count: int) -> Play:
        dice = self.dice
        bits, chance = dice.bits, dice.chance
        stamped, scaled = chance() < 0.9, chance() < 0.97
        room = _MTU - (20 if self.family == 4 else 40) - 20 - (12 if stamped else 0)
        number = [bits(32), bits(32)]  # next sequence number of each end
        clock = [bits(32), bits(32)]  # timestamps of each end
        window = (502, 509) if scaled else (64240, 65160)
        elapsed = 0

        def segment(side: int, flags: int, size: int = 0, options: bytes = b"", back: int = 0) -> list[bytes]:
            """A segment from `side`; `back` octets before what it would send next."""
            nonlocal elapsed
            if stamped:
                times = (clock[side] + elapsed // _MILLI & 0xFFFFFFFF, clock[1 - side] if flags & ACK else 0)
                if not flags & SYN:
                    options = _TIMESTAMP.pack(1, 1, 8, 10, *times) + options
                else:
                    options = options[:6] + pack("!BBII", 8, 10, *times) + options[6:]
            head = _TCP_HEADER.pack(
                *(self.ports if side == ORIGINAL else self.ports[::-1]),
                number[side] - back & 0xFFFFFFFF,
                number[1 - side] if flags & ACK else 0,
                20 + len(options) << 2,
                flags,
                (64240, 65160)[side] if flags & SYN else 0 if flags & RST else window[side],
                0,
                0,
            )
            if not back:
                number[side] = number[side] + size + (flags & SYN > 0) + (flags & FIN) & 0xFFFFFFFF
            elapsed += self.rtt // 2
            dice.done["tcp"] += 1
            return self._send(side, _TCP, head + options + dice.payload(size))

        hello = pack("!BBHBB", 2, 4, room + (12 if stamped else 0), 4, 2) + (b"" if stamped else b"\1\1")
        hello += bytes((1, 3, 3, 7)) if scaled else b""
        yield 0, ORIGINAL, segment(ORIGINAL, SYN, options=hello)
        yield self.rtt, REPLY, segment(REPLY, SYN | ACK, options=hello)
        yield _MILLI, ORIGINAL, segment(ORIGINAL, ACK)
        left = count - 3
        ending = (3 if chance() < 0.95 else 1) if left >= 5 and chance() < 0.85 else 0
        shuts = not ending and chance() < 0.3  # a short flow's last answer carries its FIN
        upload = chance() < 0.1
        while left - ending > 0:
            asking, sending = (REPLY, ORIGINAL) if upload else (ORIGINAL, REPLY)
            yield (1 + bits(7)) * _MILLI, asking, segment(asking, PSH | ACK, 80 + bits(9))
            left -= 1
            if dice.due("full", 0.2):
                sizes = [room] * (1 + bits(3)) + [1 + dice.below(room)]
            else:
                sizes = [1 + dice.below(room - 200) for _ in range(1 + bits(1))]
            if left - ending >= 6 and dice.due("sack", 0.01, "tcp"):
                # The first of these is lost behind the tap: asked for by SACK, and sent again.
                first, second = sizes[0], 1 + dice.below(room)
                yield self.rtt, sending, segment(sending, ACK, first)
                dice.done["full"] += first == room
                yield 50_000, sending, segment(sending, ACK, second)
                edges = number[sending] - second & 0xFFFFFFFF, number[sending]
                number[sending] = number[sending] - first - second & 0xFFFFFFFF
                dice.done["sack"] += 1
                yield _MILLI, asking, segment(asking, ACK, options=_SACK_BLOCK.pack(1, 1, 5, 10, *edges))
                number[sending] = edges[1]
                yield self.rtt, sending, segment(sending, ACK, first, back=first + second)
                yield _MILLI, asking, segment(asking, ACK)
                left -= 5
                sizes = []
            for place, size in enumerate(sizes):
                if left <= ending:
                    break
                last = place == len(sizes) - 1
                dice.done["full"] += size == room
                flags = ACK | (PSH if last or left == 1 else 0) | (FIN if shuts and left == 1 else 0)
                yield self.rtt if place == 0 else 30_000, sending, segment(sending, flags, size)
                left -= 1
                if (place & 1 or last) and left > ending:
                    yield _MILLI, asking, segment(asking, ACK)
                    left -= 1
        closer = bits(1)
        if ending == 1:
            yield self.rtt, closer, segment(closer, RST | ACK)
        elif ending:
            yield (1 + bits(9)) * _MILLI, closer, segment(closer, FIN | ACK)
            yield self.rtt, 1 - closer, segment(1 - closer, FIN | ACK)
            yield _MILLI, closer, segment(closer, ACK)

    # --- UDP and echo ----------------------------------------------------------------------------------

    def _udp(self, count: int) -> Play:
        dice = self.dice
        while True:
            for side in (ORIGINAL, REPLY):
                ports = self.ports if side == ORIGINAL else self.ports[::-1]
                size = 30 + dice.bits(6) if count < 6 else 60 + dice.below(1200)
                pause = self.rtt if side == REPLY else (5 + dice.bits(9)) * _MILLI
                if side == REPLY and dice.due("fragments", 0.005):
                    size = 1600 + dice.below(2600)
                    head = pack("!HHHH", *ports, 8 + size, 0)
                    pieces = self.ways[side].fragments(_UDP, head + dice.payload(size))
                    self.sent = None
                    dice.done["fragments"] += len(pieces)
                    yield pause, side, pieces
                else:
                    head = pack("!HHHH", *ports, 8 + size, 0)
                    yield pause, side, self._send(side, _UDP, head + dice.payload(size))

    def _echo(self, count: int) -> Play:
        proto, kinds = (_ICMP, (8, 0)) if self.family == 4 else (_ICMPV6, (128, 129))
        sequence = 0
        while True:
            sequence = sequence + 1 & 0xFFFF
            body = pack("!HH", self.ports[0], sequence) + self.dice.payload(56)
            for side in (ORIGINAL, REPLY):
                pause = self.rtt if side == REPLY else 1000 * _MILLI
                yield pause, side, self._send(side, proto, bytes((kinds[side], 0, 0, 0)) + body)

    # --- errors ----------------------------------------------------------------------------------------

    def error(self) -> bytes | None:
        """An ICMP error from the server's side about the client's last packet; None if there is none."""
        if self.sent is None:
            return None
        proto, l4 = self.sent
        quote = self.outside.packet(proto, l4)
        if self.family == 4:
            # too big, time exceeded, port unreachable
            kind, code, rest = ((3, 4, 1400), (11, 0, 0), (3, 3, 0))[(proto == _UDP) * 2 or self.dice.bits(1)]
            return self.ways[REPLY].packet(_ICMP, pack("!BBHI", kind, code, 0, rest) + quote[:548])
        kind, code, rest = ((2, 0, 1400), (3, 0, 0), (1, 4, 0))[(proto == _UDP) * 2 or self.dice.bits(1)]
        return self.ways[REPLY].packet(_ICMPV6, pack("!BBHI", kind, code, 0, rest) + quote[:1232])


# --- who talks to whom, and how much -------------------------------------------------------------------


def _lengths(dice: Dice, packets: int, flows: int, least: int) -> list[int]:
    """Packets of each flow: `least`, and the rest shared by weights of which each doubling is half as frequent."""
    if not flows:
        return []
    least = min(least, packets // flows)
    weights = []
    for _ in range(flows):
        weight = 0
        while dice.bits(1) and weight < 12:
            weight += 1
        weights.append((1 << weight) - 1)
    rest, total = packets - least * flows, sum(weights) or 1
    lengths = [least + rest * weight // total for weight in weights]
    for extra in range(packets - sum(lengths)):
        lengths[extra % flows] += 1
    return lengths


def _plan(dice: Dice, packets: int, flows: int) -> list[tuple[int, int]]:
    """(protocol, packets) of each flow, shuffled."""
    icmp, udp = max(1, flows * 4 // 100), max(1, flows * 41 // 100)
    shares = ((_ICMP, icmp, 2, 2), (_UDP, udp, 18, 2), (_TCP, max(1, flows - icmp - udp), 80, 5))
    plan = [
        (proto, count)
        for proto, number, percent, least in shares
        for count in _lengths(dice, packets * percent // 100, number, least)
    ]
    for last in range(len(plan) - 1, 0, -1):
        other = dice.below(last + 1)
        plan[last], plan[other] = plan[other], plan[last]
    return plan


def _flow(dice: Dice, view: str, proto: int, flows: int, used: set[tuple[int, bytes, int, int]]) -> Flow:
    """A flow between a client and a server whose outside tuple nobody else has."""
    v6 = dice.chance() < 0.2
    client = 2 + dice.below(max(1, flows // 50))
    # a server's popularity falls off: the smaller of two draws
    server = min(dice.below(2000), dice.below(2000))
    low = dice.chance()
    if proto == _ICMP:
        port = 0
    elif proto == _UDP:
        port = 53 if low < 0.7 else 443 if low < 0.95 else 123
    else:
        port = 443 if low < 0.7 else 80 if low < 0.9 else 22 if low < 0.92 else 5000 + dice.bits(6)
    if v6:
        ends = (
            bytes.fromhex("fd00000a000000000000000000000000")[:12] + pack("!I", client),
            bytes.fromhex("20010db8000c00000000000000000000")[:12] + pack("!I", server + 1),
        )
    else:
        ends = pack("!I", 0x0A000000 + client), pack("!I", 0xC6120000 + server + 1)
    while True:
        own = 1024 + dice.below(64512)
        name = (proto, ends[1], own, port)
        if name not in used:
            used.add(name)
            return Flow(dice, view, *ends, (own, port))


def generate(
    packets: int = 100_000, flows: int = 10_000, seed: int = 1, view: str = GATEWAY, snaplen: int = 0
) -> Iterator[Item]:
    """`packets` Ethernet frames of `flows` flows in order of time (`snaplen` 0: whole); ValueError: bad view."""
    if view not in (GATEWAY, PLAIN):
        raise ValueError(f"view {view!r} is neither {GATEWAY!r} nor {PLAIN!r}")
    return islice(_frames(packets, flows, Dice(seed), view, snaplen or 1 << 16), packets)


def _frames(packets: int, flows: int, dice: Dice, view: str, snaplen: int) -> Iterator[Item]:
    plan = _plan(dice, packets, flows)
    used: set[tuple[int, bytes, int, int]] = set()
    heap: list[tuple[int, int, Flow, Play, int, list[bytes]]] = []  # when, tie-breaker, who, then, what
    begun = clock = 0
    while heap or begun < len(plan):
        start = begun * _SPREAD // len(plan)
        if begun < len(plan) and (not heap or start <= heap[0][0]):
            proto, count = plan[begun]
            flow = _flow(dice, view, proto, flows, used)
            play = flow.play(proto, count)
            now, number = start, begun
            begun += 1
        else:
            now, number, flow, play, direction, pieces = heapq.heappop(heap)
            clock = max(clock, now)
            for packet in pieces:
                yield _frame(clock, direction, packet, snaplen)
                clock += 12_000  # what 1,500 octets take at 1 Gbit/s
            dice.done["packets"] += len(pieces)
            if direction == ORIGINAL and dice.due("errors", 0.005):
                error = flow.error()
                if error is not None:
                    dice.done["errors"] += 1
                    dice.done["packets"] += 1
                    yield _frame(clock, REPLY, error, snaplen)
        step = next(play, None)
        if step is not None:
            pause, direction, pieces = step
            heapq.heappush(heap, (now + pause, number, flow, play, direction, pieces))


def _frame(now: int, direction: int, packet: bytes, snaplen: int) -> Item:
    """The packet in Ethernet, padded as every frame on a wire is, and cut by the snap length."""
    macs = _GATEWAY_MAC + (_INSIDE_MAC if direction == ORIGINAL else _OUTSIDE_MAC)
    frame = macs + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet
    frame += bytes(max(0, 60 - len(frame)))
    return _START + now, frame[:snaplen], len(frame)


# --- files and figures ---------------------------------------------------------------------------------


def write(path: str | Path, items: Iterator[Item], snaplen: int = 0) -> int:
    """Write a classic pcap (microseconds); how many frames."""
    record = Struct("<IIII")
    number = 0
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen or 1 << 16, 1))
        for time, frame, wire in items:
            file.write(record.pack(time // 10**9, time // 1000 % 10**6, len(frame), wire) + frame)
            number += 1
    return number


def read(path: str | Path) -> Iterator[Item]:
    """The frames of a file that `write` made."""
    record = Struct("<IIII")
    with open(path, "rb", buffering=1 << 17) as file:
        file.read(24)
        while len(head := file.read(16)) == 16:
            seconds, micros, size, wire = record.unpack(head)
            yield seconds * 10**9 + micros * 1000, file.read(size), wire


class Measured:
    """Shares as found in the octets; knows nothing of how they were made."""

    def __init__(self) -> None:
        self.count = Counter[str]()
        self.flows: dict[bytes, int] = {}
        self.first = self.last = 0

    def add(self, item: Item) -> Item:
        """Look at one frame, and hand it on."""
        time, frame, wire = item
        count = self.count
        self.first, self.last = self.first or time, time
        packet = frame[14:]
        count["packets"] += 1
        count["octets"] += wire - 14
        count["full"] += wire == _MTU + 14
        if packet[0] >> 4 == 4:
            proto, l4, ends = packet[9], 20, packet[12:20]
            fragment = unpack_from("!H", packet, 6)[0] & 0x3FFF
        else:
            count["ipv6"] += 1
            proto, l4, ends = packet[6], 40, packet[8:40]
            fragment = proto == 44
        if fragment:
            count["fragments"] += 1
            count["udp"] += 1
            return item
        if proto == _TCP:
            self._tcp(packet, l4)
        elif proto == _UDP:
            count["udp"] += 1
        elif packet[l4] in (8, 0, 128, 129):
            count["echo"] += 1
        else:
            count["errors"] += 1
            return item
        size = len(ends) // 2
        if frame[6:12] == _INSIDE_MAC:  # flows are named by what the client sends
            ports = packet[l4 + 4 : l4 + 6] if proto in (_ICMP, _ICMPV6) else packet[l4 : l4 + 4]
            self.flows[bytes((proto,)) + ends + ports] = size
        return item

    def _tcp(self, packet: bytes, l4: int) -> None:
        count = self.count
        count["tcp"] += 1
        flags = packet[l4 + 13]
        options = packet[l4 + 20 : l4 + (packet[l4 + 12] >> 4) * 4]
        if flags & SYN:
            count["syn"] += 1
            return
        count["stamped"] += options[:4] == b"\x01\x01\x08\x0a"
        count["plain stamp"] += options[:4] == b"\x01\x01\x08\x0a" and len(options) == 12
        count["sack"] += b"\x01\x01\x05\x0a" in options
        count["fin"] += flags & FIN
        count["rst"] += flags & RST > 0

    def text(self) -> str:
        """The table of shares."""
        count = self.count
        packets, tcp = count["packets"] or 1, count["tcp"] or 1
        later = tcp - count["syn"] or 1
        six = sum(size == 16 for size in self.flows.values())
        rows = [
            ("TCP", count["tcp"] / packets),
            ("UDP, fragments included", count["udp"] / packets),
            ("ICMP echo", count["echo"] / packets),
            ("ICMP errors", count["errors"] / packets),
            ("fragments", count["fragments"] / packets),
            ("full-size packets", count["full"] / packets),
            ("IPv6 packets", count["ipv6"] / packets),
            ("IPv6 flows", six / (len(self.flows) or 1)),
            ("TCP after the SYN with timestamps", count["stamped"] / later),
            ("  exactly NOP NOP timestamps", count["plain stamp"] / later),
            ("TCP with SACK blocks", count["sack"] / tcp),
        ]
        head = (
            f"{count['packets']:,} packets, {len(self.flows):,} flows, {(self.last - self.first) / 1e9:.1f} s, "
            f"mean {count['octets'] / packets:.0f} octets; {count['fin']:,} FIN, {count['rst']:,} RST"
        )
        return "\n".join([head, *(f"  {name:36}{100 * share:6.2f} %" for name, share in rows)])


def main() -> int:
    """Write the capture, print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--view", choices=(GATEWAY, PLAIN), default=GATEWAY)
    parser.add_argument("--snaplen", type=int, default=0, help="octets kept of a frame; 0: all")
    given = parser.parse_args()
    measured = Measured()
    items = generate(given.packets, given.flows, given.seed, given.view, given.snaplen)
    write(given.out, map(measured.add, items), given.snaplen)
    print(measured.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
