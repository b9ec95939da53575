"""The TCP state machine and its windows, line by line as it is described."""

from __future__ import annotations

import struct
from typing import Any

Entry = dict[str, Any]

ORIGINAL_ROWS = """
             NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2
    SYN      SYN_SENT SYN_SENT IG IG IG IG IG SYN_SENT SYN_SENT SYN_SENT2
    SYNACK   IV IV SYN_RECV IV IV IV IV IV IV SYN_RECV
    FIN      IV IV FIN_WAIT FIN_WAIT LAST_ACK LAST_ACK LAST_ACK TIME_WAIT CLOSE IV
    ACK      ESTABLISHED IV ESTABLISHED ESTABLISHED CLOSE_WAIT CLOSE_WAIT TIME_WAIT TIME_WAIT CLOSE IV
    RST      IV CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE
"""
REPLY_ROWS = """
             NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2
    SYN      IV SYN_SENT2 IV IV IV IV IV SYN_SENT IV SYN_SENT2
    SYNACK   IV SYN_RECV IG IG IG IG IG IG IG SYN_RECV
    FIN      IV IV FIN_WAIT FIN_WAIT LAST_ACK LAST_ACK LAST_ACK TIME_WAIT CLOSE IV
    ACK      IV IG SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE_WAIT TIME_WAIT TIME_WAIT CLOSE IG
    RST      IV CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE
"""
CLOSING = ("FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE")


def _grid(rows: str) -> dict[tuple[str, str], str]:
    head, *lines = rows.strip().splitlines()
    return {
        (line.split()[0], old): cell
        for line in lines
        for old, cell in zip(head.split(), line.split()[1:], strict=True)
    }


GRID = (_grid(ORIGINAL_ROWS), _grid(REPLY_ROWS))
VALID_FLAGS = [set(text) for text in ("S", "SU", "SA", "R", "RA", "FA", "FAU", "A", "AU")]


def before(a: int, b: int) -> bool:
    return (a - b) % 2**32 >= 2**31


def after(a: int, b: int) -> bool:
    return before(b, a)


def read_segment(l4: bytes) -> dict[str, Any]:
    """The fields of a segment that has at least 20 octets."""
    sport, dport, seq, ack, offset, bits, win = struct.unpack("!HHIIBBH", l4[:16])
    header = (offset >> 4) * 4
    flags = {letter for bit, letter in enumerate("FSRPAUEC") if bits >> bit & 1}
    size = max(len(l4) - header, 0)
    kind = "NONE"
    if "R" in flags:
        kind = "RST"
    elif "S" in flags:
        kind = "SYNACK" if "A" in flags else "SYN"
    elif "F" in flags:
        kind = "FIN"
    elif "A" in flags:
        kind = "ACK"
    return {
        "sport": sport, "dport": dport, "seq": seq, "ack": ack, "win": win, "flags": flags, "kind": kind,
        "header": header, "options": l4[20:header], "end": (seq + size + ("S" in flags) + ("F" in flags)) % 2**32,
    }  # fmt: skip


def walk_options(options: bytes) -> list[tuple[int, bytes]]:
    """(kind, body) of each option until the list ends or goes wrong."""
    found = []
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or options[1] < 2 or options[1] > len(options):
            break
        found.append((options[0], options[2 : options[1]]))
        options = options[options[1] :]
    return found


def take_syn_options(side: dict[str, Any], options: bytes) -> None:
    """What a SYN's options say about its sender; without option octets nothing is touched."""
    if not options:
        return
    side["scale"] = 0
    side["flags"] &= {"BE_LIBERAL"}
    for kind, body in walk_options(options):
        if kind == 4 and len(body) == 0:
            side["flags"].add("SACK_PERM")
        if kind == 3 and len(body) == 1:
            side["flags"].add("WINDOW_SCALE")
            side["scale"] = min(body[0], 14)


def sacked(options: bytes, ack: int) -> int:
    """The highest right edge above `ack` of the first SACK option."""
    if not options or (len(options) == 12 and options[:4] == b"\x01\x01\x08\x0a"):
        return ack
    for kind, body in walk_options(options):
        if kind == 5 and len(body) >= 8 and len(body) % 8 == 0:
            for _, edge in struct.iter_unpack("!II", body):
                if after(edge, ack):
                    ack = edge
            return ack
    return ack


def blank() -> dict[str, Any]:
    return {"end": 0, "maxend": 0, "maxwin": 0, "maxack": 0, "scale": 0, "flags": set()}


def begin(entry: Entry, segment: dict[str, Any], loose: bool) -> bool:
    """The first packet of an entry; False: it may not begin one."""
    state = GRID[0][segment["kind"], "NONE"]
    side, other = blank(), blank()
    if state == "IV" or (state == "ESTABLISHED" and not loose):
        return False
    side["end"] = side["maxend"] = segment["end"]
    side["maxwin"] = max(segment["win"], 1)
    if state == "SYN_SENT":
        take_syn_options(side, segment["options"])
    else:
        side["maxend"] = (side["end"] + side["maxwin"]) % 2**32
        side["flags"] = {"SACK_PERM", "BE_LIBERAL"}
        other["flags"] = {"SACK_PERM", "BE_LIBERAL"}
    entry["state"] = "NONE"
    entry["seen"] = [side, other]
    entry["last"] = {
        "kind": "NONE", "dir": 0, "seq": 0, "ack": 0, "end": 0, "win": 0, "scale": 0, "flags": set(), "retrans": 0,
    }  # fmt: skip
    return True


def follow(entry: Entry, segment: dict[str, Any], direction: int, remaining: int, sysctl: dict[str, int]) -> tuple:
    """One segment: ("ok", timeout or None) | ("invalid", timeout or None) | ("repeat", None) | ("kill", None).

    Timeouts in seconds; None: neither the timer nor the counters move.  `remaining` is in nanoseconds.
    """
    kind = segment["kind"]
    seq, ack, end, win = segment["seq"], segment["ack"], segment["end"], segment["win"]
    seen, last = entry["seen"], entry["last"]
    sender, receiver = seen[direction], seen[1 - direction]
    stored = old = entry["state"]
    new = GRID[direction].get((kind, old), "IV")
    skip_window = False

    if new == "SYN_SENT" and old in ("TIME_WAIT", "CLOSE"):
        closed_by_fin = "CLOSE_INIT" in sender["flags"] | receiver["flags"]
        if closed_by_fin or (last["kind"] == "RST" and last["dir"] == direction):
            return "repeat", None
        new = "IG"

    if new == "IV":
        return "invalid", None

    if new == "IG":
        if kind == "SYNACK" and last["kind"] == "SYN" and last["dir"] != direction and ack == last["end"]:
            last["flags"].discard("CHALLENGE_ACK")
            receiver.update(
                end=last["end"], maxend=last["end"], maxwin=max(last["win"], 1), scale=last["scale"],
                flags=set(last["flags"]),
            )  # fmt: skip
            liberal = sender["flags"] & {"BE_LIBERAL"}
            sender.update(blank())
            sender["flags"] = liberal
            old, new = "SYN_SENT", "SYN_RECV"
        else:
            last.update(kind=kind, dir=direction, seq=seq, end=end, win=win)
            if kind == "SYN" and direction == 0:
                remembered = blank()
                take_syn_options(remembered, segment["options"])
                last["flags"], last["scale"] = remembered["flags"], remembered["scale"]
                if old == "LAST_ACK":
                    last["flags"].add("CHALLENGE_ACK")
            if old == "SYN_SENT" and kind == "ACK" and direction == 1:
                last["ack"] = ack
            return "ok", None

    if new == "TIME_WAIT" and old == "LAST_ACK" and kind == "ACK":
        if last["kind"] == "SYN" and last["dir"] != direction and "CHALLENGE_ACK" in last["flags"]:
            last["flags"].discard("CHALLENGE_ACK")
            return "ok", None

    if new == "SYN_SENT2":
        last["flags"].add("SIMULTANEOUS_OPEN")
    if new == "SYN_RECV" and direction == 1 and kind == "ACK" and "SIMULTANEOUS_OPEN" in last["flags"]:
        new = "ESTABLISHED"

    if new == "CLOSE" and kind == "RST":
        assured = old == "ESTABLISHED" and "ASSURED" in entry["status"]
        if old in CLOSING:
            skip_window = True
        else:
            to_window = False
            if "MAXACK_SET" in receiver["flags"] and last["kind"] != "SYN":
                if seq == 0 and not assured:
                    to_window = True
                elif before(seq, receiver["maxack"]) and not sysctl["tcp_ignore_invalid_rst"]:
                    return "invalid", None
                elif (
                    not assured
                    or seq == receiver["maxack"]
                    or (last["kind"] == "ACK" and last["dir"] == direction and seq == last["end"])
                ):
                    to_window = True
                else:
                    new = old
            if not to_window:
                answers_syn = "SEEN_REPLY" in entry["status"] and last["kind"] == "SYN" and last["dir"] != direction
                answers_ack = "ASSURED" not in entry["status"] and last["kind"] == "ACK"
                if ((answers_syn or answers_ack) and ack == last["end"]) or (
                    old == "SYN_SENT" and last["kind"] == "ACK" and last["dir"] == 1 and seq == last["ack"]
                ):
                    skip_window = True

    if not skip_window:
        verdict = window(entry, segment, direction, stored, sysctl)
        if verdict == "ignore":
            return "ok", None
        if verdict == "invalid":
            return "invalid", out_of_window(entry, kind, direction, remaining, sysctl)

    last["kind"], last["dir"] = kind, direction
    entry["state"] = new
    if new != old and new == "FIN_WAIT":
        sender["flags"].add("CLOSE_INIT")

    def timer(name: str) -> int:
        return 120 if name == "SYN_SENT2" else sysctl["tcp_timeout_" + name.lower()]

    unacked = "DATA_UNACKNOWLEDGED" in sender["flags"] | receiver["flags"]
    timeout = timer(new)
    if last["retrans"] >= sysctl["tcp_max_retrans"] and timeout > timer("MAX_RETRANS"):
        timeout = timer("MAX_RETRANS")
    elif kind == "RST":
        timeout = timer("CLOSE")
    elif unacked and timeout > timer("UNACKNOWLEDGED"):
        timeout = timer("UNACKNOWLEDGED")
    elif last["win"] == 0 and timeout > timer("MAX_RETRANS"):
        timeout = timer("MAX_RETRANS")

    if "SEEN_REPLY" not in entry["status"]:
        if kind == "RST":
            return "kill", None
        if kind == "SYN" and old == "SYN_SENT":
            return "ok", None
        if new == "ESTABLISHED":
            timeout = min(timeout, timer("UNACKNOWLEDGED"))
    elif old in ("SYN_RECV", "ESTABLISHED") and new == "ESTABLISHED":
        entry["status"].add("ASSURED")
    return "ok", timeout


def window(entry: Entry, segment: dict[str, Any], direction: int, stored: str, sysctl: dict[str, int]) -> str:
    """Is the segment within what both sides have announced: "accept", "ignore" or "invalid"?"""
    seq, ack, end, win = segment["seq"], segment["ack"], segment["end"], segment["win"]
    flags, options, last = segment["flags"], segment["options"], entry["last"]
    sender, receiver = entry["seen"][direction], entry["seen"][1 - direction]

    sack = ack
    if "SACK_PERM" in receiver["flags"]:
        sack = sacked(options, ack)

    if sender["maxwin"] == 0:
        if "S" in flags:
            start_over(sender, receiver, segment, direction)
            if "A" not in flags:
                return "accept"
        else:
            sender["end"] = end
            sender["maxwin"] = max((win << sender["scale"]) % 2**32, 1)
            sender["maxend"] = (end + sender["maxwin"]) % 2**32
            if receiver["maxwin"] == 0:
                receiver["end"] = receiver["maxend"] = sack
            elif sack == (receiver["end"] + 1) % 2**32:
                receiver["end"] = sack
    elif "S" in flags and after(end, sender["end"]) and stored in ("SYN_SENT", "SYN_RECV"):
        start_over(sender, receiver, segment, direction)
        if direction == 1 and "A" not in flags:
            return "accept"

    if "A" not in flags or ("R" in flags and ack == 0):
        ack = sack = receiver["end"]
    if "R" in flags and seq == 0 and stored == "SYN_SENT":
        seq = end = sender["end"]

    reach = max(66000, sender["maxwin"])
    fits = before(seq, (sender["maxend"] + 1) % 2**32)
    ack_fits = before(sack, (receiver["end"] + 1) % 2**32)
    recent = receiver["maxwin"] == 0 or after(end, (sender["end"] - receiver["maxwin"] - 1) % 2**32)
    ack_recent = after(sack, (receiver["end"] - reach - 1) % 2**32)
    verdict = "accept"
    if not fits:
        verdict = "invalid"
        overshot = (end - sender["maxend"] + 1) % 2**32
        if receiver["maxwin"] > 0 and recent and ack_recent and overshot <= receiver["maxwin"] and ack_fits:
            sender["end"] = end
            sender["flags"].add("DATA_UNACKNOWLEDGED")
            verdict = "ignore"
    elif not ack_fits:
        verdict = "invalid"
    elif not recent or not ack_recent:
        verdict = "ignore"
    if verdict != "accept":
        return "accept" if "BE_LIBERAL" in sender["flags"] or sysctl["tcp_be_liberal"] else verdict

    wide = win if "S" in flags else (win << sender["scale"]) % 2**32
    sender["maxwin"] = max(sender["maxwin"], (wide + (sack - ack)) % 2**32)
    if after(end, sender["end"]):
        sender["end"] = end
        sender["flags"].add("DATA_UNACKNOWLEDGED")
    if "A" in flags:
        if "MAXACK_SET" not in sender["flags"] or after(ack, sender["maxack"]):
            sender["maxack"] = ack
        sender["flags"].add("MAXACK_SET")
    if receiver["maxwin"] != 0 and after(end, sender["maxend"]):
        receiver["maxwin"] = (receiver["maxwin"] + end - sender["maxend"]) % 2**32
    if after((sack + wide) % 2**32, (receiver["maxend"] - 1) % 2**32):
        receiver["maxend"] = (sack + wide + (wide == 0)) % 2**32
    if ack == receiver["end"]:
        receiver["flags"].discard("DATA_UNACKNOWLEDGED")
    if segment["kind"] == "ACK":
        now = {"dir": direction, "seq": seq, "ack": ack, "end": end, "win": win}
        same = all(last[name] == value for name, value in now.items())
        last["retrans"] = (last["retrans"] + 1) % 256 if same else 0
        last.update(now)
    return "accept"


def start_over(sender: dict, receiver: dict, segment: dict[str, Any], direction: int) -> None:
    """A direction's first SYN, or a newer one."""
    sender["end"] = sender["maxend"] = segment["end"]
    sender["maxwin"] = max(segment["win"], 1)
    take_syn_options(sender, segment["options"])
    both = "WINDOW_SCALE" in sender["flags"] and "WINDOW_SCALE" in receiver["flags"]
    if direction == 1 and not both:
        sender["scale"] = receiver["scale"] = 0


def out_of_window(entry: Entry, kind: str, direction: int, remaining: int, sysctl: dict[str, int]) -> int | None:
    """FINs and RSTs out of the window from both sides lower the timer."""
    last = entry["last"]
    if "ASSURED" not in entry["status"] or kind not in ("FIN", "RST"):
        return None
    if last["kind"] in ("FIN", "RST") and last["dir"] != direction:
        lower = sysctl["tcp_timeout_unacknowledged"]
        return lower if remaining >= 120 * 10**9 and remaining > lower * 10**9 else None
    last["kind"], last["dir"] = kind, direction
    return None
