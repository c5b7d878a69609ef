"""Tables of a DataPlane's plan: nodes, pods, replacement, departure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from penstock_api.names import DATAPLANE_LABEL, NODE_FINALIZER
from penstock_operator.apply import contains
from penstock_operator.plan import daemonsets, nodes
from penstock_operator.plan.heartbeats import Beats, Heartbeats

from tests.support.plan_builders import INSTALLATION, LABELLED, NOW, data_plane, data_plane_node, node, pod
from tests.support.plan_builders import data_plane_plan as plan

LONG_AGO = NOW - timedelta(minutes=6)
JUST_NOW = NOW - timedelta(minutes=4)


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
    found = plan(
        data_plane(features="off", limits={"maxBackends": 5}), [node("lb-1", "192.0.2.1"), node("lb-2", "192.0.2.2")]
    )
    assert found.finalizer is True
    assert [change.name for change in found.nodes] == ["edge.lb-1", "edge.lb-2"]
    assert {change.spec.scheduler_key for change in found.nodes} == {"f" * 32}
    assert {change.spec.nodes for change in found.nodes} == {2}
    assert {change.spec.features for change in found.nodes} == {"off"}
    assert {change.spec.limits.max_backends for change in found.nodes} == {5}
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
    assert "node lb-1: it has no InternalIP" in messages["Ready"]


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
    ("existing", "pods", "reason", "message"),
    [
        pytest.param([], [], "Progressing", "starting: node a: it is new", id="no DataPlaneNode"),
        pytest.param([{"age": 3, "ready": False}], [], "Progressing", "data-plane pod is not there yet", id="no pod"),
        pytest.param(
            [{"ready": False}], [pod("a", ready=False, age=9)], "Progressing", "pod pod-a is not Ready", id="new pod"
        ),
        pytest.param(
            [{"ready": False, "message": "no TUN"}],
            [pod("a", age=9)],
            "Progressing",
            "starting: node a: no TUN",
            id="its agent is slow",
        ),
        pytest.param(
            [{"ready": False, "message": "no TUN"}], [pod("a")], "NodesNotReady", "not Ready: node a: no TUN", id="old"
        ),
        pytest.param(
            [{"ready": False}],
            [pod("a", ready=False, age=9, trouble="CrashLoopBackOff vpp: exit status 1")],
            "NodesNotReady",
            "pod pod-a: CrashLoopBackOff vpp",
            id="a pod that crashes",
        ),
        pytest.param(
            [{"ready": False}],
            [pod("a", forwards=False, ready=False, age=9, trouble="ErrImagePull agent:9"), pod("a")],
            "NodesNotReady",
            "ErrImagePull agent:9",
            id="its agent does not start",
        ),
    ],
)
def test_a_start_is_no_fault(existing: Any, pods: Any, reason: str, message: str) -> None:
    found = plan(
        data_plane(), [node("a", labels=LABELLED)], [data_plane_node("a", **each) for each in existing], pods=pods
    )
    assert found.status is not None
    ready = next(c for c in found.status.conditions if c.type == "Ready")
    assert (ready.reason, message in ready.message) == (reason, True), ready.message
    if reason == "Progressing" and existing:
        assert found.look_again is not None  # a start that takes too long is a fault


def test_a_silent_agent_makes_its_node_not_ready() -> None:
    facts = [node("a", labels=LABELLED), node("b", "192.0.2.2", labels=LABELLED)]
    existing = [data_plane_node("a"), data_plane_node("b")]
    beats = Beats(frozenset({"edge.b"}), frozenset({"edge.a"}))
    found = plan(data_plane(), facts, existing, pods=[pod("a"), pod("b")], beats=beats)
    ((silent, written),) = found.silent
    assert (silent.metadata.name, written.status, written.reason) == ("edge.a", "False", "AgentSilent")
    assert "the agent of node a has not renewed its Lease for 30 s" in written.message
    assert found.status is not None
    assert found.status.summary.ready == "1/2"
    existing[0] = data_plane_node("a", ready=False, reason="AgentSilent", message=written.message)
    found = plan(data_plane(), facts, existing, pods=[pod("a"), pod("b")], beats=beats)
    assert found.silent == ()  # written once
    assert found.status is not None
    ready = next(c for c in found.status.conditions if c.type == "Ready")
    assert "the agent of node a has not renewed its Lease" in ready.message
    gone = plan(data_plane(deleting=True), facts, [data_plane_node("a")], beats=beats)
    assert [each.metadata.name for each, _ in gone.silent] == ["edge.a"]


def test_a_node_whose_agent_lives_is_not_lost_with_its_kubelet() -> None:
    facts = [node("lb-1", ready=False, ready_changed=LONG_AGO, labels=LABELLED)]
    existing = [data_plane_node("lb-1", finalizers=[NODE_FINALIZER])]
    found = plan(data_plane(), facts, existing, pods=[pod("lb-1")], beats=Beats(frozenset({"edge.lb-1"})))
    assert (found.drop_nodes, found.delete_nodes) == ((), ())
    assert found.status is not None
    assert found.status.summary.ready == "1/1"
    found = plan(data_plane(), facts, existing, pods=[pod("lb-1")], beats=Beats(silent=frozenset({"edge.lb-1"})))
    assert [each.spec.node_name for each in found.drop_nodes] == ["lb-1"]


@pytest.mark.parametrize(
    ("looks", "beating", "silent"),
    [
        pytest.param([(0, "1"), (5, "2")], True, False, id="renewed"),
        pytest.param([(0, "1"), *((n, "1") for n in range(5, 30, 5))], True, False, id="late"),
        pytest.param([(0, "1"), *((n, "1") for n in range(5, 35, 5))], False, True, id="silent"),
        pytest.param([(0, "1"), (5, "1"), (60, "1")], True, False, id="nobody looked"),
        pytest.param([(0, "1"), *((n, "1") for n in range(5, 35, 5)), (35, "2")], True, False, id="back"),
        pytest.param([(0, None)], False, False, id="no Lease"),
    ],
)
def test_agents_live_by_renewals_on_the_operators_clock(looks: Any, beating: bool, silent: bool) -> None:
    heartbeats = Heartbeats()
    for at, renewal in looks:
        found = heartbeats.look({} if renewal is None else {"edge.a": renewal}, float(at))
    assert ("edge.a" in found.beating, "edge.a" in found.silent) == (beating, silent)


def test_agents_are_replaced_when_their_account_is_another_one() -> None:
    def template(account: str) -> Any:
        found = plan(data_plane(), [node()], account=account)
        return found.daemon_sets[1]["spec"]["template"]["metadata"]

    assert template("old") != template("new")
    assert "annotations" not in template("")  # unknown
    forwarders = [plan(data_plane(), [node()], account=name).daemon_sets[0] for name in ("old", "new")]
    assert forwarders[0] == forwarders[1]
    names = frozenset({"penstock-edge-agent", "penstock-edge-dataplane"})
    found = plan(
        data_plane(deleting=True), [node(labels=LABELLED)], [data_plane_node("lb-1")], daemon_sets=names, account="new"
    )
    assert [each["metadata"]["name"] for each in found.daemon_sets] == ["penstock-edge-agent"]  # to clear the node


@pytest.mark.parametrize(
    ("pods", "silent", "message"),
    [
        ([pod("lb-1", forwards=False)], (), "waiting for agents to clear lb-1"),
        (
            [pod("lb-1", forwards=False, ready=False, trouble="ErrImagePull agent:9")],
            (),
            "waiting for agents to clear lb-1; node lb-1: pod pod-lb-1: ErrImagePull agent:9",
        ),
        ([pod("lb-1")], ("edge.lb-1",), "lb-1; node lb-1: its agent does not renew its Lease, see its pod and log"),
    ],
)
def test_a_departure_that_hangs_names_the_cause(pods: Any, silent: tuple[str, ...], message: str) -> None:
    facts = [node(labels=LABELLED)]
    beats = Beats(silent=frozenset(silent))
    found = plan(data_plane(deleting=True), facts, [data_plane_node("lb-1")], pods=pods, beats=beats)
    assert found.status is not None
    assert next(c for c in found.status.conditions if c.type == "Ready").message.endswith(message)


def test_a_node_conflict_is_not_hidden() -> None:
    older = data_plane("core", age=900, nodeSelector={"role": "lb"})
    found = plan(data_plane(), [node()], others=[older])
    assert found.status is not None
    assert {c.type: c.reason for c in found.status.conditions}["Ready"] == "NodeConflict"


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
    paths = {volume["name"]: volume["hostPath"] for volume in forwarder["volumes"] if "hostPath" in volume}
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
    assert hash_of() != hash_of(flowTableSize=65536)
    assert hash_of() != hash_of(shortcut=False)
    assert hash_of() != hash_of(resources={"dataPlane": {"limits": {"memory": "1Gi"}}})


def test_the_agent_is_not_root_and_the_data_plane_shares_files_with_it_by_group() -> None:
    agent = daemonsets.agent_daemon_set(data_plane(), INSTALLATION)["spec"]["template"]["spec"]
    powers = agent["containers"][0]["securityContext"]
    assert (powers["runAsUser"], powers["runAsGroup"], powers["runAsNonRoot"]) == (65532, 65532, True)
    assert powers["capabilities"] == {"drop": ["ALL"]}
    for kind in ("embedded", "vpp"):
        pod = daemonsets.data_plane_daemon_set(data_plane(type=kind), INSTALLATION)["spec"]["template"]["spec"]
        assert pod["securityContext"]["supplementalGroups"] == [65532]
        arguments = [container.get("args", []) for container in pod["containers"]]
        assert all("--group" in each for each in arguments)
        (serving,) = [each for each in arguments if "--run-dir" in each]
        assert serving[serving.index("--allow-uid") + 1] == "65532"
        assert serving[serving.index("--agent-state-dir") + 1] == "/var/lib/penstock/edge"


@pytest.mark.parametrize("kind", ["embedded", "vpp"])
@pytest.mark.parametrize(("spec", "expected"), [({}, "auto"), ({"flowTableSize": 65536}, "65536")])
def test_a_flow_table_has_the_size_of_the_spec_or_follows_from_memory(
    kind: str, spec: dict[str, Any], expected: str
) -> None:
    pod = daemonsets.data_plane_daemon_set(data_plane(type=kind, **spec), INSTALLATION)["spec"]["template"]["spec"]
    arguments = [each["args"] for each in (*pod.get("initContainers", []), *pod["containers"])]
    sizes = [each[each.index("--flow-table-size") + 1] for each in arguments if "--flow-table-size" in each]
    assert sizes
    assert set(sizes) == {expected}


def resources_of(**spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    found = []
    for render in (daemonsets.data_plane_daemon_set, daemonsets.agent_daemon_set):
        (container,) = render(data_plane(**spec), INSTALLATION)["spec"]["template"]["spec"]["containers"]
        found.append(container["resources"])
    return found[0], found[1]


def test_every_pod_has_a_limit_of_memory() -> None:
    forwarder, agent = resources_of()
    assert forwarder == {"requests": {"memory": "64Mi"}, "limits": {"memory": "1536Mi"}}  # the largest automatic table
    assert agent == {"requests": {"memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    assert resources_of(flowTableSize=65_536)[0]["limits"] == {"memory": "1056Mi"}
    assert resources_of(flowTableSize=2_097_152)[0]["limits"] == {"memory": "2Gi"}


def test_what_is_said_of_memory_is_taken_as_it_is() -> None:
    for wanted in ({"limits": {"memory": "3Gi"}}, {"requests": {"memory": "3Gi"}}):
        assert resources_of(resources={"dataPlane": wanted, "agent": wanted}) == (wanted, wanted)
    (forwarder, _) = resources_of(resources={"dataPlane": {"requests": {"cpu": "2"}}})
    assert forwarder == {"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"memory": "1536Mi"}}


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
