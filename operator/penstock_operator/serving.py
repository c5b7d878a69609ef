"""/healthz and /metrics, from threads of their own: they answer even when the loop hangs, and then say so.

Connections are bounded; the oldest one makes room for another. A client that is slow is cut.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from prometheus_client.exposition import CONTENT_TYPE_LATEST

MOST_CONNECTIONS = 32
CLIENT_SECONDS = 5.0  # for a line of a request to arrive, and for an answer to leave


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[], Answer]


def text(status: int, body: str) -> Answer:
    """Return a plain answer."""
    return Answer(status, "text/plain; charset=utf-8", f"{body}\n".encode())


def metrics(body: bytes) -> Answer:
    """Return metrics in Prometheus' format."""
    return Answer(200, CONTENT_TYPE_LATEST, body)


class _Http(ThreadingHTTPServer):
    """A thread for each connection, of which there are not many."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: list[socket.socket] = []
        self._changing = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changing:
            if len(self._connections) >= MOST_CONNECTIONS:
                with contextlib.suppress(OSError):
                    self._connections.pop(0).shutdown(socket.SHUT_RDWR)
            self._connections.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changing, contextlib.suppress(ValueError):
            self._connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep clients that went away out of the log."""


class Server:
    """An HTTP server of a few GET paths; a context manager."""

    def __init__(self, port: int, routes: dict[str, Route]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_SECONDS

            def do_GET(self) -> None:
                route = routes.get(self.path.partition("?")[0])
                answer = route() if route else text(404, f"not here; try {' or '.join(routes)}")
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Keep probes out of the log."""

        self._server = _Http(("", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True)

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
