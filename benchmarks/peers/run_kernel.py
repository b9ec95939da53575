"""The running kernel, packet by packet: written to one TUN device, read from the other, masqueraded in between.

    python run_kernel.py CAPTURE [--any-table] [--wait]

                        ┌─ a network namespace of its own ─┐
    frames from inside ─► in0 ── forward, masquerade ── out0 ─► read
                  read ◄─ in0 ── forward, undone ────── out0 ◄─ frames from outside

One rule: only the loop counts, one write() and one read() a packet, in Python; loading the capture, making the
namespace and its rules do not.  A write runs the whole way of the packet before it returns.  Most of the time is
those two system calls: this is what a Python program pays that lets the kernel do it, not how fast the kernel is.

`nf_conntrack_buckets` and `nf_conntrack_max` belong to the whole machine.  The kernel tests set them to their
smallest for a while; their lock is taken here too, so that the usual values stand while this runs.  Where the
tests hold it, this fails (with --wait: waits); --any-table takes what there is, for a try.

Needs root, iproute2 and nftables.  Prints JSON: `packets` written, `forwarded`: read on the other side, `loop`
(CPU seconds), `wall`, `live` (nf_conntrack_count at the end), `max`, `buckets`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests" / "kernel")]

import machine  # noqa: E402
import traffic  # noqa: E402
from namespace import new_namespace, open_tun, run, write_sysctl  # noqa: E402

_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.in0.rp_filter": 0,
    "net.ipv4.conf.out0.rp_filter": 0,
    # silence: no link-local address, so no router solicitations
    "net.ipv6.conf.in0.addr_gen_mode": 1,
    "net.ipv6.conf.out0.addr_gen_mode": 1,
}
_SETUP = """
link set lo up
link set in0 mtu 1500 up
link set out0 mtu 1500 up
address add 10.255.255.254/8 dev in0
address add 203.0.113.5/32 dev out0
route add 0.0.0.0/0 dev out0
address add fd00::ffff/8 dev in0 nodad
address add 2001:db8:5::5/128 dev out0 nodad
route add ::/0 dev out0
"""
_RULES = "".join(
    f"""
table {family} nat {{
    chain post {{
        type nat hook postrouting priority srcnat
        oifname "out0" masquerade
    }}
}}
"""
    for family in ("ip", "ip6")
)


def cpu() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def usual_table(wait: bool) -> Iterator[None]:
    """Keep the kernel tests from shrinking the machine's table; BlockingIOError where they are at it."""
    with open(machine._USERS, "w") as users:
        fcntl.flock(users, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def loop(steps: list[tuple[int, int, bytes]]) -> int:
    """Write each packet, read what came of it; how many came.  A fragment waits for the last of its datagram."""
    write, read, forwarded = os.write, os.read, 0
    for source, target, packet in steps:
        write(source, packet)
        try:
            read(target, 65536)
        except BlockingIOError:
            continue
        forwarded += 1
    return forwarded


def rest(descriptor: int) -> int:
    """What is still to be read: the other fragments of datagrams put together."""
    number = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(descriptor, 65536)
            number += 1
    return number


def _number(name: str) -> int:
    return int(Path("/proc/sys/net/netfilter", name).read_text())


def main() -> None:
    """Set up, replay, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--any-table", action="store_true")
    parser.add_argument("--wait", action="store_true")
    given = parser.parse_args()
    table = contextlib.nullcontext() if given.any_table else usual_table(given.wait)
    with table, new_namespace() as namespace:
        inner, outer = open_tun("in0"), open_tun("out0")
        for name, value in _SYSCTLS.items():
            write_sysctl(name, value)
        run("ip", "-batch", "-", text=_SETUP)
        run("nft", "-f", "-", text=_RULES)
        time.sleep(0.2)  # IPv6 addresses become local in a worker
        ways = {traffic._INSIDE_MAC: (inner, outer), traffic._OUTSIDE_MAC: (outer, inner)}
        steps = [(*ways[frame[6:12]], _packet(frame)) for _, frame, _ in traffic.read(given.source)]
        rest(inner), rest(outer)
        begun, started = cpu(), time.perf_counter()
        forwarded = loop(steps)
        took, wall = cpu() - begun, time.perf_counter() - started
        forwarded += rest(inner) + rest(outer)
        said = {
            "packets": len(steps),
            "forwarded": forwarded,
            "loop": took,
            "wall": wall,
            "live": _number("nf_conntrack_count"),
            "max": _number("nf_conntrack_max"),
            "buckets": _number("nf_conntrack_buckets"),
        }
        os.close(namespace)
    print(json.dumps(said))


def _packet(frame: bytes) -> bytes:
    """The IP packet without Ethernet and its padding."""
    if frame[14] >> 4 == 4:
        return frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
    return frame[14 : 54 + int.from_bytes(frame[18:20], "big")]


if __name__ == "__main__":
    try:
        main()
    except BlockingIOError:
        sys.exit("the kernel tests are using the machine's connection table")
    except OSError as error:
        sys.exit(f"no namespace with TUN devices and nftables: {error}")
