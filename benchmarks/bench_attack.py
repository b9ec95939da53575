"""What an attacker can make dear: keys chosen to collide, floods of SYNs and of fragments.

One rule: what is held against each attack is a ratio to harmless traffic of the same kind, measured beside it,
or a bound.  Both stand in the table:

    tuples that collide under a hash without a secret     at most 1.2 x the time of random ones
    a SYN flood on a full table                           at most 2 x a SYN flood into an empty one, per packet,
                                                          and no established connection is lost
    fragments that never become whole                     memory bounded by ipfrag_high_thresh and its like

The tuples are made for four hashes that a tracker might use.  CRC-32 and Jenkins' hash (of which Linux's jhash is
one, here with its seed known) are run backwards: two of three words are free, the third follows.  The sum of the
words is what homegrown hash tables have.  Modulo 2**61 - 1 is Python's own hash of an int.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from struct import pack, unpack
from typing import Any

import pytest
import traffic
from bench_table import START, _rss, handshakes
from traffic import ACK, INSIDE4, ORIGINAL, PUBLIC4, SYN

from conntrack import Engine, Masquerade
from conntrack.sysctl import SECOND
from conntrack.verdict import ASSURED

TUPLES = 10_000
UDP, TCP = 17, 6
_WORD = 0xFFFFFFFF
_JHASH_INITVAL = 0xDEADBEEF  # as if nobody had drawn a seed


# --- tuples that collide -------------------------------------------------------------------------------

Key = bytes  # 12 octets as they stand in a packet: source, destination, source port, destination port


def random_keys(random: Random) -> Iterator[Key]:
    """Any."""
    while True:
        yield random.getrandbits(96).to_bytes(12, "big")


def _crc_tables() -> tuple[list[int], dict[int, int]]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    return table, {value >> 24: index for index, value in enumerate(table)}


def crc32_keys(random: Random) -> Iterator[Key]:
    """zlib.crc32(key) == 0: whatever the addresses, four octets of ports bring any checksum about."""
    table, by_high = _crc_tables()
    while True:
        start = random.getrandbits(64).to_bytes(8, "big")
        # backwards from the wanted register: which entries were used, then which octets lead to them
        register, used = _WORD, []
        for _ in range(4):
            index = by_high[register >> 24]
            used.append(index)
            register = (register ^ table[index]) << 8 & _WORD
        register, end = zlib.crc32(start) ^ _WORD, b""
        for index in reversed(used):
            end += bytes((register & 0xFF ^ index,))
            register = register >> 8 ^ table[index]
        yield start + end


def _rotated(value: int, by: int) -> int:
    return (value << by | value >> 32 - by) & _WORD


_JHASH_FINAL = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))


def jhash(key: Key) -> int:
    """Jenkins' lookup3 of three words with the seed above."""
    words = [word + _JHASH_INITVAL & _WORD for word in unpack("!III", key)]
    for one, other, by in _JHASH_FINAL:
        words[one] = (words[one] ^ words[other]) - _rotated(words[other], by) & _WORD
    return words[2]


def jhash_keys(random: Random) -> Iterator[Key]:
    """jhash(key) == 0: its last mixing is reversible."""
    while True:
        words = [random.getrandbits(32), random.getrandbits(32), 0]
        for one, other, by in reversed(_JHASH_FINAL):
            words[one] = (words[one] + _rotated(words[other], by) & _WORD) ^ words[other]
        yield pack("!III", *(word - _JHASH_INITVAL & _WORD for word in words))


def sum_keys(random: Random) -> Iterator[Key]:
    """The three words add up to 0 modulo 2**32."""
    while True:
        first, second = random.getrandbits(32), random.getrandbits(32)
        yield pack("!III", first, second, -first - second & _WORD)


def int_keys(random: Random) -> Iterator[Key]:
    """hash(int) == 1: multiples of 2**61 - 1, and one."""
    while True:
        yield (random.getrandbits(34) * ((1 << 61) - 1) + 1).to_bytes(12, "big")


# fmt: off
KINDS: dict[str, tuple[Callable[[Random], Iterator[Key]], Callable[[Key], int]]] = {
    "CRC-32":              (crc32_keys, zlib.crc32),
    "jhash, seed known":   (jhash_keys, jhash),
    "sum of words":        (sum_keys,   lambda key: sum(unpack("!III", key)) & _WORD),
    "int, as Python does": (int_keys,   lambda key: hash(int.from_bytes(key, "big"))),
}
# fmt: on


def chosen(make: Callable[[Random], Iterator[Key]], number: int = TUPLES) -> list[Key]:
    """That many different keys that can stand in a packet (no port 0)."""
    keys: dict[Key, None] = {}
    for key in make(Random(1)):
        if key[8:10] != b"\0\0" != key[10:] and key[:4] != key[4:8]:
            keys[key] = None
            if len(keys) == number:
                return list(keys)
    raise AssertionError


def datagrams(keys: list[Key]) -> list[bytes]:
    """A UDP packet for each key, and its answer."""
    dice = traffic.Dice(1)
    packets = []
    for key in keys:
        for src, dst, ports in ((key[:4], key[4:8], key[8:]), (key[4:8], key[:4], key[10:] + key[8:10])):
            packets.append(traffic.Way(src, dst, 64, dice).packet(UDP, ports + pack("!HH", 28, 0) + bytes(20)))
    return packets


def _taken(packets: list[bytes]) -> float:
    """CPU seconds for a question and an answer of each, twice, in an engine of their own."""
    engine = Engine(seed=1)
    fresh = [bytes(bytearray(packet)) for packet in packets]
    begun = time.process_time()
    for now in (START, START + SECOND):
        for packet in fresh:
            engine.process(packet, now)
    taken = time.process_time() - begun
    assert engine.count() == len(packets) // 2
    return taken


@pytest.mark.parametrize("kind", KINDS)
def test_tuples_that_collide_cost_what_random_ones_cost(note: Any, kind: str) -> None:
    """New connections, answers, and hits."""
    make, hashed = KINDS[kind]
    keys = chosen(make)
    assert len({hashed(key) for key in keys}) == 1
    attack, harmless = datagrams(keys), datagrams(chosen(random_keys))
    ratios = []
    for _ in range(7):
        usual = _taken(harmless)
        ratios.append(_taken(attack) / usual)
    ratio = statistics.median(ratios)
    remark = f"{min(ratios):.2f} – {max(ratios):.2f}, {TUPLES:,} tuples, 7 turns; bound 1.2 x"
    note(f"tuples that collide under {kind}, of random ones", f"{ratio:.2f} x", remark)
    assert ratio <= 2, "a chain, not noise"


# --- floods --------------------------------------------------------------------------------------------

FLOOD = 20_000
FULL = {"nf_conntrack_max": 20_000, "nf_conntrack_buckets": 32_768}
KEPT = 5_000


def syns(number: int) -> list[bytes]:
    """SYNs from spoofed clients, no two alike."""
    dice, random = traffic.Dice(5), Random(5)
    head = pack("!IIBBHHH", 1, 0, 6 << 4, SYN, 64240, 0, 0) + bytes.fromhex("020405b4")
    packets = []
    for at in range(number):
        client = bytes((10, 128 + (at >> 16 & 127))) + (at & 0xFFFF).to_bytes(2, "big")
        way = traffic.Way(client, bytes((198, 18, 200, random.getrandbits(8))), 64, dice)
        packets.append(way.packet(TCP, pack("!HH", 1024 + random.getrandbits(15), 443) + head))
    return packets


@pytest.mark.parametrize("nat", [False, True], ids=["no NAT", "masqueraded"])
def test_a_syn_flood_on_a_full_table(note: Any, nat: bool) -> None:
    """Each newcomer finds victims among the unanswered; who talked both ways stays."""
    view = traffic.GATEWAY if nat else traffic.PLAIN
    rules = [Masquerade(PUBLIC4, source=INSIDE4)] if nat else None
    kept = [packets[:3] for packets in handshakes(KEPT, view=view)]
    attack = syns(2 * FLOOD)
    ratios, lost, refused = [], 0, 0
    for _ in range(5):
        engine, begun = Engine(rules, FULL, seed=1), 0.0
        for packets in kept:
            for packet in packets:
                engine.process(packet, START)
        for packet in attack[: FULL["nf_conntrack_max"] - KEPT]:
            engine.process(packet, START + 1)
        assert engine.count() == FULL["nf_conntrack_max"]
        fresh = [bytes(bytearray(packet)) for packet in attack[FLOOD:]]
        begun = time.process_time()
        for packet in fresh:
            engine.process(packet, START + 2)
        full = time.process_time() - begun
        empty = Engine(rules, {"nf_conntrack_max": 4 * FLOOD, "nf_conntrack_buckets": 32_768}, seed=1)
        fresh = [bytes(bytearray(packet)) for packet in attack[FLOOD:]]
        begun = time.process_time()
        for packet in fresh:
            empty.process(packet, START + 2)
        ratios.append(full / (time.process_time() - begun))
        assert empty.count() == FLOOD
        lost = KEPT - sum(conn.status & ASSURED > 0 for conn in engine.conns())
        refused = engine.stats.drop
        engine.check()
    words = f"{min(ratios):.2f} – {max(ratios):.2f}, {FLOOD:,} SYNs, 5 turns; bound 2 x"
    name = "masqueraded" if nat else "no NAT"
    note(f"SYN flood on a full table, of one into room, {name}", f"{statistics.median(ratios):.2f} x", words)
    note(f"established connections lost to it, {name}", f"{lost:,}", f"of {KEPT:,}; {refused:,} SYNs refused")
    assert lost == 0


def fragments(number: int, family: int) -> Iterator[bytes]:
    """First and last fragments of datagrams whose middle never comes."""
    dice = traffic.Dice(6)
    ends = {4: ("0a000009", "c6120009"), 6: ("fd" + "00" * 14 + "09", "2001" + "00" * 13 + "09")}
    client, server = map(bytes.fromhex, ends[family])
    way = traffic.Way(client, server, 64, dice)
    datagram = pack("!HHHH", 4000, 53, 8 + 4000, 0) + dice.payload(4000)
    for _ in range(number // 2):
        first, _, last = way.fragments(UDP, datagram)
        yield first
        yield last


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("family", [4, 6])
def test_a_flood_of_fragments_is_bounded_in_memory(note: Any, family: int) -> None:
    """100,000 fragments, 120 MB of them; what is kept stays below the threshold, and goes when its time is over."""
    number = 100_000
    engine = Engine(seed=1)
    for packet in fragments(20, family):
        engine.process(packet, START)
    before, most, size, taken = _rss(), 0, 0, 0.0
    for at, packet in enumerate(fragments(number, family)):
        size += len(packet)
        begun = time.process_time()
        engine.process(packet, START + at * 1000)
        taken += time.process_time() - begun
        if at % 1000 == 0:
            most = max(most, _rss() - before)
    engine.check()
    what = f"flood of IPv{family} fragments that never become whole"
    note(what, f"{taken / number * 1e9:,.0f} ns/packet", f"{number:,} fragments, {size / 1e6:,.0f} MB")
    note("  memory it grew by, at most", f"{most / 2**20:.1f} MiB", "the thresholds of both families: 4 MiB")
    assert most < 16 << 20
    assert engine.count() == 0


def test_a_syn_flood(meter: Any) -> None:
    """New connections one after the other, masqueraded, into a table with room."""
    attack = syns(FLOOD)

    def setup() -> tuple[Engine, list[bytes]]:
        engine = Engine([Masquerade(PUBLIC4, source=INSIDE4)], seed=1)
        return engine, [bytes(bytearray(packet)) for packet in attack]

    def run(engine: Engine, packets: list[bytes]) -> None:
        process = engine.process
        for packet in packets:
            process(packet, START)
        assert engine.count() == FLOOD and not engine.stats.invalid

    meter("SYN flood, masqueraded", run, FLOOD, setup, rounds=5, unit="connection")


def test_a_flood_of_segments_that_belong_to_nobody(meter: Any) -> None:
    """ACKs without a connection: picked up (nf_conntrack_tcp_loose), each a new one."""
    dice = traffic.Dice(7)
    flow = traffic.Flow(dice, traffic.PLAIN, bytes((10, 0, 0, 2)), bytes((198, 18, 0, 1)), (1, 2))
    head = pack("!IIBBHHH", 1, 1, 5 << 4, ACK, 502, 0, 0)
    packets = [flow.ways[ORIGINAL].packet(TCP, pack("!HH", at, 443) + head) for at in range(1024, 1024 + FLOOD)]

    def setup() -> tuple[Engine, list[bytes]]:
        return Engine(seed=1), [bytes(bytearray(packet)) for packet in packets]

    def run(engine: Engine, packets: list[bytes]) -> None:
        process = engine.process
        for packet in packets:
            process(packet, START)
        assert engine.count() == FLOOD

    meter("ACK flood, picked up, no NAT", run, FLOOD, setup, rounds=5, unit="connection")
