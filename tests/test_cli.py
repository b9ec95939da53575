"""The command line as a user meets it: what goes where, and one clear line when something is wrong."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from conntrack.cli.app import run
from conntrack.drivers.capture import open_capture

ROOT = Path(__file__).parents[1]
CAPTURE = ROOT / "captures" / "gateway-inside.pcap"
OUTSIDE = ROOT / "captures" / "gateway-outside.pcap"
NAT = ["--masquerade", "198.51.100.1", "--masquerade", "2001:db8:b::1"]
SCHEMA = json.loads((ROOT / "docs" / "records.schema.json").read_text())


def call(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "conntrack", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run(command, input=stdin, capture_output=True, env=env, check=False)


def test_the_summary_names_what_was_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(CAPTURE)]) == 0
    out = capsys.readouterr().out
    for text in ("494 packets", "ESTABLISHED", "related_error", "ethertype 0x0806", "acct and timestamp are on"):
        assert text in out


def test_the_view_is_chosen_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(CAPTURE), *NAT]) == 0
    assert "view: inside" in capsys.readouterr().err
    assert run(["replay", str(OUTSIDE), *NAT]) == 0
    assert "view: gateway" in capsys.readouterr().err


def test_what_is_asked_for_goes_alone_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(CAPTURE), *NAT, "--list", "--stats"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert all("src=" in line for line in lines[:-1])
    assert lines[-1].startswith("cpu=0   \tfound=")
    assert "494 packets" in printed.err


def test_events_read_like_conntrack_e(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(CAPTURE), "--events"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 60
    assert all(line[0] == "[" and line.split("\t")[1].lstrip()[0] == "[" for line in lines)


def test_records_follow_the_schema(tmp_path: Path) -> None:
    flows, packets = tmp_path / "flows", tmp_path / "packets"
    assert run(["replay", str(CAPTURE), *NAT, "--flows", str(flows), "--packets", str(packets)]) == 0
    for path, kind in ((flows, "conn"), (packets, "packet")):
        validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})
        records = [json.loads(line) for line in path.open()]
        assert records[0]["v"] == 1
        assert len(records) == (37 if kind == "conn" else 494)
        for record in records:
            record.pop("v", None)
            validator.validate(record)


@pytest.mark.parametrize("option", ["--flows", "--packets"])
def test_a_stream_to_standard_output_is_json_only(option: str) -> None:
    done = call("replay", str(CAPTURE), option, "-")
    assert done.returncode == 0
    assert all(json.loads(line) for line in done.stdout.splitlines())
    assert b"494 packets" in done.stderr


def test_a_capture_comes_from_standard_input_and_goes_to_standard_output(tmp_path: Path) -> None:
    done = call("replay", "-", "-w", "-", stdin=gzip.compress(CAPTURE.read_bytes()))
    assert done.returncode == 0
    assert done.stdout[:4] == CAPTURE.read_bytes()[:4]
    copy = tmp_path / "copy.pcap"
    copy.write_bytes(done.stdout)
    with open_capture(copy) as reader:
        assert sum(1 for _ in reader) == 494


def test_without_nat_the_written_capture_is_the_capture(tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    assert run(["replay", str(CAPTURE), "-w", str(out)]) == 0
    with open_capture(CAPTURE) as before, open_capture(out) as after:
        frames = sorted(frame.data for frame in before)
        assert sorted(frame.data for frame in after) == frames


def test_nobody_sees_a_progress_bar_without_a_terminal() -> None:
    assert b"\x1b" not in call("replay", str(CAPTURE)).stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["replay", "nowhere.pcap"], "nowhere.pcap"),
        (["replay", str(ROOT / "README.md")], "no capture"),
        (["replay", str(ROOT / "captures")], "captures"),
        (["replay", str(CAPTURE), "-w", "/nowhere/out.pcap"], "/nowhere/out.pcap"),
        (["replay", str(CAPTURE), "--flows", "/nowhere/flows"], "/nowhere/flows"),
    ],
)
def test_a_failure_is_one_clear_line_and_status_1(arguments: list[str], text: str) -> None:
    done = call(*arguments)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and text in lines[0] and lines[0].startswith("pyconntrack: "), lines


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["replay"], "apture"),
        (["replay", str(CAPTURE), "--sysctl", "nf_conntrack_nonsense=1"], "nf_conntrack_nonsense"),
        (["replay", str(CAPTURE), "--sysctl", "nf_conntrack_max"], "nf_conntrack_max"),
        (["replay", str(CAPTURE), "--sysctl", "nf_conntrack_max=-1"], "-1"),
        (["replay", str(CAPTURE), "--masquerade", "10.0.0.300"], "10.0.0.300"),
        (["replay", str(CAPTURE), "--snat", "198.51.100.1,colour=red"], "colour=red"),
        (["replay", str(CAPTURE), "--dnat", "10.0.0.1,ports=80"], "protocol"),
        (["replay", str(CAPTURE), "--redirect", "protocol=tcp"], "redirect"),
        (["replay", str(CAPTURE), "--netmap", "10.0.0.0/8"], "source or destination"),
        (["replay", str(CAPTURE), "--masquerade", "198.51.100.1", "--inside", "10.0.0.0/99"], "10.0.0.0/99"),
        (["replay", str(CAPTURE), "--snat", "random=1,198.51.100.1"], "random takes no value"),
        (["replay", str(CAPTURE), "--snat", "198.51.100.1,198.51.100.2"], "given twice"),
        (["replay", str(CAPTURE), "--snat", "source=10.0.0.0/8"], "missing"),
        (["replay", str(CAPTURE), "--dnat", "10.0.0.1,protocol=tcp,ports=80-90,base=x"], "is no number"),
        (["replay", str(CAPTURE), "--view", "above"], "above"),
        (["replay", str(CAPTURE), "--flows", "-", "--packets", "-"], "standard output"),
        (["diagram", "ipx"], "ipx"),
        (["replay", str(CAPTURE), "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_status_2_and_quotes_the_text(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert text in said, said


def test_a_cut_capture_keeps_what_was_read_and_says_so(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(CAPTURE.read_bytes()[:-7])
    done = call("replay", str(cut), "--packets", "-")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 493
    assert [line for line in done.stderr.decode().splitlines() if line.startswith("pyconntrack: ")]


def test_an_unknown_link_type_is_one_clear_line(tmp_path: Path) -> None:
    strange = tmp_path / "strange.pcap"
    data = bytearray(CAPTURE.read_bytes())
    data[20:24] = (147).to_bytes(4, "little")
    strange.write_bytes(bytes(data))
    done = call("replay", str(strange))
    assert done.returncode == 1
    assert "147" in done.stderr.decode() and len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_in_one_line() -> None:
    command = f"{sys.executable} -m conntrack replay {CAPTURE} --packets - | head -1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=env, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.decode().splitlines() == ["pyconntrack: standard output was closed"]


def test_an_empty_capture_is_no_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(CAPTURE.read_bytes()[:24])
    assert call("replay", str(empty), "--list").returncode == 0


def test_diagrams_are_drawn_from_the_grids(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("diagram", "udp").stdout.startswith(b"stateDiagram-v2")
    assert run(["diagram", "tcp"]) == 0
    tcp = capsys.readouterr().out
    assert tcp.startswith("stateDiagram-v2")
    assert "SYN_RECV --> ESTABLISHED: > ACK" in tcp
    for protocol in ("sctp", "udp", "udplite", "icmp", "icmpv6", "gre", "generic"):
        assert run(["diagram", protocol]) == 0
        assert capsys.readouterr().out.startswith("stateDiagram-v2")


def test_the_version_is_printed() -> None:
    assert call("--version").stdout.startswith(b"conntrack-engine ")


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--snat", "198.51.100.20-198.51.100.21,protocol=tcp,ports=2000-2999"], "dst=198.51.100.2"),
        (["--snat", "2001:db8:b::20,random"], "dst=2001:db8:b::20"),
        (["--dnat", "192.0.2.8,protocol=tcp,dport=80,ports=8080-8089,base=80"], "sport=8080"),
        (["--redirect", "8080,protocol=tcp,dport=80"], "sport=8080"),
        (["--redirect", "8080,protocol=tcp,dport=80,address=192.0.2.1"], "src=192.0.2.1"),
        (["--netmap", "192.0.2.0/24,source=10.0.0.0/24"], "dst=192.0.2.2"),
        (["--netmap", "192.0.2.0/24,destination=203.0.113.0/24"], "src=192.0.2.80"),
    ],
)
def test_every_kind_of_rule_translates(
    options: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(CAPTURE), *options, "--list"]) == 0
    # the reply tuple is the second half of a line
    replies = ["src=" + line.split(" src=")[2] for line in capsys.readouterr().out.splitlines()]
    assert any(address in reply for reply in replies)


def test_checksums_can_be_left_unverified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.pcap"
    data = bytearray(CAPTURE.read_bytes())
    with open_capture(CAPTURE) as reader:
        at = 24
        for frame in reader:
            at += 16
            if frame.data[12:14] == b"\x08\x00" and frame.data[23] == 17:
                data[at + 14 + 20 + 6] ^= 0x55  # the UDP checksum's high octet
            at += len(frame.data)
    broken.write_bytes(bytes(data))
    assert run(["replay", str(broken)]) == 0
    assert "udp_checksum" in capsys.readouterr().out
    assert run(["replay", str(broken), "--no-checksum"]) == 0
    assert "udp_checksum" not in capsys.readouterr().out


def test_a_progress_bar_is_drawn_for_a_long_capture_on_a_terminal(tmp_path: Path) -> None:
    long = tmp_path / "long.pcap"
    data = CAPTURE.read_bytes()
    long.write_bytes(data + data[24:] * 10)
    code = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    command = [sys.executable, "-c", code, sys.executable, "-m", "conntrack", "replay", str(long)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm"}
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    assert done.returncode == 0
    assert b"octets" in done.stdout
    assert b"5434 packets" in done.stdout
