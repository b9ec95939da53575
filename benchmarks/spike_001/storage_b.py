"""Storage (b), an arena: one packed record per connection in one bytearray; the dict finds its offset.

Offsets are even: the lowest bit says the direction. The side of the packet's sender lies first in the record,
so that one unpack and one pack serve both directions. Free records form a list.
"""
# ruff: noqa: I001
from struct import Struct
from typing import Final

from mypy_extensions import i64
from words import (ACK, ASSURED, ESTABLISHED, FIN, FIN_WAIT, GRID, IG, IV, LIBERAL, MAXACK, REFUSED, RST,
                   SCALED, SECOND, SEEN_REPLY, SYN, SYN_RECV, SYN_SENT, TIME_WAIT, TIMEOUT, UNACKED, H, M,
                   Nat, translate)

Side = "IIIIBBIQ"
TCP: Final = Struct(">qBBBBBBHIII" + Side * 2)  # deadline, state, status, last sender, memory, sides
UDP: Final = Struct(">qBBBQIQIQ")  # the same head, start of a stream, counters of both sides
NAT: Final = Struct(">12sHH")
KEYS: Final = Struct(">12s12s")
AT_NAT: Final = 88  # where the translations of both directions begin
AT_KEYS: Final = 120
SIZE: Final = 144
Memory = tuple[i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64,
               i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64]
Flow = tuple[i64, i64, i64, i64, i64, i64, i64, i64, i64]


class Table:
    def __init__(self) -> None:
        self.tcps: dict[bytes, int] = {}
        self.udps: dict[bytes, int] = {}
        self.arena = bytearray()
        self.free: list[int] = []

    def create(self, ats: dict[bytes, int], key: bytes) -> int:
        """A record with its keys and translations; the caller writes the rest."""
        if not self.free:
            begin = len(self.arena)
            self.arena += bytes(SIZE * (64 + begin // SIZE // 8))
            self.free.extend(range(len(self.arena) - SIZE, begin - 1, -SIZE))
        at = self.free.pop()
        reply, there, back = translate(key, ats)
        NAT.pack_into(self.arena, at + AT_NAT, *there)
        NAT.pack_into(self.arena, at + AT_NAT + 16, *back)
        KEYS.pack_into(self.arena, at + AT_KEYS, key, reply)
        ats[key] = at
        ats[reply] = at + 1
        return at

    def delete(self, ats: dict[bytes, int], at: int) -> None:
        original, reply = KEYS.unpack_from(self.arena, at + AT_KEYS)
        del ats[original], ats[reply]
        self.free.append(at)

    def tcp(self, key: bytes, now: i64, kind: i64, flags: i64, seq: i64, ack: i64, win: i64, length: i64,
            size: i64, shift: i64) -> Nat:
        found = self.tcps.get(key, -1)
        at: i64 = found & ~1
        if found >= 0:
            fields: Memory = TCP.unpack_from(self.arena, at)
            if fields[0] <= now:
                self.delete(self.tcps, at)
                found = -1
        if found < 0:
            if key[0] != 10 or (kind != SYN and kind != ACK):
                return REFUSED
            found = at = self.create(self.tcps, key)
            liberal = LIBERAL if kind == ACK else 0
            fields = (0, 0, 0, 0, 5, 0, 0, 1, 0, 0, 0,
                      0, 0, 0, 0, 0, liberal, 0, 0, 0, 0, 0, 0, 0, liberal, 0, 0)
        direction: i64 = found & 1
        old: i64 = fields[1]
        new: i64 = GRID[direction][kind][old]
        if new == IV:
            return REFUSED
        if new == SYN_SENT and old >= TIME_WAIT:
            self.delete(self.tcps, at)
            return self.tcp(key, now, kind, flags, seq, ack, win, length, size, shift)
        if fields[3] == direction:
            (deadline, _, status, _, last_index, last_direction, retrans, last_win,
             last_seq, last_ack, last_end,
             s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
             r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets) = fields
        else:
            (deadline, _, status, _, last_index, last_direction, retrans, last_win,
             last_seq, last_ack, last_end,
             r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets,
             s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets) = fields
        end: i64 = (seq + length + (kind < 2) + (kind == FIN)) & M
        if new == IG:
            last_index = kind
            last_direction = direction
            last_seq = seq
            last_end = end
            last_win = win
            TCP.pack_into(self.arena, at, deadline, old, status | direction, direction,
                last_index, last_direction, retrans, last_win, last_seq, last_ack, last_end,
                s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
                r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets)
            return NAT.unpack_from(self.arena, at + AT_NAT + 16 * direction)
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
            limit: i64 = TIMEOUT[8 if kind == RST else new]
            if limit > 300 * SECOND and (retrans >= 3 or not last_win or (s_flags | r_flags) & UNACKED):
                limit = 300 * SECOND
            if not status & SEEN_REPLY:
                if kind == RST:
                    self.delete(self.tcps, at)
                elif new == ESTABLISHED:
                    limit = 300 * SECOND
            elif new == ESTABLISHED and SYN_RECV <= old <= ESTABLISHED:
                status |= ASSURED
            status |= direction
            deadline = now + limit
            old = new
        TCP.pack_into(self.arena, at, deadline, old, status, direction, last_index, last_direction, retrans,
            last_win, last_seq, last_ack, last_end,
            s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags, s_packets, s_octets,
            r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags, r_packets, r_octets)
        if not good:
            return REFUSED
        return NAT.unpack_from(self.arena, at + AT_NAT + 16 * direction)

    def udp(self, key: bytes, now: i64, size: i64) -> Nat:
        found = self.udps.get(key, -1)
        at: i64 = found & ~1
        if found >= 0:
            fields: Flow = UDP.unpack_from(self.arena, at)
            if fields[0] <= now:
                self.delete(self.udps, at)
                found = -1
        if found < 0:
            if key[0] != 10:
                return REFUSED
            found = at = self.create(self.udps, key)
            fields = (0, 0, 0, 0, now + 2 * SECOND, 0, 0, 0, 0)
        direction: i64 = found & 1
        if fields[3] == direction:
            _, _, status, _, stream, packets, octets, r_packets, r_octets = fields
        else:
            _, _, status, _, stream, r_packets, r_octets, packets, octets = fields
        long = status & SEEN_REPLY and now > stream
        UDP.pack_into(self.arena, at, now + (120 * SECOND if long else 30 * SECOND), 0,
                      status | direction | (ASSURED if long else 0), direction, stream,
                      packets + 1, octets + size, r_packets, r_octets)
        return NAT.unpack_from(self.arena, at + AT_NAT + 16 * direction)

    def listing(self) -> list[object]:
        rows: list[object] = []
        for ats in (self.tcps, self.udps):
            for key, at in ats.items():
                if not at & 1:
                    layout = TCP if ats is self.tcps else UDP
                    deadline, state, status, first, *rest = layout.unpack_from(self.arena, at)
                    none = () if layout is TCP else (0,) * 6
                    half = (len(rest) - (7 if layout is TCP else 1)) // 2
                    one, two = none + tuple(rest[-2 * half : -half]), none + tuple(rest[-half:])
                    sides = (two, one) if first else (one, two)
                    reply = KEYS.unpack_from(self.arena, at + AT_KEYS)[1]
                    rows.append((key, reply, state, status, deadline, *sides))
        return rows
