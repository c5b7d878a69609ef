"""A real API server with our kinds, RBAC and admission policy."""

from __future__ import annotations

from uuid import uuid4

import pytest
from penstock_api.names import INSTALL_NAMESPACE
from penstock_kube import NAMESPACES, KubeClient

from tests.support.agent_cluster import DATAPLANE_NODES, MANIFESTS, AgentCluster
from tests.support.waiting import let_connections_go


@pytest.fixture(scope="session")
def installed(apiserver):
    crds = [file for file in sorted(MANIFESTS.glob("*.yaml")) if "CustomResourceDefinition" in file.read_text()]
    apiserver.kubectl("apply", *(f"--filename={file}" for file in crds))
    apiserver.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    namespace = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {INSTALL_NAMESPACE}}}\n"
    apiserver.kubectl("apply", "--filename=-", stdin=namespace)
    apiserver.kubectl("apply", f"--filename={MANIFESTS / 'rbac.yaml'}", f"--filename={MANIFESTS / 'admission.yaml'}")
    return apiserver


@pytest.fixture
async def cluster(installed):
    async with KubeClient.from_kubeconfig(str(installed.kubeconfig)) as client:
        namespace = f"shop-{uuid4().hex[:6]}"
        await client.create(NAMESPACES, {"metadata": {"name": namespace}})
        cluster = AgentCluster(client, installed, namespace)
        yield cluster
        for name in ("a", "b"):
            node = await cluster.get(DATAPLANE_NODES, cluster.object_name(name))
            if node is not None:
                await client.patch(DATAPLANE_NODES, node["metadata"]["name"], {"metadata": {"finalizers": None}})
                await client.delete(DATAPLANE_NODES, node["metadata"]["name"])
    await let_connections_go()
