"""SCTP: the state machine runs chunk by chunk, and verification tags say whose packet it is.

A packet passes the chunk checks, then the tag rule of its kind, then the grid once per chunk; what earlier
chunks changed stays changed even if a later one makes the packet INVALID.  Columns of the grid are the old
state, rows the chunk; chunks without a row (DATA, SACK…) keep the state and cannot begin an association.

Memory, packed by MEMORY: the tag each direction must carry, whether it sent an INIT, the direction of the
last failed HEARTBEAT and whether one failed.

Sources: nf_conntrack_proto_sctp.c (sctp_conntracks, sctp_new, nf_conntrack_sctp_packet) of Linux 6.18;
RFC 9260 sections 8.4, 8.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from .. import reasons
from ..sysctl import Settings
from ..verdict import ASSURED, CONFIRMED, EVENT_ASSURED, EVENT_PROTOINFO, ORIGINAL, REPLY
from ..wire.checksum import crc32c
from ..wire.packet import Packet
from . import BAD, OK, Memory, Step, Tracker

STATES: Final = (
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
)
NO, CL, CW, CE, ES, SS, SR, SA, HS = range(9)
IV = 9

DATA, INIT, INIT_ACK, HEARTBEAT, HEARTBEAT_ACK, ABORT, SHUTDOWN = 0, 1, 2, 4, 5, 6, 7
SHUTDOWN_ACK, ERROR, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = 8, 9, 10, 11, 14
CHUNKS: Final = (
    "INIT",
    "INIT_ACK",
    "ABORT",
    "SHUTDOWN",
    "SHUTDOWN_ACK",
    "ERROR",
    "COOKIE_ECHO",
    "COOKIE_ACK",
    "SHUTDOWN_COMPLETE",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
)
# The rows of the grid, in this order.
_ROWS: Final = (
    INIT,
    INIT_ACK,
    ABORT,
    SHUTDOWN,
    SHUTDOWN_ACK,
    ERROR,
    COOKIE_ECHO,
    COOKIE_ACK,
    SHUTDOWN_COMPLETE,
    HEARTBEAT,
    HEARTBEAT_ACK,
)
_ROW: Final = {chunk: row for row, chunk in enumerate(_ROWS)}

# fmt: off
GRID: Final = (
    (  # original direction
        #  NO  CL  CW  CE  ES  SS  SR  SA  HS
        (  CL, CL, CW, CE, ES, CL, CL, SA, CW ),  # INIT: SS, SR: the peer restarts
        (  CL, CL, CW, CE, ES, SS, SR, SA, CL ),  # INIT_ACK: from the originator it means nothing
        (  CL, CL, CL, CL, CL, CL, CL, CL, CL ),  # ABORT
        (  CL, CL, CW, CE, SS, SS, SR, SA, CL ),  # SHUTDOWN
        (  SA, CL, CW, CE, ES, SA, SA, SA, SA ),  # SHUTDOWN_ACK: NO: out of the blue, RFC 9260 8.4 (5)
        (  CL, CL, CW, CE, ES, SS, SR, SA, CL ),  # ERROR
        (  CL, CL, CE, CE, ES, SS, SR, SA, CL ),  # COOKIE_ECHO
        (  CL, CL, CW, ES, ES, SS, SR, SA, CL ),  # COOKIE_ACK
        (  CL, CL, CW, CE, ES, SS, SR, CL, CL ),  # SHUTDOWN_COMPLETE
        (  HS, CL, CW, CE, ES, SS, SR, SA, HS ),  # HEARTBEAT: NO: a second path of a multi-homed peer
        (  CL, CL, CW, CE, ES, SS, SR, SA, HS ),  # HEARTBEAT_ACK
    ),
    (  # reply direction
        #  NO  CL  CW  CE  ES  SS  SR  SA  HS
        (  IV, CL, CW, CE, ES, SS, SR, SA, IV ),  # INIT
        (  IV, CW, CW, CE, ES, SS, SR, SA, IV ),  # INIT_ACK
        (  IV, CL, CL, CL, CL, CL, CL, CL, IV ),  # ABORT
        (  IV, CL, CW, CE, SR, SS, SR, SA, IV ),  # SHUTDOWN
        (  IV, CL, CW, CE, ES, SA, SA, SA, IV ),  # SHUTDOWN_ACK
        (  IV, CL, CW, CL, ES, SS, SR, SA, IV ),  # ERROR: CE: the cookie was stale
        (  IV, CL, CE, CE, ES, SS, SR, SA, IV ),  # COOKIE_ECHO
        (  IV, CL, CW, ES, ES, SS, SR, SA, IV ),  # COOKIE_ACK
        (  IV, CL, CW, CE, ES, SS, SR, CL, IV ),  # SHUTDOWN_COMPLETE
        (  IV, CL, CW, CE, ES, SS, SR, SA, HS ),  # HEARTBEAT
        (  IV, CL, CW, CE, ES, SS, SR, SA, ES ),  # HEARTBEAT_ACK: HS: the second path works
    ),
)
# fmt: on

_HEADER: Final = 12
_INIT_SIZE: Final = 20  # octets of an INIT or INIT ACK that must be there: chunk header, sctp_inithdr
_ALONE: Final = frozenset((INIT, INIT_ACK, SHUTDOWN_COMPLETE))
_FIRST: Final = frozenset((COOKIE_ECHO, COOKIE_ACK))
_NEVER_NEW: Final = frozenset((ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK))
# Chunks whose packets have a tag rule of their own (RFC 9260 8.5.1 and what Linux adds).
_OWN_TAG_RULE: Final = frozenset(
    (INIT, SHUTDOWN_COMPLETE, COOKIE_ECHO, ABORT, SHUTDOWN_ACK, HEARTBEAT, HEARTBEAT_ACK)
)
_CLOSING: Final = frozenset((SS, SR, SA))

MEMORY: Final = Struct("<IIBBBB")
_U32 = Struct("!I")


def chunks(packet: Packet) -> Iterator[tuple[int, int, int, int]]:
    """(type, flags, length, offset) of every chunk whose 4-octet header is there."""
    data, at, end = packet.data, packet.l4 + _HEADER, packet.end
    while at + 4 <= end:
        length = (data[at + 2] << 8) | data[at + 3]
        yield data[at], data[at + 1], length, at
        if length == 0:
            return
        at += (length + 3) & ~3


def check(packet: Packet, verify: bool, settings: Settings) -> str:
    """Length, CRC32c, and whether the chunks may stand together [sctp_error, do_basic_checks]."""
    if packet.lacks(_HEADER):
        return packet.shortage(_HEADER, reasons.SCTP_SHORT)
    if verify and packet.end == packet.length:
        data, l4 = packet.data, packet.l4
        crc = crc32c(data[l4 + _HEADER : packet.end], crc32c(bytes(data[l4 : l4 + 8]) + b"\0\0\0\0"))
        if crc != int.from_bytes(data[l4 + 8 : l4 + 12], "little"):
            return reasons.SCTP_CRC
    count, alone = 0, 0
    for kind, _, length, _ in chunks(packet):
        alone |= kind in _ALONE
        if length == 0 or (count and (alone or kind in _FIRST)):
            printed = length >> 8 | (length & 0xFF) << 8  # the kernel prints the wire's octets unswapped
            packet.numbers = (count, kind, printed, int(alone))
            return reasons.SCTP_CHUNKS
        count += 1
    if count == 0:
        return packet.shortage(_HEADER + 4, reasons.SCTP_EMPTY)
    return ""


def begin(packet: Packet, settings: Settings) -> tuple[str, Memory]:
    """May these chunks start an association [sctp_new]."""
    kinds = [kind for kind, _, _, _ in chunks(packet)]
    for kind in kinds:
        if kind in _NEVER_NEW:
            packet.numbers = (kind,)
            return reasons.SCTP_NEW, None
    tags = [0, 0]
    (tag,) = _U32.unpack_from(packet.data, packet.l4 + 4)
    for kind, _, _, at in chunks(packet):
        row = _ROW.get(kind)
        packet.numbers = (kind,)
        if row is None or GRID[ORIGINAL][row][NO] == IV:
            return reasons.SCTP_NEW, None
        if kind == INIT:
            if tag or at + _INIT_SIZE > packet.length:
                return reasons.SCTP_NEW, None
            if at + 8 > packet.end:
                packet.numbers = (at + 8 - packet.l4, packet.end - packet.l4)
                return reasons.CUT, None
            (tags[REPLY],) = _U32.unpack_from(packet.data, at + 4)
        elif kind == HEARTBEAT:
            tags[ORIGINAL] = tag
        elif kind == SHUTDOWN_ACK:
            tags[REPLY] = tag
    return "", MEMORY.pack(tags[0], tags[1], 0, 0, 0, 0)


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
    """One packet of an association, chunk by chunk [nf_conntrack_sctp_packet]."""
    assert isinstance(memory, bytes)
    tag0, tag1, init0, init1, last_dir, hb_failed = MEMORY.unpack(memory)
    tags, inits = [tag0, tag1], [init0, init1]
    other = 1 - direction
    (tag,) = _U32.unpack_from(packet.data, packet.l4 + 4)
    kinds = frozenset(kind for kind, _, _, _ in chunks(packet))
    if not kinds & _OWN_TAG_RULE and tag != tags[direction]:
        packet.numbers = (_raw(tag), _raw(tags[direction]), direction)
        return BAD, state, -1, 0, 0, reasons.SCTP_VTAG, memory

    new, ignore, assured, events, reason = NO, False, 0, 0, ""
    for kind, flags, _, at in chunks(packet):
        packet.numbers = (kind, direction)
        # RFC 9260 8.5.1: which tag this chunk may come with.
        if kind == INIT:
            if tag:
                reason = reasons.SCTP_CHUNK_VTAG
        elif kind in (ABORT, SHUTDOWN_COMPLETE):
            if tag != tags[other if flags & 1 else direction]:  # T bit: the tag is reflected
                reason = reasons.SCTP_CHUNK_VTAG
        elif kind == COOKIE_ECHO:
            if tag != tags[direction]:
                reason = reasons.SCTP_CHUNK_VTAG
        elif kind == COOKIE_ACK:
            inits = [0, 0]
        elif kind == HEARTBEAT:
            if tags[direction] == 0:
                tags[direction] = tag
            elif tag != tags[direction]:
                # perhaps the peer restarted: believe it if the answer agrees
                if DATA in kinds or ignore:
                    reason = reasons.SCTP_CHUNK_VTAG
                else:
                    hb_failed, last_dir, ignore = 1, direction, True
                    continue
            else:
                hb_failed = 0
        elif kind == HEARTBEAT_ACK:
            if tags[direction] == 0:
                tags[direction] = tag
            elif tag != tags[direction]:
                if DATA in kinds or ignore or not hb_failed or last_dir == direction:
                    reason = reasons.SCTP_CHUNK_VTAG
                else:
                    hb_failed = 0
                    tags[direction], tags[other] = tag, 0
            else:
                hb_failed = 0
        if reason:
            break
        row = _ROW.get(kind)
        new = state if row is None else GRID[direction][row][state]
        if new == IV:
            packet.numbers = (state, direction, kind)
            reason = reasons.SCTP_INVALID_STATE
            break
        if kind in (INIT, INIT_ACK):
            if at + _INIT_SIZE > packet.length or at + 8 > packet.end:
                reason = reasons.SCTP_CHUNK_VTAG if at + _INIT_SIZE > packet.length else reasons.CUT
                break
            (init_tag,) = _U32.unpack_from(packet.data, at + 4)
            if kind == INIT:
                if state == NO or tags[other] != init_tag:
                    if inits[direction] and inits[other]:
                        inits[other] = 0
                    inits[direction] = 1
                tags[other] = init_tag
                if state == CL and new == CL and status & CONFIRMED:
                    ignore = True  # an INIT again must not keep the entry alive
            else:
                known = tags[other]
                if (not inits[other] and known and known != init_tag) or (
                    inits[direction] and inits[other] and known != init_tag
                ):
                    reason = reasons.SCTP_CHUNK_VTAG
                    break
                tags[other] = init_tag
        if new != state:
            events |= EVENT_PROTOINFO
            if new == ES and not (status | assured) & ASSURED:
                assured = ASSURED
                events |= EVENT_ASSURED
        state = new
    memory = MEMORY.pack(tags[0], tags[1], inits[0], inits[1], last_dir, hb_failed)
    if reason:
        return BAD, state, -1, assured, events, reason, memory
    if ignore:
        return OK, state, -1, assured, events, reasons.SCTP_IGNORED, memory
    return OK, state, timeouts[new], assured, events, "", memory


def _raw(tag: int) -> int:
    """The tag as the kernel's log prints it: the wire's octets read as a little-endian word."""
    return int.from_bytes(tag.to_bytes(4, "big"), "little")


TRACKER: Final[Tracker] = Tracker("sctp", check, begin, track, STATES, allow_clash=False, early_drop=_CLOSING)
