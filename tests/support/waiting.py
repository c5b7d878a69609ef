"""Waiting for other tasks, with a bound."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings


async def eventually(condition, seconds=30.0):
    """Wait until a condition holds and return its result; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not (result := condition()):  # noqa: ASYNC110 - the condition is about another task or process: no event tells
            await asyncio.sleep(0.01)
    return result


@contextlib.asynccontextmanager
async def running(*jobs):
    """Run coroutines beside the block, and cancel them at its end."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class StreamServer:
    """Base of small servers: counts on `handle(reader, writer)`, and leaves no task or transport behind."""

    def __init__(self):
        self._server = None
        self._handlers = {}

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *exc_info):
        await self.stop()

    async def listen(self):
        """Open the listening socket with `self.accept` as its callback."""
        raise NotImplementedError

    async def handle(self, reader, writer):
        """Serve one connection."""
        raise NotImplementedError

    async def start(self):
        self._server = await self.listen()

    async def stop(self):
        """Go away as a killed process does: the port is closed, connections break."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def accept(self, reader, writer):
        # Not a coroutine function, or asyncio would own the task and report its cancellation as an error.
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._handlers[task] = writer
        task.add_done_callback(self._handlers.pop)

    async def _run(self, reader, writer):
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def let_connections_go():
    """Let TLS transports close, which takes turns of the loop, and collect those that httpx leaves behind.

    A connection that is cancelled while it is made is left to the garbage collector, whose warning would fail whatever
    test runs then.
    """
    await asyncio.sleep(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
