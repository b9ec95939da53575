"""Words for what happened: verdicts, ctinfo, directions, status bits, event bits.

All are small ints or interned strings with the kernel's numbers and names, so they print, pickle and compare
at no cost.  Sources: include/uapi/linux/netfilter/nf_conntrack_common.h.
"""

from __future__ import annotations

from typing import Final

# What became of a packet.
ACCEPT: Final = "ACCEPT"
DROP: Final = "DROP"
HELD: Final = "HELD"  # a fragment that waits, or was refused, in reassembly

# Direction of a packet within its connection.
ORIGINAL: Final = 0
REPLY: Final = 1
DIRECTION_NAMES: Final = ("original", "reply")

# ctinfo: enum ip_conntrack_info; INVALID is the kernel's "no entry attached".
ESTABLISHED: Final = 0
RELATED: Final = 1
NEW: Final = 2
ESTABLISHED_REPLY: Final = 3
RELATED_REPLY: Final = 4
INVALID: Final = 6
UNTRACKED: Final = 7
CTINFO_NAMES: Final = ("ESTABLISHED", "RELATED", "NEW", "ESTABLISHED", "RELATED", "", "INVALID", "UNTRACKED")

# Status bits of a connection: enum ip_conntrack_status.
EXPECTED: Final = 1 << 0
SEEN_REPLY: Final = 1 << 1
ASSURED: Final = 1 << 2
CONFIRMED: Final = 1 << 3
SRC_NAT: Final = 1 << 4
DST_NAT: Final = 1 << 5
SEQ_ADJUST: Final = 1 << 6
SRC_NAT_DONE: Final = 1 << 7
DST_NAT_DONE: Final = 1 << 8
DYING: Final = 1 << 9
FIXED_TIMEOUT: Final = 1 << 10
TEMPLATE: Final = 1 << 11
NAT_CLASH: Final = 1 << 12
HELPER: Final = 1 << 13
OFFLOAD: Final = 1 << 14
ASSISTED: Final = 1 << 16  # the engine's own: it has a helper, wherever that came from (HELPER: from a rule)
STATUS_NAMES: Final = (
    "EXPECTED",
    "SEEN_REPLY",
    "ASSURED",
    "CONFIRMED",
    "SRC_NAT",
    "DST_NAT",
    "SEQ_ADJUST",
    "SRC_NAT_DONE",
    "DST_NAT_DONE",
    "DYING",
    "FIXED_TIMEOUT",
    "TEMPLATE",
    "NAT_CLASH",
    "HELPER",
    "OFFLOAD",
)
NAT_MASK: Final = SRC_NAT | DST_NAT
NAT_DONE_MASK: Final = SRC_NAT_DONE | DST_NAT_DONE


def status_names(status: int) -> list[str]:
    """The names of the bits set in `status`, sorted.

    >>> status_names(SEEN_REPLY | CONFIRMED)
    ['CONFIRMED', 'SEEN_REPLY']
    """
    return sorted(name for bit, name in enumerate(STATUS_NAMES) if status >> bit & 1)


# Event bits: enum ip_conntrack_events.
EVENT_NEW: Final = 1 << 0
EVENT_RELATED: Final = 1 << 1
EVENT_DESTROY: Final = 1 << 2
EVENT_REPLY: Final = 1 << 3
EVENT_ASSURED: Final = 1 << 4
EVENT_PROTOINFO: Final = 1 << 5
EVENT_HELPER: Final = 1 << 6
EVENT_MARK: Final = 1 << 7
EVENT_NAMES: Final = (
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "seqadj",
    "secmark",
    "label",
    "synproxy",
)

# NAT: which half of the packet a manipulation changes, and the hooks it stands on.
SRC: Final = 0
DST: Final = 1
PREROUTING: Final = 0
LOCAL_IN: Final = 1
FORWARD: Final = 2
LOCAL_OUT: Final = 3
POSTROUTING: Final = 4

# Protocol numbers this package has words for (IANA).
ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
GRE: Final = 47
ICMPV6: Final = 58
SCTP: Final = 132
UDPLITE: Final = 136
# libnetfilter_conntrack's names; every other number is "unknown".
PROTOCOL_NAMES: Final[dict[int, str]] = {
    ICMP: "icmp",
    TCP: "tcp",
    UDP: "udp",
    33: "dccp",
    GRE: "gre",
    ICMPV6: "icmpv6",
    SCTP: "sctp",
    UDPLITE: "udplite",
}
