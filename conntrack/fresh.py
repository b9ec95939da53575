"""The first packet of an ordinary connection, beside the fast path (`fast`): SYN, UDP datagram or echo request.

One rule: as in `fast`, it does what the stages would have done, to the bit, or nothing at all; every condition
stands ahead of the first write.

    nobody is asked or told    no listener, helper or expectation; room in the table
    nothing has to be chosen   no rule but plain source NAT (`nat.rules.plain_rules`), and a tuple that is free
                               without a search

`begin` makes the connection and confirms it; the caller passes and translates the packet.

Sources: those of `engine` (init_conntrack, __nf_conntrack_confirm), `trackers/tcp.py` and `nat/choose.py`.
"""

from __future__ import annotations

from typing import Final

from .conn import RECORD, Conn, packed_memory
from .expect import Expectation
from .nat.hook import NatHook
from .sysctl import Settings
from .table import Table
from .trackers.tcp import C_SYN, MASK, MEMORY, RETRANS, SS, class_if_plain, options_of
from .trackers.udp import STREAM_AFTER
from .tuples import halves, invert
from .verdict import CONFIRMED, ICMP, NAT_DONE_MASK, SRC_NAT, TCP, UDP
from .wire.checksum import difference
from .wire.fields import words
from .wire.tcp import HEADER

_NO_LIMIT: Final = 1 << 62
_ECHO_REQUESTS: Final = (8, 128)
_SYN: Final = frozenset(flags for flags in range(256) if class_if_plain(flags) == C_SYN)


class FreshPath:
    """Of one engine.  `quiet`: a new connection concerns nobody, be it a listener, a helper or an index of
    deadlines."""

    __slots__ = ("_acct", "_checksum", "_expected", "_hook", "_max_retrans", "_most", "_table", "_timeouts",
                 "_timestamp", "quiet")  # fmt: skip

    def __init__(self, table: Table, hook: NatHook, expected: dict[int, Expectation]) -> None:
        self._table = table
        self._hook = hook
        self._expected = expected
        self._acct = False
        self._checksum = True
        self._max_retrans = 0
        self._most = 0
        self._timeouts: tuple[tuple[int, ...], ...] = ()
        self._timestamp = False
        self.quiet = False

    def set(self, settings: Settings) -> None:
        """Take over what the sysctls say."""
        self._acct = settings.acct
        self._checksum = settings.checksum
        self._max_retrans = settings.max_retrans
        self._most = settings.max_connections or _NO_LIMIT
        self._timeouts = settings.timeouts
        self._timestamp = settings.timestamp

    def begin(
        self,
        data: bytes,
        at: int,
        l4: int,
        size: int,
        proto: int,
        key: bytes,
        sum_: int,
        now: int,
        out_iface: str | None,
    ) -> Conn | None:
        """The connection that the IP packet at data[at:] begins; None: nothing was done, the stages decide.

        `l4`, `size`: its transport header, and the octets from there on; `key`, `sum_`: its tuple and checksum.
        The packet is whole, its headers are plain, and no connection has its tuple.
        """
        table, hook = self._table, self._hook
        if not self.quiet or table.count >= self._most or self._expected or table.journal is not None:
            return None
        if proto == TCP:
            if data[l4 + 13] not in _SYN or not self._max_retrans:
                return None
        elif proto != UDP and (data[l4] not in _ECHO_REQUESTS or data[l4 + 1]):
            return None

        # Which answers will it have, and may it have them?
        by_key = table.by_protocol[proto]
        reply = invert(key, proto)
        if reply in by_key or reply == key:
            return None
        status = CONFIRMED
        source = b""
        ip_change = 0
        if hook.registered:
            # no destination rule, so the destination is bound to what it is; then the first source rule that fits
            rules = hook.plain4 if len(key) < 16 else hook.plain6
            if rules is None or out_iface is not None:
                return None
            src, dst, src_u, _ = halves(key)
            source = bytes((proto,)) + src + src_u
            if hook.chooser.known(source):
                return None
            status |= NAT_DONE_MASK
            address = int.from_bytes(src, "big")
            for mask, network, to, spared in rules:
                if address & mask == network and not (spared and _among(dst, spared)):
                    reply = dst + to + reply[2 * len(to) :]
                    if to == src or reply in by_key:
                        return None
                    status |= SRC_NAT
                    ip_change = difference(src, to)
                    break
        if self._checksum:
            # addresses and segment lie side by side
            if proto == ICMP:
                if words(data, l4, l4 + size):
                    return None
            elif sum_ or proto != UDP:
                if (words(data, l4 - (8 if len(key) < 16 else 32), l4 + size) + proto + size) % 0xFFFF:
                    return None
        elif status & SRC_NAT and proto != ICMP:
            return None  # the sum may be left to the card
        places = table.places(key, reply, proto)
        if places < 0:
            return None

        # Nothing is in the way: make it.
        memory, timeout = self._remembered(data, l4, size, proto, now)
        packets, answers, sent = (1, 0, l4 - at + size) if self._acct else (-1, -1, 0)
        start = now if self._timestamp else 0
        table.serial += 1
        table.count += 1
        record = RECORD.pack(
            now + timeout, packets, sent, answers, 0, table.serial, places, start, ip_change,
            0 if proto == ICMP else ip_change,
        )  # fmt: skip
        conn = Conn(table, key, reply, proto, record + memory)
        conn.state = SS if proto == TCP else 0
        conn.status = table.shared_status(status)
        table.place(conn, places)
        if source:
            hook.chooser.remember(conn, source)
        return conn

    def _remembered(self, data: bytes, l4: int, size: int, proto: int, now: int) -> tuple[bytes, int]:
        """(the tracker's memory, packed; its timeout) after the first packet: of a SYN what `tcp.begin` and the
        first `tcp.track` leave."""
        timeouts = self._timeouts[proto]
        if proto == UDP:
            return packed_memory(now + STREAM_AFTER), timeouts[0]
        if proto != TCP:
            return b"", timeouts[0]
        seq, _, offset, _, window = HEADER.unpack_from(data, l4 + 4)
        header = (offset >> 4) << 2
        end = (seq + size - header + 1) & MASK
        window = window or 1
        scale, flags = options_of(data, l4 + 20, l4 + header, 0) if header > 20 else (0, 0)
        memory = MEMORY.pack(
            end, end, window, 0, scale, flags, 0, window, 0, 0, 0, 0, 0, 0, 0, 0, C_SYN, 0, 0, 0, 0
        )  # fmt: skip
        return memory, min(timeouts[SS], timeouts[RETRANS])


def _among(address: bytes, networks: tuple[tuple[int, int], ...]) -> bool:
    number = int.from_bytes(address, "big")
    return any(number & mask == network for mask, network in networks)
