"""The fast path: the ordinary packet of a known connection, judged, counted and rewritten in one go.

    octets ─► which connection? ─┬─ known ─► steady? ─┬─ yes ─────────────────────────┬─► write ─┬─► translate
                                 │                    └─ no ─► its tracker, in short ─┘          │
                                 └─ none ─► fresh.begin ─────────────────────────────────────────┘

One rule: it does what the staged path (`engine`) would have done, to the bit, or nothing at all.  Every condition
is tested before the first write; whatever is unusual returns None, and the packet takes the stages instead.

    ordinary    IPv4 without options, IPv6 without extension headers; no fragment; captured whole; sum right
    TCP         ACK or FIN of a connection that saw both sides, and the SYN/ACK before; within the window without
                any special case; a plain cell of the grid
      steady    of these, a segment of an established connection that begins where its side's last one ended,
                acknowledges nothing that was not sent or is long past, and repeats nothing: most tests of the
                window then hold by themselves (each line says which)
    UDP         any datagram of a confirmed connection, first answers too
    ICMP        echo and its answers
    connection  confirmed, alive, no helper, no renumbering, no event waiting or to be told

`known` is the one place where hand-inlining is allowed (docs/design.md); `tests/test_fast.py` holds it equal to the
staged path packet by packet.  What it gains stands in docs/performance.md:

    one read for all fields              the key is the wire's own octets       one record read, one written
    the checksum in one pass: addresses and segment lie side by side, so both sums are one `%`
    translation adds a constant of the connection to each sum (`Conn.changes`) and writes in place

Sources: those of `trackers/tcp.py`, `trackers/udp.py`, `trackers/icmp.py` and `nat/rewrite.py`.
"""

from __future__ import annotations

from struct import error
from typing import TYPE_CHECKING, Final

from .conn import NO_EXTRA, Conn
from .fresh import FreshPath
from .stats import Stats
from .sysctl import Settings
from .table import Table
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
from .verdict import (
    ASSISTED,
    ASSURED,
    CONFIRMED,
    DST_NAT,
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
from .wire.fields import (
    OCTETS,
    Octets,
    changeable,
    ends4,
    ends6,
    icmp_record,
    pack_icmp,
    pack_tcp,
    pack_udp,
    put16,
    put_echo4,
    put_echo6,
    put_head4,
    put_head6,
    segment4,
    segment6,
    tcp_record,
    udp_record,
    words,
)
from .wire.tcp import highest_sack

if TYPE_CHECKING:
    from mypy_extensions import i64  # numbers that are no objects, where compiled; nothing otherwise

_READ: Final = 18  # octets of a transport header that are read at once; shorter datagrams take the stages
_OVERSIZE: Final = 1 << 16
# Octets of the TCP header, by the octet that says so; more than any packet has, if it is less than a header.
_HEADER: Final = tuple([(offset >> 4) << 2 if offset >= 0x50 else _OVERSIZE for offset in range(256)])
_ONLY_TIMESTAMP: Final = b"\x01\x01\x08\x0a"
_ECHO: Final = (0, 8, 128, 129)
_PLAIN: Final = tuple([class_if_plain(flags) for flags in range(256)])
_SETTLED: Final = CONFIRMED | DYING | FIXED_TIMEOUT | SEQ_ADJUST | ASSISTED | NAT_CLASH
_SETTLED_TCP: Final = _SETTLED | SEEN_REPLY
# Every status that a steady connection can have.
_STEADY: Final = frozenset(
    CONFIRMED | SEEN_REPLY | ASSURED | nat | done
    for nat in (0, SRC_NAT, DST_NAT, SRC_NAT | DST_NAT)
    for done in (0, NAT_DONE_MASK)
)
_WIDE: Final = 0xC0000000  # a window with one of these bits is larger than any that can be offered
_ROOM: Final = 0x7FFE0000  # a difference below this, and below it with a segment's length added, is no negative one


class FastPath:
    """Of one engine.  `until` is a time (ns) before which no timer fires; 0 closes the fast path.

    After `known` said which connection it was: `ctinfo`, `length` by the IP header, and in `out` the octets if they
    were rewritten.
    """

    __slots__ = (
        "_checksum",
        "_fresh",
        "_icmp",
        "_icmp6",
        "_max_retrans",
        "_open",
        "_open_unacked",
        "_table",
        "_taken",
        "_tcp",
        "_timeouts",
        "_udp",
        "ctinfo",
        "eager",
        "length",
        "nat",
        "out",
        "until",
    )

    def __init__(self, table: Table, stats: Stats, nat: bool, fresh: FreshPath) -> None:
        self._fresh = fresh
        self._table = table
        self._taken = stats.taken
        self._tcp = table.by_protocol[TCP]
        self._udp = table.by_protocol[UDP]
        self._icmp = table.by_protocol[ICMP]
        self._icmp6 = table.by_protocol[ICMPV6]
        self._checksum = True
        self._timeouts: tuple[tuple[int, ...], ...] = ()
        self._max_retrans = 0
        self._open = self._open_unacked = 0
        self.eager = False  # somebody has to be told of deadlines that come nearer
        self.nat = nat  # translation is hooked in
        self.until: int = 0
        self.ctinfo: int = 0
        self.length: int = 0
        self.out: Octets | None = None

    def set(self, settings: Settings) -> None:
        """Take over what the sysctls say."""
        self._checksum = settings.checksum
        self._timeouts = settings.timeouts
        self._max_retrans = settings.max_retrans
        self._open = settings.timeouts[TCP][ES]
        self._open_unacked = min(self._open, settings.timeouts[TCP][UNACK])

    def known(
        self,
        data: bytes,
        at: i64,
        stop: i64,
        now: i64,
        out: Octets | None = None,
        out_iface: str | None = None,
    ) -> Conn | None:
        """The connection of the IP packet in data[at:stop], done; None: nothing was done, the stages decide.

        out        where to write a translated packet, at the same place; None: into a copy of data, kept in `out`
        out_iface  where it leaves, if that is known
        """
        table = self._table
        if not table.now <= now < self.until:
            return None

        # 1. Which connection?
        try:
            first = data[at]
            if first == 0x45:
                four = True
                length, word, proto, head_sum, key, seq, ack, offset, flags, window, sum_ = segment4(data, at)
                if word & 0x3FFF or at + length > stop:
                    return None
                l4 = at + 20
                size = length - 20
            elif first >> 4 == 6:
                four = False
                size, proto, key, seq, ack, offset, flags, window, sum_ = segment6(data, at)
                l4 = at + 40
                length = size + 40
                if l4 + size > stop:
                    return None
            else:
                return None
        except (error, IndexError):
            return None  # too short to be read at once
        if proto == TCP:
            kind = _PLAIN[flags]
            header = _HEADER[offset]
            if header > size or kind < 0:
                return None
            conn = self._tcp.get(key)
        elif proto == UDP:
            sum_, covered = seq & 0xFFFF, seq >> 16
            if covered < 8 or covered > size or l4 + _READ > stop:
                return None
            conn = self._udp.get(key)
        elif proto == (ICMP if four else ICMPV6):
            # the wire has type, code, sum, identifier; the key identifier, type, code
            if size < 8 or l4 + _READ > stop or data[l4] not in _ECHO or (data[l4] < 128) != four:
                return None
            sum_ = data[l4 + 2] << 8 | data[l4 + 3]
            key = key[: 8 if four else 32] + data[l4 + 4 : l4 + 6] + data[l4 : l4 + 2]
            conn = (self._icmp if four else self._icmp6).get(key)
        else:
            return None

        if conn is None:
            conn = self._fresh.begin(data, at, l4, size, proto, key, sum_, now, out_iface)
            if conn is None:
                return None
            reply = False
            ctinfo = NEW
            status: int = conn.status
            ip_change, l4_change = conn.changes
        else:
            status = conn.status
            reply = key == conn.reply

            # 2. What does its tracker say?
            told = False
            if proto == TCP:
                old = new = conn.state
                if reply:
                    (
                        deadline, packets, sent, answers, received, place, ip_change, l4_change,
                        r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                        s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                        last_seq, last_ack, last_end, last_win,
                        last_index, last_dir, last_scale, last_flags, retrans,
                    ) = tcp_record(conn.record)  # fmt: skip
                else:
                    (
                        deadline, packets, sent, answers, received, place, ip_change, l4_change,
                        s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                        r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                        last_seq, last_ack, last_end, last_win,
                        last_index, last_dir, last_scale, last_flags, retrans,
                    ) = tcp_record(conn.record)  # fmt: skip
                end = (seq + size - header) & MASK
                if (
                    old == ES
                    and kind == C_ACK  # established, and stays so
                    and seq == s_end  # not before the window
                    and status in _STEADY  # settled, and nothing to add to it
                    and (s_maxend - end) & MASK < _ROOM  # not behind the window, and the receiver's need not grow
                    and (r_end - ack) & MASK <= MAX_ACK_DELAY  # what it acknowledges was sent, and not long ago
                    and window  # a closed window has a timeout of its own
                    and (header == 20 or (header == 32 and data[l4 + 20 : l4 + 24] == _ONLY_TIMESTAMP))  # no SACK
                    and s_maxwin  # the sender was seen before
                    and not (s_maxwin | r_maxwin) & _WIDE  # no test of the window wraps
                    and (
                        last_seq != seq or last_end != end or last_ack != ack or last_win != window
                    )  # no repetition
                    and s_flags & MAXACK_SET
                    and conn.extra is NO_EXTRA  # the sysctls' timeouts; leaves wherever it likes
                    and self._max_retrans
                ):
                    offered = window << s_scale
                    if s_maxwin < offered:
                        s_maxwin = offered
                    if end != seq:
                        s_end = end
                        s_flags |= UNACKED
                    if (s_maxack - ack) & SIGN:
                        s_maxack = ack
                    offered += ack
                    if (r_maxend - 1 - offered) & SIGN:
                        r_maxend = offered & MASK
                    if ack == r_end:
                        r_flags &= ~UNACKED
                    retrans = 0
                    timeout = self._open_unacked if (s_flags | r_flags) & UNACKED else self._open
                    last_seq, last_ack, last_end, last_win = seq, ack, end, window
                    direction: int = reply
                else:
                    direction = 1 if reply else 0
                    new = GRID[direction][kind][old]
                    if kind == C_SYNACK:
                        if new != SR or old != SS or status & _SETTLED_TCP != CONFIRMED or not reply or s_maxwin:
                            return None
                        # the answer's first octets: its options count; scales only if both sides offered one
                        s_end = s_maxend = end = (end + 1) & MASK
                        s_maxwin = window or 1
                        if header > 20:
                            s_scale, s_flags = options_of(data, l4 + 20, l4 + header, s_flags)
                        if not s_flags & r_flags & WINDOW_SCALE:
                            s_scale = r_scale = 0
                        offered = window
                    elif (
                        new < ES
                        or new > CL
                        or status & _SETTLED_TCP != CONFIRMED | SEEN_REPLY
                        or s_maxwin == 0
                        or (new == TW and last_index == C_SYN)
                    ):
                        return None
                    else:
                        end = (end + (flags & 1)) & MASK
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
                    timeouts = conn.extra.timeouts or self._timeouts[TCP]
                    timeout = timeouts[new]
                    if retrans >= self._max_retrans and timeout > timeouts[RETRANS]:
                        timeout = timeouts[RETRANS]
                    elif (s_flags | r_flags) & UNACKED and timeout > timeouts[UNACK]:
                        timeout = timeouts[UNACK]
                    elif last_win == 0 and timeout > timeouts[RETRANS]:
                        timeout = timeouts[RETRANS]
                    after = status | (ASSURED if new == ES and (old == SR or old == ES) else SEEN_REPLY)
                    told = new != old or after != status
            else:
                if status & _SETTLED != CONFIRMED:
                    return None
                after = status
                timeouts = conn.extra.timeouts or self._timeouts[proto]
                if proto == UDP:
                    deadline, packets, sent, answers, received, place, ip_change, l4_change, stream_from = (
                        udp_record(conn.record)
                    )
                    if status & SEEN_REPLY and now > stream_from:
                        timeout = timeouts[1]
                        after |= ASSURED
                    else:
                        timeout = timeouts[0]
                else:
                    deadline, packets, sent, answers, received, place, ip_change, l4_change = icmp_record(
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
            pending = conn.pending
            if deadline <= now or (self.eager and until < deadline) or pending > 0 or (told and pending >= 0):
                return None
            if out_iface is not None and status & NAT_MASK and not reply:
                chosen = conn.extra.out_iface
                if chosen is not None and chosen != out_iface:
                    return None
            if not self._checksum:
                # left to the card?  Then it stays so, and the stages know how.
                if status & NAT_MASK and proto != ICMP:
                    pseudo = words(data, l4 - (8 if four else 32), l4) + proto + size
                    if (sum_ - pseudo) % 0xFFFF == 0:
                        return None
            elif proto == ICMP:
                if words(data, l4, l4 + size):
                    return None
            elif sum_ or proto != UDP:
                # addresses and segment lie side by side
                if (words(data, l4 - 8 if four else l4 - 32, l4 + size) + proto + size) % 0xFFFF:
                    return None

            # 4. Nothing is.  Write.
            if packets >= 0:
                if reply:
                    answers += 1
                    received = (received + length) & OCTETS
                else:
                    packets += 1
                    sent = (sent + length) & OCTETS
            if proto == TCP:
                if reply:
                    conn.record = pack_tcp(
                        until, packets, sent, answers, received, place, ip_change, l4_change,
                        r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                        s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                        last_seq, last_ack, last_end, last_win, kind, direction, last_scale, last_flags, retrans,
                    )  # fmt: skip
                else:
                    conn.record = pack_tcp(
                        until, packets, sent, answers, received, place, ip_change, l4_change,
                        s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags,
                        r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags,
                        last_seq, last_ack, last_end, last_win, kind, direction, last_scale, last_flags, retrans,
                    )  # fmt: skip
                if new != old:
                    conn.state = new
            elif proto == UDP:
                conn.record = pack_udp(
                    until, packets, sent, answers, received, place, ip_change, l4_change, stream_from
                )
            else:
                conn.record = pack_icmp(until, packets, sent, answers, received, place, ip_change, l4_change)
            if told:
                conn.status = table.shared_status(after)
            ctinfo = ESTABLISHED_REPLY if reply else ESTABLISHED if status & SEEN_REPLY else NEW

        # 5. It passes, with the addresses and ports that the other direction's tuple demands, inverted.
        table.now = now
        self.length = length
        self.ctinfo = ctinfo
        if not status & NAT_MASK:
            self._taken[proto << 4 | ctinfo << 1] += 1
            self.out = None
            return conn
        self._taken[proto << 4 | ctinfo << 1 | 1] += 1
        if out is None:
            out = changeable(data)
        self.out = out
        if reply:
            ip_change, l4_change = -ip_change, -l4_change
            other = conn.orig
        else:
            other = conn.reply
        # A sum after its data changed by d is (sum - d) % 0xFFFF (`wire.checksum.update`).
        if four:
            dst, src, dst_u, src_u = ends4(other)
            head_sum = (head_sum - ip_change) % 0xFFFF
            if proto == ICMP:
                put_echo4(out, at + 10, head_sum, src, dst)
            else:
                put_head4(out, at + 10, head_sum, src, dst, src_u, dst_u)
        else:
            dst6, src6, dst_u, src_u = ends6(other)
            if proto == ICMPV6:
                put_echo6(out, at + 8, src6, dst6)
            else:
                put_head6(out, at + 8, src6, dst6, src_u, dst_u)
        if proto == TCP:
            put16(out, l4 + 16, (sum_ - l4_change) % 0xFFFF)
        elif proto == UDP:
            if sum_:
                put16(out, l4 + 6, (sum_ - l4_change) % 0xFFFF or 0xFFFF)
        else:
            put16(out, l4 + 2, (sum_ - l4_change) % 0xFFFF)
            put16(out, l4 + 4, dst_u)  # the identifier is src.u of both directions
        return conn
