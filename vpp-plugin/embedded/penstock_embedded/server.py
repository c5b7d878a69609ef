"""The control socket: JSON lines over a Unix socket, answered only to peers with an allowed user id.

Knows messages and nothing of packets or of the node: what a request does is the `Handler`'s affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from penstock_embedded.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    ApplyResult,
    DesiredState,
    Dump,
    Error,
    Hello,
    Method,
    Reply,
    Request,
    Stats,
)

log = structlog.get_logger()

M = TypeVar("M", bound=BaseModel)

MAX_CLIENTS = 16  # of one user id
MAX_REPORTED_ERRORS = 5
MAX_REPORTED_CHARACTERS = 200  # of one error: a field's name is the sender's
MAX_KEYS = 64  # of one JSON object; no message has as many fields
PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Handler(Protocol):
    """What a data plane does when it is asked."""

    async def hello(self) -> Hello:
        """Say who it is."""

    async def apply(self, desired: DesiredState) -> ApplyResult:
        """Become what is desired."""

    async def dump(self) -> Dump:
        """Tell the state in force."""

    async def stats(self) -> Stats:
        """Tell the counters."""

    async def withdraw(self) -> None:
        """Remove everything from the node."""


class RequestError(Exception):
    """A request that is refused whole; `error` is what its sender is told."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(eq=False)
class Connection:
    """A client that is served. One without a request in progress is closed when its user needs the place."""

    uid: int
    writer: asyncio.StreamWriter
    working: bool = False
    idle_since: float = field(default_factory=time.monotonic)


class ControlServer:
    """Serves one handler on one socket to several clients at a time; the handler puts their changes in order."""

    def __init__(self, path: Path, handler: Handler, *, uids: frozenset[int], group: int | None = None) -> None:
        self._path = path
        self._handler = handler
        self._uids = uids
        self._group = group
        self._clients: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take the socket's place, replacing what an earlier process left there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        listener = _listen(self._path, self._group)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_MESSAGE_BYTES)

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is None:
            return
        self._server.close()
        for client in tuple(self._clients):
            client.writer.close()
        await self._server.wait_closed()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Connection(_peer_uid(writer), writer)
        try:
            refusal = self._refusal(client)
            if refusal is not None:
                await _send(writer, Reply(id=0, error=refusal))
                return
            self._clients.add(client)
            while (line := await _read_line(reader)) is not None:
                await _send(writer, await self._work(client, line))
        except RequestError as refused:  # too long to find where the next request starts: answer and hang up
            with contextlib.suppress(ConnectionError):
                await _send(writer, Reply(id=0, error=refused.error))
        except ConnectionError:
            pass
        finally:
            self._clients.discard(client)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _work(self, client: Connection, line: bytes) -> Reply:
        client.working = True
        try:
            return await self._answer(line)
        finally:
            client.working, client.idle_since = False, time.monotonic()

    def _refusal(self, client: Connection) -> Error | None:
        if client.uid not in self._uids:
            log.warning("control connection refused", uid=client.uid)
            fix = "run the client as one of them, or start the data plane with --allow-uid"
            message = f"user id {client.uid} may not control this data plane; allowed: {sorted(self._uids)}"
            return Error(code="forbidden", message=message, fix=fix)
        return None if self._make_room(client.uid) else _exhausted()

    def _make_room(self, uid: int) -> bool:
        """Keep a user within its connections: the one that is idle for longest goes. False if all are at work."""
        own = [client for client in self._clients if client.uid == uid]
        if len(own) < MAX_CLIENTS:
            return True
        idle = [client for client in own if not client.working]
        if not idle:
            return False
        oldest = min(idle, key=lambda client: client.idle_since)
        log.warning("idle control connection closed: its user has too many", uid=uid, limit=MAX_CLIENTS)
        self._clients.discard(oldest)
        oldest.writer.transport.abort()
        return True

    async def _answer(self, line: bytes) -> Reply:
        identifier = 0
        try:
            document = _document(line)
            identifier = _identifier(document)
            request = _validated(Request, document, "malformed")
            result = await self._dispatch(request)
            return Reply(id=request.id, result=result.model_dump(mode="json") if result is not None else {})
        except RequestError as refused:
            return Reply(id=identifier, error=refused.error)
        except Exception as error:
            log.exception("control request failed")
            fix = "see the data plane's log; the request may be repeated"
            return Reply(
                id=identifier, error=Error(code="internal", message=f"{type(error).__name__}: {error}", fix=fix)
            )

    async def _dispatch(self, request: Request) -> BaseModel | None:
        match request.method:
            case Method.APPLY:
                return await self._handler.apply(_validated(DesiredState, request.params, "invalid"))
            case Method.HELLO:
                return await self._handler.hello()
            case Method.DUMP:
                return await self._handler.dump()
            case Method.STATS:
                return await self._handler.stats()
            case Method.WITHDRAW:
                await self._handler.withdraw()
                return None


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    _pid, uid, _gid = PEER_CREDENTIALS.unpack(credentials)
    return int(uid)


def _exhausted() -> Error:
    message = f"{MAX_CLIENTS} requests of this user are in progress"
    return Error(code="exhausted", message=message, fix="wait until they are answered")


def _listen(path: Path, group: int | None) -> socket.socket:
    # Bound under another name and moved into place: a client sees a socket that answers or none.
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(temporary))
        if group is not None:
            os.chown(temporary, -1, group)
        # Peer credentials decide, not the mode; the group only spares strangers the connection.
        temporary.chmod(0o660 if group is not None else 0o666)
        listener.listen(MAX_CLIENTS)
        listener.setblocking(False)
        temporary.replace(path)
    except OSError:
        listener.close()
        raise
    return listener


async def _read_line(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None  # the peer left, perhaps in the middle of a request: nothing of it is acted upon
    except asyncio.LimitOverrunError as error:
        fix = "send fewer VIPs or backends to one data plane"
        message = f"a request may have {MAX_MESSAGE_BYTES} bytes"
        raise RequestError(Error(code="too-large", message=message, fix=fix)) from error


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(reply.model_dump_json().encode() + b"\n")
    await writer.drain()


def _document(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line, object_pairs_hook=_object)
        if b"\\u" in line:  # half of a surrogate pair is JSON, but no text
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        fix = "send one JSON object per line, in UTF-8"
        raise RequestError(Error(code="malformed", message=f"not JSON: {error}", fix=fix)) from error
    if not isinstance(document, dict):
        fix = "send an object with version, id, method and params"
        raise RequestError(Error(code="malformed", message="a request is a JSON object", fix=fix))
    version = document.get("version", PROTOCOL_VERSION)
    if version != PROTOCOL_VERSION:
        message = f"protocol version {version!r} is not spoken here; this data plane speaks {PROTOCOL_VERSION}"
        raise RequestError(Error(code="unsupported", field="version", message=message, fix="upgrade the older side"))
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:  # each unknown one would be an error of its own
        raise ValueError(f"an object has {len(pairs)} keys, of {MAX_KEYS} at most")
    return dict(pairs)


def _identifier(document: dict[str, Any]) -> int:
    """Return the id of a request that may be wrong in all other ways, so that its sender can tell which it was."""
    value = document.get("id")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _validated(model: type[M], document: dict[str, Any], code: str) -> M:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        fields = [".".join(str(part) or '""' for part in problem["loc"]) for problem in problems]
        texts = [_short(f"{field}: {problem['msg']}") for field, problem in zip(fields, problems, strict=True)]
        more = f" (and {len(texts) - MAX_REPORTED_ERRORS} more)" if len(texts) > MAX_REPORTED_ERRORS else ""
        message = "; ".join(texts[:MAX_REPORTED_ERRORS]) + more
        fix = "correct the fields named and send the whole request again"
        raise RequestError(Error(code=code, field=_short(fields[0]), message=message, fix=fix)) from error


def _short(text: str) -> str:
    return text if len(text) <= MAX_REPORTED_CHARACTERS else text[: MAX_REPORTED_CHARACTERS - 3] + "..."
