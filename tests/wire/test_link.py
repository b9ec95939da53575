"""Link headers: by hand, octet by octet; against scapy's idea of them; and with anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conntrack.wire.link import LINKTYPES, locate, reframe, vlan_tags

IP4 = bytes.fromhex("45000020000040001101b64ec0000201c633640104d20035000c0000") + b"four"
IP6 = bytes.fromhex("6000000000041140") + bytes(32) + b"six!"
MACS = bytes.fromhex("020000000001020000000002")
FOUR, SIX = 0x0800, 0x86DD


def octets(text: str) -> bytes:
    """Hexadecimal octets, where "mac" stands for two Ethernet addresses and "z14" for 14 octets of zero."""
    out = b""
    for word in text.split():
        if word == "mac":
            out += MACS
        elif word[0] == "z":
            out += bytes(int(word[1:]))
        else:
            out += bytes.fromhex(word)
    return out


# fmt: off
BY_HAND = [
    # link header                                    type    VLANs       what it is
    (1,    "mac 0800",                               FOUR,   (),          "Ethernet II"),
    (1,    "mac 86dd",                               SIX,    (),          "Ethernet II, IPv6"),
    (1,    "mac 0806",                               0x0806, (),          "ARP"),
    (1,    "mac 8847",                               0x8847, (),          "MPLS is not entered"),
    (1,    "mac 8100 e007 0800",                     FOUR,   (7,),        "802.1Q with priority"),
    (1,    "mac 88a8 0064 8100 2fff 86dd",           SIX,    (100, 4095), "802.1ad around 802.1Q"),
    (1,    "mac 9100 0001 9200 0002 8100 0000 0800", FOUR,   (1, 2, 0),   "three tags, the last without id"),
    (1,    "mac 8100 0005 8847",                     0x8847, (5,),        "MPLS in a VLAN"),
    (1,    "mac 8864 1100 0001 0022 0021",           FOUR,   (),          "PPPoE session"),
    (1,    "mac 8100 0009 8864 1100 0001 002e 0057", SIX,    (9,),        "PPPoE session in a VLAN"),
    (1,    "mac 8863",                               0x8863, (),          "PPPoE discovery"),
    (1,    "mac 0026 aaaa 0300 0000 0800",           FOUR,   (),          "SNAP"),
    (1,    "mac 8100 0003 0026 aaaa 0300 0000 86dd", SIX,    (3,),        "SNAP in a VLAN"),
    (0,    "0200 0000",                              FOUR,   (),          "loopback of a little-endian host"),
    (0,    "0000 0002",                              FOUR,   (),          "loopback of a big-endian host"),
    (0,    "0a00 0000",                              SIX,    (),          "Linux"),
    (0,    "0000 0018",                              SIX,    (),          "NetBSD, OpenBSD"),
    (0,    "1c00 0000",                              SIX,    (),          "FreeBSD"),
    (0,    "1e00 0000",                              SIX,    (),          "Darwin"),
    (0,    "0700 0000",                              0,      (),          "some other family"),
    (0,    "0200 0100",                              0,      (),          "no family"),
    (108,  "0000 0002",                              FOUR,   (),          "OpenBSD loopback"),
    (108,  "0000 0018",                              SIX,    (),          "OpenBSD loopback, IPv6"),
    (108,  "0200 0000",                              0,      (),          "the other byte order: no family"),
    (9,    "ff03 0021",                              FOUR,   (),          "PPP with address and control"),
    (9,    "0057",                                   SIX,    (),          "PPP without"),
    (9,    "21",                                     FOUR,   (),          "PPP, protocol compressed"),
    (9,    "ff03 57",                                SIX,    (),          "PPP, protocol alone compressed"),
    (9,    "c021",                                   0,      (),          "LCP"),
    (9,    "0281",                                   0x8847, (),          "MPLS over PPP"),
    (9,    "0f",                                     0,      (),          "Cisco's HDLC is not PPP"),
    (50,   "ff03 0021",                              FOUR,   (),          "PPP in HDLC framing"),
    (50,   "0f00 0800",                              FOUR,   (),          "Cisco's HDLC"),
    (50,   "8f00 86dd",                              SIX,    (),          "Cisco's HDLC, multicast"),
    (50,   "0f00 0001",                              0,      (),          "Cisco's HDLC with no ethertype"),
    (51,   "1100 0001 0022 0021",                    FOUR,   (),          "PPPoE from its header on"),
    (12,   "",                                       FOUR,   (),          "RAW"),
    (14,   "",                                       FOUR,   (),          "RAW"),
    (101,  "",                                       FOUR,   (),          "RAW"),
    (101,  "",                                       SIX,    (),          "RAW"),
    (228,  "",                                       FOUR,   (),          "IPV4"),
    (229,  "",                                       SIX,    (),          "IPV6"),
    (113,  "z14 0800",                               FOUR,   (),          "SLL"),
    (113,  "z14 8100 002a 86dd",                     SIX,    (42,),       "SLL with a tag"),
    (113,  "z14 0004 aaaa 0300 0000 0800",           FOUR,   (),          "SLL, LLC and SNAP"),
    (113,  "z14 000c",                               0,      (),          "SLL, CAN"),
    (113,  "0000 0338 z10 0800",                     0,      (),          "SLL of netlink: no ethertype"),
    (276,  "0800 z18",                               FOUR,   (),          "SLL2"),
    (276,  "88a8 z18 0001 8100 0002 0800",           FOUR,   (1, 2),      "SLL2 with two tags"),
]

NO_IP = [
    # type frame                                     offset  ethertype  what it is
    (1,    "mac 8864 1100 0001 0004 c021 4c43 502e", 14,     0x8864,    "PPPoE session without IP"),
    (1,    "mac 8864 1109 0000 0000",                14,     0x8863,    "PPPoE discovery, wrong type"),
    (1,    "mac 8864 2100 0001 0004 0021",           14,     0x8864,    "PPPoE version 2"),
    (1,    "mac 0003 4242 0300",                     14,     0,         "LLC: spanning tree"),
    (1,    "mac 0000",                               14,     0,         "length 0"),
    (1,    "mac 05dc",                               14,     0,         "the greatest length"),
    (1,    "mac 05ff",                               14,     0,         "undefined, a length as in Linux"),
    (1,    "mac 0600",                               14,     0x0600,    "the least ethertype"),
    (1,    "mac 0008 aaaa 0300 000c 2000",           14,     0,         "SNAP with Cisco's OUI"),
    (1,    "mac 0008 aaaa 0300 0000 0003",           22,     0,         "SNAP that names a length"),
    (101,  "50",                                     0,      0,         "RAW, IP version 5"),
]

CUT = [
    # type frame
    (1,    "mac 08"),
    (1,    "mac 8100 0007 08"),
    (1,    "mac 8100 0007 8100 0008"),
    (1,    "mac 8864 1100 0001 0022 00"),
    (1,    "mac 8864 1100 0001 0022"),
    (1,    "mac 8864 1100"),
    (0,    "0200 00"),
    (108,  "0000 00"),
    (9,    ""),
    (9,    "00"),
    (9,    "ff03"),
    (50,   "0f00 08"),
    (51,   "1100 0001 0022"),
    (51,   ""),
    (101,  ""),
    (113,  "z15"),
    (276,  "0800 z17"),
]
# fmt: on


@pytest.mark.parametrize(("linktype", "header", "ethertype", "vlans", "what"), BY_HAND)
def test_the_packet_stands_behind_its_link_header(
    linktype: int, header: str, ethertype: int, vlans: tuple[int, ...], what: str
) -> None:
    packet = IP6 if ethertype == SIX else IP4
    frame = octets(header) + packet
    assert locate(linktype, frame) == (len(frame) - len(packet), ethertype), what
    assert vlan_tags(linktype, frame) == vlans, what


@pytest.mark.parametrize(("linktype", "frame", "offset", "ethertype", "why"), NO_IP)
def test_frames_without_ip_say_what_they_carry(
    linktype: int, frame: str, offset: int, ethertype: int, why: str
) -> None:
    assert locate(linktype, octets(frame)) == (offset, ethertype), why


@pytest.mark.parametrize(("linktype", "frame"), CUT)
def test_a_frame_that_ends_within_its_link_header_has_no_packet(linktype: int, frame: str) -> None:
    data = octets(frame)
    assert locate(linktype, data)[0] == -1
    assert reframe(linktype, data, -1, IP4, 0) == data


def test_an_unknown_link_type_has_no_packet() -> None:
    assert 147 not in LINKTYPES
    assert locate(147, bytes(100)) == (-1, 0)
    assert vlan_tags(147, bytes(100)) == ()


def test_incomplete_tags_are_not_counted() -> None:
    assert vlan_tags(1, octets("mac 8100 0007 8100 0008")) == (7,)
    assert vlan_tags(1, octets("mac 8100")) == ()
    assert vlan_tags(1, b"") == ()


def test_scapy_builds_the_same_headers() -> None:
    """Header lengths and types as scapy writes them, so that one reading of the formats checks the other."""
    scapy = pytest.importorskip("scapy.all")
    ppp = pytest.importorskip("scapy.layers.ppp")
    ip4 = scapy.IP(src="192.0.2.1", dst="198.51.100.1") / scapy.UDP(sport=1234, dport=53) / b"four"
    ip6 = scapy.IPv6(src="2001:db8::1", dst="2001:db8::2") / scapy.UDP(sport=1234, dport=53) / b"six!"
    eth, tag, service = scapy.Ether, scapy.Dot1Q, scapy.Dot1AD
    cases = [
        (1, eth(), ()),
        (1, eth() / tag(vlan=7), (7,)),
        (1, eth() / service(vlan=100) / tag(vlan=7), (100, 7)),
        (1, eth() / service(vlan=1) / tag(vlan=2) / tag(vlan=3), (1, 2, 3)),
        (1, eth() / ppp.PPPoE(sessionid=5) / ppp.PPP(), ()),
        (1, eth() / tag(vlan=9) / ppp.PPPoE(sessionid=5) / ppp.PPP(), (9,)),
        (1, scapy.Dot3() / scapy.LLC() / scapy.SNAP(), ()),
        (9, ppp.HDLC() / ppp.PPP(), ()),
        (9, ppp.PPP(), ()),
        (50, ppp.HDLC() / ppp.PPP(), ()),
        (51, ppp.PPPoE(sessionid=5) / ppp.PPP(), ()),
        (0, scapy.Loopback(), ()),
        (113, scapy.CookedLinux(), ()),
        (113, scapy.CookedLinux() / tag(vlan=12), (12,)),
        (276, scapy.CookedLinuxV2(), ()),
    ]
    for linktype, header, vlans in cases:
        for packet, ethertype in ((ip4, FOUR), (ip6, SIX)):
            if ethertype == SIX and isinstance(header, scapy.Loopback):
                header = scapy.Loopback(type=30)
            frame = bytes(header / packet)
            inner = bytes(packet)
            assert locate(linktype, frame) == (len(frame) - len(inner), ethertype), header.summary()
            assert vlan_tags(linktype, frame) == vlans, header.summary()


@pytest.mark.parametrize(("linktype", "header", "ethertype", "vlans", "what"), BY_HAND)
def test_an_unchanged_packet_keeps_its_frame_to_the_octet(
    linktype: int, header: str, ethertype: int, vlans: tuple[int, ...], what: str
) -> None:
    start = octets(header)
    frame = start + IP4 + b"padding"
    assert reframe(linktype, frame, len(start), IP4, len(IP4)) == frame, what


def test_a_packet_of_the_same_size_keeps_the_trailer() -> None:
    other = bytes(reversed(IP4))
    start = octets("mac 0800")
    assert reframe(1, start + IP4 + b"FCS!", 14, other, len(IP4)) == start + other + b"FCS!"


def test_a_packet_of_another_size_loses_the_trailer() -> None:
    start = octets("mac 0800")
    frame = start + IP4 + bytes(14)
    assert reframe(1, frame, 14, IP4 + b"more", len(IP4)) == start + IP4 + b"more"
    assert reframe(1, frame, 14, IP4[:-3], len(IP4)) == start + IP4[:-3]


# fmt: off
LENGTHS = [
    # type header before 32 octets                   before 36 octets                          what it is
    (1,    "mac 8864 1100 0001 0022 0021",           "mac 8864 1100 0001 0026 0021",           "PPPoE"),
    (1,    "mac 8100 0009 8864 1100 0001 0022 0021", "mac 8100 0009 8864 1100 0001 0026 0021", "in a VLAN"),
    (1,    "mac 8864 1100 0001 0020 0021",           "mac 8864 1100 0001 0026 0021",           "was wrong"),
    (1,    "mac 8864 1100 0001 0578 0021",           "mac 8864 1100 0001 057c 0021",           "was cut"),
    (51,   "1100 0001 0022 0021",                    "1100 0001 0026 0021",                    "PPP_ETHER"),
    (1,    "mac 0028 aaaa 0300 0000 0800",           "mac 002c aaaa 0300 0000 0800",           "802.3"),
    (1,    "mac 8100 0001 0028 aaaa 0300 0000 0800", "mac 8100 0001 002c aaaa 0300 0000 0800", "in a VLAN"),
    (1,    "mac 05da aaaa 0300 0000 0800",           "mac 05dc aaaa 0300 0000 0800",           "the most"),
    (113,  "z14 0004 aaaa 0300 0000 0800",           "z14 0004 aaaa 0300 0000 0800",           "no length"),
]
# fmt: on


@pytest.mark.parametrize(("linktype", "before", "after", "what"), LENGTHS)
def test_length_fields_follow_the_packet(linktype: int, before: str, after: str, what: str) -> None:
    frame = octets(before) + IP4
    offset, _ = locate(linktype, frame)
    assert offset == len(frame) - len(IP4), what
    assert reframe(linktype, frame, offset, IP4 + b"more", len(IP4)) == octets(after) + IP4 + b"more", what


KNOWN = st.sampled_from(sorted(LINKTYPES))
# Octets that open doors: types, tags, PPP protocols, LLC; so that random frames get past the first check.
DOORS = st.sampled_from(
    [
        b"\x08\x00",
        b"\x86\xdd",
        b"\x81\x00",
        b"\x88\xa8",
        b"\x88\x64",
        b"\x11\x00",
        b"\x00\x21",
        b"\x00\x10",
        b"\xaa\xaa\x03\x00\x00\x00",
        b"\xff\x03",
        b"\x0f\x00",
        b"\x00\x04",
        b"\x02\x00\x00\x00",
    ]
)
FRAMES = st.lists(st.one_of(DOORS, st.binary(max_size=14)), max_size=12).map(b"".join)


@given(KNOWN, FRAMES)
def test_any_octets_at_all_are_located_inside_the_frame(linktype: int, frame: bytes) -> None:
    offset, ethertype = locate(linktype, frame)
    assert -1 <= offset <= len(frame)
    assert ethertype == 0 or 0x0600 <= ethertype <= 0xFFFF
    assert all(0 <= vlan <= 4095 for vlan in vlan_tags(linktype, frame))


@given(KNOWN, FRAMES, st.integers(0, 200))
def test_reframing_what_was_located_is_the_identity(linktype: int, frame: bytes, size: int) -> None:
    offset, _ = locate(linktype, frame)
    packet = frame[offset : offset + size] if offset >= 0 else b""
    assert reframe(linktype, frame, offset, packet, len(packet)) == frame


@given(KNOWN, FRAMES, st.binary(max_size=40), st.integers(0, 200))
def test_a_reframed_packet_is_found_where_it_was_put(
    linktype: int, frame: bytes, packet: bytes, consumed: int
) -> None:
    offset, ethertype = locate(linktype, frame)
    consumed = min(consumed, len(frame) - offset)
    again = reframe(linktype, frame, offset, packet, consumed)
    if ethertype in (FOUR, SIX):
        assert again[offset : offset + len(packet)] == packet
        if linktype not in (12, 14, 101):  # there the packet itself is what tells its family
            assert locate(linktype, again) == (offset, ethertype)
