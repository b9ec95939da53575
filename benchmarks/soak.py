"""Soak: connections without end through one engine, and its memory, which must not grow.

    python benchmarks/soak.py [--packets 50000000] [--seed 1] [--out benchmarks/results/soak.txt]

One rule: no two laps have a tuple in common.  A lap is 60,000 packets of 10,000 connections from `traffic`, as a
translating gateway sees them (TCP that closes and TCP that does not, UDP, echoes, fragments, IPv6).  In each lap
the servers have other addresses, checksums adjusted, and time has gone on by some minutes: what closed is gone,
what did not expires two laps later (nf_conntrack_tcp_timeout_established is 600 s here, not five days).  So the
table breathes between the same bounds for ever, while every key, port and record in it is new.

    RSS         sampled 200 times; flat: the most of the last half is at most 4 MiB above the most of the second
                tenth, when the table has been as full as it gets
    check()     every invariant, every million packets, and at the end
    digest      CRC-32 of every packet that left, of the listing at the end and of the counters: the same command
                gives the same digest, on every build

Samples are written as text, as a drawing in characters, and as SVG beside it.
"""

from __future__ import annotations

import argparse
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
if not os.environ.get("CONNTRACK_INSTALLED"):  # with it: whatever build this interpreter has
    sys.path[:0] = [str(HERE.parent)]

import conftest  # noqa: E402
import traffic  # noqa: E402
from traffic import INSIDE4, INSIDE6, ORIGINAL, PUBLIC4, PUBLIC6, REPLY  # noqa: E402

from conntrack import Engine, Masquerade, engine  # noqa: E402
from conntrack.sysctl import SECOND  # noqa: E402

LAP, FLOWS = 60_000, 10_000  # packets, connections
PAUSE = 240 * SECOND  # between laps, beyond the lap's own time
SAMPLES = 200
CHECK_EVERY = 1_000_000
ALLOWANCE = 4 << 20
SYSCTL = {"nf_conntrack_tcp_timeout_established": 600, "nf_conntrack_acct": 1}
_SERVERS = (0xC612, 0x000C)  # the word of a server's address that a lap replaces: IPv4's first, IPv6's third
_WORD = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Template:
    """A packet, when it comes in its lap, where its server's word is, and the checksums that cover it."""

    time: int
    packet: bytes
    at: int
    sums: tuple[int, ...]


def templates(seed: int, packets: int = LAP, flows: int = FLOWS) -> list[Template]:
    """One lap.  ICMP errors are left out: their quotes would need more than one word replaced."""
    out: list[Template] = []
    first = 0
    for now, frame, _ in traffic.generate(packets, flows, seed):
        packet = frame[14 : 14 + _length(frame)]
        first = first or now
        four = packet[0] >> 4 == 4
        direction = ORIGINAL if frame[6:12] == traffic._INSIDE_MAC else REPLY
        if four:
            proto, l4, sums = packet[9], 20, [10]
            later = _WORD.unpack_from(packet, 6)[0] & 0x1FFF
            at = 12 if direction == REPLY else 16
        else:
            proto, l4, sums = packet[6], 40, []
            later = 0
            if proto == 44:
                proto, l4, later = packet[40], 48, _WORD.unpack_from(packet, 42)[0] & 0xFFF8
            at = (8 if direction == REPLY else 24) + 4
        if proto in (1, 58) and packet[l4] not in (8, 0, 128, 129):
            continue
        assert _WORD.unpack_from(packet, at)[0] == _SERVERS[not four]
        if not later and proto != 1:  # IPv4's ICMP does not sum the addresses
            sums.append(l4 + traffic._CHECKSUM_AT[proto])
        out.append(Template(now - first, packet, at, tuple(sums)))
    return out


def _length(frame: bytes) -> int:
    """Octets of the IP packet, without Ethernet's padding."""
    if frame[14] >> 4 == 4:
        return int.from_bytes(frame[16:18], "big")
    return 40 + int.from_bytes(frame[18:20], "big")


def churn(lap: list[Template], begun: int) -> Iterator[tuple[int, bytes]]:
    """(time, packet), lap after lap, without end (8,192 laps have servers of their own)."""
    unpack, pack, step = _WORD.unpack_from, _WORD.pack_into, lap[-1].time + PAUSE
    number = 0
    while True:
        word = 0x2000 + number % 0x2000
        for template in lap:
            packet = bytearray(template.packet)
            difference = word - unpack(packet, template.at)[0]
            pack(packet, template.at, word)
            for at in template.sums:
                pack(packet, at, (unpack(packet, at)[0] - difference) % 0xFFFF or 0xFFFF)
            yield begun + template.time, bytes(packet)
        begun += step
        number += 1


def rss() -> int:
    """Octets of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


Sample = tuple[int, int, int]  # packets so far, octets in memory, connections


def soak(packets: int, seed: int, lap: list[Template]) -> tuple[list[Sample], int, int, Engine]:
    """Samples, the digest, connections that ended, the engine."""
    rules = [Masquerade(PUBLIC4, source=INSIDE4), Masquerade(PUBLIC6, source=INSIDE6)]
    box = Engine(rules, SYSCTL, seed)
    process, crc32 = box.process, zlib.crc32
    samples: list[Sample] = []
    digest = ended = 0
    every = max(1, packets // SAMPLES)

    def count(_: object) -> None:
        nonlocal ended
        ended += 1

    box.on_end = count
    begun = time.perf_counter()
    for done, (now, packet) in enumerate(churn(lap, 1_700_000_000 * SECOND), 1):
        for sent in process(packet, now).packets:
            digest = crc32(sent, digest)
        if done % every == 0:
            samples.append((done, rss(), box.count()))
        if done % CHECK_EVERY == 0:
            box.check()
            print(f"{done:,} packets, {time.perf_counter() - begun:,.0f} s, {box.count():,} connections, "
                  f"{rss() / 2**20:.1f} MiB, digest {digest:08x}", file=sys.stderr, flush=True)  # fmt: skip
        if done == packets:
            break
    box.check()
    digest = crc32(box.listing(extended=True).encode(), digest)
    return samples, crc32(repr(box.stats.kernel()).encode(), digest), ended, box


def flat(samples: list[Sample]) -> tuple[int, int]:
    """Most octets of the second tenth, and of the last half."""
    tenth = max(1, len(samples) // 10)
    early = [octets for _, octets, _ in samples[tenth : 2 * tenth]] or [samples[0][1]]
    return max(early), max(octets for _, octets, _ in samples[len(samples) // 2 :])


# --- drawings ------------------------------------------------------------------------------------------


def drawn(values: list[int], width: int = 100, height: int = 12) -> list[str]:
    """A column per group of values, its height their mean from 0 to the greatest."""
    size = max(1, len(values) // width)
    columns = [sum(values[at : at + size]) / len(values[at : at + size]) for at in range(0, len(values), size)]
    top = max(values) or 1
    rows = []
    for level in range(height, 0, -1):
        label = f"{top * level / height / 2**20:7.1f} MiB |" if level % 4 == 0 else " " * 12 + "|"
        rows.append(label + "".join("#" if value / top * height > level - 0.5 else " " for value in columns))
    return [*rows, " " * 12 + "+" + "-" * len(columns)]


def svg(samples: list[Sample], title: str) -> str:
    """RSS and connections over packets, each from 0 to its greatest."""
    wide, high, edge = 720, 240, 60
    last, most, fullest = samples[-1][0], max(s[1] for s in samples), max(s[2] for s in samples) or 1

    def line(values: list[float], colour: str) -> str:
        pairs = zip((s[0] / last for s in samples), values, strict=True)
        points = (f"{edge + x * wide:.1f},{edge + high * (1 - y):.1f}" for x, y in pairs)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(points)}"/>'

    def text(x: float, y: float, words: str, colour: str = "#333") -> str:
        return f'<text x="{x}" y="{y}" fill="{colour}">{words}</text>'

    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide + 2 * edge} {high + 2 * edge}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect x="{edge}" y="{edge}" width="{wide}" height="{high}" fill="none" stroke="#999"/>',
            line([s[2] / fullest for s in samples], "#b0b0b0"),
            line([s[1] / most for s in samples], "#c03020"),
            text(edge, 24, title),
            text(edge, 44, f"resident memory, 0 to {most / 2**20:.1f} MiB", "#c03020"),
            text(edge + 300, 44, f"connections, 0 to {fullest:,}", "#808080"),
            text(edge, high + edge + 20, "0"),
            text(edge + wide - 90, high + edge + 20, f"{last:,} packets"),
            "</svg>",
            "",
        ]
    )


def main() -> int:
    """Run, judge, write; 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packets", type=int, default=50_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also FILE.svg; default: results/soak.txt for 50,000,000 or more")
    given = parser.parse_args()
    begun = time.perf_counter()
    samples, digest, ended, box = soak(given.packets, given.seed, templates(given.seed))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    early, late = flat(samples)
    good = late <= early + ALLOWANCE
    stats = box.stats
    build = "compiled" if not engine.__file__.endswith(".py") else "pure"
    lines = [
        "Churn without end: raw results of benchmarks/soak.py",
        conftest.heading(),
        f"{given.packets:,} packets, seed {given.seed}, {build} build; {time.perf_counter() - begun:,.0f} s, "
        f"{usage.ru_utime + usage.ru_stime:,.0f} s of CPU",
        f"{ended:,} connections ended, {box.count():,} in the table at the end; {stats.invalid:,} invalid, "
        f"{stats.drop:,} dropped, {stats.early_drop:,} evicted; every check() passed",
        f"digest {digest:08x}",
        f"resident memory: most of the second tenth {early / 2**20:.1f} MiB, of the last half "
        f"{late / 2**20:.1f} MiB: {'flat' if good else 'GROWN'}",
        "",
        *drawn([octets for _, octets, _ in samples]),
        "",
        f"{'packets':>12}{'MiB':>9}{'connections':>13}",
        *(f"{done:>12,}{octets / 2**20:>9.1f}{count:>13,}" for done, octets, count in samples),
        "",
    ]
    text = "\n".join(lines)
    out = given.out or (HERE / "results" / "soak.txt" if given.packets >= 50_000_000 else None)
    if out is not None:
        out.write_text(text, encoding="utf-8")
        out.with_suffix(".svg").write_text(svg(samples, f"{given.packets:,} packets of churn"), encoding="utf-8")
    print(text if out is None else "\n".join(lines[:20]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
