"""A scenario as text for people: the box, then one line a step.

     1 in0  > 10.0.0.2:1234 > 8.8.8.8:80 tcp S seq 999          forwarded NEW
     2 out0 > 8.8.8.8:80 > 198.51.100.1:1234 tcp SA …           forwarded ESTABLISHED reply

One rule: what is printed can be played again; each line ends in the packet's octets.
"""

from __future__ import annotations

from typing import Any

from generate import octets
from scenario import Record, Scenario, Step

_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp", 136: "udplite"}
_FLAGS = "FSRPAUEC"


def script(scenario: Scenario, answers: list[Record] | None = None) -> str:
    """The whole scenario; with the kernel's answers, if given, at the end of the lines."""
    box = scenario.box
    lines = [f"scenario {scenario.name}"]
    for name in ("rules", "rules6"):
        if box.get(name):
            lines += [f"{name}:", *(f"    {line}" for line in box[name].splitlines())]
    lines += [f"{name}: {box[name]}" for name in ("interfaces", "routes", "sysctl", "mtu") if box.get(name)]
    for number, step in enumerate(scenario.steps):
        line = f"{number + 1:3} {step_text(step)}"
        if answers and number < len(answers):
            answer = answers[number]
            line += f"   = {answer['fate']} {answer['ctinfo']} {answer['direction']}".rstrip()
        lines.append(line)
        if "packet" in step:
            lines.append(f"      {step['packet']}")
    return "\n".join(lines)


def step_text(step: Step) -> str:
    """One step without the octets."""
    if step["op"] == "receive":
        return f"{step['iface']:4} > {describe(bytes.fromhex(step['packet']))}"
    if step["op"] == "send":
        return f"send > {describe(bytes.fromhex(step['packet']))}"
    rest = {name: value for name, value in step.items() if name != "op"}
    return f"{step['op']} {rest}"


def describe(packet: bytes) -> str:
    """Addresses, protocol and what matters of the transport header."""
    try:
        return _describe(packet)
    except (IndexError, ValueError):
        return f"{len(packet)} octets"


def _describe(packet: bytes) -> str:
    src, dst = octets.ends(packet)
    proto, l4 = octets.transport(packet)
    name = _NAMES.get(proto, str(proto))
    where = ""
    if octets.is_fragment(packet):
        at = (
            int.from_bytes(packet[6:8], "big") & 0x1FFF
            if packet[0] >> 4 == 4
            else int.from_bytes(packet[42:44], "big") >> 3
        )
        more = packet[6] & 0x20 if packet[0] >> 4 == 4 else packet[43] & 1
        where = f" fragment at {at * 8}{'+' if more else ''} of {len(l4)}"
        if at:
            return f"{src} > {dst} {name}{where}"
    return f"{_body(src, dst, proto, l4, name)}{where}"


def _body(src: str, dst: str, proto: int, l4: bytes, name: str) -> str:
    if proto in (6, 17, 132, 136) and len(l4) >= 4:
        src, dst = f"{src}:{int.from_bytes(l4[:2], 'big')}", f"{dst}:{int.from_bytes(l4[2:4], 'big')}"
    text = f"{src} > {dst} {name}"
    if proto == 6 and len(l4) >= 20:
        flags = "".join(letter for bit, letter in enumerate(_FLAGS) if l4[13] >> bit & 1) or "none"
        seq, ack = int.from_bytes(l4[4:8], "big"), int.from_bytes(l4[8:12], "big")
        data = len(l4) - (l4[12] >> 4) * 4
        return f"{text} {flags} seq {seq} ack {ack} win {int.from_bytes(l4[14:16], 'big')} data {data}"
    if proto in (1, 58) and len(l4) >= 8:
        text = f"{text} {l4[0]}/{l4[1]} id {int.from_bytes(l4[4:6], 'big')}"
        error = l4[0] < 128 if proto == 58 else l4[0] in (3, 4, 5, 11, 12)
        return f"{text} about ({describe(l4[8:])})" if error and len(l4) > 28 else text
    if proto == 132 and len(l4) >= 13:
        return f"{text} vtag {l4[4:8].hex()} chunk {l4[12]}"
    return f"{text} {len(l4)} octets"


def report(scenario: Scenario, found: list[str], answers: list[Record], last: dict[str, Any]) -> str:
    """A difference, for whoever has to mend it."""

    def brief(record: Record) -> Record:
        return {name: value for name, value in record.items() if name not in ("heads", "time") and value}

    parts = [script(scenario, answers), "", "differences at the last step:", *(f"  {line}" for line in found), ""]
    for side in ("kernel", "host"):
        parts.append(f"{side}:")
        parts += [f"    {name}: {value}" for name, value in brief(last.get(side) or {}).items()]
    return "\n".join(parts) + "\n"
