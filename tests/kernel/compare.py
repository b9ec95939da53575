"""Where the kernel's answer to a step and the Host's differ.

One rule: nothing is left out because it is inconvenient.  What is not compared cannot be equal: identifiers drawn
per entry, times of clocks, and what one side cannot know:

    timeout      within one second: both are rounded down, and two clocks read them
    order        of connections that end together (flush, dump, an address that goes): the kernel goes by its hash
    ctinfo       "" on the kernel's side says that no probe could see it (no rule has switched tracking on)
    bits         of an event: the kernel tells them only by the attributes that they imply
"""

from __future__ import annotations

import json
from typing import Any

Record = dict[str, Any]

_SIMPLE = ("fate", "local")
_CONN = ("family", "proto", "orig", "reply", "state", "packets", "bytes", "mark", "zone", "helper", "master")


class Late:
    """Endings of expired connections: a sweep of one side may find them a step before the other side's dump."""

    def __init__(self) -> None:
        self.kernel: list[Record] = []
        self.host: list[Record] = []

    def take(self, kernel: list[Record], host: list[Record]) -> tuple[list[Record], list[Record], list[str]]:
        """Events without those endings if they have to wait, and the ones that have waited in vain."""
        if not self.kernel and not self.host and len(kernel) == len(host):
            return kernel, host, []
        ended = [[event for event in events if _expired(event)] for events in (kernel, host)]
        rest = [[event for event in events if not _expired(event)] for events in (kernel, host)]
        ours, theirs = self.kernel + ended[0], self.host + ended[1]
        for one in list(ours):
            shape = _event(one)
            match = next((other for other in theirs if _event(other) == shape), None)
            if match is not None:
                ours.remove(one)
                theirs.remove(match)
        vain = [one for one in ours if one in self.kernel] + [one for one in theirs if one in self.host]
        self.kernel, self.host = ours, theirs
        return rest[0], rest[1], [f"event: only one side: {one}" for one in vain]


def _expired(event: Record) -> bool:
    return event["event"] == "DESTROY" and not event.get("timeout")


def differences(kernel: Record, host: Record, late: Late) -> list[str]:
    """One line for each thing that differs; empty if nothing does."""
    found = [f"{name}: kernel {kernel[name]}, host {host[name]}" for name in _SIMPLE if kernel[name] != host[name]]
    if _by_device(kernel["out"]) != _by_device(host["out"]):
        found.append(f"out: kernel {kernel['out']}, host {host['out']}")
    if kernel["ctinfo"]:
        for name in ("ctinfo", "direction"):
            if kernel[name] != host[name]:
                found.append(f"{name}: kernel {kernel[name]}, host {host[name]}")
    stats = {name: value for name, value in host["stats"].items() if value}
    if kernel["stats"] != stats:
        found.append(f"stats: kernel {kernel['stats']}, host {stats}")
    log = [text.strip() for text in kernel["log"] + kernel["own_log"]]
    if log != [text.strip() for text in host["log"]]:
        found.append(f"log: kernel {log}, host {host['log']}")
    ours, theirs, vain = late.take(kernel["events"], host["events"])
    found += _lists("event", _ordered(ours), _ordered(theirs), _event) + vain
    found += _sets("entry", kernel["table"], host["table"], _conn)
    found += _sets("expectation", kernel["expectations"], host["expectations"], _expectation)
    return found


def _by_device(out: list[list[str]]) -> dict[str, list[str]]:
    """What left, in order of each device: devices are read one after the other."""
    wires: dict[str, list[str]] = {}
    for name, data in out:
        wires.setdefault(name, []).append(data)
    return wires


def _ordered(events: list[Record]) -> list[Record]:
    """Each run of endings sorted."""
    out: list[Record] = []
    run: list[Record] = []
    for event in (*events, {"event": ""}):
        if event["event"] in ("DESTROY", "EXP_DESTROY"):
            run.append(event)
            continue
        out += sorted(run, key=lambda one: json.dumps(_event(one), sort_keys=True))
        run = []
        out.append(event)
    return out[:-1]


def _number(record: Record, name: str) -> int | None:
    value = record.get(name)
    return None if value is None else int(value)


def _close(kernel: Record, host: Record, name: str = "timeout") -> bool:
    one, other = _number(kernel, name), _number(host, name)
    if one is None or other is None:
        return one == other
    return abs(one - other) <= 1


def _conn(record: Record) -> Record:
    """What of an entry must be equal, in one shape."""
    plain = {name: record.get(name) for name in _CONN}
    plain["mark"], plain["zone"] = record.get("mark") or 0, record.get("zone") or 0
    plain["status"] = record.get("status")
    seqadj = record.get("seqadj")
    if isinstance(seqadj, dict):
        seqadj = [[side[part] for part in ("pos", "before", "after")] for side in (seqadj["orig"], seqadj["reply"])]
    plain["seqadj"] = seqadj
    plain["timestamps"] = bool(record.get("timestamps") or record.get("start"))
    return plain


def _event(record: Record) -> Record:
    if record["event"].startswith("EXP_"):
        return {"event": record["event"], **_expectation(record)}
    plain = {"event": record["event"], **_conn(record)}
    plain["mark"] = record.get("mark")
    plain["has timeout"] = "timeout" in record
    return plain


def _expectation(record: Record) -> Record:
    names = ("proto", "tuple", "mask", "master", "helper", "class")
    plain = {name: record.get(name) for name in names}
    plain["flags"], plain["zone"] = sorted(record.get("flags") or ()), record.get("zone") or 0
    return plain


def _lists(what: str, kernel: list[Record], host: list[Record], plain: Any) -> list[str]:
    """Differences of two lists in order."""
    ones, others = [plain(one) for one in kernel], [plain(other) for other in host]
    if ones == others:
        late = [(one, other) for one, other in zip(kernel, host, strict=True) if not _close(one, other)]
        return [f"{what}: timeout: kernel {one}, host {other}" for one, other in late]
    found = []
    for at in range(max(len(ones), len(others))):
        one = ones[at] if at < len(ones) else None
        other = others[at] if at < len(others) else None
        if one != other:
            found.append(f"{what} {at}: {_fields(one, other)}")
    return found


def _sets(what: str, kernel: list[Record], host: list[Record], plain: Any) -> list[str]:
    """Differences of two lists in no order: paired by what must be equal, the rest by their tuples."""
    rest = [(plain(other), other) for other in host]
    missing, found = [], []
    for one in kernel:
        shape = plain(one)
        at = next((at for at, (other, _) in enumerate(rest) if other == shape), None)
        if at is None:
            missing.append(shape)
            continue
        _, other = rest.pop(at)
        if not _close(one, other):
            found.append(f"{what}: timeout: kernel {one}, host {other['timeout']}")
    for shape in missing:
        key = "orig" if "orig" in shape else "tuple"
        at = next((at for at, (other, _) in enumerate(rest) if other[key] == shape[key]), None)
        other = rest.pop(at)[0] if at is not None else None
        found.append(f"{what}: {_fields(shape, other)}")
    return found + [f"{what}: {_fields(None, other)}" for other, _ in rest]


def _fields(one: Record | None, other: Record | None) -> str:
    """Two shapes: only what differs, beside their tuples."""
    if one is None or other is None:
        shape = {name: value for name, value in (one or other or {}).items() if value not in (None, False, [])}
        return f"only {'host' if one is None else 'kernel'}: {shape}"
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    parts = [f"{name}: kernel {one.get(name)}, host {other.get(name)}" for name in names]
    return f"{one.get('event', '')} {one.get('proto')} {one.get('orig') or one.get('tuple')}: " + "; ".join(parts)
