"""Adapter of the embedded data plane: its control socket, one JSON message per line."""

from __future__ import annotations

import asyncio
import contextlib
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import structlog
from penstock_embedded.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_REVISION,
    PROTOCOL_VERSION,
    ApplyResult,
    DesiredState,
    Dump,
    Hello,
    Method,
    Reply,
    Request,
    Stats,
)
from pydantic import BaseModel, ValidationError

from penstock_agent.dataplane.revisions import lowered
from penstock_agent.errors import DataPlaneError, DataPlaneRefusedError, DataPlaneUnreachableError

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT", bound=BaseModel)


class EmbeddedDataPlane:
    """Client of a control socket. Requests go one at a time; a failed one drops the connection."""

    def __init__(self, path: Path, *, timeout_seconds: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout_seconds
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._next_id = 0
        self._revision = PROTOCOL_REVISION  # of the requests that are sent

    async def hello(self) -> Hello:
        """Ask who is there; DataPlaneRefusedError when it speaks another version of the protocol."""
        hello = _parse(Hello, await self._ask(Method.HELLO))
        if hello.protocol_version != PROTOCOL_VERSION:
            raise DataPlaneRefusedError(
                "unsupported",
                "protocol_version",
                f"data plane {hello.version} speaks version {hello.protocol_version} of the control protocol, this "
                f"agent {metadata.version('penstock')} version {PROTOCOL_VERSION}",
                "upgrade the older of the two",
            )
        self._revision = min(hello.protocol_revision, PROTOCOL_REVISION)
        if self._revision < PROTOCOL_REVISION:
            log.warning(
                "data plane is older than this agent: what it does not know is left out",
                data_plane=hello.version,
                revision=hello.protocol_revision,
                own_revision=PROTOCOL_REVISION,
            )
        return hello

    async def apply(self, desired: DesiredState) -> ApplyResult:
        """Send the complete desired state, in words that the data plane knows."""
        state = lowered(desired.model_dump(mode="json"), self._revision)
        return _parse(ApplyResult, await self._ask(Method.APPLY, state))

    async def dump(self) -> Dump:
        """Read the state in force."""
        return _parse(Dump, await self._ask(Method.DUMP))

    async def stats(self) -> Stats:
        """Read the counters."""
        return _parse(Stats, await self._ask(Method.STATS))

    async def withdraw(self) -> None:
        """Take everything off the node."""
        await self._ask(Method.WITHDRAW)

    async def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            # Nothing is worth sending that nobody waits for.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, method: Method, params: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._turn:
            self._next_id += 1
            request = Request(id=self._next_id, method=method, params=params or {})
            try:
                async with asyncio.timeout(self._timeout):
                    reply = await self._exchange(request)
            except (OSError, EOFError, ValueError) as error:
                await self.close()
                raise DataPlaneUnreachableError(self._unreachable(method, error)) from error
            except asyncio.CancelledError:
                # Half a reply may be on the wire: nobody else may read it as theirs.
                await self.close()
                raise
        if reply.error is not None:
            refusal = reply.error
            raise DataPlaneRefusedError(refusal.code, refusal.field, refusal.message, refusal.fix)
        return reply.result or {}

    def _unreachable(self, method: Method, error: Exception) -> str:
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no data plane listens at {self._path}; look at the data-plane pod of this node and its log, or start "
                "`penstock dataplane` with this run directory"
            )
        return f"data plane at {self._path}: {method} failed: {str(error) or type(error).__name__}; look at its log"

    async def _exchange(self, request: Request) -> Reply:
        if self._streams is None:
            # A reader's limit is where it stops buffering: one line must fit.
            self._streams = await asyncio.open_unix_connection(self._path, limit=MAX_MESSAGE_BYTES + 1)
        reader, writer = self._streams
        line = request.model_dump_json().encode() + b"\n"
        if len(line) > MAX_MESSAGE_BYTES:
            raise DataPlaneRefusedError(
                "too-large",
                "vips",
                f"the request has {len(line)} bytes, at most {MAX_MESSAGE_BYTES} are taken",
                "serve fewer VIPs or backends from this DataPlane",
            )
        writer.write(line)
        await writer.drain()
        answer = await reader.readuntil(b"\n")
        reply = Reply.model_validate_json(answer)
        if reply.id != request.id:
            raise ValueError(f"answer to request {reply.id}, expected {request.id}")
        return reply


def _parse(model: type[ResultT], result: dict[str, Any]) -> ResultT:
    try:
        return model.model_validate(result)
    except ValidationError as error:
        raise DataPlaneError(f"the data plane's {model.__name__} cannot be read: {error}") from error
