"""The box's own packets: what the recorded packets of `test_router_recorded` do not show.

Octets with a source comment were read from Linux 6.18.44 (in0 10.0.0.1/24 fd00:1::1/64, defaults out of out0).
"""

from __future__ import annotations

from ipaddress import ip_address

from draws import Draws
from packets import TCP, UDP, ip, ipv4, tcp, udp, word_sum, wrong_sums

from conntrack.netfilter.own import Own
from conntrack.netfilter.routing import Fib
from conntrack.sysctl import SECOND
from conntrack.verdict import FORWARD, LOCAL_IN, LOCAL_OUT
from conntrack.wire.checksum import BAD, GOOD
from conntrack.wire.packet import parse

NOW = 1_000_000 * SECOND
FORWARDING = {
    f"net.ipv{family}.conf.{device}.forwarding": 1 for family in (4, 6) for device in ("all", "lo", "in0", "out0")
}


def own(sysctl: dict[str, int] | None = None, touched: list[object] | None = None) -> Own:
    settings = {**FORWARDING, **(sysctl or {})}
    box = {"in0": ["10.0.0.1/24", "fd00:1::1/64"], "out0": ["198.51.100.1/24", "2001:db8:2::1/64"]}
    fib = Fib(box, ["default dev out0", "-6 default dev out0"], sysctl=settings)
    return Own(fib, settings, Draws(), (touched if touched is not None else []).append)


def test_time_exceeded_is_what_linux_sends() -> None:
    packet = parse(ipv4("10.0.0.2", "8.8.8.8", UDP, udp(1000, 2000, b"x"), ttl=1))
    answer = own().error(packet, "in0", 11, 0, 0, NOW)
    # sent: tos c0, ttl 64, no DF, the whole datagram quoted
    expected = "45c00039123400004001" + "0a0000010a000002" + "0b00" + "00000000" + bytes(packet.data).hex()
    assert answer is not None
    assert (answer[:10] + answer[12:22] + answer[24:]).hex() == expected and wrong_sums(answer) == []


def test_a_quote_ends_at_576_and_1280_octets() -> None:
    long4 = own().error(parse(ip("10.0.0.2", "8.8.8.8", UDP, udp(1, 2, bytes(900)))), "in0", 11, 0, 0, NOW)
    long6 = own().error(parse(ip("fd00:1::2", "2600::1", UDP, udp(1, 2, bytes(1400)))), "in0", 3, 0, 0, NOW)
    assert long4 is not None and len(long4) == 576
    assert long6 is not None and len(long6) == 1280 and wrong_sums(long6) == []


def test_an_error_over_a_small_mtu_is_smaller_and_too_small_a_one_is_none() -> None:
    packet = parse(ip("10.0.0.2", "8.8.8.8", UDP, udp(1, 2, bytes(900))))
    fib = Fib({"in0": ["10.0.0.1/24"]}, mtu=200, sysctl=FORWARDING)
    answer = Own(fib, FORWARDING, Draws()).error(packet, "in0", 11, 0, 0, NOW)
    assert answer is not None and len(answer) == 200
    tiny = Own(Fib({"in0": ["10.0.0.1/24"]}, ["10.0.0.2 dev in0 mtu 48"]), FORWARDING, Draws())
    assert tiny.error(packet, "in0", 11, 0, 0, NOW) is None


def test_fragmentation_needed_names_the_mtu_and_is_never_limited() -> None:
    packet = parse(ip("10.0.0.2", "8.8.8.8", UDP, udp(1, 2, bytes(900))))
    box = own()
    answers = [box.error(packet, "in0", 3, 4, 1000, NOW) for _ in range(20)]
    assert all(answer is not None and answer[24:28] == bytes.fromhex("000003e8") for answer in answers)
    packet6 = parse(ip("fd00:1::2", "2600::1", UDP, udp(1, 2, bytes(1400))))
    answers = [box.error(packet6, "in0", 2, 0, 1300, NOW) for _ in range(20)]
    assert all(answer is not None and answer[44:48] == bytes.fromhex("00000514") for answer in answers)


def test_rate_limits_are_announced_before_they_change() -> None:
    touched: list[object] = []
    box = own(touched=touched)
    box.error(parse(ip("10.0.0.2", "8.8.8.8", UDP, udp(1, 2))), "in0", 11, 0, 0, NOW)
    assert touched and all(one is box.limits for one in touched)


def test_reject_in_output_answers_the_box_itself() -> None:
    packet = parse(ip("10.0.0.1", "8.8.8.8", UDP, udp(1, 2)))
    answer = own().reject(packet, "", LOCAL_OUT, "icmp-port-unreachable", NOW)
    assert answer is not None and answer[12:20] == bytes((10, 0, 0, 1)) * 2
    packet = parse(ip("fd00:1::1", "2600::1", UDP, udp(1, 2)))
    answer = own().reject(packet, "", LOCAL_OUT, "icmp6-port-unreachable", NOW)
    assert answer is not None and answer[8:24] == answer[24:40] == ip_address("fd00:1::1").packed


def test_reject_trusts_what_connection_tracking_found_of_the_checksum() -> None:
    packet = parse(ip("10.0.0.2", "8.8.8.8", UDP, udp(1, 2), seal=False)[:26] + b"\1\1")
    assert own().reject(packet, "in0", LOCAL_IN, "icmp-port-unreachable", NOW) is None
    packet.checksum = GOOD
    assert own().reject(packet, "in0", LOCAL_IN, "icmp-port-unreachable", NOW) is not None
    assert own().reject(packet, "in0", FORWARD, "icmp-port-unreachable", NOW) is not None
    packet.checksum = BAD
    assert own().reject(packet, "in0", LOCAL_IN, "icmp-port-unreachable", NOW) is None


def test_a_reset_speaks_for_the_one_who_was_spoken_to() -> None:
    # sent: seq 0, ack = seq + SYN, TOS 0, DF, id 0
    packet = parse(ip("10.0.0.2", "8.8.8.8", TCP, tcp(1234, 80, "S", seq=100)))
    answer = own().reject(packet, "in0", FORWARD, "tcp-reset", NOW)
    assert answer is not None and wrong_sums(answer) == []
    assert answer[:10].hex() + answer[12:36].hex() == (
        "45000028000040004006" + "080808080a000002" + "005004d2" + "00000000" + "00000065" + "50140000"
    )


def test_a_raw_packet_gets_what_it_left_open() -> None:
    box = own()
    bare = bytearray(ipv4("0.0.0.0", "8.8.8.8", UDP, udp(1, 2), identification=0))
    bare[2:4] = bare[10:12] = b"\0\0"
    done = box.finished(bytes(bare), bytes((198, 51, 100, 1)))
    assert done[12:16] == bytes((198, 51, 100, 1)) and done[2:6] == bytes.fromhex("001c1234")
    assert word_sum(done[:20]) == 0xFFFF
    kept = ipv4("10.9.9.9", "8.8.8.8", UDP, udp(1, 2), identification=7)
    assert box.finished(kept, bytes(4)) == kept
    unfragmented = box.finished(ipv4("10.9.9.9", "8.8.8.8", UDP, udp(1, 2), identification=0, fragment=0x4000), b"")
    assert unfragmented[4:6] == b"\0\0"
    six = ip("fd00:1::1", "2600::1", UDP, udp(1, 2))
    assert box.finished(six, b"") == six
