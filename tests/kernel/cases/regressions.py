"""Differences that were found between the kernel and a Host, each by the shortest packets that showed it.

One rule: a name says what the kernel does.

A function of Linux in brackets is the place to read why.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from typing import Any

from scenario import Scenario

from . import MASQUERADE, NAT_HOOKS, TRACK, case, nat, table

T, A = "in0 10.0.0.2:1234 > 203.0.113.5:80 tcp", "out0 203.0.113.5:80 > 10.0.0.2:1234 tcp"
U6, BOX6 = "in0 [fd00:1::2]:1111 > [2600::1]:53 udp", "in0 [fd00:1::2]:1111 > [fd00:1::1]:53 udp"
SELF6 = "send [fd00:1::1]:300 > [fd00:1::1]:80 tcp"
WATCHED = table("mangle", "FORWARD -m conntrack --ctstate NEW")  # tracking on, the filter table left free
NOTRACK = table("raw", "PREROUTING -j CT --notrack")
INVALID_DROPPED = table("filter", "FORWARD -m conntrack --ctstate INVALID -j DROP")
JUMBO = "3b00c204"  # hop-by-hop options: a jumbo payload, nothing behind them
STAMP, RECORD = "options 4408090000000000", "options 0707040000000000"


def case4(name: str, script: str, rules: str = TRACK, **more: Any) -> Scenario:
    """A case of IPv4 alone."""
    return _without("net.ipv6.", case(name, script, rules, "", **more))


def case6(name: str, script: str, rules6: str = TRACK, **more: Any) -> Scenario:
    """A case of IPv6 alone."""
    return _without("net.ipv4.", case(name, script, "", rules6, **more))


def _without(family: str, scenario: Scenario) -> Scenario:
    """Transcripts stay small: the other family's sysctls are beside the point."""
    sysctl = scenario.box["sysctl"]
    scenario.box["sysctl"] = {name: value for name, value in sysctl.items() if not name.startswith(family)}
    return scenario


def refusing(*rules: str) -> str:
    """Tracking, and a filter table of these rules."""
    return WATCHED + table("filter", *rules)


ANSWERS = [
    # The options are filled in on the way, the header's own sum is left wrong until departure, and the sum that REJECT
    # makes begins with the header; what tracking found is forgotten in FORWARD [skb_forward_csum, nf_ip_checksum].
    case4("REJECT in FORWARD sums the packet anew before it resets", f"{T} S seq 999 {STAMP}\n{T} S seq 999\n", refusing("FORWARD -p tcp -j REJECT --reject-with tcp-reset")),
    case4("REJECT with an ICMP error believes what tracking found", f"{T} S seq 999 {STAMP}\n", refusing("FORWARD -j REJECT")),
    case4("REJECT with an ICMP error sums an untracked packet, and finds filled-in options bad", f"{T} PA seq 5 len 4 {RECORD}\n", NOTRACK + WATCHED + table("filter", "FORWARD -j REJECT")),
    # [nf_reject_verify_csum: nf_ip_checksum with protocol 0]
    case4("REJECT sums whatever stands behind the header of a protocol without a sum", "in0 10.0.0.2 > 10.0.0.1 proto 103 len 0\nin0 10.0.0.2 > 203.0.113.5 proto 89 hex 0102\nin0 10.0.0.2 > 203.0.113.5 proto 89 hex fffe0001\n", table("filter", "FORWARD -j REJECT", "INPUT -j REJECT --reject-with icmp-net-unreachable")),
    case("REJECT wants DCCP to add up, but not GRE", "in0 10.0.0.2 > 203.0.113.5 proto 33 hex 0102030405060708\nin0 10.0.0.2 > 203.0.113.5 proto 47 hex 0102030405060708\nin0 fd00:1::2 > 2600::1 proto 33 hex 0102030405060708\n", table("filter", "FORWARD -j REJECT"), table("filter", "FORWARD -j REJECT")),
    # [reject6_csum_ok]
    case6("REJECT of IPv6 says nothing where nothing stands behind the headers", "in0 fd00:1::2 > 2600::1 proto 50 len 0\nin0 fd00:1::2 > 2600::1 proto 50 len 1\n", rules6=table("filter", "FORWARD -j REJECT")),
    # [icmp_xmit_lock]
    case4("ICMP does not complain about what ICMP is just saying", "out0 198.51.100.7 > 198.51.100.1 icmp 8/0 id 2 len 8\n", refusing("OUTPUT -m conntrack --ctdir REPLY -j REJECT")),
    case6("ICMPv6 does not complain about what ICMPv6 is just saying", "out0 2600::1 > 2001:db8:2::1 icmpv6 128/0 id 2 len 8\n", rules6=refusing("OUTPUT -m conntrack --ctdir REPLY -j REJECT")),
    # [nf_ct_attach]
    case4("an answer to an untracked packet is tracked by itself", "out0 203.0.113.5:7 > 198.51.100.1:8 sctp vtag 5 sack\n", table("raw", "PREROUTING -j CT --notrack", "OUTPUT -j CT --notrack") + WATCHED),
    case6("no CT rule has a say in the answer to an untracked packet", "in0 [2001:db8:2::1]:5000 > [2600::1]:1023 tcp SA seq 5 ack 6\n", rules6=table("raw", "PREROUTING -j CT --notrack", "OUTPUT -j CT --notrack") + refusing("FORWARD -j REJECT")),
    # [tcp_v6_send_response: CHECKSUM_PARTIAL]
    case6("an IPv6 reset leaves its sum to the card, so that lo sees it unfinished", f"{SELF6} S seq 5\n", ""),
    case6("REJECT quotes an unfinished sum, and does not doubt it", "in0 [fd00:1::2]:300 > [fd00:1::1]:80 tcp S seq 5\n", rules6=table("filter", "OUTPUT -p tcp -j REJECT --reject-with icmp6-adm-prohibited")),
    case6("a refused reset of an untracked packet is counted", "in0 [fd00:1::2]:300 > [fd00:1::1]:80 tcp A seq 5 ack 9\n", rules6=NOTRACK + refusing("OUTPUT -p tcp --tcp-flags RST RST -j REJECT")),
    # [nf_reject_ip_tcphdr_put: CHECKSUM_PARTIAL, unlike its IPv6 sister]
    case4("REJECT's reset of IPv4 leaves its sum to the card", "send 10.0.0.1:511 > 10.0.0.1:80 tcp S seq 5\nsend 198.51.100.1:8080 > 10.0.0.3:443 tcp S seq 5\n", table("filter", "INPUT -p tcp --syn -j REJECT --reject-with tcp-reset", "OUTPUT -p tcp --dport 443 -j REJECT --reject-with tcp-reset")),
    case4("the sum that the card would have made is unfinished in a quote", f"{T} A seq 5 ack 9\n", table("filter", "FORWARD -p tcp -j REJECT --reject-with tcp-reset", "OUTPUT -p tcp -j REJECT")),
    # [skb_checksum_help]
    case6("a device writes no sum of zero", "in0 [fd00:1::2]:9501 > [fd00:1::1]:80 tcp FA seq 4189785633 ack 1443773023 opt ts\n"),
    case6("TCPMSS leaves an unfinished sum unfinished", f"{SELF6} A seq 5 ack 9\n", rules6=table("mangle", "POSTROUTING -p tcp -j TCPMSS --set-mss 500")),
    # [ip_mc_output]
    case4("a box hears its own answers to a broadcast address", "in0 10.0.0.255 > 10.0.0.1 icmp 8/0 id 3\nin0 10.0.0.255 > 203.0.113.5 gre v0\n", table("filter", "FORWARD -j REJECT")),
    # [ip_route_me_harder]
    case4("an answer that is routed anew keeps its output device for the rest of the hook", "out0 198.51.100.7:5000 > 198.51.100.1:21 udp len 10\n", table("nat", "INPUT -j SNAT --to-source 10.0.0.77") + table("filter", "OUTPUT -o out0 -j REJECT")),
    # [tcp_do_parse_auth_options: looked for in 18 octets and more]
    case6("TCP-AO does not silence a closed port of IPv6", "in0 [fd00:1::2]:1 > [fd00:1::1]:9 tcp S seq 5 opt hex:1d10010200000000000000000000000001010101\n"),
    case4("the box tells its time of day", "in0 10.0.0.2 > 10.0.0.1 icmp 13/0 id 9 len 12\n", ""),
]  # fmt: skip

HEADERS = [
    # Connection tracking gathers it, and leaves the number of the first header and the place behind all of them
    # [nf_ct_frag6_gather, ip6_protocol_deliver_rcu].
    case6("headers before a fragment header are misread once it was gathered", f"{BOX6} pieces 1000 before dst\n{BOX6} len 16 pieces 16 before dst,dst ident 9\nin0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 pieces 1000 before dst\n"),
    case6("headers before a fragment header are read right where nobody tracks", f"{BOX6} pieces 1000 before dst\nin0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 len 16 pieces 16 before dst\n", ""),
    case6("a gathered packet may not be a fragment again", f"{BOX6} ext frag,frag\n"),
    case6("untracked IPv6 fragments are put together behind LOCAL_IN", "in0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 len 40 pieces 24 order 1,0\n", ""),
    # [ipv6_frag_rcv, ip6_frag_queue]
    case6("the box says what is wrong with a fragment that tracking left alone", "in0 fd00:1::2 > fd00:1::1 proto 44 hex 3a000541000000050102030405\nin0 fd00:1::2 > fd00:1::1 proto 44 hex 06000001000000050102030405060708\nin0 fd00:1::2 > fd00:1::1 proto 44 hex 3a00\n"),
    case6("half a fragment header is held", "in0 fd00:1::2 > 2600::1 proto 44 hex 00\nin0 fd00:1::2 > 2600::1 proto 44 hex 1100000000\n"),
    case6("a fragment header beyond the packet makes no fragment", "in0 fd00:1::2 > 2600::1 proto 60 hex 2c9a005000440102\nin0 fd00:1::2 > 2600::1 proto 60 hex 2c01005000440102\n"),
    # [nf_conntrack_icmpv6_error]
    case6("a first IPv6 fragment may be too short for ICMPv6", "in0 fd00:1::2 > 2600::1 proto 44 hex 3a00000100000007\nin0 fd00:1::2 > 2600::1 proto 44 hex 3a000001000000088000ffd027\n"),
    # [ip6_rcv_core: pkt_len || hdr->nexthdr != NEXTHDR_HOP]
    case6("a payload length of zero says nothing where hop-by-hop options come first", f"in0 [fd00:1::2]:1 > [2600::1]:53 udp len 4 ext hop payload 0\nin0 fd00:1::2 > 2600::1 proto 253 hex 0102 ext hop,dst,dst payload 0\n{U6} len 4 payload 0\n", rules6=INVALID_DROPPED),
    case6("an IPv6 packet whose headers lead out of it is translated all the same", "in0 fd00:1::2 > 2600::1 proto 60 hex 4e0d57d9\nin0 fd00:1::2 > 2600::1 proto 51 hex 000008001c0570c574380da5\n", rules6=nat("POSTROUTING -j MASQUERADE")),
    case6("a box complains of IGMP over IPv6, but not of PIM", "in0 fd00:1::2 > fd00:1::1 proto 2 len 8\nin0 fd00:1::2 > fd00:1::1 proto 103 len 8\n"),
    case6("a box swallows segment routing and complains of other routing headers", "".join(f"in0 fd00:1::2 > fd00:1::1 proto 43 hex 3b00{kind}0100000000\n" for kind in ("02", "03", "04"))),
    case6("UDP over IPv6 may say 0 of its length to the box", f"{BOX6} len 8 said 0\n"),
    case6("there may be no route to ::", "in0 [fd00:1::2]:1 > [::]:9 udp\n", routes=[]),
    case6("an IPv4-mapped address is as good as any on the way through", "in0 [::ffff:1.2.3.4]:512 > [2600::1]:80 udp len 1\nin0 fd00:1::2 > ::ffff:1.2.3.4 esp\n"),
    case6("an IPv4-mapped address has no type", "in0 [::ffff:1.2.3.4]:1 > [2600::1]:9 udp\n", table("mangle", "PREROUTING -m addrtype --src-type UNICAST -j DROP")),
    case6("log lines write IPv6 addresses in full, mapped ones too", "in0 [fd00:1::2]:9 > [2600::1]:53 udp\nout0 2001:db8:9::9 > ::ffff:1.2.3.4 icmpv6 4/1 about [fd00:1::2]:9 > [2600::1]:53 udp\n"),
    # A sum over the whole packet was kept, and is wrong now; up to 76 octets are summed anew [udp6_csum_init].
    case6("HL spoils the sum that tracking kept, and long UDP is dropped for it", f"{BOX6} len 69\n", rules6=TRACK + table("mangle", "PREROUTING -j HL --hl-dec 1")),
]  # fmt: skip

TRACKERS = [
    case4("SCTP's INIT must be there whole", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:0xaaa short 31\nin0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:0xaaa\nout0 203.0.113.5:2 > 10.0.0.2:1 sctp vtag 0xaaa initack:0xbbb short 30\n", INVALID_DROPPED, sysctl={"nf_conntrack_checksum": 0}),
    case4("GRE keeps the timeouts of its first packet", "in0 10.0.0.2 > 203.0.113.5 gre v0\nsysctl nf_conntrack_gre_timeout 50\nin0 10.0.0.2 > 203.0.113.5 gre v0\n"),
    case6("GRE needs eight octets to be translated", "in0 fd00:1::2 > 2600::1 proto 47 hex 3001880b000400\nin0 fd00:1::2 > 2600::1 proto 47 hex 3001880b00040001\n", MASQUERADE),
    case4("an SCTP association that begins with an answered heartbeat is closed", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 5 hback\n"),
    case4("log lines print an SCTP chunk's length unswapped, and say nothing about no chunk", "in0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 0 init:0xaaa\nin0 10.0.0.2 > 203.0.113.5 proto 132 hex 00010002000000050000000000030003\nin0 10.0.0.2:1 > 203.0.113.5:2 sctp vtag 5\n", sysctl={"nf_conntrack_checksum": 0}),
    case4("log lines name TCP states", f"{T} S seq 100\n{A} A seq 5000 ack 101\n"),
    case4("what may not be picked up is an invalid new one in the log", f"in0 10.0.0.2:1 > 10.0.0.1:9 tcp A seq 5 ack 6\n{T} A seq 5 ack 6\n", sysctl={"nf_conntrack_tcp_loose": 0}),
    case4("a FIN beyond the window has two lines in the log", f"{T} S seq 100\n{A} SA seq 1000 ack 101\n{T} A seq 101 ack 1001\n{A} FA seq 900000 ack 101\n{T} FA seq 900000 ack 1001\n"),
    case4("a request of TFTP makes an expectation, and counts it", "out0 203.0.113.5:500 > 198.51.100.9:69 udp data \"\\x00\\x01file\\x00octet\\x00\"\n", table("raw", "PREROUTING -p udp -j CT --helper tftp") + WATCHED),
    # [icmp_error_message hands the quote to GRE's own reader]
    case4("a quote whose header length lies is mapped all the same", "out0 198.51.100.7 > 198.51.100.10 gre v0\nin0 raw 450000343ab840004001cbcc0a00000ac6336407040064ff00000000d40000203ab400003f2f0cb7c63364070a00000a00000800\n", nat("PREROUTING -j NETMAP --to 10.0.0.0/24")),
    case4("zones of the answers alone let two connections have one tuple", "send 198.51.100.1:300 > 203.0.113.5:21 udp\nout0 203.0.113.5:21 > 198.51.100.1:300 udp len 8\n", table("raw", "PREROUTING -j CT --zone-reply 7") + WATCHED),
    # [nf_nat_used_tuple_new]
    case4("two ends that begin at once meet, though only one of their zones counts", "in0 10.0.0.2:342 > 203.0.113.5:21 udplite len 4\nout0 203.0.113.5:21 > 10.0.0.2:342 udplite len 5\n", table("raw", "PREROUTING -s 10.0.0.2 -j CT --zone-reply 7") + NAT_HOOKS),
    case6("an entry that another one shadows is listed once", "in0 [fd00:1::3]:53102 > [2600::1]:53 tcp S seq 100\nout0 [2600::1]:53 > [fd00:1::3]:53102 tcp A seq 5 ack 6\n", rules6=table("raw", "PREROUTING -i out0 -j CT --zone-orig 6") + nat("POSTROUTING -s fd00:1::/64 -j NETMAP --to 2001:db8:5::/64")),
    # An INVALID packet carries nothing that a second look at it could find [nf_conntrack_in].
    case6("what was INVALID comes off lo as if never tracked", "send [2001:db8:2::1]:8080 > [fd00:1::1]:53 tcp SA seq 5 ack 6\n", rules6=NOTRACK + WATCHED),
    case6("an error about a packet with the box's own source counts once", "out0 [2001:db8:2::1]:6553 > [fd00:1::1]:443 udp len 10\n", rules6=table("raw", "PREROUTING -j CT --zone-reply 7") + WATCHED),
    case6("REDIRECT finds an address for packets to ::", "in0 [fd00:1::3]:1 > [::]:21 udp\n", rules6=nat("PREROUTING -j REDIRECT")),
    case6("IPv6 masquerades :: too", "out0 [::]:1024 > [2001:db8:2::9]:21 udp\n", nat("POSTROUTING -j MASQUERADE")),
    case6("FTP reads a gathered packet in one piece, and it is cut anew", "in0 [fd00:1::2]:2000 > [2600::1]:21 tcp S seq 999\nout0 [2600::1]:21 > [fd00:1::2]:2000 tcp SA seq 4999 ack 1000\nin0 [fd00:1::2]:2000 > [2600::1]:21 tcp PA seq 1000 ack 5000 data \"EPRT |2|fd00:1::2|1|\\r\\n\" pieces 24 order 1,0\n", table("raw", "PREROUTING -p tcp --dport 21 -j CT --helper ftp") + WATCHED),
    # [skb_ensure_writable, skb_linearize]
    case6("TCPMSS makes a gathered packet contiguous, and it is cut anew", "in0 [fd00:1::2]:1 > [2600::1]:80 tcp S seq 999 len 220 pieces 80 order 1,0,2\n", rules6=TRACK + table("mangle", "POSTROUTING -p tcp -j TCPMSS --set-mss 1200")),
]  # fmt: skip

ROUTER = [
    # [icmp6_send: the device is part of a link-local address]
    case6("an error to a link-local address leaves where the offender came in", "out0 [fe80::5]:1 > [2600::1]:9 udp\nout0 [fe80::5]:1 > [fd00:1::9]:9 udp ttl 1\n", interfaces={"in0": ["10.0.0.1/24", "fd00:1::1/64", "fe80::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64", "fe80::2/64"]}, routes=[]),
    case4("a strict source route does not pass by", "in0 10.0.0.2:1 > 203.0.113.5:9 udp options 8907040a0a000500\n", sysctl={"net.ipv4.conf.all.accept_source_route": 1, "net.ipv4.conf.in0.accept_source_route": 1}),
    case6("a redirect of IPv6 needs a link-local address", "in0 [fd00:1::2]:1 > [fd00:1::9]:9 udp len 8\nout0 [2001:db8:2::5]:1 > [2001:db8:2::9]:9 udp len 8\n", "", interfaces={"in0": ["10.0.0.1/24", "fd00:1::1/64", "fe80::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}),
    case6("the box cuts its own long answers", "in0 fd00:1::2 > fd00:1::1 icmpv6 128/0 id 7 len 1240\n", mtu={"in0": 1280}),
    case6("a jumbogram tells its length in hop-by-hop options", f"in0 fd00:1::2 > 2600::1 proto 0 hex {JUMBO}00000008 payload 0\nin0 fd00:1::2 > 2600::1 proto 0 hex {JUMBO}00010008\n"),
    case4("a fragment that waits in local delivery counts as dropped", "in0 10.0.0.2:1 > 10.0.0.1:9 udp len 100 pieces 40 order 0\n", ""),
    case4("a template stands in the connection's place before tracking", "in0 10.0.0.2:1 > 203.0.113.5:9 udp\nin0 10.0.0.2:1 > 203.0.113.5:9 tcp S seq 5\n", table("raw", "PREROUTING -j CT --zone 5", "PREROUTING -p udp -m connmark --mark 0 -j DROP", "PREROUTING -p tcp -m conntrack --ctstatus CONFIRMED -j DROP") + WATCHED),
]  # fmt: skip

LINK_LOCAL = {"in0": ["fd00:1::1/64", "fe80::1/64"], "out0": ["2001:db8:2::1/64", "fe80::2/64"]}
SOURCE_ROUTED = {"net.ipv4.conf.all.accept_source_route": 1, "net.ipv4.conf.in0.accept_source_route": 1}
MARKS = table("mangle", "OUTPUT -j MARK --set-mark 1")

PROGRAMS = [
    # [raw_send_hdrinc: the route is asked for without a source]
    case4("a program's packet goes by its destination, whatever its source", "send 10.0.0.1:5 > 224.0.0.5:9 udp\nsend 10.0.0.1:5 > 255.255.255.255:9 udp\n", ""),
    # [ip_route_me_harder: a local source counts, and a multicast goes out where it lives]
    case4("a packet whose mark was changed looks for its way anew", "send 10.0.0.1:5 > 239.1.1.1:9 udp\n", MARKS),
    case4("a program is refused what the device cannot take, and no hook sees it", "send 10.0.0.1:5 > 203.0.113.5:9 udp len 1400\nsend 10.0.0.1:5 > 203.0.113.5:9 udp len 1200\n", mtu={"out0": 1300}),
    case4("what only the route is too narrow for is cut", "send 198.51.100.1:5 > 203.0.113.5:9 udp len 1300\n", routes=["default dev out0", "203.0.113.0/28 via 198.51.100.7 dev out0 mtu 1300"]),
    # [rawv6_sendmsg; tcp_v6_send_response sums what was asked, ip6_dst_lookup chooses what is sent]
    case6("to :: is to oneself, and the reset has another source than its sum", "send [2001:db8:2::1]:511 > [::]:21 tcp SA seq 5 ack 6\n", rules6=NAT_HOOKS),
    case6("an echo to :: is answered to ::1 alone", "send fd00:1::1 > :: icmpv6 128/0 id 8\nsend ::1 > :: icmpv6 128/0 id 8\n"),
    case6("a reset whose sum is of :: stays so wrong when it is translated and leaves", "send [fd00:1::1]:65535 > [::]:8080 tcp A seq 5 ack 6\n", rules6=nat("POSTROUTING -s fd00:1::/64 -j SNAT --to-source 2001:db8:2::22")),
    # [ip_route_output_key_hash_rcu: no destination is the source]
    case4("to 0.0.0.0 is to oneself, and answers have an address", "send 198.51.100.1:5 > 0.0.0.0:21 udp\nsend 198.51.100.1 > 0.0.0.0 icmp 8/0 id 7\nsend 10.0.0.1:5 > 0.0.0.0:21 tcp S seq 5\n"),
    case4("who pings everybody without an address is the box itself", "out0 0.0.0.0 > 255.255.255.255 icmp 8/0 id 7\n", sysctl={"net.ipv4.icmp_echo_ignore_broadcasts": 0}),
    # [icmp6_iif: the device that the address stands on]
    case6("a box answers its own anycast address", "send 2001:db8:2::1 > 2001:db8:2:: icmpv6 128/0 id 8\n"),
    # [ip6_finish_output2; ip_mc_output]
    case6("a box hears the groups it is in, and a node's group stays in it", "send [fd00:1::1]:5 > [ff02::2]:9 tcp S seq 5\nsend fd00:1::1 > ff01::1 icmpv6 128/0 id 7\nsend [fd00:1::1]:5 > [ff02::5]:9 udp\n"),
    case4("a program hears its broadcast before anybody else does", "send 10.0.0.1 > 198.51.100.255 icmp 8/0 id 8\n", nat("POSTROUTING -j SNAT --to-source 198.51.100.20"), sysctl={"net.ipv4.icmp_echo_ignore_broadcasts": 0}),
]  # fmt: skip

WAYS = [
    # [nf_ct_zone_equal for each direction; nf_nat_used_tuple_new compares tuples without zones]
    case4("a flow that is met from its other end keeps its port, though their zones differ", "in0 10.0.0.2:34207 > 203.0.113.5:21 udplite\nout0 203.0.113.5:21 > 10.0.0.2:34207 udplite len 100\n", table("raw", "PREROUTING -s 10.0.0.2 -j CT --zone-reply 7") + TRACK + table("nat", "POSTROUTING -o none -j MASQUERADE")),
    # [nf_ip_checksum keeps a sum that translation spoils, so that it is made anew, from the header on]
    case4("filled-in options make an error bad that NAT, and not tracking, summed first", "send 10.0.0.1:80 > 203.0.113.6:443 udp len 10\nout0 203.0.113.6 > 198.51.100.21 icmp 3/13 options 0707040000000000 about 198.51.100.21:80 > 203.0.113.6:443 udp len 10\n", nat("POSTROUTING -o out0 -j SNAT --to-source 198.51.100.21"), sysctl={"nf_conntrack_checksum": 0}),
    # [find_appropriate_src is asked with the tuple as the destination's translation left it: for ICMP, another identifier]
    case4("who shares a mapping is asked of the tuple as it is by then", "send 198.51.100.1 > 10.0.0.4 icmp 8/0 id 1\nsend 10.0.0.1 > 203.0.113.6 icmp 15/0 id 1 len 8\nsend 10.0.0.1 > 10.0.0.4 icmp 8/0 id 1\n", nat("POSTROUTING -s 10.0.0.0/24 -j NETMAP --to 198.51.100.0/24", "POSTROUTING -j MASQUERADE")),
    case4("the box's own error on lo is translated twice and stays good", f"send 198.51.100.1:13706 > 10.0.0.1:80 udp {STAMP}\n", nat("POSTROUTING -j SNAT --to-source 198.51.100.20")),
    case6("a reset that was INVALID is at a CT rule's mercy on lo", "in0 [2001:db8:2::1]:69 > [2001:db8:2::7]:512 tcp SA seq 5 ack 6\n", rules6=table("raw", "PREROUTING -j CT --notrack") + refusing("FORWARD -p tcp -j REJECT --reject-with tcp-reset")),
    # [nf_nat_ipv4_pre_routing drops the route, and lo takes no own source without one]
    case4("what is translated off lo is routed anew, and is a martian then", "out0 203.0.113.6:300 > 198.51.100.1:21 tcp S seq 5\nsend 198.51.100.1 > 198.51.100.1 icmp 3/0 about 198.51.100.1:21 > 203.0.113.6:300 tcp SA seq 7 ack 6\n", table("raw", "OUTPUT -j CT --zone 6") + nat("PREROUTING -i out0 -j DNAT --to-destination 10.0.0.1")),
    case4("a source route that names the box leads on", "in0 10.0.0.2:1 > 10.0.0.1:9 udp options 830704cb00710500\n", sysctl=SOURCE_ROUTED),
    case6("local delivery answers a link-local sender where it came from", "out0 [fe80::9]:1 > [2001:db8:2::1]:9 udp\nout0 [fe80::9]:1 > [2001:db8:2::1]:9 tcp S seq 5\n", interfaces=LINK_LOCAL),
    # [ndisc_send_redirect]
    case6("a redirect of IPv6 is no part of what it is about", "in0 [fd00:1::2]:1 > [fd00:1::9]:9 udp\n", interfaces=LINK_LOCAL),
    # [fib6_is_reject]
    case6("an IPv6 route over lo refuses", "in0 [fd00:1::2]:1 > [2600::1]:9 udp\n", routes=["default dev out0", "2600::/32 dev lo"]),
    # [nf_nat_redirect_ipv6_usable: ipv6_addr_scope]
    case6("REDIRECT has no address for an IPv4 address behind zeros", "in0 [fd00:1::3]:5 > [::7]:53 udp\n", rules6=nat("PREROUTING -p udp -j REDIRECT --to-ports 5000")),
    # [ip6_route_me_harder: a link-local destination is one of this device]
    case6("an answer that is translated to a link-local address stays on its device", "in0 [fe80::1]:800 > [::]:69 udp\n", rules6=nat("PREROUTING -p udp -j REDIRECT", "INPUT -p udp -j SNAT --to-source fd00:1::77")),
]  # fmt: skip

CASES: list[Scenario] = [*ANSWERS, *HEADERS, *TRACKERS, *ROUTER, *PROGRAMS, *WAYS]
