"""Source `kubernetes` against a real API server."""

from __future__ import annotations

import pytest
from penstock_agent.sources.kubernetes import KubernetesSource
from penstock_kube import ENDPOINT_SLICES, KubeClient

from tests.support.agent_cluster import VIPS
from tests.support.waiting import eventually, let_connections_go, running

pytestmark = pytest.mark.apiserver


@pytest.fixture
async def source(cluster):
    """The source of the agent on node a, with no more rights than it has."""
    kubeconfig = await cluster.node("a")
    async with KubeClient.from_kubeconfig(str(kubeconfig)) as client:
        yield KubernetesSource(client, lambda: None, dataplane=cluster.dataplane, node_name=cluster.node_name("a"))
    await let_connections_go()


def backends(source, cluster, service="web"):
    if source.snapshot is None:
        return None
    slices = source.snapshot.slices.get((cluster.namespace, service), ())
    return sorted(str(endpoint.address) for piece in slices for endpoint in piece.endpoints)


async def test_what_is_there_is_one_snapshot(source, cluster):
    await cluster.slice("web", "10.0.0.1", "10.0.0.2")
    await cluster.slice("other", "10.0.0.9")
    await cluster.vip(policyName="fast")
    await cluster.vip("foreign", dataplane="another", addresses=("203.0.113.99",), service="other")
    await cluster.policy("fast", heuristic="little")
    assert source.snapshot is None
    async with running(source.run()):
        snapshot = await eventually(lambda: source.snapshot)
        assert [served.vip.metadata.name for served in snapshot.vips] == ["web"]
        assert [str(a) for a in snapshot.vips[0].addresses] == ["203.0.113.10"]
        assert snapshot.policies[(cluster.namespace, "fast")].heuristic == "little"
        assert backends(source, cluster) == ["10.0.0.1", "10.0.0.2"]
        assert backends(source, cluster, "other") == []
        assert {str(a) for a in snapshot.vip_addresses} >= {"203.0.113.10", "203.0.113.99"}
        assert snapshot.node.node_name == cluster.node_name("a")
        assert source.snapshot is snapshot
        assert max(source.ages().values()) < 5


async def test_services_of_new_vips_are_asked_for(source, cluster):
    await cluster.slice("late", "10.0.0.7")
    async with running(source.run()):
        await eventually(lambda: source.snapshot is not None)
        await cluster.vip("late", service="late", addresses=("203.0.113.11",))
        await eventually(lambda: backends(source, cluster, "late") == ["10.0.0.7"])
        await cluster.slice("late", "10.0.0.7", "10.0.0.8")
        await eventually(lambda: backends(source, cluster, "late") == ["10.0.0.7", "10.0.0.8"])
        await cluster.slice("late", "10.0.0.9", name="late-2")
        await eventually(lambda: len(backends(source, cluster, "late")) == 3)
        await cluster.client.delete(ENDPOINT_SLICES, "late-1", cluster.namespace)
        await eventually(lambda: backends(source, cluster, "late") == ["10.0.0.9"])


async def test_slices_of_vips_that_went_are_forgotten(source, cluster):
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    async with running(source.run()):
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1"])
        await cluster.client.delete(VIPS, "web", cluster.namespace)
        await eventually(lambda: source.snapshot.vips == ())
        assert backends(source, cluster) == []
        await cluster.vip()
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1"])


async def test_a_slice_that_moves_to_another_service_leaves_the_first(source, cluster):
    await cluster.slice("web", "10.0.0.1")
    await cluster.slice("web", "10.0.0.2", name="moving")
    await cluster.vip()
    async with running(source.run()):
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1", "10.0.0.2"])
        await cluster.slice("elsewhere", "10.0.0.2", name="moving")
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1"])
        await cluster.slice("web", "10.0.0.2", name="moving")
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1", "10.0.0.2"])


async def test_services_say_where_their_ports_lead(source, cluster):
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    await cluster.service("web", ports=ports, selector={"app": "web"})
    await cluster.vip()
    name = (cluster.namespace, "web")
    async with running(source.run()):
        await eventually(lambda: source.snapshot is not None)
        assert source.snapshot.service(name).ports[0].target == "web"
        assert source.snapshot.service((cluster.namespace, "gone")) is None
        await cluster.service("web", type="ExternalName", externalName="server.example")
        await eventually(lambda: source.snapshot.service(name).external)


async def test_services_that_are_followed_stay_although_no_vip_names_them(source, cluster):
    await cluster.slice("web", "10.0.0.1")
    await cluster.vip()
    async with running(source.run()):
        await eventually(lambda: backends(source, cluster) == ["10.0.0.1"])
        source.follow(frozenset({(cluster.namespace, "web")}))
        await cluster.vip(service="typo")
        await eventually(lambda: source.snapshot and source.snapshot.vips[0].vip.spec.backends.service.name == "typo")
        assert backends(source, cluster) == ["10.0.0.1"]
        source.follow(frozenset())
        await cluster.slice("web", "10.0.0.1", "10.0.0.2")
        await eventually(lambda: backends(source, cluster) == [])


async def test_without_a_dataplanenode_there_is_nothing_to_serve(cluster):
    await cluster.node("a")
    source = KubernetesSource(cluster.client, lambda: None, dataplane=cluster.dataplane, node_name="nowhere")
    async with running(source.run()):
        await eventually(lambda: source.error)
        assert "check that the DataPlane's nodeSelector has this node" in source.error
        assert source.snapshot is None
