"""/healthz and /metrics, from threads of their own: they answer even when the loop hangs, and then say so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

from prometheus_client.exposition import CONTENT_TYPE_LATEST


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


class Server:
    """An HTTP server of a few GET paths; a context manager."""

    def __init__(self, port: int, routes: dict[str, Route]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0  # a client that never finishes its request

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

        class Http(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Http(("", port), Handler)
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
