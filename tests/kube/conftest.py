"""A client of the real API server and a namespace of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from penstock_kube import NAMESPACES, KubeClient, Resource

from e2e.cluster import ControlPlane

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)


@pytest.fixture
async def client(apiserver: ControlPlane) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client:
        yield client


@pytest.fixture
async def namespace(client: KubeClient) -> str:
    name = f"kube-{uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name
