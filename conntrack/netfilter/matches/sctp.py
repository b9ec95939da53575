"""-m sctp: ports and chunk types.

    any   one of the listed chunks is there    all   each of them is    only   no other is there

A chunk may carry flags it must have (capital letter) or not have (small one).  A header that is not whole, a chunk
that runs out of the packet and a chunk of length 0 drop the packet.

The tool keeps flags by the place of the name in its own list, not by the chunk's number; the two differ from I_DATA
on, so flags of those chunks have no effect.  So they have none here.

Sources: libxt_sctp.c of iptables 1.8.9; xt_sctp.c; RFC 9260, 3758, 5061, 6525, 8260 (chunk numbers).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...verdict import DROP, SCTP
from ...wire.packet import Packet
from ..box import Box
from ..rules.errors import Refused
from ..rules.extension import MATCH, Argument, Extension, Given, Option
from ..rules.text import port_range
from ..rules.transport import transport
from ..skb import Skb

_HEADER, _CHUNK = 12, 4  # octets of the common header and of a chunk's
_MOST_FLAGS = 4  # chunks with flags in one rule: XT_NUM_SCTP_FLAGS

# name:number, and the letters of the flags that it has, from bit 7 down
_CHUNKS = """
    DATA:0:----IUBE INIT:1 INIT_ACK:2 SACK:3 HEARTBEAT:4 HEARTBEAT_ACK:5 ABORT:6:-------T SHUTDOWN:7 SHUTDOWN_ACK:8
    ERROR:9 COOKIE_ECHO:10 COOKIE_ACK:11 ECN_ECNE:12 ECN_CWR:13 SHUTDOWN_COMPLETE:14:-------T I_DATA:64:----IUBE
    RE_CONFIG:130 PAD:132 ASCONF:193 ASCONF_ACK:128 FORWARD_TSN:192 I_FORWARD_TSN:194
"""
_PARTS = [entry.split(":") for entry in _CHUNKS.split()]
_NUMBERS = {part[0]: int(part[1]) for part in _PARTS}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_LETTERS = {part[0]: part[2] if len(part) > 2 else "--------" for part in _PARTS}
_PLACES = {part[0]: place for place, part in enumerate(_PARTS)}
_ALL = frozenset(range(256))


@dataclass(frozen=True, slots=True)
class Chunks:
    """mode: "any", "all" or "only"; numbers of chunks; (number, mask of flags, what they must be)"""

    mode: str
    numbers: frozenset[int]
    flags: tuple[tuple[int, int, int], ...] = ()

    def hold(self, packet: Packet, at: int) -> bool:
        """Do the chunks from offset `at` on fit?"""
        missing = set(self.numbers)
        data = packet.data
        while True:
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            if at + _CHUNK > packet.end or size == 0:
                packet.verdict = DROP
                return False
            kind = data[at]
            if kind in self.numbers:
                if self._flagged(kind, data[at + 1]):
                    if self.mode == "any":
                        return True
                    missing.discard(kind)
                elif self.mode == "only":
                    return False
            elif self.mode == "only":
                return False
            at += (size + 3) & ~3
            if at >= packet.end:
                return self.mode == "only" or (self.mode == "all" and not missing)

    def _flagged(self, kind: int, flags: int) -> bool:
        for number, mask, wanted in self.flags:
            if number == kind:
                return flags & mask == wanted
        return True

    def text(self) -> str:
        """As --chunk-types has it."""
        if not self.numbers:
            return f"{self.mode} NONE"
        if self.numbers == _ALL:
            return f"{self.mode} ALL"
        return f"{self.mode} {','.join(self._chunk_text(number) for number in sorted(self.numbers))}"

    def _chunk_text(self, number: int) -> str:
        text = name = _NAMES[number]
        for its_number, mask, wanted in self.flags:
            if its_number == number:
                letters = [
                    letter if wanted >> bit & 1 else letter.lower()
                    for bit, letter in zip(range(7, -1, -1), _LETTERS[name], strict=True)
                    if mask >> bit & 1
                ]
                text += (":" if letters else "") + "".join(letters)
        return text


@dataclass(frozen=True, slots=True)
class Sctp:
    """Ranges of source and destination port, None for no condition; chunks"""

    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None
    chunks: Chunks | None = None
    not_source: bool = False
    not_destination: bool = False
    not_chunks: bool = False

    @property
    def name(self) -> str:
        """-m sctp"""
        return "sctp"

    def matches(self, skb: Skb, hook: int, box: Box) -> bool:
        """Do ports and chunks fit?"""
        packet = skb.packet
        head = transport(packet)
        if head is None or head.fragment:
            return False
        data, at = packet.data, head.at
        if at + _HEADER > packet.end:
            packet.verdict = DROP
            return False
        for offset, ports, inverted in (
            (at, self.source, self.not_source),
            (at + 2, self.destination, self.not_destination),
        ):
            if ports is not None:
                port = data[offset] << 8 | data[offset + 1]
                if (ports[0] <= port <= ports[1]) == inverted:
                    return False
        return self.chunks is None or (
            self.chunks.hold(packet, at + _HEADER) != self.not_chunks and packet.verdict != DROP
        )

    def text(self) -> str:
        """The options."""
        words = []
        for option, ports, inverted in (
            ("sport", self.source, self.not_source),
            ("dport", self.destination, self.not_destination),
        ):
            if ports is not None:
                low, high = ports
                words.append(f"{'! ' * inverted}--{option} {low}" + (f":{high}" if high != low else ""))
        if self.chunks is not None:
            words.append(f"{'! ' * self.not_chunks}--chunk-types {self.chunks.text()}")
        return " ".join(words)


def _parse_ports(argument: Argument) -> tuple[int, int]:
    return port_range(argument.text, "sctp")


def _parse_chunks(argument: Argument) -> Chunks:
    mode, listed = argument.text.lower(), argument.second.upper()
    if mode not in ("any", "all", "only"):
        raise Refused('Match type has to be one of "ALL", "ANY" or "ONLY"')
    if listed in ("ALL", "NONE"):
        return Chunks(mode, _ALL if listed == "ALL" else frozenset())
    numbers = set()
    flags: dict[int, tuple[int, int]] = {}
    for part in argument.second.split(","):
        if not part:
            continue  # strtok passes over empty ones
        name, colon, letters = part.partition(":")
        name = name.upper()
        if name not in _NUMBERS:
            raise Refused(f"Unknown sctp chunk `{part}'")
        numbers.add(_NUMBERS[name])
        for letter in letters if colon else "":
            place = _PLACES[name]
            position = _LETTERS[name].find(letter.upper())
            if position < 0:
                raise Refused(f"Invalid flags for chunk type {place}")
            if place not in flags and len(flags) == _MOST_FLAGS:
                raise Refused("Number of chunk types with flags exceeds currently allowed limit")
            mask, wanted = flags.get(place, (0, 0))
            bit = 1 << (7 - position)
            flags[place] = mask | bit, wanted | (bit if letter.isupper() else 0)
    return Chunks(mode, frozenset(numbers), tuple((place, *pair) for place, pair in flags.items()))


def _build(given: Given) -> Sctp:
    return Sctp(
        given.get("sport"),
        given.get("dport"),
        given.get("chunk-types"),
        given.inverted("sport"),
        given.inverted("dport"),
        given.inverted("chunk-types"),
    )


EXTENSION = Extension(
    MATCH,
    "sctp",
    _build,
    (
        Option("source-port", _parse_ports, "sport", invert=True),
        Option("sport", _parse_ports, invert=True),
        Option("destination-port", _parse_ports, "dport", invert=True),
        Option("dport", _parse_ports, invert=True),
        Option("chunk-types", _parse_chunks, words=2, invert=True),
    ),
    proto=SCTP,
)
