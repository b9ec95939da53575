"""Helpers: what the payload announces becomes expectations, and, under translation, edits of the payload.

One rule: a helper sees octets and tuples, and answers with values; it never touches table, packet or connection.

    read(view) -> Answer        every packet of a connection that has the helper, but for ICMP errors to its
                                reply side; after translation of the addresses, before sequence adjustment

A `View` is one packet's payload with the connection's two tuples and what the helper remembered; an `Answer` is
what it wants to remember, and a list of actions that `hook.HelperHook` carries out in order:

    Expect   add an expectation.  Where `search` is set its port is a wish: if it is taken, another is drawn
    Edit     replace octets of the payload.  Its text may depend on the port that the last Expect got

An Answer that names a reason drops the packet.  If an Expect is refused, or an Edit impossible, the rest of the
list is left out and the packet is dropped.

The memory is one immutable, picklable value per connection (FTP: where lines began).

What others of the kernel's helpers will need has its place here: several classes with limits and names of their
own (`Helper.policies`, SIP), PERMANENT and INACTIVE ones (`Expect.flags`, SIP), a source mask that is a netmask
(`Expect.src_mask`, NetBIOS), an exact source port or GRE key (`Expect.sport`, PPTP), a helper for the expected
connection (`Expect.assign`, SIP), edits in several places (the list).  Actions that only one of them takes (renew
the master's timer, wake or withdraw expectations, keymaps) are further dataclasses beside Edit and further rows of
the hook's dispatch.

Sources: struct nf_conntrack_helper, nf_ct_expect_init, nf_confirm (Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..expect import Policy
from ..tuples import halves
from ..verdict import ORIGINAL


@dataclass(frozen=True, slots=True)
class View:
    """One packet, as its helper sees it.

    payload    what follows the transport header    seq        TCP: sequence number of its first octet, as it came
    direction  ORIGINAL or REPLY                    ctinfo     verdict.NEW, ESTABLISHED, …
    orig       tuple of the original direction      reply      that of the reply direction, without zones
    nat        the connection is translated         memory     what the helper last answered, None at first
    """

    payload: bytes
    seq: int
    direction: int
    ctinfo: int
    orig: bytes
    reply: bytes
    nat: bool
    memory: object

    @property
    def here(self) -> tuple[bytes, bytes, bytes, bytes]:
        """(source, destination, source port, destination port) of packets of this direction, as they come in."""
        return halves(self.orig if self.direction == ORIGINAL else self.reply)

    @property
    def there(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The same of the other direction."""
        return halves(self.reply if self.direction == ORIGINAL else self.orig)


@dataclass(frozen=True, slots=True)
class Expect:
    """An expectation that a helper wants.

    proto, dst, dport  what always counts
    src        b"": any source address              src_mask   bits of `src` that count, b"": all
    sport      -1: any source port
    kind       class, an index into the policies    flags      expect.PERMANENT, expect.INACTIVE
    assign     name of the new connection's helper  search     another port will do
    follow     translate the new connection as its master is translated: to `saved_port` at the master's end that
               it reaches, seen from the master in `direction`
    """

    proto: int
    dst: bytes
    dport: int
    src: bytes = b""
    src_mask: bytes = b""
    sport: int = -1
    kind: int = 0
    flags: int = 0
    assign: str = ""
    search: bool = False
    follow: bool = False
    saved_port: int = 0
    direction: int = ORIGINAL


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `length` octets of the payload from offset `at` on.

    `text` is what comes there, or a function that makes it of the port that the last Expect got.
    """

    at: int
    length: int
    text: bytes | Callable[[int], bytes]


Action = Expect | Edit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a helper makes of a packet: its new memory, what is to be done, or why the packet is dropped."""

    memory: object = None
    actions: tuple[Action, ...] = ()
    reason: str = ""
    numbers: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper.

    name      as CT rules and records have it        proto     of its master connections
    port      where its servers usually listen       policies  one for each class of its expectations
    read      what it does with a packet
    contiguous  the kernel's helper needs established packets in one piece: reassembled ones lose their boundaries
    """

    name: str
    proto: int
    port: int
    policies: tuple[Policy, ...]
    read: Callable[[View], Answer]
    contiguous: bool = False
