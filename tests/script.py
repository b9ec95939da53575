r"""Packet scripts: one line a packet, what is expected of it on the right.

    > S   seq 999  win 8192  wscale 7          SYN_SENT 120 UNREPLIED
    < SA  seq 4999 ack 1000  win 1000          SYN_RECV 60
    +1.5s
    > A   seq 1000 ack 5000                    ESTABLISHED 432000 ASSURED
    < A   seq 999999 ack 1000                  INVALID seq_over_window bound 13193

Left, always in small letters (flags apart): direction (> of the first end, < of the second), what it is, then
words with a value.

    TCP     flags of S A F R P U E C, or 0 for none; seq, ack, win, len, wscale N, sack A-B, sackok, ts, badsum
    UDP     data; len
    ICMP    a type's number; code, id, len
    SCTP    chunk names joined by +, an init tag behind /, T flag as *:  init/7, data+heartbeat, abort*; vtag

Right, in capitals: the entry's state afterwards; INVALID (the packet); DROP; GONE (no entry); ASSURED, UNREPLIED,
REPLIED, LOOSE (not ASSURED); a number is the entry's timeout in whole seconds.  In small letters: the reason,
`as X` the packet's ctinfo, `counted` / `uncounted`, `WORD N` a number of the reason's detail, and `log …` up to
the end of the line the kernel's log text.  A line without a reason expects none (INVALID alone: any).

`+1.5s` lets time pass.  # starts a comment, a backslash at the end continues the line.  Lines are independent
of each other: what was sent before is only in the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import packets

from conntrack import Conn, Engine, Outcome
from conntrack.reasons import REASONS

TCP_STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"),
    "SYN_SENT2",
)
SCTP_STATES = (
    *("CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT"),
    "HEARTBEAT_SENT",
)
STATES = frozenset(TCP_STATES + SCTP_STATES)
CHUNKS = {
    "data": 0, "init": 1, "init_ack": 2, "sack": 3, "heartbeat": 4, "heartbeat_ack": 5, "abort": 6, "shutdown": 7,
    "shutdown_ack": 8, "error": 9, "cookie_echo": 10, "cookie_ack": 11, "shutdown_complete": 14, "asconf": 193,
}  # fmt: skip


def small_engine(**more: object) -> Engine:
    """An engine with the smallest table, so that `check()` costs little."""
    sysctl = {"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1, **more.pop("sysctl", {})}  # type: ignore[dict-item]
    return Engine(sysctl=sysctl, **{"seed": 1, **more})  # type: ignore[arg-type]


@dataclass
class Script:
    """Two ends that talk through an engine; `now` is the script's clock in seconds."""

    proto: int = packets.TCP
    ends: tuple[tuple[str, int], tuple[str, int]] = (("10.0.0.2", 1234), ("192.0.2.1", 80))
    sysctl: dict[str, int] = field(default_factory=dict)
    engine: Engine = None  # type: ignore[assignment]
    now: float = 1000.0
    last: Outcome = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.engine is None:
            self.engine = small_engine(sysctl=self.sysctl)

    def play(self, text: str) -> Script:
        """Run the lines; AssertionError quotes the one that went wrong."""
        for line in text.replace("\\\n", " ").strip().splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            if words[0].startswith("+"):
                self.now += float(words[0][1:].removesuffix("s"))
                continue
            sent, expected = _halves(words)
            outcome = self.send(sent[0] == "<", sent[1:])
            wrong = self._differences(outcome, sent[0] == "<", expected)
            assert not wrong, f"{line.strip()}\n    but {'; '.join(wrong)}\n    {outcome.to_dict()}"
            self.engine.check()
        return self

    def send(self, reply: bool, words: list[str]) -> Outcome:
        """Build the packet that `words` describe and let it pass."""
        (src, sport), (dst, dport) = self.ends[::-1] if reply else self.ends
        build: Callable[[int, int, list[str]], bytes] = _BUILDERS[self.proto]
        packet = packets.ip(src, dst, self.proto, build(sport, dport, words))
        if "badsum" in words:
            packet = packet[:-1] + bytes((packet[-1] ^ 0x55,))
        self.last = self.engine.process(packet, self.now)
        return self.last

    def entry(self, reply: bool = False) -> Conn | None:
        """The live entry that a packet of this direction would find, whichever way round it stands."""
        (src, sport), (dst, dport) = self.ends[::-1] if reply else self.ends
        for conn in self.engine.conns():
            for own in (conn.original, conn.answer):
                names = (own.src, own.dst) == (src, dst)
                if names and own.proto == self.proto and (not sport or (own.sport, own.dport) == (sport, dport)):
                    return conn
        return None

    def _differences(self, outcome: Outcome, reply: bool, expected: list[str]) -> list[str]:
        wrong: list[str] = []
        conn = self.entry(reply)
        reason: str | None = ""
        words = iter(expected)
        for word in words:
            if word == "log":
                text = " ".join(words)
                shown = (outcome.log_text() or "nothing").partition(": ")[2]
                wrong += [] if shown == text else [f"logged {shown!r}"]
            elif word == "INVALID":
                reason = None if reason == "" else reason
                wrong += [] if outcome.ctinfo == "INVALID" else [f"is {outcome.ctinfo}"]
            elif word == "DROP":
                reason = None if reason == "" else reason
                wrong += [] if outcome.verdict == "DROP" else [f"verdict {outcome.verdict}"]
            elif word == "GONE":
                wrong += [] if conn is None else [f"entry {conn}"]
            elif word == "as":
                ctinfo = next(words)
                wrong += [] if outcome.ctinfo == ctinfo else [f"is {outcome.ctinfo}"]
            elif word in ("counted", "uncounted"):
                wrong += [] if outcome.counted == (word == "counted") else [f"counted: {outcome.counted}"]
            elif word in REASONS:
                reason = word
            elif word.islower():
                value = next(words)
                found = outcome.detail.get(word)
                wrong += [] if str(found) == value else [f"{word} is {found}"]
            elif conn is None:
                wrong.append("there is no entry")
            elif word.isdigit():
                wrong += [] if conn.timeout() == int(word) else [f"timeout {conn.timeout()}"]
            elif word in STATES:
                wrong += [] if conn.state_name == word else [f"state {conn.state_name}"]
            else:
                names = conn.to_dict()["status"]
                name, wanted = _STATUS[word]
                wrong += [] if (name in names) == wanted else [f"status {names}"]
        if reason is not None and outcome.reason != reason:
            wrong.append(f"reason {outcome.reason!r} {outcome.detail}")
        if "INVALID" not in expected and outcome.ctinfo == "INVALID":
            wrong.append("is INVALID")
        return wrong


_STATUS = {
    "ASSURED": ("ASSURED", True),
    "LOOSE": ("ASSURED", False),
    "REPLIED": ("SEEN_REPLY", True),
    "UNREPLIED": ("SEEN_REPLY", False),
}
_EXPECTING = frozenset(
    (*STATES, *_STATUS, *REASONS, "INVALID", "DROP", "GONE", "log", "as", "counted", "uncounted")
)


def _halves(words: list[str]) -> tuple[list[str], list[str]]:
    """What is sent, what is expected: the second half begins with the first word that can only stand there."""
    at = 2
    while at < len(words) and words[at] not in _EXPECTING and not _stands_alone(words, at):
        at += 1
    return words[:at], words[at:]


def _stands_alone(words: list[str], at: int) -> bool:
    """A number that is no word's value: a timeout."""
    before = words[at - 1]
    complete = at == 2 or before.isdigit() or "-" in before or before in ("sackok", "ts", "badsum")
    return words[at].isdigit() and complete


def _values(words: list[str]) -> dict[str, str]:
    """The words behind the first, as a dict; words without a value give ''."""
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        values[word] = "" if word in ("sackok", "ts", "badsum") else next(rest)
    return values


def _tcp(sport: int, dport: int, words: list[str]) -> bytes:
    values = _values(words[1:])
    number = {name: int(values.get(name, default)) % 2**32 for name, default in (("seq", 0), ("ack", 0))}
    sack = [tuple(int(edge) for edge in values["sack"].split("-"))] if "sack" in values else None
    options = packets.tcp_options(
        wscale=int(values["wscale"]) if "wscale" in values else None,
        sackok="sackok" in values,
        sack=sack,  # type: ignore[arg-type]
        ts="ts" in values,
    )
    flags = "" if words[0] == "0" else words[0]
    number["win"] = int(values.get("win", 8192))
    return packets.tcp(sport, dport, flags, payload=bytes(int(values.get("len", 0))), options=options, **number)


def _udp(sport: int, dport: int, words: list[str]) -> bytes:
    return packets.udp(sport, dport, bytes(int(_values(words[1:]).get("len", 4))))


def _udplite(sport: int, dport: int, words: list[str]) -> bytes:
    return packets.udplite(sport, dport, bytes(int(_values(words[1:]).get("len", 4))))


def _icmp(sport: int, dport: int, words: list[str]) -> bytes:
    values = {name: int(value) for name, value in _values(words[1:]).items()}
    return packets.icmp(int(words[0]), values.get("code", 0), values.get("id", 7), 1, bytes(values.get("len", 8)))


def _sctp(sport: int, dport: int, words: list[str]) -> bytes:
    chunks = []
    for text in words[0].split("+"):
        name, _, tag = text.partition("/")
        kind = CHUNKS[name.removesuffix("*")]
        body = int(tag).to_bytes(4, "big") + bytes(12) if tag else bytes(12) if kind == 0 else bytes(4)
        chunks.append(packets.chunk(kind, body, flags=int(name.endswith("*"))))
    return packets.sctp(sport, dport, int(_values(words[1:]).get("vtag", 0)), *chunks)


def _plain(sport: int, dport: int, words: list[str]) -> bytes:
    return bytes(int(_values(words[1:]).get("len", 8)))


_BUILDERS = dict.fromkeys(range(256), _plain) | {
    packets.TCP: _tcp,
    packets.UDP: _udp,
    packets.UDPLITE: _udplite,
    packets.ICMP: _icmp,
    packets.ICMPV6: _icmp,
    packets.SCTP: _sctp,
}
