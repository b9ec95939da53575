"""The running Linux kernel as one object: give it a packet, see what it forwards and what it remembers.

One rule: nothing here knows how connection tracking works. It asks the kernel, by the same roads as any
program would, and reports in the shape of docs/records.schema.json.

    write ──► in0 (TUN) ─► PREROUTING ─► routing ─► FORWARD ─► POSTROUTING ─► out0 (TUN) ──► read
    read  ◄── in0 (TUN) ◄──────────── the same, other way ◄─────────────────── out0 (TUN) ◄── write

A Kernel owns a network namespace with two TUN devices. The thread that makes it visits the namespace and
comes home; devices and sockets opened during the visit stay there. Forwarding through a TUN happens inside
write(), so what comes out can be read when write() returns: no waiting, no threads, some ten thousand
packets a second.

The class of a packet (NEW, ESTABLISHED…) has to come out together with it: five rules in mangle FORWARD
write it into the DSCP field, from where `send` takes it; the sender's own DSCP is put back. As these rules
use conntrack they also switch it on (its hooks exist only while a rule needs them).

Sources: Documentation/networking/tuntap.rst, include/uapi/linux/netfilter/nfnetlink_conntrack.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

CTSTATES = ("UNTRACKED", "INVALID", "NEW", "ESTABLISHED", "RELATED")  # marked as DSCP 8, 9, 10, 11, 12
_FIRST_MARK = 8

DEVICES = {
    "in0": ("10.0.0.1/24", "fd00:1::1/64"),
    "out0": ("198.51.100.1/24", "2001:db8:b::1/64"),
}

# Packets of any source are to be forwarded, and the namespace is to say nothing by itself.
_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.icmp.ratelimit": 0,
}
_DEVICE_SYSCTLS = {
    "net.ipv4.conf.{}.rp_filter": 0,
    "net.ipv4.conf.{}.accept_local": 1,
    "net.ipv4.conf.{}.send_redirects": 0,
    "net.ipv6.conf.{}.accept_ra": 0,
    "net.ipv6.conf.{}.accept_dad": 0,
    "net.ipv6.conf.{}.addr_gen_mode": 1,  # no link-local address, so no router solicitations
}

_NETLINK_NETFILTER = 12
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)


@functools.cache
def available() -> str | None:
    """None where a Kernel can be made, else the reason why not, as one sentence."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    if os.geteuid():
        return "namespaces and TUN devices need root"
    for program in ("ip", "iptables-restore", "ip6tables-restore"):
        if not shutil.which(program):
            return f"{program} is not installed"
    try:
        with Kernel() as kernel:
            kernel.table()
    except OSError as error:
        return f"no namespace with TUN devices and conntrack: {error}"
    return None


class Kernel:
    """A forwarding Linux host of its own, between the interfaces in0 and out0.

    ``rules`` and ``rules6`` are texts for iptables-restore and ip6tables-restore (tables are added to what
    the harness needs itself), ``sysctl`` maps full or bare nf_conntrack names to values.

        with Kernel(sysctl={"nf_conntrack_tcp_loose": 0}) as kernel:
            print(kernel.send(packet, "in0"), kernel.ctstate, kernel.table())
    """

    def __init__(self, sysctl: dict[str, int] | None = None, rules: str = "", rules6: str = "") -> None:
        self.ctstate: str | None = None  # class of the last packet; None if it did not come out
        self._sequence = 0
        with _new_namespace() as self._namespace:
            self._devices = {name: _open_tun(name) for name in DEVICES}
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            for name, value in _SYSCTLS.items():
                _write_sysctl(name, value)
            for name, value in _DEVICE_SYSCTLS.items():
                for device in ("all", "default", *DEVICES):
                    _write_sysctl(name.format(device), value)
            for family, text in (("", rules), ("6", rules6)):
                _run(f"ip{family}tables-restore", text=_marking_rules(family))
                if text:
                    _run(f"ip{family}tables-restore", "--noflush", text=text)
            _write_sysctl("net.netfilter.nf_conntrack_acct", 1)
            for name, (address, address6) in DEVICES.items():
                _run("ip", "address", "add", address, "dev", name)
                _run("ip", "address", "add", address6, "dev", name, "nodad")
                _run("ip", "link", "set", name, "up")
            for family in ("-4", "-6"):
                _run("ip", family, "route", "add", "default", "dev", "out0")
        for name, number in (sysctl or {}).items():
            self.sysctl(name, number)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; the kernel then removes the namespace."""
        self._netlink.close()
        for fd in (*self._devices.values(), self._namespace):
            os.close(fd)

    def sysctl(self, name: str, value: int) -> None:
        """Set a sysctl of the namespace, by its full name or as a bare ``nf_conntrack_…``."""
        with _visit(self._namespace):
            _write_sysctl(name if "." in name else f"net.netfilter.{name}", value)

    def run(self, *command: str, text: str = "") -> str:
        """Run a program in the namespace, with ``text`` as its input; returns what it printed."""
        with _visit(self._namespace):
            return _run(*command, text=text)

    def send(self, packet: bytes, iface: str) -> list[tuple[str, bytes]]:
        """Let a packet arrive on ``iface``; returns what left, as (interface, bytes), and sets ``ctstate``.

        A packet that the TUN device itself refuses (no IP version in its first octet) leaves nothing.
        """
        self.ctstate = None
        with contextlib.suppress(OSError):
            os.write(self._devices[iface], packet)
        return [(name, self._unmark(out, packet)) for name, fd in self._devices.items() for out in _drain(fd)]

    def _unmark(self, out: bytes, sent: bytes) -> bytes:
        """Read the class from the DSCP field and put the sender's DSCP back."""
        mark = _dscp(out)
        if _FIRST_MARK <= mark < _FIRST_MARK + len(CTSTATES):
            self.ctstate = CTSTATES[mark - _FIRST_MARK]
            return _with_dscp(out, _dscp(sent))
        return out  # the host's own packet: an ICMP error of its routing, for example

    def table(self) -> list[dict[str, Any]]:
        """All entries, as ctnetlink dumps them. Like every dump it deletes the expired ones that it meets.

        The kernel walks the hash table of all namespaces for this: some 15 ms with its usual 262,144 buckets.
        """
        return [_conn(body) for body in self._request(_CT_GET, _NLM_F_DUMP)]

    def entry(self, proto: int, end: dict[str, Any]) -> dict[str, Any] | None:
        """The one entry with this tuple record in either direction (TCP, UDP, ICMP); some 20 µs."""
        family = socket.AF_INET6 if ":" in end["src"] else socket.AF_INET
        try:
            return _conn(self._request(_CT_GET, _NLM_F_ACK, family, _tuple_attribute(proto, end))[0])
        except FileNotFoundError:
            return None

    def flush(self) -> None:
        """Empty the table."""
        self._request(_CT_DELETE, _NLM_F_ACK)

    def _request(self, message: int, flags: int, family: int = 0, attributes: bytes = b"") -> list[bytes]:
        """Send one ctnetlink request; returns the bodies of the answers, after nfgenmsg, until done."""
        self._sequence += 1
        kind, length = _SUBSYSTEM | message, 20 + len(attributes)
        head = struct.pack("=IHHIIBBH", length, kind, flags | _NLM_F_REQUEST, self._sequence, 0, family, 0, 0)
        self._netlink.send(head + attributes)
        bodies: list[bytes] = []
        while True:
            data = self._netlink.recv(1 << 18)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                body, data = data[16:length], data[length + 3 & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind == 2 and (error := struct.unpack_from("=i", body)[0]):  # NLMSG_ERROR
                    raise OSError(-error, os.strerror(-error))
                if kind in (2, 3):  # an error of 0 is the acknowledgement; 3 is NLMSG_DONE
                    return bodies
                bodies.append(body[4:])


# ── namespace, devices, rules ───────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _new_namespace() -> Iterator[int]:
    """Make a network namespace, be in it for a while; yields its descriptor, which keeps it alive."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        try:
            yield os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _LIBC.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)


@contextlib.contextmanager
def _visit(namespace: int) -> Iterator[None]:
    """Move this thread into a namespace for a while."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _LIBC.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _LIBC.setns(home, _CLONE_NEWNET)
        os.close(home)


def _open_tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def _drain(fd: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(fd, 65536)


def _write_sysctl(name: str, value: int) -> None:
    with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
        file.write(str(value))


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, text=True, capture_output=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _marking_rules(family: str) -> str:
    marks = "".join(
        f"-A FORWARD -m conntrack --ctstate {state} -j DSCP --set-dscp {mark}\n"
        for mark, state in enumerate(CTSTATES, _FIRST_MARK)
    )
    silence = "*raw\n-A OUTPUT -d ff00::/8 -j DROP\nCOMMIT\n" if family else ""  # multicast listener reports
    return f"*mangle\n{marks}COMMIT\n{silence}"


# ── the DSCP field ──────────────────────────────────────────────────────────────────────────────────


def _dscp(packet: bytes) -> int:
    if packet[0] >> 4 == 4:
        return packet[1] >> 2
    return (packet[0] << 8 | packet[1]) >> 6 & 0x3F


def _with_dscp(packet: bytes, dscp: int) -> bytes:
    """The packet with another DSCP; an IPv4 header checksum is computed anew."""
    out = bytearray(packet)
    if packet[0] >> 4 == 6:
        out[0] = 0x60 | dscp >> 2
        out[1] = (dscp & 3) << 6 | packet[1] & 0x3F
        return bytes(out)
    out[1] = dscp << 2 | packet[1] & 3
    out[10:12] = b"\0\0"
    header = out[: (packet[0] & 15) * 4]
    out[10:12] = (0xFFFF - int.from_bytes(header, "big") % 0xFFFF).to_bytes(2, "big")
    return bytes(out)


# ── ctnetlink's attributes ──────────────────────────────────────────────────────────────────────────

_SUBSYSTEM, _CT_GET, _CT_DELETE = 1 << 8, 1, 2  # a DELETE without a tuple empties the table
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLA_F_NESTED = 0x8000

_STATUS = (
    *("EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE"),
    *("DST_NAT_DONE", "DYING", "FIXED_TIMEOUT", "TEMPLATE", "NAT_CLASH", "HELPER", "OFFLOAD", "HW_OFFLOAD"),
)
_TCP_STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"),
    *("CLOSE", "SYN_SENT2"),
)
_SCTP_STATES = (
    *("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD"),
    *("SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"),
)


def _attributes(data: bytes) -> dict[int, bytes]:
    """One level of netlink attributes, by type, without the flag bits of the type."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[length + 3 & ~3 :]
    return found


def _attribute(kind: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def _tuple_attribute(proto: int, end: dict[str, Any]) -> bytes:
    """A tuple record as CTA_TUPLE_ORIG, the reverse of `_tuple` for protocols with ports and for ICMP."""
    source, destination = (ipaddress.ip_address(end[side]) for side in ("src", "dst"))
    first = 3 if source.version == 6 else 1
    addresses = _attribute(first, source.packed), _attribute(first + 1, destination.packed)
    fields = [_attribute(1, bytes([proto]))]
    if "sport" in end:
        fields += [_attribute(kind, end[name].to_bytes(2, "big")) for kind, name in ((2, "sport"), (3, "dport"))]
    elif "id" in end:
        first = 7 if source.version == 6 else 4
        sized = (("id", 2), ("type", 1), ("code", 1))
        fields += [_attribute(first + at, end[name].to_bytes(size, "big")) for at, (name, size) in enumerate(sized)]
    parts = _attribute(1 | _NLA_F_NESTED, *addresses), _attribute(2 | _NLA_F_NESTED, *fields)
    return _attribute(1 | _NLA_F_NESTED, *parts)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _conn(body: bytes) -> dict[str, Any]:
    """One CTA_* message as a connection record; absent attributes are absent fields."""
    top = _attributes(body)
    proto, orig = _tuple(top[1])
    conn: dict[str, Any] = {
        "family": 6 if ":" in orig["src"] else 4,
        "proto": proto,
        "orig": orig,
        "reply": _tuple(top[2])[1],
        "status": sorted(name for bit, name in enumerate(_STATUS) if _number(top[3]) >> bit & 1),
        "mark": _number(top.get(8, b"")),
        "zone": _number(top.get(18, b"")),
        "id": _number(top[12]),
    }
    if 7 in top:
        conn["timeout"] = _number(top[7])
    if 4 in top:
        for number, info in _attributes(top[4]).items():  # 1 TCP, 3 SCTP; the state is attribute 1 of both
            names = {1: _TCP_STATES, 3: _SCTP_STATES}.get(number)
            if names:
                conn["state"] = names[_number(_attributes(info)[1])]
    if 9 in top and 10 in top:
        counters = [_attributes(top[number]) for number in (9, 10)]
        conn["packets"] = [_number(counter[1]) for counter in counters]
        conn["bytes"] = [_number(counter[2]) for counter in counters]
    if 5 in top:
        conn["helper"] = _attributes(top[5])[1].rstrip(b"\0").decode()
    if 14 in top:
        conn["master"] = _tuple(top[14])[1]
    return conn


def _tuple(data: bytes) -> tuple[int, dict[str, Any]]:
    """Protocol number and tuple record of a CTA_TUPLE_* attribute."""
    parts = _attributes(data)
    addresses, fields = _attributes(parts[1]), _attributes(parts[2])
    proto = _number(fields[1])
    source, destination = (3, 4) if 3 in addresses else (1, 2)
    record: dict[str, Any] = {
        "src": str(ipaddress.ip_address(addresses[source])),
        "dst": str(ipaddress.ip_address(addresses[destination])),
    }
    if proto == socket.IPPROTO_GRE:
        record |= {"srckey": _number(fields[2]), "dstkey": _number(fields[3])}
    elif 2 in fields:
        record |= {"sport": _number(fields[2]), "dport": _number(fields[3])}
    elif 4 in fields or 7 in fields:
        first = 4 if 4 in fields else 7
        names = ("id", "type", "code")
        record |= {name: _number(fields[first + offset]) for offset, name in enumerate(names)}
    if 3 in parts:
        record["zone"] = _number(parts[3])
    return proto, record
