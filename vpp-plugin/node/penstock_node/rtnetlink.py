"""rtnetlink by hand, for what a general library does too slowly or not at all: messages in, messages out.

A thousand routes take a thousand times what one takes. Here that is some microseconds, not a millisecond.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_CODE = struct.Struct("=i")

_ERROR, _DONE = 2, 3  # types of control messages
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_INTERRUPTED = 0x10  # flag of a dump during which something changed

_SOL_NETLINK, _STRICT_CHECKING = 270, 12  # with it the kernel filters what it dumps; without, all comes

_TYPE_MASK = 0x3FFF  # less the bits "nested" and "in network byte order"
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_SECONDS = 5.0
_DUMP_TRIES = 5

# Requests that are sent together: the kernel answers each at once, and all answers must fit the socket's buffer.
_BATCH = 64


class Request(NamedTuple):
    """A change to be asked for: `flags` beside those that every request has."""

    kind: int
    flags: int
    body: bytes


class Channel:
    """A socket to rtnetlink in this thread's network namespace. Everything raises OSError."""

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_SECONDS)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECKING, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:  # Linux before 4.20
                self._socket.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def perform(self, requests: Sequence[Request]) -> list[int]:
        """Make changes in their order, whatever becomes of those before; returns the error number of each, or 0."""
        codes: list[int] = []
        for first in range(0, len(requests), _BATCH):
            batch = requests[first : first + _BATCH]
            begun = self._sequence + 1
            self._socket.send(b"".join(self._message(kind, _ACK | flags, body) for kind, flags, body in batch))
            found: dict[int, int] = {}
            while len(found) < len(batch):
                for kind, _, sequence, payload in self._receive():
                    if kind == _ERROR and begun <= sequence <= self._sequence:
                        found[sequence] = -_CODE.unpack_from(payload)[0]
            codes += [found[sequence] for sequence in range(begun, self._sequence + 1)]
        return codes

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Ask for everything of a kind and return the bodies of the answers, of one moment if that can be had."""
        for _ in range(_DUMP_TRIES):
            answers, whole = self._dump_once(kind, body)
            if whole:
                break
        return answers

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._socket.send(self._message(kind, _DUMP, body))
        answers, whole = [], True
        while True:
            for answer, flags, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _INTERRUPTED
                if answer not in (_ERROR, _DONE):
                    answers.append(payload)
                    continue
                code = -_CODE.unpack_from(payload)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return answers, whole

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return HEADER.pack(HEADER.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield type, flags, sequence number and body of the messages that come next."""
        data = self._socket.recv(_RECEIVE_BYTES)
        at = 0
        while at + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
            yield kind, flags, sequence, data[at + HEADER.size : at + length]
            at += _aligned(length)


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to 4 bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def attributes(data: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes that begin at an offset, by type."""
    found = {}
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _aligned(length: int) -> int:
    return length + 3 & ~3
