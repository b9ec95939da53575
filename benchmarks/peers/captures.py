"""The captures that the peers replay, each made once from a seed and kept in the work folder.

    python benchmarks/peers/captures.py NAME FILE [--scale 0.05]

    name          packets     flows  what
    big         1,000,000   107,000  as a translating gateway sees it
    big-plain   1,000,000   107,000  the same before translation: answers go to the client itself
    mid           300,000    30,000  as big, for the kernel's TUN loop and for the switches
    ten           200,000        10  as big: few flows, so nothing is ever cold
    few-plain      20,000     2,000  as big-plain, for what is too slow for more
    flood         300,000   300,000  SYNs of ten seconds, no two alike
    fill-N            3 N         N  handshakes of N connections, N = 10000, 100000, 1000000
    hit-N         300,000         N  segments of those connections, each time of one picked at random
    held-4, -6    300,000   100,000  handshakes of IPv4, of IPv6: what a table full of them weighs
    mixed               …         …  a real capture of 16 seconds, twenty times, six days apart

One rule: the same name and scale give the same octets.  `--scale` divides packets and flows of all but the last.
Trackers that do not translate get the plain view: in a gateway's view the two directions of a connection do not
belong together for them, and they would keep twice as many flows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from struct import Struct, pack

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import traffic  # noqa: E402
from traffic import ACK, GATEWAY, ORIGINAL, PLAIN, PSH, REPLY, SYN, Item  # noqa: E402

MIXED = HERE.parents[2] / "shared" / "captures" / "mixed-large.pcap"
REPEAT, APART = 20, 6 * 86_400  # times, seconds
HIT_OCTETS = 200  # payload of a segment of hit-N

_START = 1_700_000_000 * 10**9
_MACS = (bytes.fromhex("020000000001" "0200000000aa"), bytes.fromhex("020000000001" "0200000000bb"))
_TCP = 6
_HEADER = Struct("!HHIIBBHHH")
_HELLO = bytes.fromhex("020405b4" "0402" "080a0000000100000000" "01" "030307")  # MSS, SACK, time, NOP, scale 7
_STAMP = bytes.fromhex("0101080a0000000100000001")


class Talk:
    """Connection number `number` of a table full of them; no two share a tuple outside the gateway."""

    __slots__ = ("ports", "ways")

    def __init__(self, number: int, dice: traffic.Dice, family: int = 4) -> None:
        share, server = divmod(number, 5000)
        if family == 4:
            ends = pack("!I", 0x0A000002 + number // 200), pack("!I", 0xC6120000 + server)
        else:
            ends = (
                bytes.fromhex("fd00000a0000000000000000") + pack("!I", 2 + number // 200),
                bytes.fromhex("20010db8000c000000000000") + pack("!I", 1 + server),
            )
        self.ports = (1024 + (share * 997 + server * 13) % 64000, 443)
        public = traffic._PUBLIC[family]
        self.ways = (traffic.Way(*ends, 64, dice), traffic.Way(ends[1], public, 55, dice))

    def segment(self, side: int, flags: int, seq: int, ack: int, options: bytes, payload: bytes = b"") -> bytes:
        """A frame of one segment; sequence numbers are taken modulo 2**32."""
        ports = self.ports if side == ORIGINAL else self.ports[::-1]
        words = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
        head = _HEADER.pack(*ports, *words, 20 + len(options) << 2, flags, 64240 if flags & SYN else 502, 0, 0)
        packet = self.ways[side].packet(_TCP, head + options + payload)
        frame = _MACS[side] + (b"\x08\x00" if self.ways[0].family == 4 else b"\x86\xdd") + packet
        return frame + bytes(max(0, 60 - len(frame)))


def _first(number: int, side: int) -> int:
    """The initial sequence number of a side; any will do that is not the same for all."""
    return number * 0x9E3779B1 + side * 0x7F4A7C15 & 0xFFFFFFFF


def handshakes(number: int, family: int = 4) -> Iterator[Item]:
    """SYN, SYN/ACK and ACK of each connection."""
    dice, now = traffic.Dice(1), _START
    for which in range(number):
        talk, own, peer = Talk(which, dice, family), _first(which, 0), _first(which, 1)
        for side, flags, seq, ack, options in (
            (ORIGINAL, SYN, own, 0, _HELLO),
            (REPLY, SYN | ACK, peer, own + 1, _HELLO),
            (ORIGINAL, ACK, own + 1, peer + 1, _STAMP),
        ):
            frame = talk.segment(side, flags, seq, ack, options)
            yield now, frame, len(frame)
            now += 10_000


def hits(packets: int, number: int) -> Iterator[Item]:
    """In-order data of connections picked at random, after `handshakes` of as many."""
    dice, random = traffic.Dice(2), Random(number)
    sent = bytearray(2 * number)  # segments of each side so far; of 10,000, 15 on average
    now = _START + number * 30_000 + 10**9
    payload = dice.payload(HIT_OCTETS)
    for _ in range(packets):
        which, side = int(random.random() * number), random.getrandbits(1)
        talk = Talk(which, dice)
        seq = _first(which, side) + 1 + sent[2 * which + side] * HIT_OCTETS
        ack = _first(which, 1 - side) + 1 + sent[2 * which + 1 - side] * HIT_OCTETS
        sent[2 * which + side] += 1
        frame = talk.segment(side, ACK | PSH, seq, ack, _STAMP, payload)
        yield now, frame, len(frame)
        now += 10_000


def flood(number: int) -> Iterator[Item]:
    """SYNs, each of a connection of its own."""
    dice, now = traffic.Dice(3), _START
    for which in range(number):
        frame = Talk(which, dice).segment(ORIGINAL, SYN, _first(which, 0), 0, _HELLO)
        yield now, frame, len(frame)
        now += 10 * 10**9 // number


def repeated(source: Path) -> Iterator[Item]:
    """The classic pcap of microseconds `source` again and again, days apart."""
    whole = source.read_bytes()
    little = whole[:4] == b"\xd4\xc3\xb2\xa1"
    record = Struct("<IIII" if little else ">IIII")
    frames, at = [], 24
    while at + 16 <= len(whole):
        seconds, micros, size, wire = record.unpack_from(whole, at)
        frames.append((seconds * 10**9 + micros * 1000, whole[at + 16 : at + 16 + size], wire))
        at += 16 + size
    for turn in range(REPEAT):
        for time, frame, wire in frames:
            yield time + turn * APART * 10**9, frame, wire


def _mix(packets: int, flows: int, view: str) -> Callable[[float], Iterator[Item]]:
    return lambda scale: traffic.generate(int(packets * scale), max(10, int(flows * scale)), 1, view)


CAPTURES: dict[str, Callable[[float], Iterator[Item]]] = {
    "big": _mix(1_000_000, 107_000, GATEWAY),
    "big-plain": _mix(1_000_000, 107_000, PLAIN),
    "mid": _mix(300_000, 30_000, GATEWAY),
    "ten": _mix(200_000, 10, GATEWAY),
    "few-plain": _mix(20_000, 2_000, PLAIN),
    "flood": lambda scale: flood(int(300_000 * scale)),
    **{f"fill-{n}": lambda scale, n=n: handshakes(int(n * scale)) for n in (10_000, 100_000, 1_000_000)},
    **{
        f"hit-{n}": lambda scale, n=n: hits(int(300_000 * scale), int(n * scale))
        for n in (10_000, 100_000, 1_000_000)
    },
    "held-4": lambda scale: handshakes(int(100_000 * scale), 4),
    "held-6": lambda scale: handshakes(int(100_000 * scale), 6),
    "mixed": lambda scale: repeated(MIXED),
}


def main() -> int:
    """Write one capture; prints its packets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=CAPTURES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    unfinished = given.file.with_suffix(".part")
    print(traffic.write(unfinished, CAPTURES[given.name](given.scale)))
    unfinished.rename(given.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
