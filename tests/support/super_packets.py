"""Super-packets on a wire: one packet that stands for many segments, as a kernel's TCP hands it to its device."""

from __future__ import annotations

import socket
import struct

from scapy.layers.inet import TCP
from scapy.packet import Packet

from tests.support.netns import Namespace

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_NEEDS_CSUM = 1
_GSO_TCP = {4: 1, 6: 4}
_CHECKSUM_OFFSET = 16
_ETHER_TYPES = {4: 0x0800, 6: 0x86DD}


class SuperSender:
    """Sends from a namespace's interface to a neighbour by its hardware address; the interface must have `tso on`."""

    def __init__(self, namespace: Namespace, device: str = "eth0") -> None:
        self._socket = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.bind((device, 0))

    def close(self) -> None:
        self._socket.close()

    def send(self, packet: Packet, segment_size: int, hardware: bytes) -> None:
        """Send a TCP packet whose payload is to be cut into segments of so many bytes. Its checksum is left open."""
        transport = packet.ihl * 4 if packet.version == 4 else 40
        headers = 14 + transport + packet[TCP].dataofs * 4
        offloads = struct.pack(
            "<BBHHHH", _NEEDS_CSUM, _GSO_TCP[packet.version], headers, segment_size, 14 + transport, _CHECKSUM_OFFSET
        )
        ethernet = hardware + self._socket.getsockname()[4] + struct.pack(">H", _ETHER_TYPES[packet.version])
        self._socket.send(offloads + ethernet + bytes(packet))
