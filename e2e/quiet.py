"""Listens for packets that would break a connection: TCP RST from an address, ICMP errors. Prints one line per packet.

Started inside the client's network namespace: `python -m e2e.quiet ADDRESS SECONDS`.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

ETH_P_IP = 0x0800
IP_HEADER_AT = 14  # after the Ethernet header
RST = 0x04
UNREACHABLE = 3


def harmful(frame: bytes, address: bytes) -> str:
    """Return what is wrong with an Ethernet frame, or an empty string."""
    packet = frame[IP_HEADER_AT:]
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return ""
    header = (packet[0] & 15) * 4
    protocol, source = packet[9], packet[12:16]
    if protocol == socket.IPPROTO_ICMP and len(packet) > header and packet[header] == UNREACHABLE:
        return f"ICMP unreachable from {socket.inet_ntoa(source)}"
    if (
        protocol == socket.IPPROTO_TCP
        and source == address
        and len(packet) >= header + 14
        and packet[header + 13] & RST
    ):
        port = struct.unpack_from("!H", packet, header + 2)[0]
        return f"RST from {socket.inet_ntoa(source)} to port {port}"
    return ""


def main(address: str, seconds: float) -> None:
    """Listen for so long."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as listener:
        print("listening", flush=True)
        while (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                frame = listener.recv(65536)
            except TimeoutError:
                break
            if problem := harmful(frame, socket.inet_aton(address)):
                print(problem, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
