"""The shipped capture once more, whole: a Host with the gateway's rules is the gateway.

What arrived at either of the gateway's interfaces goes in, in the order of time; what comes out of either must be
what the gateway sent there: the same packets, octet by octet, in the same order, its own ICMP errors included.
ARP, neighbour discovery and multicast listener reports belong to the links and not to the box.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from test_gateway_capture import KernelChoices, kernel_listing

from conntrack import show
from conntrack.drivers.capture import open_capture
from conntrack.netfilter import Host
from conntrack.wire import link

CAPTURES = Path(__file__).parents[2] / "captures"
SIDES = {"inside": bytes.fromhex("02000000002a"), "outside": bytes.fromhex("02000000003a")}
RULES = "*nat\n-A POSTROUTING -o outside -j MASQUERADE\nCOMMIT\n"

Frame = tuple[int, str, bytes, bytes]  # time, side, source hardware address, IP packet


def frames() -> list[Frame]:
    """Every IP packet of both sides, in the order of time, but for what belongs to one link."""
    found: list[Frame] = []
    for side in SIDES:
        with open_capture(CAPTURES / f"gateway-{side}.pcap") as reader:
            for frame in reader:
                at, ethertype = link.locate(reader.linktype(frame.interface), frame.data)
                packet = frame.data[at:]
                if ethertype == 0x0800:
                    packet = packet[: int.from_bytes(packet[2:4], "big")]
                elif ethertype == 0x86DD:
                    packet = packet[: int.from_bytes(packet[4:6], "big") + 40]
                    if packet[6] == 0 or (packet[6] == 58 and packet[40] in (*range(130, 138), 143)):
                        continue
                else:
                    continue
                found.append((frame.time, side, frame.data[6:12], packet))
    return sorted(found, key=lambda frame: frame[0])


class GatewayChoices(KernelChoices):
    """Draws what the gateway's kernel drew; `ids` are those of its own packets, in order."""

    def __init__(self, ids: list[int], labels: list[int]) -> None:
        super().__init__()
        self.ids = ids
        self.labels = labels

    def ip_id(self, key: bytes) -> int:
        return self.ids.pop(0)

    def flow_label(self, key: bytes) -> int:
        return self.labels.pop(0)

    def fragment_id(self, key: bytes) -> int:
        raise AssertionError("no IPv6 fragment in the capture")


@pytest.fixture(scope="module")
def sent() -> tuple[Host, dict[str, list[bytes]], dict[str, list[bytes]]]:
    everything = frames()
    own = [packet for _, side, source, packet in everything if source == SIDES[side] and is_own(packet)]
    ids = [int.from_bytes(packet[4:6], "big") for packet in own if packet[0] >> 4 == 4]
    labels = [int.from_bytes(packet[1:4], "big") & 0xFFFFF for packet in own if packet[0] >> 4 == 6]
    host = Host(
        {"inside": ["10.0.0.1/24", "fd00:a::1/64"], "outside": ["198.51.100.1/24", "2001:db8:b::1/64"]},
        ["default via 198.51.100.2", "default via 2001:db8:b::2"],
        rules=RULES,
        rules6=RULES,
        sysctl={"nf_conntrack_acct": 1, "net.ipv4.icmp_ratelimit": 0, "net.ipv6.icmp.ratelimit": 0},
        choices=GatewayChoices(ids, labels),
    )
    theirs: dict[str, list[bytes]] = {side: [] for side in SIDES}
    ours: dict[str, list[bytes]] = {side: [] for side in SIDES}
    for time, side, source, packet in everything:
        if source == SIDES[side]:
            theirs[side].append(packet)
        else:
            for device, octets in host.receive(packet, side, time).out:
                ours[device].append(octets)
    assert len(own) == 2 and not ids
    return host, theirs, ours


def is_own(packet: bytes) -> bool:
    source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
    return str(ip_address(source)) in ("10.0.0.1", "fd00:a::1")


@pytest.mark.parametrize("side", SIDES)
def test_what_leaves_on_each_side_is_what_the_gateway_sent(
    sent: tuple[Host, dict[str, list[bytes]], dict[str, list[bytes]]], side: str
) -> None:
    _, theirs, ours = sent
    assert len(theirs[side]) > 150
    for number, (their, our) in enumerate(zip(theirs[side], ours[side], strict=False)):
        assert their.hex() == our.hex(), f"packet {number} of {side}"
    assert len(theirs[side]) == len(ours[side])


def test_the_listing_is_the_gateways(sent: tuple[Host, dict[str, list[bytes]], dict[str, list[bytes]]]) -> None:
    host = sent[0]
    at = 1795341728_646509000  # when it was taken
    conns = [conn for conn in host.conns() if conn.deadline > at]
    ours = sorted(show.listing_line(conn.to_dict(at), extended=True, now=at) for conn in conns)
    text = (CAPTURES / "gateway-conntrack.txt").read_text()
    theirs = sorted(line for line in text.splitlines() if line.startswith("ipv"))
    assert len(theirs) == len(kernel_listing()) == len(ours)
    for their, our in zip(theirs, ours, strict=True):
        their_words, our_words = their.split(), our.split()
        # seconds left: the tap stamps a packet a little before or after the kernel's tick
        assert abs(int(their_words.pop(4)) - int(our_words.pop(4))) <= 1
        assert their_words == our_words
