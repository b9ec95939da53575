"""Packet scripts: one line a step, as text.

    in0 10.0.0.2:1234 > 203.0.113.5:80 tcp S seq 999 win 8192 opt mss,ws7,sackok
    out0 203.0.113.5:80 > 198.51.100.1:1234 tcp SA seq 4999 ack 1000
    in0 10.0.0.2 > 203.0.113.5 icmp 8/0 id 7
    out0 192.0.2.9 > 198.51.100.1 icmp 3/3 about 198.51.100.1:1234 > 203.0.113.5:80 tcp S seq 999
    send 198.51.100.1:5000 > 203.0.113.5:53 udp len 20
    sysctl nf_conntrack_tcp_loose 0      address del out0 198.51.100.1/24      link out0 down      flush
    sleep 1.2                            rules {text}, rules6 {text}: texts given beside the script

One rule: a line says what is on the wire; lengths and sums are right unless the line says `badsum`, `cut N`, `said N`.

    any packet   ttl N, tos N, ident N, df, options HEX (IPv4), ext dst|hop|route|frag|… (IPv6; frag: all there is),
                 payload N (the length that an IPv6 header tells), cut N (octets of the whole), short N (octets behind
                 the IP header, summed when there were more), pieces N [order i,j,…] (cut into fragments of N octets
                 and sent in that order) [before dst|hop|route|… (what stands before the fragment header)]
    tcp FLAGS    seq ack win len N, data "text", opt mss,wsN,sackok,ts,sack:A-B,hex:…, badsum
    udp          len N, data "text", said N, nosum, badsum          udplite   the same, said = coverage
    icmp T/C     id N, n N (sequence), len N, rest HEX, about …     icmpv6    the same
    sctp         vtag N, then chunks: init:TAG initack:TAG cookie cookieack data sack hb hback shut shutack shutcomp
                 abort error, a T flag as abort!, len:0 chunks as KIND~
    gre          v0 | v1 call N          proto N len N | hex HEX    raw HEX (the whole packet)
"""

# ruff: noqa: E501 (packet scripts: one line a packet)

from __future__ import annotations

import shlex
import struct
from typing import Any

from generate import octets
from scenario import Step

_CHUNKS = {
    "data": 0, "init": 1, "initack": 2, "sack": 3, "hb": 4, "hback": 5, "abort": 6, "shut": 7, "shutack": 8,
    "error": 9, "cookie": 10, "cookieack": 11, "shutcomp": 14, "ecne": 12,
}
_PROTOS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "gre": 47, "udplite": 136, "esp": 50}
_EXTENSIONS = {"hop": 0, "route": 43, "frag": 44, "dst": 60, "none": 59}


def steps(text: str, texts: dict[str, str] | None = None) -> list[Step]:
    """The steps of a script; `texts` are the rules that `rules NAME` lines name."""
    found: list[Step] = []
    for line in text.strip().splitlines():
        line = line.split(" # ")[0].strip()
        if line and not line.startswith("#"):
            found += _line(line, texts or {})
    return found


def _line(line: str, texts: dict[str, str]) -> list[Step]:
    words = shlex.split(line)
    head = words[0]
    if head == "flush":
        return [{"op": "flush"}]
    if head == "sleep":
        return [{"op": "sleep", "seconds": float(words[1])}]
    if head == "sysctl":
        return [{"op": "sysctl", "name": words[1], "value": int(words[2])}]
    if head == "address":
        return [{"op": "address", "iface": words[2], "address": words[3], "present": words[1] == "add"}]
    if head == "link":
        return [{"op": "link", "iface": words[1], "up": words[2] == "up"}]
    if head == "route":
        return [{"op": "route", "route": " ".join(words[2:]), "present": words[1] == "add"}]
    if head in ("rules", "rules6"):
        return [{"op": "rules", head: texts[words[1]] if len(words) > 1 else ""}]
    packets = built(words[1:])
    if head == "send":
        return [{"op": "send", "packet": packet.hex()} for packet in packets]
    return [{"op": "receive", "iface": head, "packet": packet.hex()} for packet in packets]


class _Words:
    """Words that are taken by name."""

    def __init__(self, words: list[str]) -> None:
        self.words = list(words)

    def flag(self, name: str) -> bool:
        if name in self.words:
            self.words.remove(name)
            return True
        return False

    def value(self, name: str, otherwise: Any = None) -> Any:
        if name not in self.words:
            return otherwise
        at = self.words.index(name)
        taken = self.words[at + 1]
        del self.words[at : at + 2]
        return taken

    def number(self, name: str, otherwise: int) -> int:
        return int(self.value(name, otherwise), 0) if name in self.words else otherwise


def built(parts: list[str]) -> list[bytes]:
    """The packets of `SRC > DST PROTO …`: one, or its fragments."""
    if parts[0] == "raw":
        return [bytes.fromhex(parts[1])]
    quote: list[str] = []
    if "about" in parts:
        at = parts.index("about")
        parts, quote = parts[:at], parts[at + 1 :]
    (src, sport), (dst, dport) = _end(parts[0]), _end(parts[2])
    name, words = parts[3], _Words(parts[4:])
    six = ":" in src
    more: dict[str, Any] = {"ttl": words.number("ttl", 64), "tos": words.number("tos", 0)}
    cut, size, order = words.number("cut", 0), words.number("pieces", 0), words.value("order")
    ident, df, options = words.number("ident", 1), words.flag("df"), words.value("options", "")
    extensions, before = words.value("ext", ""), words.value("before", "")
    short, payload = words.number("short", 0), words.number("payload", -1)
    if name == "proto":
        proto, given = int(words.words.pop(0)), words.value("hex")
        l4 = bytes(words.number("len", 8)) if given is None else bytes.fromhex(given)
    else:
        proto = _PROTOS[name]
        l4 = _BODIES[name](words, src, dst, sport, dport, quote)
    if words.words:
        raise ValueError(f"left over in a packet script: {words.words}")
    l4 = l4[:short] if short else l4
    proto, l4 = _behind(extensions, proto, l4)
    if size:
        return _pieces(src, dst, proto, l4, size, order, ident, before, more)
    if six:
        packet = octets.ipv6(src, dst, proto, l4, length=None if payload < 0 else payload, **more)
    else:
        word = 0x4000 if df else 0
        packet = octets.ipv4(src, dst, proto, l4, ident=ident, fragment=word, options=bytes.fromhex(options), **more)
    return [packet[:cut] if cut else packet]


def _end(text: str) -> tuple[str, int]:
    """Address and port of `10.0.0.2:80`, `[fd00::1]:80` or an address alone."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
        return address, int(port)
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, int(port)
    return text, 0


def _behind(extensions: str, proto: int, l4: bytes) -> tuple[int, bytes]:
    """IPv6 extension headers before `l4` of protocol `proto`: the first one's number, and all of it."""
    for extension in filter(None, reversed(extensions.split(","))):
        body = bytes((1, 4, 0, 0, 0, 0)) if extension not in ("route", "frag") else bytes(6)
        proto, l4 = _EXTENSIONS[extension], bytes((proto, 0)) + body + l4
    return proto, l4


def _pieces(
    src: str,
    dst: str,
    proto: int,
    l4: bytes,
    size: int,
    order: str | None,
    ident: int,
    before: str,
    more: dict[str, Any],
) -> list[bytes]:
    out = []
    for at in range(0, len(l4), size):
        part, last = l4[at : at + size], at + size >= len(l4)
        if ":" in src:
            head = struct.pack("!BBHI", proto, 0, at | (0 if last else 1), ident)
            first, whole = _behind(before, octets.FRAGMENT, head + part)
            out.append(octets.ipv6(src, dst, first, whole, **more))
        else:
            word = at >> 3 | (0 if last else 0x2000)
            out.append(octets.ipv4(src, dst, proto, part, ident=ident, fragment=word, **more))
    return [out[int(at)] for at in order.split(",")] if order else out


# ── transports ──────────────────────────────────────────────────────────────────────────────────────


def _payload(words: _Words) -> bytes:
    data = words.value("data")
    if data is not None:
        return bytes(data.encode().decode("unicode_escape"), "latin-1")
    return bytes(range(256)) * 300 if False else bytes(at & 255 for at in range(words.number("len", 0)))


def _finished(words: _Words, src: str, dst: str, proto: int, l4: bytes, said: int | None = None) -> bytes:
    bad = words.flag("badsum")
    l4 = octets.seal(src, dst, proto, l4, said)
    at = {6: 16, 17: 6, 1: 2, 58: 2, 132: 8, 136: 6}[proto]
    return l4[:at] + bytes((l4[at] ^ 0xFF,)) + l4[at + 1 :] if bad else l4


def _tcp(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    letters = words.words.pop(0)
    flags = 0 if letters == "none" else sum(1 << "FSRPAUEC".index(letter) for letter in letters)
    options = b"".join(_option(word) for word in filter(None, words.value("opt", "").split(",")))
    seq, ack, win = words.number("seq", 0), words.number("ack", 0), words.number("win", 8192)
    l4 = octets.tcp(sport, dport, flags, seq, ack, win, _payload(words), options)
    return _finished(words, src, dst, 6, l4)


def _option(word: str) -> bytes:
    if word == "mss":
        return b"\x02\x04\x05\xb4"
    if word.startswith("mss:"):
        return b"\x02\x04" + int(word[4:]).to_bytes(2, "big")
    if word.startswith("ws"):
        return bytes((1, 3, 3, int(word[2:])))
    if word == "sackok":
        return b"\x01\x01\x04\x02"
    if word == "ts":
        return b"\x01\x01\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x00"
    if word.startswith("sack:"):
        left, _, right = word[5:].partition("-")
        return b"\x01\x01\x05\x0a" + struct.pack("!II", int(left), int(right))
    if word.startswith("hex:"):
        return bytes.fromhex(word[4:])
    raise ValueError(f"unknown TCP option {word!r}")


def _udp(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    said = words.number("said", -1)
    l4 = octets.udp(sport, dport, _payload(words), None if said < 0 else said)
    return l4 if words.flag("nosum") else _finished(words, src, dst, 17, l4)


def _udplite(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    said = words.number("said", 0)
    l4 = octets.udp(sport, dport, _payload(words), said)
    if words.flag("rfc"):  # the checksum that RFC 3828 asks for
        whole = octets.seal(src, dst, 136, l4, said or None)
        pseudo = (int.from_bytes(whole[6:8], "big") ^ 0xFFFF) + 136 - 17
        return whole[:6] + ((pseudo % 0xFFFF) ^ 0xFFFF).to_bytes(2, "big") + whole[8:]
    return l4 if words.flag("nosum") else _finished(words, src, dst, 136, l4, said or None)


def _icmp(proto: int) -> Any:
    def build(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
        kind, _, code = words.words.pop(0).partition("/")
        rest = words.value("rest")
        ident, number = words.number("id", 0), words.number("n", 0)
        four = bytes.fromhex(rest) if rest else struct.pack("!HH", ident, number)
        body, only = _payload(words), words.number("quoting", 0)
        if quote:
            quoted = built(quote)[0]
            body = quoted[:only] if only else quoted
        l4 = octets.icmp(int(kind), int(code or 0), four, body)
        return _finished(words, src, dst, proto, l4)

    return build


def _sctp(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    vtag, bad = words.number("vtag", 0), words.flag("badsum")
    chunks = b""
    for word in words.words:
        name, _, tag = word.partition(":")
        plain = name.rstrip("!~")
        body = struct.pack("!I", int(tag, 0)) + bytes(12) if tag else bytes(0 if "~" in name else 4)
        chunks += octets.chunk(_CHUNKS[plain], body, 1 if "!" in name else 0)
    words.words.clear()
    l4 = octets.seal(src, dst, 132, struct.pack("!HHII", sport, dport, vtag, 0) + chunks)
    return l4[:8] + bytes((l4[8] ^ 0xFF,)) + l4[9:] if bad else l4


def _gre(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    if words.flag("v1"):
        return struct.pack("!HHHH", 0x3001, 0x880B, 4, words.number("call", 1)) + bytes(8)
    words.flag("v0")
    return struct.pack("!HH", 0, 0x0800) + bytes(words.number("len", 8))


def _esp(words: _Words, src: str, dst: str, sport: int, dport: int, quote: list[str]) -> bytes:
    return bytes(words.number("len", 16))


_BODIES: dict[str, Any] = {
    "tcp": _tcp,
    "udp": _udp,
    "udplite": _udplite,
    "icmp": _icmp(1),
    "icmpv6": _icmp(58),
    "sctp": _sctp,
    "gre": _gre,
    "esp": _esp,
}
