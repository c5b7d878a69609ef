"""A real API server with our kinds, and a real operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from penstock_api.names import INSTALL_NAMESPACE
from penstock_kube import NAMESPACES, KubeClient
from penstock_operator.settings import Settings

from e2e.cluster import ControlPlane
from tests.support.operator_rig import MANIFESTS, Cluster, RunningOperator, until, wipe


@pytest.fixture(scope="session")
def kinds_installed(apiserver: ControlPlane) -> ControlPlane:
    files = [file for file in MANIFESTS.glob("*.yaml") if "CustomResourceDefinition" in file.read_text()]
    apiserver.kubectl("apply", *(f"--filename={file}" for file in sorted(files)))
    apiserver.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return apiserver


@pytest.fixture
async def client(kinds_installed: ControlPlane) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(str(kinds_installed.kubeconfig)) as client:
        await client.apply(NAMESPACES, {"metadata": {"name": INSTALL_NAMESPACE}}, field_manager="tests")
        await wipe(client)  # other folders' tests share the API server too
        yield client
        await wipe(client)


@pytest.fixture
async def namespace(client: KubeClient) -> str:
    name = f"shop-{uuid4().hex[:6]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name


@pytest.fixture
def settings(kinds_installed: ControlPlane) -> Settings:
    return Settings(
        kubeconfig=str(kinds_installed.kubeconfig),
        lease_name=f"test-{uuid4().hex[:8]}",
        lease_seconds=5.0,
        workers=4,
    )


@pytest.fixture
def operators(client: KubeClient, settings: Settings) -> Iterator[Callable[..., RunningOperator]]:
    running: list[RunningOperator] = []

    def start(**changes: Any) -> RunningOperator:
        operator = RunningOperator(settings.model_copy(update=changes)).start()
        running.append(operator)
        return operator

    yield start
    for operator in running:
        operator.stop()


@pytest.fixture
async def operator(client: KubeClient, operators: Callable[..., RunningOperator]) -> RunningOperator:
    running = operators()
    await until(lambda: running.following)
    return running


@pytest.fixture
def cluster(client: KubeClient, namespace: str) -> Cluster:
    return Cluster(client, namespace)


@pytest.fixture
async def ready_cluster(cluster: Cluster) -> Cluster:
    """Two load-balancing nodes, a default DataPlane, a pool of four, and a Service."""
    await cluster.node("lb-1", "192.0.2.1")
    await cluster.node("lb-2", "192.0.2.2")
    await cluster.data_plane()
    await cluster.pool("203.0.113.10-203.0.113.13")
    await cluster.service()
    return cluster
