"""NAT of every kind that needs no luck: what the kernel decides from rules and tuples alone.

One rule: where a port would be drawn at random, the rule leaves only one.

Sources: nf_nat_core.c, nf_nat_masquerade.c, nf_nat_redirect.c, xt_nat.c, xt_NETMAP.c, xt_MASQUERADE.c.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, NAT_HOOKS, TRACK, case, nat

C, S = "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp", "out0 203.0.113.5:80 > 198.51.100.1:1234 tcp"
U, V = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp", "out0 203.0.113.5:53 > 198.51.100.1:1111 udp"
P = "203.0.113.5:999"
SNAT4 = nat("POSTROUTING -s 10.0.0.0/24 -p udp -j SNAT --to-source 198.51.100.10:2000")
DNAT = nat("PREROUTING -d 198.51.100.9 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.3:80")
MASQUERADE6 = MASQUERADE

CASES = [
    case("masquerade, answer, and back", f"{C} S seq 999\n{S} SA seq 4999 ack 1000\n{C} A seq 1000 ack 5000\n{S} PA seq 5000 ack 1000 len 10\n", MASQUERADE),
    case("masquerade of UDP with and without checksum", f"{U} len 4\n{V} len 4\n{U} len 4 nosum\n{V} len 4 nosum\n", MASQUERADE),
    case("masquerade of ICMP keeps the identifier", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 7 len 8\nout0 203.0.113.5 > 198.51.100.1 icmp 0/0 id 7 len 8\n", MASQUERADE),
    case("masquerade of IPv6", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 4\nout0 [2600::1]:53 > [2001:db8:2::1]:1111 udp len 4\n"
         "in0 fd00:1::2 > 2600::1 icmpv6 128/0 id 9 len 8\nout0 2600::1 > 2001:db8:2::1 icmpv6 129/0 id 9 len 8\n", rules6=MASQUERADE),
    case("masquerade of SCTP, GRE and ESP", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:5\nin0 10.0.0.2 > 203.0.113.5 gre v0\nout0 203.0.113.5 > 198.51.100.1 gre v0\n"
         "in0 10.0.0.2 > 203.0.113.5 esp\nout0 203.0.113.5 > 198.51.100.1 esp\nin0 10.0.0.2 > 203.0.113.5 gre v1 call 5\n", MASQUERADE),
    case("two clients may share a port towards different servers", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp\nin0 10.0.0.3:1111 > 203.0.113.6:53 udp\n", MASQUERADE),
    case("one mapping towards all servers", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp\nin0 10.0.0.2:1111 > 203.0.113.6:53 udp\nin0 10.0.0.2:1111 > 203.0.113.6:54 udp\n", MASQUERADE),
    case("masquerade to one port: the second is dropped", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp\nin0 10.0.0.3:1111 > 203.0.113.5:53 udp\nin0 10.0.0.3:1111 > 203.0.113.6:53 udp\n",
         nat("POSTROUTING -o out0 -p udp -j MASQUERADE --to-ports 4000")),
    case("a port in the range is kept", "in0 10.0.0.2:2001 > 203.0.113.5:53 udp\nin0 10.0.0.2:2005 > 203.0.113.5:53 udp\n",
         nat("POSTROUTING -o out0 -p udp -j SNAT --to-source 198.51.100.10:2000-2001")),
    case("pool addresses are chosen by hash", "\n".join(f"in0 10.0.0.{host}:1111 > 203.0.113.{peer}:53 udp" for host in (2, 3, 4) for peer in (5, 6, 7)),
         nat("POSTROUTING -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.20-198.51.100.29")),
    case("a persistent pool goes by the source alone", "\n".join(f"in0 10.0.0.{host}:{port} > 203.0.113.{peer}:53 udp" for host in (2, 3) for peer in (5, 6) for port in (1111, 2222)),
         nat("POSTROUTING -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.20-198.51.100.29 --persistent")),
    case("an IPv6 pool", "\n".join(f"in0 [fd00:1::{host}]:1111 > [2600::{peer}]:53 udp" for host in (2, 3) for peer in (1, 2, 3)),
         rules6=nat("POSTROUTING -s fd00:1::/64 -j SNAT --to-source 2001:db8:2::20-2001:db8:2::29")),
    case("a forwarded port", f"out0 {P} > 198.51.100.9:8080 tcp S seq 1\nin0 10.0.0.3:80 > {P} tcp SA seq 9 ack 2\nout0 {P} > 198.51.100.9:8080 tcp A seq 2 ack 10\n", DNAT),
    case("a port range fills up from its low end", "\n".join(f"out0 {P} > 198.51.100.9:{port} udp" for port in (7000, 7001, 7002, 7003)),
         nat("PREROUTING -d 198.51.100.9 -p udp -j DNAT --to-destination 10.0.0.3:50-52")),
    case("a shifted port range", "\n".join(f"out0 {P} > 198.51.100.9:{port} udp" for port in (7000, 7050, 7100, 6999)),
         nat("PREROUTING -d 198.51.100.9 -p udp -j DNAT --to-destination 10.0.0.3:8000-8100/7000")),
    case("an address range of DNAT", "\n".join(f"out0 203.0.113.{peer}:999 > 198.51.100.9:80 udp" for peer in range(5, 13)),
         nat("PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.2-10.0.0.4")),
    case("a hairpin", "in0 10.0.0.2:4444 > 198.51.100.9:8080 tcp S seq 1\nin0 10.0.0.3:80 > 10.0.0.1:4444 tcp SA seq 9 ack 2\nin0 10.0.0.2:4444 > 198.51.100.9:8080 tcp A seq 2 ack 10\n",
         nat("PREROUTING -d 198.51.100.9 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.3:80", "POSTROUTING -s 10.0.0.0/24 -d 10.0.0.0/24 -j MASQUERADE"),
         sysctl={"net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.in0.send_redirects": 0}),
    case("NETMAP both ways", "in0 10.0.0.7:1111 > 203.0.113.5:53 udp\nout0 203.0.113.5:53 > 198.51.100.7:1111 udp\nout0 203.0.113.5:999 > 198.51.100.8:80 tcp S seq 1\nin0 10.0.0.8:80 > 203.0.113.5:999 tcp SA seq 5 ack 2\n",
         nat("PREROUTING -i out0 -d 198.51.100.0/24 -j NETMAP --to 10.0.0.0/24", "POSTROUTING -s 10.0.0.0/24 -j NETMAP --to 198.51.100.0/24")),
    case("NETMAP of IPv6", "in0 [fd00:1::7]:1111 > [2600::1]:53 udp\nout0 [2600::1]:53 > [2001:db8:5::7]:1111 udp\n",
         rules6=nat("POSTROUTING -s fd00:1::/64 -j NETMAP --to 2001:db8:5::/64")),
    case("REDIRECT to the box", "in0 10.0.0.2:1111 > 203.0.113.5:80 tcp S seq 1\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 5\nin0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 3\n",
         nat("PREROUTING -i in0 -p tcp -j REDIRECT --to-ports 3128", "PREROUTING -i in0 -p udp -j REDIRECT --to-ports 5353", "PREROUTING -i in0 -p icmp -j REDIRECT")),
    case("REDIRECT of IPv6", "in0 [fd00:1::2]:1111 > [2600::1]:80 tcp S seq 1\nin0 fd00:1::2 > 2600::1 icmpv6 128/0 id 3 len 8\n",
         rules6=nat("PREROUTING -i in0 -p tcp -j REDIRECT --to-ports 3128", "PREROUTING -i in0 -p icmpv6 -j REDIRECT")),
    case("SNAT in INPUT", "in0 10.0.0.2:1111 > 10.0.0.1:80 udp len 5\nin0 10.0.0.3:1111 > 10.0.0.1:80 tcp S seq 1\n",
         nat("INPUT -p udp -j SNAT --to-source 10.0.0.77", "INPUT -p tcp -j SNAT --to-source 10.0.0.77:3000")),
    case("DNAT in OUTPUT", "send 198.51.100.1:5000 > 203.0.113.5:53 udp len 5\nin0 10.0.0.2:5353 > 198.51.100.1:5000 udp len 9\n",
         nat("OUTPUT -d 203.0.113.5 -p udp -j DNAT --to-destination 10.0.0.2:5353")),
    case("REDIRECT in OUTPUT", "send 198.51.100.1:5000 > 203.0.113.5:80 udp len 5\n", nat("OUTPUT -p udp --dport 80 -j REDIRECT --to-ports 8080")),
    case("the box's own traffic is masqueraded", "send 10.0.0.1:5000 > 203.0.113.5:53 udp len 5\nout0 203.0.113.5:53 > 198.51.100.1:5000 udp len 9\n", MASQUERADE),
    case("the null binding resolves a collision of DNAT", f"out0 {P} > 198.51.100.9:7000 udp\nout0 {P} > 198.51.100.9:7001 udp\n",
         nat("PREROUTING -d 198.51.100.9 -p udp -j DNAT --to-destination 10.0.0.3:80", "POSTROUTING -o none -j ACCEPT")),
    case("rules that come later do not touch a flow", f"{U}\nrules nat\n{U}\n{V}\nin0 10.0.0.2:2222 > 203.0.113.5:53 udp\n", TRACK, texts={"nat": MASQUERADE}),
    case("rules that come later, with NAT hooks before", f"{U}\nrules nat\n{U}\nin0 10.0.0.2:2222 > 203.0.113.5:53 udp\n", NAT_HOOKS, texts={"nat": MASQUERADE}),
    case("rules that go leave the flows translated", f"{U}\nrules track\n{U}\n{V}\nin0 10.0.0.2:2222 > 203.0.113.5:53 udp\n", MASQUERADE, texts={"track": TRACK}),
    case("invalid packets leave untranslated", f"{C} FA seq 1 ack 1\n{C} S seq 1 badsum\n", MASQUERADE),
    case("untracked packets leave untranslated", f"{U}\n", "*raw\n-A PREROUTING -p udp -j NOTRACK\nCOMMIT\n" + MASQUERADE),
    case("a masquerade dies with its address", f"{U}\n{C} S seq 1\naddress add out0 198.51.100.33/24\naddress del out0 198.51.100.33/24\naddress del out0 198.51.100.1/24\naddress add out0 198.51.100.1/24\n{V}\n", MASQUERADE),
    case("a masquerade dies with its link", f"{U}\nin0 10.0.0.2:1 > 10.0.0.1:2 udp\nlink out0 down\nlink out0 up\n", MASQUERADE),
    case("plain SNAT survives the link", f"{U}\nlink out0 down\nlink out0 up\nroute add default dev out0\n{U}\n", nat("POSTROUTING -o out0 -j SNAT --to-source 198.51.100.10")),
    case("a masqueraded flow that changes its device dies", f"{U}\nroute add 203.0.113.0/24 dev in0\n{U}\n{U}\n", MASQUERADE,
         sysctl={"net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.in0.send_redirects": 0}),
    case("DROP by policy leaves no entry", f"{U}\n{C} S seq 1\n", MASQUERADE.replace("*filter\n", "*filter\n:FORWARD DROP [0:0]\n")),
    case("nat rules are asked once per flow", f"{C} S seq 1\n{C} S seq 1\n{S} SA seq 9 ack 2\nrules other\n{C} A seq 2 ack 10\n", MASQUERADE,
         texts={"other": nat("POSTROUTING -o out0 -j SNAT --to-source 198.51.100.10")}),
    case("ACCEPT in a nat chain ends it", f"{U}\n", nat("POSTROUTING -p udp -j ACCEPT", "POSTROUTING -j MASQUERADE")),
    case("RETURN from a user chain goes on", f"{U}\n{C} S seq 1\n", TRACK + "*nat\n:own - [0:0]\n-A POSTROUTING -j own\n-A POSTROUTING -j MASQUERADE\n-A own -p udp -j RETURN\n-A own -j SNAT --to-source 198.51.100.10\nCOMMIT\n"),
    case("TIME_WAIT gives its port to a later number", "".join(
        f"in0 10.0.0.{host}:1234 > 203.0.113.5:80 tcp S seq {seq}\n" for host, seq in ((2, 1000),))
        + "out0 203.0.113.5:80 > 198.51.100.1:4000 tcp SA seq 9 ack 1001\nin0 10.0.0.2:1234 > 203.0.113.5:80 tcp A seq 1001 ack 10\n"
        "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp FA seq 1001 ack 10\nout0 203.0.113.5:80 > 198.51.100.1:4000 tcp FA seq 10 ack 1002\nin0 10.0.0.2:1234 > 203.0.113.5:80 tcp A seq 1002 ack 11\n"
        "in0 10.0.0.3:1234 > 203.0.113.5:80 tcp S seq 500\nin0 10.0.0.3:1234 > 203.0.113.5:80 tcp S seq 5000\n",
         nat("POSTROUTING -o out0 -p tcp -j MASQUERADE --to-ports 4000")),
    case("a low port stays low, a high one high", "".join(f"in0 10.0.0.2:{port} > 203.0.113.5:53 udp\n" for port in (1, 511, 512, 1023, 1024, 65535)), MASQUERADE),
]  # fmt: skip
