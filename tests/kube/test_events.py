"""Events: said once, counted when repeated, never a flood, never in the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from penstock_kube import EVENTS, EventRecorder, KubeClient, Resource, config

pytestmark = pytest.mark.apiserver
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)


@contextlib.asynccontextmanager
async def running(recorder: EventRecorder) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def written(recorder: EventRecorder, count: int) -> None:
    async with asyncio.timeout(10):
        while recorder.written + recorder.dropped < count:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


async def subject(client: KubeClient, namespace: str) -> dict[str, Any]:
    created = await client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": namespace}})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": created["metadata"]}


async def test_repetitions_become_a_series(client: KubeClient, namespace: str) -> None:
    obj = await subject(client, namespace)
    recorder = EventRecorder(client, controller="tests", instance="one")
    async with running(recorder):
        recorder.record(obj, type_="Warning", reason="Broken", note="it broke")
        await written(recorder, 1)
        for _ in range(4):
            recorder.record(obj, type_="Warning", reason="Broken", note="it broke")
        recorder.record(obj, type_="Normal", reason="Mended", note="x" * 2000)
        await written(recorder, 3)
        events, _ = await client.list(EVENTS, namespace)
        by_reason = {event["reason"]: event for event in events}
        assert len(events) == 2
        assert by_reason["Broken"]["series"]["count"] == 5
        assert by_reason["Broken"]["regarding"]["uid"] == obj["metadata"]["uid"]
        assert len(by_reason["Mended"]["note"]) == 1024
        await client.delete(EVENTS, by_reason["Broken"]["metadata"]["name"], namespace)
        recorder.record(obj, type_="Warning", reason="Broken", note="it broke")
        await written(recorder, 4)
    events, _ = await client.list(EVENTS, namespace)
    assert {event["reason"] for event in events} == {"Broken", "Mended"}


async def test_a_flood_is_slowed_and_bounded(client: KubeClient, namespace: str) -> None:
    obj = await subject(client, namespace)
    recorder = EventRecorder(client, controller="tests", instance="one", rate=20, burst=2, capacity=5)
    for number in range(10):
        recorder.record(obj, type_="Normal", reason="Flood", note=f"number {number}")
    assert recorder.dropped == 5
    started = asyncio.get_running_loop().time()
    async with running(recorder):
        await written(recorder, 10)
    assert asyncio.get_running_loop().time() - started >= 0.1
    events, _ = await client.list(EVENTS, namespace)
    assert {event["note"] for event in events} == {f"number {number}" for number in range(5, 10)}


async def test_events_that_cannot_be_written_are_dropped() -> None:
    async with KubeClient(config.Connection("http://127.0.0.1:1")) as nowhere:
        recorder = EventRecorder(nowhere, controller="tests", instance="one")
        async with running(recorder):
            recorder.record({"metadata": {"name": "a"}}, type_="Normal", reason="Lost", note="nobody hears")
            await written(recorder, 1)
    assert (recorder.dropped, recorder.written) == (1, 0)
