"""ICMP errors about tracked and translated flows.

One rule: the quote is what the complainer saw, so each case says on which wire it stood.

Sources: nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c, nf_nat_proto.c (nf_nat_icmp_reply_translation).
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, NAT_HOOKS, case, nat

U = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8"
V = "out0 203.0.113.5:53 > 198.51.100.1:1111 udp len 8"
QUOTE_OUT = "198.51.100.1:1111 > 203.0.113.5:53 udp len 8"  # as the outer wire saw the question
QUOTE_PLAIN = "10.0.0.2:1111 > 203.0.113.5:53 udp len 8"
QUOTE_IN = "203.0.113.5:53 > 10.0.0.2:1111 udp len 8"  # as the inner wire saw the answer
DNAT = nat("PREROUTING -d 198.51.100.9 -p udp -j DNAT --to-destination 10.0.0.3:80")
D = "out0 203.0.113.5:999 > 198.51.100.9:8080 udp len 8"
E = "in0 10.0.0.3:80 > 203.0.113.5:999 udp len 8"

CASES = [
    case("every error type about a plain flow", f"{U}\n" + "\n".join(
        f"out0 192.0.2.9 > 10.0.0.2 icmp {kind} rest 00000578 about {QUOTE_PLAIN}" for kind in ("3/0", "3/1", "3/3", "3/4", "3/13", "4/0", "11/0", "11/1", "12/0", "5/1"))),
    case("an error about nobody", f"out0 192.0.2.9 > 10.0.0.2 icmp 3/3 about {QUOTE_PLAIN}\n"),
    case("an error to somebody else", f"{U}\nout0 192.0.2.9 > 10.0.0.3 icmp 3/3 about {QUOTE_PLAIN}\n"),
    case("an error from outside about a masqueraded flow", f"{U}\nout0 192.0.2.9 > 198.51.100.1 icmp 3/3 about {QUOTE_OUT}\nout0 203.0.113.5 > 198.51.100.1 icmp 3/4 rest 00000578 about {QUOTE_OUT}\n", MASQUERADE),
    case("an error from inside about a masqueraded flow's answer", f"{U}\n{V}\nin0 10.0.0.2 > 203.0.113.5 icmp 3/3 about {QUOTE_IN}\nin0 10.0.0.77 > 203.0.113.5 icmp 11/0 about {QUOTE_IN}\n", MASQUERADE),
    case("an error from inside about a forwarded port", f"{D}\nin0 10.0.0.3 > 203.0.113.5 icmp 3/3 about 203.0.113.5:999 > 10.0.0.3:80 udp len 8\nin0 10.0.0.99 > 203.0.113.5 icmp 11/0 about 203.0.113.5:999 > 10.0.0.3:80 udp len 8\n", DNAT),
    case("an error from outside about a forwarded port's answer", f"{D}\n{E}\nout0 203.0.113.5 > 198.51.100.9 icmp 3/3 about 198.51.100.9:8080 > 203.0.113.5:999 udp len 8\n"
         "out0 192.0.2.9 > 198.51.100.9 icmp 3/1 about 198.51.100.9:8080 > 203.0.113.5:999 udp len 8\n", DNAT),
    case("an error about TCP with all of its header, and with eight octets", "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp S seq 999\n"
         "out0 192.0.2.9 > 198.51.100.1 icmp 3/1 about 198.51.100.1:1234 > 203.0.113.5:80 tcp S seq 999\n"
         "out0 192.0.2.9 > 198.51.100.1 icmp 3/1 quoting 28 about 198.51.100.1:1234 > 203.0.113.5:80 tcp S seq 999\n"
         "out0 192.0.2.9 > 198.51.100.1 icmp 3/1 quoting 24 about 198.51.100.1:1234 > 203.0.113.5:80 tcp S seq 999\n"
         "out0 192.0.2.9 > 198.51.100.1 icmp 3/1 quoting 23 about 198.51.100.1:1234 > 203.0.113.5:80 tcp S seq 999\n", MASQUERADE),
    case("an error about an echo request", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 7 len 8\nout0 192.0.2.9 > 198.51.100.1 icmp 11/0 about 198.51.100.1 > 203.0.113.5 icmp 8/0 id 7 len 8\n", MASQUERADE),
    case("an error about a UDP packet without a checksum", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8 nosum\nout0 192.0.2.9 > 198.51.100.1 icmp 3/3 about 198.51.100.1:1111 > 203.0.113.5:53 udp len 8 nosum\n", MASQUERADE),
    case("an error with a wrong checksum", f"{U}\nout0 192.0.2.9 > 198.51.100.1 icmp 3/3 badsum about {QUOTE_OUT}\n", MASQUERADE),
    case("an error with a wrong checksum, checking off", f"{U}\nout0 192.0.2.9 > 198.51.100.1 icmp 3/3 badsum about {QUOTE_OUT}\n", MASQUERADE, sysctl={"nf_conntrack_checksum": 0}),
    case("an error about an error", f"{U}\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3 about 10.0.0.2 > 203.0.113.5 icmp 3/3 id 5 len 40\n"),
    case("a redirect about a translated flow is dropped", f"{U}\nout0 198.51.100.7 > 198.51.100.1 icmp 5/1 rest c6336408 about {QUOTE_OUT}\n", MASQUERADE),
    case("a redirect about an untranslated flow passes", f"{U}\nout0 198.51.100.7 > 10.0.0.2 icmp 5/1 rest c6336408 about {QUOTE_PLAIN}\n", NAT_HOOKS),
    case("the box's own error about a masqueraded flow", f"{U}\nout0 203.0.113.5:53 > 198.51.100.1:1111 udp len 8 ttl 1\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8 ttl 1\n", MASQUERADE),
    case("the box's own error about a forwarded port", f"out0 203.0.113.5:999 > 198.51.100.9:8080 udp len 8 ttl 1\n{D}\nin0 10.0.0.3:80 > 203.0.113.5:999 udp ttl 1 len 4\n", DNAT),
    case("a refusal about a forwarded port", f"{D}\n", DNAT.replace("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", "-A FORWARD -j REJECT")),
    case("ICMPv6 errors about a masqueraded flow", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 8\nout0 2001:db8:9::9 > 2001:db8:2::1 icmpv6 1/4 about [2001:db8:2::1]:1111 > [2600::1]:53 udp len 8\n"
         "out0 2001:db8:9::9 > 2001:db8:2::1 icmpv6 2/0 rest 00000500 about [2001:db8:2::1]:1111 > [2600::1]:53 udp len 8\n"
         "in0 fd00:1::2 > 2600::1 icmpv6 1/4 about [2600::1]:53 > [fd00:1::2]:1111 udp len 8\n", rules6=MASQUERADE),
    case("ICMPv6 errors of unassigned types", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 8\n" + "\n".join(
        f"out0 2001:db8:9::9 > fd00:1::2 icmpv6 {kind}/0 about [fd00:1::2]:1111 > [2600::1]:53 udp len 8" for kind in (0, 5, 100, 127))),
    case("an ICMPv6 error about an extension header", "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 8\nout0 2001:db8:9::9 > fd00:1::2 icmpv6 4/1 about [fd00:1::2]:1111 > [2600::1]:53 udp len 8 ext dst\n"),
    case("an error whose quote is cut in the IP header", f"{U}\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3 quoting 19 about {QUOTE_PLAIN}\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3 quoting 20 about {QUOTE_PLAIN}\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3\n"),
    case("errors about SCTP and GRE", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:5\nin0 10.0.0.2 > 203.0.113.5 gre v0\nout0 192.0.2.9 > 198.51.100.1 icmp 3/2 about 198.51.100.1:1 > 203.0.113.5:2 sctp vtag 0 init:5\n"
         "out0 192.0.2.9 > 198.51.100.1 icmp 3/2 about 198.51.100.1 > 203.0.113.5 gre v0\n", MASQUERADE),
]  # fmt: skip
