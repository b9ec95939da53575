"""Fragments: gathered before tracking looks at them; `refragment` cuts them again behind it.

One rule: the datagram that comes out is the kernel's octet for octet.

    fragment ─► key ─► queue ─► end known? ─► overlap? ─► complete? ─► whole packet (`pieces` = how it came)
                         │ none: made, if memory allows      │ no                           │
                         └ 30 s / 60 s from its first ──► lost  └─► held             refragment ─► the pieces

A queue knows which octets it has as *runs*.  A fragment grows the last run only if it begins where that run
ends; everything else makes a run of its own, even beside another.  So a late copy of octets that are all
there is a duplicate if one run holds them, and an overlap, which kills the queue, if it takes two.

The two families differ in what a bad fragment does:

                                  IPv4                              IPv6
    no octets                     kills the queue                   refused; a first one goes on un-gathered
    more to come, length % 8      cut down to a multiple of 8       kills the queue, goes on un-gathered
    a second, different end       kills the queue                   refused
    offset + length > 65,535      refused when complete             refused
    first without its L4 header   gathered                          goes on un-gathered (RFC 8200, 4.5)
    alone ("atomic")              no fragment at all                gathered: leaves without fragment header
    64 others of that source      queue begins anew (max_dist)      -

Captured octets: a snap length may cut every fragment.  Lengths are those of the headers, as ever.  The whole
packet's `data` ends before the first octet that was not captured; what lies behind waits in `pieces`, with
zeros for what nobody saw, and each outgoing piece ends before its own first octet that was not captured.

Sources: inet_fragment.c (inet_frag_find, inet_frag_queue_insert), ip_fragment.c (ip_frag_queue,
ip_frag_reasm, ip_frag_too_far), nf_conntrack_reasm.c of Linux 6.18.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from struct import Struct
from typing import Any, NamedTuple, Protocol

from .. import reasons
from .packet import Packet, parse
from .refragment import Pieces, finish4

_U16 = Struct("!H")
_FRAGMENT_HEADER = Struct("!BxHI")  # next header, offset and more-fragments bit, identification

_MAXIMUM = 65535  # octets: an IPv4 packet; the payload of an IPv6 packet
_DF, _MF = 0x4000, 0x2000
_CE = 3  # ECN "congestion experienced"
_QUEUE4, _QUEUE6 = 200, 184  # octets that an empty queue counts: sizeof ipq and frag_queue in 6.18

_HOP, _TCP, _UDP, _ROUTING, _FRAGMENT, _AUTH, _ICMPV6, _NONE, _DEST = 0, 6, 17, 43, 44, 51, 58, 59, 60
_EXTENSIONS = frozenset((_HOP, _ROUTING, _FRAGMENT, _AUTH, _NONE, _DEST))

# Octets of L4 header that an IPv6 first fragment must have (RFC 8200, 4.5); one for other protocols.
_FIRST_NEEDS = {_TCP: 20, _UDP: 8, _ICMPV6: 8}


class Limits(NamedTuple):
    """The sysctls of reassembly: timeouts in nanoseconds, thresholds in octets of memory.

    ipfrag_time, ipfrag_high_thresh, ipfrag_low_thresh (unused since Linux 4.17), ipfrag_max_dist;
    nf_conntrack_frag6_timeout, _high_thresh, _low_thresh.
    """

    timeout4: int
    high4: int
    low4: int
    max_dist: int
    timeout6: int
    high6: int
    low6: int


class Lost(NamedTuple):
    """A datagram whose time was over: its fragment at offset 0 as it came, its latest one's device, when (ns)."""

    first: bytes
    device: str
    at: int


class Journal(Protocol):
    """What a trial writes down before it is changed."""

    def touch(self, thing: Any) -> None:
        """Note `thing.save()` for a later `thing.restore`."""


class Reassembler:
    """Waiting fragments of both families; everything that the kernel's hooks at priority -400 remember."""

    __slots__ = ("_four", "_six", "journal", "lost")

    def __init__(self) -> None:
        self._four = _Store(_QUEUE4)
        self._six = _Store(_QUEUE6)
        self.journal: Journal | None = None
        # Datagrams that timed out with their first fragment there; None: nobody wants to tell their senders.
        self.lost: list[Lost] | None = None

    def __len__(self) -> int:
        """How many datagrams wait for fragments."""
        return len(self._four.queues) + len(self._six.queues)

    @property
    def due(self) -> int:
        """A time (ns) before which no waiting datagram's time is over; there must be one."""
        stores = [store.queues for store in (self._four, self._six) if store.queues]
        return min([next(iter(queues.values())).deadline for queues in stores])

    @property
    def memory4(self) -> int:
        """Octets that waiting IPv4 fragments count for, as `truesize` has it, and 200 per datagram."""
        return self._four.memory

    @property
    def memory6(self) -> int:
        """Octets that waiting IPv6 fragments count for, as `truesize` has it, and 184 per datagram."""
        return self._six.memory

    def push(
        self, packet: Packet, now: int, zone: int, limits: Limits, device: str = ""
    ) -> tuple[Packet | None, str]:
        """Take a fragment at `now` (ns) from `device`: (whole packet, "") or (None, reason why nothing goes on).

        The whole packet is freshly parsed and has `pieces`.  A fragment that Linux does not gather comes back
        as it is, with "".  `packet.numbers` gets the numbers of the reason.
        """
        self.expire(now)
        if packet.fault != reasons.IP_TRUNCATED:
            if packet.family == 4 and packet.fragment:
                return self._push4(packet, now, zone, limits, device)
            if packet.family == 6:  # an "atomic" fragment is gathered though it needs no other
                return self._push6(packet, now, zone, limits, device)
        return packet, ""

    def expire(self, now: int) -> int:
        """Drop datagrams whose time is over at `now` (ns); how many fragments were lost with them."""
        return self._expire(self._four, now) + self._expire(self._six, now)

    def check(self) -> None:
        """Assert every invariant."""
        self._four.check()
        self._six.check()
        assert not self._six.sources

    def _push4(
        self, packet: Packet, now: int, zone: int, limits: Limits, device: str
    ) -> tuple[Packet | None, str]:
        store, data, header = self._four, packet.data, packet.l4
        (word,) = _U16.unpack_from(data, 6)
        offset = (word & 0x1FFF) * 8
        end = offset + packet.length - header
        key = bytes(data[4:6]) + data[9:10] + data[12:20] + zone.to_bytes(4, "big")
        if not self._room(store, limits.high4):
            return _refuse(packet, reasons.FRAGMENT_LIMIT, store.memory, limits.high4)
        queue = self._queue(store, key, now + limits.timeout4, bytes(data[12:16]) if limits.max_dist else b"")
        if store.too_far(queue, limits.max_dist):
            store.restart(key, queue, now + limits.timeout4)
        more = bool(word & _MF)
        if more:
            end &= ~7
        if not queue.reach(end, more) or end == offset:
            store.remove(key)
            return _refuse(packet, reasons.FRAGMENT_BAD, offset, packet.length - header)
        fault = queue.claim(offset, end)
        if fault:
            if fault == reasons.FRAGMENT_OVERLAP:
                store.remove(key)
            return _refuse(packet, fault, offset, end - offset)
        size = header + end - offset
        queue.largest = max(queue.largest, size)
        if word & _DF:
            queue.largest_df = max(queue.largest_df, size)
        queue.ecn |= 1 << (data[1] & 3)
        if offset == 0:
            queue.header = bytes(data[: min(header, packet.end)])
            queue.header_length = header
        return self._insert(store, key, queue, packet, offset, end, header, device)

    def _push6(
        self, packet: Packet, now: int, zone: int, limits: Limits, device: str
    ) -> tuple[Packet | None, str]:
        store, data = self._six, packet.data
        (payload,) = _U16.unpack_from(data, 4)
        at, previous = _fragment_header(data, packet.end)
        if payload == 0 or at == 0 or at > packet.length or _lacks_l4(data, at, packet.end, packet.length):
            return packet, ""
        if at + 8 > packet.length:
            return _refuse(packet, reasons.FRAGMENT_BAD, 0, packet.length - at)
        if at + 8 > packet.end:
            packet.fault = reasons.CUT
            packet.numbers = (8, packet.end - at)
            return packet, ""
        following, word, _ = _FRAGMENT_HEADER.unpack_from(data, at)
        offset, more, header = word & 0xFFF8, bool(word & 1), at + 8
        end = offset + packet.length - header
        key = bytes(data[at + 4 : header]) + data[8:40] + zone.to_bytes(4, "big")
        if not self._room(store, limits.high6):
            return _refuse(packet, reasons.FRAGMENT_LIMIT, store.memory, limits.high6)
        queue = self._queue(store, key, now + limits.timeout6, b"")
        if end > _MAXIMUM:
            return _refuse(packet, reasons.FRAGMENT_TOO_BIG, offset, end - offset)
        if more and end & 7:
            store.remove(key)
            return packet, ""
        if not queue.reach(end, more) or end == offset:
            return _refuse(packet, reasons.FRAGMENT_BAD, offset, end - offset)
        fault = queue.claim(offset, end)
        if fault:
            if fault == reasons.FRAGMENT_OVERLAP:
                store.remove(key)
            return _refuse(packet, fault, offset, end - offset)
        queue.largest = max(queue.largest, packet.length)
        queue.ecn |= 1 << (data[1] >> 4 & 3)
        if offset == 0:
            head = bytearray(data[:at])
            # Linux keeps this offset in one octet: behind 255 octets of headers it marks another one.
            head[previous & 0xFF] = following
            queue.header = bytes(head)
            queue.header_length = at
        return self._insert(store, key, queue, packet, offset, end, header, device)

    def _room(self, store: _Store, high: int) -> bool:
        """Is memory at or below the high threshold?  Asked before anything else, for known queues too."""
        return high > 0 and store.memory <= high

    def _queue(self, store: _Store, key: bytes, deadline: int, source: bytes) -> _Queue:
        """The queue of `key`, made if need be; from here on the store is written to."""
        queue = store.queues.get(key)
        if self.journal is not None:
            self.journal.touch(store)
            if queue is not None:
                self.journal.touch(queue)
        return queue or store.add(key, deadline, source)

    def _insert(
        self,
        store: _Store,
        key: bytes,
        queue: _Queue,
        packet: Packet,
        offset: int,
        end: int,
        header: int,
        device: str,
    ) -> tuple[Packet | None, str]:
        """Keep the payload that was claimed; hand out the whole packet if that was the last of it."""
        spent = truesize(packet.length)
        queue.insert(
            offset, end - offset, bytes(packet.data[header : min(packet.end, header + end - offset)])
        )
        queue.device = device
        if offset == 0 and self.lost is not None:
            queue.first = bytes(packet.data)
        if offset:
            queue.beside = min(queue.beside, header)
        queue.memory += spent
        store.memory += spent
        if not (queue.last and queue.header_length and queue.octets == queue.length):
            return _refuse(packet, reasons.HELD_FRAGMENT, offset, end - offset)
        store.remove(key)
        if queue.ecn & 1 and queue.ecn != 1:  # RFC 3168, 5.3: some of them not ECN-capable
            return _refuse(packet, reasons.FRAGMENT_BAD, offset, end - offset)
        if queue.header_length - (0 if packet.family == 4 else 40) + queue.length > _MAXIMUM:
            return _refuse(packet, reasons.FRAGMENT_TOO_BIG, offset, end - offset)
        return queue.whole(packet.family), ""

    def _expire(self, store: _Store, now: int) -> int:
        lost = 0
        while store.queues:
            key = next(iter(store.queues))
            queue = store.queues[key]
            if queue.deadline > now:
                break
            if self.journal is not None:
                self.journal.touch(store)
            lost += len(queue.starts)
            if self.lost is not None and queue.header_length:
                self.lost.append(Lost(queue.first, queue.device, queue.deadline))
            store.remove(key)
        return lost


def _refuse(packet: Packet, reason: str, first: int, second: int) -> tuple[None, str]:
    packet.numbers = (first, second)
    return None, reason


def truesize(length: int) -> int:
    """Octets of kernel memory that a packet of `length` octets is counted for.

    A packet buffer (256) and a block for 64 octets of headroom, the packet and 320 of bookkeeping: 576, a
    power of two up to 4096, then whole pages.  So it is for packets written to a TUN device; other drivers
    count a little more or less.
    """
    room = length + 384
    if room <= 576:
        return 256 + 576
    return 256 + (1 << (room - 1).bit_length() if room <= 4096 else (room + 4095) // 4096 * 4096)


# ── what waits ──────────────────────────────────────────────────────────────────────────────────────


class _Queue:
    """One datagram that is not complete.

    deadline       ns; memory: octets counted, its own 200 or 184 included
    starts, sizes  offset and length of each fragment held, in order; parts: what was captured of them
    runs, ends     where each run begins and ends
    length         octets of payload: the end of the last fragment, or the furthest seen; octets: held of them
    last           the last fragment was seen; header_length: not 0 if the first was; header: its octets
    beside         octets before the payload of a later fragment, the fewest there were
    ecn            a bit for each ECN codepoint seen
    first, device  the fragment at offset 0 as it came (if somebody wants it back), where the latest came in
    source, rid    IPv4: whose fragments are counted, and that count when this queue last got one
    """

    __slots__ = (
        "beside",
        "deadline",
        "device",
        "ecn",
        "ends",
        "first",
        "header",
        "header_length",
        "largest",
        "largest_df",
        "last",
        "length",
        "memory",
        "octets",
        "parts",
        "rid",
        "runs",
        "sizes",
        "source",
        "starts",
    )

    def __init__(self, deadline: int, memory: int, source: bytes) -> None:
        self.deadline = deadline
        self.memory = memory
        self.source = source
        self.rid = 0
        self.largest = 0
        self.largest_df = 0
        self.empty()

    def empty(self) -> None:
        """Nothing held; `largest` stays, as it does in the kernel."""
        self.starts: list[int] = []
        self.sizes: list[int] = []
        self.parts: list[bytes] = []
        self.runs: list[int] = []
        self.ends: list[int] = []
        self.header: bytes = b""
        self.header_length: int = 0
        self.length: int = 0
        self.octets: int = 0
        self.last: bool = False
        self.ecn: int = 0
        self.beside: int = _MAXIMUM
        self.first: bytes = b""
        self.device: str = ""

    def save(self) -> tuple[Any, ...]:
        """Everything, for the journal."""
        lists = tuple(list(each) for each in (self.starts, self.sizes, self.parts, self.runs, self.ends))
        head = (self.header, self.header_length, self.length, self.octets, self.last, self.ecn, self.beside)
        rest = (self.deadline, self.memory, self.source, self.rid, self.largest, self.largest_df)
        return lists, (*head, self.first, self.device), rest

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to what `save` gave."""
        lists, head, rest = saved
        self.starts, self.sizes, self.parts, self.runs, self.ends = lists
        self.header, self.header_length, self.length, self.octets, self.last, self.ecn, self.beside = head[:7]
        self.first, self.device = head[7:]
        self.deadline, self.memory, self.source, self.rid, self.largest, self.largest_df = rest

    def reach(self, end: int, more: bool) -> bool:
        """Note how far the datagram goes; False if that contradicts what is known.

        It is noted before anything else is looked at: a refused fragment can have told the end.
        """
        if more:
            if end > self.length:
                if self.last:
                    return False
                self.length = end
            return True
        if end < self.length or (self.last and end != self.length):
            return False
        self.last = True
        self.length = end
        return True

    def claim(self, offset: int, end: int) -> str:
        """Enter offset..end into the runs, or the reason why not."""
        runs, ends = self.runs, self.ends
        if not runs or ends[-1] < end:
            if not runs or offset > ends[-1]:
                runs.append(offset)
                ends.append(end)
            elif offset == ends[-1]:
                ends[-1] = end
            else:
                return reasons.FRAGMENT_OVERLAP
            return ""
        at = bisect_right(runs, offset)
        if at and offset < ends[at - 1]:
            return reasons.FRAGMENT_DUPLICATE if end <= ends[at - 1] else reasons.FRAGMENT_OVERLAP
        if at < len(runs) and runs[at] < end:
            return reasons.FRAGMENT_OVERLAP
        runs.insert(at, offset)
        ends.insert(at, end)
        return ""

    def insert(self, offset: int, size: int, part: bytes) -> None:
        """Keep a fragment's payload: `size` octets, of which `part` was captured."""
        at = bisect_right(self.starts, offset)
        self.starts.insert(at, offset)
        self.sizes.insert(at, size)
        self.parts.insert(at, part)
        self.octets += size

    def whole(self, family: int) -> Packet:
        """The reassembled packet, its header put right."""
        length = self.header_length + self.length
        data = bytearray(self.header)
        holes: list[tuple[int, int]] = []
        _fill(data, self.header_length, holes)
        for size, part in zip(self.sizes, self.parts, strict=True):
            goal = len(data) + size
            data += part
            _fill(data, goal, holes)
        congestion = _CE if self.ecn & 8 else 0
        df = _DF if family == 4 and self.largest_df == self.largest else 0
        if family == 4:
            data[1] |= congestion
            finish4(data, self.header_length, length, df)
        else:
            data[1] |= congestion << 4
            _U16.pack_into(data, 4, length - 40)
        captured = holes[0][0] if holes else length
        packet = parse(bytes(data[:captured]), length)
        sizes, rest = tuple(self.sizes), bytes(data[captured:])
        packet.pieces = Pieces(self.header_length, sizes, self.largest, self.beside, df, rest, tuple(holes))
        return packet

    def check(self, own: int) -> None:
        """Assert every invariant of one queue; `own` is what an empty one counts."""
        count = len(self.starts)
        assert len(self.sizes) == len(self.parts) == count and len(self.runs) == len(self.ends)
        assert self.octets == sum(self.sizes) == sum(self.ends) - sum(self.runs) <= max(self.length, 0)
        assert all(size > 0 for size in self.sizes) and all(
            len(part) <= size for part, size in zip(self.parts, self.sizes, strict=True)
        )
        stops = [start + size for start, size in zip(self.starts, self.sizes, strict=True)]
        assert all(stop <= start for stop, start in zip(stops, self.starts[1:], strict=False))
        assert all(end <= run for end, run in zip(self.ends, self.runs[1:], strict=False))
        assert set(self.runs) <= set(self.starts) and set(self.ends) <= set(stops)
        assert (self.starts[:1] == [0]) == (self.header_length > 0)
        assert self.largest_df <= self.largest and own <= self.memory
        assert count or self.memory == own


class _Store:
    """The queues of one family, earliest deadline first, and what they count for.

    sources   IPv4: per source address how many of its fragments were seen, and in how many queues it waits
    """

    __slots__ = ("memory", "own", "queues", "sources")

    def __init__(self, own: int) -> None:
        self.own = own
        self.queues: OrderedDict[bytes, _Queue] = OrderedDict()
        self.memory = 0
        self.sources: dict[bytes, tuple[int, int]] = {}

    def save(self) -> tuple[Any, ...]:
        """Everything, for the journal."""
        return OrderedDict(self.queues), self.memory, dict(self.sources)

    def restore(self, saved: tuple[Any, ...]) -> None:
        """Back to what `save` gave."""
        self.queues, self.memory, self.sources = saved

    def add(self, key: bytes, deadline: int, source: bytes) -> _Queue:
        """A new queue; its fragments are counted by `source`, unless that is b""."""
        queue = _Queue(deadline, self.own, source)
        self.memory += self.own
        self._file(key, queue)
        if source:
            seen, waiting = self.sources.get(source, (0, 0))
            self.sources[source] = (seen, waiting + 1)
        return queue

    def remove(self, key: bytes) -> None:
        """Forget a queue and all that it counts for."""
        queue = self.queues.pop(key)
        self.memory -= queue.memory
        if queue.source:
            seen, waiting = self.sources[queue.source]
            if waiting > 1:
                self.sources[queue.source] = (seen, waiting - 1)
            else:
                del self.sources[queue.source]

    def too_far(self, queue: _Queue, most: int) -> bool:
        """Count a fragment of the queue's source; were there more than `most` since its last one?"""
        if not queue.source or not most:
            return False
        seen, waiting = self.sources[queue.source]
        before = queue.rid
        queue.rid = seen + 1
        self.sources[queue.source] = (seen + 1, waiting)
        return bool(queue.starts) and queue.rid - before > most

    def restart(self, key: bytes, queue: _Queue, deadline: int) -> None:
        """Throw away what the queue holds and give it its whole time again."""
        self.memory -= queue.memory - self.own
        queue.memory = self.own
        queue.deadline = deadline
        queue.empty()
        del self.queues[key]
        self._file(key, queue)

    def _file(self, key: bytes, queue: _Queue) -> None:
        # The last deadline is the latest, unless the timeout was made shorter while queues wait.
        late = bool(self.queues) and self.queues[next(reversed(self.queues))].deadline > queue.deadline
        self.queues[key] = queue
        if late:
            self.queues = OrderedDict(sorted(self.queues.items(), key=_deadline))

    def check(self) -> None:
        """Assert every invariant of the family."""
        assert self.memory == sum(queue.memory for queue in self.queues.values())
        deadlines = [queue.deadline for queue in self.queues.values()]
        assert deadlines == sorted(deadlines)
        waiting: dict[bytes, int] = {}
        for queue in self.queues.values():
            queue.check(self.own)
            if queue.source:
                waiting[queue.source] = waiting.get(queue.source, 0) + 1
                assert queue.rid <= self.sources[queue.source][0]
        assert waiting == {source: count for source, (_, count) in self.sources.items()}


def _deadline(item: tuple[bytes, _Queue]) -> int:
    return item[1].deadline


def _fill(data: bytearray, goal: int, holes: list[tuple[int, int]]) -> None:
    """Zeros for octets that were not captured, up to `goal`, and a note where."""
    if len(data) < goal:
        holes.append((len(data), goal))
        data += bytes(goal - len(data))


# ── the IPv6 header chain ───────────────────────────────────────────────────────────────────────────


def _fragment_header(data: bytes | bytearray, end: int) -> tuple[int, int]:
    """Where the first fragment header is, and the octet that announces it; (0, 0) if there is none."""
    proto, at, previous = data[6], 40, 6
    while proto != _FRAGMENT:
        if proto not in _EXTENSIONS or proto == _NONE or at + 2 > end:
            return 0, 0
        proto, previous, at = data[at], at, at + _size(proto, data[at + 1])
    return at, previous


def _lacks_l4(data: bytes | bytearray, at: int, end: int, length: int) -> bool:
    """Is the fragment at `at` a first one that ends before its L4 header does?

    If the chain cannot be read to its end the answer is no.
    """
    proto = _FRAGMENT
    while proto in _EXTENSIONS:
        if proto == _NONE or at + (4 if proto == _FRAGMENT else 2) > end:
            return False
        if proto == _FRAGMENT and (data[at + 2] or data[at + 3] & 0xF8):
            return False
        proto, at = data[at], at + _size(proto, data[at + 1])
    return at + _FIRST_NEEDS.get(proto, 1) > length


def _size(proto: int, octet: int) -> int:
    """Octets of an extension header with `octet` in its length field."""
    if proto == _FRAGMENT:
        return 8
    return (octet + 2) * 4 if proto == _AUTH else (octet + 1) * 8
