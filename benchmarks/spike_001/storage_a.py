"""Storage (a), objects: a slotted Conn with one slotted Half a direction; the dict finds the Half.

The code reads as the kernel's does: s is the sender, r the receiver, every number is an attribute.
"""
# ruff: noqa: I001, RUF023
from typing import Final

from mypy_extensions import i64
from words import (ACK, ASSURED, ESTABLISHED, FIN, FIN_WAIT, GRID, IG, IV, LIBERAL, MAXACK, REFUSED, RST,
                   SCALED, SECOND, SEEN_REPLY, SYN, SYN_RECV, SYN_SENT, TIME_WAIT, TIMEOUT, UNACKED, H, M,
                   Nat, translate)


class Conn:
    __slots__ = ("original", "reply", "state", "status", "deadline", "stream", "last_index", "last_direction",
                 "last_seq", "last_ack", "last_end", "last_win", "retrans")

    def __init__(self, original: bytes, reply: bytes) -> None:
        self.original = original
        self.reply = reply
        self.state: i64 = 0
        self.status: i64 = 0
        self.deadline: i64 = 0
        self.stream: i64 = 0
        self.last_index: i64 = 5
        self.last_direction: i64 = 0
        self.last_seq: i64 = 0
        self.last_ack: i64 = 0
        self.last_end: i64 = 0
        self.last_win: i64 = 1
        self.retrans: i64 = 0


class Half:
    __slots__ = ("conn", "other", "direction", "nat", "end", "maxend", "maxwin", "maxack", "scale", "flags",
                 "packets", "octets")

    def __init__(self, conn: Conn, direction: int, nat: Nat, flags: int) -> None:
        self.conn = conn
        self.other: Half = self
        self.direction: i64 = direction
        self.nat = nat
        self.end: i64 = 0
        self.maxend: i64 = 0
        self.maxwin: i64 = 0
        self.maxack: i64 = 0
        self.scale: i64 = 0
        self.flags: i64 = flags
        self.packets: i64 = 0
        self.octets: i64 = 0


NOBODY: Final = Half(Conn(b"", b""), 0, REFUSED, 0)


def create(halves: dict[bytes, Half], key: bytes, flags: int) -> Half:
    reply, there, back = translate(key, halves)
    conn = Conn(key, reply)
    half = halves[key] = Half(conn, 0, there, flags)
    other = halves[reply] = Half(conn, 1, back, flags)
    half.other = other
    other.other = half
    return half


def delete(halves: dict[bytes, Half], half: Half) -> None:
    conn = half.conn
    del halves[conn.original], halves[conn.reply]
    half.other.other = NOBODY  # leave no reference cycle behind
    half.other = NOBODY


class Table:
    def __init__(self) -> None:
        self.tcps: dict[bytes, Half] = {}
        self.udps: dict[bytes, Half] = {}

    def tcp(self, key: bytes, now: i64, kind: i64, flags: i64, seq: i64, ack: i64, win: i64, length: i64,
            size: i64, shift: i64) -> Nat:
        s = self.tcps.get(key)
        if s is not None and s.conn.deadline <= now:
            delete(self.tcps, s)
            s = None
        if s is None:
            if key[0] != 10 or (kind != SYN and kind != ACK):
                return REFUSED
            s = create(self.tcps, key, LIBERAL if kind == ACK else 0)
        conn = s.conn
        r = s.other
        old = conn.state
        new: i64 = GRID[s.direction][kind][old]
        if new == IV:
            return REFUSED
        if new == SYN_SENT and old >= TIME_WAIT:
            delete(self.tcps, s)
            return self.tcp(key, now, kind, flags, seq, ack, win, length, size, shift)
        end: i64 = (seq + length + (kind < 2) + (kind == FIN)) & M
        if new == IG:
            conn.last_index = kind
            conn.last_direction = s.direction
            conn.last_seq = seq
            conn.last_end = end
            conn.last_win = win
            conn.status |= s.direction
            return s.nat
        if kind == RST and old < FIN_WAIT and r.flags & MAXACK and (seq - r.maxack) & M >= H:
            return REFUSED
        opening = False
        if s.maxwin == 0 or (kind < 2 and old <= SYN_RECV and (s.end - end) & M >= H):
            if kind < 2:
                opening = kind == SYN
                s.end = s.maxend = end
                s.maxwin = win or 1
                if shift >= 0:
                    s.scale = shift
                    s.flags |= SCALED
                if s.direction and not s.flags & r.flags & SCALED:
                    s.scale = r.scale = 0
            else:
                s.end = end
                s.maxwin = (win << s.scale) or 1
                s.maxend = (end + s.maxwin) & M
                if r.maxwin == 0:
                    r.end = r.maxend = ack
                elif ack == (r.end + 1) & M:
                    r.end = ack
        if not flags & 0x10:
            ack = r.end
        if not opening:
            reach: i64 = s.maxwin if s.maxwin > 66000 else 66000
            if ((seq - s.maxend - 1) & M >= H and (ack - r.end - 1) & M >= H
                    and (r.maxwin == 0 or (s.end - r.maxwin - 1 - end) & M >= H)
                    and (r.end - reach - 1 - ack) & M >= H):
                w: i64 = win if kind < 2 else win << s.scale
                if w > s.maxwin:
                    s.maxwin = w
                if (s.end - end) & M >= H:
                    s.end = end
                    s.flags |= UNACKED
                if flags & 0x10 and (not s.flags & MAXACK or (s.maxack - ack) & M >= H):
                    s.maxack = ack
                    s.flags |= MAXACK
                if r.maxwin and (s.maxend - end) & M >= H:
                    r.maxwin = (r.maxwin + end - s.maxend) & M
                if (r.maxend - 1 - ack - w) & M >= H:
                    r.maxend = (ack + w + (w == 0)) & M
                if ack == r.end:
                    r.flags &= ~UNACKED
                if kind == ACK:
                    if (conn.last_seq == seq and conn.last_ack == ack and conn.last_end == end
                            and conn.last_win == win and conn.last_direction == s.direction):
                        conn.retrans += 1
                    else:
                        conn.last_seq = seq
                        conn.last_ack = ack
                        conn.last_end = end
                        conn.last_win = win
                        conn.retrans = 0
            elif not s.flags & LIBERAL:
                return REFUSED
        conn.last_index = kind
        conn.last_direction = s.direction
        conn.state = new
        s.packets += 1
        s.octets += size
        limit: i64 = TIMEOUT[8 if kind == RST else new]
        if limit > 300 * SECOND and (conn.retrans >= 3 or not conn.last_win or (s.flags | r.flags) & UNACKED):
            limit = 300 * SECOND
        if not conn.status & SEEN_REPLY:
            if kind == RST:
                delete(self.tcps, s)
            elif new == ESTABLISHED:
                limit = 300 * SECOND
        elif new == ESTABLISHED and SYN_RECV <= old <= ESTABLISHED:
            conn.status |= ASSURED
        conn.status |= s.direction
        conn.deadline = now + limit
        return s.nat

    def udp(self, key: bytes, now: i64, size: i64) -> Nat:
        half = self.udps.get(key)
        if half is not None and half.conn.deadline <= now:
            delete(self.udps, half)
            half = None
        if half is None:
            if key[0] != 10:
                return REFUSED
            half = create(self.udps, key, 0)
            half.conn.stream = now + 2 * SECOND
        conn = half.conn
        half.packets += 1
        half.octets += size
        long = conn.status & SEEN_REPLY and now > conn.stream
        conn.status |= half.direction | (ASSURED if long else 0)
        conn.deadline = now + (120 * SECOND if long else 30 * SECOND)
        return half.nat

    def listing(self) -> list[object]:
        return [(key, half.conn.reply, half.conn.state, half.conn.status, half.conn.deadline,
                 *((x.end, x.maxend, x.maxwin, x.maxack, x.scale, x.flags, x.packets, x.octets)
                   for x in (half, half.other)))
                for halves in (self.tcps, self.udps) for key, half in halves.items() if not half.direction]
