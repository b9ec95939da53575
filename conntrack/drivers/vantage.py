"""Where a capture was taken: on one side of the NAT, the packets of the other side were never seen.

A capture from inside shows answers addressed to the private client, as they were *after* translation.  Given
to a translator as they are, every one would be INVALID, for the connection's answers are expected at the public
address.  So before the pipeline an answer is put back into the form that the other wire carried:

    view      wire seen           an answer (its inverse is a connection's original tuple)
    inside    before source NAT   server -> client     becomes  server -> public
    outside   before dest. NAT    public -> client     becomes  internal server -> client
    gateway   both sides          goes in as it is

An ICMP error is re-addressed likewise, and the packet it quotes too.  Of a fragmented answer every fragment gets
its address, the first also its port.  After the pipeline a re-addressed packet must equal the captured one; that
is checked and counted.  What answers nothing known goes in unchanged and is counted as unsolicited.

The engine knows nothing of all this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from ..conn import Conn
from ..engine import Engine
from ..nat import rewrite
from ..trackers import icmp, icmpv6
from ..tuples import bare, destination, halves, invert, source
from ..verdict import DST, DST_NAT, ICMP, ICMPV6, NAT_MASK, SRC, SRC_NAT
from ..wire.packet import Packet, parse, quoted

GATEWAY: Final = "gateway"
INSIDE: Final = "inside"
OUTSIDE: Final = "outside"
_LINK_LOCAL: Final = ("169.254.0.0/16", "fe80::/10")  # never from beyond this wire
VIEWS: Final = (GATEWAY, INSIDE, OUTSIDE)


@dataclass(slots=True)
class Seen:
    """What the vantage point has done so far, in packets.

    readdressed  answers put back into the other wire's form      unsolicited  answers to nothing known
    restored     of these, equal to the capture after the pipeline
    differing    of these, not equal
    """

    readdressed: int = 0
    unsolicited: int = 0
    restored: int = 0
    differing: int = 0


class Vantage:
    """Re-addresses the answers of a capture taken on one side, for one engine.

    `inside` are the networks (family octets, network, mask) on this side; they only tell which packets without a
    connection count as unsolicited.
    """

    __slots__ = ("_engine", "_inside", "_pairs", "seen", "view")

    def __init__(self, engine: Engine, view: str, inside: Sequence[str] = ()) -> None:
        if view not in VIEWS:
            raise ValueError(f"view {view!r} is none of {', '.join(VIEWS)}")
        self.view = view
        self.seen = Seen()
        self._engine = engine
        self._inside = Networks([*inside, *_LINK_LOCAL])
        # (source, destination) of an answer -> its connection; for fragments without ports
        self._pairs: dict[bytes, Conn] = {}

    def readdress(self, data: bytes, now: int, wire_length: int | None = None) -> bytes | None:
        """The packet as the other wire carried it at `now` (ns), or None: it goes in unchanged."""
        if self.view == GATEWAY:
            return None
        packet = parse(data, wire_length)
        if not packet.key or (not packet.l4 and not packet.fragment):
            return None
        conn, reason = self._connection(packet, now)
        if conn is None:
            if self._inbound(packet.key):
                self.seen.unsolicited += 1
            return None
        if not conn.status & NAT_MASK:
            return None
        self.seen.readdressed += 1
        reply = bare(conn.reply)
        if reason == "error":
            _readdress_error(packet, reply, conn)
        elif reason == "fragment":
            _readdress_address(packet, reply)
        else:
            if conn.status & SRC_NAT:  # what source NAT gave the packets, their answers are addressed to
                rewrite.replace(packet, conn.proto, DST, reply)
            if conn.status & DST_NAT:
                rewrite.replace(packet, conn.proto, SRC, reply)
        return bytes(packet.data)

    def note(self, conn: Conn | None) -> None:
        """Remember the addresses between which this connection's answers will come."""
        if self.view != GATEWAY and conn is not None and conn.status & NAT_MASK:
            self._pairs[bytes((conn.proto,)) + destination(conn.orig) + source(conn.orig)] = conn

    def compare(self, captured: bytes, packets: tuple[bytes, ...]) -> None:
        """Count whether a re-addressed packet came out of the pipeline as it was captured."""
        if any(captured == packet for packet in packets):
            self.seen.restored += 1
        else:
            self.seen.differing += 1

    def _connection(self, packet: Packet, now: int) -> tuple[Conn | None, str]:
        """The connection whose answer this packet is, and how that was seen."""
        proto, key = packet.proto, packet.key
        if packet.fragment and packet.fault:
            return self._pairs.get(bytes((proto,)) + source(key) + destination(key)), "fragment"
        if packet.fault:
            return None, ""
        at = _quote_at(packet)
        if at:
            inner, _, quote = quoted(packet.data, packet.family, at, packet.end)
            conn = self._engine.find(quote, inner, now) if quote else None
            if conn is not None and bare(conn.orig) == quote and source(quote) == destination(key):
                return conn, "error"
            return None, "error"
        inverse = invert(key, proto)
        if not inverse or inverse == key:
            return None, ""
        conn = self._engine.find(inverse, proto, now)
        if conn is None or bare(conn.orig) != inverse:
            return None, ""
        return conn, "answer"

    def _inbound(self, key: bytes) -> bool:
        """From the other side to this one, as far as the networks tell?"""
        if self.view == INSIDE:
            return destination(key) in self._inside and source(key) not in self._inside
        return source(key) in self._inside and destination(key) not in self._inside


class Networks:
    """Networks of both families; `address in networks` for a packed address.  ValueError quotes a bad one."""

    __slots__ = ("_rows",)

    def __init__(self, texts: Sequence[str]) -> None:
        self._rows: list[tuple[int, int, int]] = []  # address octets, network, mask
        for text in texts:
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is no network") from None
            row = network.max_prefixlen // 8, int(network.network_address), int(network.netmask)
            self._rows.append(row)

    def __contains__(self, address: bytes) -> bool:
        value, size = int.from_bytes(address, "big"), len(address)
        return any(size == width and value & mask == network for width, network, mask in self._rows)


def _quote_at(packet: Packet) -> int:
    """Where an ICMP error's quoted packet starts; 0 if this is none."""
    if packet.proto not in (ICMP, ICMPV6) or packet.lacks(8):
        return 0
    at, _ = icmp.quote_offset(packet) if packet.proto == ICMP else icmpv6.quote_offset(packet)
    return at


def _readdress_error(packet: Packet, reply: bytes, conn: Conn) -> None:
    """An error about an original packet: quote and outer destination become the other wire's.

    So does an outer source that is the destination of the quoted packet; another router's stays.
    """
    forward = invert(reply, conn.proto)
    for manip in (SRC, DST):
        rewrite.replace_quoted(packet, manip, forward)
    from_the_end = source(packet.key) == destination(conn.orig)
    for manip in (SRC, DST) if from_the_end else (DST,):
        rewrite.replace(packet, packet.proto, manip, reply)


def _readdress_address(packet: Packet, reply: bytes) -> None:
    """A later fragment has only addresses to change."""
    src, dst, _, _ = halves(reply)
    rewrite.replace_address(packet, SRC, src)
    rewrite.replace_address(packet, DST, dst)
