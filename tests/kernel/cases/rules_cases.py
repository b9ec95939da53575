"""What rules do to packets: matches, targets, chains.

One rule: each script sends one packet that matches and one that does not.

Sources: x_tables.c, nf_tables_core.c, the xt_*.c named in a case, iptables-extensions(8).
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import TRACK, case, table

U, V = "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 8", "out0 203.0.113.5:53 > 10.0.0.2:1111 udp len 8"
C, S = "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp", "out0 203.0.113.5:80 > 10.0.0.2:1234 tcp"
U6 = "in0 [fd00:1::2]:1111 > [2600::1]:53 udp len 8"


def forward(*rules: str) -> str:
    """A filter table with tracking and these rules in FORWARD."""
    return table("filter", *(f"FORWARD {rule}" for rule in rules), "FORWARD -m conntrack --ctstate NEW -j ACCEPT")


REJECTS = ("net-unreachable", "host-unreachable", "proto-unreachable", "port-unreachable", "net-prohibited", "host-prohibited", "admin-prohibited")
REJECTS6 = ("no-route", "adm-prohibited", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route")

CASES = [
    case("every word of REJECT", "\n".join(f"in0 10.0.0.2:1111 > 203.0.113.5:{port} udp len 8" for port in range(100, 107)),
         forward(*(f"-p udp --dport {100 + at} -j REJECT --reject-with icmp-{word}" for at, word in enumerate(REJECTS)))),
    case("every word of REJECT in IPv6", "\n".join(f"in0 [fd00:1::2]:1111 > [2600::1]:{port} udp len 8" for port in range(100, 106)),
         rules6=forward(*(f"-p udp --dport {100 + at} -j REJECT --reject-with icmp6-{word}" for at, word in enumerate(REJECTS6)))),
    case("REJECT quotes at most what fits", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 1200\n", forward("-p udp -j REJECT")),
    case("REJECT does not answer some packets", f"{U} badsum\nin0 10.0.0.2 > 203.0.113.5 icmp 3/3 len 40\nin0 10.0.0.2:1 > 255.255.255.255:9 udp\n", table("filter", "FORWARD -j REJECT", "INPUT -j REJECT") + ""),
    case("a TCP reset of a SYN, of an ACK, of a RST", f"{C} S seq 999\n{C} A seq 1000 ack 5000 len 5\n{C} R seq 1000\n{C} FA seq 7 ack 9\n", forward("-p tcp -j REJECT --reject-with tcp-reset")),
    case("a TCP reset closes the entry", f"{C} S seq 999\n{S} SA seq 4999 ack 1000\n{C} A seq 1000 ack 5000\n{C} PA seq 1000 ack 5000 len 7\n", forward("-p tcp -m tcp --tcp-flags PSH PSH -j REJECT --reject-with tcp-reset")),
    case("a TCP reset in IPv6", "in0 [fd00:1::2]:1234 > [2600::1]:80 tcp S seq 999\n", rules6=forward("-p tcp -j REJECT --reject-with tcp-reset")),
    case("REJECT in INPUT and OUTPUT", "in0 10.0.0.2:1 > 10.0.0.1:9 udp len 5\nsend 10.0.0.1:5 > 10.0.0.2:6 udp len 5\n", table("filter", "INPUT -p udp -j REJECT", "OUTPUT -p udp -j REJECT") + ""),
    case("TCPMSS lowers and inserts", f"{C} S seq 1 opt mss\n{S} SA seq 5 ack 2 opt mss:500\nin0 10.0.0.2:1235 > 203.0.113.5:80 tcp S seq 1\nin0 10.0.0.2:1236 > 203.0.113.5:80 tcp S seq 1 len 5\n",
         TRACK + table("mangle", "FORWARD -p tcp --syn -j TCPMSS --set-mss 1200", "FORWARD -p tcp --tcp-flags SYN,ACK SYN,ACK -j TCPMSS --set-mss 400")),
    case("TCPMSS by the path", f"{C} S seq 1 opt mss\nin0 10.0.0.2:1235 > 203.0.113.5:80 tcp S seq 1 opt mss:9000\n", TRACK + table("mangle", "FORWARD -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu"), mtu={"out0": 1400}),
    case("TTL set, lowered and raised", f"{U}\n{U} ttl 2\n{C} S seq 1\nin0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 1\n", TRACK + table("mangle", "PREROUTING -p udp -j TTL --ttl-dec 1", "PREROUTING -p tcp -j TTL --ttl-set 200", "POSTROUTING -p icmp -j TTL --ttl-inc 5")),
    case("HL in IPv6", f"{U6}\n", rules6=TRACK + table("mangle", "POSTROUTING -j HL --hl-set 99")),
    case("user chains, goto and return", f"{U}\n{C} S seq 1\nin0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 1\n",
         "*filter\n:one - [0:0]\n:two - [0:0]\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -p udp -g one\n-A FORWARD -p tcp -j two\n-A FORWARD -j ACCEPT\n-A one -j RETURN\n-A one -j ACCEPT\n-A two -p tcp -j RETURN\nCOMMIT\n"),
    case("policies", f"{U}\n{V}\n{C} S seq 1\n", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n"),
    case("state without an entry ignores the rest of a rule", f"{C} FA seq 1 ack 1\n{U}\n", forward("-m conntrack --ctstate INVALID --ctorigsrc 1.2.3.4 -j DROP")),
    case("ctstatus NONE never matches", f"{U}\n", forward("-m conntrack --ctstatus NONE -j DROP")),
    case("the virtual states SNAT and DNAT", f"{U}\nout0 203.0.113.5:9 > 198.51.100.9:80 udp\n", forward("-m conntrack --ctstate DNAT -j DROP") + table("nat", "PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.3", "POSTROUTING -o out0 -j MASQUERADE")),
    case("original and reply addresses and ports", f"{U}\n{V}\n{C} S seq 1\n", forward("-m conntrack --ctorigsrc 10.0.0.0/24 --ctrepldstport 1111 --ctproto udp --ctdir REPLY -j DROP")),
    case("multiport in all forms", "\n".join(f"in0 10.0.0.2:{a} > 203.0.113.5:{b} udp" for a, b in ((1, 80), (80, 1), (7, 7), (1500, 9))), forward("-p udp -m multiport --dports 80,90:99 -j DROP", "-p udp -m multiport --sports 1000:2000 -j DROP", "-p udp -m multiport --ports 7 -j DROP")),
    case("addrtype by device", "in0 10.0.0.2:1 > 198.51.100.1:9 udp\nin0 10.0.0.2:1 > 10.0.0.1:9 udp\nin0 10.0.0.2:1 > 10.0.0.255:9 udp\n", table("filter", "INPUT -m addrtype --dst-type LOCAL --limit-iface-in -j DROP", "INPUT -m conntrack --ctstate NEW")),
    case("iprange, comment and negation", f"{U}\nin0 10.0.0.9:1 > 203.0.113.5:53 udp\n", forward("-m iprange ! --src-range 10.0.0.1-10.0.0.5 -m comment --comment \"not ours\" -j DROP")),
    case("icmp types by name and number", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 1\nin0 10.0.0.2 > 203.0.113.5 icmp 13/0 id 1 len 12\n", forward("-p icmp --icmp-type echo-request -j DROP")),
    case("sctp chunk types", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:5\nin0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 data sack\n", forward("-p sctp --chunk-types only INIT -j DROP", "-p sctp --chunk-types all DATA,SACK -j DROP")),
    case("tcp options and flags", f"{C} S seq 1 opt ws7\n{C} S seq 1\n{C} FA seq 1 ack 1\n", forward("-p tcp --tcp-option 3 -j DROP", "-p tcp --tcp-flags FIN,ACK FIN,ACK -j DROP")),
    case("a fragment rule never matches behind tracking", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 100 pieces 56\n", forward("-f -j DROP")),
    case("the raw table drops before tracking", f"{U}\n{C} S seq 1\n", table("raw", "PREROUTING -p udp -j DROP") + TRACK),
    case("a drop in POSTROUTING leaves no entry", f"{U}\n{C} S seq 1\n", TRACK + table("mangle", "POSTROUTING -p udp -j DROP")),
    case("the security table", f"{U}\n{C} S seq 1\n", TRACK + table("security", "FORWARD -p udp -j DROP")),
]  # fmt: skip
