"""A small HTTP server: GET of a few paths, nothing else, on the agent's own event loop.

That it runs on the loop is the point: an agent whose loop is stuck does not answer its probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import structlog

log = structlog.get_logger(__name__)

READ_SECONDS = 5.0  # for a request to arrive
WRITE_SECONDS = 30.0  # for an answer of some megabytes to leave
LONGEST_REQUEST = 16 * 1024  # head of a request; a Prometheus server sends some hundred bytes
COMPRESS_BYTES = 8 * 1024  # longer answers are compressed for those who take it
STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Query = Mapping[str, str]
Page = Callable[[Query], Awaitable[Response]]


class HttpServer:
    """Serves pages by path; an async context manager."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self._host = host or None
        self._port = port
        self._pages = pages
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port in force, where any free one was asked for."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def __aenter__(self) -> HttpServer:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=LONGEST_REQUEST)
        log.info("serving", port=self.port, paths=sorted(self._pages))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(READ_SECONDS):
                request = await _read(reader)
            response = await self._answer(request)
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
            writer.write(head.encode() + (b"" if request.method == "HEAD" else body))
            async with asyncio.timeout(WRITE_SECONDS):
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

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
