"""etcd restored from a backup under a running operator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from penstock_api.names import INSTALL_NAMESPACE
from penstock_kube import LEASES, NAMESPACES, KubeClient
from penstock_operator import kinds
from penstock_operator.settings import Settings

from e2e.cluster import ControlPlane, control_plane
from tests.support.etcd_backup import back_up, restore
from tests.support.operator_rig import MANIFESTS, Cluster, RunningOperator, is_true, until

pytestmark = [pytest.mark.apiserver]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as plane:
        files = [file for file in MANIFESTS.glob("*.yaml") if "CustomResourceDefinition" in file.read_text()]
        plane.kubectl("apply", *(f"--filename={file}" for file in sorted(files)))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield plane


async def renewed(client: KubeClient) -> None:
    """Wait until the leader has renewed its lease."""
    before = await client.get(LEASES, "test", INSTALL_NAMESPACE)
    installation = Cluster(client, INSTALL_NAMESPACE)
    await installation.wait(LEASES, "test", lambda lease: lease["spec"] != before["spec"], namespaced=True)


async def test_the_operator_follows_within_a_minute(plane: ControlPlane) -> None:
    settings = Settings(kubeconfig=str(plane.kubeconfig), lease_name="test", lease_seconds=60.0, workers=4)
    async with KubeClient.from_kubeconfig(str(plane.kubeconfig)) as client:
        for name in (INSTALL_NAMESPACE, "shop"):
            await client.apply(NAMESPACES, {"metadata": {"name": name}}, field_manager="tests")
        cluster = Cluster(client, "shop")
        await cluster.node("lb-1", "192.0.2.1")
        await cluster.data_plane()
        await cluster.pool("203.0.113.10-203.0.113.13")
        await cluster.service()
        running = RunningOperator(settings).start()
        try:
            await until(lambda: running.following)
            await cluster.vip("deleted")
            deleted = await cluster.wait_vip(is_true("Accepted"), "deleted")
            copy = await asyncio.to_thread(back_up, plane)
            await client.delete(kinds.VIPS, "deleted", "shop")
            await cluster.vip("created")
            await cluster.wait_vip(is_true("Accepted"), "created")
            await renewed(client)  # a backup younger than the last renewal lacks next to nothing
            await asyncio.to_thread(restore, plane, copy)
            # Of the same UID as before, and again the holder of its address: a new VIP gets another one.
            assert (await cluster.get_vip("deleted"))["metadata"]["uid"] == deleted["metadata"]["uid"]
            await client.patch(kinds.VIPS, "deleted", {"spec": {"drainSeconds": 7}}, "shop")
            seen = await asyncio.wait_for(
                cluster.wait_vip(lambda vip: vip["status"]["observedGeneration"] == 2, "deleted"), 60
            )
            assert seen["status"]["addresses"] == deleted["status"]["addresses"]
            await cluster.vip("later")
            later = await cluster.wait_vip(is_true("Accepted"), "later")
            assert later["status"]["addresses"] != deleted["status"]["addresses"]
            assert running.error is None
        finally:
            await asyncio.to_thread(running.stop)
