"""UDP, UDP-Lite, ICMP and ICMPv6 queries.

One rule: each case is one sentence of the field's fine print.

Sources: nf_conntrack_proto_udp.c, nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import case

C, S = "in0 10.0.0.2:1111 > 203.0.113.5:53", "out0 203.0.113.5:53 > 10.0.0.2:1111"
C6, S6 = "in0 [fd00:1::2]:1111 > [2600::1]:53", "out0 [2600::1]:53 > [fd00:1::2]:1111"
P, Q = "in0 10.0.0.2 > 203.0.113.5 icmp", "out0 203.0.113.5 > 10.0.0.2 icmp"
P6, Q6 = "in0 fd00:1::2 > 2600::1 icmpv6", "out0 2600::1 > fd00:1::2 icmpv6"

CASES = [
    case("a UDP query and its answer", f"{C} udp len 10\n{S} udp len 20\n{C} udp len 5\n{C} udp len 6\n"),
    case("UDP becomes a stream after two seconds", f"{C} udp len 10\n{S} udp len 20\n{C} udp len 5\nsleep 2.1\n{C} udp len 6\n{S} udp len 6\n"),
    case("a late first answer does not make a stream", f"{C} udp len 10\nsleep 2.1\n{S} udp len 20\n{S} udp len 20\n"),
    case("UDP over IPv6", f"{C6} udp len 10\n{S6} udp len 20\n{C6} udp\n"),
    case("UDP without a checksum", f"{C} udp len 3 nosum\n{S} udp len 3 nosum\n{C6} udp len 3 nosum\n"),
    case("UDP with a wrong checksum", f"{C} udp len 3 badsum\n{C} udp len 3\n{S} udp len 3 badsum\n"),
    case("UDP with a wrong checksum, checking off", f"{C} udp len 3 badsum\n", sysctl={"nf_conntrack_checksum": 0}),
    case("UDP lengths that lie", f"{C} udp len 20 said 7\n{C} udp len 20 said 8\n{C} udp len 20 said 0\n{C} udp len 20 said 29\n{C} udp len 20 said 27 nosum\n"),
    case("UDP cut short", f"{C} udp len 20 cut 27\n{C} udp len 20 cut 24\n{C} udp len 20 cut 23\n"),
    case("UDP between the same ports", "in0 10.0.0.2:53 > 203.0.113.5:53 udp\nout0 203.0.113.5:53 > 10.0.0.2:53 udp\n"),
    case("UDP port zero", "in0 10.0.0.2:0 > 203.0.113.5:0 udp\nout0 203.0.113.5:0 > 10.0.0.2:0 udp\n"),
    case("UDP timeouts follow the sysctls", f"{C} udp\n{S} udp\n", sysctl={"nf_conntrack_udp_timeout": 44}),
    case("UDP expires and begins anew", f"{C} udp\nsleep 1.3\n{C} udp\n{S} udp\n", sysctl={"nf_conntrack_udp_timeout": 1}),
    case("UDP-Lite as RFC 3828 has it is refused", f"{C} udplite len 8 rfc\n"),
    case("UDP-Lite as Linux has it", f"{C} udplite len 8\n{S} udplite len 8 said 8\n{C} udplite len 8 said 12\n{C} udplite len 8 said 16\n"),
    case("UDP-Lite coverage that lies", f"{C} udplite len 8 said 7\n{C} udplite len 8 said 17\n{C} udplite len 8 nosum\n"),
    case("an echo request and its reply", f"{P} 8/0 id 7 n 1 len 8\n{Q} 0/0 id 7 n 1 len 8\n{P} 8/0 id 7 n 2 len 8\n{P} 8/0 id 8 n 1 len 8\n"),
    case("an echo reply that nobody asked for", f"{P} 0/0 id 7\n{Q} 0/0 id 9\n"),
    case("all ICMP types", "\n".join(f"{P} {kind}/0 id 7 len 8" for kind in range(21))),
    case("ICMP codes are part of the tuple", f"{P} 8/0 id 7\n{P} 8/1 id 7\n{Q} 0/0 id 7\n{Q} 0/1 id 7\n"),
    case("ICMP timestamp, information and mask requests", "\n".join(f"{P} {kind}/0 id 7 len 12\n{Q} {kind + 1}/0 id 7 len 12" for kind in (13, 15, 17))),
    case("ICMP with a wrong checksum", f"{P} 8/0 id 7 badsum\n"),
    case("ICMP cut short", f"{P} 8/0 id 7 cut 27\n{P} 8/0 id 7 cut 24\n"),
    case("ICMPv6 echo", f"{P6} 128/0 id 7 len 8\n{Q6} 129/0 id 7 len 8\n{P6} 128/0 id 7 len 8\n"),
    case("all kinds of ICMPv6 types", "\n".join(f"{P6} {kind}/0 id 7 len 40" for kind in (128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 143, 144, 148, 151, 152, 153, 155, 200, 255))),
    case("ICMPv6 with a wrong checksum", f"{P6} 128/0 id 7 badsum\n"),
    case("ICMP inside IPv6 and ICMPv6 inside IPv4", "in0 fd00:1::2 > 2600::1 icmp 8/0 id 1\nin0 10.0.0.2 > 203.0.113.5 icmpv6 128/0 id 1\n"),
    case("an ICMP entry expires", f"{P} 8/0 id 7\nsleep 1.3\n{Q} 0/0 id 7\n{P} 8/0 id 7\n", sysctl={"nf_conntrack_icmp_timeout": 1}),
]  # fmt: skip
