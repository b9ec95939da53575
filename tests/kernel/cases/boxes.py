"""What a router does besides: header checks, TTL, routes, its own packets.

One rule: these cases have rules only where tracking is wanted.

Sources: ip_input.c, ip6_input.c, ip_forward.c, ip6_output.c, route.c, icmp.c, RFC 1812, RFC 8200.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import TRACK, case

U = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8"
U6 = "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 8"
THREE = {"in0": ["10.0.0.1/24"], "in1": ["10.1.0.1/24"], "out0": ["198.51.100.1/24"]}

CASES = [
    case("a TTL that runs out", f"{U} ttl 1\n{U} ttl 0\n{U} ttl 2\n"),
    case("a hop limit that runs out", f"{U6} ttl 1\n{U6} ttl 0\n{U6} ttl 2\n"),
    case("an echo request to the box", "in0 10.0.0.2 > 10.0.0.1 icmp 8/0 id 7 n 3 len 56\nin0 10.0.0.2 > 198.51.100.1 icmp 8/0 id 8 len 4\nin0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 len 56\n"),
    case("a port of the box that nobody listens on", "in0 10.0.0.2:1 > 10.0.0.1:9 udp len 5\nin0 10.0.0.2:1 > 10.0.0.1:9 tcp S seq 999\nin0 10.0.0.2:1 > 10.0.0.1:9 tcp A seq 5 ack 6\nin0 10.0.0.2:1 > 10.0.0.1:9 tcp R seq 5\n"),
    case("the same over IPv6", "in0 [fd00:1::2]:1 > [fd00:1::1]:9 udp len 5\nin0 [fd00:1::2]:1 > [fd00:1::1]:9 tcp S seq 999\n"),
    case("a protocol that the box does not speak", "in0 10.0.0.2 > 10.0.0.1 proto 253 len 8\nin0 fd00:1::2 > fd00:1::1 proto 253 len 8\n"),
    case("a broadcast and a multicast", "in0 10.0.0.2:1 > 10.0.0.255:9 udp len 5\nin0 10.0.0.2:1 > 255.255.255.255:9 udp len 5\nin0 10.0.0.2:1 > 224.0.0.1:9 udp len 5\nin0 10.0.0.2:1 > 239.1.1.1:9 udp len 5\nin0 10.0.0.2 > 10.0.0.255 icmp 8/0 id 1\n"),
    case("sources that cannot be", "".join(f"in0 {source}:1 > 203.0.113.5:9 udp len 5\n" for source in ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "10.0.0.1", "198.51.100.1", "10.0.0.255", "240.0.0.1"))),
    case("destinations that cannot be", "".join(f"in0 10.0.0.2:1 > {target}:9 udp len 5\n" for target in ("0.0.0.0", "127.0.0.1", "240.0.0.1", "0.1.2.3", "10.0.0.0"))),
    case("IPv6 addresses that cannot be", "in0 [::1]:1 > [2600::1]:9 udp\nin0 [fd00:1::2]:1 > [::1]:9 udp\nin0 [ff02::1]:1 > [2600::1]:9 udp\nin0 [::]:1 > [2600::1]:9 udp\nin0 [fe80::5]:1 > [2600::1]:9 udp\nin0 [fd00:1::2]:1 > [fe80::9]:9 udp\nin0 [fd00:1::2]:1 > [::]:9 udp\n"),
    case("no route", f"{U}\n{U6}\n", routes=["203.0.113.0/28 dev out0"]),
    case("unreachable, prohibited and blackholed routes", "in0 10.0.0.2:1 > 192.0.2.1:9 udp\nin0 10.0.0.2:1 > 192.0.2.65:9 udp\nin0 10.0.0.2:1 > 192.0.2.129:9 udp\n", routes=["default dev out0", "unreachable 192.0.2.0/26", "prohibit 192.0.2.64/26", "blackhole 192.0.2.128/26"]),
    case("the longest prefix wins", "in0 10.0.0.2:1 > 10.1.0.9:9 udp\nin0 10.0.0.2:1 > 10.1.1.9:9 udp\n", interfaces=THREE, routes=["default dev out0", "10.1.1.0/24 via 10.1.0.7 dev in1"]),
    case("a strict reverse path filter", f"{U}\nin0 10.9.0.2:1 > 203.0.113.5:9 udp\nout0 10.0.0.2:1 > 10.0.0.3:9 udp\n", sysctl={"net.ipv4.conf.all.rp_filter": 1}),
    case("a loose reverse path filter", "in0 10.9.0.2:1 > 203.0.113.5:9 udp\nout0 10.0.0.2:1 > 10.0.0.3:9 udp\n", sysctl={"net.ipv4.conf.all.rp_filter": 2}),
    case("header lengths that lie", "in0 raw 4400001c000100004011aecd0a000002cb007105045700350008ffff\nin0 raw 4f00001c000100004011a3cd0a000002cb007105045700350008ffff\nin0 raw 450000ff000100004011adea0a000002cb007105045700350008ffff\nin0 raw 45000013000100004011aed60a000002cb007105045700350008ffff\n".replace("in0 raw", "in0 raw")),
    case("octets behind the packet are cut off", "in0 raw 4500001c0001000040114d8d0a000002cb007105045700350008ffff000000000000\n"),
    case("a small MTU and the don't-fragment bit", "in0 10.0.0.2:1 > 203.0.113.5:9 udp len 1400 df\nin0 [fd00:1::2]:1 > [2600::1]:9 udp len 1400\nin0 10.0.0.2:1 > 203.0.113.5:9 udp len 1400\n", mtu={"out0": 1300}),
    case("IP options on the way through", "in0 10.0.0.2:1 > 203.0.113.5:9 udp options 01010100\nin0 10.0.0.2:1 > 203.0.113.5:9 udp options 0707040000000000\nin0 10.0.0.2:1 > 203.0.113.5:9 udp options 4408090000000000\nin0 10.0.0.2:1 > 203.0.113.5:9 udp options 94040000\n"),
    case("source routes and broken options", "in0 10.0.0.2:1 > 203.0.113.5:9 udp options 8307040a00000300\nin0 10.0.0.2:1 > 203.0.113.5:9 udp options 07020000\nin0 10.0.0.2:1 > 203.0.113.5:9 udp options 44000000\n"),
    case("IPv6 options that must be understood", "in0 raw 6000000000100040fd00000100000000000000000000000226000000000000000000000000000001110001" "0201020000045700350008b0ba\n".replace("\n", "\n")),
    case("the box sends", "send 198.51.100.1:5000 > 203.0.113.5:53 udp len 5\nout0 203.0.113.5:53 > 198.51.100.1:5000 udp len 9\nsend 10.0.0.1 > 10.0.0.2 icmp 8/0 id 3 len 8\nin0 10.0.0.2 > 10.0.0.1 icmp 0/0 id 3 len 8\n"),
    case("the box sends over IPv6", "send [2001:db8:2::1]:5000 > [2600::1]:53 udp len 5\nout0 [2600::1]:53 > [2001:db8:2::1]:5000 udp len 9\n"),
    case("the box sends to itself", "send 10.0.0.1:5000 > 10.0.0.1:53 udp len 5\nsend 10.0.0.1 > 198.51.100.1 icmp 8/0 id 3 len 8\n"),
    case("an answer that goes out where it came in", "in0 10.0.0.2:1 > 10.0.0.3:9 udp len 5\n", sysctl={"net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.in0.send_redirects": 0}),
    case("a redirect to a better way", "in0 10.0.0.2:1 > 10.0.0.3:9 udp len 5\n", sysctl={"net.ipv4.conf.all.send_redirects": 1}),
    case("a box without tracking", f"{U}\n{U6}\nin0 10.0.0.2 > 10.0.0.1 icmp 8/0 id 7\n", "", ""),
    case("tracking comes and goes with the rules", f"{U}\nrules none\n{U}\nin0 10.0.0.9:1 > 203.0.113.5:53 udp\nrules track\n{U}\n", texts={"none": "", "track": TRACK}),
]  # fmt: skip
