"""The loop around a storage: pcap in, one unpack a packet, track, rewrite in place, pcap out.

measure.py puts a storage beside this file under the name `storage`. Refused packets pass as they are.
Captures are big-endian with nanoseconds, so one Struct spans record header, Ethernet, IPv4 and TCP or UDP.
"""
import gc
import hashlib
import json
import resource
import sys
import time
import tracemalloc
from struct import Struct
from typing import Final

from mypy_extensions import i64
from storage import Table

PIECE: Final = 1 << 17
PACKET: Final = Struct(">III4x 12xH BxH2xHxBH 12s IIBBHH")  # 68 octets
HEAD: Final = Struct(">H12s")
SUM: Final = Struct(">H")
Fields = tuple[i64, i64, i64, i64, i64, i64, i64, i64, i64, bytes, i64, i64, i64, i64, i64, i64]
_CLASS: Final = {0x02: 0, 0x22: 0, 0x12: 1, 0x11: 2, 0x31: 2, 0x10: 3, 0x30: 3, 0x04: 4, 0x14: 4}
KIND: Final = tuple(_CLASS.get(flags & 0x37, -1) for flags in range(256))


def window_scale(options: bytearray) -> int:
    """The shift of a SYN, or -1."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
        elif at + 1 >= len(options) or options[at + 1] < 2:
            break
        elif options[at] == 3 and at + 2 < len(options):
            return min(options[at + 2], 14)
        else:
            at += options[at + 1]
    return -1


def run(source: str, target: str, table: Table) -> None:
    tail = b""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        writer.write(reader.read(24))
        while True:
            piece = reader.read(PIECE)
            buffer = bytearray(tail + piece if piece else tail + bytes(70))
            end: i64 = len(buffer) - 70
            at: i64 = 0
            while at <= end:
                fields: Fields = PACKET.unpack_from(buffer, at)
                (sec, nsec, size, ethertype, version, total, fragment, protocol, head, key,
                 seq, ack, offset, flags, win, check) = fields
                if at + 16 + size > end + 70 or not size:
                    break
                if ethertype == 0x800 and version == 0x45 and not fragment & 0x3FFF:
                    now: i64 = sec * 1_000_000_000 + nsec
                    if protocol == 6 and (kind := KIND[flags]) >= 0:
                        start: i64 = (offset >> 4) * 4
                        shift: i64 = -1
                        if kind < 2 and start > 20:
                            shift = window_scale(buffer[at + 70 : at + 50 + start])
                        length: i64 = total - 20 - start
                        out, a, b = table.tcp(key, now, kind, flags, seq, ack, win, length, total, shift)
                        if out:
                            HEAD.pack_into(buffer, at + 40, (head + a) % 65535, out)
                            SUM.pack_into(buffer, at + 66, (check + b) % 65535)
                    elif protocol == 17:
                        out, a, b = table.udp(key, now, total)
                        if out:
                            HEAD.pack_into(buffer, at + 40, (head + a) % 65535, out)
                            if seq & 0xFFFF:
                                SUM.pack_into(buffer, at + 56, ((seq & 0xFFFF) + b) % 65535 or 65535)
                at += 16 + size
            writer.write(buffer[:at])
            if not piece:
                break
            tail = bytes(buffer[at:])


def main() -> None:
    source, target, trace = sys.argv[1:4]
    gc.disable()
    if trace == "trace":
        tracemalloc.start()
    page = resource.getpagesize()
    with open("/proc/self/statm") as file:
        bare = int(file.read().split()[1]) * page
    table = Table()
    begin = time.process_time()
    run(source, target, table)
    loop = time.process_time() - begin
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        rss = int(file.read().split()[1]) * page - bare
    traced = tracemalloc.get_traced_memory()[0] if trace == "trace" else 0
    listing = sorted(map(repr, table.listing()))
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()[:12]
    print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "loop": loop, "rss": rss, "traced": traced,
                      "conns": len(listing), "digest": digest}))


if __name__ == "__main__":
    main()
