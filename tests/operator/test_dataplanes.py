"""DataPlanes: nodes and pods as asked, replaced one at a time, cleared away in order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_api.names import (
    AGENT_ACCOUNT,
    COMPONENT_LABEL,
    DATAPLANE_FINALIZER,
    DATAPLANE_LABEL,
    INSTALL_NAMESPACE,
    NODE_LABEL,
    PART_OF_LABEL,
)
from penstock_kube import DAEMON_SETS, LEASES, NODES, PODS, SERVICE_ACCOUNTS, KubeClient
from penstock_operator import kinds
from penstock_operator.plan.daemonsets import ACCOUNT_ANNOTATION
from penstock_operator.plan.facts import TEMPLATE_HASH_LABEL
from penstock_operator.plan.rollout import REPLACED_ANNOTATION

from tests.support.operator_rig import Cluster, RunningOperator, condition, entry, is_true, refused

pytestmark = pytest.mark.apiserver
Object = dict[str, Any]


async def make_pod(client: KubeClient, node: str, template_hash: str, *, waiting: str = "") -> None:
    """Do what the DaemonSet controller and a kubelet would do: there is none in these tests."""
    name = f"dataplane-{node}"
    labels = {DATAPLANE_LABEL: "edge", COMPONENT_LABEL: "dataplane", TEMPLATE_HASH_LABEL: template_hash}
    account = {"metadata": {"name": "default", "namespace": INSTALL_NAMESPACE}}
    await client.apply(SERVICE_ACCOUNTS, account, field_manager="tests")
    spec = {"nodeName": node, "containers": [{"name": "dataplane", "image": "x"}], "terminationGracePeriodSeconds": 0}
    body: Object = {"metadata": {"name": name, "namespace": INSTALL_NAMESPACE, "labels": labels}, "spec": spec}
    await client.apply(PODS, body, field_manager="tests")
    condition_ = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status: Object = {"conditions": [condition_ | ({"status": "False"} if waiting else {})]}
    if waiting:
        state = {"waiting": {"reason": waiting}}
        container = {
            "name": "dataplane",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        status["containerStatuses"] = [container]
    body = {"metadata": {"name": name, "namespace": INSTALL_NAMESPACE}, "status": status}
    await client.apply(PODS, body, field_manager="tests", subresource="status")


async def run_as(client: KubeClient, name: str, instance: str) -> None:
    status = {"instanceId": instance, "conditions": [ready_condition()]}
    body: Object = {"metadata": {"name": name}, "status": status}
    await client.apply(kinds.DATA_PLANE_NODES, body, field_manager="penstock-agent", subresource="status")


def ready_condition() -> Object:
    return {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def rolling(text: str) -> Callable[[Object], bool]:
    return lambda obj: text in condition(obj, "Reconciling").get("message", "")


async def template_hash(cluster: Cluster) -> str:
    daemon_set = await cluster.daemon_set("penstock-edge-dataplane")
    return str(daemon_set["spec"]["template"]["metadata"]["labels"][TEMPLATE_HASH_LABEL])


async def test_nodes_and_pods_are_made_as_asked(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    await cluster.node("worker", "192.0.2.9", role="worker")
    node = await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: obj["spec"]["nodes"] == 2)
    other = await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-2", lambda obj: True)
    assert node["spec"]["natSource"] == {"addresses": ["192.0.2.1"], "portFirst": 16384, "portLast": 28671}
    assert node["spec"]["schedulerKey"] == other["spec"]["schedulerKey"]
    assert node["metadata"]["labels"] == {DATAPLANE_LABEL: "edge", NODE_LABEL: "lb-1"}
    data_plane = await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"].get("schedulerKey"))
    assert data_plane["status"]["schedulerKey"] == node["spec"]["schedulerKey"]
    assert data_plane["metadata"]["finalizers"] == [DATAPLANE_FINALIZER]
    for name, strategy in (("penstock-edge-dataplane", "OnDelete"), ("penstock-edge-agent", "RollingUpdate")):
        made = await cluster.daemon_set(name)
        assert made["spec"]["updateStrategy"]["type"] == strategy
        assert made["spec"]["template"]["spec"]["nodeSelector"] == {DATAPLANE_LABEL: "edge"}
    await cluster.wait(NODES, "lb-2", lambda obj: obj["metadata"]["labels"].get(DATAPLANE_LABEL) == "edge")
    assert DATAPLANE_LABEL not in (await client.get(NODES, "worker"))["metadata"]["labels"]
    await cluster.report("lb-1")
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"]["summary"]["ready"] == "1/2")
    await cluster.report("lb-2")
    await cluster.wait(kinds.DATA_PLANES, "edge", is_true("Ready"))
    # Events of cluster-scoped objects live there. A first start is no fault.
    types = await Cluster(client, "default").events("Ready", "Progressing", of=data_plane)
    assert (types["Progressing"], "NodesNotReady" in types) == ("Normal", False)


async def test_drift_of_our_fields_is_put_back(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    name = "penstock-edge-dataplane"
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"].get("schedulerKey"))

    async def wait_for(path: Any, value: object) -> None:
        cluster_wait = Cluster(client, INSTALL_NAMESPACE)
        await cluster_wait.wait(DAEMON_SETS, name, lambda obj: path(obj) == value, namespaced=True)

    await wait_for(lambda obj: obj["spec"]["updateStrategy"]["type"], "OnDelete")
    strategy = {"spec": {"updateStrategy": {"type": "RollingUpdate"}}, "metadata": {"labels": {"theirs": "kept"}}}
    await client.patch(DAEMON_SETS, name, strategy, INSTALL_NAMESPACE)
    await wait_for(lambda obj: obj["spec"]["updateStrategy"]["type"], "OnDelete")
    assert (await client.get(DAEMON_SETS, name, INSTALL_NAMESPACE))["metadata"]["labels"]["theirs"] == "kept"
    await client.patch(kinds.DATA_PLANE_NODES, "edge.lb-1", {"spec": {"nodes": 7}})
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: obj["spec"]["nodes"] == 2)
    await client.delete(kinds.DATA_PLANE_NODES, "edge.lb-2")
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-2", lambda obj: "deletionTimestamp" not in obj["metadata"])


async def test_outdated_pods_are_replaced_one_at_a_time(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    for node in ("lb-1", "lb-2"):
        await cluster.report(node)
    first_hash = await template_hash(cluster)
    for node in ("lb-1", "lb-2"):
        await make_pod(client, node, first_hash)
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: (obj["status"].get("nodes") or {}).get("updated") == 2)
    await client.patch(kinds.DATA_PLANES, "edge", {"spec": {"flowTableSize": 131072}})
    await cluster.gone(PODS, "dataplane-lb-1", INSTALL_NAMESPACE)
    second_hash = await template_hash(cluster)
    assert second_hash != first_hash
    replaced = await client.get(kinds.DATA_PLANE_NODES, "edge.lb-1")
    assert replaced["metadata"]["annotations"][REPLACED_ANNOTATION] == "run-1"
    await cluster.wait(kinds.DATA_PLANES, "edge", rolling("earlier version"))
    await make_pod(client, "lb-1", second_hash)
    await cluster.wait(kinds.DATA_PLANES, "edge", rolling("node lb-1: its agent has not seen the new data plane"))
    await client.get(PODS, "dataplane-lb-2", INSTALL_NAMESPACE)  # still there
    await run_as(client, "edge.lb-1", "run-2")
    await cluster.gone(PODS, "dataplane-lb-2", INSTALL_NAMESPACE)
    await make_pod(client, "lb-2", second_hash)
    await run_as(client, "edge.lb-2", "run-2")
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: condition(obj, "Reconciling")["status"] == "absent")
    for node in ("lb-1", "lb-2"):
        await client.delete(PODS, f"dataplane-{node}", INSTALL_NAMESPACE)


async def test_a_nodes_addresses_are_handed_over_before_its_pod_is_replaced(
    operator: RunningOperator, cluster: Cluster
) -> None:
    client = cluster.client
    for number in (1, 2):
        await cluster.node(f"lb-{number}", f"192.0.2.{number}")
    await cluster.data_plane(announcement={"type": "L2"})
    await cluster.pool("203.0.113.10")
    await cluster.service()
    vip = await cluster.vip()
    await cluster.wait_vip(is_true("Accepted"))
    await cluster.report("lb-1", entry(vip, announces=["203.0.113.10"]))
    await cluster.report("lb-2", entry(vip))
    shown = await cluster.wait_vip(lambda obj: obj["status"].get("announcements"))
    assert shown["status"]["announcements"] == [{"address": "203.0.113.10", "nodeName": "lb-1"}]
    current = await template_hash(cluster)
    for node in ("lb-1", "lb-2"):
        await make_pod(client, node, current)
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: (obj["status"].get("nodes") or {}).get("updated") == 2)
    await client.patch(kinds.DATA_PLANES, "edge", {"spec": {"type": "vpp"}})
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: obj["spec"].get("draining"))
    await cluster.wait(kinds.DATA_PLANES, "edge", rolling("203.0.113.10 (VIP"))
    await client.get(PODS, "dataplane-lb-1", INSTALL_NAMESPACE)  # forwards until another node announces
    await cluster.report("lb-2", entry(vip, announces=["203.0.113.10"]))
    await cluster.report("lb-1", entry(vip))
    await cluster.gone(PODS, "dataplane-lb-1", INSTALL_NAMESPACE)
    await cluster.events("Announced")
    await make_pod(client, "lb-1", await template_hash(cluster), waiting="ErrImagePull")
    await cluster.wait(kinds.DATA_PLANES, "edge", rolling("pod dataplane-lb-1: ErrImagePull x"))
    await client.get(PODS, "dataplane-lb-2", INSTALL_NAMESPACE)  # the rollout has halted
    assert (await client.get(kinds.DATA_PLANE_NODES, "edge.lb-1"))["spec"]["draining"]
    await client.patch(kinds.DATA_PLANES, "edge", {"spec": {"type": "embedded"}})
    await cluster.gone(PODS, "dataplane-lb-1", INSTALL_NAMESPACE)
    await make_pod(client, "lb-1", await template_hash(cluster))
    await run_as(client, "edge.lb-1", "run-2")
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: not obj["spec"].get("draining"))
    for node in ("lb-1", "lb-2"):
        await client.delete(PODS, f"dataplane-{node}", INSTALL_NAMESPACE)


async def test_a_silent_agent_is_shown_everywhere(
    operators: Any, ready_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_operator.heartbeats.INTERVAL", 0.2)
    monkeypatch.setattr("penstock_operator.plan.heartbeats.SILENT_AFTER", 2.0)
    cluster, client = ready_cluster, ready_cluster.client
    operators()
    vip = await cluster.vip()
    await cluster.wait_vip(is_true("Accepted"))
    name = {"name": "penstock-edge.lb-1", "namespace": INSTALL_NAMESPACE, "labels": {DATAPLANE_LABEL: "edge"}}
    lease = {"metadata": name, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
    await cluster.report("lb-1", entry(vip))
    await client.apply(LEASES, lease, field_manager="penstock-agent")
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", refused("AgentSilent", "Ready"))
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"]["summary"]["ready"] == "0/2")
    await cluster.wait_vip(lambda obj: condition(obj, "Ready")["status"] == "False")
    async with asyncio.TaskGroup() as group:
        renewing = group.create_task(_renew(client, lease))
        await asyncio.sleep(2.0)  # until the operator has seen it; an agent writes its status until then
        await cluster.report("lb-1", entry(vip))
        await cluster.wait_vip(is_true("Ready"))
        await cluster.node("lb-1", "192.0.2.1", ready=False)  # its kubelet stopped, which stops no data plane
        await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"]["summary"]["ready"] == "1/2")
        await cluster.wait_vip(is_true("Ready"))
        renewing.cancel()
    await cluster.gone(LEASES, "penstock-edge.lb-1", INSTALL_NAMESPACE)  # both are silent: the node is lost


async def _renew(client: KubeClient, lease: Object) -> None:
    for number in itertools.count():
        lease["spec"]["renewTime"] = f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000000Z"
        await client.apply(LEASES, lease, field_manager="penstock-agent")
        await asyncio.sleep(0.2)


async def test_agents_follow_their_account(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    account: Object = {
        "metadata": {"name": AGENT_ACCOUNT, "namespace": INSTALL_NAMESPACE, "labels": {PART_OF_LABEL: "penstock"}}
    }
    installation = Cluster(client, INSTALL_NAMESPACE)

    def made_for(uid: str) -> Callable[[Object], bool]:
        def is_made(found: Any) -> bool:
            for key in ("spec", "template", "metadata", "annotations", ACCOUNT_ANNOTATION):
                found = found.get(key) or {}
            return bool(found == uid)

        return is_made

    for _ in range(2):
        await client.delete(SERVICE_ACCOUNTS, AGENT_ACCOUNT, INSTALL_NAMESPACE)
        await cluster.daemon_set("penstock-edge-agent")
        uid = (await client.apply(SERVICE_ACCOUNTS, account, field_manager="helm"))["metadata"]["uid"]
        await installation.wait(DAEMON_SETS, "penstock-edge-agent", made_for(uid), namespaced=True)


async def test_a_data_plane_is_cleared_away_in_order(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    await cluster.vip()
    await cluster.wait_vip(is_true("Accepted"))
    for node in ("lb-1", "lb-2"):
        await cluster.report(node)
    await client.delete(kinds.DATA_PLANES, "edge")
    await cluster.leave("lb-1")
    await cluster.gone(kinds.DATA_PLANE_NODES, "edge.lb-1")
    leaving = await cluster.wait(
        kinds.DATA_PLANES, "edge", lambda obj: condition(obj, "Ready")["message"].endswith("clear lb-2")
    )
    assert condition(leaving, "Ready")["reason"] == "Deleting"
    await cluster.daemon_set("penstock-edge-agent")  # the other agent still works
    assert (await client.get(NODES, "lb-2"))["metadata"]["labels"][DATAPLANE_LABEL] == "edge"
    await cluster.leave("lb-2")
    await cluster.gone(kinds.DATA_PLANES, "edge")
    await cluster.gone(DAEMON_SETS, "penstock-edge-agent", INSTALL_NAMESPACE)
    await cluster.gone(DAEMON_SETS, "penstock-edge-dataplane", INSTALL_NAMESPACE)
    assert DATAPLANE_LABEL not in (await client.get(NODES, "lb-2"))["metadata"]["labels"]
    assert (await client.list(kinds.REPORTS))[0] == []
    await cluster.wait_vip(refused("DataPlaneNotFound"))
    await client.delete(kinds.VIPS, "web", cluster.namespace)
    await cluster.gone(kinds.VIPS, "web", cluster.namespace)


async def test_a_node_that_is_deselected_is_cleared_first(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    for node in ("lb-1", "lb-2"):
        await cluster.report(node)
    await client.patch(NODES, "lb-2", {"metadata": {"labels": {"role": "worker"}}})
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-2", lambda obj: "deletionTimestamp" in obj["metadata"])
    assert (await client.get(NODES, "lb-2"))["metadata"]["labels"][DATAPLANE_LABEL] == "edge"  # its pods stay
    await cluster.leave("lb-2")
    await cluster.wait(NODES, "lb-2", lambda obj: DATAPLANE_LABEL not in obj["metadata"]["labels"])
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: obj["spec"]["nodes"] == 1)


async def test_lost_nodes_are_dropped(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    for node in ("lb-1", "lb-2"):
        await cluster.report(node)
    lease = {"metadata": {"name": "penstock-edge.lb-2", "namespace": INSTALL_NAMESPACE}, "spec": {}}
    await client.apply(LEASES, lease, field_manager="penstock-agent")
    await client.delete(NODES, "lb-2")
    await cluster.gone(kinds.DATA_PLANE_NODES, "edge.lb-2")
    await cluster.gone(kinds.REPORTS, "edge.lb-2-0")
    await cluster.gone(LEASES, "penstock-edge.lb-2", INSTALL_NAMESPACE)
    recently = (datetime.now(UTC) - timedelta(minutes=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await cluster.node("lb-1", "192.0.2.1", ready=False, since=recently)
    await cluster.wait(kinds.DATA_PLANES, "edge", lambda obj: obj["status"]["summary"]["ready"] == "0/1")
    await client.get(kinds.DATA_PLANE_NODES, "edge.lb-1")  # may come back
    await cluster.node("lb-1", "192.0.2.1", ready=False, since="2026-01-01T00:00:00Z")
    await cluster.gone(kinds.DATA_PLANE_NODES, "edge.lb-1")
    await cluster.node("lb-1", "192.0.2.1")
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: True)


async def test_overlapping_selectors_leave_nodes_to_one(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.lb-1", lambda obj: True)
    await cluster.node("core-1", "192.0.2.20", role="lb", extra="yes")
    await cluster.wait(kinds.DATA_PLANE_NODES, "edge.core-1", lambda obj: True)
    # Of DataPlanes made within one second the UID decides, so age is made certain.
    await age_by_a_second(cluster)
    await cluster.data_plane("core", default=False, nodeSelector={"extra": "yes"})
    refusal = await cluster.wait(kinds.DATA_PLANES, "core", refused("NodeConflict"))
    assert "core-1 belong to DataPlane edge, which is older" in condition(refusal, "Accepted")["message"]
    assert (await client.list(kinds.DATA_PLANE_NODES, label_selector=f"{DATAPLANE_LABEL}=core"))[0] == []
    await client.delete(kinds.DATA_PLANES, "edge")
    await cluster.wait(kinds.DATA_PLANE_NODES, "core.core-1", lambda obj: True)
    await cluster.wait(kinds.DATA_PLANES, "core", is_true("Accepted"))


async def age_by_a_second(cluster: Cluster) -> None:
    """Wait until the API server's clock has passed the second in which the DataPlane `edge` was made."""
    made = str((await cluster.client.get(kinds.DATA_PLANES, "edge"))["metadata"]["creationTimestamp"])

    def later(obj: Object) -> bool:
        return str(obj["metadata"]["creationTimestamp"]) > made

    name = 0
    while True:
        name += 1
        probe: Object = {"metadata": {"name": f"clock-{name}", "namespace": cluster.namespace}}
        created = await cluster.client.create(LEASES, probe)
        if later(created):
            return
        await asyncio.sleep(0.05)
