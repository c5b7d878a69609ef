"""The life of a process that answers the control socket: until it is told to end, or its watch fails."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from penstock_embedded.server import ControlServer, Handler

log = structlog.get_logger()

LISTEN_SECONDS = 1.0  # until the control socket is tried again


class Driver(Handler, Protocol):
    """A data plane that looks after itself while it is served."""

    async def watch(self) -> None:
        """Keep what is in force in force; returns or raises only when that fails."""

    async def close(self) -> None:
        """Let go of everything but leave the node as it is."""


class Endpoint(Protocol):
    """Where the control socket is, and who may use it."""

    @property
    def socket_path(self) -> Path:
        """Path of the socket."""

    @property
    def group(self) -> int | None:
        """Group id that may open it."""

    def trusted_uids(self) -> frozenset[int]:
        """User ids that are answered."""


async def serve(driver: Driver, endpoint: Endpoint, ready: Callable[[], None] = lambda: None, **about: str) -> None:
    """Answer until SIGTERM or SIGINT; `about` is logged once it does. Raises what ended the watch."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = ControlServer(endpoint.socket_path, driver, uids=endpoint.trusted_uids(), group=endpoint.group)
    listening = asyncio.create_task(_listen(server, endpoint, ready, about))
    watch = asyncio.create_task(driver.watch())
    waiting = asyncio.create_task(stop.wait())
    try:
        # A watch that ends has failed: the supervisor starts afresh.
        await asyncio.wait({watch, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
    finally:
        for task in (listening, watch, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await server.stop()
        await driver.close()


async def _listen(server: ControlServer, endpoint: Endpoint, ready: Callable[[], None], about: dict[str, str]) -> None:
    """Open the control socket. Where that fails, for a full disk say, traffic goes on and it is tried again."""
    failed = False
    while True:
        try:
            await server.start()
        except OSError as error:
            if not failed:
                log.error("control socket cannot be opened", socket=str(endpoint.socket_path), error=str(error))  # noqa: TRY400 - for people
            failed = True
        else:
            log.info("data plane ready", socket=str(endpoint.socket_path), **about)
            ready()
            return
        ready()  # it forwards: a restart would not help
        await asyncio.sleep(LISTEN_SECONDS)
