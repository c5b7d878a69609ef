"""A small HTTP server: GET of a few paths, nothing else, on the agent's own event loop.

That it runs on the loop is the point: an agent whose loop is stuck does not answer its probe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

REQUEST_SECONDS = 5.0
LONGEST_REQUEST = 16 * 1024  # head of a request; a Prometheus server sends some hundred bytes
STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Page = Callable[[], Awaitable[Response]]


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
            async with asyncio.timeout(REQUEST_SECONDS):
                response, with_body = await self._answer(reader)
                head = (
                    f"HTTP/1.1 {response.status} {STATUS[response.status]}\r\n"
                    f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + (response.body if with_body else b""))
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Response, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Response(b"the request is too long\n", status=400), True
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return Response(b"not an HTTP/1 request\n", status=400), True
        method, path = parts[0], parts[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return Response(b"use GET\n", status=405), True
        page = self._pages.get(path)
        if page is None:
            return Response(f"paths: {' '.join(sorted(self._pages))}\n".encode(), status=404), method == "GET"
        try:
            return await page(), method == "GET"
        except Exception:
            log.exception("page failed", path=path)
            return Response(b"see the agent's log\n", status=500), method == "GET"
