"""Tuples: equal keys name the same direction of the same connection, and inversion names the answers.

Facts: nf_conntrack_tuple.h, nf_ct_invert_tuple of Linux 6.18.
"""

from __future__ import annotations

import packets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import ESP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, ip

from conntrack import Tuple
from conntrack.tuples import DEFAULT_ZONE, Zone, bare, family_of, invert, zone_of, zoned
from conntrack.wire.packet import parse

A, B, A6, B6 = "10.0.0.2", "192.0.2.1", "fd00::2", "2600::1"


def key(packet: bytes) -> bytes:
    return parse(packet).key


def upper(proto: int, a: int, b: int, payload: bytes = b"") -> bytes:
    """The transport header that has the numbers `a` and `b` in its tuple (if the protocol has any)."""
    if proto in (ICMP, ICMPV6):
        return packets.icmp(b >> 8, b & 255, a, 99, payload)
    if proto in (TCP, UDP, UDPLITE, SCTP):
        return a.to_bytes(2, "big") + b.to_bytes(2, "big") + bytes(16) + payload
    return payload


numbers = st.integers(0, 65535)
protocols = st.sampled_from([TCP, UDP, UDPLITE, SCTP, ICMP, ESP, GRE])
families = st.sampled_from([(A, B), (A6, B6)])


@given(protocols, families, numbers, numbers, st.binary(max_size=20))
def test_packets_of_one_direction_have_one_key(
    proto: int, ends: tuple[str, str], a: int, b: int, payload: bytes
) -> None:
    if proto == ICMP and ":" in ends[0]:
        proto = ICMPV6
    if proto == GRE:
        payload = b""
    one = key(ip(*ends, proto, upper(proto, a, b), seal=False))
    assert one == key(ip(*ends, proto, upper(proto, a, b, payload), seal=False))
    if ":" not in ends[0]:
        options = packets.ipv4(*ends, proto, upper(proto, a, b, payload), options=b"\1\1\1\1", ttl=3)
        assert one == key(options)


@given(protocols, families, numbers, numbers, numbers, numbers)
def test_other_numbers_give_another_key(proto: int, ends: tuple[str, str], a: int, b: int, c: int, d: int) -> None:
    one, other = (key(ip(*ends, proto, upper(proto, *pair), seal=False)) for pair in ((a, b), (c, d)))
    assert (one == other) == ((a, b) == (c, d) or proto in (ESP, GRE))


@given(protocols, families, numbers, numbers)
def test_the_inverse_is_the_key_of_the_answer(proto: int, ends: tuple[str, str], a: int, b: int) -> None:
    there, back = (a, b), (b, a)
    if proto == ICMP:
        proto, query, answer = (ICMPV6, 128, 129) if ":" in ends[0] else (ICMP, 8, 0)
        there, back = (a, query << 8 | b & 255), (a, answer << 8 | b & 255)  # the code stays
    forward = ip(*ends, proto, upper(proto, *there), seal=False)
    answered = ip(*ends[::-1], proto, upper(proto, *back), seal=False)
    assert invert(key(forward), proto) == key(answered)


ANSWERS = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMPV6: {128: 129, 139: 140}}


@given(protocols, families, numbers, st.integers(0, 255))
def test_inverting_twice_changes_nothing(proto: int, ends: tuple[str, str], a: int, code: int) -> None:
    if proto == ICMP and ":" in ends[0]:
        proto = ICMPV6
    kinds = [kind for pair in ANSWERS.get(proto, {0: 1}).items() for kind in pair]
    for kind in kinds:
        own = key(ip(*ends, proto, upper(proto, a, kind << 8 | code), seal=False))
        assert invert(invert(own, proto), proto) == own


@pytest.mark.parametrize("proto", [ICMP, ICMPV6])
def test_icmp_types_without_an_answer_have_no_inverse(proto: int) -> None:
    ends = (A, B) if proto == ICMP else (A6, B6)
    known = {kind for pair in ANSWERS[proto].items() for kind in pair}
    for kind in range(256):
        inverse = invert(key(ip(*ends, proto, packets.icmp(kind))), proto)
        assert bool(inverse) == (kind in known), kind


@given(families, numbers, numbers, numbers)
def test_a_tuple_is_the_key_for_people(ends: tuple[str, str], a: int, b: int, zone: int) -> None:
    own = Tuple(UDP, *ends, a, b, zone)
    packed = own.key()
    assert Tuple.from_key(packed, UDP) == own
    assert zone_of(packed) == zone
    assert zoned(bare(packed), zone) == packed
    assert family_of(packed) == (6 if ":" in ends[0] else 4)


def test_a_zone_counts_only_in_its_directions() -> None:
    for directions, effective in ((3, (5, 5)), (1, (5, 0)), (2, (0, 5))):
        assert tuple(Zone(5, directions).effective(side) for side in (0, 1)) == effective
    assert Zone(0, 3) == DEFAULT_ZONE


def test_records_show_what_the_protocol_has() -> None:
    assert Tuple(TCP, A, B, 1, 2).to_dict() == {"src": A, "dst": B, "sport": 1, "dport": 2}
    assert Tuple(ICMP, A, B, 7, 0x0805).to_dict() == {"src": A, "dst": B, "type": 8, "code": 5, "id": 7}
    assert Tuple(GRE, A, B, 1, 2).to_dict() == {"src": A, "dst": B, "srckey": 1, "dstkey": 2}
    assert Tuple(ESP, A, B).to_dict() == {"src": A, "dst": B}
