"""A packet on its way through the box: what the kernel's `sk_buff` carries beside the octets.

Hooks, matches and targets read it and write it.  `packet` holds the octets and headers as they are now; a step
that changes octets works on `packet` (see `nat.rewrite.writable`), one that changes lengths puts a fresh `Packet`
in.

Source: struct sk_buff (skbuff.h), as far as netfilter and routing look at it.
"""

from __future__ import annotations

from typing import Final

from ..conn import Conn, Template
from ..verdict import ESTABLISHED_REPLY, ORIGINAL, RELATED_REPLY, REPLY
from ..wire.packet import Packet
from .ip_options import Options
from .routing import Route

NOT_TRACKED_YET: Final = -1  # `ctinfo` before connection tracking, and where no hook of it stands


class Skb:
    """One packet inside the box.

    packet     octets, header offsets, tuple               mark      packet mark, 32 bits
    iface      device it came in by, "" if made here       out_iface device it leaves by, "" before routing
    conn       its connection, or None                     ctinfo    `verdict.NEW`…, or NOT_TRACKED_YET
    template   what a CT rule attached for tracking        route     what routing said, None before it
    options    where its IPv4 options lie, once they were read
    fate       how its way ended (`outcome.Traces`), "" while it goes on
    borrowed   its connection is that of the packet it is about, and does not end with it
    spoken_for it answers an untracked packet: it is tracked, but no CT rule may say how [nf_ct_attach]
    partial    its checksum is the pseudo-header's sum alone, the rest is left to the card
    stale_sum  its checksum was verified before a rule changed the IPv6 header under it
    """

    __slots__ = (
        "borrowed",
        "conn",
        "ctinfo",
        "fate",
        "iface",
        "mark",
        "options",
        "out_iface",
        "packet",
        "partial",
        "route",
        "spoken_for",
        "stale_sum",
        "template",
    )

    def __init__(self, packet: Packet, iface: str = "") -> None:
        self.packet = packet
        self.iface = iface
        self.out_iface: str = ""
        self.mark: int = 0
        self.conn: Conn | None = None
        self.ctinfo: int = NOT_TRACKED_YET
        self.template: Template | None = None
        self.route: Route | None = None
        self.options: Options | None = None
        self.fate: str = ""
        self.borrowed: bool = False
        self.spoken_for: bool = False
        self.partial: bool = False
        self.stale_sum: bool = False

    @property
    def direction(self) -> int:
        """ORIGINAL or REPLY, from `ctinfo`."""
        return REPLY if self.ctinfo in (ESTABLISHED_REPLY, RELATED_REPLY) else ORIGINAL
