"""Status of a DataPlane: how many nodes forward, why others do not, and what they run out of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock_api import (
    Condition,
    DataPlane,
    DataPlaneCounts,
    DataPlaneNode,
    DataPlaneStatus,
    DataPlaneSummary,
    Reason,
    get_condition,
    set_condition,
)
from penstock_api.conditions import ConditionStatus, ConditionType

from penstock_operator.plan import nodes
from penstock_operator.plan.facts import NodeFacts
from penstock_operator.plan.heartbeats import SILENT_AFTER
from penstock_operator.plan.rollout import Rollout
from penstock_operator.plan.view import DataPlaneView

NAMES_SHOWN = 5

STARTING = timedelta(minutes=2)
"""A node or pod younger than this is starting: that it does not forward yet is no fault."""


@dataclass(frozen=True)
class _Behind:
    """Why a node does not forward."""

    node: str
    why: str
    starting: bool = False


def data_plane_status(
    data_plane: DataPlane,
    selection: nodes.Selection,
    mine: Sequence[NodeFacts],
    key: str,
    steps: Rollout,
    view: DataPlaneView,
    now: datetime,
) -> DataPlaneStatus:
    """Return the status of a DataPlane that stays."""
    working = {node.name for node in mine if view.works(node)}
    selected = len(selection.own)
    conditions = _conditions(data_plane, selection, working, steps, view, now)
    reporting = [view.data_plane_nodes[n.name] for n in mine if n.name in view.data_plane_nodes]
    return DataPlaneStatus(
        observed_generation=data_plane.metadata.generation,
        conditions=_overloaded(conditions, reporting, data_plane.metadata.generation, now),
        scheduler_key=key,
        nodes=DataPlaneCounts(selected=selected, ready=len(working), updated=steps.updated),
        summary=DataPlaneSummary(nodes=str(selected), ready=f"{len(working)}/{selected}"),
    )


def seconds_until_started(view: DataPlaneView, now: datetime) -> float | None:
    """Return when the next node or pod stops to count as starting, in seconds."""
    born = [pod.created for pod in view.pods if pod.created]
    born += [
        node.metadata.creation_timestamp
        for node in view.data_plane_nodes.values()
        if not node.ready and node.metadata.creation_timestamp
    ]
    due = [(at + STARTING - now).total_seconds() for at in born if now - at < STARTING]
    return max(min(due), 0.0) + 1.0 if due else None


def silence(node: DataPlaneNode, namespace: str, now: datetime) -> Condition:
    """Return the condition Ready of a node whose agent writes none."""
    message = (
        f"the agent of node {node.spec.node_name} has not renewed its Lease for {SILENT_AFTER:.0f} s, so nothing is "
        f"known of the node; see `kubectl -n {namespace} get pods -o wide` and the log of its agent"
    )
    generation, before = node.metadata.generation, node.status.conditions
    after = set_condition(before, ConditionType.READY, False, Reason.AGENT_SILENT, message, generation, now)
    return next(each for each in after if each.type == ConditionType.READY)


def hindrance(view: DataPlaneView) -> str:
    """Return why a node that has to be cleared cannot be; empty where none is hindered."""
    for name, node in sorted(view.data_plane_nodes.items()):
        troubled = next((pod for pod in view.pods_on(name) if pod.trouble and not pod.ready), None)
        if troubled is not None:
            return f"; node {name}: pod {troubled.name[1]}: {troubled.trouble}"
        if node.metadata.name in view.beats.silent:
            return f"; node {name}: its agent does not renew its Lease, see its pod and log"
    return ""


def _conditions(
    data_plane: DataPlane,
    selection: nodes.Selection,
    working: set[str],
    steps: Rollout,
    view: DataPlaneView,
    now: datetime,
) -> tuple[Condition, ...]:
    generation = data_plane.metadata.generation
    conditions = data_plane.status.conditions
    accepted, reason, message = _acceptance(selection)
    conditions = set_condition(conditions, ConditionType.ACCEPTED, accepted, reason, message, generation, now)
    behind = [_behind(node, view, now) for node in selection.own if node.name not in working]
    ready, why, text = _readiness(selection, behind)
    conditions = set_condition(conditions, ConditionType.READY, ready, why, text, generation, now)
    rolling = bool(steps.outdated)
    text = f"{steps.outdated} nodes run an earlier version; {steps.waiting}" if rolling else text
    conditions = set_condition(
        conditions, ConditionType.RECONCILING, rolling or not ready, Reason.PROGRESSING, text, generation, now
    )
    return set_condition(conditions, ConditionType.STALLED, not accepted, reason, message, generation, now)


def _acceptance(selection: nodes.Selection) -> tuple[bool, Reason, str]:
    if not selection.lost:
        return True, Reason.ACCEPTED, "the spec is valid"
    names = ", ".join(sorted(selection.lost)[:NAMES_SHOWN])
    holders = ", ".join(sorted(set(selection.lost.values())))
    message = f"spec.nodeSelector: {names} belong to DataPlane {holders}, which is older; narrow one of the selectors"
    return False, Reason.NODE_CONFLICT, message


def _readiness(selection: nodes.Selection, behind: Sequence[_Behind]) -> tuple[bool, Reason, str]:
    if not selection.own:
        if selection.lost:
            return _acceptance(selection)
        return False, Reason.NO_NODES_SELECTED, "spec.nodeSelector and tolerations select no node; label a node"
    if not behind:
        count = len(selection.own)
        return True, Reason.READY, f"{count} of {count} nodes are Ready"
    failing = [each for each in behind if not each.starting]
    shown = failing or behind
    names = ", ".join(each.node for each in shown[:NAMES_SHOWN])
    message = f"node {shown[0].node}: {shown[0].why}"
    message = message if len(shown) == 1 else f"{names}; {message}"
    if failing:
        return False, Reason.NODES_NOT_READY, f"not Ready: {message}"
    return False, Reason.PROGRESSING, f"starting: {message}"


def _behind(node: NodeFacts, view: DataPlaneView, now: datetime) -> _Behind:
    """Return why a node does not forward: the cause that is nearest to a fix."""
    if not node.internal:
        return _Behind(node.name, "it has no InternalIP; see `kubectl get node -o wide`")
    if view.is_lost(node.name, now):
        return _Behind(node.name, "Kubernetes has reported it NotReady for 5 minutes; see `kubectl describe node`")
    pods = view.pods_on(node.name)
    for pod in pods:
        if pod.trouble and not pod.ready:
            return _Behind(node.name, f"pod {pod.name[1]}: {pod.trouble}")
    data_plane_node = view.data_plane_nodes.get(node.name)
    if data_plane_node is None:
        return _Behind(node.name, "it is new", starting=True)
    new = _young(data_plane_node.metadata.creation_timestamp, now)
    forwarder = next((pod for pod in pods if pod.forwards), None)
    if forwarder is None:
        return _Behind(node.name, "its data-plane pod is not there yet", starting=new or data_plane_node.spec.draining)
    if not forwarder.ready:
        return _Behind(node.name, f"pod {forwarder.name[1]} is not Ready", new or _young(forwarder.created, now))
    return _Behind(node.name, _reported(node, data_plane_node, view), new or _young(forwarder.created, now))


def _reported(node: NodeFacts, data_plane_node: DataPlaneNode, view: DataPlaneView) -> str:
    """Return what a node's agent reports, or why that does not count."""
    condition = get_condition(data_plane_node.status.conditions, ConditionType.READY)
    if condition is None or condition.status is ConditionStatus.UNKNOWN:
        return "its agent has not reported yet"
    if condition.status is not ConditionStatus.TRUE:
        return condition.message
    if data_plane_node.metadata.name in view.beats.silent:
        return "its agent does not renew its Lease"
    return "Kubernetes reports it NotReady; see `kubectl describe node`"


def _young(since: datetime | None, now: datetime) -> bool:
    return since is not None and now - since < STARTING


def _overloaded(
    conditions: tuple[Condition, ...], mine: Sequence[DataPlaneNode], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Add what the nodes run out of, as their agents report it; nothing before one of them has."""
    told = [(node, get_condition(node.status.conditions, ConditionType.OVERLOADED)) for node in mine]
    heard = {node.spec.node_name: found for node, found in told if found is not None}
    if not heard:
        return conditions
    troubled = {name: found for name, found in sorted(heard.items()) if found.status is ConditionStatus.TRUE}
    if troubled:
        name, first = next(iter(troubled.items()))
        others = f" (and {len(troubled) - 1} more nodes)" if len(troubled) > 1 else ""
        reason, message = first.reason, f"node {name}: {first.message}{others}"
    else:
        reason, message = Reason.SUFFICIENT, "no node lacks anything"
    return set_condition(conditions, ConditionType.OVERLOADED, bool(troubled), reason, message, generation, now)
