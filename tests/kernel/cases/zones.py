"""Zones, packet marks and connection marks.

One rule: the marks of the wire are only seen by what they cause: zones, matches, and the connection's mark.

Sources: xt_CT.c, xt_connmark.c, xt_mark.c, nf_conntrack_zones.h.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, TRACK, case, table

U, V = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8", "out0 203.0.113.5:53 > 10.0.0.2:1111 udp len 8"
C, S = "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp", "out0 203.0.113.5:80 > 10.0.0.2:1234 tcp"
M = "out0 203.0.113.5:53 > 198.51.100.1:1111 udp len 8"


def zone(words: str, iface: str = "in0") -> str:
    """A raw table that puts packets of a device into a zone."""
    return table("raw", f"PREROUTING -i {iface} -j CT {words}") + TRACK


CASES = [
    case("a zone for one device: the answer is new", f"{U}\n{V}\n{U}\n", zone("--zone 5")),
    case("one zone for both devices", f"{U}\n{V}\n{U}\n", table("raw", "PREROUTING -j CT --zone 5") + TRACK),
    case("a zone of the original direction", f"{U}\n{V}\n{U}\n{C} S seq 1\n{S} SA seq 5 ack 2\n", zone("--zone-orig 6")),
    case("a zone of the reply direction", f"{U}\n{V}\n{U}\n", zone("--zone-reply 7")),
    case("a zone from the mark", f"{U}\n{V}\n{U}\n", table("raw", "PREROUTING -i in0 -j CT --zone mark") + table("mangle", "PREROUTING -j MARK --set-mark 3") + TRACK),
    case("the same flow in two zones", f"{U}\nout0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8\n", table("raw", "PREROUTING -i in0 -j CT --zone 1", "PREROUTING -i out0 -j CT --zone 2") + TRACK),
    case("masquerade out of a zone", f"{U}\n{M}\n{U}\n", table("raw", "PREROUTING -i in0 -j CT --zone 5") + MASQUERADE),
    case("masquerade out of an original zone", f"{U}\n{M}\n{U}\n", table("raw", "PREROUTING -i in0 -j CT --zone-orig 5") + MASQUERADE),
    case("errors find their flow in its zone", f"{U}\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3 about 10.0.0.2:1111 > 203.0.113.5:53 udp len 8\nin0 192.0.2.9 > 10.0.0.2 icmp 3/3 about 10.0.0.2:1111 > 203.0.113.5:53 udp len 8\n", zone("--zone 5")),
    case("fragments are gathered by zone", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 100 pieces 56 order 0\nout0 10.0.0.2:1111 > 203.0.113.5:53 udp len 100 pieces 56 order 1\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 100 pieces 56 order 1\n", zone("--zone 5")),
    case("the first CT rule counts", f"{U}\n", table("raw", "PREROUTING -j CT --zone 1", "PREROUTING -j CT --zone 2", "PREROUTING -j CT --notrack") + TRACK),
    case("a mark is saved and restored", f"{U}\n{V}\n{U}\n", table("mangle", "PREROUTING -i in0 -p udp -j MARK --set-mark 5", "PREROUTING -i in0 -j CONNMARK --save-mark", "PREROUTING -i out0 -j CONNMARK --restore-mark", "FORWARD -i out0 -m mark --mark 5 -j DROP") + TRACK),
    case("every way to change a connection's mark", f"{U}\n{V}\n{U}\n{V}\n", table("mangle", "PREROUTING -m connmark --mark 0 -j CONNMARK --set-mark 0xf0", "FORWARD -i out0 -j CONNMARK --xor-mark 0xff", "POSTROUTING -o out0 -j CONNMARK --or-mark 0x100", "POSTROUTING -o in0 -j CONNMARK --and-mark 0xfff") + TRACK),
    case("a mark that does not change makes no event", f"{U}\n{U}\n{V}\n", table("mangle", "PREROUTING -j CONNMARK --set-mark 7") + TRACK),
    case("masked marks", f"{U}\n{V}\n", table("mangle", "PREROUTING -j MARK --set-xmark 0x12/0xff", "PREROUTING -j CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xff", "FORWARD -m mark --mark 0x10/0xf0 -j MARK --set-xmark 0x1/0x1", "POSTROUTING -m mark --mark 0x13 -j CONNMARK --set-xmark 0x8/0x8") + TRACK),
    case("events can be chosen", f"{U}\n{V}\n{U}\n{C} S seq 1\n{S} SA seq 5 ack 2\n{C} A seq 2 ack 6\nflush\n", table("raw", "PREROUTING -p udp -j CT --ctevents new", "PREROUTING -p tcp -j CT --ctevents destroy,protoinfo") + TRACK),
    case("no events at all", f"{U}\n{V}\nflush\n", sysctl={"nf_conntrack_events": 0}),
    case("a notrack rule by itself tracks nothing", f"{U}\n{V}\n{C} S seq 1\n", table("raw", "PREROUTING -p udp -j NOTRACK"), ""),
    case("NOTRACK beside tracking", f"{U}\n{C} S seq 1\nin0 10.0.0.2 > 10.0.0.1 icmp 8/0 id 1\n", table("raw", "PREROUTING -p udp -j CT --notrack", "OUTPUT -p icmp -j NOTRACK") + TRACK),
]  # fmt: skip
