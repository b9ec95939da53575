"""TFTP: the server answers a request from a port of its own.

Any datagram whose payload begins with opcode 1 (read) or 2 (write) announces that the server will send to the
client's port from a port yet unknown, even the first of a connection, which is not confirmed then.

Translation changes nothing in the payload; the coming connection is translated like its master, back to the port
that the client really has.

Sources: nf_conntrack_tftp.c, nf_nat_tftp.c (Linux 6.18); RFC 1350.
"""

from __future__ import annotations

from typing import Final

from ..expect import Policy
from ..sysctl import SECOND
from ..tuples import halves
from ..verdict import REPLY, UDP
from . import Answer, Expect, Helper, View

_REQUESTS: Final = (b"\0\1", b"\0\2")


def read(view: View) -> Answer:
    """One datagram [tftp_help]."""
    if view.payload[:2] not in _REQUESTS:
        return Answer()
    server, client, _, port = halves(view.reply)
    wanted = int.from_bytes(port, "big")
    if not view.nat:
        return Answer(actions=(Expect(UDP, client, wanted, src=server),))
    own = int.from_bytes(halves(view.orig)[2], "big")
    expect = Expect(UDP, client, wanted, src=server, follow=True, saved_port=own, direction=REPLY)
    return Answer(actions=(expect,))


# 300 s: nf_conntrack_tftp.c
HELPER: Final = Helper("tftp", UDP, 69, (Policy(1, 300 * SECOND),), read)
