"""Real captures against other tools' truth (see the captures' README).

For each capture and tuple: the counters of all connections that ever lived, plus the packets that `--packets`
shows as not counted, must be what Wireshark saw.  What differs by nature is said here, rule by rule:

    * of a fragmented datagram only the completing frame counts, so HELD packets are left out
    * Wireshark keeps ICMP errors in a list of their own; here they are uncounted packets
    * protocols without ports are compared by addresses (Wireshark names the protocols, Linux numbers them)
    * Wireshark lets SDP announce RTP streams and counts every packet from the announced port to them, whatever
      its destination; so where there is RTP, UDP is compared without the destination address
    * VXLAN around ARP is in none of the truth's lists
    * what MPLS carries is not IP to a Linux router, while Wireshark enters it
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conntrack.cli.app import run

SHARED = Path(__file__).parents[2] / "shared" / "captures"
CAPTURES = sorted(SHARED.glob("*.pcap*")) if SHARED.is_dir() else []
OWN = sorted((Path(__file__).parents[1] / "captures").glob("*.pcap"))
PORTS = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}
Key = tuple[str, str, str, int | None, int | None]

needs_shared = pytest.mark.skipif(not CAPTURES, reason="the shared captures are not here")
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def replay(capture: Path, tmp_path: Path, *options: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(flow records, packet records) of `pyconntrack replay`."""
    flows, packets = tmp_path / "flows", tmp_path / "packets"
    status = run(["replay", str(capture), "--flows", str(flows), "--packets", str(packets), *options])
    assert status == 0
    return [json.loads(line) for line in flows.open()], [json.loads(line) for line in packets.open()]


def directed(proto: int, ends: dict[str, Any]) -> Key:
    if proto in PORTS:
        return PORTS[proto], ends["src"], ends["dst"], ends["sport"], ends["dport"]
    return "other", ends["src"], ends["dst"], None, None


def ours(flows: list[dict[str, Any]], packets: list[dict[str, Any]]) -> tuple[Counter[Key], Counter[Key]]:
    """Packets and IP octets per directed tuple."""
    count: Counter[Key] = Counter()
    octets: Counter[Key] = Counter()
    for flow in flows:
        for place, side in enumerate(("orig", "reply")):
            key = directed(flow["proto"], flow[side])
            count[key] += flow["packets"][place]
            octets[key] += flow["bytes"][place]
    for packet in packets:
        if not packet["counted"] and packet["verdict"] != "HELD" and "tuple" in packet:
            key = directed(packet["proto"], packet["tuple"])
            count[key] += 1
            octets[key] += packet["length"]
    return count, octets


def theirs(truth: dict[str, Any]) -> tuple[Counter[Key], Counter[Key]]:
    count: Counter[Key] = Counter()
    octets: Counter[Key] = Counter()
    outer = truth["outer_flows"]
    rows = outer + [row for row in truth["flows"] if not outer or not row.get("tunnel")]
    for row in rows:
        proto = row["proto"]
        ends = (row["src"], row["dst"], row["sport"], row["dport"])
        back = (row["dst"], row["src"], row["dport"], row["sport"])
        for side, (src, dst, sport, dport) in (("orig", ends), ("resp", back)):
            key = (proto, src, dst, sport, dport) if proto in PORTS.values() else ("other", src, dst, None, None)
            count[key] += row[side]["packets"]
            octets[key] += row[side]["ip_bytes"]
    if not truth["outer_flows"]:
        for error in truth["icmp_errors"]:
            count["other", error["src"], error["dst"], None, None] += 1
    return count, octets


def in_mpls(truth: dict[str, Any]) -> bool:
    return "mpls" in truth["has"]


@needs_shared
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_counters_and_uncounted_packets_together_are_what_wireshark_saw(capture: Path, tmp_path: Path) -> None:
    truth = json.loads((SHARED / "truth" / f"{capture.name}.json").read_text())
    flows, packets = replay(capture, tmp_path)
    assert len(packets) == truth["packets"]
    count, octets = ours(flows, packets)
    expected, expected_octets = theirs(truth)
    announced = "rtp" in truth["protocols"]

    def plain(counts: Counter[Key]) -> Counter[Key]:
        out: Counter[Key] = Counter()
        for key, number in counts.items():
            proto, src, dst, sport, dport = key
            if "vxlan" not in truth["protocols"] or key in expected:
                out[proto, src, "*" if announced and proto == "udp" else dst, sport, dport] += number
        return out

    octets, expected_octets = plain(octets), plain(expected_octets)
    count, expected = plain(count), plain(expected)
    errors = {("other", error["src"], error["dst"], None, None) for error in truth["icmp_errors"]}
    if in_mpls(truth):
        # only what is outside MPLS is IP here: nothing more than Wireshark saw
        assert all(count[key] <= expected[key] for key in count)
        not_ip = sum("ethertype" in packet.get("detail", {}) for packet in packets)
        assert sum(expected.values()) - sum(count.values()) == not_ip
        return
    assert {key: n for key, n in count.items() if n} == {key: n for key, n in expected.items() if n}
    for key in expected:
        if key not in errors:
            assert octets[key] == expected_octets[key], key


@needs_shared
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.name)
def test_masquerading_makes_no_packet_invalid(capture: Path, tmp_path: Path) -> None:
    _, plain = replay(capture, tmp_path)
    options = ["--masquerade", "203.0.113.77", "--masquerade", "2001:db8:77::1"]
    for inside in ([], ["--inside", "0.0.0.0/0", "--inside", "::/0"]):
        _, translated = replay(capture, tmp_path, *options, *inside)
        for before, after in zip(plain, translated, strict=True):
            assert after.get("ctinfo") != "INVALID" or before.get("ctinfo") == "INVALID", after


def bad_checksums(capture: Path) -> Counter[str]:
    """Packets with a wrong IP, TCP or UDP checksum as tshark sees them, by kind."""
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    fields = ["ip", "tcp", "udp", "icmp", "icmpv6", "sctp"]
    command = ["tshark", "-r", str(capture), *options, "-T", "fields"]
    for name in fields:
        command += ["-e", f"{name}.checksum.status"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bad: Counter[str] = Counter()
    for line in text.splitlines():
        for name, statuses in zip(fields, line.split("\t"), strict=False):
            bad[name] += statuses.split(",")[0] in ("0", "Bad")
    return bad


@needs_tshark
@pytest.mark.parametrize("capture", CAPTURES + OWN, ids=lambda path: path.name)
def test_checksums_are_good_after_translation_wherever_they_were(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    options = ["--masquerade", "203.0.113.77", "--masquerade", "2001:db8:77::1", "-w", str(out)]
    replay(capture, tmp_path, *options)
    before, after = bad_checksums(capture), bad_checksums(out)
    assert all(after[name] <= before[name] for name in after), (before, after)
