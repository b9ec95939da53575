"""TCP: the state machine, its special cases, and window tracking.

One rule: state says what packets may come, windows say which of them are believable.  A packet runs through
    header checks ─► grid ─► the cell's special case ─► window ─► bookkeeping, timeout
and may leave at each: INVALID (not of this connection), or ignored (passed on for the endpoints to answer,
because tracking may be the one that is wrong), which changes no state, timer or counter.

The grid below is the whole state machine; `python -m conntrack diagram tcp` draws it.  Columns are the old
state, rows the packet's class; `SS*`-like cells need no mark, their test stands in `_reopens`.

What a connection remembers is packed by MEMORY: for each direction END, MAXEND, MAXWIN, MAXACK, SCALE, FLAGS
    end     highest sequence number sent + 1        maxwin  greatest window it ever offered
    maxend  highest number it may send              maxack  highest acknowledgement it sent
then the last packet worth remembering (last_*), which judges SYN/ACKs, RSTs and retransmissions.

Sequence numbers live modulo 2**32.  before(a, b) is the sign bit of a - b, written here as
`(a - b) & SIGN`; at distance 2**31 both orders hold, so the form of each comparison is the kernel's.

Sources: nf_conntrack_proto_tcp.c (tcp_conntracks, tcp_in_window, nf_conntrack_tcp_packet) of Linux 6.18;
RFC 9293; Guido van Rooij, "Real stateful TCP packet filtering in IP Filter" (the window tests).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .. import reasons
from ..sysctl import JIFFY, SECOND, Settings
from ..verdict import ASSURED, EVENT_ASSURED, EVENT_PROTOINFO, FIXED_TIMEOUT, REPLY, SEEN_REPLY
from ..wire.checksum import BAD as BAD_SUM
from ..wire.packet import Packet, examine
from ..wire.tcp import ACK, FIN, HEADER, RST, SYN, URG, highest_sack, syn_options
from . import AGAIN, BAD, KILL, OK, Memory, Step, Tracker

STATES: Final = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)
NO, SS, SR, ES, FW, CW, LA, TW, CL, S2 = range(10)
RETRANS, UNACK = 10, 11  # the two timers behind the states in a timeout tuple
IG, IV = 10, 11  # cells: ignore the packet, the packet is invalid

CLASSES: Final = ("SYN", "SYNACK", "FIN", "ACK", "RST", "NONE")
C_SYN, C_SYNACK, C_FIN, C_ACK, C_RST, C_NONE = range(6)

# fmt: off
GRID: Final = (
    (  # packets of the original direction
        #  NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        (  SS, SS, IG, IG, IG, IG, IG, SS, SS, S2 ),  # SYN: TW, CL: a new connection, if `_reopens`; else ignored
        (  IV, IV, SR, IV, IV, IV, IV, IV, IV, SR ),  # SYNACK: only in a simultaneous open
        (  IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ),  # FIN: FW: also the first FIN again, nobody asks whose it is
        (  ES, IV, ES, ES, CW, CW, TW, TW, CL, IV ),  # ACK: NO: picked up in the middle (tcp_loose)
        (  IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ),  # RST: what it closes is judged further in `_reset`
        (  IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ),  # NONE
    ),
    (  # packets of the reply direction
        #  NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        (  IV, S2, IV, IV, IV, IV, IV, SS, IV, S2 ),  # SYN: SS: simultaneous open; TW: the server opens anew
        (  IV, SR, IG, IG, IG, IG, IG, IG, IG, SR ),  # SYNACK: ignored ones may answer an ignored SYN (`_resync`)
        (  IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ),  # FIN
        (  IV, IG, SR, ES, CW, CW, TW, TW, CL, IG ),  # ACK: SS: a challenge ACK; SR: ES if opened simultaneously
        (  IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ),  # RST
        (  IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ),  # NONE
    ),
)
# fmt: on

# Flags of a direction.
WINDOW_SCALE, SACK_PERM, CLOSE_INIT, BE_LIBERAL, UNACKED, MAXACK_SET = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
# Two more that only last_flags has.
CHALLENGE_ACK, SIMULTANEOUS_OPEN = 0x40, 0x80

MEMORY: Final = Struct("<IIIIBBIIIIBBIIIHBBBBB")
Half = tuple[int, int, int, int, int, int]  # end, maxend, maxwin, maxack, scale, flags
# last_seq, last_ack, last_end, last_win, last_index, last_dir, last_wscale, last_flags, retrans
Last = tuple[int, int, int, int, int, int, int, int, int]
_NEW_HALF: Final[Half] = (0, 0, 0, 0, 0, 0)

MASK: Final = 0xFFFFFFFF
SIGN: Final = 0x80000000
MAX_ACK_DELAY: Final = 66000  # MAXACKWINCONST: how far back an acknowledgement may lie

_CLOSING: Final = frozenset((FW, CW, LA, TW, CL))

# The flag combinations a TCP may send; PSH, ECE and CWR never matter.  Bare FIN, URG with SYN/ACK or RST, no
# flags and every contradiction are invalid.
_VALID_FLAGS: Final = frozenset(
    (SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG)
)


def _class_of(flags: int) -> int:
    if flags & RST:
        return C_RST
    if flags & SYN:
        return C_SYNACK if flags & ACK else C_SYN
    if flags & FIN:
        return C_FIN
    return C_ACK if flags & ACK else C_NONE


# One look per packet instead of a chain of tests.
_CLASS: Final = tuple(_class_of(flags) for flags in range(256))
_VALID: Final = tuple(flags & 0x37 in _VALID_FLAGS for flags in range(256))


def class_if_plain(flags: int) -> int:
    """The class of valid flags that the fast path takes, else -1."""
    return _CLASS[flags] if _VALID[flags] and _CLASS[flags] in (C_SYN, C_SYNACK, C_FIN, C_ACK) else -1


def check(packet: Packet, verify: bool, settings: Settings) -> str:
    """Header, checksum and flags of every segment [tcp_error]."""
    if packet.lacks(20):
        return packet.shortage(20, reasons.TCP_SHORT)
    data, l4 = packet.data, packet.l4
    header = (data[l4 + 12] >> 4) * 4
    if header < 20 or l4 + header > packet.length:
        packet.numbers = (header, packet.length - l4)
        return reasons.TCP_TRUNCATED
    if verify and examine(packet, 6, 16) == BAD_SUM:
        return reasons.TCP_CHECKSUM
    flags = data[l4 + 13]
    if not _VALID[flags]:
        packet.numbers = (flags,)
        return reasons.TCP_FLAGS
    return ""


def begin(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """May this segment start a connection, and what is remembered of it [tcp_new]."""
    data, l4 = packet.data, packet.l4
    seq, _, offset, flags, window = HEADER.unpack_from(data, l4 + 4)
    index = _CLASS[flags]
    cell = GRID[0][index][NO]
    if cell == IV:
        packet.numbers = (index,)
        return reasons.TCP_NEW, None
    header = (offset >> 4) * 4
    end = _segment_end(packet, seq, header, flags)
    window = window or 1
    if cell == SS:
        scale, half_flags = 0, 0
        if header > 20:
            scale, half_flags = _read_options(packet, header, 0)
        original: Half = (end, end, window, 0, scale, half_flags)
        reply = _NEW_HALF
    elif not settings.loose:
        return reasons.TCP_NOT_LOOSE, None
    else:
        # Seen from the middle: windows, scales and SACK are unknown, so failures of either side are forgiven.
        original = (end, (end + window) & MASK, window, 0, 0, SACK_PERM | BE_LIBERAL)
        reply = (0, 0, 0, 0, 0, SACK_PERM | BE_LIBERAL)
    return "", MEMORY.pack(*original, *reply, 0, 0, 0, 0, C_NONE, 0, 0, 0, 0)


def _segment_end(packet: Packet, seq: int, header: int, flags: int) -> int:
    """Sequence number behind the segment; SYN and FIN count one each."""
    size = packet.length - packet.l4 - header + (flags & FIN) + (1 if flags & SYN else 0)
    return (seq + size) & MASK


def _read_options(packet: Packet, header: int, flags: int) -> tuple[int, int]:
    """(scale, flags) of a direction after its SYN's options; only BE_LIBERAL outlives them."""
    return options_of(packet.data, packet.l4 + 20, min(packet.l4 + header, packet.end), flags)


def options_of(data: bytes | bytearray, at: int, end: int, flags: int) -> tuple[int, int]:
    """The same, of the options in data[at:end]."""
    scale, sack_permitted = syn_options(data, at, end)
    flags &= BE_LIBERAL
    if sack_permitted:
        flags |= SACK_PERM
    if scale >= 0:
        return scale, flags | WINDOW_SCALE
    return 0, flags


def track(
    memory: Memory,
    state: int,
    status: int,
    direction: int,
    packet: Packet,
    now: int,
    deadline: int,
    timeouts: tuple[int, ...],
    settings: Settings,
) -> Step:
    """One segment of a known connection [nf_conntrack_tcp_packet]."""
    assert isinstance(memory, bytes)
    fields = MEMORY.unpack(memory)
    sender: Half = fields[6:12] if direction else fields[0:6]
    receiver: Half = fields[0:6] if direction else fields[6:12]
    last: Last = fields[12:21]
    seq, ack, offset, flags, window = HEADER.unpack_from(packet.data, packet.l4 + 4)
    index = _CLASS[flags]
    old = state
    new = GRID[direction][index][old]
    header = (offset >> 4) * 4
    end = _segment_end(packet, seq, header, flags)
    in_window = False

    # 1. What is special about the cell.
    if new == SS and old >= TW:
        if _reopens(sender, receiver, last, direction):
            return AGAIN, old, -1, 0, 0, reasons.TCP_REOPEN, memory
        new = IG
    if new == IG:
        if index == C_SYNACK and last[4] == C_SYN and last[5] != direction and ack == last[2]:
            sender, receiver, last = _resync(sender, last)
            old, new = SS, SR
        else:
            packet.numbers = (index, direction, STATES[old])
            last = _remember_ignored(packet, last, old, index, direction, seq, ack, end, window, header)
            return OK, state, -1, 0, 0, reasons.TCP_IGNORED, _pack(direction, sender, receiver, last)
    elif new == IV:
        packet.numbers = (index, direction, STATES[old])
        return BAD, state, -1, 0, 0, reasons.TCP_INVALID_STATE, memory
    elif new == TW:
        if old == LA and index == C_ACK and last[4] == C_SYN and last[5] != direction and last[7] & CHALLENGE_ACK:
            last = (*last[:7], last[7] & ~CHALLENGE_ACK, last[8])
            return OK, state, -1, 0, 0, reasons.TCP_CHALLENGE_ACK, _pack(direction, sender, receiver, last)
    elif new == S2:
        last = (*last[:7], last[7] | SIMULTANEOUS_OPEN, last[8])
    elif new == SR:
        if direction == REPLY and index == C_ACK and last[7] & SIMULTANEOUS_OPEN:
            new = ES
    elif new == CL and index == C_RST:
        if old in _CLOSING:
            in_window = True  # the tuple may be in use again: old sequence numbers prove nothing
        else:
            new, in_window = _reset(receiver, last, old, status, direction, seq, ack, settings)
            if new == IV:
                packet.numbers = (seq, receiver[3])
                return BAD, state, -1, 0, 0, reasons.TCP_INVALID_RST, memory

    # 2. The window.
    reason = ""
    if not in_window:
        verdict, reason, sender, receiver, last = _window(
            packet,
            state,
            direction,
            index,
            seq,
            ack,
            end,
            window,
            flags,
            header,
            sender,
            receiver,
            last,
            settings,
        )
        if verdict == _INVALID:
            return _outside(
                packet,
                state,
                status,
                direction,
                index,
                last,
                sender,
                receiver,
                now,
                deadline,
                timeouts,
                reason,
            )
        if verdict == _IGNORE:
            return OK, state, -1, 0, 0, reason, _pack(direction, sender, receiver, last)

    # 3. It belongs: remember it, choose the timeout.
    last = (*last[:4], index, direction, *last[6:])
    if new == FW and old != new:
        sender = (*sender[:5], sender[5] | CLOSE_INIT)
    timeout = _timeout(timeouts, new, index, last, (sender[5] | receiver[5]) & UNACKED, settings.max_retrans)
    memory = _pack(direction, sender, receiver, last)
    events = EVENT_PROTOINFO if new != old else 0
    if not status & SEEN_REPLY:
        if flags & RST:
            # Answered by a RST only, or given up: there is no connection to remember.
            return KILL, new, -1, 0, events, "", memory
        if index == C_SYN and old == SS:
            # else a client that never gets an answer could hold its entry for ever
            return OK, new, -1, 0, events, reasons.TCP_SYN_RETRANSMITTED, memory
        if new == ES and timeout > timeouts[UNACK]:
            timeout = timeouts[UNACK]  # picked up, and only one side seen so far
    elif not status & ASSURED and new == ES and (old == SR or old == ES):
        return OK, new, timeout, ASSURED, events | EVENT_ASSURED, "", memory
    return OK, new, timeout, 0, events, "", memory


def _pack(direction: int, sender: Half, receiver: Half, last: Last) -> bytes:
    if direction:
        return MEMORY.pack(*receiver, *sender, *last)
    return MEMORY.pack(*sender, *receiver, *last)


def _reopens(sender: Half, receiver: Half, last: Last, direction: int) -> bool:
    """A SYN on a finished connection starts a new one if it was closed by FINs, or by this side's own RST."""
    return bool((sender[5] | receiver[5]) & CLOSE_INIT) or (last[5] == direction and last[4] == C_RST)


def _resync(sender: Half, last: Last) -> tuple[Half, Half, Last]:
    """The SYN that was ignored was genuine, this SYN/ACK answers it: both directions start over."""
    _, _, last_end, last_win, _, _, last_wscale, last_flags, _ = last
    last_flags &= ~CHALLENGE_ACK
    receiver: Half = (last_end, last_end, last_win or 1, 0, last_wscale, last_flags)
    return (0, 0, 0, 0, 0, sender[5] & BE_LIBERAL), receiver, (*last[:7], last_flags, last[8])


def _remember_ignored(
    packet: Packet,
    last: Last,
    old: int,
    index: int,
    direction: int,
    seq: int,
    ack: int,
    end: int,
    window: int,
    header: int,
) -> Last:
    """What an ignored packet leaves behind: enough to recognise the answer that would prove it right."""
    _, last_ack, _, _, _, _, scale, flags, retrans = last
    if index == C_SYN and direction != REPLY:
        scale, flags = 0, 0
        if header > 20:
            scale, flags = _read_options(packet, header, 0)
        if old == LA:
            flags |= CHALLENGE_ACK
    if old == SS and index == C_ACK and direction == REPLY:
        last_ack = ack
    return seq, last_ack, end, window, index, direction, scale, flags, retrans


def _reset(
    receiver: Half, last: Last, old: int, status: int, direction: int, seq: int, ack: int, settings: Settings
) -> tuple[int, bool]:
    """What a RST does to a connection that is not closing: (new state or IV, exempt from the window test)."""
    new = CL
    if receiver[5] & MAXACK_SET and last[4] != C_SYN:
        established = old == ES and bool(status & ASSURED)
        maxack = receiver[3]
        if seq == 0 and not established:
            return CL, False
        if (seq - maxack) & SIGN and not settings.ignore_invalid_rst:
            return IV, False
        if not established or seq == maxack:
            return CL, False
        if last[4] == C_ACK and last[5] == direction and seq == last[2]:
            return CL, False  # directly behind its own data
        # In the window but not exact: the receiver may answer with a challenge ACK (RFC 5961), so stay.
        new = old
    answers_syn = status & SEEN_REPLY and last[4] == C_SYN and last[5] != direction
    answers_ack = not status & ASSURED and last[4] == C_ACK
    if (answers_syn or answers_ack) and ack == last[2]:
        return new, True
    if old == SS and last[4] == C_ACK and last[5] == REPLY and seq == last[1]:
        return new, True  # the client resets the challenge ACK it was sent
    return new, False


_ACCEPT, _IGNORE, _INVALID = 0, 1, 2
_Window = tuple[int, str, Half, Half, Last]


def _window(
    packet: Packet,
    state: int,
    direction: int,
    index: int,
    seq: int,
    ack: int,
    end: int,
    raw_window: int,
    flags: int,
    header: int,
    sender: Half,
    receiver: Half,
    last: Last,
    settings: Settings,
) -> _Window:
    """Is the segment within what both sides have announced [tcp_in_window]."""
    s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags = sender
    r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags = receiver
    syn, is_ack, rst = flags & SYN, flags & ACK, flags & RST
    window = raw_window

    sack = ack
    if r_flags & SACK_PERM and header > 20:
        sack = highest_sack(packet.data, packet.l4 + 20, min(packet.l4 + header, packet.end), ack)
    if packet.ack_shift:
        # the other side acknowledges octets that a helper moved
        ack = (ack - packet.ack_shift) & MASK
        sack = (sack - packet.ack_shift) & MASK

    if s_maxwin == 0 or (syn and (s_end - end) & SIGN and (state == SR or state == SS)):
        if syn:
            # The direction's first SYN, or a newer one: (re)start from it.
            s_end = s_maxend = end
            s_maxwin = window or 1
            if header > 20:
                s_scale, s_flags = _read_options(packet, header, s_flags)
            if direction == REPLY and not s_flags & r_flags & WINDOW_SCALE:
                s_scale = r_scale = 0  # scaling counts only if both offer it (RFC 7323)
            if not is_ack and (sender[2] == 0 or direction == REPLY):
                # simultaneous open: there is no acknowledgement to judge yet
                return (
                    _ACCEPT,
                    "",
                    (s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags),
                    (r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags),
                    last,
                )
        else:
            # In the middle of a connection: the first segment of this direction teaches.
            s_end = end
            s_maxwin = ((window << s_scale) & MASK) or 1
            s_maxend = (end + s_maxwin) & MASK
            if r_maxwin == 0:
                r_end = r_maxend = sack
            elif sack == (r_end + 1) & MASK:
                r_end = (r_end + 1) & MASK  # answers a keep-alive

    if not is_ack or (rst and ack == 0):
        ack = sack = r_end
    if rst and seq == 0 and state == SS:
        seq = end = s_end

    # The four tests; `before(a, b)` is (a - b) & SIGN.
    reach = MAX_ACK_DELAY if s_maxwin < MAX_ACK_DELAY else s_maxwin
    seq_fits = (seq - s_maxend - 1) & SIGN  # I
    ack_fits = (sack - r_end - 1) & SIGN  # III
    data_recent = r_maxwin == 0 or (s_end - r_maxwin - 1 - end) & SIGN  # II
    ack_recent = (r_end - reach - 1 - sack) & SIGN  # IV
    if not (seq_fits and ack_fits and data_recent and ack_recent):
        verdict = _INVALID
        if not seq_fits:
            overshot = (end - s_maxend + 1) & MASK
            reason = reasons.SEQ_OVER_WINDOW
            packet.numbers = (seq, (s_maxend + 1) & MASK)
            if r_maxwin and data_recent and ack_recent and overshot <= r_maxwin and ack_fits:
                s_end = end
                s_flags |= UNACKED
                verdict = _IGNORE
                reason = reasons.SEQ_OVERSHOT
                packet.numbers = (overshot, seq, (s_maxend + 1) & MASK)
        elif not ack_fits:
            reason = reasons.ACK_OVER_WINDOW
            packet.numbers = (sack, (r_end + 1) & MASK)
        elif not data_recent:
            verdict = _IGNORE
            reason = reasons.SEQ_UNDER_WINDOW
            packet.numbers = (end, (s_end - r_maxwin - 1) & MASK)
        else:
            verdict = _IGNORE
            reason = reasons.ACK_UNDER_WINDOW
            packet.numbers = (sack, (r_end - reach - 1) & MASK)
        if s_flags & BE_LIBERAL or settings.be_liberal:
            verdict, reason = _ACCEPT, ""
    else:
        verdict, reason = _ACCEPT, ""
        if not syn:
            window = (window << s_scale) & MASK
        offered = (window + sack - ack) & MASK
        if s_maxwin < offered:
            s_maxwin = offered
        if (s_end - end) & SIGN:
            s_end = end
            s_flags |= UNACKED
        if is_ack:
            if not s_flags & MAXACK_SET:
                s_maxack = ack
                s_flags |= MAXACK_SET
            elif (s_maxack - ack) & SIGN:
                s_maxack = ack
        if r_maxwin and (s_maxend - end) & SIGN:
            r_maxwin = (r_maxwin + end - s_maxend) & MASK
        if (r_maxend - 1 - sack - window) & SIGN:
            r_maxend = (sack + window + (window == 0)) & MASK
        if ack == r_end:
            r_flags &= ~UNACKED
        if index == C_ACK:
            last_seq, last_ack, last_end, last_win, last_index, last_dir, scale, last_flags, retrans = last
            if (last_dir, last_seq, last_ack, last_end, last_win) == (direction, seq, ack, end, raw_window):
                retrans = (retrans + 1) & 0xFF  # one octet in the kernel: it wraps
            else:
                retrans = 0
            last = (seq, ack, end, raw_window, last_index, direction, scale, last_flags, retrans)
    return (
        verdict,
        reason,
        (s_end, s_maxend, s_maxwin, s_maxack, s_scale, s_flags),
        (r_end, r_maxend, r_maxwin, r_maxack, r_scale, r_flags),
        last,
    )


def _outside(
    packet: Packet,
    state: int,
    status: int,
    direction: int,
    index: int,
    last: Last,
    sender: Half,
    receiver: Half,
    now: int,
    deadline: int,
    timeouts: tuple[int, ...],
    reason: str,
) -> Step:
    """INVALID; FINs or RSTs out of the window from both sides lower the timer [nf_tcp_handle_invalid]."""
    timeout = -1
    if index in (C_FIN, C_RST) and status & ASSURED and not status & FIXED_TIMEOUT:
        if last[5] != direction and last[4] in (C_FIN, C_RST):
            remaining = deadline - now
            if remaining >= 120 * SECOND and remaining > timeouts[UNACK]:
                timeout = timeouts[UNACK]
                because = reasons.REASONS[reason].log_text(packet.numbers) or ""  # the kernel logs both lines
                packet.numbers = (index, direction, last[4], timeout // JIFFY, because)
                reason = reasons.TCP_TIMEOUT_LOWERED
        else:
            last = (*last[:4], index, direction, *last[6:])
    return BAD, state, timeout, 0, 0, reason, _pack(direction, sender, receiver, last)


def _timeout(timeouts: tuple[int, ...], new: int, index: int, last: Last, unacked: int, max_retrans: int) -> int:
    """The first rule that applies; each only ever shortens the state's own timeout."""
    timeout = timeouts[new]
    if last[8] >= max_retrans and timeout > timeouts[RETRANS]:
        return timeouts[RETRANS]
    if index == C_RST:
        return timeouts[CL]  # also where the state stays: an inexact RST (see `_reset`)
    if unacked and timeout > timeouts[UNACK]:
        return timeouts[UNACK]
    if last[3] == 0 and timeout > timeouts[RETRANS]:
        return timeouts[RETRANS]  # zero window
    return timeout


TRACKER: Final[Tracker] = Tracker("tcp", check, begin, track, STATES, allow_clash=False, early_drop=_CLOSING)
