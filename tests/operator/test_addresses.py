"""Addresses: allocated, kept, never twice, never the cluster's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from penstock_kube import NAMESPACES, SERVICES, Conflict, KubeClient
from penstock_operator import kinds

from tests.support.operator_rig import Cluster, RunningOperator, condition, entry, is_true, refused

pytestmark = pytest.mark.apiserver


def accepted_with(address: str) -> Callable[[dict[str, Any]], bool]:
    return lambda obj: obj["status"]["addresses"] == [address] and is_true("Accepted")(obj)


async def test_two_vips_do_not_get_one_address(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    other = f"{cluster.namespace}-other"
    await cluster.client.create(NAMESPACES, {"metadata": {"name": other}})
    await cluster.vip(addresses=["203.0.113.10"])
    await cluster.wait_vip(is_true("Accepted"))
    await cluster.vip("shadow", namespace=other, addresses=["203.0.113.10"])
    await cluster.vip("twin", addresses=["203.0.113.10"])
    await cluster.vip("friend", addresses=["203.0.113.10"], ports=[{"port": 443}])
    twin = await cluster.wait_vip(refused("AddressConflict"), "twin")
    message = condition(twin, "Accepted")["message"]
    assert message.startswith(f"203.0.113.10:80/TCP is held by {cluster.namespace}/web;")
    assert condition(twin, "Stalled")["status"] == "True"
    assert "addresses" not in twin["status"] or not twin["status"]["addresses"]
    await cluster.wait_vip(is_true("Accepted"), "friend")
    shadow = Cluster(cluster.client, other)
    await shadow.wait_vip(refused("AddressConflict"), "shadow")
    await cluster.client.delete(kinds.VIPS, "web", cluster.namespace)
    await cluster.wait_vip(is_true("Accepted"), "twin")
    refusal = await shadow.wait_vip(refused("AddressConflict"), "shadow")
    assert "held by" in condition(refusal, "Accepted")["message"]


async def test_a_full_pool_says_so_and_serves_the_next_when_one_leaves(
    operator: RunningOperator, ready_cluster: Cluster
) -> None:
    cluster = ready_cluster
    for number in range(4):
        await cluster.vip(f"vip-{number}")
    addresses = set()
    for number in range(4):
        vip = await cluster.wait_vip(is_true("Accepted"), f"vip-{number}")
        addresses.update(vip["status"]["addresses"])
    assert addresses == {f"203.0.113.{last}" for last in (10, 11, 12, 13)}
    full = await cluster.wait(kinds.POOLS, "public", lambda obj: free_of(obj) == "0")
    assert full["status"]["summary"]["used"] == "4"
    assert condition(full, "Ready")["reason"] == "NoAddressAvailable"
    await cluster.vip("late")
    late = await cluster.wait_vip(refused("NoAddressAvailable"), "late")
    assert "AddressPool public" in condition(late, "Accepted")["message"]
    await cluster.client.delete(kinds.VIPS, "vip-2", cluster.namespace)
    await cluster.wait_vip(is_true("Accepted"), "late")
    await cluster.wait(kinds.POOLS, "public", lambda obj: free_of(obj) == "0")


async def test_the_holder_keeps_its_address_through_restarts_and_edits(
    operators: Callable[[], RunningOperator], ready_cluster: Cluster
) -> None:
    cluster = ready_cluster
    first = operators()
    await cluster.vip()
    await cluster.vip("second")
    held = (await cluster.wait_vip(is_true("Accepted"), "second"))["status"]["addresses"]
    first.stop()
    await cluster.client.delete(kinds.VIPS, "web", cluster.namespace)  # frees the lower address meanwhile
    operators()
    patch = {"spec": {"drainSeconds": 5}}
    await cluster.client.patch(kinds.VIPS, "second", patch, cluster.namespace)
    vip = await cluster.wait_vip(lambda obj: obj["status"]["observedGeneration"] == 2, "second")
    assert vip["status"]["addresses"] == held
    await cluster.client.patch(kinds.VIPS, "second", {"spec": {"addresses": ["192.0.2.1"]}}, cluster.namespace)
    vip = await cluster.wait_vip(refused("AddressNotAllowed"), "second")
    assert "192.0.2.1 is of node lb-1" in condition(vip, "Accepted")["message"]
    assert vip["status"]["addresses"] == held  # a bad edit doesn't stop traffic
    await cluster.client.patch(kinds.VIPS, "second", {"spec": {"addresses": ["203.0.113.13"]}}, cluster.namespace)
    vip = await cluster.wait_vip(is_true("Accepted"), "second")
    assert vip["status"]["addresses"] == ["203.0.113.13"]


async def test_two_vips_exchange_their_addresses(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    ten, eleven = "203.0.113.10", "203.0.113.11"
    await cluster.vip("blue", addresses=[ten])
    await cluster.vip("green", addresses=[eleven])
    for name in ("blue", "green"):
        await cluster.wait_vip(is_true("Accepted"), name)
    for _ in range(2):
        for name, wanted in (("blue", eleven), ("green", ten)):
            await cluster.client.patch(kinds.VIPS, name, {"spec": {"addresses": [wanted]}}, cluster.namespace)
        for name, wanted in (("blue", eleven), ("green", ten)):
            vip = await cluster.wait_vip(accepted_with(wanted), name)
            assert vip["status"]["observedGeneration"] == vip["metadata"]["generation"]
        ten, eleven = eleven, ten


async def test_addresses_of_the_cluster_are_refused(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    await cluster.pool("10.96.0.0/24", name="services")
    refusal = await cluster.wait(kinds.POOLS, "services", refused("AddressNotAllowed"))
    assert "in the Service network 10.96.0.0/16" in condition(refusal, "Accepted")["message"]
    await cluster.pool("203.0.113.12-203.0.113.20", name="overlapping")
    await one_of_two_is_refused(cluster)
    await cluster.client.delete(kinds.POOLS, "overlapping")
    await cluster.vip(addresses=["198.51.100.7"])
    vip = await cluster.wait_vip(refused("AddressNotAllowed"))
    assert "public has 203.0.113.10-203.0.113.13" in condition(vip, "Accepted")["message"]
    await cluster.pool("198.51.100.0/24", name="private", namespaces=["elsewhere"])
    vip = await cluster.wait_vip(lambda obj: "private" in condition(obj, "Accepted")["message"])
    assert f"namespace {cluster.namespace} may not use" in condition(vip, "Accepted")["message"]


async def one_of_two_is_refused(cluster: Cluster) -> None:
    """The younger of overlapping pools; of those made within one second, UIDs decide."""
    async with asyncio.timeout(20):
        while True:
            pools, _ = await cluster.client.list(kinds.POOLS)
            if [pool for pool in pools if refused("PoolOverlap")(pool)]:
                return
            await asyncio.sleep(0.03)


async def test_a_node_with_a_vips_address_does_not_take_it(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    await cluster.vip(addresses=["203.0.113.11"])
    await cluster.wait_vip(is_true("Accepted"))
    await cluster.node("intruder", "203.0.113.11", role="worker")
    vip = await cluster.wait_vip(_accepted_with("AddressConflict"))
    assert vip["status"]["addresses"] == ["203.0.113.11"]
    assert "203.0.113.11 is also of node intruder" in condition(vip, "Accepted")["message"]


async def test_everything_a_vip_refers_to_is_named_when_missing(
    operator: RunningOperator, ready_cluster: Cluster
) -> None:
    cluster = ready_cluster
    await cluster.vip("lost", dataPlaneName="core")
    await cluster.wait_vip(
        lambda obj: "core does not exist (there is: edge)" in condition(obj, "Accepted")["message"], "lost"
    )
    await cluster.vip("empty", backends={"service": {"name": "absent"}})
    vip = await cluster.wait_vip(refused("ServiceNotFound"), "empty")
    assert vip["status"]["addresses"]  # not lost while the Service is recreated
    await cluster.service("absent")
    await cluster.wait_vip(is_true("Accepted"), "empty")
    await cluster.vip("static", backends={"endpoints": [{"address": "198.51.100.9", "port": 80}]})
    vip = await cluster.wait_vip(refused("EndpointNotAllowed"), "static")
    await cluster.client.patch(kinds.DATA_PLANES, "edge", {"spec": {"staticEndpointCIDRs": ["198.51.100.0/24"]}})
    await cluster.wait_vip(is_true("Accepted"), "static")
    await cluster.client.patch(kinds.VIPS, "static", {"spec": {"policyName": "clever"}}, cluster.namespace)
    vip = await cluster.wait_vip(_accepted_with("PolicyNotFound"), "static")
    assert "(there is: none)" in condition(vip, "Accepted")["message"]
    policy = {"metadata": {"name": "clever", "namespace": cluster.namespace}, "spec": {"heuristic": "little"}}
    await cluster.client.create(kinds.POLICIES, policy)
    await cluster.wait_vip(lambda obj: condition(obj, "Accepted")["reason"] == "Accepted", "static")
    found = await cluster.wait(kinds.POLICIES, "clever", is_true("Ready"), namespaced=True)
    assert found["status"]["summary"]["vips"] == "1"
    await cluster.data_plane("second", nodeSelector={"role": "other"})
    await cluster.vip("torn")
    vip = await cluster.wait_vip(refused("DataPlaneNotFound"), "torn")
    assert "edge, second" in condition(vip, "Accepted")["message"]


async def test_pause_freezes_a_vip_and_shows(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    await cluster.vip()
    vip = await cluster.wait_vip(is_true("Accepted"))
    for node in ("lb-1", "lb-2"):
        await cluster.report(node, entry(vip))
    before = await cluster.wait_vip(is_true("Ready"))
    pause = {"metadata": {"annotations": {"penstock.dev/paused": "true"}}}
    await cluster.client.patch(kinds.VIPS, "web", pause, cluster.namespace)
    await cluster.wait_vip(lambda obj: condition(obj, "Ready")["reason"] == "Paused")
    await cluster.client.patch(kinds.VIPS, "web", {"spec": {"addresses": ["203.0.113.13"]}}, cluster.namespace)
    paused = await cluster.wait_vip(lambda obj: condition(obj, "Reconciling")["reason"] == "Paused")
    assert paused["status"]["addresses"] == before["status"]["addresses"]
    assert paused["status"]["observedGeneration"] == before["status"]["observedGeneration"]
    assert condition(paused, "Ready")["status"] == "True"
    resume = {"metadata": {"annotations": {"penstock.dev/paused": None}}}
    await cluster.client.patch(kinds.VIPS, "web", resume, cluster.namespace)
    resumed = await cluster.wait_vip(lambda obj: obj["status"]["addresses"] == ["203.0.113.13"])
    assert resumed["status"]["observedGeneration"] == 2


async def test_a_status_that_others_write_is_put_back(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    await cluster.vip()
    vip = await cluster.wait_vip(is_true("Accepted"))
    vip["status"]["addresses"] = ["203.0.113.99"]
    await write_status(cluster.client, vip)
    await cluster.wait_vip(lambda obj: obj["status"]["addresses"] == ["203.0.113.10"])


async def write_status(client: KubeClient, vip: dict[str, object]) -> None:
    for _ in range(5):
        try:
            await client.replace(kinds.VIPS, vip, subresource="status")
        except Conflict:
            metadata = vip["metadata"]
            assert isinstance(metadata, dict)
            fresh = await client.get(kinds.VIPS, metadata["name"], metadata["namespace"])
            vip = fresh | {"status": fresh["status"] | {"addresses": ["203.0.113.99"]}}
        else:
            return


def free_of(pool: dict[str, Any]) -> str:
    return str(pool["status"].get("summary", {}).get("free"))


async def test_a_held_address_stays_when_a_service_claims_it(
    operators: Callable[[], RunningOperator], ready_cluster: Cluster
) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    first = operators()
    await cluster.vip()
    await cluster.vip("chosen", addresses=["203.0.113.12"])
    for name in ("web", "chosen"):
        await cluster.wait_vip(is_true("Accepted"), name)
    grab = {"metadata": {"name": "grab", "namespace": "default"}}
    spec = {"selector": {"a": "b"}, "ports": [{"port": 80}], "externalIPs": ["203.0.113.10", "203.0.113.12"]}
    await client.apply(SERVICES, {**grab, "spec": spec}, field_manager="tests")
    try:
        for name, address in (("web", "203.0.113.10"), ("chosen", "203.0.113.12")):
            vip = await cluster.wait_vip(_accepted_with("AddressConflict"), name)
            assert vip["status"]["addresses"] == [address]
            message = condition(vip, "Accepted")["message"]
            assert f"{address} is also of Service default/grab (spec.externalIPs)" in message
        await cluster.events("AddressConflict")
        await cluster.vip("third", addresses=["203.0.113.12"], ports=[{"port": 443}])
        await cluster.wait_vip(refused("AddressNotAllowed"), "third")  # nobody new is given it
        first.stop()
        await client.delete(kinds.POOLS, "public")
        operators()
        vip = await cluster.wait_vip(_accepted_with("AddressConflict"))
        await client.patch(kinds.VIPS, "web", {"spec": {"drainSeconds": 7}}, cluster.namespace)
        vip = await cluster.wait_vip(lambda obj: obj["status"]["observedGeneration"] == 2)
        assert vip["status"]["addresses"] == ["203.0.113.10"]
        await cluster.pool("203.0.113.20")
        mark = {"metadata": {"annotations": {"penstock.dev/move-address": "true"}}}
        await client.patch(kinds.VIPS, "web", mark, cluster.namespace)
        await cluster.wait_vip(lambda obj: obj["status"]["addresses"] == ["203.0.113.20"])
        await cluster.events("AddressesChanged")
    finally:
        await client.delete(SERVICES, "grab", "default")
    await cluster.wait_vip(lambda obj: "grab" not in condition(obj, "Accepted")["message"], "chosen")


def _accepted_with(reason: str) -> Callable[[dict[str, Any]], bool]:
    return lambda obj: is_true("Accepted")(obj) and condition(obj, "Accepted")["reason"] == reason
