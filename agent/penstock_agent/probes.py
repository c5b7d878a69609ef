"""One health check of one server: a TCP connection or an HTTP GET."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

# A status line is `HTTP/1.1 200 OK`; whoever sends more than this before the end of a line is no HTTP server.
LONGEST_STATUS_LINE = 1024

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


class UnmadeCheckError(Exception):
    """A check could not be made for a reason of this machine; it has no result."""


async def probe(target: Target) -> str:
    """Check once; "" when the server is well, else what it lacks. Raises UnmadeCheckError."""
    family = socket.AF_INET6 if target.address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            async with asyncio.timeout(target.check.timeout):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, (str(target.address), target.port))
                return "" if target.check.type is CheckType.TCP else await _get(connection, target)
    except TimeoutError:
        return f"no answer within {target.check.timeout:g} s"
    except MemoryError as error:
        raise UnmadeCheckError(f"no health check: out of memory; {OWN_ERRORS[errno.ENOMEM]}") from error
    except OSError as error:
        if error.errno in OWN_ERRORS:
            text = f"no health check: {os.strerror(error.errno)}; {OWN_ERRORS[error.errno]}"
            raise UnmadeCheckError(text) from error
        # asyncio's own text repeats the address and not what the kernel said.
        return os.strerror(error.errno) if error.errno else str(error)


async def _get(connection: socket.socket, target: Target) -> str:
    loop = asyncio.get_running_loop()
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    request = (
        f"GET {target.check.path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        "User-Agent: penstock-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    await loop.sock_sendall(connection, request.encode())
    head = b""
    while b"\n" not in head and len(head) < LONGEST_STATUS_LINE:
        received = await loop.sock_recv(connection, LONGEST_STATUS_LINE)
        if not received:
            break
        head += received
    status = parse_status(head.split(b"\n", 1)[0])
    if status is None:
        return "the answer is not HTTP/1"
    if any(low <= status <= high for low, high in target.check.statuses):
        return ""
    return f"HTTP status {status} is not expected"


def parse_status(line: bytes) -> int | None:
    """Read the status out of an HTTP/1 status line; None when it is none."""
    parts = line.strip().split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or len(parts[1]) != 3 or not parts[1].isdigit():
        return None
    return int(parts[1])
