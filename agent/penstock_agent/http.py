"""A small HTTP server: GET of a few paths, nothing else, on the agent's own event loop.

That it runs on the loop is the point: an agent whose loop is stuck does not answer its probe. Connections, answers,
and the time that each may take are bounded; a client that is slow makes room for one that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl

import structlog

log = structlog.get_logger(__name__)

READ_SECONDS = 5.0  # for a request to arrive
CHUNK_BYTES = 64 * 1024  # of an answer that are handed to the kernel at once: no client holds a copy of the rest
CHUNK_SECONDS = 5.0  # for a chunk to leave
CLOSE_SECONDS = 1.0  # for the last chunk to leave
MOST_CONNECTIONS = 128
MOST_ANSWERS = 8  # at once: each has an answer of its own, of up to some megabytes
PATIENCE_SECONDS = 2.0  # after which an answer makes room for another one
LONGEST_REQUEST = 16 * 1024  # head of a request; a Prometheus server sends some hundred bytes
COMPRESS_BYTES = 8 * 1024  # longer answers are compressed for those who take it
STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Query = Mapping[str, str]
Page = Callable[[Query], Awaitable[Response]]


class HttpServer:
    """Serves pages by path; an async context manager. Pages in `always` are answered however many others are."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page], always: Collection[str] = ()) -> None:
        self._host = host or None
        self._port = port
        self._pages = pages
        self._always = always
        self._open: dict[asyncio.StreamWriter, float] = {}  # connections, by age
        self._answering: dict[asyncio.StreamWriter, float] = {}  # those that get an answer, and since when
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port in force, where any free one was asked for."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=LONGEST_REQUEST)
        log.info("serving", port=self.port, paths=sorted(self._pages))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            # One that has not sent its request yet goes first, else the oldest.
            waiting = next((each for each in self._open if each not in self._answering), None)
            _abort(self._open, waiting or next(iter(self._open)))
        self._open[writer] = time.monotonic()
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(READ_SECONDS):
                    request = await _read(reader)
                await self._respond(request, writer)
        finally:
            self._open.pop(writer, None)
            self._answering.pop(writer, None)
            await _close(writer)

    async def _respond(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        if request.path not in self._always and request.path in self._pages:
            if not self._has_room():
                await _send(Response(b"too many answers at once; try again\n", status=503), request, writer)
                return
            self._answering[writer] = time.monotonic()
        await _send(await self._answer(request), request, writer)

    def _has_room(self) -> bool:
        """Tell whether another answer may be made; the oldest one is cut for it if it takes long."""
        if len(self._answering) < MOST_ANSWERS:
            return True
        oldest, since = next(iter(self._answering.items()))
        if time.monotonic() - since < PATIENCE_SECONDS:
            return False
        _abort(self._answering, oldest)
        return True

    async def _answer(self, request: _Request) -> Response:
        if request.problem:
            return Response(f"{request.problem}\n".encode(), status=400)
        if request.method not in ("GET", "HEAD"):
            return Response(b"use GET\n", status=405)
        page = self._pages.get(request.path)
        if page is None:
            return Response(f"paths: {' '.join(sorted(self._pages))}\n".encode(), status=404)
        try:
            return await page(request.query)
        except Exception:
            log.exception("page failed", path=request.path)
            return Response(b"see the agent's log\n", status=500)


def _abort(connections: dict[asyncio.StreamWriter, float], writer: asyncio.StreamWriter) -> None:
    del connections[writer]
    writer.transport.abort()


async def _send(response: Response, request: _Request, writer: asyncio.StreamWriter) -> None:
    body, encoding = response.body, ""
    if request.takes_gzip and len(body) >= COMPRESS_BYTES:
        # In a thread, which lets go of the interpreter; the fastest level saves nine tenths already.
        body = await asyncio.to_thread(gzip.compress, body, 1)
        encoding = "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
    head = (
        f"HTTP/1.1 {response.status} {STATUS[response.status]}\r\n"
        f"Content-Type: {response.content_type}\r\n{encoding}Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.write(head.encode())
    rest = memoryview(b"" if request.method == "HEAD" else body)
    for start in range(0, len(rest), CHUNK_BYTES):
        writer.write(rest[start : start + CHUNK_BYTES])
        async with asyncio.timeout(CHUNK_SECONDS):
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass


@dataclass(frozen=True, slots=True)
class _Request:
    method: str = ""
    path: str = ""
    takes_gzip: bool = False
    problem: str = ""
    query: Query = field(default_factory=dict)


async def _read(reader: asyncio.StreamReader) -> _Request:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _Request(problem="the request is too long")
    first, *fields = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return _Request(problem="not an HTTP/1 request")
    path, _, query = parts[1].partition("?")
    return _Request(parts[0], path, _takes_gzip(fields), query=dict(parse_qsl(query)))


def _takes_gzip(fields: list[str]) -> bool:
    """Tell whether a request's fields accept gzip: named, and not with a quality of zero."""
    for name, _, value in (line.partition(":") for line in fields):
        if name.strip().lower() == "accept-encoding":
            for choice in value.lower().split(","):
                coding, _, quality = choice.partition(";")
                if coding.strip() == "gzip":
                    return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
