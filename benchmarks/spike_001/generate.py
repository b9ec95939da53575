"""A seeded capture as a gateway sees it: generate.py FILE FLOWS PACKETS. Answers go to the public address.

Flows are interleaved at random; 80 % are TCP (handshake, data both ways, FIN or RST, the same tuple again),
the others UDP; sizes are steered to a mean of 400 octets; one TCP packet in a hundred is outside the window.
"""
import random
import sys
from struct import pack

PUBLIC = bytes((203, 0, 113, 5))
SCALE = bytes((2, 4, 5, 180, 1, 3, 3, 7))


def checksum(data: bytes) -> int:
    return 65535 - (int.from_bytes(data + bytes(len(data) & 1), "big") % 65535 or 65535)


def main(path: str, flows: int, packets: int) -> None:
    rnd = random.Random(flows)
    noise = rnd.randbytes(4096)
    # a flow: addresses and ports, step (0 SYN … 3 data … 6), next sequence number of both sides
    state = [[pack(">BBH", 10, i >> 16 & 255, i & 65535), pack(">BBBB", 198, 18, i % 250, i // 50000 + 1),
              10000 + i % 50000, 0, rnd.getrandbits(32), rnd.getrandbits(32)] for i in range(flows)]
    total = 0
    with open(path, "wb") as file:
        file.write(pack(">IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for number in range(packets):
            index = rnd.randrange(flows)
            flow = state[index]
            inside, server, port, step = flow[:4]
            side = rnd.getrandbits(1)
            length = min(1400, max(0, 400 * number - total + rnd.randrange(500)))
            if index % 5 == 0:
                side = side if step else 0
                flow[3] = 1
            else:
                flags, side = ((2, 0), (18, 1), (16, 0), (24, side), (17, 0), (17, 1), (16, 0))[step]
                if step == 3:
                    chance = rnd.random()
                    flags = 20 if chance < 0.002 else flags
                    flow[3] = 4 if chance > 0.98 else 0 if chance < 0.002 else 3
                else:
                    flow[3] = (step + 1) % 7
                length = length if step == 3 and flags == 24 else 0
                seq = flow[4 + side] + (1 << 30 if rnd.random() < 0.01 else 0) & 0xFFFFFFFF
                options = SCALE if flags & 2 else b""
            address = pack(">4s4s", inside, server) if side == 0 else pack(">4s4s", server, PUBLIC)
            ports = pack(">HH", port, 443) if side == 0 else pack(">HH", 443, port)
            data = noise[length : 2 * length]
            if index % 5 == 0:
                l4, place, protocol = ports + pack(">HH", 8 + length, 0) + data, 6, 17
            else:
                ack = flow[5 - side] if flags & 16 else 0
                l4 = ports + pack(">IIBBHHH", seq, ack, 80 + 4 * len(options), flags, 50000, 0, 0)
                l4 += options + data
                flow[4 + side] = flow[4 + side] + length + (flags & 3 > 0) & 0xFFFFFFFF
                place, protocol = 16, 6
            value = checksum(address + pack(">HH", protocol, len(l4)) + l4)
            value = value or (65535 if protocol == 17 else 0)
            l4 = l4[:place] + pack(">H", value) + l4[place + 2 :]
            head = pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), number & 65535, 0, 64, protocol, 0)
            head = head[:10] + pack(">H", checksum(head + address)) + address
            frame = bytes(12) + b"\x08\x00" + head + l4
            total += len(frame)
            ns = number * 200_000
            file.write(pack(">IIII", 1_700_000_000 + ns // 10**9, ns % 10**9, len(frame), len(frame)) + frame)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
