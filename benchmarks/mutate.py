"""Mutation: real packets, damaged in every way a wire or an attacker would think of, through real engines.

    python benchmarks/mutate.py --packets 1000000 --seed 1 [CAPTURE…]

One rule: whatever comes in, nothing is raised.  Without captures those in `captures/` serve, and those of
`../shared/captures` where there are any.  Each packet, mutated or not, goes to two engines:

    nat     masquerade, destination NAT, a port range too small for its users, netmap; checksums verified
    plain   no NAT, checksums not verified, accounting, events and timestamps on, eager gc

Both have a table of 256 entries, so that early drop and a full table are daily bread.  Time goes
on as in the captures, stands still, jumps ahead by seconds to years, and runs backwards.

Held against every packet: nothing is raised by `process`, `to_dict` or `log_text`; the table is never above its
limit; without NAT nothing is changed; translation leaves right checksums right and wrong ones wrong; a trial
leaves no trace.  Every 10,000 packets: `Engine.check`, a listing, the memory of the process.

Everything follows from the seed: the same command repeats a failure.  The work is shared by two processes, each
with its own half of the packets (`--part 0` or `1` runs one of them in this process, for a debugger).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conntrack import Dnat, Engine, Masquerade, Netmap, Snat  # noqa: E402
from conntrack.drivers.pcap import read_pcap  # noqa: E402
from conntrack.wire.checksum import PARTIAL, UNKNOWN, fold, pseudo_sum  # noqa: E402
from conntrack.wire.packet import examine, parse  # noqa: E402

LIMIT: Final = 256
EVERY: Final = 10_000
ALLOWANCE: Final = 64 << 20  # octets of RSS a process may grow after its first fifth
SMALL: Final = {"nf_conntrack_max": LIMIT, "nf_conntrack_buckets": 512}

# What a field is set to: the edges, and anything.
_EDGES: Final = (0, 1, 2, 4, 5, 7, 8, 20, 40, 0x45, 0x60, 0x7F, 0x80, 0xF0, 0xFE, 0xFF)
_PROTOCOLS: Final = (0, 1, 6, 6, 17, 17, 33, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 136, 255)
_JUMPS: Final = (10**9, 20 * 10**9, 45 * 10**9, 700 * 10**9, 86_400 * 10**9, 6 * 86_400 * 10**9)
_CHECKSUM_AT: Final = {6: 16, 17: 6, 58: 2}


def nat_engine(seed: int) -> Engine:
    """Every kind of rule, and pools that run out."""
    rules = [
        Dnat("10.0.0.80", protocol="tcp", dport="80-443", destination="192.168.0.0/16"),
        Dnat("10.0.0.53-10.0.0.59", ports="5300-5303", protocol="udp", dport=53, source="!10.0.0.0/8"),
        Dnat("fd00::80", protocol="tcp", dport=80),
        Netmap("198.51.100.0/24", source="10.0.2.0/24"),
        Snat("198.51.100.9", ports="40000-40003", protocol="udp", source="10.0.0.0/8", random=True),
        Snat("203.0.113.1-203.0.113.4", source=["192.168.0.0/16", "172.16.0.0/12"], persistent=True),
        Masquerade(["203.0.113.5", "2001:db8:5::5"]),
    ]
    return Engine(rules, SMALL, seed)


def plain_engine(seed: int) -> Engine:
    """No NAT; everything that can be counted is counted."""
    names = ("nf_conntrack_acct", "nf_conntrack_timestamp")
    sysctl = SMALL | dict.fromkeys(names, 1) | {"nf_conntrack_checksum": 0, "nf_conntrack_events": 1}
    engine = Engine(None, sysctl, seed, gc="eager")
    assert engine.events is not None
    return engine


ENGINES: Final = {"nat": nat_engine, "plain": plain_engine}


# --- the mutations -------------------------------------------------------------------------------------


class Mutator:
    """Draws packets of the captures in order, from a place that jumps now and then, and damages most of them."""

    def __init__(self, packets: list[tuple[int, bytes]], seed: int) -> None:
        self._packets = packets
        self._random = Random(seed)
        self._at = 0
        self._recent: deque[bytes] = deque(maxlen=64)  # fragments, to come again
        self.gone_out: deque[bytes] = deque(maxlen=256)  # what the engines sent on, to be answered
        self.now = 1_700_000_000 * 10**9
        self.kinds = Counter[str]()
        shares = (
            (20, "none", self._none),
            (20, "answer", self._answer),
            (12, "bits", self._bits),
            (14, "field", self._field),
            (8, "tail", self._tail),
            (3, "head", self._head),
            (6, "splice", self._splice),
            (12, "fragment", self._fragment),
            (10, "again", self._again),
            (10, "length", self._length),
            (5, "protocol", self._protocol),
        )
        self._lots = [(name, mutation) for share, name, mutation in shares for _ in range(share)]

    def below(self, limit: int) -> int:
        """0..limit-1 (0 for no room at all)."""
        return self._random.getrandbits(32) * limit >> 32

    def next(self) -> tuple[bytes, int, int | None]:
        """The next packet: octets, time (ns), length on the wire (None: as many)."""
        if not self.below(50):
            self._at = self.below(len(self._packets))
        gap, packet = self._packets[self._at]
        self._at = (self._at + 1) % len(self._packets)
        self._pass(gap)
        name, mutation = self._lots[self.below(len(self._lots))]
        self.kinds[name] += 1
        data = mutation(bytearray(packet))
        if name != "none" and self.below(4):
            _repair(data)
        wire = None if self.below(8) else len(data) + self.below(3) * self.below(1500)
        return bytes(data), self.now, wire

    def _pass(self, gap: int) -> None:
        draw = self.below(16_000)
        if draw < 6:
            self.now += _JUMPS[draw]
        elif draw == 6 and not self.below(8):
            self.now += 10 * 365 * 86_400 * 10**9
        elif draw == 7:
            self.now -= self.below(10**10)
        elif draw > 12_000:
            self.now += gap

    def _none(self, data: bytearray) -> bytearray:
        return data

    def _answer(self, data: bytearray) -> bytearray:
        """An answer to something that went out, or an ICMP error about it; damaged, too, now and then."""
        if not self.gone_out:
            return data
        sent = self.gone_out[-1 - self.below(min(len(self.gone_out), 8 if self.below(2) else 256))]
        if len(sent) < 48:
            return data
        four = sent[0] >> 4 == 4
        size, at, l4 = (4, 12, 20) if four else (16, 8, 40)
        data = bytearray(sent)
        data[at : at + 2 * size] = sent[at + size : at + 2 * size] + sent[at : at + size]
        draw = self.below(8)
        if draw == 0:
            kind = (3, 11, 5, 4)[self.below(4)] if four else (1, 2, 3, 137)[self.below(4)]
            data = (
                data[:l4] + bytes((kind, self.below(5), 0, 0, 0, 0, 0, 0)) + sent[: 28 + self.below(len(sent) - 27)]
            )
            data[9 if four else 6] = 1 if four else 58
            if four:
                data[2:4] = len(data).to_bytes(2, "big")
            else:
                data[4:6] = (len(data) - 40).to_bytes(2, "big")
        elif (data[9] if four else data[6]) in (1, 58):
            data[l4] = {8: 0, 0: 8, 128: 129, 129: 128}.get(data[l4], data[l4])
        else:
            data[l4 : l4 + 4] = data[l4 + 2 : l4 + 4] + data[l4 : l4 + 2]
            if (data[9] if four else data[6]) == 6 and len(data) >= l4 + 20:
                number = int.from_bytes(data[l4 + 4 : l4 + 8], "big") + 1 & 0xFFFFFFFF
                data[l4 + 4 : l4 + 8] = data[l4 + 8 : l4 + 12]
                data[l4 + 8 : l4 + 12] = number.to_bytes(4, "big")
                data[l4 + 13] = (0x12, 0x10, 0x18, 0x11, 0x14, 0x04, 0x12, 0x10)[self.below(8)]
        _repair(data)
        return self._bits(data) if draw == 1 else data

    def _bits(self, data: bytearray) -> bytearray:
        for _ in range(1 + self.below(8)):
            if data:
                reach = len(data) if self.below(2) else min(len(data), 64)
                data[self.below(reach)] ^= 1 << self.below(8)
        return data

    def _field(self, data: bytearray) -> bytearray:
        for _ in range(1 + self.below(3)):
            if data:
                place = self.below(min(len(data), 80))
                data[place] = _EDGES[self.below(16)] if self.below(3) else self.below(256)
        return data

    def _tail(self, data: bytearray) -> bytearray:
        if self.below(4):
            return data[: self.below(min(len(data), 100) + 1)]
        return data + bytes(self.below(256) for _ in range(self.below(60)))

    def _head(self, data: bytearray) -> bytearray:
        return data[self.below(min(len(data), 60) + 1) :]

    def _splice(self, data: bytearray) -> bytearray:
        other = self._packets[self.below(len(self._packets))][1]
        place = self.below(min(len(data), 100) + 1)
        return data[:place] + other[place if self.below(2) else self.below(len(other) + 1) :]

    def _protocol(self, data: bytearray) -> bytearray:
        place = 9 if data and data[0] >> 4 == 4 else 6
        if len(data) > place:
            data[place] = _PROTOCOLS[self.below(len(_PROTOCOLS))]
        return data

    def _length(self, data: bytearray) -> bytearray:
        """One of the fields that say how long something is."""
        if len(data) < 41:
            return data
        four = data[0] >> 4 == 4
        l4 = (data[0] & 15) * 4 if four else 40
        # total or payload length; header length; UDP's and UDP-Lite's; TCP's offset; the quote's header
        place = (2 if four else 4, 0 if four else 4, l4 + 4, l4 + 12, l4 + 8)[self.below(5)]
        if place + 2 > len(data):
            return data
        if place in (0, l4 + 8) and four:
            data[place] = 0x40 | self.below(16)
        elif place == l4 + 12:
            data[place] = self.below(16) << 4 | data[place] & 15
        else:
            value = int.from_bytes(data[place : place + 2], "big")
            value = (0, 1, value - 1, value + 1, value // 2, 0xFFFF, 8, self.below(1 << 16))[self.below(8)]
            data[place : place + 2] = (value & 0xFFFF).to_bytes(2, "big")
        return data

    def _fragment(self, data: bytearray) -> bytearray:
        """A fragment of the packet; its siblings are likely to come out of `again`."""
        if len(data) < 48:
            return data
        four = data[0] >> 4 == 4
        header = 20 if four else 40
        middle = header + (8 + self.below(len(data) - header) & ~7)
        first, second = data[:middle], data[:header] + data[middle:]
        for piece, offset, more in ((first, 0, 1), (second, middle - header >> 3, 0)):
            if four:
                piece[6:8] = (more << 13 | offset).to_bytes(2, "big")
                piece[2:4] = len(piece).to_bytes(2, "big")
            else:
                ident = data[4:8] if self.below(4) else bytes(4)
                piece[header:header] = bytes((data[6], 0)) + (offset << 3 | more).to_bytes(2, "big") + ident
                piece[6] = 44
                piece[4:6] = (len(piece) - 40).to_bytes(2, "big")
            _repair(piece)
        pair = [bytes(first), bytes(second)]
        self._recent.extend(pair)
        return bytearray(pair[self.below(2)])

    def _again(self, data: bytearray) -> bytearray:
        """A fragment seen lately: as it was, cut, or at another offset."""
        if not self._recent:
            return data
        back = 1 + self.below(min(len(self._recent), 4 if self.below(3) else 64))
        piece = bytearray(self._recent[-back])
        draw = self.below(6)
        place = 6 if piece[0] >> 4 == 4 else 42
        if draw == 0:
            piece[place + 1] ^= 1 << self.below(8)
        elif draw == 1:
            piece[place] ^= 1 << self.below(8)
        elif draw == 2:
            piece = piece[: 40 + self.below(len(piece) - 39)]
            if piece[0] >> 4 == 4:
                piece[2:4] = len(piece).to_bytes(2, "big")
            else:
                piece[4:6] = (len(piece) - 40).to_bytes(2, "big")
        return piece


def _repair(data: bytearray) -> None:
    """Make the checksums right again, so that the damage reaches what lies behind them."""
    if len(data) < 28:
        return
    if data[0] >> 4 == 4:
        l4, proto, ends = (data[0] & 15) * 4, data[9], bytes(data[12:20])
        end = min(len(data), int.from_bytes(data[2:4], "big"))
        data[10:12] = b"\0\0"
        data[10:12] = (-int.from_bytes(data[:20], "big") % 0xFFFF).to_bytes(2, "big")
    else:
        l4, proto, ends = 40, data[6], bytes(data[8:40])
        end = min(len(data), 40 + int.from_bytes(data[4:6], "big"))
    at = l4 + (2 if proto == 1 else _CHECKSUM_AT.get(proto, 1 << 20))
    if at + 2 > end:
        return
    data[at : at + 2] = b"\0\0"
    total = int.from_bytes(data[l4:end], "big") << (8 if end - l4 & 1 else 0)
    if proto != 1:
        total += int.from_bytes(ends, "big") + proto + end - l4
    data[at : at + 2] = (-total % 0xFFFF or 0xFFFF * (proto == 17)).to_bytes(2, "big")


# --- what must hold ------------------------------------------------------------------------------------


def _sums_of(data: bytes, wire: int | None) -> frozenset[int]:
    """What the packet's checksum may be taken for, as `examine` says; nothing where there is none to judge.

    A sum left to the network card can be right by chance: then it is both.
    """
    packet = parse(data, wire)
    at = _CHECKSUM_AT.get(packet.proto, -1)
    if packet.fault or packet.fragment or at < 0 or packet.lacks(at + 2):
        return frozenset()
    l4 = packet.l4
    if packet.proto == 17 and not any(packet.data[l4 + 6 : l4 + 8]):
        return frozenset()
    found = {examine(packet, packet.proto, at)}
    pseudo = fold(pseudo_sum(packet.addresses(), packet.proto, packet.length - l4))
    if int.from_bytes(packet.data[l4 + at : l4 + at + 2], "big") == pseudo and UNKNOWN not in found:
        found.add(PARTIAL)
    return frozenset(found)


class Subject:
    """An engine under fire, its tallies and its failures."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.tally = Counter[str]()
        self.failures: dict[str, str] = {}
        self._seed = seed
        self._engine = ENGINES[name](seed)

    def counters(self) -> Counter[str]:
        """The engine's statistics that are not zero."""
        return Counter({name: value for name, value in self._engine.stats.as_dict().items() if value})

    def packet(self, number: int, data: bytes, now: int, wire: int | None, trial: bool) -> bytes:
        """One packet, and what went out; a failure is noted, and the engine replaced, for it may be torn."""
        out = b""
        try:
            if trial:
                self._trial(data, now, wire)
            out = self._process(data, now, wire)
            if number % EVERY == 0:
                self._engine.check()
                self._engine.listing(extended=True)
        except Exception as error:
            self._failed(error, number, data, now, wire)
        return out

    def _process(self, data: bytes, now: int, wire: int | None) -> bytes:
        engine = self._engine
        outcome = engine.process(data, now / 1e9 if now & 63 == 1 else now, wire_length=wire)
        outcome.to_dict()
        text = outcome.log_text()
        self.tally[f"{outcome.verdict:7}{outcome.ctinfo or '-':12}{outcome.reason or '(tracked)'}"] += 1
        assert text is None or text.startswith("nf_ct_proto_"), text
        assert engine.count() <= LIMIT, f"{engine.count()} entries"
        if outcome.verdict == "ACCEPT":
            assert outcome.packets, "accepted, and nothing goes out"
        else:
            assert not outcome.packets, f"{outcome.verdict}, and something goes out"
        if len(outcome.packets) == 1:
            out = outcome.packets[0]
            if out != data and not outcome.rewritten and data[0] >> 4 == 4 and not any(data[6:8]):
                assert out == data[: len(out)], "changed without being rewritten"
            if outcome.rewritten:
                assert self.name == "nat", "rewritten without NAT"
                was, now_is = _sums_of(data, wire), _sums_of(out, wire)
                assert not was or was & now_is, f"checksum was {set(was)}, is {set(now_is)}"
        if self.name == "plain":
            for event in engine.events:
                event.text()
        return outcome.packets[0] if outcome.conn is not None and len(outcome.packets) == 1 else b""

    def _trial(self, data: bytes, now: int, wire: int | None) -> None:
        engine = self._engine
        before = engine.count(), engine.now, engine.stats.save()
        with engine.trial():
            engine.process(data, now, wire_length=wire)
        assert before == (engine.count(), engine.now, engine.stats.save()), "a trial left a trace"

    def _failed(self, error: Exception, number: int, data: bytes, now: int, wire: int | None) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        place = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
        self.tally[f"FAILED {place}"] += 1
        if place not in self.failures:
            try:
                ENGINES[self.name](self._seed).process(data, now, wire_length=wire)
                alone = "needs what came before"
            except Exception:
                alone = "fails alone"
            trace = "".join(traceback.format_exception(error))
            self.failures[place] = (
                f"{self.name} packet {number}: {place}: {error} ({alone})\n"
                f"  now={now} wire_length={wire} packet={data.hex()}\n{trace}"
            )
        self._engine = ENGINES[self.name](self._seed)


def _rss() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1] if sys.platform == "linux" else "0"
    return int(pages) * (os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0)


@dataclass
class Result:
    """What one process found."""

    tallies: dict[str, Counter[str]]
    counters: dict[str, Counter[str]]
    kinds: Counter[str]
    memory: list[int]
    failures: list[str]
    cpu: float


def run_part(part: int, packets: int, seed: int, captures: list[str]) -> Result:
    """One process's share."""
    mutator = Mutator(_load(captures), seed * 2 + part)
    subjects = [Subject(name, seed) for name in ENGINES]
    memory = [_rss()]
    begun = time.process_time()
    for number in range(1, packets + 1):
        data, now, wire = mutator.next()
        for subject in subjects:
            out = subject.packet(number, data, now, wire, not mutator.below(100))
            if out:
                mutator.gone_out.append(out)
        if number % max(1, packets // 10) == 0:
            memory.append(_rss())
    cpu = time.process_time() - begun
    failures = [text for subject in subjects for text in subject.failures.values()]
    return Result(
        {subject.name: subject.tally for subject in subjects},
        {subject.name: subject.counters() for subject in subjects},
        mutator.kinds,
        memory,
        failures,
        cpu,
    )


def _load(captures: list[str]) -> list[tuple[int, bytes]]:
    """(ns since the packet before, octets) of all packets of all captures."""
    packets = []
    for capture in captures:
        before = None
        for now, data in read_pcap(capture):
            packets.append((0 if before is None else min(max(now - before, 0), 10**9), data))
            before = now
    return packets


def default_captures() -> list[str]:
    """This repository's captures, and the bigger collection beside it, where there is one."""
    places = (HERE.parent / "captures", HERE.parents[1] / "shared" / "captures")
    return [str(path) for place in places if place.is_dir() for path in sorted(place.glob("*.pcap*"))]


def main() -> int:
    """Run, print the tallies; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("captures", nargs="*", metavar="CAPTURE")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=int, choices=(0, 1), help="run one half only, in this process")
    given = parser.parse_args()
    captures = given.captures or default_captures()
    half = given.packets // 2
    jobs = [(part, half, given.seed, captures) for part in (0, 1) if given.part in (None, part)]
    begun = time.monotonic()
    if given.part is None:
        with ProcessPoolExecutor(2) as pool:
            results = [future.result() for future in [pool.submit(run_part, *job) for job in jobs]]
    else:
        results = [run_part(*job) for job in jobs]
    return _report(results, half, given.seed, captures, time.monotonic() - begun)


def _report(results: list[Result], half: int, seed: int, captures: list[str], wall: float) -> int:
    total = half * len(results)
    cpu = sum(result.cpu for result in results)
    print(f"{total:,} mutated packets of {len(captures)} captures, seed {seed}, each through two engines")
    print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, {wall:.0f} s, {cpu:.0f} s CPU")
    kinds = sum((result.kinds for result in results), Counter[str]())
    print("mutations: " + ", ".join(f"{name} {count:,}" for name, count in kinds.most_common()))
    grown = 0
    for part, result in enumerate(results):
        memory = result.memory
        settled = memory[min(2, len(memory) - 1)]
        grown = max(grown, memory[-1] - settled)
        print(f"RSS of process {part} at each tenth, MiB: " + " ".join(f"{size >> 20}" for size in memory))
    failures = [text for result in results for text in result.failures]
    for name in ENGINES:
        print(f"\n{name}")
        tally = sum((result.tallies[name] for result in results), Counter[str]())
        for row, count in sorted(tally.items()):
            print(f"  {count:>9,}  {row}")
        counters = sum((result.counters[name] for result in results), Counter[str]())
        print("  statistics: " + ", ".join(f"{row} {count:,}" for row, count in counters.items()))
    print(f"\n{len(failures)} failures")
    for text in failures:
        print(text)
    if grown > ALLOWANCE:
        print(f"memory grew by {grown >> 20} MiB after the first fifth")
    return 1 if failures or grown > ALLOWANCE else 0


if __name__ == "__main__":
    sys.exit(main())
