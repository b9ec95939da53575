"""The shipped capture: what a Linux gateway did, packet by packet, is what the engine does.

The inside capture goes in with the gateway's rules; what comes out must be the outside capture, all octets of
every forwarded packet but TTL (hop limit) and IPv4 header checksum, which routing changes.  What the kernel drew
at random, the new ports and identifiers of five connections, is read from its own listing and given to the engine
as its choices.  The gateway's own packets and those it answered itself (README of the captures) are named below.
"""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from conntrack import Conn, Engine, Masquerade
from conntrack.choices import Choices
from conntrack.drivers.capture import create_capture, open_capture
from conntrack.drivers.replay import Replay, guess_view
from conntrack.drivers.vantage import INSIDE, Vantage
from conntrack.tuples import halves
from conntrack.wire import link

HERE = Path(__file__).parents[1] / "captures"
PUBLIC = ("198.51.100.1", "2001:db8:b::1")
GATEWAY_INSIDE = ("10.0.0.1", "fd00:a::1")
LINE = re.compile(
    r"(?P<proto>\d+) \d+ (?P<state>[A-Z_]+ )?src=(?P<src>\S+) dst=(?P<dst>\S+) "
    r"(?:sport=(?P<sport>\d+) dport=(?P<dport>\d+)|type=(?P<type>\d+) code=(?P<code>\d+) id=(?P<id>\d+)) "
    r"packets=(?P<op>\d+) bytes=(?P<ob>\d+) (?P<unreplied>\[UNREPLIED\] )?"
    r"src=(?P<rsrc>\S+) dst=(?P<rdst>\S+) "
    r"(?:sport=(?P<rsport>\d+) dport=(?P<rdport>\d+)|type=\d+ code=\d+ id=(?P<rid>\d+)) "
    r"packets=(?P<rp>\d+) bytes=(?P<rb>\d+) (?P<assured>\[ASSURED\] )?"
)


def kernel_listing() -> list[dict[str, str]]:
    rows = []
    for line in (HERE / "gateway-conntrack.txt").read_text().splitlines():
        if line.startswith("ipv"):
            found = LINE.search(line)
            assert found is not None, line
            rows.append(found.groupdict())
    return rows


class KernelChoices(Choices):
    """Draws what the kernel drew."""

    def __init__(self) -> None:
        super().__init__(0)
        self.drawn: dict[tuple[int, bytes, int, int], int] = {}
        for row in kernel_listing():
            proto = int(row["proto"])
            if row["sport"] is not None:
                old, new, other = int(row["sport"]), int(row["rdport"]), int(row["dport"])
                offset = new - 1024
            else:
                old, new, other = int(row["id"]), int(row["rid"]), int(row["type"]) << 8 | int(row["code"])
                offset = new
            if new != old:
                self.drawn[proto, ip_address(row["dst"]).packed, old, other] = offset

    def port_offset(self, key: bytes, proto: int) -> int:
        _, dst, src_u, dst_u = halves(key)
        return self.drawn[proto, dst, int.from_bytes(src_u, "big"), int.from_bytes(dst_u, "big")]


def masked(packet: bytes) -> bytes:
    """The packet without what routing changes."""
    if packet[0] >> 4 == 4:
        return packet[:8] + b"\0" + packet[9:10] + b"\0\0" + packet[12:]
    return packet[:7] + b"\0" + packet[8:]


def ends(packet: bytes) -> tuple[str, str]:
    if packet[0] >> 4 == 4:
        return str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))
    return str(ip_address(packet[8:24])), str(ip_address(packet[24:40]))


def ip_packets(path: Path) -> list[bytes]:
    out = []
    with open_capture(path) as reader:
        for frame in reader:
            at, ethertype = link.locate(reader.linktype(frame.interface), frame.data)
            if ethertype in (0x0800, 0x86DD):
                data = frame.data[at:]
                field = data[2:4] if ethertype == 0x0800 else data[4:6]
                length = int.from_bytes(field, "big") + (0 if ethertype == 0x0800 else 40)
                out.append(data[:length])
    return out


def forwarded(packets: list[bytes], *, inside: bool) -> list[bytes]:
    """Without the link's own traffic, the gateway's own packets, and what the gateway answered itself."""
    out = []
    for packet in packets:
        src, dst = ends(packet)
        hops = packet[8] if packet[0] >> 4 == 4 else packet[7]
        own_link = src.startswith("fe80") or dst.startswith(("ff0", "fe80"))
        neighbours = packet[0] >> 4 == 6 and packet[6] == 58 and packet[40] in range(133, 138)
        if own_link or neighbours or src in GATEWAY_INSIDE or dst in GATEWAY_INSIDE or (inside and hops == 1):
            continue
        out.append(masked(packet))
    return out


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, list[Conn], Vantage, Path]:
    out = tmp_path_factory.mktemp("gateway") / "out.pcap"
    rules = [
        Masquerade("198.51.100.1", source="10.0.0.0/24", destination="!10.0.0.0/24"),
        Masquerade("2001:db8:b::1", source="fd00:a::/64", destination="!fd00:a::/64"),
    ]
    engine = Engine(nat=rules, sysctl={"nf_conntrack_acct": 1}, choices=KernelChoices())
    ended: list[Conn] = []
    engine.on_end = ended.append
    vantage = Vantage(engine, INSIDE, ["10.0.0.0/24", "fd00:a::/64"])
    with open_capture(HERE / "gateway-inside.pcap") as reader, create_capture(out, like=reader) as writer:
        for step in Replay(reader, engine, vantage, writer).steps():
            assert step.outcome is None or step.outcome.ctinfo != "INVALID", step
            if step.number % 50 == 0:
                engine.check()
    return engine, ended, vantage, out


def test_the_view_of_the_inside_capture_is_found(tmp_path: Path) -> None:
    public = [ip_address(text).packed for text in PUBLIC]
    assert guess_view(str(HERE / "gateway-inside.pcap"), public) == "inside"
    assert guess_view(str(HERE / "gateway-outside.pcap"), public) == "gateway"


def test_every_forwarded_packet_is_the_one_the_kernel_sent(
    replayed: tuple[Engine, list[Conn], Vantage, Path],
) -> None:
    ours = Counter(forwarded(ip_packets(replayed[3]), inside=True))
    kernel = Counter(forwarded(ip_packets(HERE / "gateway-outside.pcap"), inside=False))
    assert sum(kernel.values()) > 400
    assert not kernel - ours, [packet.hex() for packet in (kernel - ours)][:3]
    # the two traceroute packets that ended at the gateway never came out of it, and are left out above
    assert not ours - kernel, [packet.hex() for packet in (ours - kernel)][:3]


def test_answers_come_out_of_the_pipeline_as_the_client_saw_them(
    replayed: tuple[Engine, list[Conn], Vantage, Path],
) -> None:
    seen = replayed[2].seen
    assert seen.readdressed > 200
    assert seen.differing == 0


def test_the_table_is_the_kernels(replayed: tuple[Engine, list[Conn], Vantage, Path]) -> None:
    engine = replayed[0]
    ours = {}
    for conn in engine.conns():
        record = conn.to_dict()
        orig, reply = record["orig"], record["reply"]
        first, second = orig.get("sport", orig.get("id")), orig.get("dport", orig.get("type"))
        key = (conn.proto, orig["src"], orig["dst"], first, second)
        ours[key] = (
            reply["src"],
            reply["dst"],
            reply.get("sport", reply.get("id")),
            reply.get("dport", reply.get("id")),
            record.get("state", ""),
            *record["packets"],
            *record["bytes"],
            "SEEN_REPLY" in record["status"],
            "ASSURED" in record["status"],
        )
    rows = kernel_listing()
    assert len(rows) > 25
    for row in rows:
        proto = int(row["proto"])
        first, second = (row["sport"], row["dport"]) if row["sport"] else (row["id"], row["type"])
        key = (proto, row["src"], row["dst"], int(first), int(second))
        reply = (row["rsport"], row["rdport"]) if row["rsport"] else (row["rid"], row["rid"])
        kernel = (
            row["rsrc"],
            row["rdst"],
            int(reply[0]),
            int(reply[1]),
            (row["state"] or "").strip(),
            *(int(row[name]) for name in ("op", "rp", "ob", "rb")),
            row["unreplied"] is None,
            row["assured"] is not None,
        )
        assert ours.pop(key) == kernel, key
    # what is left: the traceroute probes that ended at the gateway left no entry in the kernel
    assert all(key[0] == 17 and 33434 <= key[4] <= 33534 for key in ours), ours
    assert len(ours) == 2


def test_connections_of_both_directions_are_established_and_translated(
    replayed: tuple[Engine, list[Conn], Vantage, Path],
) -> None:
    engine, ended, _, _ = replayed
    conns = ended + list(engine.conns())
    assert len(conns) == 37
    for conn in conns:
        assert "SRC_NAT" in conn.to_dict()["status"], conn
        assert conn.answer.dst in PUBLIC
    assert sum(conn.proto == 6 and "SEEN_REPLY" in conn.to_dict()["status"] for conn in conns) >= 10
