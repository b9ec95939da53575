"""TCP: life cycles, special packets and windows.

One rule: the numbers are those of the worked examples in the sources of the field: client 999, server 4999.

Sources: nf_conntrack_proto_tcp.c, RFC 9293, RFC 7323, RFC 5961.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import case

C, S = "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp", "out0 203.0.113.5:80 > 10.0.0.2:1234 tcp"
C6, S6 = "in0 [fd00:1::2]:1234 > [2600::1]:80 tcp", "out0 [2600::1]:80 > [fd00:1::2]:1234 tcp"
OPEN = f"""
{C} S seq 999 win 8192
{S} SA seq 4999 ack 1000 win 1000
{C} A seq 1000 ack 5000 win 8192
"""
SCALED = f"""
{C} S seq 999 win 8192 opt mss,ws7,sackok
{S} SA seq 4999 ack 1000 win 1000 opt mss,ws3,sackok
{C} A seq 1000 ack 5000 win 8192
"""

CASES = [
    case("a whole TCP life", f"""{OPEN}
{C} PA seq 1000 ack 5000 len 100
{S} A seq 5000 ack 1100 win 1000
{S} PA seq 5000 ack 1100 len 50 win 1000
{C} A seq 1100 ack 5050
{C} FA seq 1100 ack 5050
{S} A seq 5050 ack 1101 win 1000
{S} FA seq 5050 ack 1101 win 1000
{C} A seq 1101 ack 5051
"""),
    case("a whole TCP life over IPv6", f"""
{C6} S seq 999
{S6} SA seq 4999 ack 1000
{C6} A seq 1000 ack 5000
{C6} FA seq 1000 ack 5000
{S6} FA seq 5000 ack 1001
{C6} A seq 1001 ack 5001
"""),
    case("a repeated SYN neither counts nor refreshes", f"{C} S seq 999\nsleep 1.1\n{C} S seq 999\n{C} S seq 2999\n"),
    case("a SYN/ACK without a SYN is invalid", f"{S} SA seq 1 ack 2\n{C} SA seq 1 ack 2\n"),
    case("a FIN or RST cannot begin a connection", f"{C} FA seq 1 ack 2\n{C} R seq 1\n{C} RA seq 1 ack 1\n{C} F seq 1\n"),
    case("a connection in progress is picked up", f"""
{C} A seq 1000 ack 5000
{S} A seq 5000 ack 1000
{C} PA seq 1000 ack 5000 len 10
{S} A seq 5000 ack 1010
"""),
    case("a picked up connection may jump anywhere", f"{C} A seq 1000 ack 5000\n{S} A seq 900000 ack 77\n{C} A seq 5 ack 1\n"),
    case("without loose nothing is picked up", f"{C} A seq 1000 ack 5000\n{C} PA seq 1000 ack 5000 len 5\n",
         sysctl={"nf_conntrack_tcp_loose": 0}),
    case("every combination of flags", "\n".join(
        f"in0 10.0.0.2:{2000 + bits} > 203.0.113.5:80 tcp "
        + ("".join(letter for bit, letter in enumerate("FSRPAU") if bits >> bit & 1) or "none") + " seq 1 ack 1"
        for bits in range(64))),
    case("ECN bits do not matter", f"{C} SEC seq 999\n{S} SAE seq 4999 ack 1000\n{C} AC seq 1000 ack 5000\n"),
    case("a RST answers a SYN: the entry goes", f"{C} S seq 999\n{S} RA seq 0 ack 1000\n{C} S seq 999\n"),
    case("the originator's own RST kills an unreplied entry", f"{C} S seq 999\n{C} R seq 1000\n"),
    case("an exact RST closes", f"{OPEN}{S} R seq 5000\n{C} A seq 1000 ack 5000\n"),
    case("a RST within the window leaves the state but lowers the time", f"{OPEN}{C} PA seq 1000 ack 5000 len 10\n"
         f"{S} A seq 5000 ack 1010 win 1000\n{S} R seq 5100\n"),
    case("a RST below what was acknowledged is invalid", f"{OPEN}{S} R seq 4000\n{S} R seq 4999\n"),
    case("with ignore_invalid_rst it is not", f"{OPEN}{S} R seq 4000\n", sysctl={"nf_conntrack_tcp_ignore_invalid_rst": 1}),
    case("a RST right behind own data closes", f"{OPEN}{S} PA seq 5000 ack 1000 len 100 win 1000\n{S} R seq 5100\n"),
    case("a RST with any number closes a closing connection", f"{OPEN}{C} FA seq 1000 ack 5000\n{S} A seq 5000 ack 1001\n"
         f"{S} R seq 77\n"),
    case("a RST with sequence number zero", f"{OPEN}{S} R seq 0\n{C} A seq 1000 ack 5000\n"),
    case("a RST with ACK flag and number zero", f"{OPEN}{C} RA seq 1000 ack 0\n"),
    case("a SYN in an open connection is ignored, its answer believed", f"""{OPEN}
{C} S seq 70000 win 500
{S} SA seq 90000 ack 70001 win 600
{C} A seq 70001 ack 90001
"""),
    case("an ignored SYN and a RST for it from the other side", f"{OPEN}{C} S seq 70000\n{S} RA seq 0 ack 70001\n"),
    case("an ignored SYN and a RST for it from the same side", f"{OPEN}{C} S seq 70000\n{C} RA seq 0 ack 70001\n"),
    case("an ignored SYN and its challenge ACK", f"{OPEN}{C} S seq 70000\n{S} A seq 5000 ack 1000 win 1000\n{C} R seq 1000\n{C} S seq 70000\n"),
    case("a SYN re-opens a connection in TIME_WAIT", f"""{OPEN}
{C} FA seq 1000 ack 5000
{S} FA seq 5000 ack 1001
{C} A seq 1001 ack 5001
{C} S seq 200000
{S} SA seq 300000 ack 200001
"""),
    case("the server's SYN re-opens it the other way round", f"""{OPEN}
{C} FA seq 1000 ack 5000
{S} FA seq 5000 ack 1001
{C} A seq 1001 ack 5001
{S} S seq 200000
{C} SA seq 300000 ack 200001
{S} A seq 200001 ack 300001
"""),
    case("after one's own RST a SYN begins anew", f"{OPEN}{C} R seq 1000\n{C} S seq 5\n"),
    case("after the peer's RST a SYN is ignored", f"{OPEN}{S} R seq 5000\n{C} S seq 5\n{S} SA seq 7 ack 6\n"),
    case("both ends send SYN", f"{C} S seq 999\n{S} S seq 4999\n{C} SA seq 999 ack 5000\n{S} SA seq 4999 ack 1000\n{C} A seq 1000 ack 5000\n"),
    case("both ends send SYN, the other ending", f"{C} S seq 999\n{S} S seq 4999\n{S} SA seq 4999 ack 1000\n{C} SA seq 999 ack 5000\n{S} A seq 5000 ack 1000\n"),
    case("a challenge ACK in LAST_ACK is ignored once", f"""{OPEN}
{C} FA seq 1000 ack 5000
{S} A seq 5000 ack 1001
{S} FA seq 5000 ack 1001
{C} S seq 77777
{S} A seq 5001 ack 1001
{C} A seq 1001 ack 5001
"""),
    case("a repeated FIN moves to LAST_ACK", f"{OPEN}{C} FA seq 1000 ack 5000\n{C} FA seq 1000 ack 5000\n"),
    case("the window's right edge", f"{OPEN}{C} PA seq 2000 ack 5000 len 10\n"),
    case("one beyond the window", f"{OPEN}{C} PA seq 2001 ack 5000 len 10\n{S} A seq 5000 ack 2011 win 1000\n"),
    case("far beyond the window", f"{OPEN}{C} PA seq 5001 ack 5000 len 10\n"),
    case("an ACK of data not seen", f"{OPEN}{S} A seq 5000 ack 1001 win 1000\n"),
    case("the lowest sequence number", f"{OPEN}{S} A seq 4294964104 ack 1000 win 1000\n{S} A seq 4294964103 ack 1000 win 1000\n"),
    case("the lowest acknowledgement", f"{OPEN}{S} A seq 5000 ack 4294902296 win 1000\n{S} A seq 5000 ack 4294902295 win 1000\n"),
    case("a liberal tracker believes everything", f"{OPEN}{C} PA seq 900000 ack 5000 len 10\n{S} A seq 5000 ack 77 win 1\n",
         sysctl={"nf_conntrack_tcp_be_liberal": 1}),
    case("windows are scaled after the handshake", f"{SCALED}{S} A seq 5000 ack 1000 win 1000\n{C} PA seq 9000 ack 5000 len 1\n{C} PA seq 9100 ack 5000 len 1\n"),
    case("one side alone cannot scale", f"{C} S seq 999 win 8192 opt mss,ws7\n{S} SA seq 4999 ack 1000 win 1000 opt mss\n"
         f"{C} A seq 1000 ack 5000\n{S} A seq 5000 ack 1000 win 1000\n{C} PA seq 2000 ack 5000 len 5\n{C} PA seq 2006 ack 5000 len 5\n"),
    case("a scale above 14 counts as 14", f"{C} S seq 999 win 8192 opt ws15\n{S} SA seq 4999 ack 1000 win 10 opt ws15\n{C} A seq 1000 ack 5000 win 1\n{S} PA seq 21000 ack 1000 win 1 len 1\n"),
    case("SACK extends what is acknowledged", f"{SCALED}{S} PA seq 5000 ack 1000 len 1000 win 1000\n"
         f"{C} A seq 1000 ack 5000 opt sack:5500-6000\n{C} A seq 1000 ack 5000 opt sack:5500-6001\n"),
    case("SACK not agreed upon is not read", f"{OPEN}{C} A seq 1000 ack 5000 opt sack:5500-900000\n"),
    case("a zero window shortens the time", f"{OPEN}{S} A seq 5000 ack 1000 win 0\n{S} A seq 5000 ack 1000 win 5\n"),
    case("three repeats of one ACK shorten the time", f"{OPEN}" + f"{S} A seq 5000 ack 1000 win 1000\n" * 5),
    case("max_retrans 0 always shortens it", f"{OPEN}{C} PA seq 1000 ack 5000 len 5\n{S} A seq 5000 ack 1005 win 1000\n",
         sysctl={"nf_conntrack_tcp_max_retrans": 0}),
    case("data that nobody acknowledges", f"{OPEN}{C} PA seq 1000 ack 5000 len 10\n{S} A seq 5000 ack 1010 win 1000\n"),
    case("keep-alives and their answers", f"{OPEN}{C} A seq 999 ack 5000 len 1\n{S} A seq 5000 ack 1000 win 1000\n{C} A seq 999 ack 5000\n"),
    case("a FIN beyond the window, from both sides", f"{OPEN}{C} FA seq 900000 ack 5000\n{S} FA seq 800000 ack 1000\n{C} RA seq 900000 ack 5000\n"),
    case("a wrong checksum", f"{C} S seq 999 badsum\n{C} S seq 999\n{S} SA seq 4999 ack 1000 badsum\n"),
    case("a wrong checksum with checking off", f"{C} S seq 999 badsum\n", sysctl={"nf_conntrack_checksum": 0}),
    case("too short for a header", f"{C} S seq 999 cut 39\n{C} S seq 999 cut 28\n{C} S seq 999 cut 23\n{C} S seq 999 cut 20\n"),
    case("sequence numbers around zero", f"{C} S seq 4294967295 win 100\n{S} SA seq 4294967290 ack 0 win 100\n{C} A seq 0 ack 4294967291\n"
         f"{S} PA seq 4294967291 ack 0 len 20 win 100\n{C} A seq 0 ack 15\n{C} FA seq 0 ack 15\n{S} FA seq 15 ack 1\n"),
    case("a SYN with data", f"{C} S seq 999 len 100\n{S} SA seq 4999 ack 1100\n{C} A seq 1100 ack 5000\n"),
    case("a SYN/ACK repeated", f"{C} S seq 999\n{S} SA seq 4999 ack 1000\n{S} SA seq 4999 ack 1000\n{C} S seq 999\n{S} SA seq 4999 ack 1000\n"),
    case("options whose lengths lie", f"{C} S seq 999 opt hex:03000307\n{S} SA seq 4999 ack 1000 opt hex:03090307\n{C} A seq 1000 ack 5000\n"),
    case("timeouts follow the sysctls", f"{C} S seq 999\n{S} SA seq 4999 ack 1000\nsysctl nf_conntrack_tcp_timeout_established 700\n{C} A seq 1000 ack 5000\n",
         sysctl={"nf_conntrack_tcp_timeout_syn_sent": 33, "nf_conntrack_tcp_timeout_syn_recv": 22}),
    case("an entry expires and its next packet is new", f"{C} S seq 999\nsleep 1.3\n{C} S seq 2000\n",
         sysctl={"nf_conntrack_tcp_timeout_syn_sent": 1}),
]  # fmt: skip
