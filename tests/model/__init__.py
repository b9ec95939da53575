"""A slow, obvious model of Linux's connection tracking and NAT, to run beside the fast engine.

One rule: no tricks.  Entries are plain dicts in a list, every look-up walks the list, tuples are Python tuples
of text and numbers, sums are summed anew, sets hold flags by name.  It is written from the behaviour of Linux
6.18 (nf_conntrack_core.c, nf_conntrack_proto_*.c, nf_nat_core.c), not from the package.

    packet.py   octets <-> a dict of fields, and back with right checksums
    tcp.py      the TCP state machine and its windows
    nat.py      which address and port; what is rewritten
    box.py      Model: the table, its ends, and the order of it all

Left out: fragments, zones, SCTP, GRE, helpers, timeout policies, events.
"""

from .box import Model

__all__ = ["Model"]
