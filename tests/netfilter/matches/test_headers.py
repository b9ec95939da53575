"""Matches that look at the packet alone.  Each row was true of Linux 6.18 with iptables 1.8.9 (nf_tables)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from packets import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, chunk, icmp, ip, ipv4, ipv6, sctp, tcp, udp, udplite

A, B = "10.0.0.2", "192.0.2.1"
A6, B6 = "fd00:1::2", "2001:db8::1"

SYN = ip(A, B, TCP, tcp(1000, 80, "S", options=b"\x02\x04\x05\xb4"))
ACK = ip(A, B, TCP, tcp(1000, 80, "A"))
DNS = ip(A, B, UDP, udp(1000, 53, b"x"))
LITE = ip(A, B, UDPLITE, udplite(1000, 53))
PING = ip(A, B, ICMP, icmp(8, 0, 7))
INIT = ip(A, B, SCTP, sctp(1000, 5, 1, chunk(1, bytes(16))))
DATA = ip(A, B, SCTP, sctp(1000, 5, 1, chunk(3, bytes(12)), chunk(0, bytes(16), flags=3)))

# fragments without tracking: 24 octets in, and 8 octets in
LATER = ipv4(A, B, TCP, tcp(1000, 80, "S")[:20], fragment=3)
SECOND = ipv4(A, B, TCP, tcp(1000, 80, "S"), fragment=1)
SHORT = {proto: ipv4(A, B, proto, bytes((3, 232, 0))) for proto in (TCP, UDP, ICMP, SCTP)}

SYN6 = ip(A6, B6, TCP, tcp(1000, 80, "S"))
PING6 = ip(A6, B6, ICMPV6, icmp(128, 0, 7))
OPTIONS6 = ipv6(A6, B6, 60, tcp(1000, 80, "S"), extra=b"\x06\0\x01\x04\0\0\0\0")
AUTH6 = ipv6(A6, B6, 51, tcp(1000, 80, "S"), extra=b"\x06\x01" + bytes(10))
NONE6 = ipv6(A6, B6, 59, b"")
BROKEN6 = ipv6(A6, B6, 60, b"\x06")

ROWS = [
    # header conditions
    ("-s 10.0.0.0/24 -d 192.0.2.1", SYN, "yes"),
    ("! -s 10.0.0.0/24", SYN, "no"),
    ("-s 10.0.0.2/255.0.0.255", SYN, "yes"),
    ("-i in+", SYN, "yes"),
    ("-i in", SYN, "no"),
    ("! -i in0", SYN, "no"),
    ("! -i +", SYN, "no"),
    ("! -o out0", SYN, "yes"),
    ("-p tcp", SYN, "yes"),
    ("! -p tcp", SYN, "no"),
    ("-f", SYN, "no"),
    ("-f", LATER, "yes"),
    ("! -f", SYN, "yes"),
    ("-p tcp", SYN6, "yes"),
    ("-p tcp", OPTIONS6, "yes"),
    ("-p tcp", AUTH6, "no"),
    ("-p ah", AUTH6, "yes"),
    ("-p ipv6-nonxt", NONE6, "yes"),
    ("-p tcp", BROKEN6, "no"),
    ("! -p tcp", BROKEN6, "no"),
    ("! -p udp", BROKEN6, "no"),
    # tcp
    ("-p tcp --dport 80", SYN, "yes"),
    ("-p tcp --dport http", SYN, "yes"),
    ("-p tcp --dport :79", SYN, "no"),
    ("-p tcp ! --dport :79", SYN, "yes"),
    ("-p tcp --sport 1000 --dport 80", SYN, "yes"),
    # one comparison of four octets: only "both or neither" can be asked
    ("-p tcp ! --sport 5 ! --dport 80", SYN, "yes"),
    ("-p tcp ! --sport 1000 ! --dport 80", SYN, "no"),
    ("-p tcp ! --sport 5:6 ! --dport 80", SYN, "no"),
    ("-p tcp ! --dport 0:65535", SYN, "yes"),
    ("-p tcp --syn", SYN, "yes"),
    ("-p tcp --syn", ACK, "no"),
    ("-p tcp ! --syn", ACK, "yes"),
    ("-p tcp --tcp-flags ALL SYN", SYN, "yes"),
    ("-p tcp --tcp-flags SYN,RST SYN,RST", SYN, "no"),
    ("-p tcp --tcp-flags NONE SYN", ACK, "yes"),
    ("-p tcp --tcp-option 2", SYN, "yes"),
    ("-p tcp --tcp-option 3", SYN, "no"),
    ("-p tcp ! --tcp-option 3", SYN, "yes"),
    ("-p tcp -m tcp", SYN, "yes"),
    ("-p tcp --dport 80", OPTIONS6, "yes"),
    ("! -p udp -m udp --dport 80", SYN, "yes"),
    # what cannot be read: comparisons are false, xtables' own matches drop
    ("-p tcp --sport 1000", SHORT[TCP], "yes"),
    ("-p tcp --dport 80", SHORT[TCP], "no"),
    ("-p tcp ! --dport 80", SHORT[TCP], "no"),
    ("-p tcp ! --syn", SHORT[TCP], "no"),
    ("-p tcp -m tcp", SHORT[TCP], "drop"),
    ("-p tcp --dport 80 --tcp-option 2", SHORT[TCP], "drop"),
    ("-p udp -m udp", SHORT[UDP], "drop"),
    ("-p udp --dport 1", SHORT[UDP], "no"),
    ("-p udp -m multiport --dports 1", SHORT[UDP], "drop"),
    ("-p icmp --icmp-type 8", SHORT[ICMP], "drop"),
    ("-p sctp -m sctp", SHORT[SCTP], "drop"),
    # later fragments: comparisons read on, xtables' own matches are false, and the first of all is dropped
    ("-p tcp --sport 1000", LATER, "yes"),
    ("-p tcp -m tcp", LATER, "no"),
    ("-p tcp -m tcp", SECOND, "drop"),
    ("-p tcp -m multiport --sports 1000", LATER, "no"),
    # udp, multiport
    ("-p udp --dport 53", DNS, "yes"),
    ("-p udp --dport 9:5", DNS, "no"),
    ("-p udp ! --dport 53", DNS, "no"),
    ("-p udp -m multiport --dports 1:52,53", DNS, "yes"),
    ("-p udp -m multiport --ports 1000", DNS, "yes"),
    ("-p udp -m multiport ! --ports 53,80", DNS, "no"),
    ("-p udp -m multiport --sports 53", DNS, "no"),
    ("-p udplite -m multiport --dports 53", LITE, "yes"),
    # icmp
    ("-p icmp --icmp-type any", PING, "yes"),
    ("-p icmp ! --icmp-type any", PING, "no"),
    ("-p icmp --icmp-type echo-request", PING, "yes"),
    ("-p icmp --icmp-type 8/1", PING, "no"),
    ("-p icmp ! --icmp-type 8/1", PING, "yes"),
    ("-p icmpv6 --icmpv6-type 128/0", PING6, "yes"),
    ("-p icmpv6 --icmpv6-type 255", PING6, "no"),
    # sctp
    ("-p sctp --dport 5 --chunk-types any INIT", INIT, "yes"),
    ("-p sctp --chunk-types only INIT", INIT, "yes"),
    ("-p sctp --chunk-types only SACK", DATA, "no"),
    ("-p sctp --chunk-types all DATA,SACK", DATA, "yes"),
    ("-p sctp --chunk-types all DATA,INIT", DATA, "no"),
    ("-p sctp --chunk-types any DATA:be", DATA, "no"),
    ("-p sctp --chunk-types any DATA:BE", DATA, "yes"),
    ("-p sctp ! --chunk-types any INIT", DATA, "yes"),
    ("-p sctp --chunk-types any INIT", ip(A, B, SCTP, sctp(1, 5, 1)), "drop"),
    # iprange, comment
    ("-m iprange --src-range 10.0.0.1-10.0.0.2", SYN, "yes"),
    ("-m iprange ! --src-range 10.0.0.1-10.0.0.2", SYN, "no"),
    ("-m iprange --src-range 10.0.0.9-10.0.0.1", SYN, "no"),
    ("-m iprange --dst-range 2001:db8::-2001:db8::ffff", SYN6, "yes"),
    ("-m comment --comment x", SYN, "yes"),
    # addrtype
    ("-m addrtype --src-type UNICAST", SYN, "yes"),
    ("-m addrtype --dst-type LOCAL,BROADCAST", ip(A, "10.0.0.1", UDP, udp(1, 2)), "yes"),
    ("-m addrtype --dst-type LOCAL,BROADCAST", ip(A, "10.0.0.255", UDP, udp(1, 2)), "yes"),
    ("-m addrtype ! --dst-type LOCAL", ip(A, "198.51.100.1", UDP, udp(1, 2)), "no"),
    ("-m addrtype --dst-type LOCAL --limit-iface-in", ip(A, "198.51.100.1", UDP, udp(1, 2)), "no"),
    ("-m addrtype --dst-type UNICAST --limit-iface-in", ip(A, "198.51.100.1", UDP, udp(1, 2)), "yes"),
    ("-m addrtype --dst-type MULTICAST", ip(A, "224.0.0.5", UDP, udp(1, 2)), "yes"),
    ("-m addrtype --dst-type LOCAL", ip(A6, "fd00:1::1", UDP, udp(1, 2)), "yes"),
    ("-m addrtype --dst-type LOCAL,UNICAST", ip(A6, "fd00:1::1", UDP, udp(1, 2)), "yes"),
    ("-m addrtype --dst-type MULTICAST,UNICAST", ip(A6, "fd00:1::1", UDP, udp(1, 2)), "no"),
]


@pytest.mark.parametrize(("conditions", "packet", "answer"), ROWS)
def test_a_rule_counts_the_packets_that_it_counts_in_linux(
    counts: Callable[..., str], conditions: str, packet: bytes, answer: str
) -> None:
    assert counts(conditions, packet) == answer


def test_the_packet_mark_is_compared_under_its_mask(counts: Callable[..., str]) -> None:
    from conntrack.netfilter.skb import Skb
    from conntrack.wire.packet import parse

    skb = Skb(parse(SYN), "in0")
    skb.mark = 0x12
    for conditions, answer in (
        ("-m mark --mark 0x12", "yes"),
        ("-m mark --mark 0x10/0xf0", "yes"),
        ("-m mark --mark 0x12/0xf0", "no"),  # the value is compared whole
        ("-m mark ! --mark 0x10/0xf0", "no"),
        ("-m mark --mark 0/0", "yes"),
    ):
        assert counts(conditions, skb) == answer, conditions
