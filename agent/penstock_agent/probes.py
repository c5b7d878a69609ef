"""One health check of one server: a TCP connection or an HTTP GET."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

# A status line is `HTTP/1.1 200 OK`; whoever sends more than this before the end of a line is no HTTP server.
LONGEST_STATUS_LINE = 1024
LONGEST_INTERIM_HEAD = 16 * 1024  # with its fields: early hints (103) may have some
SWITCHING_PROTOCOLS = 101  # the only 1xx after which no other status follows
_HEAD_END = re.compile(rb"\r?\n\r?\n")

# Errors of this machine. They say nothing about a backend, nor about the path of packets to it.
OWN_ERRORS = {
    errno.EMFILE: "raise the limit of open files of this process",
    errno.ENFILE: "raise fs.file-max of this machine",
    errno.ENOBUFS: "free memory of this machine",
    errno.ENOMEM: "free memory of this machine, or raise the memory limit of the pod",
    errno.EADDRNOTAVAIL: "widen net.ipv4.ip_local_port_range, or give this machine an address of the backend's family",
    errno.EADDRINUSE: "widen net.ipv4.ip_local_port_range",
    errno.EAGAIN: "widen net.ipv4.ip_local_port_range",
    errno.EPERM: "let the firewall of this machine pass connections to the backends",
}


class CheckType(StrEnum):
    """What a check does."""

    TCP = "TCP"
    HTTP = "HTTP"


@dataclass(frozen=True, slots=True)
class Check:
    """How the backends of a VIP are checked."""

    type: CheckType = CheckType.TCP
    path: str = "/"
    interval: float = 2.0
    timeout: float = 1.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)  # inclusive ranges


@dataclass(frozen=True, slots=True)
class Target:
    """One server and how it is checked."""

    address: IPv4Address | IPv6Address
    port: int
    check: Check


class Outcome(StrEnum):
    """What a check came to."""

    PASSED = "passed"
    LATE = "late"  # no answer in time: the server is gone, or it is overloaded
    FAILED = "failed"  # the server, or a router, refuses the connection, or its answer is not the expected one


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of a check, and the error in words unless it passed."""

    outcome: Outcome
    error: str = ""


PASSED = Result(Outcome.PASSED)


class UnmadeCheckError(Exception):
    """A check could not be made for a reason of this machine; it has no result."""


async def probe(target: Target) -> Result:
    """Check once. Raises UnmadeCheckError."""
    family = socket.AF_INET6 if target.address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(target.check.timeout):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, (str(target.address), target.port))
                return PASSED if target.check.type is CheckType.TCP else await _get(connection, target)
    except TimeoutError:
        return Result(Outcome.LATE, f"no answer within {target.check.timeout:g} s")
    except MemoryError as error:
        raise UnmadeCheckError(f"no health check: out of memory; {OWN_ERRORS[errno.ENOMEM]}") from error
    except OSError as error:
        if error.errno in OWN_ERRORS:
            text = f"no health check: {os.strerror(error.errno)}; {OWN_ERRORS[error.errno]}"
            raise UnmadeCheckError(text) from error
        # asyncio's own text repeats the address and not what the kernel said.
        text = os.strerror(error.errno) if error.errno else str(error)
        return Result(Outcome.LATE if error.errno == errno.ETIMEDOUT else Outcome.FAILED, text)


async def _get(connection: socket.socket, target: Target) -> Result:
    loop = asyncio.get_running_loop()
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    request = (
        f"GET {target.check.path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        "User-Agent: penstock-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    await loop.sock_sendall(connection, request.encode())
    status = await _final_status(connection)
    if status is None:
        return Result(Outcome.FAILED, "the answer is not HTTP/1")
    if any(low <= status <= high for low, high in target.check.statuses):
        return PASSED
    return Result(Outcome.FAILED, f"HTTP status {status} is not expected")


async def _final_status(connection: socket.socket) -> int | None:
    """Read heads until one is not interim (RFC 9110, 15.2); None where the server sends something else than HTTP/1."""
    loop = asyncio.get_running_loop()
    received = b""
    while True:
        line, complete, _ = received.partition(b"\n")
        status = parse_status(line)
        if complete and (status is None or not 100 <= status < 200 or status == SWITCHING_PROTOCOLS):
            return status
        head_ends = _HEAD_END.search(received) if complete else None
        if head_ends:
            received = received[head_ends.end() :]
            continue
        if len(received) >= (LONGEST_INTERIM_HEAD if complete else LONGEST_STATUS_LINE):
            return None
        more = await loop.sock_recv(connection, LONGEST_STATUS_LINE)
        if not more:
            return None if complete else status
        received += more


def parse_status(line: bytes) -> int | None:
    """Read the status out of an HTTP/1 status line; None when it is none."""
    parts = line.strip().split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or len(parts[1]) != 3 or not parts[1].isdigit():
        return None
    return int(parts[1])
