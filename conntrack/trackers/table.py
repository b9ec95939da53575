"""Which tracker judges which protocol number."""

from __future__ import annotations

from typing import Final

from ..conn import name_states
from ..verdict import GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from . import Tracker, generic, gre, icmp, icmpv6, sctp, tcp, udp

_OWN: Final = {
    ICMP: icmp.TRACKER,
    TCP: tcp.TRACKER,
    UDP: udp.UDP_TRACKER,
    GRE: gre.TRACKER,
    ICMPV6: icmpv6.TRACKER,
    SCTP: sctp.TRACKER,
    UDPLITE: udp.UDPLITE_TRACKER,
}
TRACKERS: Final[tuple[Tracker, ...]] = tuple(_OWN.get(number, generic.TRACKER) for number in range(256))

for _number, _tracker in _OWN.items():
    name_states(_number, _tracker.states)
