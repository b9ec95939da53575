"""The naive tracker: what a competent user writes in an hour with dpkt and a dict.

    python run_naive.py CAPTURE

dpkt parses, a dict of 5-tuples in both directions finds the flow, TCP flags move a state, packets and octets are
counted, idle flows time out.  No windows, no checksums, no translation, no fragments, no ICMP errors.

Prints JSON: `packets`, `live` flows, `rss` (octets at the end).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import dpkt

_IDLE = {"NEW": 30, "SYN": 120, "OPEN": 432_000, "FIN": 120, "CLOSED": 10, "STREAM": 120}
_SWEEP = 60  # seconds of the capture between looks at idle flows

Key = tuple[bytes, int, bytes, int, int]


class Flow:
    """What is remembered of a flow."""

    __slots__ = ("bytes_in", "bytes_out", "first", "key", "last", "packets_in", "packets_out", "state")

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.state = "NEW"
        self.first = self.last = now
        self.packets_out = self.packets_in = self.bytes_out = self.bytes_in = 0


def track(source: str) -> tuple[int, dict[Key, Flow]]:
    """Packets, and the flows that are left, each under both of its keys."""
    flows: dict[Key, Flow] = {}
    packets, next_sweep = 0, 0.0
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
                for flow in [flow for flow in set(flows.values()) if now - flow.last > _IDLE[flow.state]]:
                    src, sport, dst, dport, proto = flow.key
                    flows.pop(flow.key, None)
                    flows.pop((dst, dport, src, sport, proto), None)
    return packets, flows


if __name__ == "__main__":
    packets, flows = track(sys.argv[1])
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps({"packets": packets, "live": len(set(flows.values())), "rss": rss}))
