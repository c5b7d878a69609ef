"""Tables of a DataPlane's plan: nodes, pods, replacement, departure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from penstock_api.names import DATAPLANE_LABEL, NODE_FINALIZER
from penstock_operator.apply import contains
from penstock_operator.plan import daemonsets, nodes
from penstock_operator.plan.dataplane import DataPlanePlan, DataPlaneView, plan_data_plane
from penstock_operator.plan.facts import PodFacts
from penstock_operator.plan.rollout import REPLACED_ANNOTATION, plan_rollout
from plan_builders import NOW, data_plane, data_plane_node, node, pod

INSTALLATION = daemonsets.Installation("penstock-system", "penstock/dataplane:1", "penstock/agent:1")
LABELLED = {"role": "lb", DATAPLANE_LABEL: "edge"}
LONG_AGO = NOW - timedelta(minutes=6)
JUST_NOW = NOW - timedelta(minutes=4)


def view(plane: Any, facts: Any = (), existing: Any = (), **more: Any) -> DataPlaneView:
    values: dict[str, Any] = {"others": (), "pods": (), "daemon_sets": frozenset(), "reports": {}, **more}
    return DataPlaneView(
        name="edge",
        data_plane=plane,
        nodes={each.name: each for each in facts},
        data_plane_nodes={each.spec.node_name: each for each in existing},
        **values,
    )


def plan(*arguments: Any, **more: Any) -> DataPlanePlan:
    return plan_data_plane(view(*arguments, **more), INSTALLATION, NOW, draw_key=lambda: "f" * 32)


@pytest.mark.parametrize(
    ("spec", "facts", "expected"),
    [
        pytest.param({}, node(), True, id="no selector selects all"),
        pytest.param({"nodeSelector": {"role": "lb"}}, node(), True, id="label"),
        pytest.param({"nodeSelector": {"role": "web"}}, node(), False, id="other label"),
        pytest.param({}, node(taints=[("dedicated", "lb", "NoSchedule")]), False, id="taint"),
        pytest.param({}, node(taints=[("x", "", "PreferNoSchedule")]), True, id="preference"),
        pytest.param({}, node(taints=[("node.kubernetes.io/unschedulable", "", "NoSchedule")]), True, id="cordoned"),
        pytest.param(
            {"tolerations": [{"key": "dedicated", "value": "lb"}]},
            node(taints=[("dedicated", "lb", "NoSchedule")]),
            True,
            id="tolerated by value",
        ),
        pytest.param(
            {"tolerations": [{"key": "dedicated", "value": "web"}]},
            node(taints=[("dedicated", "lb", "NoSchedule")]),
            False,
            id="another value",
        ),
        pytest.param(
            {"tolerations": [{"operator": "Exists"}]}, node(taints=[("x", "y", "NoExecute")]), True, id="tolerates all"
        ),
        pytest.param(
            {"tolerations": [{"key": "x", "operator": "Exists", "effect": "NoSchedule"}]},
            node(taints=[("x", "y", "NoExecute")]),
            False,
            id="another effect",
        ),
        pytest.param(
            {"tolerations": [{"key": "x", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}]},
            node(taints=[("x", "y", "NoExecute")]),
            False,
            id="tolerated for a while only",
        ),
        pytest.param({}, node(labels=LABELLED, taints=[("x", "", "NoSchedule")]), True, id="pods that run may stay"),
        pytest.param({}, node(labels=LABELLED, taints=[("x", "", "NoExecute")]), False, id="unless driven off"),
    ],
)
def test_nodes_are_selected_as_the_scheduler_would(spec: dict[str, Any], facts: Any, expected: bool) -> None:
    assert nodes.matches(data_plane(**spec), facts) is expected


def test_each_node_is_asked_for_the_same() -> None:
    found = plan(data_plane(features="off"), [node("lb-1", "192.0.2.1"), node("lb-2", "192.0.2.2")])
    assert found.finalizer is True
    assert [change.name for change in found.nodes] == ["edge.lb-1", "edge.lb-2"]
    assert {change.spec.scheduler_key for change in found.nodes} == {"f" * 32}
    assert {change.spec.nodes for change in found.nodes} == {2}
    assert {change.spec.features for change in found.nodes} == {"off"}
    assert [str(change.spec.nat_source.addresses[0]) for change in found.nodes] == ["192.0.2.1", "192.0.2.2"]
    assert found.status is not None
    assert found.status.scheduler_key == "f" * 32
    assert [each.name for each in found.label_nodes] == ["lb-1", "lb-2"]


@pytest.mark.parametrize(
    ("plane", "existing", "expected"),
    [
        (data_plane(), (), "f" * 32),
        (data_plane(status={"schedulerKey": "a" * 32}), (), "a" * 32),
        (data_plane(), (data_plane_node("lb-1"),), "0" * 32),  # the status was lost, the nodes remember
    ],
)
def test_the_scheduler_key_is_drawn_once(plane: Any, existing: Any, expected: str) -> None:
    found = plan(plane, [node()], existing)
    assert {change.spec.scheduler_key for change in found.nodes} == {expected}


@pytest.mark.parametrize(
    ("facts", "departures"),
    [
        pytest.param([node(ready=False, ready_changed=JUST_NOW)], [], id="NotReady for a while"),
        pytest.param([node(ready=False, ready_changed=LONG_AGO)], ["lb-1"], id="NotReady for too long"),
        pytest.param([], ["lb-1"], id="gone"),
        pytest.param([node(labels={"role": "web"})], [], id="deselected: its agent clears up"),
    ],
)
def test_only_lost_nodes_are_dropped(facts: Any, departures: list[str]) -> None:
    existing = data_plane_node("lb-1", finalizers=[NODE_FINALIZER])
    found = plan(data_plane(nodeSelector={"role": "lb"}), facts, [existing])
    assert [dropped.spec.node_name for dropped in found.drop_nodes] == departures
    if facts and facts[0].ready_changed == JUST_NOW:
        assert found.delete_nodes == ()
        assert found.look_again == pytest.approx(61.0)
    else:
        assert [each.spec.node_name for each in found.delete_nodes] == ["lb-1"]


def test_a_node_without_address_is_named() -> None:
    found = plan(data_plane(), [node(address="")])
    assert found.nodes == ()
    assert found.status is not None
    messages = {condition.type: condition.message for condition in found.status.conditions}
    assert "node lb-1 has no InternalIP" in messages["Ready"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param([None, None], None, id="agents that tell nothing"),
        pytest.param([False, None], ("False", "Sufficient", "no node lacks anything"), id="no shortage"),
        pytest.param([False, True], ("True", "NATPortsExhausted", "node b: widen natSource"), id="one node"),
        pytest.param(
            [True, True], ("True", "NATPortsExhausted", "node a: widen natSource (and 1 more nodes)"), id="both"
        ),
    ],
)
def test_what_nodes_run_out_of_is_said_of_the_data_plane(told: list[bool | None], expected: Any) -> None:
    owned = {"role": "lb", DATAPLANE_LABEL: "edge"}
    facts = [node(name, labels=owned) for name in "ab"]
    existing = [data_plane_node(name, overloaded=overloaded) for name, overloaded in zip("ab", told, strict=True)]
    found = plan(data_plane(), facts, existing)
    assert found.status is not None
    conditions = {c.type: (str(c.status), c.reason, c.message) for c in found.status.conditions}
    assert conditions.get("Overloaded") == expected
    assert conditions["Ready"][0] == "True"


def test_no_node_is_taken_from_another_before_it_has_left() -> None:
    taken = node(labels={"role": "lb", DATAPLANE_LABEL: "core"})
    core = data_plane("core", age=1)
    assert plan(data_plane(), [taken], others=[core]).nodes == ()
    assert [change.name for change in plan(data_plane(), [taken]).nodes] == ["edge.lb-1"]  # core is no more
    older = data_plane("core", age=900, nodeSelector={"role": "lb"})
    found = plan(data_plane(), [node()], others=[older])
    assert found.nodes == ()
    assert found.status is not None
    conditions = {condition.type: condition for condition in found.status.conditions}
    assert conditions["Accepted"].reason == "NodeConflict"
    assert conditions["Stalled"].status == "True"


@pytest.mark.parametrize(
    ("pods", "existing", "replace", "waiting"),
    [
        pytest.param([pod("a"), pod("b")], {}, None, "", id="all up to date"),
        pytest.param([pod("a", "old"), pod("b", "old")], {}, "a", "replacing the data plane on node a", id="the first"),
        pytest.param([pod("b", "old")], {}, None, "node a: its data-plane pod is not there yet", id="one is under way"),
        pytest.param([pod("a", ready=False), pod("b", "old")], {}, None, "pod pod-a is not Ready", id="new, not Ready"),
        pytest.param(
            [pod("a"), pod("b", "old")],
            {"a": data_plane_node("a", ready=False)},
            None,
            "node a: its DataPlaneNode is not Ready",
            id="its agent does not see it work",
        ),
        pytest.param(
            [pod("a"), pod("b", "old")],
            {"a": data_plane_node("a", annotations={REPLACED_ANNOTATION: "run-1"})},
            None,
            "has not seen the new data plane",
            id="the status speaks of the old run",
        ),
        pytest.param(
            [pod("a"), pod("b", "old")],
            {"a": data_plane_node("a", instance="run-2", annotations={REPLACED_ANNOTATION: "run-1"})},
            "b",
            "replacing",
            id="the new run works: on to the next",
        ),
        pytest.param(
            [pod("a", "old"), pod("b", "old", ready=False)], {}, "b", "replacing", id="a broken old one goes first"
        ),
        pytest.param(
            [pod("a", "old"), pod("b", "old", deleting=True)], {}, None, "not there yet", id="one is being deleted"
        ),
    ],
)
def test_pods_are_replaced_one_at_a_time(pods: Any, existing: Any, replace: str | None, waiting: str) -> None:
    facts = [node("a"), node("b")]
    known = {"a": data_plane_node("a"), "b": data_plane_node("b"), **existing}
    found = plan_rollout("new", facts, pods, known)
    assert (found.replace.node if found.replace else None) == replace
    assert waiting in found.waiting


def test_a_node_that_is_not_ready_holds_up_nobody() -> None:
    facts = [node("a", ready=False), node("b")]
    found = plan_rollout("new", facts, [pod("a", "old"), pod("b", "old")], {"b": data_plane_node("b")})
    assert found.replace is not None
    assert found.replace.node == "b"


def test_a_data_plane_leaves_step_by_step() -> None:
    leaving = data_plane(deleting=True)
    facts = [node(labels=LABELLED)]
    existing = data_plane_node("lb-1", finalizers=[NODE_FINALIZER])
    names = frozenset({"penstock-edge-agent", "penstock-edge-dataplane"})
    first = plan(leaving, facts, [existing], daemon_sets=names)
    assert [each.spec.node_name for each in first.delete_nodes] == ["lb-1"]
    assert (first.unlabel_nodes, first.delete_daemon_sets, first.finalizer) == ((), (), None)
    second = plan(leaving, facts, daemon_sets=names, reports={"edge.lb-1-0": "lb-1"})
    assert [each.name for each in second.unlabel_nodes] == ["lb-1"]
    assert set(second.delete_daemon_sets) == names
    assert second.delete_reports == ("edge.lb-1-0",)
    assert second.finalizer is None
    for forwards in (True, False):  # a DataPlane of that name, applied again at once, must not find their remains
        third = plan(leaving, [node()], pods=[pod("lb-1", forwards=forwards, deleting=True)])
        assert third.finalizer is None
    gone = [pod("lb-1", deleting=True), pod("lb-2", deleting=True)]
    for facts in ([], [node(ready=False, ready_changed=LONG_AGO)]):
        assert plan(leaving, facts, pods=gone).finalizer is False  # nobody ends pods of lost nodes
    fourth = plan(leaving, [node()])
    assert fourth.finalizer is False
    assert fourth.status is None
    orphan = plan(None, facts, [existing], daemon_sets=names)  # removed by force: cleared all the same
    assert [each.spec.node_name for each in orphan.delete_nodes] == ["lb-1"]


def test_the_two_pods_have_different_powers() -> None:
    plane = data_plane(announcement={"type": "L2"}, tolerations=[{"key": "x", "operator": "Exists"}])
    forwarder = daemonsets.data_plane_daemon_set(plane, INSTALLATION)["spec"]["template"]["spec"]
    agent = daemonsets.agent_daemon_set(plane, INSTALLATION)["spec"]["template"]["spec"]
    assert forwarder["hostNetwork"] is True
    assert forwarder["automountServiceAccountToken"] is False
    assert "hostNetwork" not in agent
    assert "automountServiceAccountToken" not in agent
    powers = {name: pod_["containers"][0]["securityContext"] for name, pod_ in (("f", forwarder), ("a", agent))}
    assert powers["f"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert powers["a"]["capabilities"] == {"drop": ["ALL"]}
    for security in powers.values():
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["privileged"] is False
    for pod_ in (forwarder, agent):
        assert pod_["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod_["tolerations"] == [{"key": "x", "operator": "Exists"}]
    paths = {volume["name"]: volume["hostPath"] for volume in forwarder["volumes"]}
    assert paths["shm"]["path"] == "/dev/shm/penstock/edge"
    assert paths["tun"] == {"path": "/dev/net/tun", "type": "CharDevice"}
    mounts = {mount["name"]: mount["mountPath"] for mount in agent["containers"][0]["volumeMounts"]}
    assert mounts == {"shm": "/dev/shm", "run": "/run/penstock/edge", "state": "/var/lib/penstock/edge"}


def test_announcing_nothing_needs_no_raw_sockets() -> None:
    forwarder = daemonsets.data_plane_daemon_set(data_plane(), INSTALLATION)["spec"]["template"]["spec"]
    assert forwarder["containers"][0]["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]


def test_the_shortcut_is_left_out_on_request() -> None:
    for wanted in (True, False):
        pods = daemonsets.data_plane_daemon_set(data_plane(shortcut=wanted), INSTALLATION)["spec"]["template"]["spec"]
        assert ("--no-shortcut" in pods["containers"][0]["args"]) is not wanted


def test_the_hash_changes_with_what_pods_run() -> None:
    def hash_of(**spec: Any) -> str:
        return daemonsets.template_hash(daemonsets.data_plane_daemon_set(data_plane(**spec), INSTALLATION))

    assert hash_of() == hash_of(features="off")  # a running data plane is told of it
    assert hash_of() != hash_of(flowTableSize=131072)
    assert hash_of() != hash_of(shortcut=False)
    assert hash_of() != hash_of(resources={"dataPlane": {"limits": {"memory": "1Gi"}}})


def resources_of(**spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    found = []
    for render in (daemonsets.data_plane_daemon_set, daemonsets.agent_daemon_set):
        (container,) = render(data_plane(**spec), INSTALLATION)["spec"]["template"]["spec"]["containers"]
        found.append(container["resources"])
    return found[0], found[1]


def test_every_pod_has_a_limit_of_memory() -> None:
    forwarder, agent = resources_of()
    assert forwarder == {"requests": {"memory": "64Mi"}, "limits": {"memory": "1056Mi"}}
    assert agent == {"requests": {"memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    assert resources_of(flowTableSize=2_097_152)[0]["limits"] == {"memory": "2Gi"}


def test_what_is_said_of_memory_is_taken_as_it_is() -> None:
    for wanted in ({"limits": {"memory": "3Gi"}}, {"requests": {"memory": "3Gi"}}):
        assert resources_of(resources={"dataPlane": wanted, "agent": wanted}) == (wanted, wanted)
    (forwarder, _) = resources_of(resources={"dataPlane": {"requests": {"cpu": "2"}}})
    assert forwarder == {"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"memory": "1056Mi"}}


@pytest.mark.parametrize(
    ("actual", "desired", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": [{"x": 1, "default": 0}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({}, {"resources": {}}, True),  # what is empty is as good as absent
        ({"a": 1}, {"b": 1}, False),
        ("x", {"a": 1}, False),
    ],
)
def test_what_the_server_fills_in_does_not_matter(actual: Any, desired: Any, expected: bool) -> None:
    assert contains(actual, desired) is expected


def test_only_data_plane_pods_are_replaced_as_such() -> None:
    """Agents carry the DataPlane's label too and roll by themselves."""
    found = []
    for render in (daemonsets.data_plane_daemon_set, daemonsets.agent_daemon_set):
        template = render(data_plane(), INSTALLATION)["spec"]["template"]
        metadata = template["metadata"] | {"name": "pod", "namespace": "penstock-system"}
        found.append(PodFacts.from_raw({"metadata": metadata, "spec": {"nodeName": "lb-1"}}))
    assert [(each.data_plane, each.forwards) for each in found] == [("edge", True), ("edge", False)]
