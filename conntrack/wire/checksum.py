"""Sums: the Internet checksum (RFC 1071), its incremental update (RFC 1624) and SCTP's CRC32c.

One rule: a checksum of 16-bit words is arithmetic modulo 0xFFFF, and Python has that built in.
`int.from_bytes(b, "big") % 0xFFFF` is the one's complement sum of `b`, about four times faster than adding
words, because 2**16 = 1 (mod 0xFFFF).  The one ambiguity of that arithmetic, 0 and 0xFFFF being the same
number, is settled as one's complement addition settles it: only an all-zero input sums to 0.

A rewrite never sums a packet again.  It adds `difference(old, new)` of what it replaced, which also leaves a
wrong checksum exactly as wrong as it was and works on packets cut by the snap length.

Sources: RFC 1071, RFC 1624 (equation 3), RFC 768 (zero means "none"), RFC 9260 appendix A (CRC32c).
"""

from __future__ import annotations

# What `verify` finds.
GOOD = 0  # the sum is right
BAD = 1  # the sum is wrong
PARTIAL = 2  # the field holds only the pseudo-header's sum: left to the network card by the sender
UNKNOWN = 3  # bytes are missing (snap length): nobody can tell


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """One's complement sum of 16-bit big-endian words, 0..0xFFFF; an odd last octet counts as high octet."""
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    if total == 0:
        return 0
    return total % 0xFFFF or 0xFFFF


def internet_checksum(data: bytes | bytearray | memoryview) -> int:
    """The RFC 1071 checksum of `data`, as it stands in a header (0..0xFFFF).

    >>> hex(internet_checksum(bytes.fromhex("450000730000400040110000c0a80001c0a800c7")))
    '0xb861'
    """
    return ones_sum(data) ^ 0xFFFF


def difference(old: bytes, new: bytes) -> int:
    """What replacing `old` by `new` (same even length) adds to a one's complement sum, 0..0xFFFE."""
    return (int.from_bytes(new, "big") - int.from_bytes(old, "big")) % 0xFFFF


def update(checksum: int, change: int) -> int:
    """The header checksum after its data's sum changed by `change` (from `difference`): RFC 1624, eqn. 3.

    Never 0xFFFF: of the two zeros the kernel's folding keeps the sum 0xFFFF, whose complement is 0.
    """
    return (((checksum ^ 0xFFFF) + change) % 0xFFFF or 0xFFFF) ^ 0xFFFF


def pseudo_sum(addresses: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo-header: source and destination (8 or 32 octets together), protocol, L4 length."""
    return ones_sum(addresses) + protocol + (length & 0xFFFF) + (length >> 16)


def verify(l4: bytes | bytearray | memoryview, pseudo: int, at: int) -> int:
    """GOOD, BAD or PARTIAL for an L4 packet with pseudo-header sum `pseudo` and its checksum at offset `at`.

    PARTIAL is what a capture taken on the sending host shows: Linux and others leave the folded pseudo-header
    sum, uncomplemented, for the card to finish.
    """
    total = int.from_bytes(l4, "big")
    if len(l4) & 1:
        total <<= 8
    if (total + pseudo) % 0xFFFF == 0:
        return GOOD
    if pseudo and ((l4[at] << 8) | l4[at + 1]) == fold(pseudo):
        return PARTIAL
    return BAD


def fold(total: int) -> int:
    """A sum of 16-bit words folded back into 16 bits (0 only for 0)."""
    if total == 0:
        return 0
    return total % 0xFFFF or 0xFFFF


# One table step per octet: CRC32c has no home in the standard library (zlib's CRC is another polynomial).
def _crc32c_table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_CRC32C = _crc32c_table()


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC32c (Castagnoli) of `data`, continuing from `crc`; SCTP stores it least significant octet first.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _CRC32C
    crc ^= 0xFFFFFFFF
    for octet in data:
        crc = table[(crc ^ octet) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
