#!/usr/bin/env python3
"""Records a Linux gateway from both sides: the capture that this project ships.

One rule: everything in the capture was sent by a real program through a real kernel. Nothing is
crafted, so what the gateway did to a packet is on the other tap, and what it thought of the flow is
in its own listing.

    client-a 10.0.0.2, fd00:a::2 ─┐
                                  ├─ switch ─ (inside) gateway (outside) ─ router ═ wan ═ server
    client-b 10.0.0.3, fd00:a::3 ─┘    10.0.0.1, fd00:a::1  │                │      203.0.113.80, .53
                                        198.51.100.1, 2001:db8:b::1     198.51.100.2   2001:db8:c::80, ::53
                                                                       2001:db8:b::2

Each name is a network namespace, each `─` a veth pair with every offload off, so that the taps see
whole packets with finished checksums. `═` is a pair of TUN devices with this script in the middle:
it delays, reorders and loses packets (a kernel may have no netem). Losses therefore happen beyond the
outside tap or, by a rule in the clients' INPUT chain, before the client but after the inside tap;
between the taps there is only the gateway.

The gateway has two rules, MASQUERADE for IPv4 and for IPv6, and counts packets (nf_conntrack_acct).

Needs root, iproute2, iptables, tcpdump, conntrack, ethtool, ping, traceroute, curl and tshark. Makes
only namespaces called ctcap-*, and removes them. Takes about 20 seconds:

    sudo python3 captures/make.py
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import heapq
import http.server
import os
import random
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PREFIX = "ctcap-"
NAMESPACES = ("client-a", "client-b", "switch", "gateway", "router", "server")
TAPS = ("inside", "outside")

WEB4, DNS4 = "203.0.113.80", "203.0.113.53"
WEB6, DNS6 = "2001:db8:c::80", "2001:db8:c::53"
CLIENTS4 = {"client-a": "10.0.0.2", "client-b": "10.0.0.3"}
CLIENTS6 = {"client-a": "fd00:a::2", "client-b": "fd00:a::3"}
OFFLOADS = "tx rx sg tso gso gro tx-checksum-ip-generic tx-udp-segmentation tx-scatter-gather-fraglist"

WAN_SEED, WAN_MTU = 80, 1400  # below the 1500 elsewhere: big packets with DF earn a frag-needed
WAN_DELAY, WAN_LATE, WAN_LOSS = 0.008, 0.04, 0.025  # one way, seconds; share late by 1/2; share lost

# ── namespaces ──────────────────────────────────────────────────────────────────────────────────────

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Move this thread into a namespace; sockets and devices opened meanwhile belong to it for good."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{PREFIX}{name}", os.O_RDONLY)
    try:
        if _LIBC.setns(there, 0):
            raise OSError(ctypes.get_errno(), f"setns {name}")
        yield
        _LIBC.setns(home, 0)
    finally:
        os.close(there)
        os.close(home)


def run(command: str, check: bool = True) -> str:
    done = subprocess.run(shlex.split(command), text=True, capture_output=True)
    if check and done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def at(name: str, commands: str, check: bool = True) -> str:
    """Run commands, one a line, in a namespace."""
    lines = [line.strip() for line in commands.splitlines() if line.strip()]
    return "".join(run(f"ip netns exec {PREFIX}{name} {line}", check) for line in lines)


def remove() -> None:
    """Delete the namespaces of this run or of one that was cut short."""
    for name in NAMESPACES:
        if Path(f"/run/netns/{PREFIX}{name}").exists():
            run(f"ip netns del {PREFIX}{name}")


def cable(one: str, device1: str, two: str, device2: str, mac: int) -> None:
    run(f"ip link add {device1} netns {PREFIX}{one} type veth peer name {device2} netns {PREFIX}{two}")
    for number, (name, device) in enumerate(((one, device1), (two, device2))):
        run(f"ip -n {PREFIX}{name} link set {device} address 02:00:00:00:00:{mac + number:02x}")
        for feature in OFFLOADS.split():
            at(name, f"ethtool -K {device} {feature} off", check=False)  # some are fixed, which is fine
        run(f"ip -n {PREFIX}{name} link set {device} up")


def build() -> None:
    for name in NAMESPACES:
        run(f"ip netns add {PREFIX}{name}")
        at(
            name,
            """
            sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0
            sysctl -qw net.ipv6.conf.default.accept_ra=0 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
            ip link set lo up
            """,
        )
    at("switch", "ip link add lan type bridge mcast_snooping 0")
    at("switch", "ip link set lan up")
    cable("client-a", "lan", "switch", "to-a", 0x0A)
    cable("client-b", "lan", "switch", "to-b", 0x1A)
    cable("gateway", "inside", "switch", "to-gw", 0x2A)
    cable("gateway", "outside", "router", "net", 0x3A)
    for port in ("to-a", "to-b", "to-gw"):
        at("switch", f"ip link set {port} master lan")
    for name in CLIENTS4:
        at(
            name,
            f"""
            ip addr add {CLIENTS4[name]}/24 dev lan
            ip addr add {CLIENTS6[name]}/64 dev lan nodad
            ip route add default via 10.0.0.1
            ip route add default via fd00:a::1
            iptables  -A INPUT -p tcp --sport 80 -m statistic --mode nth --every 37 --packet 11 -j DROP
            ip6tables -A INPUT -p tcp --sport 80 -m statistic --mode nth --every 23 --packet 9 -j DROP
            """,
        )
    at(
        "gateway",
        """
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.netfilter.nf_conntrack_acct=1
        ip addr add 10.0.0.1/24 dev inside
        ip addr add fd00:a::1/64 dev inside nodad
        ip addr add 198.51.100.1/24 dev outside
        ip addr add 2001:db8:b::1/64 dev outside nodad
        ip route add default via 198.51.100.2
        ip route add default via 2001:db8:b::2
        iptables  -t nat -A POSTROUTING -o outside -j MASQUERADE
        ip6tables -t nat -A POSTROUTING -o outside -j MASQUERADE
        """,
    )
    wan_ends = [tun(name, "wan") for name in ("router", "server")]
    at(
        "router",
        """
        sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        ip addr add 198.51.100.2/24 dev net
        ip addr add 2001:db8:b::2/64 dev net nodad
        ip addr add 203.0.113.1/24 dev wan
        ip addr add 2001:db8:c::1/64 dev wan nodad
        """,
    )
    at(
        "server",
        f"""
        ip addr add {WEB4}/24 dev wan
        ip addr add {DNS4}/24 dev wan
        ip addr add {WEB6}/64 dev wan nodad
        ip addr add {DNS6}/64 dev wan nodad
        ip route add default via 203.0.113.1
        ip route add default via 2001:db8:c::1
        """,
    )
    threading.Thread(target=wan, args=wan_ends, daemon=True).start()


# ── the long way between router and server ──────────────────────────────────────────────────────────


def tun(name: str, device: str) -> int:
    with inside(name):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", device.encode(), 0x1001))  # TUNSETIFF: TUN, NO_PI
    at(name, f"ip link set {device} mtu {WAN_MTU} up")
    return fd


def wan(one: int, two: int) -> None:
    """Carry packets between two TUN devices, late, out of order, and some HTTP packets not at all."""
    chance = random.Random(WAN_SEED)
    queue: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        patience = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for fd in select.select([one, two], [], [], patience)[0]:
            packet = os.read(fd, 65536)
            count += 1
            late = chance.random() < WAN_LATE
            lost = chance.random() < WAN_LOSS
            if is_http(packet) and lost:
                continue
            due = time.monotonic() + WAN_DELAY * (1.5 if late else 1)
            heapq.heappush(queue, (due, count, two if fd == one else one, packet))
        while queue and queue[0][0] <= time.monotonic():
            os.write(queue[0][2], heapq.heappop(queue)[3])


def is_http(packet: bytes) -> bool:
    """TCP from or to port 80; no packet here has IP options or extension headers before TCP."""
    protocol, tcp = (packet[9], packet[20:24]) if packet[0] >> 4 == 4 else (packet[6], packet[40:44])
    return protocol == socket.IPPROTO_TCP and 80 in struct.unpack("!HH", tcp)


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────


class Pages(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # several files on one connection

    def log_message(self, format: str, *args: object) -> None:
        pass


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listening(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    with inside("server"):
        sock = socket.socket(family(address), kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(16)
    return sock


def serve_web(address: str, folder: str) -> None:
    server = http.server.ThreadingHTTPServer(
        (address, 80), functools.partial(Pages, directory=folder), bind_and_activate=False
    )
    server.socket = listening(address, 80, socket.SOCK_STREAM)
    server.server_address = (address, 80)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve_dns(sock: socket.socket) -> None:
    """Answer every question with one address record and a life of a minute."""
    while True:
        query, client = sock.recvfrom(2048)
        question_end = query.index(0, 12) + 5
        if struct.unpack("!H", query[question_end - 4 : question_end - 2])[0] == 28:
            record = struct.pack("!HHHIH", 0xC00C, 28, 1, 60, 16) + socket.inet_pton(socket.AF_INET6, WEB6)
        else:
            record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(WEB4)
        header = query[:2] + struct.pack("!HHHHH", 0x8580, 1, 1, 0, 0)
        sock.sendto(header + query[12:question_end] + record, client)


def serve_echo(sock: socket.socket) -> None:
    while True:
        data, client = sock.recvfrom(2048)
        sock.sendto(data, client)


def serve_tcp(sock: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    while True:
        threading.Thread(target=talk, args=(sock.accept()[0],), daemon=True).start()


def after_eof(conn: socket.socket) -> None:
    """Read to the end, then answer with all of it in capitals: the client's side is closed by then."""
    parts = []
    while part := conn.recv(65536):
        parts.append(part)
    conn.sendall(b"".join(parts).upper())
    conn.close()


def small_talk(conn: socket.socket) -> None:
    """Greet, echo, and never close."""
    conn.sendall(b"hello\n")
    with contextlib.suppress(ConnectionError):
        while part := conn.recv(65536):
            conn.sendall(part)


def start_servers(folder: str) -> None:
    for size in (4, 24, 40):
        text = "".join(f"line {number:5} of a page of {size} kB\n" for number in range(size * 32))
        Path(folder, f"{size}k.txt").write_text(text)
    for web, dns in ((WEB4, DNS4), (WEB6, DNS6)):
        serve_web(web, folder)
        udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
        for target, *args in (
            (serve_dns, listening(dns, 53, udp)),
            (serve_echo, listening(dns, 7, udp)),
            (serve_tcp, listening(web, 7007, tcp), after_eof),
            (serve_tcp, listening(web, 7, tcp), small_talk),
        ):
            threading.Thread(target=target, args=tuple(args), daemon=True).start()


# ── traffic ─────────────────────────────────────────────────────────────────────────────────────────


def sock_at(client: str, peer: str, port: int, kind: socket.SocketKind, sport: int = 0) -> socket.socket:
    """A client's socket, connected, from a chosen port if asked."""
    with inside(client):
        sock = socket.socket(family(peer), kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(8)
    if sport:
        sock.bind(((CLIENTS6 if ":" in peer else CLIENTS4)[client], sport))
    sock.connect((peer, port))
    return sock


def both(action: Callable[[str], object]) -> None:
    """Do something on both clients, nearly at once.

    Truly at once, two CPUs of the gateway may choose the same port for both; one of the packets is then
    dropped when it is confirmed (insert_failed), which belongs into another capture.
    """
    threads = [threading.Thread(target=action, args=(client,)) for client in CLIENTS4]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()


def get_from_port(client: str, peer: str, sport: int, path: str) -> None:
    """One HTTP page from a fixed source port."""
    sock = sock_at(client, peer, 80, socket.SOCK_STREAM, sport)
    host = f"[{peer}]" if ":" in peer else peer
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    while sock.recv(65536):
        pass
    sock.close()


def get_with_urllib(client: str, peer: str, path: str) -> None:
    host = f"[{peer}]" if ":" in peer else peer
    with inside(client), urllib.request.urlopen(f"http://{host}{path}", timeout=8) as answer:
        answer.read()


def ask(client: str, peer: str, name: str, kind: int, sport: int = 0, ident: int = 1) -> None:
    sock = sock_at(client, peer, 53, socket.SOCK_DGRAM, sport)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0)
    sock.send(header + labels + b"\0" + struct.pack("!HH", kind, 1))
    assert sock.recv(2048)[:2] == struct.pack("!H", ident)
    sock.close()


def knock(client: str, peer: str, port: int, kind: socket.SocketKind) -> None:
    """Use a port that nobody listens on; the refusal comes back through the NAT or this fails."""
    try:
        sock = sock_at(client, peer, port, kind)
        sock.send(b"anybody?")
        sock.recv(100)
    except ConnectionRefusedError:
        return
    raise AssertionError(f"{peer} port {port} did not refuse")


def wait_in_vain(client: str, peer: str) -> None:
    """Long enough for the kernel to send its SYN a second time, a second after the first."""
    with inside(client):
        sock = socket.socket(family(peer), socket.SOCK_STREAM)
    sock.settimeout(1.3)
    with contextlib.suppress(TimeoutError):
        sock.connect((peer, 80))
    sock.close()


def half_close(client: str, peer: str) -> None:
    sock = sock_at(client, peer, 7007, socket.SOCK_STREAM)
    sock.sendall(b"".join(b"question %d\n" % number for number in range(500)))
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while part := sock.recv(65536):
        answer += part
    assert answer.endswith(b"QUESTION 499\n")
    sock.close()


def abort(client: str, peer: str) -> None:
    sock = sock_at(client, peer, 7, socket.SOCK_STREAM)
    sock.recv(100)
    sock.sendall(b"goodbye\n")
    sock.recv(100)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def stream(client: str, peer: str) -> None:
    """A UDP conversation of more than two seconds, which conntrack calls a stream."""
    sock = sock_at(client, peer, 7, socket.SOCK_DGRAM)
    for number in range(7):
        sock.send(b"tick %d" % number)
        sock.recv(100)
        time.sleep(0.4)
    sock.close()


def steps(idle: list[socket.socket]) -> Iterator[tuple[str, Callable[[], object]]]:
    """What happens, in order: a sentence for the README, and the deed."""
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    yield (
        "both clients ping 203.0.113.80 with ICMP id 1234",
        lambda: both(lambda client: at(client, f"ping -n -e 1234 -c 3 -i 0.2 {WEB4}")),
    )
    yield (
        "both clients ping 2001:db8:c::80 with ICMPv6 id 1234",
        lambda: both(lambda client: at(client, f"ping -n -e 1234 -c 3 -i 0.2 {WEB6}")),
    )
    yield (
        "traceroute to 203.0.113.80, UDP, one query a hop",
        lambda: at("client-a", f"traceroute -n -q 1 -N 1 -w 1 {WEB4}"),
    )
    yield (
        "traceroute to 2001:db8:c::80, UDP, one query a hop",
        lambda: at("client-b", f"traceroute -n -q 1 -N 1 -w 1 {WEB6}"),
    )
    yield "a ping of 2,000 octets, in fragments", lambda: at("client-a", f"ping -n -c 1 -s 2000 {DNS4}")
    yield (
        "a ping too big for the WAN, DF set: fragmentation needed",
        lambda: at("client-b", f"ping -n -c 1 -W 1 -M do -s 1440 {DNS4}", check=False),
    )
    yield (
        "an IPv6 ping too big for the WAN: packet too big",
        lambda: at("client-b", f"ping -n -c 1 -W 1 -M do -s 1440 {DNS6}", check=False),
    )
    yield (
        "DNS questions from both clients, own ports",
        lambda: both(lambda client: ask(client, DNS4, f"www.{client}.example.net", 1)),
    )
    yield (
        "DNS question from port 5353 on both clients",
        lambda: both(lambda client: ask(client, DNS4, "same.port.example.net", 1, 5353, 7)),
    )
    yield (
        "DNS question over IPv6, from port 5353 on both clients",
        lambda: both(lambda client: ask(client, DNS6, "six.example.net", 28, 5353, 8)),
    )
    yield "UDP to a closed port: port unreachable comes back", lambda: knock("client-a", DNS4, 9, udp)
    yield "UDP to a closed port over IPv6", lambda: knock("client-b", DNS6, 9, udp)
    yield "TCP connection that stays open", lambda: idle.append(open_and_rest("client-a", WEB4))
    yield "TCP connection that stays open, IPv6", lambda: idle.append(open_and_rest("client-b", WEB6))
    yield (
        "a UDP stream, while both clients fetch 40 kB by HTTP from port 40000, with loss",
        lambda: together(
            lambda: stream("client-a", DNS4),
            lambda: both(lambda c: get_from_port(c, WEB4, 40000, "/40k.txt")),
        ),
    )
    yield (
        "curl: two pages on one connection",
        lambda: at("client-b", f"curl -s -o /dev/null -o /dev/null http://{WEB4}/4k.txt http://{WEB4}/24k.txt"),
    )
    yield (
        "both clients fetch 24 kB by HTTP over IPv6 from port 40000, with loss",
        lambda: both(lambda client: get_from_port(client, WEB6, 40000, "/24k.txt")),
    )
    yield (
        "urllib and curl over IPv6, with loss",
        lambda: together(
            lambda: get_with_urllib("client-a", WEB6, "/4k.txt"),
            lambda: at("client-b", f"curl -s -o /dev/null http://[{WEB6}]/24k.txt"),
        ),
    )
    yield "nobody answers: a SYN and its retransmission", lambda: wait_in_vain("client-b", "203.0.113.99")
    yield "half-close: the answer comes after the client's FIN", lambda: half_close("client-a", WEB4)
    yield "refused: RST answers the SYN", lambda: knock("client-a", WEB4, 81, tcp)
    yield "refused over IPv6", lambda: knock("client-a", WEB6, 81, tcp)
    yield "aborted: RST after data", lambda: abort("client-b", WEB4)
    yield "aborted over IPv6", lambda: abort("client-a", WEB6)


def open_and_rest(client: str, peer: str) -> socket.socket:
    sock = sock_at(client, peer, 7, socket.SOCK_STREAM)
    sock.recv(100)
    sock.sendall(b"still there?\n")
    sock.recv(100)
    return sock


def together(*deeds: Callable[[], object]) -> None:
    threads = [threading.Thread(target=deed) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ── taps, checks, README ────────────────────────────────────────────────────────────────────────────


def tap(name: str) -> subprocess.Popen[str]:
    command = f"tcpdump -i {name} --immediate-mode -s 0 -B 8192 -U -n -Z root -w {HERE}/gateway-{name}.pcap"
    process = subprocess.Popen(
        shlex.split(f"ip netns exec {PREFIX}gateway {command}"), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    while "listening on" not in process.stderr.readline():
        pass
    return process


def end_tap(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, text = process.communicate()
    if "\n0 packets dropped by kernel" not in text:
        raise SystemExit(f"tcpdump lost packets:\n{text}")


def tshark(name: str, *args: str) -> list[list[str]]:
    """Fields of the packets that a filter picks, one list a packet."""
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    command = ["tshark", "-n", "-r", f"{HERE}/gateway-{name}.pcap", "-T", "fields", "-E", "occurrence=f"]
    text = subprocess.run([*command, *checks, *args], text=True, capture_output=True, check=True).stdout
    return [line.split("\t") for line in text.splitlines()]


def check_checksums() -> None:
    layers = ("ip", "tcp", "udp", "icmp", "icmpv6")
    bad = " || ".join(f"{layer}.checksum.status == 0" for layer in layers)
    for name in TAPS:
        if wrong := tshark(name, "-Y", bad, "-e", "frame.number"):
            raise SystemExit(f"{name}: bad checksums in packets {wrong}")


def check_listing(listing: str) -> None:
    """Every TCP and UDP entry must be on both taps: its original tuple inside, its reply tuple outside."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for name in TAPS:
        fields = [f"-e{layer}.{end}" for layer in ("ip", "ipv6") for end in ("src", "dst")]
        fields += [f"-e{layer}.{end}port" for layer in ("tcp", "udp") for end in ("src", "dst")]
        seen[name] = {tuple(filter(None, row)) for row in tshark(name, *fields)}
    for line in listing.splitlines():
        ports = re.findall(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", line)
        if not ports:
            continue
        original, (src, dst, sport, dport) = ports
        if original not in seen["inside"] or (dst, src, dport, sport) not in seen["outside"]:
            raise SystemExit(f"not on both taps: {line}")


def check_statistics(text: str) -> None:
    """The gateway's counters of packets that it refused or lost must be zero on every CPU."""
    if wrong := re.findall(r"(?:invalid|insert_failed|drop|error|clash_resolve)=[1-9]\d*", text):
        raise SystemExit(f"conntrack -S: {wrong}")


NOTABLE = {
    "time exceeded from the gateway itself": "ip.src==10.0.0.1 && icmp.type==11"
    " || ipv6.src==fd00:a::1 && icmpv6.type==3",
    "time exceeded from the router": "ip.src==198.51.100.2 && icmp.type==11"
    " || ipv6.src==2001:db8:b::2 && icmpv6.type==3",
    "port unreachable": "icmp.type==3 && icmp.code==3 || icmpv6.type==1 && icmpv6.code==4",
    "fragmentation needed, packet too big": "icmp.type==3 && icmp.code==4 || icmpv6.type==2",
    "IPv4 fragments": "ip.flags.mf==1 || ip.frag_offset>0",
    "RST": "tcp.flags.reset==1",
    "TCP retransmission (Wireshark's judgement)": "tcp.analysis.retransmission",
    "TCP segment out of order": "tcp.analysis.out_of_order",
    "ARP": "arp",
    "neighbour discovery, MLD": "icmpv6.type>=130",
}


def ranges(numbers: list[int]) -> str:
    """[3, 4, 5, 9] as '3–5, 9'."""
    texts: list[str] = []
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            first, last = numbers[start], numbers[index - 1]
            texts.append(f"{first}" if first == last else f"{first}–{last}")
            start = index
    return ", ".join(texts) or "–"


def report(starts: list[tuple[float, str]], listing: str, listed: float) -> str:
    """The part of README.md that differs from run to run."""
    stamps = {name: [float(row[0]) for row in tshark(name, "-e", "frame.time_epoch")] for name in TAPS}
    ends = [begin for begin, _ in starts[1:]] + [float("inf")]
    lines = ["| step | inside | outside |", "|---|---|---|"]
    for (begin, title), end in zip(starts, ends, strict=True):
        cells = [[n for n, at_ in enumerate(stamps[name], 1) if begin <= at_ < end] for name in TAPS]
        lines.append(f"| {title} | {ranges(cells[0])} | {ranges(cells[1])} |")
    lines += ["", "| packet | inside | outside |", "|---|---|---|"]
    for title, display_filter in NOTABLE.items():
        rows = [tshark(name, "-Y", display_filter, "-e", "frame.number") for name in TAPS]
        cells = [[int(row[0]) for row in part] for part in rows]
        lines.append(f"| {title} | {ranges(cells[0])} | {ranges(cells[1])} |")
    lines += ["", "| flow whose port or id the gateway changed | seen outside as |", "|---|---|"]
    flow = re.compile(r"(\w+) +\d+ \d+ .*?src=(\S+) dst=(\S+) .*?(?:sport|id)=(\d+) .* (?:dport|id)=(\d+)")
    for match in map(flow.search, listing.splitlines()):
        if match and match[4] != match[5]:
            lines.append(f"| {match[1]} {match[2]} → {match[3]}, {match[4]} | {match[5]} |")
    first, last = min(s[0] for s in stamps.values()), max(s[-1] for s in stamps.values())
    counts = f"{len(stamps['inside'])} packets inside, {len(stamps['outside'])} outside"
    kernel = os.uname().release.split("-")[0]
    lines += ["", f"{counts}, from {first:.6f} to {last:.6f} (seconds since 1970)."]
    lines += [f"The listing was taken at {listed:.6f}. Linux {kernel}."]
    return "\n".join(lines)


def record() -> None:
    starts: list[tuple[float, str]] = []
    idle: list[socket.socket] = []  # held here so that they stay open until the taps have stopped
    with tempfile.TemporaryDirectory() as folder:
        start_servers(folder)
        time.sleep(1.5)  # let the multicast reports of new addresses pass
        taps = [tap(name) for name in TAPS]
        time.sleep(0.3)
        for title, deed in steps(idle):
            starts.append((time.time(), title))
            print(f"{time.time() - starts[0][0]:5.1f} s  {title}", flush=True)
            deed()
            time.sleep(0.15)
        listed = time.time()
        listing = at("gateway", "conntrack -L -o extended")
        statistics = at("gateway", "conntrack -S")
        for process in taps:
            end_tap(process)
    (HERE / "gateway-conntrack.txt").write_text(listing)
    check_checksums()
    check_listing(listing)
    check_statistics(statistics)
    readme = HERE / "README.md"
    before, mark, rest = readme.read_text().partition("<!-- written by make.py -->\n")
    after = rest[rest.index("<!-- end -->") :]
    readme.write_text(f"{before}{mark}\n{report(starts, listing, listed)}\n\n{after}")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("needs root, for namespaces")
    remove()
    try:
        build()
        record()
    finally:
        remove()
    os._exit(0)  # the servers' threads sit in accept()
