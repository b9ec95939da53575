"""Words that the three storages share: states, classes, the TCP grid, the choice of a translation.

A translation is decided once and replayed: the 12 new octets (addresses and ports are neighbours in IPv4
without options) and what to add to the two checksums modulo 65535.
"""
from typing import Any, Final

M: Final = 0xFFFFFFFF
H: Final = 0x80000000  # before(a, b) is written (a - b) & M >= H
SECOND: Final = 1_000_000_000
SYN_SENT: Final = 1
SYN_RECV: Final = 2
ESTABLISHED: Final = 3
FIN_WAIT: Final = 4
TIME_WAIT: Final = 7
IV: Final = 10  # invalid
IG: Final = 11  # ignored
SYN: Final = 0
FIN: Final = 2
ACK: Final = 3
RST: Final = 4
SCALED: Final = 1
LIBERAL: Final = 8
UNACKED: Final = 16
MAXACK: Final = 32
SEEN_REPLY: Final = 1
ASSURED: Final = 2

Nat = tuple[bytes, int, int]
REFUSED: Final[Nat] = (b"", 0, 0)
PUBLIC: Final = bytes((203, 0, 113, 5))
TIMEOUT: Final = tuple(s * SECOND for s in (120, 120, 60, 432000, 120, 60, 30, 120, 10, 120))
_NAMES: Final = "NO SS SR ES FW CW LA TW CL S2 IV IG"
_N: Final = {name: n for n, name in enumerate(_NAMES.split())}
_ROWS: Final = ("""SS SS IG IG IG IG IG SS SS S2
IV IV SR IV IV IV IV IV IV SR
IV IV FW FW LA LA LA TW CL IV
ES IV ES ES CW CW TW TW CL IV
IV CL CL CL CL CL CL CL CL CL""", """IV S2 IV IV IV IV IV SS IV S2
IV SR IG IG IG IG IG IG IG SR
IV IV FW FW LA LA LA TW CL IV
IV IG SR ES CW CW TW TW CL IG
IV CL CL CL CL CL CL CL CL CL""")
Grid = tuple[tuple[tuple[int, ...], ...], ...]
GRID: Final[Grid] = tuple(tuple(tuple(_N[cell] for cell in row.split()) for row in rows.split("\n"))
                          for rows in _ROWS)


def translate(key: bytes, taken: dict[bytes, Any]) -> tuple[bytes, Nat, Nat]:
    """SNAT to PUBLIC, keeping the port if it is free: (reply key, translation of each direction)."""
    port = key[8] << 8 | key[9]
    while True:
        out = PUBLIC + key[4:8] + port.to_bytes(2, "big") + key[10:]
        reply = inverse(out)
        if reply not in taken:
            break
        port = 1024 + (port - 1023) % 64512
    head = (int.from_bytes(key[:8], "big") - int.from_bytes(out[:8], "big")) % 65535
    full = (int.from_bytes(key, "big") - int.from_bytes(out, "big")) % 65535
    return reply, (out, head, full), (inverse(key), -head % 65535, -full % 65535)


def inverse(key: bytes) -> bytes:
    return key[4:8] + key[:4] + key[10:] + key[8:10]
