"""Storage (c), a few slots and one packed memory: a connection's protocol state is immutable `bytes`.

The side of the packet's sender lies first, so that one unpack and one pack serve both directions.
"""
# ruff: noqa: I001, RUF023
from struct import Struct
from typing import Final

from mypy_extensions import i64
from words import (ACK, ASSURED, ESTABLISHED, FIN, FIN_WAIT, GRID, IG, IV, LIBERAL, MAXACK, REFUSED, RST,
                   SCALED, SECOND, SEEN_REPLY, SYN, SYN_RECV, SYN_SENT, TIME_WAIT, TIMEOUT, UNACKED, H, M,
                   Nat, translate)

Side = "IIIIBBIQ"
TCP: Final = Struct(">BBBBHIII" + Side * 2)  # last sender, memory, its side, the other
UDP: Final = Struct(">BQIQIQ")  # whose packet was the last, start of a stream, counters of both sides
NAT: Final = Struct(">12sHH")
Memory = tuple[i64, i64, i64, i64, i64, i64, i64, i64,
               i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64]
Flow = tuple[i64, i64, i64, i64, i64, i64]


class Conn:
    __slots__ = ("original", "reply", "nat", "memory", "deadline", "state", "status")

    def __init__(self, original: bytes, reply: bytes, nat: bytes, memory: bytes) -> None:
        self.original = original
        self.reply = reply
        self.nat = nat
        self.memory = memory
        self.deadline: i64 = 0
        self.state: i64 = 0
        self.status: i64 = 0


def create(conns: dict[bytes, Conn], key: bytes, memory: bytes) -> Conn:
    reply, there, back = translate(key, conns)
    conn = conns[key] = conns[reply] = Conn(key, reply, NAT.pack(*there) + NAT.pack(*back), memory)
    return conn


def delete(conns: dict[bytes, Conn], conn: Conn) -> None:
    del conns[conn.original], conns[conn.reply]


class Table:
    def __init__(self) -> None:
        self.tcps: dict[bytes, Conn] = {}
        self.udps: dict[bytes, Conn] = {}

    def tcp(self, key: bytes, now: i64, kind: i64, flags: i64, seq: i64, ack: i64, win: i64, length: i64,
            size: i64, shift: i64) -> Nat:
        conn = self.tcps.get(key)
        if conn is not None and conn.deadline <= now:
            delete(self.tcps, conn)
            conn = None
        if conn is None:
            if key[0] != 10 or (kind != SYN and kind != ACK):
                return REFUSED
            liberal = LIBERAL if kind == ACK else 0
            conn = create(self.tcps, key, TCP.pack(0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, liberal, 0, 0,
                                                   0, 0, 0, 0, 0, liberal, 0, 0))
        direction: i64 = 0 if key == conn.original else 1
        old = conn.state
        new: i64 = GRID[direction][kind][old]
        if new == IV:
            return REFUSED
        if new == SYN_SENT and old >= TIME_WAIT:
            delete(self.tcps, conn)
            return self.tcp(key, now, kind, flags, seq, ack, win, length, size, shift)
        fields: Memory = TCP.unpack(conn.memory)
        if fields[0] == direction:
            (_, last_index, last_direction, retrans, last_win, last_seq, last_ack, last_end,
             s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
             r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets) = fields
        else:
            (_, last_index, last_direction, retrans, last_win, last_seq, last_ack, last_end,
             r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets,
             s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets) = fields
        end: i64 = (seq + length + (kind < 2) + (kind == FIN)) & M
        if new == IG:
            last_index = kind
            last_direction = direction
            last_seq = seq
            last_end = end
            last_win = win
            conn.status |= direction
            conn.memory = TCP.pack(direction, last_index, last_direction, retrans,
                last_win, last_seq, last_ack, last_end,
                s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
                r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets)
            return NAT.unpack_from(conn.nat, 16 * direction)
        if kind == RST and old < FIN_WAIT and r_flags & MAXACK and (seq - r_maxack) & M >= H:
            return REFUSED
        opening = False
        good = True
        if s_maxwin == 0 or (kind < 2 and old <= SYN_RECV and (s_end - end) & M >= H):
            if kind < 2:
                opening = kind == SYN
                s_end = s_maxend = end
                s_maxwin = win or 1
                if shift >= 0:
                    s_scale = shift
                    s_flags |= SCALED
                if direction and not s_flags & r_flags & SCALED:
                    s_scale = r_scale = 0
            else:
                s_end = end
                s_maxwin = (win << s_scale) or 1
                s_maxend = (end + s_maxwin) & M
                if r_maxwin == 0:
                    r_end = r_maxend = ack
                elif ack == (r_end + 1) & M:
                    r_end = ack
        if not flags & 0x10:
            ack = r_end
        if not opening:
            reach: i64 = s_maxwin if s_maxwin > 66000 else 66000
            if ((seq - s_maxend - 1) & M >= H and (ack - r_end - 1) & M >= H
                    and (r_maxwin == 0 or (s_end - r_maxwin - 1 - end) & M >= H)
                    and (r_end - reach - 1 - ack) & M >= H):
                w: i64 = win if kind < 2 else win << s_scale
                if w > s_maxwin:
                    s_maxwin = w
                if (s_end - end) & M >= H:
                    s_end = end
                    s_flags |= UNACKED
                if flags & 0x10 and (not s_flags & MAXACK or (s_maxack - ack) & M >= H):
                    s_maxack = ack
                    s_flags |= MAXACK
                if r_maxwin and (s_maxend - end) & M >= H:
                    r_maxwin = (r_maxwin + end - s_maxend) & M
                if (r_maxend - 1 - ack - w) & M >= H:
                    r_maxend = (ack + w + (w == 0)) & M
                if ack == r_end:
                    r_flags &= ~UNACKED
                if kind == ACK:
                    if (last_seq == seq and last_ack == ack and last_end == end and last_win == win
                            and last_direction == direction):
                        retrans += 1
                    else:
                        last_seq = seq
                        last_ack = ack
                        last_end = end
                        last_win = win
                        retrans = 0
            elif not s_flags & LIBERAL:
                good = False
        if good:
            last_index = kind
            last_direction = direction
            s_packets += 1
            s_octets += size
        conn.memory = TCP.pack(direction, last_index, last_direction, retrans,
            last_win, last_seq, last_ack, last_end,
            s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
            r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets)
        if not good:
            return REFUSED
        conn.state = new
        limit: i64 = TIMEOUT[8 if kind == RST else new]
        if limit > 300 * SECOND and (retrans >= 3 or not last_win or (s_flags | r_flags) & UNACKED):
            limit = 300 * SECOND
        if not conn.status & SEEN_REPLY:
            if kind == RST:
                delete(self.tcps, conn)
            elif new == ESTABLISHED:
                limit = 300 * SECOND
        elif new == ESTABLISHED and SYN_RECV <= old <= ESTABLISHED:
            conn.status |= ASSURED
        conn.status |= direction
        conn.deadline = now + limit
        return NAT.unpack_from(conn.nat, 16 * direction)

    def udp(self, key: bytes, now: i64, size: i64) -> Nat:
        conn = self.udps.get(key)
        if conn is not None and conn.deadline <= now:
            delete(self.udps, conn)
            conn = None
        if conn is None:
            if key[0] != 10:
                return REFUSED
            conn = create(self.udps, key, UDP.pack(0, now + 2 * SECOND, 0, 0, 0, 0))
        direction: i64 = 0 if key == conn.original else 1
        fields: Flow = UDP.unpack(conn.memory)
        if fields[0] == direction:
            _, stream, packets, octets, r_packets, r_octets = fields
        else:
            _, stream, r_packets, r_octets, packets, octets = fields
        conn.memory = UDP.pack(direction, stream, packets + 1, octets + size, r_packets, r_octets)
        long = conn.status & SEEN_REPLY and now > stream
        conn.status |= direction | (ASSURED if long else 0)
        conn.deadline = now + (120 * SECOND if long else 30 * SECOND)
        return NAT.unpack_from(conn.nat, 16 * direction)

    def listing(self) -> list[object]:
        rows: list[object] = []
        for conns in (self.tcps, self.udps):
            for key, conn in conns.items():
                if key == conn.original:
                    if conns is self.tcps:
                        first, *rest = TCP.unpack(conn.memory)
                        one, two = tuple(rest[7:15]), tuple(rest[15:])
                    else:
                        first, _, *rest = UDP.unpack(conn.memory)
                        one, two = (0,) * 6 + tuple(rest[:2]), (0,) * 6 + tuple(rest[2:])
                    sides = (two, one) if first else (one, two)
                    rows.append((key, conn.reply, conn.state, conn.status, conn.deadline, *sides))
        return rows
