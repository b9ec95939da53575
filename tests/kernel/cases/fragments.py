"""Fragments in, and out again.

One rule: the datagram is always the same; only its pieces differ.

Sources: ip_fragment.c, nf_conntrack_reasm.c, nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c, ip_output.c, ip6_output.c.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, case

U, V = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 1000", "out0 203.0.113.5:53 > 198.51.100.1:1111 udp len 1000"
U6 = "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 1000"

CASES = [
    case("fragments in order", f"{U} pieces 400\n{V} pieces 400 ident 9\n", MASQUERADE),
    case("fragments backwards", f"{U} pieces 400 order 2,1,0\n", MASQUERADE),
    case("a fragment twice", f"{U} pieces 400 order 0,1,1,0,2\n", MASQUERADE),
    case("fragments of two datagrams mixed", f"{U} pieces 400 order 0,1 ident 5\n{U} pieces 600 order 0 ident 6\n{U} pieces 400 order 2 ident 5\n{U} pieces 600 order 1 ident 6\n", MASQUERADE),
    case("an overlap gives the datagram up", f"{U} pieces 400 order 0\n{U} pieces 384 order 1\n{U} pieces 400 order 1,2\n", MASQUERADE),
    case("ports split over two fragments", f"{U} pieces 8\n", MASQUERADE),
    case("a missing fragment", f"{U} pieces 400 order 0,2\n", MASQUERADE),
    case("fragments of a TCP SYN", "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp S seq 999 len 100 pieces 24\n", MASQUERADE),
    case("fragments of an echo request", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 7 len 900 pieces 304\nout0 203.0.113.5 > 198.51.100.1 icmp 0/0 id 7 len 900 pieces 304\n", MASQUERADE),
    case("fragments without tracking go through as they are", f"{U} pieces 400 order 2,0,1\n", "", ""),
    case("fragments of an untracked datagram", f"{U} pieces 400\n", "*raw\n-A PREROUTING -p udp -j NOTRACK\nCOMMIT\n" + MASQUERADE),
    case("fragments to the box", "in0 10.0.0.2 > 10.0.0.1 icmp 8/0 id 7 len 900 pieces 304\nin0 10.0.0.2:1 > 10.0.0.1:9 udp len 900 pieces 304 ident 7\n"),
    case("fragments to the box without tracking", "in0 10.0.0.2 > 10.0.0.1 icmp 8/0 id 7 len 900 pieces 304\n", "", ""),
    case("a whole datagram over a small MTU", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 1400\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 1400 df\n", MASQUERADE, mtu={"out0": 1300}),
    case("fragments over a small MTU", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 2000 pieces 1400\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 2000 pieces 800 ident 4\n", MASQUERADE, mtu={"out0": 1300}),
    case("IPv6 fragments in any order", f"{U6} pieces 400\n{U6} pieces 400 order 2,0,1 ident 9\n", rules6=MASQUERADE),
    case("IPv6 fragments that overlap", f"{U6} pieces 400 order 0\n{U6} pieces 384 order 1\n{U6} pieces 400 order 1,2\n", rules6=MASQUERADE),
    case("an IPv6 fragment twice", f"{U6} pieces 400 order 0,0,1,1,2\n", rules6=MASQUERADE),
    case("an atomic IPv6 fragment", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 100 pieces 1000\nout0 [2600::1]:53 > [2001:db8:2::1]:1111 udp len 100 pieces 1000\n", rules6=MASQUERADE),
    case("IPv6 fragments over a small MTU", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 1400\nin0 [fd00:1::2]:1111 > [2600::1]:53 udp len 1400 pieces 1360\n", rules6=MASQUERADE, mtu={"out0": 1280}),
    case("IPv6 fragments to the box", "in0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 len 900 pieces 304\n"),
]  # fmt: skip
