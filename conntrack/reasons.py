"""Why a packet was not simply tracked: the one table of reasons.

A reason is its name, a stable `str` constant; identity comparison makes it as fast as an int and every record
can carry it as it is.  Trackers return the constant and the numbers that decided, in the order of `numbers`;
records, kernel log text, explanations, documentation and tests look the rest up here.

`log` is the kernel's `nf_conntrack_log_invalid` text with the numbers filled in (None: the kernel is silent);
`counter` is the field of `conntrack -S` that moves ("" : none).

Sources: nf_conntrack_proto_*.c, nf_conntrack_core.c (Linux 6.18) for texts and occasions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table; `numbers` names what `detail` carries, in order."""

    name: str
    numbers: tuple[str, ...]
    log: str | None
    counter: str
    sentence: str

    def detail(self, values: tuple[int | str, ...]) -> dict[str, int | str]:
        """The numbers by name, as records show them."""
        return dict(zip(self.numbers, values, strict=False))

    def log_text(self, values: tuple[int | str, ...]) -> str | None:
        """The kernel's log text for these numbers, without prefix; None where the kernel says nothing."""
        if self.log is None:
            return None
        printed = tuple(_in_full(value) if isinstance(value, str) else value for value in values)
        return self.log.format(**self.detail(printed))


def _in_full(text: str) -> str:
    """IPv6 addresses as printk's %pI6 has them.

    >>> _in_full("::ffff:1.2.3.4"), _in_full("192.0.2.1")
    ('0000:0000:0000:0000:0000:ffff:0102:0304', '192.0.2.1')
    """
    if ":" not in text:
        return text
    from ipaddress import IPv6Address  # for people; nothing that tracks imports it

    digits = IPv6Address(text).packed.hex()
    return ":".join(digits[at : at + 4] for at in range(0, 32, 4))


# Headers
IP_HEADER: Final = "ip_header"
IP_TRUNCATED: Final = "ip_truncated"
IP_CHECKSUM: Final = "ip_checksum"
IP_ADDRESS: Final = "ip_address"
IPV6_OPTIONS: Final = "ipv6_options"
CUT: Final = "cut"
FRAGMENT: Final = "fragment"
NO_TUPLE: Final = "no_tuple"
NO_NEXT_HEADER: Final = "no_next_header"
EXTENSION_HEADERS: Final = "extension_headers"
NOT_INVERTIBLE: Final = "not_invertible"
WRONG_FAMILY: Final = "wrong_family"
# TCP
TCP_SHORT: Final = "tcp_short"
TCP_TRUNCATED: Final = "tcp_truncated"
TCP_CHECKSUM: Final = "tcp_checksum"
TCP_FLAGS: Final = "tcp_flags"
TCP_NOT_LOOSE: Final = "tcp_not_loose"
TCP_NEW: Final = "tcp_invalid_new"
TCP_IGNORED: Final = "tcp_ignored"
TCP_INVALID_STATE: Final = "tcp_invalid_state"
TCP_CHALLENGE_ACK: Final = "tcp_challenge_ack"
TCP_INVALID_RST: Final = "tcp_invalid_rst"
TCP_SYN_RETRANSMITTED: Final = "syn_retransmitted"
SEQ_OVER_WINDOW: Final = "seq_over_window"
SEQ_OVERSHOT: Final = "seq_overshot"
SEQ_UNDER_WINDOW: Final = "seq_under_window"
ACK_OVER_WINDOW: Final = "ack_over_window"
ACK_UNDER_WINDOW: Final = "ack_under_window"
TCP_TIMEOUT_LOWERED: Final = "tcp_timeout_lowered"
TCP_REOPEN: Final = "tcp_reopen"
# UDP, UDP-Lite
UDP_SHORT: Final = "udp_short"
UDP_LENGTH: Final = "udp_length"
UDP_CHECKSUM: Final = "udp_checksum"
UDPLITE_SHORT: Final = "udplite_short"
UDPLITE_COVERAGE: Final = "udplite_coverage"
UDPLITE_NO_CHECKSUM: Final = "udplite_no_checksum"
UDPLITE_CHECKSUM: Final = "udplite_checksum"
# ICMP, ICMPv6
ICMP_SHORT: Final = "icmp_short"
ICMP_CHECKSUM: Final = "icmp_checksum"
ICMP_TYPE: Final = "icmp_type"
ICMP_NOT_NEW: Final = "icmp_not_new"
ICMP_ERROR_QUOTE: Final = "icmp_error_quote"
ICMP_ERROR_UNKNOWN: Final = "icmp_error_unknown"
ICMP_ERROR_OUTER: Final = "icmp_error_outer"
ICMPV6_SHORT: Final = "icmpv6_short"
ICMPV6_CHECKSUM: Final = "icmpv6_checksum"
ICMPV6_REDIRECT_SHORT: Final = "icmpv6_redirect_short"
ICMPV6_REDIRECT_SOURCE: Final = "icmpv6_redirect_source"
ICMPV6_REDIRECT_OPTIONS: Final = "icmpv6_redirect_options"
ICMPV6_UNTRACKED: Final = "icmpv6_untracked"
RELATED_ERROR: Final = "related_error"
# SCTP
SCTP_SHORT: Final = "sctp_short"
SCTP_CRC: Final = "sctp_crc"
SCTP_CHUNKS: Final = "sctp_chunks"
SCTP_EMPTY: Final = "sctp_no_chunk"
SCTP_NEW: Final = "sctp_invalid_new"
SCTP_VTAG: Final = "sctp_vtag"
SCTP_CHUNK_VTAG: Final = "sctp_chunk_vtag"
SCTP_INVALID_STATE: Final = "sctp_invalid_state"
SCTP_IGNORED: Final = "sctp_ignored"
# The box around the engine
MARTIAN_SOURCE: Final = "martian_source"
MARTIAN_DESTINATION: Final = "martian_destination"
LOCAL_SOURCE: Final = "local_source"
RP_FILTER: Final = "rp_filter"
FORWARDING_OFF: Final = "forwarding_off"
NO_MEMBER: Final = "no_member"
NO_ROUTE: Final = "no_route"
UNREACHABLE: Final = "unreachable"
PROHIBIT: Final = "prohibit"
BLACKHOLE: Final = "blackhole"
BAD_SOURCE: Final = "bad_source"
BAD_DESTINATION: Final = "bad_destination"
FOREIGN_SOURCE: Final = "foreign_source"
LOOPBACK_SOURCE: Final = "loopback_source"
NO_SOURCE: Final = "no_source"
IP_OPTIONS: Final = "ip_options"
TTL_EXCEEDED: Final = "ttl_exceeded"
TOO_BIG: Final = "too_big"
RULE_DROP: Final = "rule_drop"
RULE_UNTRACKED: Final = "rule_untracked"
NO_TRACKING: Final = "no_tracking"
LINK_DOWN: Final = "link_down"
SOURCE_SCOPE: Final = "source_scope"
OUT_OF_SCOPE: Final = "out_of_scope"
# The engine
TABLE_FULL: Final = "table_full"
CLASH: Final = "clash"
CHAIN_TOO_LONG: Final = "chain_too_long"
NAT_TRUNCATED: Final = "nat_truncated"
NAT_ICMP_CHECKSUM: Final = "nat_icmp_checksum"
NAT_REDIRECT: Final = "nat_redirect"
NAT_GRE_VERSION: Final = "nat_gre_version"
MASQUERADE_INTERFACE: Final = "masquerade_interface"
HELPER_PARTIAL: Final = "helper_partial"
HELPER_EXPECT: Final = "helper_expect"
HELPER_PORTS: Final = "helper_ports"
HELPER_MANGLE: Final = "helper_mangle"
SEQ_ADJUST: Final = "seq_adjust"
HELD_FRAGMENT: Final = "held_fragment"
FRAGMENT_OVERLAP: Final = "fragment_overlap"
FRAGMENT_DUPLICATE: Final = "fragment_duplicate"
FRAGMENT_BAD: Final = "fragment_bad"
FRAGMENT_LIMIT: Final = "fragment_limit"
FRAGMENT_TOO_BIG: Final = "fragment_too_big"
NOT_IP: Final = "not_ip"

# fmt: off
_ROWS: tuple[tuple[str, tuple[str, ...], str | None, str, str], ...] = (
    # name                    numbers                     kernel's log text                              counter    sentence
    (IP_HEADER,               ("length", "version"),      None,                                          "invalid", "the IP header is incomplete or of no known version"),
    (IP_TRUNCATED,            ("length", "present"),      None,                                          "invalid", "the IP header promises more octets than the frame carried"),
    (IP_CHECKSUM,             (),                         None,                                          "",        "the IPv4 header checksum is wrong: the IP layer drops the packet"),
    (IP_ADDRESS,              (),                         None,                                          "",        "an IPv6 address that must not be on a wire: the IP layer drops the packet"),
    (IPV6_OPTIONS,            ("option",),                None,                                          "",        "IPv6 hop-by-hop options that a router has to refuse"),
    (CUT,                     ("need", "present"),        None,                                          "invalid", "the capture's snap length cut the headers that tracking needs"),
    (FRAGMENT,                ("offset",),                None,                                          "invalid", "a fragment reached connection tracking without reassembly"),
    (NO_TUPLE,                ("need", "present"),        None,                                          "invalid", "too short for the ports, the identifier or the key"),
    (NO_NEXT_HEADER,          (),                         None,                                          "invalid", "IPv6 'no next header' (59): nothing to track"),
    (EXTENSION_HEADERS,       (),                         None,                                          "invalid", "the IPv6 extension header chain leaves the packet"),
    (NOT_INVERTIBLE,          ("type",),                  None,                                          "invalid", "no answer to this ICMP type is defined, so it can belong to no connection"),
    (WRONG_FAMILY,            ("proto",),                 None,                                          "invalid", "ICMP in IPv6 or ICMPv6 in IPv4"),
    (TCP_SHORT,               ("need", "present"),        None,                                          "invalid", "fewer than 20 octets of TCP header"),
    (TCP_TRUNCATED,           ("need", "present"),        "truncated packet",                            "invalid", "the TCP data offset is below 5 words or beyond the packet"),
    (TCP_CHECKSUM,            (),                         "bad checksum",                                "invalid", "the TCP checksum is wrong"),
    (TCP_FLAGS,               ("flags",),                 "invalid tcp flag combination",                "invalid", "no TCP sends this combination of flags"),
    (TCP_NOT_LOOSE,           (),                         None,                                          "invalid", "a connection in progress is not picked up: nf_conntrack_tcp_loose is 0"),
    (TCP_NEW,                 ("index",),                 "invalid new",                                 "invalid", "no connection is known and this packet (SYN/ACK, FIN or RST) cannot start one"),
    (TCP_IGNORED,             ("index", "dir", "state"),  "packet (index {index}) in dir {dir} ignored, state {state}", "", "out of place in this state; passed on for the endpoints to answer, not counted"),
    (TCP_INVALID_STATE,       ("index", "dir", "state"),  "packet (index {index}) in dir {dir} invalid, state {state}", "invalid", "impossible in this state of the connection"),
    (TCP_CHALLENGE_ACK,       (),                         "challenge-ack ignored",                       "", "the expected challenge ACK to an ignored SYN"),
    (TCP_INVALID_RST,         ("seq", "bound"),           "invalid rst",                                 "invalid", "the RST's sequence number is below what the other side has acknowledged"),
    (TCP_SYN_RETRANSMITTED,   (),                         None,                                          "", "a SYN again before any answer: neither counted nor does it extend the timer"),
    (SEQ_OVER_WINDOW,         ("seq", "bound"),           "SEQ is over upper bound {bound} (over the window of the receiver)", "invalid", "data beyond what the receiver's window allows"),
    (SEQ_OVERSHOT,            ("overshot", "seq", "bound"), "{overshot} bytes more than expected",       "", "a little beyond the receiver's window: passed, not counted"),
    (SEQ_UNDER_WINDOW,        ("end", "bound"),           "SEQ is under lower bound {bound} (already ACKed data retransmitted)", "", "old data again, already acknowledged: passed, not counted"),
    (ACK_OVER_WINDOW,         ("ack", "bound"),           "ACK is over upper bound {bound} (ACKed data not seen yet)", "invalid", "acknowledges data that was never seen"),
    (ACK_UNDER_WINDOW,        ("ack", "bound"),           "ignored ACK under lower bound {bound} (possible overly delayed)", "", "a far too old acknowledgement: passed, not counted"),
    (TCP_TIMEOUT_LOWERED,     ("index", "dir", "last", "timeout", "because"), "packet (index {index}, dir {dir}) response for index {last} lower timeout to {timeout}", "invalid", "out-of-window FIN or RST from both sides: the timer is lowered"),
    (TCP_REOPEN,              (),                         None,                                          "", "a SYN reopens a finished connection"),
    (UDP_SHORT,               ("need", "present"),        "short packet",                                "invalid", "fewer than 8 octets of UDP"),
    (UDP_LENGTH,              ("length", "present"),      "truncated/malformed packet",                  "invalid", "the UDP length field is below 8 or beyond the packet"),
    (UDP_CHECKSUM,            (),                         "bad checksum",                                "invalid", "the UDP checksum is wrong"),
    (UDPLITE_SHORT,           ("need", "present"),        "short packet",                                "invalid", "fewer than 8 octets of UDP-Lite"),
    (UDPLITE_COVERAGE,        ("coverage", "present"),    "invalid checksum coverage",                   "invalid", "the checksum coverage is 1 to 7 or beyond the packet"),
    (UDPLITE_NO_CHECKSUM,     (),                         "checksum missing",                            "invalid", "UDP-Lite must carry a checksum"),
    (UDPLITE_CHECKSUM,        (),                         "bad checksum",                                "invalid", "the UDP-Lite checksum is wrong (Linux computes it with protocol 17)"),
    (ICMP_SHORT,              ("need", "present"),        "short packet",                                "error",   "fewer than 8 octets of ICMP"),
    (ICMP_CHECKSUM,           (),                         "bad hw icmp checksum",                        "error",   "the ICMP checksum is wrong"),
    (ICMP_TYPE,               ("type",),                  "invalid icmp type",                           "error",   "an ICMP type above 18"),
    (ICMP_NOT_NEW,            ("type",),                  None,                                          "invalid", "an ICMP message that starts no connection, and none is known for it"),
    (ICMP_ERROR_QUOTE,        ("type",),                  None,                                          "error",   "the packet that the ICMP error quotes cannot be read"),
    (ICMP_ERROR_UNKNOWN,      ("type",),                  None,                                          "error",   "an ICMP error about no known connection"),
    (ICMP_ERROR_OUTER,        ("outer", "inner"),         "outer daddr {outer} != inner {inner}",        "error",   "an ICMP error addressed to somebody else than the sender it quotes"),
    (ICMPV6_SHORT,            ("need", "present"),        "short packet",                                "error",   "fewer than 8 octets of ICMPv6"),
    (ICMPV6_CHECKSUM,         (),                         "ICMPv6 checksum failed",                      "error",   "the ICMPv6 checksum is wrong"),
    (ICMPV6_REDIRECT_SHORT,   ("need", "present"),        "short redirect",                              "error",   "an ICMPv6 redirect of fewer than 40 octets"),
    (ICMPV6_REDIRECT_SOURCE,  ("hop_limit",),             "invalid saddr or hoplimit for redirect",      "error",   "an ICMPv6 redirect that does not come from the link"),
    (ICMPV6_REDIRECT_OPTIONS, (),                         "redirect without options",                    "error",   "an ICMPv6 redirect without options"),
    (ICMPV6_UNTRACKED,        ("type",),                  None,                                          "", "neighbour discovery and multicast listener messages are never tracked"),
    (RELATED_ERROR,           ("type", "code"),           None,                                          "", "an ICMP error about a known connection: related, not counted"),
    (SCTP_SHORT,              ("need", "present"),        "nf_ct_sctp: short packet ",                   "invalid", "fewer than 12 octets of SCTP"),
    (SCTP_CRC,                (),                         "nf_ct_sctp: bad CRC ",                        "invalid", "the SCTP CRC32c is wrong"),
    (SCTP_CHUNKS,             ("num", "type", "len", "flag"), "do_basic_checks failed. chunk num {num}, type {type}, len {len} flag {flag:x}", "invalid", "the SCTP chunks do not fit together"),
    (SCTP_EMPTY,              ("need", "present"),        None,                                          "invalid", "not one SCTP chunk"),
    (SCTP_NEW,                ("type",),                  None,                                          "invalid", "no association is known and this packet cannot start one"),
    (SCTP_VTAG,               ("vtag", "expected", "dir"), "verification tag check failed {vtag:x} vs {expected:x} for dir {dir}", "invalid", "the SCTP verification tag is another association's"),
    (SCTP_CHUNK_VTAG,         ("type", "dir"),            None,                                          "invalid", "the SCTP verification tag does not fit the chunk"),
    (SCTP_INVALID_STATE,      ("state", "dir", "type"),   "Invalid, old_state {state}, dir {dir}, type {type}", "invalid", "impossible in this state of the association"),
    (SCTP_IGNORED,            (),                         None,                                          "", "passed for the endpoints to answer: neither counted nor does it extend the timer"),
    (TABLE_FULL,              ("count", "max"),           None,                                          "drop",    "the table is full and nothing in reach could be evicted"),
    (CLASH,                   (),                         None,                                          "insert_failed", "another connection took the tuple: no free address and port was left"),
    (CHAIN_TOO_LONG,          ("length", "limit"),        None,                                          "insert_failed", "the hash chain is over its limit"),
    (NAT_TRUNCATED,           ("need", "present"),        None,                                          "", "too short for the header that translation must rewrite"),
    (NAT_ICMP_CHECKSUM,       (),                         None,                                          "", "an ICMP error with a wrong checksum is not translated but dropped"),
    (NAT_REDIRECT,            (),                         None,                                          "", "an ICMP redirect about a translated connection is dropped"),
    (NAT_GRE_VERSION,         ("version",),               None,                                          "", "GRE of an unknown version cannot be translated"),
    (MASQUERADE_INTERFACE,    (),                         None,                                          "", "a masqueraded connection left by another interface"),
    (HELPER_PARTIAL,          ("helper", "pattern"),      "nf_ct_{helper}: dropping packet: partial matching of `{pattern}'", "", "the command that a helper waits for is cut off: the packet is dropped, for the rest would go unseen"),
    (HELPER_EXPECT,           ("helper",),                "nf_ct_{helper}: dropping packet: cannot add expectation", "", "the expectation is taken by another connection, or there are nf_conntrack_expect_max of them"),
    (HELPER_PORTS,            ("helper",),                "nf_ct_{helper}: dropping packet: all ports in use", "", "no port was free for the expectation, or there are nf_conntrack_expect_max of them"),
    (HELPER_MANGLE,           ("helper",),                "nf_ct_{helper}: dropping packet: cannot mangle packet", "", "the translated command would not fit into an IP packet"),
    (SEQ_ADJUST,              (),                         None,                                          "drop", "sequence numbers had to be shifted, and the TCP options cannot be read"),
    (HELD_FRAGMENT,           ("offset", "length"),       None,                                          "", "a fragment that waits for the rest of its datagram"),
    (FRAGMENT_OVERLAP,        ("offset", "length"),       None,                                          "", "fragments overlap: the datagram is given up"),
    (FRAGMENT_DUPLICATE,      ("offset", "length"),       None,                                          "", "a fragment that is already there"),
    (FRAGMENT_BAD,            ("offset", "length"),       None,                                          "", "a fragment that fits no datagram"),
    (FRAGMENT_LIMIT,          ("memory", "limit"),        None,                                          "", "no room for more waiting fragments"),
    (FRAGMENT_TOO_BIG,        ("offset", "length"),       None,                                          "", "the fragments add up to more than 65,535 octets"),
    (MARTIAN_SOURCE,          (),                         None,                                          "", "a source address that no packet of a device may have"),
    (MARTIAN_DESTINATION,     (),                         None,                                          "", "a destination address that no packet of a device may have"),
    (LOCAL_SOURCE,            (),                         None,                                          "", "the source is one of the box's own addresses"),
    (RP_FILTER,               (),                         None,                                          "", "the way back to the source does not leave by the device that the packet came from"),
    (FORWARDING_OFF,          (),                         None,                                          "", "not for the box, and it does not forward"),
    (NO_MEMBER,               (),                         None,                                          "", "for a multicast group of which the device is no member"),
    (NO_ROUTE,                (),                         None,                                          "", "no route to the destination"),
    (UNREACHABLE,             (),                         None,                                          "", "the route says that the destination cannot be reached"),
    (PROHIBIT,                (),                         None,                                          "", "the route says that the destination is prohibited"),
    (BLACKHOLE,               (),                         None,                                          "", "the route swallows packets silently"),
    (BAD_SOURCE,              (),                         None,                                          "", "the box sends no packet with such a source address"),
    (BAD_DESTINATION,         (),                         None,                                          "", "the box sends no packet to such an address"),
    (FOREIGN_SOURCE,          (),                         None,                                          "", "the source is no address of the box, which wants one"),
    (LOOPBACK_SOURCE,         (),                         None,                                          "", "a loopback address must not leave the box"),
    (NO_SOURCE,               (),                         None,                                          "", "the box has no address to send from"),
    (IP_OPTIONS,              ("pointer",),               None,                                          "", "IPv4 options that are malformed or refused"),
    (TTL_EXCEEDED,            ("ttl",),                   None,                                          "", "the time to live, or hop limit, ran out here"),
    (TOO_BIG,                 ("length", "mtu"),          None,                                          "", "larger than the outgoing device takes, and not to be fragmented"),
    (RULE_DROP,               ("table", "chain"),         None,                                          "", "a rule, or a chain's policy, dropped it"),
    (RULE_UNTRACKED,          (),                         None,                                          "", "a rule said that it is not to be tracked"),
    (NO_TRACKING,             (),                         None,                                          "", "connection tracking did not see it: no rule asks for it, or its way ended before"),
    (LINK_DOWN,               (),                         None,                                          "", "the device is down"),
    (SOURCE_SCOPE,            (),                         None,                                          "", "a source address that must not be forwarded"),
    (OUT_OF_SCOPE,            (),                         None,                                          "", "a multicast that must not leave the box"),
    (NOT_IP,                  ("ethertype",),             None,                                          "", "not IP: passed unchanged"),
)
# fmt: on

REASONS: dict[str, Reason] = {row[0]: Reason(*row) for row in _ROWS}
