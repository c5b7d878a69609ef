"""Tokens as pods get them, on two nodes, against the generated RBAC and admission policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from penstock_api.names import INSTALL_NAMESPACE, node_lease_name, node_object_name, report_name

from e2e.cluster import ControlPlane
from tests.support.bad_objects import NODE, REPORT, VIP, changed
from tests.support.rest import Answer, Rest

pytestmark = pytest.mark.apiserver

# "a-b" and "b": names that a careless comparison of prefixes or suffixes mixes up.
MINE, FOREIGN = "b", "a-b"
AGENT_POD = "penstock-edge-agent-abcde"  # as the DaemonSet of DataPlane "edge" names them


def pod(name: str, account: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": INSTALL_NAMESPACE},
        "spec": {
            "serviceAccountName": account,
            "nodeName": node,
            "containers": [{"name": "main", "image": "none"}],
            "terminationGracePeriodSeconds": 0,
        },
    }


def node_object(node: str) -> dict[str, Any]:
    return changed(NODE, {"metadata.name": node_object_name("edge", node), "spec.nodeName": node})


def report(node: str, name: str = "") -> dict[str, Any]:
    own_name = report_name(node_object_name("edge", node), 0)
    return changed(REPORT, {"metadata.name": name or own_name, "report.nodeName": node})


def lease(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": INSTALL_NAMESPACE},
        "spec": {"holderIdentity": "boot", "leaseDurationSeconds": 5},
    }


def node_lease(node: str) -> dict[str, Any]:
    return lease(node_lease_name(node_object_name("edge", node)))


@dataclass(frozen=True)
class Tokens:
    admin: Rest
    agent: Rest  # of a pod on node MINE
    unbound: Rest  # of the same account, bound to no node
    operator: Rest


@pytest.fixture(scope="module")
def tokens(installed: ControlPlane, rest: Rest) -> Iterator[Tokens]:
    for node in (MINE, FOREIGN):
        rest.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        rest.create(node_object(node))
    for name, account in ((AGENT_POD, "penstock-agent"), ("operator-mine", "penstock-operator")):
        answer = rest.create(pod(name, account, MINE))
        assert answer.status == 201, answer.message
    issue = installed.issue_service_account
    with (
        Rest(issue(INSTALL_NAMESPACE, "penstock-agent", pod=AGENT_POD)) as agent,
        Rest(issue(INSTALL_NAMESPACE, "penstock-agent")) as unbound,
        Rest(issue(INSTALL_NAMESPACE, "penstock-operator", pod="operator-mine")) as operator,
    ):
        wait_for_policy(unbound)
        yield Tokens(rest, agent, unbound, operator)


def wait_for_policy(unbound: Rest) -> None:
    """Policies reach the API server's own cache within a second or two."""
    for _ in range(100):
        if unbound.create(node_lease(MINE), dry_run=True).status == 403:
            return
        time.sleep(0.1)
    raise AssertionError("the admission policy is not in force after 10 s")


def assert_refused(answer: Answer, *words: str) -> None:
    assert answer.status == 403, answer.body
    for word in words:
        assert word in answer.message, answer.message


STATUS = {"status": {"flows": 7}}
FINALIZER = {"metadata": {"finalizers": ["penstock.dev/node"]}}


def test_its_own_objects(tokens: Tokens) -> None:
    agent = tokens.agent
    assert agent.merge(node_object(MINE), STATUS, "/status").status == 200
    assert agent.merge(node_object(MINE), FINALIZER).status == 200
    assert agent.merge(node_object(MINE), {"metadata": {"finalizers": None}}).status == 200
    assert agent.create(report(MINE)).status == 201
    assert agent.merge(report(MINE), {"report": {"vips": []}}).status == 200
    assert agent.delete(report(MINE)).status == 200
    assert agent.create(node_lease(MINE)).status == 201
    assert agent.merge(node_lease(MINE), {"spec": {"holderIdentity": "later"}}).status == 200
    assert agent.delete(node_lease(MINE)).status == 200


def test_another_nodes_objects(tokens: Tokens) -> None:
    for obj in (report(FOREIGN), node_lease(FOREIGN)):
        assert tokens.admin.create(obj).status == 201
    agent = tokens.agent
    fix = "an agent may write only what belongs to its own node"
    assert_refused(agent.merge(node_object(FOREIGN), STATUS, "/status"), "belongs to node a-b", "to node b", fix)
    assert_refused(agent.merge(node_object(FOREIGN), FINALIZER), fix)
    assert_refused(agent.merge(report(FOREIGN), {"report": {"vips": []}}), "belongs to node a-b", fix)
    assert_refused(agent.delete(report(FOREIGN)), fix)
    assert_refused(agent.merge(node_lease(FOREIGN), {"spec": {"holderIdentity": "mine"}}), fix)
    assert_refused(agent.delete(node_lease(FOREIGN)), fix)


def test_names_that_another_node_will_need(tokens: Tokens) -> None:
    agent = tokens.agent
    assert_refused(agent.create(report(MINE, name="edge.a-b-1")))
    assert_refused(agent.create(report(MINE, name="edge.b-extra")))
    assert_refused(agent.create(report(FOREIGN, name="edge.a-b-1")))
    for name in ("penstock-edge.a-b", "penstock-edge-a.a-b", "penstock-operator", "edge.b"):
        assert_refused(agent.create(lease(name), dry_run=True), "does not belong to the node")


def test_the_operators_part_of_its_own_object(tokens: Tokens) -> None:
    words = "the rest is the operator's"
    assert_refused(tokens.agent.merge(node_object(MINE), {"spec": {"nodes": 9}}), words)
    assert_refused(tokens.agent.merge(node_object(MINE), {"metadata": {"labels": {"penstock.dev/node": "x"}}}), words)
    assert_refused(tokens.agent.delete(node_object(MINE)), "cannot delete")


OWNER = {"apiVersion": "penstock.dev/v1alpha1", "kind": "DataPlaneNode", "name": "edge.b", "uid": "0"}
FOREIGN_METADATA: list[dict[str, Any]] = [
    {"finalizers": ["example.com/never"]},
    {"annotations": {"example.com/a": "b"}},
    {"labels": {"example.com/a": "b"}},
    {"labels": {"penstock.dev/dataplane": "other"}},
    {"labels": {"penstock.dev/node": FOREIGN}},
    {"ownerReferences": [{**OWNER, "name": "edge.a-b"}]},
    {"ownerReferences": [{**OWNER, "apiVersion": "v1", "kind": "Node", "name": MINE}]},
    {"ownerReferences": [{**OWNER, "blockOwnerDeletion": True}]},
    {"ownerReferences": [{**OWNER, "controller": True}]},
    {"ownerReferences": [OWNER, {**OWNER, "uid": "1"}]},
]


@pytest.mark.parametrize("metadata", FOREIGN_METADATA, ids=str)
def test_metadata_of_its_own_objects(metadata: dict[str, Any], tokens: Tokens) -> None:
    for obj in (report(MINE), node_lease(MINE)):
        whole = obj | {"metadata": obj["metadata"] | metadata}
        assert_refused(tokens.agent.create(whole, dry_run=True), "an agent")
    happening = event()
    whole = happening | {"metadata": happening["metadata"] | metadata}
    assert_refused(tokens.agent.create(whole, dry_run=True), "an agent")
    if "labels" not in metadata:
        assert_refused(tokens.agent.merge(node_object(MINE), {"metadata": metadata}), "the rest is the operator's")


def test_metadata_that_an_agent_needs(tokens: Tokens) -> None:
    labels = {"penstock.dev/dataplane": "edge", "penstock.dev/node": MINE}
    for obj in (report(MINE), node_lease(MINE)):
        metadata = obj["metadata"] | {"labels": labels, "ownerReferences": [OWNER]}
        assert tokens.agent.create(obj | {"metadata": metadata}, dry_run=True).status == 201


def test_what_others_annotate_stays_as_it_is(tokens: Tokens) -> None:
    obj = report(MINE)
    try:
        assert tokens.agent.create(obj).status == 201
        note = {"metadata": {"annotations": {"example.com/note": "kept"}, "finalizers": ["example.com/kept"]}}
        assert tokens.admin.merge(obj, note).status == 200
        assert tokens.agent.merge(obj, {"report": {"vips": []}}).status == 200
        for taken in ({"annotations": None}, {"finalizers": None}):
            assert_refused(tokens.agent.merge(obj, {"metadata": taken}), "sets no finalizers and no annotations")
    finally:
        tokens.admin.merge(obj, {"metadata": {"finalizers": None}})
        tokens.admin.delete(obj)


def test_the_finalizers_of_others_on_its_node_object(tokens: Tokens) -> None:
    ours, foreign = "penstock.dev/node", "example.com/kept"
    obj = node_object(MINE)
    try:
        assert tokens.admin.merge(obj, {"metadata": {"finalizers": [foreign]}}).status == 200
        assert tokens.agent.merge(obj, {"metadata": {"finalizers": [foreign, ours]}}).status == 200
        assert_refused(tokens.agent.merge(obj, {"metadata": {"finalizers": [ours]}}), "the rest is the operator's")
        assert tokens.agent.merge(obj, {"metadata": {"finalizers": [foreign]}}).status == 200
    finally:
        tokens.admin.merge(obj, {"metadata": {"finalizers": None}})


def test_objects_of_another_data_plane(tokens: Tokens) -> None:
    # "edge-agent-x": the pods of that DataPlane have names that begin as those of "edge" do.
    for name in ("other", "edge-agent-x", "edg", "edge-agent"):
        foreign = changed(REPORT, {"metadata.name": f"{name}.b-0", "report.nodeName": MINE})
        foreign["report"]["dataPlaneName"] = name
        assert_refused(tokens.agent.create(foreign, dry_run=True), "its own DataPlane")
        assert_refused(tokens.agent.create(lease(f"penstock-{name}.b"), dry_run=True), "its own DataPlane")


@pytest.mark.parametrize(("shard", "status"), [("99", 201), ("100", 403), ("999999999999", 403), ("007", 403)])
def test_the_number_of_reports(shard: str, status: int, tokens: Tokens) -> None:
    answer = tokens.agent.create(report(MINE, name=f"edge.b-{shard}"), dry_run=True)
    assert answer.status == status, answer.message


def test_a_token_without_node_writes_nothing(tokens: Tokens) -> None:
    assert_refused(tokens.unbound.merge(node_object(MINE), STATUS, "/status"), "names no node")
    assert_refused(tokens.unbound.create(report(MINE)), "names no node")


def event(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "web.0123", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Warning",
        "reason": "AllBackendsFailing",
        "action": "Forward",
        "note": "node b: all backends fail",
        "regarding": {"apiVersion": "penstock.dev/v1alpha1", "kind": "LoadBalancerVIP", "name": "web"},
        "reportingController": "penstock.dev/agent",
        "reportingInstance": MINE,
        **fields,
    }


def test_events_in_its_own_name(tokens: Tokens) -> None:
    agent = tokens.agent
    for other in ({"reportingInstance": FOREIGN}, {"reportingController": "penstock.dev/operator"}):
        assert_refused(agent.create(event(**other)), "reportingController penstock.dev/agent")
    pods = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "web"}
    assert_refused(agent.create(event(regarding=pods)), "Penstock's kinds")
    assert agent.create(event()).status == 201
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    assert agent.merge(event(), series).status == 200


@pytest.mark.parametrize("kind", ["Pod", "Secret", "ConfigMap"])
def test_what_an_agent_cannot_read(kind: str, tokens: Tokens) -> None:
    obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": AGENT_POD, "namespace": INSTALL_NAMESPACE}}
    assert_refused(tokens.agent.get(obj))


def test_what_an_agent_reads(tokens: Tokens) -> None:
    assert tokens.agent.get(node_object(FOREIGN)).status == 200
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "none", "namespace": "default"},
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "none", "namespace": "default"}}
    assert tokens.agent.get(slices).status == 404
    assert tokens.agent.get(service).status == 404


def test_nobody_writes_what_users_want(tokens: Tokens) -> None:
    vip = changed(VIP, {"metadata.name": "of-a-user"})
    assert tokens.admin.create(vip).status == 201
    for client in (tokens.agent, tokens.operator):
        assert client.get(vip).status == 200
        assert_refused(client.merge(vip, {"spec": {"drainSeconds": 1}}))
        assert_refused(client.delete(vip))
    assert_refused(tokens.agent.merge(vip, {"status": {"summary": {"policy": "x"}}}, "/status"))
    assert tokens.operator.merge(vip, {"status": {"summary": {"policy": "x"}}}, "/status").status == 200


def test_the_operator_is_not_bound_to_a_node(tokens: Tokens) -> None:
    assert tokens.operator.merge(node_object(FOREIGN), {"spec": {"nodes": 2}}).status == 200
    assert tokens.operator.merge(node_object(FOREIGN), {"metadata": {"finalizers": None}}).status == 200
    assert_refused(
        tokens.operator.get({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "default"}})
    )


def test_of_a_node_the_operator_changes_one_label(tokens: Tokens) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": MINE}}
    tokens.admin.merge(node, {"metadata": {"labels": {"zone": "a"}}})
    label = {"penstock.dev/dataplane": "edge"}
    assert tokens.operator.merge(node, {"metadata": {"labels": label}}).status == 200
    assert tokens.operator.merge(node, {"metadata": {"labels": dict.fromkeys(label)}}).status == 200
    for patch in (
        {"metadata": {"labels": {"zone": "b"}}},
        {"metadata": {"labels": {"zone": None}}},
        {"metadata": {"labels": {"other": "b"}}},
        {"metadata": {"annotations": {"other": "b"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": FOREIGN, "uid": "0"}]}},
        {"spec": {"unschedulable": True}},
    ):
        assert_refused(tokens.operator.merge(node, patch), "penstock.dev/dataplane and nothing else")
    assert_refused(tokens.agent.merge(node, {"metadata": {"labels": label}}))


def test_of_a_pod_the_operator_changes_one_annotation(tokens: Tokens) -> None:
    obj = pod(AGENT_POD, "penstock-agent", MINE)
    note = {"penstock.dev/allowed": "0123"}
    containers = tokens.admin.get(obj).body["spec"]["containers"]
    assert tokens.operator.merge(obj, {"metadata": {"annotations": note}}).status == 200
    assert tokens.operator.merge(obj, {"metadata": {"annotations": dict.fromkeys(note)}}).status == 200
    for patch in (
        {"metadata": {"annotations": {"other": "b"}}},
        {"metadata": {"labels": {"other": "b"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
        {"spec": {"activeDeadlineSeconds": 1}},
        {"spec": {"containers": [containers[0] | {"image": "other"}]}},
    ):
        assert_refused(tokens.operator.merge(obj, patch), "penstock.dev/allowed and nothing else")


def test_the_data_planes_account_gets_no_token(installed: ControlPlane) -> None:
    mounted = installed.kubectl(
        "get",
        "serviceaccount",
        "penstock-dataplane",
        "-n",
        INSTALL_NAMESPACE,
        "-o",
        "jsonpath={.automountServiceAccountToken}",
    )
    assert mounted == "false"
    can = installed.kubectl(
        "auth", "can-i", "--list", f"--as=system:serviceaccount:{INSTALL_NAMESPACE}:penstock-dataplane"
    )
    assert "penstock.dev" not in can
    assert "pods" not in can


def test_a_namespaces_users_may_use_the_namespaced_kinds(installed: ControlPlane) -> None:
    roles = installed.kubectl(
        "get", "clusterrole", "-l", "rbac.authorization.k8s.io/aggregate-to-edit=true", "-o", "name"
    )
    assert "penstock-aggregate-edit" in roles
