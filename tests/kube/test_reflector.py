"""The reflector keeps a pruned copy current through expiry, silence and an API server that goes and comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from penstock_kube import Gone, Key, KubeClient, Reflector, Resource

from e2e.cluster import ControlPlane

pytestmark = pytest.mark.apiserver
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


@asynccontextmanager
async def running(reflector: Reflector) -> AsyncIterator[None]:
    task = asyncio.create_task(reflector.run())
    try:
        await asyncio.wait_for(reflector.synced.wait(), 10)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is the server's, no event of ours tells it
            await asyncio.sleep(0.02)


def only_data(obj: dict[str, Any]) -> dict[str, Any] | None:
    return {"data": obj["data"]} if obj["data"].get("keep") != "no" else None


async def test_the_cache_follows_and_holds_only_what_was_kept(client: KubeClient, namespace: str) -> None:
    changes: list[tuple[Key, dict[str, Any] | None]] = []
    await client.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    reflector = Reflector(
        client, CONFIG_MAPS, namespace=namespace, prune=only_data, on_change=lambda key, obj: changes.append((key, obj))
    )
    async with running(reflector):
        assert reflector.cache[(namespace, "a")] == {"data": {"x": "1"}}
        await client.create(CONFIG_MAPS, config_map(namespace, "b", keep="no"))
        await client.create(CONFIG_MAPS, config_map(namespace, "c", x="3"))
        await client.patch(CONFIG_MAPS, "a", {"data": {"keep": "no"}}, namespace)
        await client.patch(CONFIG_MAPS, "c", {"metadata": {"labels": {"not": "kept"}}}, namespace)
        await client.delete(CONFIG_MAPS, "c", namespace)
        await until(lambda: (namespace, "c") in {key for key, obj in changes if obj is None})
    assert changes == [
        ((namespace, "a"), {"data": {"x": "1"}}),
        ((namespace, "c"), {"data": {"x": "3"}}),
        ((namespace, "a"), None),
        ((namespace, "c"), None),
    ]
    assert reflector.age_seconds() < 10


async def test_a_silent_watch_is_opened_anew_and_resumes(client: KubeClient, namespace: str) -> None:
    reflector = Reflector(client, CONFIG_MAPS, namespace=namespace, idle_seconds=0.2)
    async with running(reflector):
        await until(lambda: reflector.errors >= 2)
        await client.create(CONFIG_MAPS, config_map(namespace, "late", x="1"))
        await until(lambda: (namespace, "late") in reflector.cache)
    assert reflector.relists == 1


async def test_an_outage_of_the_api_server_is_survived(
    apiserver: ControlPlane, client: KubeClient, namespace: str
) -> None:
    gone: list[Key] = []
    await client.create(CONFIG_MAPS, config_map(namespace, "before", x="1"))
    reflector = Reflector(
        client,
        CONFIG_MAPS,
        namespace=namespace,
        on_change=lambda key, obj: gone.append(key) if obj is None else None,
    )
    async with running(reflector):
        await asyncio.to_thread(apiserver.stop_apiserver)
        await until(lambda: reflector.errors > 0)
        assert (namespace, "before") in reflector.cache
        reflector._version = "1"  # older than what a server remembers that has just started
        await asyncio.to_thread(apiserver.start_apiserver)
        await until(lambda: reflector.relists == 2, 20)
        await client.delete(CONFIG_MAPS, "before", namespace)
        await client.create(CONFIG_MAPS, config_map(namespace, "after", x="1"))
        await until(lambda: (namespace, "after") in reflector.cache)
        assert gone == [(namespace, "before")]
    with pytest.raises(Gone):
        async for _ in client.watch(CONFIG_MAPS, namespace, resource_version="1"):
            pass
    await client.delete(CONFIG_MAPS, "after", namespace)  # seen by no watch: the next list finds it
    reflector._version = "1"
    async with running(reflector):
        await until(lambda: (namespace, "after") not in reflector.cache)


async def test_a_forbidden_watch_is_tried_again_until_it_is_allowed(apiserver: ControlPlane, namespace: str) -> None:
    kubeconfig = apiserver.issue(f"late-{namespace}", ["late"])
    async with KubeClient.from_kubeconfig(str(kubeconfig)) as late:
        reflector = Reflector(late, CONFIG_MAPS, namespace=namespace, max_backoff=0.3)
        task = asyncio.create_task(reflector.run())
        await until(lambda: reflector.errors > 1)
        apiserver.kubectl("create", "role", "reader", "--verb=list,watch", "--resource=configmaps", f"-n={namespace}")
        apiserver.kubectl("create", "rolebinding", "reader", "--role=reader", "--group=late", f"-n={namespace}")
        await asyncio.wait_for(reflector.synced.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_an_object_that_cannot_be_handled_costs_the_others_nothing() -> None:
    def prune(obj: dict[str, Any]) -> dict[str, Any]:
        if obj["metadata"]["name"] == "odd":
            raise ZeroDivisionError
        return obj

    def on_change(key: Key, obj: dict[str, Any] | None) -> None:
        if key[1] == "unwelcome":
            raise ZeroDivisionError

    reflector = Reflector(cast(KubeClient, None), CONFIG_MAPS, prune=prune, on_change=on_change)
    for name in ("odd", "unwelcome", "good"):
        reflector._store(config_map("default", name))
    assert set(reflector.cache) == {("default", "unwelcome"), ("default", "good")}
    assert reflector.faults == 2
