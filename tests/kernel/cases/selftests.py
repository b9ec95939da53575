"""Situations of the kernel's own tests for connection tracking and NAT, in our words.

One rule: what those tests assert about a socket is here a packet that such a socket would have sent.

Source of the situations: tools/testing/selftests/net/netfilter of Linux 6.18, the file named in each case.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, TRACK, case, nat, table

DROP_INVALID = table("filter", "FORWARD -p tcp -m conntrack --ctstate INVALID -j DROP")
C, S = "in0 10.0.0.2:34500 > 203.0.113.5:8080 tcp", "out0 203.0.113.5:8080 > 10.0.0.2:34500 tcp"
ISN = 1000000


def conversation(*lines: str) -> str:
    return "\n".join(lines) + "\n"


CASES = [
    case("packetdrill ack_loss_stall: acknowledged data sent again passes", conversation(
        f"{C} S seq 0 win 32792 opt mss:1000", f"{S} SA seq 0 ack 1 win 1000 opt mss", f"{C} A seq 1 ack 1 win 1000",
        *(line for at in range(10) for line in (f"{C} PA seq {1 + 146 * at} ack 1 win 257 len 146", f"{S} A seq 1 ack {147 + 146 * at} win 1000")),
        f"{C} PA seq 1 ack 1 win 257 len 146", f"{S} A seq 1 ack 1461 win 1000"), DROP_INVALID),
    case("packetdrill inexact_rst: an inexact RST closes a closing connection", conversation(
        f"{C} S seq 0 win 65535 opt mss,sackok,ts,ws8", f"{S} SA seq 1 ack 1 win 65535 opt mss", f"{C} A seq 1 ack 2 win 65535",
        *(f"{S} A seq {2 + 1000 * at} ack 1 win 65535 len 1000" for at in range(3)), *(f"{C} A seq 1 ack {1002 + 1000 * at} win 65535" for at in range(3)),
        f"{C} PA seq 1 ack 3002 win 65535 len 1000", f"{S} FA seq 3002 ack 1001 win 65535", f"{C} A seq 1001 ack 3003 win 65535",
        f"{C} RA seq 1001 ack 3003 win 65535", f"{S} R seq 2001 win 0"), DROP_INVALID),
    case("packetdrill rst_invalid: RSTs outside and inside the window", conversation(
        f"{C} S seq 0 win 65535 opt mss,sackok,ts,ws8", f"{S} SA seq 1 ack 1 win 65535 opt mss", f"{C} A seq 1 ack 2 win 65535",
        *(f"{S} A seq {2 + 1000 * at} ack 1 win 65535 len 1000" for at in range(3)), *(f"{C} A seq 1 ack {1002 + 1000 * at} win 65535" for at in range(3)),
        f"{S} R seq 1 win 0", f"{S} R seq 1000001 win 0", f"{S} R seq 43 win 0", f"{C} PA seq 1 ack 3002 win 65535 len 1000",
        f"{S} A seq 3002 ack 1001 win 65535", f"{S} RA seq 3001 ack 1001 win 0", f"{S} RA seq 3002 ack 1001 win 0"), DROP_INVALID),
    case("packetdrill syn_challenge_ack: an old incarnation answers", conversation(
        f"{C} S seq {ISN} win 65535 opt mss,sackok,ts,ws8", f"{S} A seq 145824453 ack 643160523 win 240 opt ts", f"{C} R seq 643160523 win 0",
        f"{C} S seq {ISN} win 65535 opt mss,sackok,ts,ws8", f"{S} SA seq 0 ack {ISN + 1} win 250 opt mss,ts,ws0", f"{C} A seq {ISN + 1} ack 1 win 256 opt ts"), DROP_INVALID),
    case("packetdrill synack_old: an old SYN/ACK and then the right one", conversation(
        f"{C} S seq {ISN} win 65535 opt mss,sackok,ts,ws8", f"{S} SA seq 145824453 ack 643160523 win 240 opt mss,ts,ws0",
        f"{C} S seq {ISN} win 65535 opt mss,sackok,ts,ws8", f"{S} SA seq 145758918 ack {ISN + 1} win 250 opt mss,ts,ws0",
        f"{C} PA seq {ISN + 1} ack 145758919 win 256 len 1 opt ts"), DROP_INVALID),
    case("packetdrill synack_reuse: a SYN in an open connection, challenge ACK, RST, SYN", conversation(
        f"{C} S seq 0 win 32792 opt mss:1000,ws7,ts", f"{S} SA seq 0 ack 1 win 65535 opt mss,ts,ws8", f"{C} A seq 1 ack 1 win 257 opt ts",
        f"{C} PA seq 1 ack 1 win 257 len 100 opt ts", f"{S} A seq 1 ack 101 win 256 opt ts", f"{C} S seq 2000 win 32792 opt mss:1000,ws7,ts",
        f"{S} A seq 1 ack 101 win 256 opt ts", f"{C} RA seq 101 ack 1 win 257", f"{C} S seq 2000 win 32792 opt mss:1000,ws0,ts", f"{S} SA seq 77 ack 2001 win 65535 opt mss"), DROP_INVALID),
    case("conntrack_icmp_related: fragmentation needed for a masqueraded echo", conversation(
        "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 5 len 1300 df", "out0 192.0.2.9 > 198.51.100.1 icmp 3/4 rest 00000500 quoting 576 about 198.51.100.1 > 203.0.113.5 icmp 8/0 id 5 len 1300 df",
        "in0 fd00:1::2 > 2600::1 icmpv6 128/0 id 5 len 1300", "out0 2001:db8:9::9 > 2001:db8:2::1 icmpv6 2/0 rest 00000500 quoting 1200 about 2001:db8:2::1 > 2600::1 icmpv6 128/0 id 5 len 1300"),
        MASQUERADE, MASQUERADE),
    case("conntrack_icmp_related: a redirect for a host on the same wire", "in0 10.0.0.2 > 10.0.0.42 icmp 8/0 id 5 len 56\nin0 fd00:1::2 > fd00:1::42 icmpv6 128/0 id 5 len 56\n", sysctl={"net.ipv4.conf.all.send_redirects": 1}),
    case("conntrack_tcp_unreplied: a redirect rule meets an unreplied SYN", f"{C} S seq 5\nrules nat\n{C} S seq 5\nsleep 1.3\n{C} S seq 5\n", TRACK,
         texts={"nat": nat("PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 80")}, sysctl={"nf_conntrack_tcp_timeout_syn_sent": 1}),
    case("conntrack_sctp_collision: a stale INIT ACK", conversation(*(line.replace("C ", "in0 10.0.0.2:1234 > 203.0.113.5:1234 sctp ").replace("S ", "out0 203.0.113.5:1234 > 10.0.0.2:1234 sctp ") for line in (
        "C vtag 0 init:2017837359", "S vtag 0 init:1187206187", "C vtag 1187206187 initack:2017837359", "S vtag 2017837359 cookie", "C vtag 1187206187 cookieack", "S vtag 2017837359 initack:164579970", "S vtag 2017837359 hb", "C vtag 1187206187 hback")))),
    case("conntrack_sctp_collision: a stale INIT", conversation(*(line.replace("C ", "in0 10.0.0.2:1234 > 203.0.113.5:1234 sctp ").replace("S ", "out0 203.0.113.5:1234 > 10.0.0.2:1234 sctp ") for line in (
        "S vtag 0 init:1187206187", "C vtag 1187206187 initack:2017837359", "S vtag 2017837359 cookie", "C vtag 1187206187 cookieack", "C vtag 0 init:2017837359", "S vtag 2017837359 initack:164579970", "S vtag 2017837359 hb", "C vtag 1187206187 hback")))),
    case("nft_nat local_dnat: the box's own ping goes elsewhere", "send 10.0.0.1 > 10.0.0.99 icmp 8/0 id 5 len 56\nout0 203.0.113.5 > 198.51.100.1 icmp 0/0 id 5 len 56\nrules none\nsend 10.0.0.1 > 10.0.0.99 icmp 8/0 id 6 len 56\n",
         nat("OUTPUT -d 10.0.0.99 -j DNAT --to-destination 203.0.113.5", "POSTROUTING -o out0 -j MASQUERADE"), texts={"none": TRACK}),
    case("nft_nat local_dnat6", "send fd00:1::1 > fd00:1::99 icmpv6 128/0 id 5 len 56\n", rules6=nat("OUTPUT -d fd00:1::99 -j DNAT --to-destination 2600::1")),
    case("nft_nat port only: DNAT to a port without an address", "send 10.0.0.1:7 > 10.0.0.99:80 tcp S seq 5\nin0 10.0.0.99:2000 > 10.0.0.1:7 tcp SA seq 9 ack 6\n", nat("OUTPUT -p tcp -j DNAT --to-destination :2000")),
    case("nft_nat masquerade of pings, twice, and flushed rules", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 5 len 56\nout0 203.0.113.5 > 198.51.100.1 icmp 0/0 id 5 len 56\nin0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 6 len 56\nrules none\nin0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 7 len 56\n", MASQUERADE, texts={"none": TRACK}),
    case("nft_nat redirect of pings to the box", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 5 len 56\nin0 fd00:1::2 > 2600::1 icmpv6 128/0 id 5 len 56\n", nat("PREROUTING -i in0 -p icmp -s 10.0.0.2 -d 203.0.113.5 -j REDIRECT"), nat("PREROUTING -i in0 -p icmpv6 -s fd00:1::2 -d 2600::1 -j REDIRECT")),
    case("nft_nat port shadowing: a client's source port is a service", "in0 10.0.0.2:1405 > 203.0.113.5:41404 udp len 5\nout0 203.0.113.5:41404 > 198.51.100.1:1405 udp len 5\nout0 203.0.113.6:41404 > 198.51.100.1:1405 udp len 5\n", MASQUERADE),
    case("nft_nat port shadowing filtered by notrack", "in0 10.0.0.2:1405 > 203.0.113.5:41404 udp len 5\nout0 203.0.113.5:41404 > 198.51.100.1:1405 udp len 5\n", table("raw", "PREROUTING -p udp --dport 1405 -j NOTRACK", "OUTPUT -p udp --sport 1405 -j NOTRACK") + MASQUERADE),
    case("nft_nat stateless: tracked and untracked at once", "in0 10.0.0.2:1405 > 203.0.113.5:80 tcp S seq 1\nout0 203.0.113.5:80 > 198.51.100.1:1405 tcp SA seq 5 ack 2\n", table("raw", "PREROUTING -i in0 -j NOTRACK") + MASQUERADE),
    case("nft_nat_zones: clients of one address in zones of their own", "in0 10.0.0.2:10000 > 203.0.113.5:5201 tcp S seq 1\nin1 10.0.0.2:10000 > 203.0.113.6:5201 tcp S seq 1\nout0 203.0.113.5:5201 > 198.51.100.1:10000 tcp SA seq 5 ack 2\nout0 203.0.113.6:5201 > 198.51.100.1:10000 tcp SA seq 5 ack 2\n",
         table("raw", "PREROUTING -i in0 -j CT --zone-orig 1", "PREROUTING -i in1 -j CT --zone-orig 2") + MASQUERADE, interfaces={"in0": ["10.0.0.1/24"], "in1": ["10.1.0.1/24"], "out0": ["198.51.100.1/24"]}),
    case("conntrack_reverse_clash: both ends send first", "in0 10.0.0.2:56789 > 203.0.113.5:56790 udp len 3\nout0 203.0.113.5:56790 > 10.0.0.2:56789 udp len 3\nin0 10.0.0.2:56789 > 203.0.113.5:56790 udp len 3\n", nat("POSTROUTING -o none -j MASQUERADE")),
    case("nft_conntrack_helper: a helper is assigned by a rule", "in0 10.0.0.2:33 > 203.0.113.5:2121 tcp S seq 1\nin0 [fd00:1::2]:33 > [2600::1]:2121 tcp S seq 1\n", table("raw", "PREROUTING -p tcp --dport 2121 -j CT --helper ftp") + TRACK, table("raw", "PREROUTING -p tcp --dport 2121 -j CT --helper ftp") + TRACK),
    case("conntrack_ipip_mtu: a tunnelled datagram too big for the next hop", "in0 10.0.0.2 > 203.0.113.5 proto 4 len 1400 df\nin0 10.0.0.2 > 203.0.113.5 proto 4 len 1400\n", mtu={"out0": 1300}),
    case("rpath: replies by another way", "in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 5\nout0 203.0.113.5 > 10.0.0.2 icmp 0/0 id 5\nin0 203.0.113.5 > 10.0.0.2 icmp 0/0 id 5\n", sysctl={"net.ipv4.conf.all.rp_filter": 1}),
    # What Open vSwitch's system tests add to these.
    case("ovs: an unsolicited answer stays new for its own side", "out0 203.0.113.5:53 > 10.0.0.2:1111 udp len 3\nin0 10.0.0.2:1111 > 203.0.113.5:53 udp len 3\nout0 203.0.113.5:53 > 10.0.0.2:1111 udp len 3\n"),
    case("ovs: ICMP error about a fragment's datagram", "in0 10.0.0.2:1111 > 203.0.113.5:53 udp len 1000 pieces 504\nout0 192.0.2.9 > 10.0.0.2 icmp 3/3 quoting 80 about 10.0.0.2:1111 > 203.0.113.5:53 udp len 1000 pieces 504\n"),
    case("ovs: SNAT with one hole in its range", "".join(f"in0 10.0.0.{host}:34567 > 203.0.113.5:80 tcp S seq 1\n" for host in (2, 3)), nat("POSTROUTING -o out0 -p tcp -j SNAT --to-source 198.51.100.10:34567-34567")),
    case("ovs: DNAT with an answer in another zone", "out0 203.0.113.5:9 > 198.51.100.9:80 tcp S seq 1\nin0 10.0.0.3:80 > 203.0.113.5:9 tcp SA seq 4 ack 2\n", table("raw", "PREROUTING -i out0 -j CT --zone 4") + nat("PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.3")),
    case("ovs: FTP with a helper over DNAT and SNAT at once", "in0 10.0.0.2:2000 > 198.51.100.9:21 tcp S seq 999\nin0 10.0.0.3:21 > 10.0.0.1:2000 tcp SA seq 4999 ack 1000\nin0 10.0.0.2:2000 > 198.51.100.9:21 tcp A seq 1000 ack 5000\n"
         'in0 10.0.0.2:2000 > 198.51.100.9:21 tcp PA seq 1000 ack 5000 data "USER x\\r\\n"\nin0 10.0.0.2:2000 > 198.51.100.9:21 tcp PA seq 1008 ack 5000 data "PORT 10,0,0,2,19,137\\r\\n"\n',
         table("raw", "PREROUTING -p tcp --dport 21 -j CT --helper ftp") + nat("PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.3", "POSTROUTING -d 10.0.0.3 -j MASQUERADE"),
         sysctl={"net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.in0.send_redirects": 0}),
    case("ovs: a flow picked up in the middle, then a SYN", f"{C} A seq 5 ack 6\n{S} A seq 6 ack 5\n{C} S seq 900\n{S} SA seq 77 ack 901\n"),
    case("ovs: a mark set on the answer", f"{C} S seq 1\n{S} SA seq 4 ack 2\n{C} A seq 2 ack 5\n", TRACK + table("mangle", "FORWARD -i out0 -j CONNMARK --set-mark 1")),
    # What gVisor's iptables tests add.
    case("gvisor: REDIRECT of a port range", "in0 10.0.0.2:1 > 203.0.113.5:9 udp len 1\nin0 10.0.0.2:1 > 203.0.113.5:10 udp len 1\n", nat("PREROUTING -p udp -j REDIRECT --to-ports 4000-4001")),
    case("gvisor: TCP and UDP rules do not meet", "in0 10.0.0.2:1 > 10.0.0.1:80 udp len 1\nin0 10.0.0.2:1 > 10.0.0.1:80 tcp S seq 1\n", table("filter", "INPUT -p tcp --dport 80 -j DROP", "INPUT -m conntrack --ctstate NEW")),
    case("gvisor: a loopback address as a NAT source", "send 127.0.0.1:5 > 127.0.0.1:9 udp len 3\nsend 127.0.0.1 > 127.0.0.1 icmp 8/0 id 4\n", nat("OUTPUT -p udp -j REDIRECT --to-ports 99")),
    case("gvisor: RETURN in a built-in chain takes the policy", "in0 10.0.0.2:1 > 203.0.113.5:9 udp len 1\n", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate NEW -j RETURN\n-A FORWARD -j ACCEPT\nCOMMIT\n"),
    case("gvisor: an original destination kept through NAT", "out0 203.0.113.5:9 > 198.51.100.1:80 tcp S seq 1\nout0 203.0.113.5:9 > 198.51.100.1:80 tcp S seq 1\n", nat("PREROUTING -i out0 -p tcp --dport 80 -j REDIRECT --to-ports 8080")),
]  # fmt: skip
