"""Peers: whole processes beside each other, for a price a user can compare.

    python benchmarks/peers.py [--turns 3] [--packets 500000 --flows 100000] [--out FILE]

Three programs take turns (a, b, c, a, b, c …) on the same traffic, and the median of their CPU time (user + sys,
start and imports included) counts:

    naive   what one writes without this library: dpkt parses, a dict of 5-tuples in both directions finds the
            flow, TCP flags move a state, packets and octets are counted, idle flows time out.  No windows, no
            checksums, no NAT, no fragments, no ICMP errors
    track   this library's engine, nothing written: windows, checksums, fragments, errors, expiry as in Linux
    nat     the same with masquerade, and the translated capture written

Two captures: synthetic traffic (see `traffic`; `nat` gets it as a translating gateway sees it, the others without
translation), and a real one of 16 seconds, repeated twenty times six days apart so that starting is no matter
and old connections are gone.  `nat` sees that one from inside, so it undoes the answers' translation first.

Octets per connection are resident memory at the end, less that before the first packet, by live connections.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
MIXED = HERE.parents[1] / "shared" / "captures" / "mixed-large.pcap"
REPEAT, APART = 20, 6 * 86_400
PEERS = ("naive", "track", "nat")


# --- the naive tracker ---------------------------------------------------------------------------------

_IDLE = {"NEW": 30, "SYN": 120, "OPEN": 432_000, "FIN": 120, "CLOSED": 10, "STREAM": 120}
_SWEEP = 60  # seconds of the capture between looks at idle flows


class Flow:
    """What the naive tracker remembers of a flow."""

    __slots__ = ("bytes_in", "bytes_out", "first", "key", "last", "packets_in", "packets_out", "state")

    def __init__(self, key: tuple[bytes, int, bytes, int, int], now: float) -> None:
        self.key = key
        self.state = "NEW"
        self.first = self.last = now
        self.packets_out = self.packets_in = self.bytes_out = self.bytes_in = 0


def naive(source: str, _: str) -> tuple[int, int]:
    """Packets and live flows."""
    import dpkt

    flows: dict[tuple[bytes, int, bytes, int, int], Flow] = {}
    packets, live, next_sweep = 0, 0, 0.0
    with open(source, "rb") as file:
        for now, frame in dpkt.pcap.Reader(file):
            packets += 1
            try:
                ip = dpkt.ethernet.Ethernet(frame).data
            except (dpkt.UnpackError, IndexError):
                continue
            if not isinstance(ip, (dpkt.ip.IP, dpkt.ip6.IP6)):
                continue
            l4 = ip.data
            tcp = isinstance(l4, dpkt.tcp.TCP)
            if tcp or isinstance(l4, dpkt.udp.UDP):
                sport, dport = l4.sport, l4.dport
            elif isinstance(l4, (dpkt.icmp.ICMP, dpkt.icmp6.ICMP6)) and hasattr(l4.data, "id"):
                sport = dport = l4.data.id
            else:
                continue
            proto = ip.p if isinstance(ip, dpkt.ip.IP) else ip.nxt
            key = (ip.src, sport, ip.dst, dport, proto)
            flow = flows.get(key)
            if flow is None:
                flow = Flow(key, now)
                flows[key] = flows[(ip.dst, dport, ip.src, sport, proto)] = flow
                live += 1
            flow.last = now
            reply = flow.key != key
            if reply:
                flow.packets_in += 1
                flow.bytes_in += len(frame)
            else:
                flow.packets_out += 1
                flow.bytes_out += len(frame)
            if tcp:
                flags = l4.flags
                if flags & dpkt.tcp.TH_RST:
                    flow.state = "CLOSED"
                elif flags & dpkt.tcp.TH_SYN:
                    flow.state = "SYN"
                elif flags & dpkt.tcp.TH_FIN:
                    flow.state = "CLOSED" if flow.state == "FIN" else "FIN"
                elif flow.state in ("SYN", "NEW"):
                    flow.state = "OPEN"
            elif reply:
                flow.state = "STREAM"
            if now >= next_sweep:
                next_sweep = now + _SWEEP
                idle = [flow for flow in set(flows.values()) if now - flow.last > _IDLE[flow.state]]
                for flow in idle:
                    src, sport, dst, dport, proto = flow.key
                    flows.pop(flow.key, None)
                    flows.pop((dst, dport, src, sport, proto), None)
                    live -= 1
    _keep.append(flows)
    return packets, live


# --- ours ----------------------------------------------------------------------------------------------

_keep: list[Any] = []  # what must live until memory is measured


def _replay(source: str, target: str, view: str, nat: bool) -> tuple[int, int]:
    from traffic import INSIDE4, INSIDE6, PUBLIC4, PUBLIC6

    from conntrack import Engine, Masquerade
    from conntrack.drivers.capture import create_capture, open_capture
    from conntrack.drivers.replay import Replay
    from conntrack.drivers.vantage import Vantage

    sources = {4: INSIDE4, 6: INSIDE6} if view == "gateway" else {4: "0.0.0.0/0", 6: "::/0"}
    rules = [Masquerade(PUBLIC4, source=sources[4]), Masquerade(PUBLIC6, source=sources[6])]
    engine = Engine(rules if nat else None, {"nf_conntrack_acct": 1}, seed=1)
    with open_capture(source) as reader:
        writer = create_capture(target, like=reader) if nat else None
        replay = Replay(reader, engine, Vantage(engine, view), writer)
        for _ in replay.steps():
            pass
        if writer is not None:
            writer.close()
    _keep.append(engine)
    return replay.frames, engine.count()


def track(source: str, _: str) -> tuple[int, int]:
    """Frames and live connections."""
    return _replay(source, "", "gateway", False)


def nat(source: str, view: str) -> tuple[int, int]:
    """Frames and live connections; the translated capture goes to a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        return _replay(source, str(Path(folder) / "out.pcap"), view, True)


RUN: dict[str, Callable[[str, str], tuple[int, int]]] = {"naive": naive, "track": track, "nat": nat}


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def child(peer: str, source: str, view: str) -> None:
    """One run, in a process of its own: prints what it saw."""
    # a capture without packets first: what is imported and made once does not count as connections
    with open(source, "rb") as file, tempfile.NamedTemporaryFile() as empty:
        empty.write(file.read(24))
        empty.flush()
        RUN[peer](empty.name, view)
    _keep.clear()
    before = _rss()
    packets, live = RUN[peer](source, view)
    print(json.dumps({"packets": packets, "live": live, "grown": _rss() - before, "peak": _peak()}))


# --- the comparison ------------------------------------------------------------------------------------


class Turn:
    """One process's cost."""

    def __init__(self, peer: str, source: Path, view: str) -> None:
        command = [sys.executable, __file__, "--child", peer, str(source), view]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{peer} failed: {process.returncode}")
        said = json.loads(text)
        self.cpu = usage.ru_utime + usage.ru_stime
        self.packets, self.live, self.grown, self.peak = (
            said["packets"],
            said["live"],
            said["grown"],
            said["peak"],
        )


def compare(title: str, sources: dict[str, tuple[Path, str]], turns: int) -> list[str]:
    """The table of one capture."""
    runs: dict[str, list[Turn]] = {peer: [] for peer in PEERS}
    for turn in range(turns):
        for peer in PEERS:
            runs[peer].append(Turn(peer, *sources[peer]))
            print(f"  {title}: turn {turn + 1}, {peer}: {runs[peer][-1].cpu:.2f} s", file=sys.stderr)
    cost = {peer: statistics.median(turn.cpu for turn in runs[peer]) for peer in PEERS}
    lines = [
        title,
        f"  {'':8}{'packets/s':>11}{'ns/packet':>11}{'naive=1':>9}{'peak RSS':>11}{'live':>9}  octets each",
    ]
    for peer in PEERS:
        last = runs[peer][-1]
        lines.append(
            f"  {peer:8}{last.packets / cost[peer]:>11,.0f}{cost[peer] / last.packets * 1e9:>11,.0f}"
            f"{cost[peer] / cost['naive']:>9.2f}{last.peak / 2**20:>7.0f} MiB{last.live:>9,}"
            + (f"{last.grown / last.live:>13,.0f}" if last.live > 1000 else f"{'-':>13}")
            + f"   CPU s {' '.join(f'{turn.cpu:.2f}' for turn in runs[peer])}"
        )
    return [*lines, ""]


def repeated(source: Path, target: Path) -> None:
    """The capture again and again, days apart."""
    whole = source.read_bytes()
    record = Struct("<IIII" if whole[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">IIII")
    frames, at = [], 24
    while at + 16 <= len(whole):
        seconds, fraction, size, wire = record.unpack_from(whole, at)
        frames.append((seconds, fraction, size, wire, whole[at + 16 : at + 16 + size]))
        at += 16 + size
    with target.open("wb") as file:
        file.write(whole[:24])
        for number in range(REPEAT):
            for seconds, fraction, size, wire, data in frames:
                file.write(record.pack(seconds + number * APART, fraction, size, wire) + data)


def main() -> int:
    """Make the captures, let the peers take turns, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "replay.txt")
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return 0
    import traffic
    from conftest import heading

    lines = [
        "Whole replays beside the naive dpkt + dict tracker: raw results of benchmarks/peers.py",
        heading(),
        "",
    ]
    lines += [
        f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs; CPU = user + sys, {given.turns} turns"
    ]
    lines += [f"begun {time.strftime('%Y-%m-%d %H:%M')}", ""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, gateway = folder / "plain.pcap", folder / "gateway.pcap"
        for path, view in ((plain, traffic.PLAIN), (gateway, traffic.GATEWAY)):
            traffic.write(path, traffic.generate(given.packets, given.flows, 1, view))
        sources = {"naive": (plain, "gateway"), "track": (plain, "gateway"), "nat": (gateway, "gateway")}
        lines += compare(f"synthetic: {given.packets:,} packets, {given.flows:,} flows", sources, given.turns)
        if MIXED.exists():
            many = folder / "mixed.pcap"
            repeated(MIXED, many)
            sources = {"naive": (many, "gateway"), "track": (many, "gateway"), "nat": (many, "inside")}
            lines += compare(f"{MIXED.name}, {REPEAT} times", sources, given.turns)
    text = "\n".join(lines)
    given.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
