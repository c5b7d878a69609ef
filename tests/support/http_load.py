"""Clients that ask a VIP again and again: some keep their connection, others take one for each request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.support.clients import HttpConnection, get
from tests.support.lab import Lab

PATIENCE = 20.0  # seconds: what is sent again through an outage of a few seconds comes well before
PAUSE = 0.2  # seconds between two requests of a connection that is kept


@dataclass
class Asker:
    """One client in a thread: answers by server, and what went wrong."""

    answers: Counter[bytes] = field(default_factory=Counter)
    errors: list[Exception] = field(default_factory=list)
    longest_seconds: float = 0.0

    def ask(self, request: Callable[[], bytes]) -> None:
        began = time.monotonic()
        try:
            self.answers[request()] += 1
        except (OSError, HTTPException) as error:
            self.errors.append(error)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)


@dataclass
class HttpLoad:
    """So many clients of each sort. Those that keep their connection pause between requests."""

    kept: list[Asker]
    fresh: list[Asker]
    ended: threading.Event = field(default_factory=threading.Event)

    def errors(self) -> list[Exception]:
        return [error for asker in (*self.kept, *self.fresh) for error in asker.errors]

    def answers(self) -> Counter[bytes]:
        """Answers on connections of their own, by server."""
        total: Counter[bytes] = Counter()
        for asker in self.fresh:
            total.update(dict(asker.answers))
        return total

    def share_of_next(self, server: bytes, requests: int, *, seconds: float = 30.0) -> float:
        """Wait for so many more requests on new connections, and return a server's share of them."""
        before, deadline = self.answers(), time.monotonic() + seconds
        while (new := self.answers() - before).total() < requests:
            assert time.monotonic() < deadline, (new, self.errors())
            time.sleep(0.05)
        return new[server] / new.total()

    def _keep(self, lab: Lab, address: str, port: int, asker: Asker) -> None:
        with HttpConnection(lab, address, port, timeout=PATIENCE) as connection:
            while not self.ended.wait(PAUSE) and not asker.errors:
                asker.ask(lambda: connection.get("/work"))

    def _renew(self, lab: Lab, address: str, port: int, asker: Asker) -> None:
        while not self.ended.is_set():
            asker.ask(lambda: get(lab, address, "/work", port, timeout=PATIENCE))


@contextmanager
def http_load(lab: Lab, address: str, port: int, *, kept: int = 0, fresh: int = 0) -> Iterator[HttpLoad]:
    """Ask for the servers' work for as long as the block lasts."""
    load = HttpLoad([Asker() for _ in range(kept)], [Asker() for _ in range(fresh)])
    jobs = [*((load._keep, asker) for asker in load.kept), *((load._renew, asker) for asker in load.fresh)]
    threads = [threading.Thread(target=job, args=(lab, address, port, asker)) for job, asker in jobs]
    try:
        for thread in threads:
            thread.start()
        yield load
    finally:
        load.ended.set()
        for thread in threads:
            thread.join()
