"""FTP and TFTP with their helpers.

One rule: control connections are the worked examples' handshake, client 999, server 4999; the data connection is what
a peer would open who read the line as it came out.

Sources: nf_conntrack_ftp.c, nf_nat_ftp.c, nf_conntrack_tftp.c, nf_nat_tftp.c, nf_conntrack_expect.c, RFC 959, 2428, 1350.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import MASQUERADE, TRACK, case, nat, table

HELP = table("raw", "PREROUTING -p tcp --dport 21 -j CT --helper ftp", "PREROUTING -p udp --dport 69 -j CT --helper tftp")
PLAIN, NAT = HELP + TRACK, HELP + MASQUERADE
C, S = "in0 10.0.0.2:2000 > 203.0.113.5:21 tcp", "out0 203.0.113.5:21 > 10.0.0.2:2000 tcp"
N = "out0 203.0.113.5:21 > 198.51.100.1:2000 tcp"
OPEN = f"{C} S seq 999\n{S} SA seq 4999 ack 1000\n{C} A seq 1000 ack 5000\n" + S + ' PA seq 5000 ack 1000 data "220 hi\\r\\n"\n' + C + ' PA seq 1000 ack 5008 data "USER x\\r\\n"\n'
OPEN_NAT = OPEN.replace(S, N)
C6, S6 = "in0 [fd00:1::2]:2000 > [2600::1]:21 tcp", "out0 [2600::1]:21 > [fd00:1::2]:2000 tcp"
N6 = "out0 [2600::1]:21 > [2001:db8:2::1]:2000 tcp"
OPEN6 = OPEN.replace(C, C6).replace(S, S6)
PORT = ' PA seq 1008 ack 5008 data "PORT 10,0,0,2,19,137\\r\\n"\n'
PASV = ' PA seq 5008 ack 1008 data "227 Entering Passive Mode (203,0,113,5,19,137).\\r\\n"\n'

CASES = [
    case("FTP PORT and its data connection", f"{OPEN}{C}{PORT}out0 203.0.113.5:20 > 10.0.0.2:5001 tcp S seq 1\nin0 10.0.0.2:5001 > 203.0.113.5:20 tcp SA seq 9 ack 2\nout0 203.0.113.5:20 > 10.0.0.2:5001 tcp A seq 2 ack 10\n", PLAIN),
    case("FTP PASV and its data connection", f"{OPEN}{S}{PASV}in0 10.0.0.2:3333 > 203.0.113.5:5001 tcp S seq 1\nout0 203.0.113.5:5001 > 10.0.0.2:3333 tcp SA seq 9 ack 2\n", PLAIN),
    case("FTP PORT through masquerade", f"{OPEN_NAT}{C}{PORT}{N} A seq 5008 ack 1034\nout0 203.0.113.5:20 > 198.51.100.1:5001 tcp S seq 1\nin0 10.0.0.2:5001 > 203.0.113.5:20 tcp SA seq 9 ack 2\n"
         f"{C} PA seq 1030 ack 5008 len 6\n{N} A seq 5008 ack 1040\n{N} PA seq 5008 ack 1040 len 3\n{C} A seq 1036 ack 5011\n", NAT),
    case("FTP PASV through DNAT", "out0 203.0.113.5:2000 > 198.51.100.9:21 tcp S seq 999\nin0 10.0.0.3:21 > 203.0.113.5:2000 tcp SA seq 4999 ack 1000\nout0 203.0.113.5:2000 > 198.51.100.9:21 tcp A seq 1000 ack 5000\n"
         'in0 10.0.0.3:21 > 203.0.113.5:2000 tcp PA seq 5000 ack 1000 data "220 hi\\r\\n"\nin0 10.0.0.3:21 > 203.0.113.5:2000 tcp PA seq 5008 ack 1000 data "227 ok (10,0,0,3,19,137)\\r\\n"\n'
         "out0 203.0.113.5:3333 > 198.51.100.9:5001 tcp S seq 1\nin0 10.0.0.3:5001 > 203.0.113.5:3333 tcp SA seq 7 ack 2\n",
         HELP + nat("PREROUTING -d 198.51.100.9 -j DNAT --to-destination 10.0.0.3")),
    case("FTP EPRT and EPSV over IPv6", OPEN6 + C6 + ' PA seq 1008 ack 5008 data "EPRT |2|fd00:1::2|5001|\\r\\n"\n' + "out0 [2600::1]:20 > [fd00:1::2]:5001 tcp S seq 1\n"
         + S6 + ' PA seq 5008 ack 1032 data "229 Entering Extended Passive Mode (|||5002|)\\r\\n"\n' + "in0 [fd00:1::2]:3333 > [2600::1]:5002 tcp S seq 1\n", rules6=PLAIN),
    case("FTP EPRT over IPv6 through masquerade", OPEN6.replace(S6, N6) + C6 + ' PA seq 1008 ack 5008 data "EPRT |2|fd00:1::2|5001|\\r\\n"\n' + "out0 [2600::1]:20 > [2001:db8:2::1]:5001 tcp S seq 1\nin0 [fd00:1::2]:5001 > [2600::1]:20 tcp SA seq 5 ack 2\n", rules6=NAT),
    case("the first line of a direction is not read", f"{C} S seq 999\n{S} SA seq 4999 ack 1000\n{C} A seq 1000 ack 5000\n" + C + ' PA seq 1000 ack 5000 data "PORT 10,0,0,2,19,137\\r\\n"\n', PLAIN),
    case("a PORT for somebody else is left alone", OPEN + C + ' PA seq 1008 ack 5008 data "PORT 10,0,0,3,19,137\\r\\n"\n', PLAIN),
    case("an incomplete PORT is dropped", OPEN + C + ' PA seq 1008 ack 5008 data "PORT 10,0,0"\n' + C + ' PA seq 1008 ack 5008 data "POR"\n' + C + ' PA seq 1008 ack 5008 data "PORT 10,0,0,2,19,x\\r\\n"\n', PLAIN),
    case("a 227 that ends behind its last digit is dropped", OPEN + S + ' PA seq 5008 ack 1008 data "227 x 203,0,113,5,19,137"\n', PLAIN),
    case("words in lower case, and odd ones", OPEN + C + ' PA seq 1008 ack 5008 data "port 10,0,0,2,19,137\\r\\n"\n' + C + ' PA seq 1030 ack 5008 data "PORTX 10,0,0,2,19,138\\r\\n"\n', PLAIN),
    case("a second announcement replaces the first", OPEN + C + PORT + C + ' PA seq 1030 ack 5008 data "PORT 10,0,0,2,19,138\\r\\n"\n', PLAIN),
    case("the same announcement again", OPEN + C + PORT + C + ' PA seq 1030 ack 5008 data "PORT 10,0,0,2,19,137\\r\\n"\n', PLAIN),
    case("an announcement goes with its master", OPEN + C + PORT + "flush\n", PLAIN),
    case("a data connection inherits the mark", OPEN + C + PORT + "out0 203.0.113.5:20 > 10.0.0.2:5001 tcp S seq 1\n", HELP + table("mangle", "PREROUTING -p tcp --dport 21 -j CONNMARK --set-mark 9") + TRACK),
    case("SACK edges are renumbered with the rest", f"{C} S seq 999 opt mss,sackok\n{N} SA seq 4999 ack 1000 opt mss,sackok\n{C} A seq 1000 ack 5000\n" + N + ' PA seq 5000 ack 1000 data "220 hi\\r\\n"\n' + C + ' PA seq 1000 ack 5008 data "USER x\\r\\n"\n'
         + C + PORT + f"{C} PA seq 1040 ack 5008 len 10\n{N} A seq 5008 ack 1034 opt sack:1044-1054\n", NAT),
    case("two control connections, each its own numbers", OPEN_NAT + C + PORT + OPEN_NAT.replace(":2000", ":2001") + C.replace(":2000", ":2001") + PORT, NAT),
    case("without the CT rule there is no helper", OPEN + C + PORT, TRACK),
    case("TFTP read request and the answer from another port", 'in0 10.0.0.2:2000 > 203.0.113.5:69 udp data "\\0\\1f\\0octet\\0"\nout0 203.0.113.5:3333 > 10.0.0.2:2000 udp data "\\0\\3\\0\\1xx"\nin0 10.0.0.2:2000 > 203.0.113.5:3333 udp data "\\0\\4\\0\\1"\n', PLAIN),
    case("TFTP through masquerade", 'in0 10.0.0.2:2000 > 203.0.113.5:69 udp data "\\0\\2f\\0octet\\0"\nout0 203.0.113.5:3333 > 198.51.100.1:2000 udp data "\\0\\4\\0\\1"\nin0 10.0.0.2:2000 > 203.0.113.5:3333 udp data "\\0\\3\\0\\1x"\n', NAT),
    case("TFTP of other kinds, and too short", 'in0 10.0.0.2:2000 > 203.0.113.5:69 udp data "\\0\\3f"\nin0 10.0.0.2:2001 > 203.0.113.5:69 udp data "\\0"\nin0 10.0.0.2:2002 > 203.0.113.5:69 udp\n', PLAIN),
    case("a TFTP request again", 'in0 10.0.0.2:2000 > 203.0.113.5:69 udp data "\\0\\1f\\0octet\\0"\nin0 10.0.0.2:2000 > 203.0.113.5:69 udp data "\\0\\1f\\0octet\\0"\nout0 203.0.113.5:3333 > 10.0.0.2:2000 udp data "\\0\\3\\0\\1xx"\n', PLAIN),
]  # fmt: skip
