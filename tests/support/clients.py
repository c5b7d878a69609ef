"""Clients in a laboratory's client namespace: HTTP over sockets that a test keeps, and an ear on the wire."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.lab import Lab

_ETH_P_ALL = 0x0003
_RST = 0x04


class HttpConnection:
    """One kept-alive HTTP connection from the client to a VIP."""

    def __init__(self, lab: Lab, address: str, port: int = 80, *, timeout: float = 30.0) -> None:
        self.socket = lab.client.run(socket.create_connection, (address, port), timeout)
        self._connection = http.client.HTTPConnection(address, port)
        self._connection.sock = self.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self.socket.close()

    def get(self, path: str = "/") -> bytes:
        """Ask for a page and return it."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return body

    def post(self, body: bytes) -> bytes:
        """Send a body and return the answer."""
        self._connection.request("POST", "/", body)
        return self._connection.getresponse().read()


def get(lab: Lab, address: str, path: str = "/", port: int = 80, *, timeout: float = 30.0) -> bytes:
    """Ask for one page on a connection of its own."""
    with HttpConnection(lab, address, port, timeout=timeout) as connection:
        return connection.get(path)


def udp_socket(lab: Lab, address: str, port: int, *, timeout: float = 10.0) -> socket.socket:
    """Return a UDP socket of the client that is connected to a VIP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    datagrams = lab.client.run(socket.socket, family, socket.SOCK_DGRAM)
    datagrams.settimeout(timeout)
    datagrams.connect((address, port))
    return datagrams


@dataclass(frozen=True)
class Heard:
    """A packet that ends connections."""

    kind: str  # "RST" or "ICMP"
    source: str


class Ear:
    """Listens to what arrives at a namespace's interface and keeps what would end a connection."""

    def __init__(self, lab: Lab, device: str = "eth0") -> None:
        self.heard: list[Heard] = []
        self._socket = lab.client.run(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.settimeout(0.05)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ear")

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
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self._hear()
        # What had come by then may still wait to be read.
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hear()

    def _hear(self) -> None:
        packet, address = self._socket.recvfrom(256)
        if address[2] != socket.PACKET_OUTGOING and (heard := _read(packet)) is not None:
            self.heard.append(heard)


def _read(packet: bytes) -> Heard | None:
    if packet[0] >> 4 == 4:
        protocol, header, source = packet[9], (packet[0] & 15) * 4, socket.inet_ntop(socket.AF_INET, packet[12:16])
    elif packet[0] >> 4 == 6:
        protocol, header, source = packet[6], 40, socket.inet_ntop(socket.AF_INET6, packet[8:24])
    else:
        return None
    if protocol == socket.IPPROTO_ICMP or (protocol == socket.IPPROTO_ICMPV6 and packet[header] < 128):
        return Heard("ICMP", source)
    if protocol == socket.IPPROTO_TCP:
        flags = struct.unpack_from("!B", packet, header + 13)[0]
        return Heard("RST", source) if flags & _RST else None
    return None


class Background:
    """A call in a thread, with its result or error."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # raised again in result()
            self._error = error

    def result(self, seconds: float = 30.0) -> object:
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result
