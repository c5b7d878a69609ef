"""A small synchronous client of the control socket, for probes and command lines."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock_embedded.messages import MAX_MESSAGE_BYTES, Error, Method, Reply, Request


class ControlError(Exception):
    """A request that got no good answer; `error` is the data plane's, or says why there was none."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.message} ({error.fix})" if error.fix else error.message)
        self.error = error


def request(
    path: Path, method: Method, params: dict[str, Any] | None = None, *, timeout: float = 5.0
) -> dict[str, Any]:
    """Send one request and return its result."""
    line = Request(id=1, method=method, params=params or {}).model_dump_json().encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(line)
            answer = _read_line(connection)
    except OSError as error:
        fix = "check that the data plane runs: `penstock dataplane --probe`"
        message = f"{path}: {error.strerror or error}"
        raise ControlError(Error(code="unreachable", message=message, fix=fix)) from error
    try:
        reply = Reply.model_validate_json(answer)
    except ValidationError as error:
        message = f"{path}: not a reply of a data plane: {answer[:80]!r}"
        raise ControlError(Error(code="malformed", message=message, fix="upgrade the older side")) from error
    if reply.error is not None:
        raise ControlError(reply.error)
    return reply.result or {}


def _read_line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= MAX_MESSAGE_BYTES:
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return bytes(received)
