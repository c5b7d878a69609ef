"""The queue: a key once, one worker per key, failures again with backoff."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from penstock_kube import WorkQueue


@asynccontextmanager
async def working(
    queue: WorkQueue[str], handle: Callable[[str], Awaitable[None]], workers: int = 4
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(handle, workers=workers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - polls what the queue shows
            await asyncio.sleep(0.005)


async def test_a_key_waits_once_and_returns_when_added_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    calls: list[str] = []
    gate = asyncio.Event()
    busy: Counter[str] = Counter()

    async def handle(key: str) -> None:
        busy[key] += 1
        assert busy[key] == 1
        calls.append(key)
        await gate.wait()
        busy[key] -= 1

    queue.add("a")
    queue.add("a")
    async with working(queue, handle):
        await until(lambda: calls == ["a"])
        queue.add("a")
        queue.add("a")
        queue.add("b")
        await until(lambda: calls == ["a", "b"])
        assert queue.stuck_seconds() > 0
        gate.set()
        await until(lambda: queue.handled == 3)
    assert calls == ["a", "b", "a"]
    assert queue.stuck_seconds() == queue.waiting_seconds() == 0
    assert len(queue) == 0


async def test_failures_come_back_with_growing_delay() -> None:
    queue: WorkQueue[str] = WorkQueue(base_delay=0.01, max_delay=0.1)
    times: list[float] = []

    async def handle(key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 5:
            raise ValueError(key)

    async with working(queue, handle):
        queue.add("a")
        await until(lambda: queue.handled == 1)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert queue.failed == 4
    assert queue.failures("a") == 0
    assert gaps[3] > gaps[0]


async def test_an_error_may_ask_for_a_longer_delay() -> None:
    queue: WorkQueue[str] = WorkQueue(base_delay=0.001, delay_for=lambda _error: 30.0)

    async def handle(key: str) -> None:
        raise ValueError(key)

    async with working(queue, handle):
        queue.add("a")
        await until(lambda: queue.failed == 1)
        await asyncio.sleep(0.1)
        assert queue.failures("a") == 1
        queue.add("a")  # an event does not wait for the delay
        await until(lambda: queue.failures("a") == 2)


async def test_the_earliest_of_delayed_requests_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    handled = asyncio.Event()

    async def handle(_key: str) -> None:
        handled.set()

    async with working(queue, handle):
        queue.add_after("a", 60)
        queue.add_after("a", 0.05)
        queue.add_after("a", 60)
        assert not handled.is_set()
        await asyncio.wait_for(handled.wait(), 2)
    assert queue.handled == 1


@pytest.mark.parametrize("workers", [1, 8])
async def test_all_keys_are_handled(workers: int) -> None:
    queue: WorkQueue[str] = WorkQueue()
    seen: Counter[str] = Counter()

    async def handle(key: str) -> None:
        await asyncio.sleep(0)
        seen[key] += 1

    async with working(queue, handle, workers):
        for number in range(200):
            queue.add(str(number))
        await until(lambda: queue.handled == 200)
    assert set(seen.values()) == {1}
