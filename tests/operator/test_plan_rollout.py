"""Tables of rollouts: which pod is replaced next, what is handed over before, and what a pod lacks."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from penstock_api import VipReport
from penstock_operator.plan import daemonsets
from penstock_operator.plan.facts import PodFacts, pod_trouble
from penstock_operator.plan.handover import ServedVip, still_announced
from penstock_operator.plan.rollout import REPLACED_ANNOTATION, plan_rollout

from tests.support.plan_builders import INSTALLATION, LABELLED, data_plane, data_plane_node, node, pod
from tests.support.plan_builders import data_plane_plan as plan


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


def served(*announcers: str, address: str = "203.0.113.10", failing: tuple[str, ...] = ()) -> ServedVip:
    """A VIP that nodes a, b and c report; some of them announce it."""
    reports = {
        name: VipReport.model_validate(
            {"namespace": "shop", "name": "web", "uid": "u", "generation": 1, "error": "x" if name in failing else ""}
            | {"announces": [address] if name in announcers else []}
        )
        for name in "abc"
    }
    return ServedVip("shop/web", (ip_address(address),), reports)


@pytest.mark.parametrize(
    ("draining", "vips", "replace", "drained", "waiting"),
    [
        pytest.param("", [served("a")], None, "a", "node a: handing its addresses over", id="it drains first"),
        pytest.param("", [served("c")], None, "a", "handing its addresses over", id="whoever announces"),
        pytest.param("a", [served("a")], None, "a", "203.0.113.10 (VIP shop/web) is still announced by", id="slow"),
        pytest.param("a", [served()], None, "a", "is not announced by another node yet", id="the others are slow"),
        pytest.param("a", [served("b")], "a", "a", "replacing", id="another announces"),
        pytest.param("a", [served("a", "b")], None, "a", "still announced", id="both announce"),
        pytest.param("a", [], "a", "a", "replacing", id="no VIP"),
        pytest.param("a", [served(failing=("b", "c"))], "a", "a", "replacing", id="no other could take it"),
        pytest.param("b", [served("c")], "b", "b", "replacing", id="the one that drains already goes first"),
    ],
)
def test_addresses_are_handed_over_before_a_pod_is_replaced(
    draining: str, vips: list[ServedVip], replace: str | None, drained: str, waiting: str
) -> None:
    def handover(name: str, others: Any) -> str:
        return still_announced(name, vips, others)

    facts = [node("a"), node("b"), node("c")]
    known = {name: data_plane_node(name, draining=name == draining) for name in "abc"}
    found = plan_rollout("new", facts, [pod("a", "old"), pod("b", "old"), pod("c")], known, handover)
    assert (found.replace.node if found.replace else None) == replace
    assert found.draining == {drained}
    assert waiting in found.waiting


def test_a_single_node_is_not_drained() -> None:
    found = plan_rollout("new", [node("a")], [pod("a", "old")], {"a": data_plane_node("a")}, lambda *_: "never")
    assert found.replace is not None
    assert found.draining == frozenset()


@pytest.mark.parametrize(
    ("pods", "known", "draining"),
    [
        pytest.param([pod("b", "old")], data_plane_node("a", draining=True), {"a"}, id="its new pod is not there"),
        pytest.param(
            [pod("a", ready=False, trouble="ErrImagePull penstock/vpp:0.1.0"), pod("b", "old")],
            data_plane_node("a", draining=True, ready=False),
            {"a"},
            id="its new pod does not start",
        ),
        pytest.param(
            [pod("a"), pod("b")],
            data_plane_node("a", draining=True, annotations={REPLACED_ANNOTATION: "run-1"}),
            {"a"},
            id="its agent has not seen the new run",
        ),
        pytest.param([pod("a"), pod("b")], data_plane_node("a", draining=True), set(), id="it works again"),
    ],
)
def test_a_node_drains_until_its_new_data_plane_works(pods: Any, known: Any, draining: set[str]) -> None:
    found = plan_rollout("new", [node("a"), node("b")], pods, {"a": known, "b": data_plane_node("b")}, lambda *_: "")
    assert found.replace is None
    assert found.draining == draining


def test_the_plan_drains_with_l2_alone() -> None:
    facts = [node("a", labels=LABELLED), node("b", "192.0.2.2", labels=LABELLED)]
    existing = [data_plane_node("a"), data_plane_node("b")]
    for type_, drained in (("L2", ["a"]), ("None", [])):
        found = plan(data_plane(announcement={"type": type_}), facts, existing, pods=[pod("a", "old"), pod("b", "old")])
        assert [change.spec.node_name for change in found.nodes if change.spec.draining] == drained
        assert (found.replace_pod is None) == bool(drained)


def test_a_pod_that_does_not_start_halts_the_rollout_and_is_named() -> None:
    facts = [node("a", labels=LABELLED), node("b", "192.0.2.2", labels=LABELLED)]
    existing = [data_plane_node("a", ready=False, message="hello failed: [Errno 2]"), data_plane_node("b")]
    pods = [pod("a", hash_of(), ready=False, trouble="ErrImagePull penstock/vpp:0.1.0"), pod("b", "old")]
    found = plan(data_plane(), facts, existing, pods=pods)
    assert found.replace_pod is None
    assert found.status is not None
    conditions = {c.type: (c.reason, c.message) for c in found.status.conditions}
    assert conditions["Ready"] == ("NodesNotReady", "not Ready: node a: pod pod-a: ErrImagePull penstock/vpp:0.1.0")
    assert "node a: pod pod-a: ErrImagePull penstock/vpp:0.1.0" in conditions["Reconciling"][1]


def hash_of(**spec: Any) -> str:
    return daemonsets.template_hash(daemonsets.data_plane_daemon_set(data_plane(**spec), INSTALLATION))


def waiting(reason: str, message: str = "", **more: Any) -> Any:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "vpp", "image": "penstock/vpp:0.1.0", "state": state, **more}


def unscheduled(message: str) -> Any:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


CRASHED = {"terminated": {"exitCode": 2}}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        ({}, ""),
        ({"containerStatuses": [{"state": {"running": {}}}]}, ""),
        ({"containerStatuses": [waiting("ContainerCreating")]}, ""),
        ({"containerStatuses": [waiting("ImagePullBackOff")]}, "ErrImagePull penstock/vpp:0.1.0"),
        ({"initContainerStatuses": [waiting("ErrImageNeverPull")]}, "ErrImageNeverPull penstock/vpp:0.1.0"),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", "10s", lastState=CRASHED)]},
            "CrashLoopBackOff vpp: exit status 2",
        ),
        ({"containerStatuses": [waiting("CreateContainerError", "m")]}, "CreateContainerError vpp: m"),
        ({"conditions": [unscheduled("0/4 nodes")]}, "Unschedulable: 0/4 nodes"),
    ],
)
def test_why_a_pod_does_not_start(status: Any, trouble: str) -> None:
    assert pod_trouble(status) == trouble


def test_a_pod_that_has_no_node_yet_belongs_to_the_one_it_was_made_for() -> None:
    match = {"key": "metadata.name", "operator": "In", "values": ["lb-1"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [match]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    raw = {"metadata": {"name": "pod", "namespace": "penstock-system"}, "spec": {"affinity": affinity}}
    assert PodFacts.from_raw(raw).node == "lb-1"


def test_a_node_that_is_not_ready_holds_up_nobody() -> None:
    facts = [node("a", ready=False), node("b")]
    found = plan_rollout("new", facts, [pod("a", "old"), pod("b", "old")], {"b": data_plane_node("b")})
    assert found.replace is not None
    assert found.replace.node == "b"


def test_only_data_plane_pods_are_replaced_as_such() -> None:
    """Agents carry the DataPlane's label too and roll by themselves."""
    found = []
    for render in (daemonsets.data_plane_daemon_set, daemonsets.agent_daemon_set):
        template = render(data_plane(), INSTALLATION)["spec"]["template"]
        metadata = template["metadata"] | {"name": "pod", "namespace": "penstock-system"}
        found.append(PodFacts.from_raw({"metadata": metadata, "spec": {"nodeName": "lb-1"}}))
    assert [(each.data_plane, each.forwards) for each in found] == [("edge", True), ("edge", False)]
