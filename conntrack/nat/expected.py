"""Expected connections under translation: they follow their master.

The coming connection is translated as its master is, without any rule: its source as the master's packets of that
direction are, if it comes from where they come from, and its destination to the real end and port that the
announcement meant.  Both halves are decided before the first packet is judged.

    master  10.0.0.2:1044 ► 192.0.2.1:21, seen as 198.51.100.1:1044        PORT 10,0,0,2,19,137
    coming  192.0.2.1:20  ► 198.51.100.1:5001       becomes       192.0.2.1:20 ► 10.0.0.2:5001

Source: nf_nat_helper.c (nf_nat_follow_master) of Linux 6.18.
"""

from __future__ import annotations

from ..conn import Conn
from ..expect import Expectation
from ..tuples import destination, source
from ..verdict import DST, ORIGINAL, SRC
from .choose import Chooser
from .ranges import NatRange


def follow_master(chooser: Chooser, conn: Conn, expectation: Expectation) -> None:
    """Decide both halves of the mapping of `conn`, which fulfils `expectation`."""
    master = expectation.master
    same, other = (master.orig, master.reply) if expectation.direction == ORIGINAL else (master.reply, master.orig)
    if source(conn.orig) == source(same):
        public = destination(other)
        chooser.setup(conn, NatRange(addresses=(public, public)), SRC)
    real = source(other)
    ports = (expectation.saved_port, expectation.saved_port)
    chooser.setup(conn, NatRange(addresses=(real, real), ports=ports), DST)
