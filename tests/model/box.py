"""The table and the order in which everything happens to a packet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packets import ICMP, ICMPV6, TCP, UDP

from . import nat, tcp
from .packet import Fields, read, right_checksum, short_icmp, text, upper, without_padding, write

SECOND = 10**9
JIFFY = SECOND // 250
DEFAULTS = {
    "tcp_timeout_syn_sent": 120, "tcp_timeout_syn_recv": 60, "tcp_timeout_established": 432000,
    "tcp_timeout_fin_wait": 120, "tcp_timeout_close_wait": 60, "tcp_timeout_last_ack": 30,
    "tcp_timeout_time_wait": 120, "tcp_timeout_close": 10, "tcp_timeout_max_retrans": 300,
    "tcp_timeout_unacknowledged": 300, "tcp_loose": 1, "tcp_be_liberal": 0, "tcp_ignore_invalid_rst": 0,
    "tcp_max_retrans": 3, "udp_timeout": 30, "udp_timeout_stream": 120, "icmp_timeout": 30, "icmpv6_timeout": 30,
    "generic_timeout": 600, "max": 262144,
}  # fmt: skip
CREATING = {ICMP: (8, 13, 15, 17), ICMPV6: (128, 139)}
ERRORS = (3, 4, 5, 11, 12)
UNTRACKED = (130, 131, 132, 133, 134, 135, 136, 143, 151, 152)


class Model:
    """Connection tracking with NAT `rules` (None: no NAT at all).

    `bucket(flow, proto)` says in which of `buckets` hash chains a tuple stands; `choices` draws port offsets
    and chain limits.
    """

    def __init__(
        self,
        rules: list[dict[str, Any]] | None,
        sysctl: dict[str, int],
        choices: Any,
        bucket: Callable[[nat.Flow, int], int],
        buckets: int = 512,
    ) -> None:
        self.rules = rules
        self.sysctl = DEFAULTS | sysctl
        self.choices = choices
        self.bucket = bucket
        self.buckets = buckets
        self.now = 0
        self.entries: list[dict[str, Any]] = []  # confirmed ones, oldest first
        self.chains: dict[int, list[dict[str, Any]]] = {}  # an entry per node, newest first
        self.stats = dict.fromkeys(("found", "invalid", "insert_failed", "drop", "early_drop", "error"), 0)
        self.stats["chaintoolong"] = 0
        self.began: int | None = None
        self.next_sweep = 0  # in jiffies since `began`
        self.armed = False

    # ── the table ───────────────────────────────────────────────────────────────────────────────────

    def insert(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        for name in ("orig", "reply"):
            self.chains.setdefault(self.bucket(entry[name], entry["proto"]), []).insert(0, entry)

    def remove(self, entry: dict[str, Any]) -> None:
        if entry["status"] & {"DYING"}:
            return
        entry["status"].add("DYING")
        self.entries = [other for other in self.entries if other is not entry]
        for number, chain in list(self.chains.items()):
            self.chains[number] = [other for other in chain if other is not entry]

    def expired(self, entry: dict[str, Any]) -> bool:
        return entry["deadline"] <= self.now

    def look_up(self, flow: nat.Flow, proto: int) -> tuple[dict[str, Any] | None, int]:
        """The live entry one of whose tuples is `flow`, and its direction; an expired one ends here."""
        for entry in self.entries:
            if entry["proto"] == proto and flow in (entry["orig"], entry["reply"]):
                if self.expired(entry):
                    self.remove(entry)
                    return None, 0
                return entry, 1 if flow == entry["reply"] else 0
        return None, 0

    def used(self, answers: nat.Flow, entry: dict[str, Any]) -> bool:
        """Does another entry claim these answers?"""
        other, _ = self.look_up(answers, entry["proto"])
        if other is None or other["orig"] == entry["orig"]:
            return False
        self.stats["found"] += 1
        return True

    def full(self) -> bool:
        """Would one more be too many?"""
        return 0 < self.sysctl["max"] < len(self.entries) + 1

    def make_room(self, flow: nat.Flow, proto: int) -> bool:
        """Evict what is not assured near the newcomer's bucket."""
        first = self.bucket(flow, proto)
        for step in range(8):
            victims = 0
            for entry in self.chains.get((first + step) % self.buckets, []):
                if "DYING" in entry["status"]:
                    continue  # met before, through its other node
                if self.expired(entry):
                    self.remove(entry)
                elif "ASSURED" not in entry["status"]:
                    self.remove(entry)
                    victims += 1
            if victims:
                self.stats["early_drop"] += victims
                return True
        return False

    # ── time ────────────────────────────────────────────────────────────────────────────────────────

    def sweep_until(self, now: int) -> None:
        """The gc worker: what it would have done until `now`."""
        if self.began is None:
            self.began = now
            self.next_sweep = timer(0, 250)
        while self.began + self.next_sweep * JIFFY <= now:
            self.now = self.began + self.next_sweep * JIFFY
            self.next_sweep = timer(self.next_sweep, self.sweep())

    def sweep(self) -> int:
        """Delete what is expired; the pause until the next sweep in jiffies."""
        goal = self.sysctl["max"] // 100 * 95 if self.armed else 0
        self.armed = False
        pause, count, done = 15000, 100, 0
        for number in sorted(self.chains):
            for entry in list(self.chains[number]):
                if "DYING" in entry["status"]:
                    continue
                if self.expired(entry):
                    self.remove(entry)
                    done += 1
                    continue
                left = min(max((entry["deadline"] - self.now) // JIFFY, 250), 75000)
                count += 1
                pause += int((left - pause) / count)
                may_go = "ASSURED" not in entry["status"] or entry.get("state") in tcp.CLOSING
                if goal and len(self.entries) >= goal and done < 257 and may_go:
                    self.remove(entry)
                    done += 1
        return max(min(max(pause, 250), 15000) - self.sweep_took, 1)

    sweep_took = 1  # jiffies: the least that is subtracted

    # ── a packet ────────────────────────────────────────────────────────────────────────────────────

    def process(self, data: bytes, now: int) -> tuple[str, str, list[bytes]]:
        """(verdict, ctinfo, packets that go out)."""
        now = max(now, self.now)
        self.sweep_until(now)
        self.now = now
        data = without_padding(data)
        fields = read(data)
        if fields is None:
            return self.invalid(data, "error" if short_icmp(data) else "invalid")
        proto, l4 = fields["proto"], fields["l4"]
        right_family = proto != (ICMPV6 if fields["family"] == 4 else ICMP)
        if proto in (ICMP, ICMPV6) and right_family:
            if not right_checksum(fields) or (proto == ICMP and l4[0] > 18):
                return self.invalid(data, "error")
            if proto == ICMPV6 and l4[0] in UNTRACKED:
                return "ACCEPT", "UNTRACKED", [data]
            if l4[0] in ERRORS if proto == ICMP else l4[0] < 128:
                return self.icmp_error(fields, data)
        while True:
            entry, direction = self.look_up(fields["tuple"], proto)
            fresh = entry is None
            if entry is None:
                reply = nat.inverse(fields["tuple"], proto)
                if reply is None:
                    return self.invalid(data)
                if self.full():
                    # the newcomer's look-up has walked its chain and buried the dead there
                    for other in self.chains.get(self.bucket(fields["tuple"], proto), []):
                        if self.expired(other):
                            self.remove(other)
                if self.full():
                    if not self.make_room(fields["tuple"], proto):
                        self.armed = True
                        self.stats["drop"] += 1
                        return "DROP", "INVALID", []
                entry = {
                    "proto": proto, "orig": fields["tuple"], "reply": reply, "status": set(), "deadline": 0,
                    "packets": [0, 0], "bytes": [0, 0], "born": self.now,
                }  # fmt: skip
            ctinfo = "ESTABLISHED" if direction == 1 or "SEEN_REPLY" in entry["status"] else "NEW"
            verdict, timeout = self.track(entry, direction, fields, fresh) if right_family else ("invalid", None)
            if verdict == "repeat":
                self.remove(entry)
                continue
            break
        if verdict != "invalid" and (timeout is not None or verdict == "kill"):
            entry["packets"][direction] += 1
            entry["bytes"][direction] += fields["length"]
        if timeout is not None:
            entry["deadline"] = timeout * SECOND + (0 if fresh else self.now)
        if verdict == "invalid":
            return self.invalid(data)
        if verdict == "kill":
            self.remove(entry)
        if direction == 1:
            entry["status"].add("SEEN_REPLY")
        for side in ("dst", "src"):
            self.translate(entry, fields, direction, side, ctinfo)
        if fresh and not self.confirm(entry):
            return "DROP", ctinfo, []
        return "ACCEPT", ctinfo, [write(fields) if fields.get("changed") else data]

    def invalid(self, data: bytes, counter: str = "invalid") -> tuple[str, str, list[bytes]]:
        self.stats[counter] += 1
        return "ACCEPT", "INVALID", [data]

    def confirm(self, entry: dict[str, Any]) -> bool:
        """Into the table, unless something there has its tuples or a chain is too long."""
        for other in self.entries:
            if other["proto"] == entry["proto"]:
                if {entry["orig"], entry["reply"]} & {other["orig"], other["reply"]}:
                    self.stats["insert_failed"] += 1
                    self.stats["drop"] += 1
                    return False
        entry["deadline"] += self.now
        entry["status"].add("CONFIRMED")
        self.insert(entry)
        return True

    # ── judgement ───────────────────────────────────────────────────────────────────────────────────

    def track(self, entry: dict[str, Any], direction: int, fields: Fields, fresh: bool) -> tuple[str, int | None]:
        proto, l4, sysctl = fields["proto"], fields["l4"], self.sysctl
        if proto == TCP:
            if len(l4) < 20:
                return "invalid", None
            segment = tcp.read_segment(l4)
            if segment["header"] < 20 or segment["header"] > len(l4) or not right_checksum(fields):
                return "invalid", None
            if segment["flags"] - {"P", "E", "C"} not in tcp.VALID_FLAGS:
                return "invalid", None
            if fresh and not tcp.begin(entry, segment, bool(sysctl["tcp_loose"])):
                return "invalid", None
            return tcp.follow(entry, segment, direction, entry["deadline"] - self.now, sysctl)
        if proto == UDP:
            length = int.from_bytes(l4[4:6], "big")
            if len(l4) < 8 or length < 8 or length > len(l4) or not right_checksum(fields):
                return "invalid", None
            if "SEEN_REPLY" not in entry["status"] or self.now <= entry["born"] + 2 * SECOND:
                return "ok", sysctl["udp_timeout"]
            entry["status"].add("ASSURED")
            return "ok", sysctl["udp_timeout_stream"]
        if proto in (ICMP, ICMPV6):
            if fresh and l4[0] not in CREATING[proto]:
                return "invalid", None
            return "ok", sysctl["icmp_timeout" if proto == ICMP else "icmpv6_timeout"]
        return "ok", sysctl["generic_timeout"]

    # ── translation ─────────────────────────────────────────────────────────────────────────────────

    def translate(self, entry: dict[str, Any], fields: Fields, direction: int, side: str, ctinfo: str) -> None:
        if self.rules is None:
            return
        done = side.upper() + "_NAT_DONE"
        proto = entry["proto"]
        if ctinfo == "NEW" and done not in entry["status"] and "CONFIRMED" not in entry["status"]:
            current = nat.inverse(entry["reply"], proto)
            wanted = nat.request(self.rules, current, proto, side)
            new = nat.choose(self, entry, current, wanted)
            if new != current:
                entry["reply"] = nat.inverse(new, proto)
                entry["status"].add(side.upper() + "_NAT")
            entry["status"].add(done)
        if changes(entry, side, direction):
            nat.rewrite(fields, nat.inverse(entry["orig" if direction == 1 else "reply"], proto), side)
            fields["changed"] = True

    # ── ICMP errors ─────────────────────────────────────────────────────────────────────────────────

    def icmp_error(self, fields: Fields, data: bytes) -> tuple[str, str, list[bytes]]:
        quote = fields["l4"][8:]
        v4 = fields["family"] == 4
        if len(quote) < (20 if v4 else 40) or (v4 and int.from_bytes(quote[6:8], "big") & 0x1FFF):
            return self.invalid(data, "error")
        proto, at = (quote[9], (quote[0] & 15) * 4) if v4 else (quote[6], 40)
        numbers = upper(proto, quote[at:])
        inner = (text(quote[12:16]), text(quote[16:20])) if v4 else (text(quote[8:24]), text(quote[24:40]))
        flow = None if numbers is None else nat.inverse((*inner, *numbers), proto)
        if flow is None:
            return self.invalid(data, "error")
        entry, direction = self.look_up(flow, proto)
        if entry is None or fields["dst"] != flow[1]:
            return self.invalid(data, "error")
        redirect = fields["l4"][0] == 5 and v4
        for side in ("dst", "src") if self.rules is not None else ():
            translated = entry["status"] & {"SRC_NAT", "DST_NAT"}
            if redirect and (translated or not {"SRC_NAT_DONE", "DST_NAT_DONE"} <= entry["status"]):
                return "DROP", "RELATED", []
            if changes(entry, side, direction):
                other = entry["orig" if direction == 1 else "reply"]
                opposite = "src" if side == "dst" else "dst"
                changed = nat.rewrite_quote(fields["l4"][8:], other, opposite)
                if changed is None:
                    return "DROP", "RELATED", []
                fields["l4"] = fields["l4"][:8] + changed
                outer = nat.inverse(other, proto)
                fields["src" if side == "src" else "dst"] = outer[0 if side == "src" else 1]
                fields["changed"] = True
        return "ACCEPT", "RELATED", [write(fields) if fields.get("changed") else data]


def changes(entry: dict[str, Any], side: str, direction: int) -> bool:
    """Answers to source-translated packets change in their destination, and the other way round."""
    if direction == 1:
        side = "src" if side == "dst" else "dst"
    return side.upper() + "_NAT" in entry["status"]


def timer(now: int, pause: int) -> int:
    """When a timer of the kernel goes off that was set at jiffy `now` for `pause`: its wheel has levels of 64
    slots, each eight times coarser than the one before, and rounds up."""
    level = 0
    while pause >= 63 << 3 * level:
        level += 1
    return ((now + pause) // 8**level + 1) * 8**level
