"""etcd restored from a backup: versions go back, and what is known of the API server is of a future that never was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from penstock_kube import HistoryRewoundError, KubeClient, LeaderLease, Reflector, Resource, reflector

from e2e.cluster import ControlPlane, control_plane
from tests.support.etcd_backup import back_up, restore

pytestmark = pytest.mark.apiserver
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)
NAMESPACE = "default"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        yield plane


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is the server's, no event of ours tells it
            await asyncio.sleep(0.05)


async def put(client: KubeClient, name: str, value: str) -> None:
    body = {"metadata": {"name": name, "namespace": NAMESPACE}, "data": {"value": value}}
    await client.apply(CONFIG_MAPS, body, field_manager="tests")


async def test_a_watch_and_a_leader_notice(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "CHECK_SECONDS", (2.0, 4.0))
    async with KubeClient.from_kubeconfig(str(plane.kubeconfig)) as client:
        for name in ("changed", "deleted"):
            await put(client, name, "old")
        watch = Reflector(
            client,
            CONFIG_MAPS,
            namespace=NAMESPACE,
            field_selector="metadata.name!=kube-root-ca.crt",
            prune=lambda raw: {"value": raw["data"]["value"]},
        )
        lease = LeaderLease(client, "leader", NAMESPACE, "me", duration=300, renew_deadline=200, retry=0.2)
        await lease.acquire()

        def known() -> dict[str, str]:
            return {name: kept["value"] for (_, name), kept in watch.cache.items()}

        following = asyncio.create_task(watch.run())
        await until(lambda: known() == {"changed": "old", "deleted": "old"}, 10)
        holding = asyncio.create_task(lease.hold())
        copy = await asyncio.to_thread(back_up, plane)
        for number in range(100):
            await put(client, "changed", f"new {number}")
        await client.delete(CONFIG_MAPS, "deleted", NAMESPACE)
        await put(client, "created", "new")
        await until(lambda: known() == {"changed": "new 99", "created": "new"}, 60)
        assert not holding.done()
        await asyncio.to_thread(restore, plane, copy)
        await until(lambda: known() == {"changed": "old", "deleted": "old"}, 60)
        await put(client, "changed", "newer")
        await until(lambda: known() == {"changed": "newer", "deleted": "old"}, 10)
        with pytest.raises(HistoryRewoundError):
            await asyncio.wait_for(holding, 30)
        assert lease.held
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
