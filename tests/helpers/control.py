"""A control connection through an engine, for tests: the handshake, a greeting, and then what a test says."""

from __future__ import annotations

from dataclasses import dataclass, field

from packets import TCP, UDP, header_length, ip, tcp, udp

from conntrack import Engine, Outcome

HELPERS = {("tcp", 21): "ftp", ("udp", 69): "tftp"}
CLIENT, SERVER = "10.0.0.2", "93.184.216.34"


def engine(**more: object) -> Engine:
    """An engine with both helpers, the smallest table, accounting, and a listener."""
    sysctl = {"nf_conntrack_buckets": 512, "nf_conntrack_acct": 1, **more.pop("sysctl", {})}  # type: ignore[dict-item]
    made = Engine(**{"helpers": HELPERS, "seed": 1, "sysctl": sysctl, **more})  # type: ignore[arg-type]
    made.events  # noqa: B018  (asking is listening)
    return made


@dataclass
class Control:
    """FTP between two ends.  `public` is the client's address as the server sees it, `inside` the server's own if
    clients know another; an end's sequence numbers are its own, the other's shifted ones show in what arrives."""

    engine: Engine = field(default_factory=engine)
    client: str = CLIENT
    server: str = SERVER
    public: str = ""
    inside: str = ""
    port: int = 2000
    now: float = 1000.0
    seq: int = 1000  # next of the client
    answer: int = 5000  # next of the server
    heard: int = 1000  # the client's next number as the server knows it

    def __post_init__(self) -> None:
        self.public = self.public or self.client
        self.inside = self.inside or self.server
        self.c(b"", "S", seq=999)
        self.s(b"", "SA", seq=4999)
        self.c(b"", "A")
        self.s(b"220 hi\r\n")
        self.c(b"USER a\r\n")

    def c(self, payload: bytes, flags: str = "PA", *, seq: int | None = None, options: bytes = b"") -> Outcome:
        """The client sends, at `seq` or where it is."""
        ack = self.answer if "A" in flags else 0
        at = self.seq if seq is None else seq
        l4 = tcp(self.port, 21, flags, at, ack, payload=payload, options=options)
        outcome = self.process(ip(self.client, self.server, TCP, l4), "in0")
        if seq is None:
            self.seq += len(payload)
            if outcome.packets:
                data = outcome.packet[header_length(outcome.packet) :]
                self.heard += len(data) - (data[12] >> 4) * 4
        return outcome

    def s(self, payload: bytes, flags: str = "PA", *, seq: int | None = None, options: bytes = b"") -> Outcome:
        """The server answers what it has heard."""
        at = self.answer if seq is None else seq
        l4 = tcp(21, self.port, flags, at, self.heard, payload=payload, options=options)
        if seq is None:
            self.answer += len(payload)
        return self.process(ip(self.inside, self.public, TCP, l4), "out0")

    def connect(self, src: str, dst: str, sport: int, dport: int, flags: str = "S") -> Outcome:
        """Somebody opens a data connection."""
        iface = "in0" if src.startswith(("10.", "fd00:")) else "out0"
        return self.process(ip(src, dst, TCP, tcp(sport, dport, flags, seq=7)), iface)

    def datagram(self, src: str, dst: str, sport: int, dport: int, payload: bytes) -> Outcome:
        """A UDP datagram."""
        iface = "in0" if src.startswith(("10.", "fd00:")) else "out0"
        return self.process(ip(src, dst, UDP, udp(sport, dport, payload)), iface)

    def process(self, packet: bytes, iface: str) -> Outcome:
        """Any packet; the engine is checked behind it."""
        other = "out0" if iface == "in0" else "in0"
        outcome = self.engine.process(packet, self.now, iface=iface, out_iface=other)
        self.engine.check()
        return outcome

    def expected(self) -> list[str]:
        """What is expected, as `address port`."""
        return [f"{each.tuple.dst} {each.tuple.dport}" for each in self.engine.expectations()]

    def events(self) -> list[str]:
        """The events since the last look: kind, and port of what is expected or connected to."""
        out = []
        for event in self.engine.events:
            record = event.to_dict()
            out.append(f"{event.type} {record.get('tuple', record.get('orig'))['dport']}")
        return out


def payload(outcome: Outcome) -> bytes:
    """What a TCP segment that went out carries."""
    segment = outcome.packet[header_length(outcome.packet) :]
    return segment[(segment[12] >> 4) * 4 :]


def numbers(outcome: Outcome) -> tuple[int, int]:
    """(sequence, acknowledgement) of a segment that went out."""
    segment = outcome.packet[header_length(outcome.packet) :]
    return int.from_bytes(segment[4:8], "big"), int.from_bytes(segment[8:12], "big")
