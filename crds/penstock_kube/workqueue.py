"""A queue of keys: each at most once, each with one worker at a time, failures tried again with backoff."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

K = TypeVar("K", bound=Hashable)

log = structlog.get_logger(__name__)


class WorkQueue(Generic[K]):
    """Keys wait here until a worker has brought the object they name to its desired state.

    A key added while it waits is one key; added while it is worked on it comes again afterwards. `handle` raising
    puts the key back after an exponential, jittered delay of its own; success forgets its failures.
    """

    def __init__(
        self,
        *,
        base_delay: float = 0.1,
        max_delay: float = 60.0,
        delay_for: Callable[[Exception], float] = lambda _error: 0.0,
    ) -> None:
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._delay_for = delay_for  # least delay that an error asks for, in seconds
        self._ready: OrderedDict[K, float] = OrderedDict()  # since when it waits
        self._active: dict[K, float] = {}  # since when it is worked on
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self.handled = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Ask for `key` to be handled soon."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            self._cancel_timer(key)
            self._ready[key] = time.monotonic()
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for `key` to be handled in `seconds` at the latest; an earlier request stands."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def stuck_seconds(self) -> float:
        """Return for how long the slowest handling in progress has been going on: a sign of a hung worker."""
        return max((time.monotonic() - since for since in self._active.values()), default=0.0)

    def waiting_seconds(self) -> float:
        """Return for how long the oldest key has waited for a worker."""
        return max((time.monotonic() - since for since in self._ready.values()), default=0.0)

    def failures(self, key: K) -> int:
        """Return how often in a row handling `key` has failed."""
        return self._failures.get(key, 0)

    async def run(self, handle: Callable[[K], Awaitable[None]], *, workers: int = 4) -> None:
        """Handle keys with several workers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(handle))

    async def _work(self, handle: Callable[[K], Awaitable[None]]) -> None:
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key, _ = self._ready.popitem(last=False)
            self._active[key] = time.monotonic()
            try:
                await handle(key)
            except Exception as error:
                self._fail(key, error)
            else:
                self.handled += 1
                self._failures.pop(key, None)
            finally:
                del self._active[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _fail(self, key: K, error: Exception) -> None:
        self.failed += 1
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        limit = min(self._max_delay, self._base_delay * 2 ** min(failures, 16))
        delay = max(random.uniform(limit / 2, limit), self._delay_for(error))  # noqa: S311 - spreads load, no secret
        write = log.warning if failures in (1, 5) or failures % 20 == 0 else log.debug
        write("handling failed, trying again", key=str(key), failures=failures, delay=round(delay, 2), error=str(error))
        self.add_after(key, delay)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
