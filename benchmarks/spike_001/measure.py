"""Compares the storages: measure.py CAPTURES BUILD, both directories; captures are generated when missing.

A storage is set beside the loop under the name `storage`, once as it is and once compiled by mypyc, and takes
its turn in a process of its own: a, b, c, d, a, b, … `d` is c with a bytearray a connection.
Packets per CPU second are packets / (user + sys of the whole process); x is the speed relative to a; memory
is taken at the largest flow count.
"""
import hashlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import generate

HERE = Path(__file__).parent
PACKETS, FLOWS, TURNS = 300_000, (10, 30_000, 100_000), 3
IN_PLACE = {"conn.memory = TCP.pack(": "TCP.pack_into(conn.memory, 0, ", "TCP.pack(0": "bytearray(TCP.pack(0",
            "conn.memory = UDP.pack(": "UDP.pack_into(conn.memory, 0, ", "UDP.pack(0": "bytearray(UDP.pack(0",
            "liberal, 0, 0))": "liberal, 0, 0)))", "SECOND, 0, 0, 0, 0))": "SECOND, 0, 0, 0, 0)))",
            "memory: bytes": "memory: bytearray"}


def build(place: Path, name: str, compiled: bool) -> Path:
    home = place / (name + "_compiled" * compiled)
    if not home.exists():
        home.mkdir(parents=True)
        text = (HERE / f"storage_{'c' if name == 'd' else name}.py").read_text()
        for old, new in IN_PLACE.items() if name == "d" else []:
            text = text.replace(old, new)
        (home / "storage.py").write_text(text)
        for file in ("words.py", "loop.py"):
            shutil.copy(HERE / file, home)
        if compiled:
            command = [sys.executable, "-m", "mypyc", "words.py", "storage.py", "loop.py"]
            subprocess.run(command, cwd=home, check=True, stdout=subprocess.DEVNULL)
    return home


def run(home: Path, source: Path, trace: str = "no") -> dict[str, object]:
    command = [sys.executable, "-c", "import loop; loop.main()", str(source), str(home / "out.pcap"), trace]
    found = json.loads(subprocess.run(command, cwd=home, check=True, capture_output=True).stdout)
    with (home / "out.pcap").open("rb") as file:
        found["same"] = hashlib.file_digest(file, "sha256").hexdigest()[:12], found["digest"]
    return found


def main(captures: Path, place: Path) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {time.ctime()}")
    for compiled in (False, True):
        homes = {name: build(place, name, compiled) for name in "abcd"}
        print("mypyc" if compiled else "interpreted")
        for flows in FLOWS:
            source = captures / f"in{flows}.pcap"
            if not source.exists():
                generate.main(str(source), flows, PACKETS)
            turns = [{name: run(home, source) for name, home in homes.items()} for _ in range(TURNS)]
            same = {found["same"] for turn in turns for found in turn.values()}
            print(f"  {flows:,} flows, {turns[0]['a']['conns']:,} connections; output and table {same}")
            for name, home in homes.items():
                cpu = statistics.median(turn[name]["cpu"] for turn in turns)
                base = statistics.median(turn["a"]["cpu"] for turn in turns)
                line = f"    {name}  {PACKETS / cpu:9,.0f} packets/CPU s  {cpu / PACKETS * 1e9:6,.0f} ns"
                every = " ".join(f"{turn[name]['cpu']:.2f}" for turn in turns)
                line += f"  x{base / cpu:.2f}  turns {every}"
                if flows == FLOWS[-1]:
                    traced = run(home, source, "trace")
                    rss = statistics.median(turn[name]["rss"] for turn in turns) / traced["conns"]
                    line += f"  {rss:,.0f} B/conn RSS  {traced['traced'] / traced['conns']:,.0f} traced"
                print(line, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
