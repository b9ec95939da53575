"""Which address and port a flow gets, and what is rewritten in its packets."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any

from packets import ICMP, ICMPV6, TCP, UDP

from .packet import Fields, adjusted, text, upper

Flow = tuple[str, str, int, int]  # source, destination, source's number, destination's number
ANSWERS = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128, 139: 140, 140: 139},
}
WITH_PORTS = (TCP, UDP, 132, 136)


def inverse(flow: Flow, proto: int) -> Flow | None:
    """The tuple of the answers."""
    src, dst, a, b = flow
    if proto not in ANSWERS:
        return dst, src, b, a
    answer = ANSWERS[proto].get(b >> 8)
    return None if answer is None else (dst, src, a, answer << 8 | b & 255)


# ── rules: dicts with side "src"/"dst", optional match and target fields ────────────────────────────


def request(rules: list[dict[str, Any]], flow: Flow, proto: int, side: str) -> dict[str, Any]:
    """What the first rule that fits asks for; a null binding if none does."""
    src, dst, _, dport = flow
    for rule in rules:
        if rule["side"] != side or ip_address(rule["low"]).version != ip_address(src).version:
            continue
        if "proto" in rule and rule["proto"] != proto:
            continue
        if "source" in rule and ip_address(src) not in ip_network(rule["source"]):
            continue
        if "destination" in rule and ip_address(dst) not in ip_network(rule["destination"]):
            continue
        if "dport" in rule and rule["dport"] != dport:
            continue
        return rule
    keep = src if side == "src" else dst
    return {"side": side, "low": keep, "high": keep}


def in_range(flow: Flow, proto: int, wanted: dict[str, Any]) -> bool:
    """Is the source of `flow` already within the request?"""
    low, here, high = (int(ip_address(a)) for a in (wanted["low"], flow[0], wanted["high"]))
    return low <= here <= high and ports_fit(flow, proto, wanted)


def ports_fit(flow: Flow, proto: int, wanted: dict[str, Any]) -> bool:
    if "ports" not in wanted:
        return True
    if proto in WITH_PORTS:
        number = flow[2] if wanted["side"] == "src" else flow[3]
    elif proto in ANSWERS:
        number = flow[2]
    else:
        return True
    return wanted["ports"][0] <= number <= wanted["ports"][1]


def choose(model: Any, entry: dict[str, Any], current: Flow, wanted: dict[str, Any]) -> Flow:
    """The tuple that the packet shall look like."""
    proto, side = entry["proto"], wanted["side"]
    random = wanted.get("random", False)
    if side == "src" and not random:
        if in_range(current, proto, wanted):
            if not model.used(inverse(current, proto), entry):
                return current
        else:
            # where this very source was mapped before
            for other in reversed(model.entries):
                if other["proto"] == proto and "SRC_NAT_DONE" in other["status"]:
                    if (other["orig"][0], other["orig"][2]) == (current[0], current[2]):
                        mapped = inverse(other["reply"], proto)
                        shared = (mapped[0], current[1], mapped[2], current[3])
                        if in_range(shared, proto, wanted):
                            if not model.used(inverse(shared, proto), entry):
                                return shared
                            break
    address = pool_address(current, wanted)
    flow = (address, *current[1:]) if side == "src" else (current[0], address, *current[2:])
    if not random:
        if "ports" in wanted:
            if "base" not in wanted and ports_fit(flow, proto, wanted):
                if wanted["ports"][0] == wanted["ports"][1] or not model.used(inverse(flow, proto), entry):
                    return flow
        elif not model.used(inverse(flow, proto), entry):
            return flow
    return search(model, entry, flow, wanted)


def search(model: Any, entry: dict[str, Any], flow: Flow, wanted: dict[str, Any]) -> Flow:
    """Try ports, or ICMP identifiers, from a start on; the last one tried if all are used."""
    proto, side = entry["proto"], wanted["side"]
    if proto in ANSWERS:
        at, (low, high) = 2, wanted.get("ports", (0, 65535))
    elif proto in WITH_PORTS:
        at = 2 if side == "src" else 3
        if "ports" in wanted:
            low, high = wanted["ports"]
        elif side == "dst":
            return flow
        elif flow[2] < 512:
            low, high = 1, 511
        elif flow[2] < 1024:
            low, high = 600, 1023
        else:
            low, high = 1024, 65535
    else:
        return flow
    size = high - low + 1
    if "base" in wanted:
        offset = (flow[at] - wanted["base"]) % 65536
    elif side == "src" or wanted.get("random", False):
        offset = model.choices.port_offset(b"", proto)
    else:
        offset = 0
    attempts = min(size, 128)
    while True:
        for number in range(attempts):
            port = low + (offset + number) % 65536 % size
            flow = (*flow[:at], port, *flow[at + 1 :])
            if not used_or_taken_over(model, entry, flow, attempts - number):
                return flow
        if attempts >= size or attempts < 16:
            return flow
        attempts //= 2
        offset = model.choices.port_offset(b"", proto)


def used_or_taken_over(model: Any, entry: dict[str, Any], flow: Flow, left: int) -> bool:
    """Among the last 32 probes a SYN may take the port of a finished connection that it has overtaken."""
    answers = inverse(flow, entry["proto"])
    if left > 32 or entry["proto"] != TCP or entry["state"] != "SYN_SENT":
        return model.used(answers, entry)
    other, direction = model.look_up(answers, TCP)
    if other is None:
        return False
    finished = other["state"] in ("TIME_WAIT", "CLOSE", "SYN_SENT2")
    if direction == 1 and finished and "SRC_NAT" in other["status"]:
        if 0 < (entry["seen"][0]["end"] - other["seen"][0]["end"]) % 2**32 < 2**31:
            model.remove(other)
            return False
    return True


# ── the pool's address ──────────────────────────────────────────────────────────────────────────────


def pool_address(flow: Flow, wanted: dict[str, Any]) -> str:
    """The only address, or the one that a hash of source and destination address picks."""
    if wanted["low"] == wanted["high"]:
        return wanted["low"]
    src, dst = (raw_words(address) for address in flow[:2])
    low, high = (host_words(wanted[name]) for name in ("low", "high"))
    persistent = wanted.get("persistent", False)
    j = lookup3([*src, 0, 0, 0][:4], 0 if persistent else dst[-1])
    chosen: list[int] = []
    for i in range(len(low)):
        if chosen == high[:i]:
            value = low[i] + (j * ((high[i] - low[i] + 1) % 2**32) >> 32)
        else:
            value = j * 0xFFFFFFFF >> 32
        chosen.append(value % 2**32)
        if not persistent:
            j ^= dst[i] if wanted["side"] == "src" else struct.unpack("<I", struct.pack(">I", chosen[i]))[0]
    return text(b"".join(struct.pack(">I", word) for word in chosen))


def raw_words(address: str) -> list[int]:
    return [word for (word,) in struct.iter_unpack("<I", ip_address(address).packed)]


def host_words(address: str) -> list[int]:
    return [word for (word,) in struct.iter_unpack(">I", ip_address(address).packed)]


def lookup3(words: list[int], initial: int) -> int:
    """The word hash of Bob Jenkins' lookup3."""
    r = dict.fromkeys("abc", (0xDEADBEEF + 4 * len(words) + initial) % 2**32)

    def rol(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) % 2**32

    def add(three: list[int]) -> None:
        for name, word in zip("abc", three, strict=False):
            r[name] = (r[name] + word) % 2**32

    while len(words) > 3:
        add(words[:3])
        words = words[3:]
        for x, z, y, k in (("a", "c", "b", 4), ("b", "a", "c", 6), ("c", "b", "a", 8),
                           ("a", "c", "b", 16), ("b", "a", "c", 19), ("c", "b", "a", 4)):  # fmt: skip
            r[x] = (r[x] - r[z]) % 2**32
            r[x] ^= rol(r[z], k)
            r[z] = (r[z] + r[y]) % 2**32
    add(words)
    for x, z, k in (("c", "b", 14), ("a", "c", 11), ("b", "a", 25), ("c", "b", 16), ("a", "c", 4), ("b", "a", 14),
                    ("c", "b", 24)):  # fmt: skip
        r[x] ^= r[z]
        r[x] = (r[x] - rol(r[z], k)) % 2**32
    return r["c"]


# ── rewriting ───────────────────────────────────────────────────────────────────────────────────────


def rewrite(fields: Fields, target: Flow, side: str) -> None:
    """Give the packet the source or destination half of `target`; `write` seals it afterwards."""
    proto, l4 = fields["proto"], fields["l4"]
    number = target[2] if side == "src" else target[3]
    if side == "src":
        fields["src"] = target[0]
    else:
        fields["dst"] = target[1]
    if proto in WITH_PORTS:
        at = 0 if side == "src" else 2
        fields["l4"] = l4[:at] + number.to_bytes(2, "big") + l4[at + 2 :]
    elif proto in ANSWERS and l4[0] in ANSWERS[proto] and l4[0] not in (139, 140):
        fields["l4"] = l4[:4] + target[2].to_bytes(2, "big") + l4[6:]


def rewrite_quote(quote: bytes, target: Flow, side: str) -> bytes | None:
    """The packet inside an ICMP error with the half `side` of `target`; None: too short, drop the error.

    Its checksums are adjusted, as the quote need not be whole.
    """
    data = bytearray(quote)
    v4 = quote[0] >> 4 == 4
    proto, at = (quote[9], (quote[0] & 15) * 4) if v4 else (quote[6], 40)
    address = ip_address(target[0] if side == "src" else target[1]).packed
    where = (12 if v4 else 8) + (0 if side == "src" else len(address))
    old = bytes(data[where : where + len(address)])
    new = address
    data[where : where + len(address)] = address
    if v4:
        data[10:12] = adjusted(int.from_bytes(data[10:12], "big"), old, new).to_bytes(2, "big")
    l4 = data[at:]
    if proto in (*WITH_PORTS, ICMP, ICMPV6) and len(l4) < 8:
        return None
    if proto in WITH_PORTS:
        port = 0 if side == "src" else 2
        number = (target[2] if side == "src" else target[3]).to_bytes(2, "big")
        old, new = old + bytes(l4[port : port + 2]), new + number
        l4[port : port + 2] = number
    elif proto in ANSWERS and upper(proto, bytes(l4)) and l4[0] in ANSWERS[proto] and l4[0] not in (139, 140):
        identifier = target[2].to_bytes(2, "big")
        changed = bytes(l4[4:6]), identifier
        old, new = changed if proto == ICMP else (old + changed[0], new + changed[1])
        l4[4:6] = identifier
    elif proto == ICMP:
        old = new = b""
    spot = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}.get(proto)
    absent = proto == UDP and l4[6:8] == b"\0\0"
    whole = proto != TCP or len(l4) >= 20
    if spot is not None and not absent and whole:
        value = adjusted(int.from_bytes(l4[spot : spot + 2], "big"), old, new)
        l4[spot : spot + 2] = (0xFFFF if proto == UDP and value == 0 else value).to_bytes(2, "big")
    return bytes(data[:at] + l4)
