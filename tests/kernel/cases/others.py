"""SCTP, GRE, ESP and whatever has no tracker of its own; IPv6 extension headers.

One rule: tags of SCTP are 0xaaa of the first end and 0xbbb of the second.

Sources: nf_conntrack_proto_sctp.c, nf_conntrack_proto_gre.c, nf_conntrack_proto_generic.c, RFC 9260.
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

from . import case

C, S = "in0 10.0.0.2:1111 > 203.0.113.5:5000 sctp", "out0 203.0.113.5:5000 > 10.0.0.2:1111 sctp"
OPEN = f"""
{C} vtag 0 init:0xaaa
{S} vtag 0xaaa initack:0xbbb
{C} vtag 0xbbb cookie
{S} vtag 0xaaa cookieack
"""
A, B = "in0 10.0.0.2 > 203.0.113.5", "out0 203.0.113.5 > 10.0.0.2"
A6, B6 = "in0 fd00:1::2 > 2600::1", "out0 2600::1 > fd00:1::2"
U6, V6 = "in0 [fd00:1::2]:1111 > [2600::1]:53", "out0 [2600::1]:53 > [fd00:1::2]:1111"

CASES = [
    case("a whole SCTP life", f"""{OPEN}
{C} vtag 0xbbb data
{S} vtag 0xaaa sack
{C} vtag 0xbbb shut
{S} vtag 0xaaa shutack
{C} vtag 0xbbb shutcomp
"""),
    case("SCTP with a wrong verification tag", f"{OPEN}{C} vtag 0xccc data\n{S} vtag 0xbbb data\n"),
    case("an SCTP ABORT with and without the T flag", f"{OPEN}{C} vtag 0xaaa abort\n{C} vtag 0xaaa abort!\n"),
    case("an SCTP ABORT by the peer's tag", f"{OPEN}{C} vtag 0xbbb abort\n{C} vtag 0 init:0xddd\n"),
    case("what cannot begin an SCTP association", "\n".join(
        f"in0 10.0.0.2:{3000 + at} > 203.0.113.5:5000 sctp vtag 5 {kind}"
        for at, kind in enumerate(("data", "sack", "abort", "shutcomp", "cookieack", "initack:5", "shut", "error", "ecne")))),
    case("what can begin one", "\n".join(
        f"in0 10.0.0.2:{3000 + at} > 203.0.113.5:5000 sctp vtag 5 {kind}" for at, kind in enumerate(("hb", "hback", "shutack", "cookie")))),
    case("an SCTP INIT with a tag in the header", f"{C} vtag 5 init:0xaaa\n{C} vtag 0 init:0xaaa\n"),
    case("an SCTP INIT must stand alone", f"{C} vtag 0 init:0xaaa data\n{C} vtag 0 data init:0xaaa\n"),
    case("an SCTP chunk of length zero, and no chunk", f"{C} vtag 0\n{OPEN}{C} vtag 0xbbb data~ sack~\n"),
    case("an SCTP INIT in an open association", f"{OPEN}{C} vtag 0 init:0xddd\n{S} vtag 0xddd initack:0xeee\n{C} vtag 0xeee cookie\n{S} vtag 0xddd cookieack\n"),
    case("SCTP heartbeats from a new path", f"{C} vtag 0xbbb hb\n{S} vtag 0xaaa hback\n{C} vtag 0xbbb data\n{S} vtag 0xaaa data\n"),
    case("SCTP heartbeats with changed tags", f"{OPEN}{C} vtag 0xccc hb\n{S} vtag 0xddd hback\n{C} vtag 0xccc data\n{S} vtag 0xddd hb\n{C} vtag 0xccc hback\n"),
    case("an SCTP collision of INITs", f"{C} vtag 0 init:0xaaa\n{S} vtag 0 init:0xbbb\n{C} vtag 0xbbb initack:0xaaa\n{S} vtag 0xaaa cookie\n{C} vtag 0xbbb cookieack\n{S} vtag 0xaaa initack:0xbbb\n"),
    case("SCTP with a wrong CRC", f"{C} vtag 0 init:0xaaa badsum\n"),
    case("SCTP cut short", f"{C} vtag 0 init:0xaaa cut 31\n{C} vtag 0 init:0xaaa cut 24\n{C} vtag 0 init:0xaaa cut 23\n"),
    case("an SCTP shutdown from the other side", f"{OPEN}{S} vtag 0xaaa shut\n{C} vtag 0xbbb shutack\n{S} vtag 0xaaa shutcomp\n"),
    case("GRE version 0 in both directions", f"{A} gre v0\n{B} gre v0\n{A} gre v0\n{A} gre v0\n"),
    case("GRE version 1 makes a flow each way", f"{A} gre v1 call 5\n{B} gre v1 call 6\n{A} gre v1 call 5\n{A} gre v1 call 7\n"),
    case("GRE without a usable header", f"{A} gre v0 cut 21\n{A} gre v1 call 5 cut 27\n{A} proto 47 len 0\n"),
    case("GRE over IPv6", f"{A6} gre v0\n{B6} gre v0\n{A6} gre v1 call 5\n"),
    case("ESP and other protocols by their addresses", f"{A} esp\n{B} esp\n{A} proto 51 len 20\n{A} proto 33 len 20\n{A} proto 253\n{B} proto 253\n{A} proto 4 len 0\n"),
    case("IPIP is not looked into", f"{A} proto 4 len 40\n{B} proto 4 len 40\n"),
    case("IPv6 extension headers are walked over", f"{U6} udp ext dst\n{V6} udp ext hop\n{U6} udp ext route\n{U6} udp ext hop,dst,route\n"),
    case("IPv6 with no next header", f"{A6} proto 59 len 0\n{A6} proto 59 len 8\n"),
    case("an IPv6 chain that leaves the packet", f"{A6} proto 60 len 0\n{A6} proto 60 len 2\n{A6} proto 43 len 8\n"),
    case("protocol numbers at the ends", f"{A} proto 0\n{A} proto 255\n{A} proto 254\n{A6} proto 254\n"),
]  # fmt: skip
