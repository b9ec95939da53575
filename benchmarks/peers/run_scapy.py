"""Scapy: every frame dissected, flows grouped by a tuple without direction, packets and octets counted.

    python run_scapy.py CAPTURE

Prints JSON: `packets`, `live`: flows.
"""

from __future__ import annotations

import json
import sys

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader


def track(source: str) -> tuple[int, dict[tuple[object, ...], list[int]]]:
    """Packets, and [packets, octets] of each flow."""
    flows: dict[tuple[object, ...], list[int]] = {}
    packets = 0
    with PcapReader(source) as reader:
        for frame in reader:
            packets += 1
            ip = frame.getlayer(IP) or frame.getlayer(IPv6)
            if ip is None:
                continue
            l4 = ip.getlayer(TCP) or ip.getlayer(UDP)
            proto = type(l4).__name__ if l4 is not None else "ICMP" if ip.haslayer(ICMP) else "other"
            ends = sorted(((ip.src, getattr(l4, "sport", 0)), (ip.dst, getattr(l4, "dport", 0))))
            counts = flows.setdefault((proto, *ends), [0, 0])
            counts[0] += 1
            counts[1] += len(frame)
    return packets, flows


if __name__ == "__main__":
    packets, flows = track(sys.argv[1])
    print(json.dumps({"packets": packets, "live": len(flows)}))
