"""The fast path: the ordinary packet of a known connection, judged, counted and rewritten in one function.

One rule: it does what the staged path (`engine`) would have done, to the bit, or nothing at all.  Every condition
is tested before the first write; whatever is unusual returns None, and the packet takes the stages instead.

    ordinary    IPv4 without options, IPv6 without extension headers; no fragment; captured whole; sum right
    TCP         ACK or FIN of a connection that saw both sides, and the SYN/ACK before; within the window without
                any special case; a plain cell of the grid
    UDP         any datagram of a confirmed connection, first answers too
    ICMP        echo and its answers
    connection  confirmed, alive, no helper, no renumbering, no event waiting or to be told
    new         SYN, UDP, echo: room in the table, nobody who expects or listens, no rule but plain source NAT, and
                a tuple that is free without a search

This is the one place where hand-inlining is allowed (docs/design.md); `tests/test_fast.py` holds it equal to the
staged path packet by packet.  What each trick gained stands in docs/performance.md:

    one `unpack_from` for all fields     the key is the wire's own octets       one record read, one written
    the checksum in one pass: addresses and segment lie side by side, so both sums are one `%`
    translation adds a constant of the connection to each sum (`Conn.changes`) and writes in place

Sources: those of `trackers/tcp.py`, `trackers/udp.py`, `trackers/icmp.py` and `nat/rewrite.py`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .conn import RECORD, Conn
from .expect import Expectation
from .nat.hook import NatHook
from .stats import Stats
from .sysctl import Settings
from .table import MIN_CHAIN, PRIME, Table
from .trackers.tcp import (
    C_ACK,
    C_SYN,
    C_SYNACK,
    CL,
    CLOSE_INIT,
    ES,
    FW,
    GRID,
    MASK,
    MAX_ACK_DELAY,
    MAXACK_SET,
    RETRANS,
    SACK_PERM,
    SIGN,
    SR,
    SS,
    TW,
    UNACK,
    UNACKED,
    WINDOW_SCALE,
    class_if_plain,
    options_of,
)
from .trackers.udp import STREAM_AFTER
from .verdict import (
    ASSISTED,
    ASSURED,
    CONFIRMED,
    DYING,
    ESTABLISHED,
    ESTABLISHED_REPLY,
    EXPECTED,
    FIXED_TIMEOUT,
    ICMP,
    ICMPV6,
    NAT_CLASH,
    NAT_DONE_MASK,
    NAT_MASK,
    NEW,
    SEEN_REPLY,
    SEQ_ADJUST,
    SRC_NAT,
    TCP,
    UDP,
)
from .wire.tcp import highest_sack

# From the first octet of the IP header on: length, fragment word, protocol, header sum, key, then of the TCP
# header sequence, acknowledgement, offset, flags, window, sum.  (UDP's length and sum lie where the sequence is.)
_IPV4: Final = Struct("!xxHxxHxBH12sIIBBHH")
_IPV6: Final = Struct("!xxxxHBx36sIIBBHH")
_LEAST4, _LEAST6 = 40, 60  # octets that must be there to be unpacked; a shorter UDP packet takes the stages
# The record of conn.py: clock, place (passed on as it is), changes; then what the tracker remembers.
_TCP_RECORD: Final = Struct("<QqQqQ24sHHIIIIBBIIIIBBIIIHBBBBB")
_UDP_RECORD: Final = Struct("<QqQqQ24sHHQ")
_ICMP_RECORD: Final = Struct("<QqQqQ24sHH")
_KEY4: Final = Struct("!4s4s2s2s")
_KEY6: Final = Struct("!16s16s2s2s")
_HEAD4: Final = Struct("!H4s4s2s2s")  # header sum, addresses, ports
_HEAD4_SRC: Final = Struct("!H4s")
_U16: Final = Struct("!H")

_ONLY_TIMESTAMP: Final = b"\x01\x01\x08\x0a"
_ECHO: Final = (0, 8, 128, 129)
_PLAIN: Final = tuple([class_if_plain(flags) for flags in range(256)])
_SETTLED: Final = CONFIRMED | DYING | FIXED_TIMEOUT | SEQ_ADJUST | ASSISTED | NAT_CLASH
_SETTLED_TCP: Final = _SETTLED | SEEN_REPLY
_MINE: Final = tuple([bytes((proto,)) for proto in range(256)])
_NO_LIMIT: Final = 1 << 62
_OCTETS: Final = (1 << 64) - 1

# a new connection's TCP memory: what `tcp.begin` and its first `tcp.track` leave of a SYN
_NEW_TCP: Final = Struct("<QqQqQQQQHHIIIIBBIIIIBBIIIHBBBBB")
_NEW_UDP: Final = Struct("<QqQqQQQQHHQ")


class FastPath:
    """Of one engine.  `until` is a time (ns) before which no timer fires; 0 closes the fast path.

    After `known` said which connection it was: `ctinfo`, `length` by the IP header, and in `out` the octets if they
    were rewritten.
    """

    __slots__ = (
        "_acct",
        "_checksum",
        "_expected",
        "_hook",
        "_icmp",
        "_icmp6",
        "_max_retrans",
        "_most",
        "_table",
        "_taken",
        "_tcp",
        "_timeouts",
        "_timestamp",
        "_udp",
        "ctinfo",
        "eager",
        "length",
        "nat",
        "out",
        "quiet",
        "until",
    )

    def __init__(self, table: Table, stats: Stats, hook: NatHook, expected: dict[int, Expectation]) -> None:
        self._hook = hook
        self._expected = expected
        self._most = 0
        self._acct = False
        self._timestamp = False
        self._table = table
        self._taken = stats.taken
        self._tcp = table.by_protocol[TCP]
        self._udp = table.by_protocol[UDP]
        self._icmp = table.by_protocol[ICMP]
        self._icmp6 = table.by_protocol[ICMPV6]
        self._checksum = True
        self._timeouts: tuple[tuple[int, ...], ...] = ()
        self._max_retrans = 0
        self.eager = False  # somebody has to be told of deadlines that come nearer
        self.nat = hook.registered
        self.quiet = False  # new connections concern nobody: no listener, no helper, no index of deadlines
        self.until: int = 0
        self.ctinfo: int = 0
        self.length: int = 0
        self.out: bytearray | None = None

    def set(self, settings: Settings) -> None:
        """Take over what the sysctls say."""
        self._checksum = settings.checksum
        self._timeouts = settings.timeouts
        self._max_retrans = settings.max_retrans
        self._acct = settings.acct
        self._timestamp = settings.timestamp
        self._most = settings.max_connections or _NO_LIMIT

    def known(
        self,
        data: bytes,
        at: int,
        stop: int,
        now: int,
        out: bytearray | None = None,
        out_iface: str | None = None,
    ) -> Conn | None:
        """The connection of the IP packet in data[at:stop], done; None: nothing was done, the stages decide.

        out        where to write a translated packet, at the same place; None: into a copy of data, kept in `out`
        out_iface  where it leaves, if that is known
        """
        table = self._table
        if not table.now <= now < self.until or stop - at < _LEAST4:
            return None

        # 1. Which connection?
        first = data[at]
        if first == 0x45:
            four = True
            length, word, proto, head_sum, key, seq, ack, offset, flags, window, sum_ = _IPV4.unpack_from(data, at)
            l4 = at + 20
            size = length - 20
            if word & 0x3FFF or length > stop - at:
                return None
        elif first >> 4 == 6 and stop - at >= _LEAST6:
            four = False
            head_sum = 0
            size, proto, key, seq, ack, offset, flags, window, sum_ = _IPV6.unpack_from(data, at)
            l4 = at + 40
            if size > stop - l4:
                return None
        else:
            return None
        if proto == TCP:
            kind = _PLAIN[flags]
            header = (offset >> 4) << 2
            if kind < 0 or header < 20 or header > size:
                return None
            by_key = self._tcp
        elif proto == UDP:
            sum_, length = seq & 0xFFFF, seq >> 16
            if length < 8 or length > size:
                return None
            kind = header = 0
            by_key = self._udp
        elif proto == (ICMP if four else ICMPV6):
            # the wire has type, code, sum, identifier; the key identifier, type, code
            if size < 8 or data[l4] not in _ECHO or (data[l4] < 128) != four:
                return None
            sum_ = data[l4 + 2] << 8 | data[l4 + 3]
            key = key[: 8 if four else 32] + data[l4 + 4 : l4 + 6] + data[l4 : l4 + 2]
            kind = header = 0
            by_key = self._icmp if four else self._icmp6
        else:
            return None
        conn = by_key.get(key)
        if conn is None:
            return self._fresh(
                data, at, l4, size, four, proto, key, by_key, kind, header, seq, window, head_sum, sum_, now, out,
                out_iface,
            )  # fmt: skip
        status: int = conn.status
        reply = key == conn.reply
        timeouts = conn.extra.timeouts
        if timeouts is None:
            timeouts = self._timeouts[proto]

        # 2. What does its tracker say?
        if proto == TCP:
            direction = 1 if reply else 0
            old = conn.state
            new = GRID[direction][kind][old]
            if kind == C_SYNACK:
                if new != SR or old != SS or status & _SETTLED_TCP != CONFIRMED or not reply:
                    return None
            elif new < ES or new > CL or status & _SETTLED_TCP != CONFIRMED | SEEN_REPLY:
                return None
            if reply:
                (
                    deadline, packets, sent, answers, received, place, ip_change, l4_change,
                    r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                    s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                    last_seq, last_ack, last_end, last_win, last_index, last_dir, last_scale, last_flags, retrans,
                ) = _TCP_RECORD.unpack(conn.record)  # fmt: skip
            else:
                (
                    deadline, packets, sent, answers, received, place, ip_change, l4_change,
                    s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                    r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                    last_seq, last_ack, last_end, last_win, last_index, last_dir, last_scale, last_flags, retrans,
                ) = _TCP_RECORD.unpack(conn.record)  # fmt: skip
            if kind == C_SYNACK:
                if s_maxwin:
                    return None
                # the answer's first octets: its options count, and both sides' scales only if both offered one
                s_end = s_maxend = end = (seq + size - header + 1) & MASK
                s_maxwin = window or 1
                if header > 20:
                    s_scale, s_flags = options_of(data, l4 + 20, l4 + header, s_flags)
                if not s_flags & r_flags & WINDOW_SCALE:
                    s_scale = r_scale = 0
                offered = window
            elif s_maxwin == 0 or (new == TW and last_index == C_SYN):
                return None
            else:
                end = (seq + size - header + (flags & 1)) & MASK
                offered = (window << s_scale) & MASK
            sack = ack
            if header > 20 and r_flags & SACK_PERM:
                if header != 32 or data[l4 + 20 : l4 + 24] != _ONLY_TIMESTAMP:
                    sack = highest_sack(data, l4 + 20, l4 + header, ack)
            reach = MAX_ACK_DELAY if s_maxwin < MAX_ACK_DELAY else s_maxwin
            if not (
                (seq - s_maxend - 1) & SIGN
                and (sack - r_end - 1) & SIGN
                and (r_maxwin == 0 or (s_end - r_maxwin - 1 - end) & SIGN)
                and (r_end - reach - 1 - sack) & SIGN
            ):
                return None
            room = (offered + sack - ack) & MASK
            if s_maxwin < room:
                s_maxwin = room
            if (s_end - end) & SIGN:
                s_end = end
                s_flags |= UNACKED
            if not s_flags & MAXACK_SET:
                s_maxack = ack
                s_flags |= MAXACK_SET
            elif (s_maxack - ack) & SIGN:
                s_maxack = ack
            if r_maxwin and (s_maxend - end) & SIGN:
                r_maxwin = (r_maxwin + end - s_maxend) & MASK
            if (r_maxend - 1 - sack - offered) & SIGN:
                r_maxend = (sack + offered + (offered == 0)) & MASK
            if ack == r_end:
                r_flags &= ~UNACKED
            if kind == C_ACK:
                if (
                    last_seq == seq
                    and last_end == end
                    and last_ack == ack
                    and last_win == window
                    and last_dir == direction
                ):
                    retrans = (retrans + 1) & 0xFF
                else:
                    retrans = 0
                last_seq, last_ack, last_end, last_win = seq, ack, end, window
            if new == FW and old != FW:
                s_flags |= CLOSE_INIT
            timeout = timeouts[new]
            if retrans >= self._max_retrans and timeout > timeouts[RETRANS]:
                timeout = timeouts[RETRANS]
            elif (s_flags | r_flags) & UNACKED and timeout > timeouts[UNACK]:
                timeout = timeouts[UNACK]
            elif last_win == 0 and timeout > timeouts[RETRANS]:
                timeout = timeouts[RETRANS]
            after = status | ASSURED if new == ES and (old == SR or old == ES) else status | SEEN_REPLY
            told = new != old or after != status
        else:
            if status & _SETTLED != CONFIRMED:
                return None
            old = new = 0
            after = status
            if proto == UDP:
                deadline, packets, sent, answers, received, place, ip_change, l4_change, stream_from = (
                    _UDP_RECORD.unpack(conn.record)
                )
                if status & SEEN_REPLY and now > stream_from:
                    timeout = timeouts[1]
                    after |= ASSURED
                else:
                    timeout = timeouts[0]
            else:
                deadline, packets, sent, answers, received, place, ip_change, l4_change = _ICMP_RECORD.unpack(
                    conn.record
                )
                timeout = timeouts[0]
            if reply:
                after |= SEEN_REPLY
            elif not status & SEEN_REPLY and (
                status & EXPECTED or (self.nat and status & NAT_DONE_MASK != NAT_DONE_MASK)
            ):
                return None
            told = after != status

        # 3. Is anything in the way?
        until = now + timeout
        if deadline <= now or (self.eager and until < deadline):
            return None
        pending = conn.pending
        if pending >= 0 and (told or pending):
            return None
        if table.journal is not None:
            return None
        rewrite = self.nat and status & NAT_MASK
        if rewrite and out_iface is not None and not reply:
            chosen = conn.extra.out_iface
            if chosen is not None and chosen != out_iface:
                return None
        if proto == ICMP:
            pseudo, covered = 0, l4
        else:
            pseudo, covered = proto + size, l4 - (8 if four else 32)
        if self._checksum:
            if sum_ or proto != UDP:
                total = int.from_bytes(data[covered : l4 + size], "big") % 0xFFFF
                if size & 1:
                    total <<= 8
                if (total + pseudo) % 0xFFFF:
                    return None
        elif rewrite and proto != ICMP:
            # left to the card?  Then it stays so, and the stages know how.
            total = int.from_bytes(data[covered:l4], "big") + pseudo
            if (sum_ - total) % 0xFFFF == 0:
                return None

        # 4. Nothing is.  Write.
        if packets >= 0:
            if reply:
                answers += 1
                received = (received + l4 - at + size) & _OCTETS
            else:
                packets += 1
                sent = (sent + l4 - at + size) & _OCTETS
        if proto == TCP:
            if reply:
                conn.record = _TCP_RECORD.pack(
                    until, packets, sent, answers, received, place, ip_change, l4_change,
                    r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                    s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                    last_seq, last_ack, last_end, last_win, kind, direction, last_scale, last_flags, retrans,
                )  # fmt: skip
            else:
                conn.record = _TCP_RECORD.pack(
                    until, packets, sent, answers, received, place, ip_change, l4_change,
                    s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                    r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                    last_seq, last_ack, last_end, last_win, kind, direction, last_scale, last_flags, retrans,
                )  # fmt: skip
            if new != old:
                conn.state = new
        elif proto == UDP:
            conn.record = _UDP_RECORD.pack(
                until, packets, sent, answers, received, place, ip_change, l4_change, stream_from
            )
        else:
            conn.record = _ICMP_RECORD.pack(until, packets, sent, answers, received, place, ip_change, l4_change)
        if told:
            conn.status = table.shared_status(after)
        table.now = now
        self.length = l4 - at + size
        ctinfo = ESTABLISHED_REPLY if reply else ESTABLISHED if status & SEEN_REPLY else NEW
        self.ctinfo = ctinfo
        if not rewrite:
            self._taken[proto << 4 | ctinfo << 1] += 1
            self.out = None
            return conn
        self._taken[proto << 4 | ctinfo << 1 | 1] += 1

        # 5. Translate: the addresses and ports that the other direction's tuple demands, inverted.
        if out is None:
            out = bytearray(data)
        self.out = out
        if reply:
            ip_change, l4_change = 0xFFFF - ip_change, 0xFFFF - l4_change
            other = conn.orig
        else:
            other = conn.reply
        # `update` of wire/checksum.py, inlined
        if four:
            dst, src, dst_u, src_u = _KEY4.unpack_from(other)
            head_sum = (((head_sum ^ 0xFFFF) + ip_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
            if proto == ICMP:
                out[at + 10 : at + 12] = head_sum.to_bytes(2, "big")
                out[at + 12 : at + 20] = src + dst
            else:
                _HEAD4.pack_into(out, at + 10, head_sum, src, dst, src_u, dst_u)
        else:
            dst, src, dst_u, src_u = _KEY6.unpack_from(other)
            if proto == ICMPV6:
                out[at + 8 : at + 40] = src + dst
            else:
                _KEY6.pack_into(out, at + 8, src, dst, src_u, dst_u)
        if proto == TCP:
            _U16.pack_into(out, l4 + 16, (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF)
        elif proto == UDP:
            if sum_:
                sum_ = (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
                _U16.pack_into(out, l4 + 6, sum_ or 0xFFFF)
        else:
            sum_ = (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
            _U16.pack_into(out, l4 + 2, sum_)
            out[l4 + 4 : l4 + 6] = dst_u  # the identifier is src.u of both directions
        return conn

    def _fresh(
        self,
        data: bytes,
        at: int,
        l4: int,
        size: int,
        four: bool,
        proto: int,
        key: bytes,
        by_key: dict[bytes, Conn],
        kind: int,
        header: int,
        seq: int,
        window: int,
        head_sum: int,
        sum_: int,
        now: int,
        out: bytearray | None,
        out_iface: str | None,
    ) -> Conn | None:
        """The same for a packet that no connection is known for: SYN, UDP datagram or echo request."""
        # 1. May it begin one here, and is nobody to be asked or told?
        table, hook = self._table, self._hook
        if not self.quiet or table.count >= self._most or self._expected or table.journal is not None:
            return None
        if proto == TCP:
            if kind != C_SYN or not self._max_retrans:
                return None
        elif proto != UDP and data[l4] != (8 if four else 128):
            return None
        translated = False
        if four:
            src, dst, src_u, dst_u = _KEY4.unpack(key)
        else:
            src, dst, src_u, dst_u = _KEY6.unpack(key)
        if proto == TCP or proto == UDP:
            reply = dst + src + dst_u + src_u
        else:
            reply = dst + src + src_u + (b"\0\0" if four else b"\x81\0")
            if data[l4 + 1]:
                return None
        if reply in by_key or reply == key:
            return None
        status = CONFIRMED
        if self.nat:
            # no destination rule, so the destination is bound to what it is; then the first source rule that fits
            rules = hook.plain4 if four else hook.plain6
            if rules is None or out_iface is not None:
                return None
            status |= NAT_DONE_MASK
            address = int.from_bytes(src, "big")
            for mask, network, to in rules:
                if address & mask == network:
                    if to == src:
                        return None
                    translated = True
                    status |= SRC_NAT
                    if proto == TCP or proto == UDP:
                        reply = dst + to + dst_u + src_u
                    else:
                        reply = dst + to + reply[-4:]
                    if reply in by_key:
                        return None
                    break
            source = _MINE[proto] + src + src_u
            if source in hook.chooser.by_source:
                return None

        # 2. The checksum.
        if proto == ICMP:
            pseudo, covered = 0, l4
        else:
            pseudo, covered = proto + size, l4 - (8 if four else 32)
        if self._checksum:
            if sum_ or proto != UDP:
                total = int.from_bytes(data[covered : l4 + size], "big") % 0xFFFF
                if size & 1:
                    total <<= 8
                if (total + pseudo) % 0xFFFF:
                    return None
        elif translated and proto != ICMP:
            return None  # it may be left to the card

        # 3. Its places in the table, as `Table.insert` has them.
        if four:
            secret, buckets = table.secret, table.buckets
            base = (proto + 1) * secret
            value = (base + int.from_bytes(key, "big")) * secret % PRIME
            one = (value * value % PRIME) * buckets >> 127
            value = (base + int.from_bytes(reply, "big")) * secret % PRIME
            two = (value * value % PRIME) * buckets >> 127
        else:
            one, two = table.bucket(key, proto), table.bucket(reply, proto)
        heads = table.heads
        head, other = heads[one], heads[two]
        if (isinstance(head, tuple) and len(head) >= MIN_CHAIN) or (
            isinstance(other, tuple) and len(other) >= MIN_CHAIN
        ):
            return None

        # 4. Nothing is in the way.  Make it.
        serial = table.serial + 1
        conn = Conn(table, key, reply, proto, serial)
        octets = l4 - at + size
        packets = answers = -1
        if self._acct:
            packets, answers, sent = 1, 0, octets
        else:
            sent = 0
        start = now if self._timestamp else 0
        ip_change = 0
        if translated:
            ip_change = (int.from_bytes(to, "big") - address) % 0xFFFF
        l4_change = 0 if proto == ICMP else ip_change
        timeouts = self._timeouts[proto]
        places = one << 32 | two
        if proto == TCP:
            end = (seq + size - header + 1) & MASK
            scale, flags = options_of(data, l4 + 20, l4 + header, 0) if header > 20 else (0, 0)
            timeout = timeouts[SS]
            if timeout > timeouts[RETRANS]:
                timeout = timeouts[RETRANS]
            room = window or 1
            conn.record = _NEW_TCP.pack(
                now + timeout, packets, sent, answers, 0, serial, places, start, ip_change, l4_change,
                end, end, room, 0, scale, flags, 0, room, 0, 0, 0, 0, 0, 0, 0, 0, C_SYN, 0, 0, 0, 0,
            )  # fmt: skip
            conn.state = SS
        elif proto == UDP:
            conn.record = _NEW_UDP.pack(
                now + timeouts[0], packets, sent, answers, 0, serial, places, start, ip_change, l4_change,
                now + STREAM_AFTER,
            )  # fmt: skip
        else:
            conn.record = RECORD.pack(
                now + timeouts[0], packets, sent, answers, 0, serial, places, start, ip_change, l4_change
            )
        conn.status = table.shared_status(status)
        table.serial = serial
        table.count += 1
        by_key[key] = conn
        by_key[reply] = conn
        if head is None:
            heads[one] = conn
        else:
            heads[one] = (conn, *head) if isinstance(head, tuple) else (conn, head)
        if one == two:
            other = heads[two]
        if other is None:
            heads[two] = conn
        else:
            heads[two] = (conn, *other) if isinstance(other, tuple) else (conn, other)
        if self.nat:
            hook.chooser.by_source[source] = conn
        table.now = now
        self.length = octets
        self.ctinfo = NEW
        if not translated:
            self._taken[proto << 4 | NEW << 1] += 1
            self.out = None
            return conn

        # 5. Translate: the source address, and what sums it.
        self._taken[proto << 4 | NEW << 1 | 1] += 1
        if out is None:
            out = bytearray(data)
        self.out = out
        if four:
            head_sum = (((head_sum ^ 0xFFFF) + ip_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
            _HEAD4_SRC.pack_into(out, at + 10, head_sum, to)
        else:
            out[at + 8 : at + 24] = to
        if proto == TCP:
            _U16.pack_into(out, l4 + 16, (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF)
        elif proto == UDP:
            if sum_:
                sum_ = (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF
                _U16.pack_into(out, l4 + 6, sum_ or 0xFFFF)
        else:
            _U16.pack_into(out, l4 + 2, (((sum_ ^ 0xFFFF) + l4_change) % 0xFFFF or 0xFFFF) ^ 0xFFFF)
        return conn
