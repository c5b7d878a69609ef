"""Packets as an interface passes them on, super-packets whole, for replaying them elsewhere."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from tests.support.feature_reference import Seen
from tests.support.feature_rig import without_sums
from tests.support.netns import Namespace

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15  # a struct virtio_net_hdr before each packet
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_VNET_HEADER = struct.Struct("=BBHHHH")
_ETHERNET_BYTES = 14
_BUFFER_BYTES = 64 << 20
_LONGEST = 70_000


class Wire:
    """Keeps what passes a device on which clients' packets leave, while the block runs; `seen()` then tells it."""

    def __init__(self, namespace: Namespace, device: str = "eth0") -> None:
        self._packets: list[tuple[int, bool, bytes]] = []  # ns, leaves, vnet header and frame
        self._socket = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wire")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(_LONGEST, 64)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
            outgoing = address[2] == socket.PACKET_OUTGOING
            self._packets.append((seconds * 10**9 + nanoseconds, outgoing, data))

    def seen(self, port: int, protocol: int = socket.IPPROTO_TCP) -> list[Seen]:
        """TCP segments or UDP datagrams of a server's port, from 1 s on; call after the block."""
        transport = TCP if protocol == socket.IPPROTO_TCP else UDP
        found: list[Seen] = []
        start = self._packets[0][0] if self._packets else 0
        now_us = 0
        for nanoseconds, outgoing, data in self._packets:
            _, _, _, gso_size, _, _ = _VNET_HEADER.unpack_from(data)
            raw = data[_VNET_HEADER.size + _ETHERNET_BYTES :]
            layer = {4: IP, 6: IPv6}.get(raw[0] >> 4)
            packet = layer(raw) if layer else None
            if packet is None or not isinstance(packet.payload, transport):
                continue
            if (packet.payload.dport if outgoing else packet.payload.sport) != port:
                continue
            now_us = max(now_us, 10**6 + (nanoseconds - start) // 1000)  # taps of both directions read the clock apart
            found.append(Seen(now_us, without_sums(packet), outgoing, gso_size))
        return found
