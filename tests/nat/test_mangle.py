"""Mangling: the packet with another payload is the packet that its sender would have made."""

from __future__ import annotations

import pytest
from packets import TCP, UDP, ip, ipv4, sealed, tcp, tcp_options, udp

from conntrack.nat.mangle import mangle
from conntrack.wire.packet import parse
from conntrack.wire.refragment import Pieces

FOUR, SIX = ("10.0.0.2", "192.0.2.1"), ("fd00::2", "2600::1")


@pytest.mark.parametrize("ends", [FOUR, SIX])
@pytest.mark.parametrize("text", [b"", b"x", b"abc", b"longer than before", b"y" * 3001])
def test_a_segment_is_as_its_sender_would_have_made_it(ends: tuple[str, str], text: bytes) -> None:
    options = tcp_options(ts=True)
    packet = parse(ip(*ends, TCP, tcp(1, 2, "PA", 5, 6, payload=b"12abc45", options=options)))
    assert mangle(packet, 2, 3, text)
    wanted = ip(*ends, TCP, tcp(1, 2, "PA", 5, 6, payload=b"12" + text + b"45", options=options))
    assert bytes(packet.data) == wanted
    assert (packet.length, packet.end, packet.grown) == (len(wanted), len(wanted), len(text) - 3)


@pytest.mark.parametrize("ends", [FOUR, SIX])
def test_a_datagram_gets_its_length_too(ends: tuple[str, str]) -> None:
    packet = parse(ip(*ends, UDP, udp(1, 2, b"12abc45")))
    assert mangle(packet, 2, 3, b"four")
    assert bytes(packet.data) == ip(*ends, UDP, udp(1, 2, b"12four45"))


def test_a_udp_checksum_of_zero_stays_zero() -> None:
    packet = parse(ip(*FOUR, UDP, udp(1, 2, b"12abc45"), seal=False))
    assert mangle(packet, 2, 3, b"four")
    assert bytes(packet.data) == ip(*FOUR, UDP, udp(1, 2, b"12four45"), seal=False)


def test_a_wrong_checksum_is_right_afterwards() -> None:
    """The kernel leaves the sum to the device then."""
    packet = parse(ip(*FOUR, TCP, tcp(1, 2, "PA", 5, 6, payload=b"abc"), seal=False))
    assert mangle(packet, 0, 3, b"abd")
    assert bytes(packet.data) == ip(*FOUR, TCP, tcp(1, 2, "PA", 5, 6, payload=b"abd"))


def test_ipv4_options_stay() -> None:
    l4 = sealed(*FOUR, TCP, tcp(1, 2, "PA", 5, 6, payload=b"abc"))
    packet = parse(ipv4(*FOUR, TCP, l4, options=b"\x94\x04\0\0"))
    assert mangle(packet, 0, 3, b"wxyz")
    l4 = sealed(*FOUR, TCP, tcp(1, 2, "PA", 5, 6, payload=b"wxyz"))
    assert bytes(packet.data) == ipv4(*FOUR, TCP, l4, options=b"\x94\x04\0\0")


def test_no_packet_grows_beyond_65535_octets() -> None:
    packet = parse(ip(*FOUR, TCP, tcp(1, 2, "PA", payload=b"x" * (65535 - 40))))
    before = bytes(packet.data)
    assert not mangle(packet, 0, 1, b"xx")
    assert bytes(packet.data) == before
    assert mangle(packet, 0, 1, b"y")


def test_a_gathered_packet_loses_its_boundaries_even_at_the_same_length() -> None:
    packet = parse(ip(*FOUR, TCP, tcp(1, 2, "PA", payload=b"x" * 100)))
    packet.pieces = Pieces(20, (64, 56), 84, 20, 0, b"", ())
    assert mangle(packet, 0, 1, b"y")
    assert packet.pieces.sizes == (120,)
