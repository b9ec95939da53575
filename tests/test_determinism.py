"""The same packets, seed and settings give the same bytes, events and table, whatever the interpreter does.

Three hash seeds and `python -O` replay the shipped capture, each in a process of its own; every output must be
identical.  Another seed must draw other ports, or this test could not fail.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAT = ["--masquerade", "198.51.100.1", "--masquerade", "2001:db8:b::1"]


def outputs(tmp_path: Path, name: str, hash_seed: str, *, optimise: bool = False, seed: int = 3) -> dict[str, str]:
    """SHA-256 of everything a replay writes."""
    files = {kind: tmp_path / f"{name}-{kind}" for kind in ("out.pcap", "flows", "packets")}
    command = [sys.executable, *(["-O"] if optimise else []), "-m", "conntrack", "replay"]
    command += [str(ROOT / "captures" / "gateway-inside.pcap"), *NAT, "--seed", str(seed), "--list", "--events"]
    command += ["--stats", "-w", str(files["out.pcap"]), "--flows", str(files["flows"])]
    command += ["--packets", str(files["packets"])]
    # few buckets and a small table, so that evictions and their victims are part of what must not change
    command += ["--sysctl", "nf_conntrack_buckets=512", "--sysctl", "nf_conntrack_max=20"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=True)
    digests = {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in files.items()}
    return {**digests, "stdout": hashlib.sha256(done.stdout).hexdigest()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return outputs(tmp_path_factory.mktemp("reference"), "reference", "0")


@pytest.mark.parametrize("hash_seed", ["1", "12345"])
def test_hash_seeds_change_nothing(reference: dict[str, str], hash_seed: str, tmp_path: Path) -> None:
    assert outputs(tmp_path, "other", hash_seed) == reference


def test_python_without_assertions_changes_nothing(reference: dict[str, str], tmp_path: Path) -> None:
    assert outputs(tmp_path, "optimised", "7", optimise=True) == reference


def test_another_seed_draws_other_ports(reference: dict[str, str], tmp_path: Path) -> None:
    assert outputs(tmp_path, "seed", "0", seed=4)["out.pcap"] != reference["out.pcap"]
