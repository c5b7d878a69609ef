"""What rarely happens: objects of a newer schema, objects made anew under an old name, a leader cut short."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock_kube import CRDS, Invalid, KubeClient, LeaseLostError, config
from penstock_operator import kinds
from penstock_operator.apply import Writer
from penstock_operator.keys import Subject, WorkKey
from penstock_operator.store import Store, Unreadable

from tests.support.operator_rig import Cluster, RunningOperator, condition, is_true, refused
from tests.support.plan_builders import vip

Object = dict[str, Any]


def raw_vip(version: int, **changes: Any) -> Object:
    raw: Object = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": str(version), "generation": 1},
        "spec": {"ports": [{"port": 80}], "backends": {"service": {"name": "web"}}, "policyName": "clever"},
    }
    return raw | changes


def test_an_older_version_of_an_object_is_ignored() -> None:
    store = Store()
    assert store.put(kinds.VIPS, raw_vip(7)) is not None
    assert store.put(kinds.VIPS, raw_vip(6, spec={"ports": []})) is None
    assert store.users_of("policy", ("shop", "clever")) == {("shop", "web")}
    assert store.drop(kinds.VIPS, ("shop", "web"), "another") is None
    assert store.drop(kinds.VIPS, ("shop", "web"), "u") is not None
    assert store.put(kinds.VIPS, raw_vip(8)) is None  # the answer to a write, after the deletion
    assert store.users_of("policy", ("shop", "clever")) == frozenset()
    reborn = raw_vip(3)
    reborn["metadata"]["uid"] = "v"
    assert store.put(kinds.VIPS, reborn) is not None


def test_an_object_of_a_newer_schema_is_kept_as_it_is() -> None:
    store = Store()
    strange = raw_vip(1, status={"addresses": ["203.0.113.10"]})
    strange["spec"]["forwarding"] = "Teleport"
    store.put(kinds.VIPS, strange)
    found = store.get(kinds.VIPS, ("shop", "web"))
    assert isinstance(found, Unreadable)
    assert "spec.forwarding" in found.message
    assert store.all(kinds.VIPS) == {}
    assert len(store.ledger.held_addresses()) == 1
    store.put(kinds.VIPS, raw_vip(2))
    assert store.ledger.held_addresses() == set()


def test_a_report_that_moves_between_objects_is_not_lost() -> None:
    store = Store()

    def report(shard: int, version: int, *entries: Object) -> Object:
        metadata = {"name": f"edge.a-{shard}", "uid": f"r{shard}", "resourceVersion": str(version)}
        return {"metadata": metadata, "report": {"nodeName": "a", "dataPlaneName": "edge", "vips": list(entries)}}

    entry = {"namespace": "shop", "name": "web", "uid": "u", "generation": 1}
    store.put(kinds.REPORTS, report(0, 1, entry))
    store.put(kinds.REPORTS, report(1, 2, entry | {"generation": 2}))
    assert store.reports_of("u")["a"].generation == 2
    store.put(kinds.REPORTS, report(0, 3))
    assert store.reports_of("u")["a"].generation == 2
    store.drop(kinds.REPORTS, ("", "edge.a-1"))
    assert store.reports_of("u") == {}


async def test_a_leader_that_may_have_lost_its_lease_writes_nothing() -> None:
    async with KubeClient(config.Connection("http://127.0.0.1:1")) as client:
        writer = Writer(client, Store(), lambda _res, _raw: None, lambda: False)
        mine = vip()
        with pytest.raises(LeaseLostError):
            await writer.status(kinds.VIPS, mine, mine.status.model_copy(update={"observed_generation": 1}))
        assert writer.writes == 0


def test_keys_read_well() -> None:
    assert str(WorkKey(Subject.VIP, "shop", "web")) == "vip/shop/web"
    assert str(WorkKey(Subject.POOL, "", "public")) == "pool/public"


@pytest.mark.apiserver
async def test_a_vip_of_a_newer_schema_says_so(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    name = "loadbalancervips.penstock.dev"
    crd = await client.get(CRDS, name)
    choices = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["forwarding"]
    choices["enum"].append("Teleport")
    await client.replace(CRDS, crd)
    try:
        await create_when_the_schema_allows(cluster)
        found = await cluster.wait_vip(refused("InvalidSpec"))
        assert "spec.forwarding: must be" in condition(found, "Accepted")["message"]
        assert condition(found, "Stalled")["status"] == "True"
    finally:
        await client.delete(kinds.VIPS, "web", cluster.namespace)
        crd = await client.get(CRDS, name)
        body = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        body["forwarding"]["enum"].remove("Teleport")
        await client.replace(CRDS, crd)


async def create_when_the_schema_allows(cluster: Cluster) -> None:
    """An API server serves a new schema a moment after it took it."""
    async with asyncio.timeout(20):
        while True:
            try:
                await cluster.vip(forwarding="Teleport")
            except Invalid:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.apiserver
async def test_a_vip_made_anew_under_its_name_is_another(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    for _ in range(5):
        await cluster.vip()
        await cluster.wait_vip(is_true("Accepted"))
        await cluster.client.delete(kinds.VIPS, "web", cluster.namespace)
    await cluster.vip()
    await asyncio.wait_for(cluster.wait_vip(is_true("Accepted")), 10)
