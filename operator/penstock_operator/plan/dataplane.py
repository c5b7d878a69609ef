"""All that a DataPlane needs: nodes, DaemonSets, replacement of pods, and its way out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock_api import (
    Condition,
    DataPlane,
    DataPlaneCounts,
    DataPlaneNode,
    DataPlaneNodeSpec,
    DataPlaneStatus,
    DataPlaneSummary,
    Reason,
    get_condition,
    set_condition,
)
from penstock_api.conditions import ConditionStatus, ConditionType
from penstock_api.names import NODE_FINALIZER, node_object_name

from penstock_operator.plan import daemonsets, nodes, rollout
from penstock_operator.plan.facts import NodeFacts, PodFacts
from penstock_operator.plan.pods import Manifest

NAMES_SHOWN = 5


@dataclass(frozen=True)
class DataPlaneView:
    """What is there, for one DataPlane."""

    name: str
    data_plane: DataPlane | None
    others: Sequence[DataPlane]
    nodes: Mapping[str, NodeFacts]
    data_plane_nodes: Mapping[str, DataPlaneNode]  # by node name
    pods: Sequence[PodFacts]
    daemon_sets: frozenset[str]  # names of those that exist
    reports: Mapping[str, str]  # name of a report -> node name


@dataclass(frozen=True)
class NodeChange:
    """What a DataPlaneNode should say."""

    name: str
    spec: DataPlaneNodeSpec
    replaced_instance: str | None = None


@dataclass(frozen=True)
class DataPlanePlan:
    """What to do, in the order of the fields."""

    finalizer: bool | None = None  # whether the DataPlane should carry ours; None: leave it
    status: DataPlaneStatus | None = None
    label_nodes: tuple[NodeFacts, ...] = ()
    nodes: tuple[NodeChange, ...] = ()
    daemon_sets: tuple[Manifest, ...] = ()
    replace_pod: PodFacts | None = None
    drop_nodes: tuple[DataPlaneNode, ...] = ()  # their agents are gone: we take the finalizer off
    delete_nodes: tuple[DataPlaneNode, ...] = ()
    delete_reports: tuple[str, ...] = ()
    unlabel_nodes: tuple[NodeFacts, ...] = ()
    delete_daemon_sets: tuple[str, ...] = ()
    look_again: float | None = None  # seconds


def plan_data_plane(
    view: DataPlaneView,
    installation: daemonsets.Installation,
    now: datetime,
    draw_key: Callable[[], str] = lambda: secrets.token_hex(16),
) -> DataPlanePlan:
    """Decide on one DataPlane; one that is gone or going is cleared away."""
    if view.data_plane is None or view.data_plane.deleting:
        return _leave(view, now)
    return _run(view.data_plane, view, installation, now, draw_key)


def _run(
    data_plane: DataPlane,
    view: DataPlaneView,
    installation: daemonsets.Installation,
    now: datetime,
    draw_key: Callable[[], str],
) -> DataPlanePlan:
    selection = nodes.select(data_plane, view.others, view.nodes.values())
    own = {node.name: node for node in selection.own}
    alive = [node for node in selection.own if not nodes.is_lost(node, now) and node.internal]
    mine = [node for node in alive if node.owner in ("", view.name) or node.owner not in _names(view.others)]
    key = data_plane.status.scheduler_key or nodes.surviving_key(view.data_plane_nodes.values()) or draw_key()
    forwarder = daemonsets.data_plane_daemon_set(data_plane, installation)
    steps = rollout.plan_rollout(daemonsets.template_hash(forwarder), mine, view.pods, view.data_plane_nodes)
    leaving = [n for name, n in view.data_plane_nodes.items() if name not in {node.name for node in mine}]
    cleared = [
        node
        for node in view.nodes.values()
        if node.owner == view.name and node.name not in own and node.name not in view.data_plane_nodes
    ]
    changes = _changes(data_plane, mine, key, steps, view.data_plane_nodes)
    status = _status(data_plane, selection, mine, key, steps, view, now)
    return replace(
        _departures(view, leaving, now),
        finalizer=True,
        status=status,
        label_nodes=tuple(node for node in mine if node.owner != view.name),
        nodes=changes,
        daemon_sets=(forwarder, daemonsets.agent_daemon_set(data_plane, installation)),
        replace_pod=steps.replace,
        unlabel_nodes=tuple(cleared),
        look_again=nodes.seconds_until_lost(list(view.nodes.values()), now),
    )


def _changes(
    data_plane: DataPlane,
    mine: Sequence[NodeFacts],
    key: str,
    steps: rollout.Rollout,
    existing: Mapping[str, DataPlaneNode],
) -> tuple[NodeChange, ...]:
    changes = []
    for node in mine:
        before = existing.get(node.name)
        if before is not None and before.deleting:
            continue  # its agent clears the node first; the object's end brings us back here
        replaced = before.metadata.annotations.get(rollout.REPLACED_ANNOTATION) if before else None
        if before is not None and steps.replace is not None and steps.replace.node == node.name:
            replaced = before.status.instance_id or replaced
        spec = nodes.node_spec(data_plane, node, key, len(mine))
        changes.append(NodeChange(node_object_name(data_plane.metadata.name, node.name), spec, replaced))
    return tuple(changes)


def _leave(view: DataPlaneView, now: datetime) -> DataPlanePlan:
    """Clear away: agents withdraw from the nodes first, then the pods go, then our finalizer."""
    plan = _departures(view, list(view.data_plane_nodes.values()), now)
    data_plane = view.data_plane
    status = None
    if data_plane is not None:
        waiting = ", ".join(sorted(view.data_plane_nodes)[:NAMES_SHOWN])
        message = f"waiting for agents to clear {waiting}" if waiting else "removing the DaemonSets"
        conditions = data_plane.status.conditions
        generation = data_plane.metadata.generation
        for type_, value in ((ConditionType.READY, False), (ConditionType.RECONCILING, True)):
            conditions = set_condition(conditions, type_, value, Reason.DELETING, message, generation, now)
        status = data_plane.status.model_copy(update={"conditions": conditions, "observed_generation": generation})
    due = nodes.seconds_until_lost(list(view.nodes.values()), now)
    if view.data_plane_nodes:
        return replace(plan, status=status, look_again=due)
    labelled = tuple(node for node in view.nodes.values() if node.owner == view.name)
    ours = (daemonsets.data_plane_name(view.name), daemonsets.agent_name(view.name))
    present = tuple(name for name in ours if name in view.daemon_sets)
    # Pods too: a DaemonSet that is made anew under this name takes those that end for its own, and makes no others.
    ending = any(not nodes.is_lost(view.nodes.get(pod.node), now) for pod in view.pods)
    done = not (labelled or present or ending)
    return replace(
        plan,
        status=None if done else status,
        finalizer=False if done and data_plane is not None else None,
        unlabel_nodes=labelled,
        delete_daemon_sets=present,
        look_again=due if ending else None,
    )


def _departures(view: DataPlaneView, leaving: Sequence[DataPlaneNode], now: datetime) -> DataPlanePlan:
    lost = [node for node in leaving if nodes.is_lost(view.nodes.get(node.spec.node_name), now)]
    orphans = [report for report, node in view.reports.items() if node not in view.data_plane_nodes]
    return DataPlanePlan(
        delete_nodes=tuple(node for node in leaving if not node.deleting),
        drop_nodes=tuple(node for node in lost if NODE_FINALIZER in node.metadata.finalizers),
        delete_reports=tuple(orphans),
    )


def _names(data_planes: Sequence[DataPlane]) -> set[str]:
    return {data_plane.metadata.name for data_plane in data_planes}


def _status(
    data_plane: DataPlane,
    selection: nodes.Selection,
    mine: Sequence[NodeFacts],
    key: str,
    steps: rollout.Rollout,
    view: DataPlaneView,
    now: datetime,
) -> DataPlaneStatus:
    working = [n for n in mine if n.ready and n.name in view.data_plane_nodes and view.data_plane_nodes[n.name].ready]
    selected = len(selection.own)
    return DataPlaneStatus(
        observed_generation=data_plane.metadata.generation,
        conditions=_overloaded(
            _conditions(data_plane, selection, {n.name for n in working}, steps, now),
            [view.data_plane_nodes[n.name] for n in mine if n.name in view.data_plane_nodes],
            data_plane.metadata.generation,
            now,
        ),
        scheduler_key=key,
        nodes=DataPlaneCounts(selected=selected, ready=len(working), updated=steps.updated),
        summary=DataPlaneSummary(nodes=str(selected), ready=f"{len(working)}/{selected}"),
    )


def _conditions(
    data_plane: DataPlane, selection: nodes.Selection, working: set[str], steps: rollout.Rollout, now: datetime
) -> tuple[Condition, ...]:
    generation = data_plane.metadata.generation
    conditions = data_plane.status.conditions
    accepted, reason, message = True, Reason.ACCEPTED, "the spec is valid"
    if selection.lost:
        names = ", ".join(sorted(selection.lost)[:NAMES_SHOWN])
        holders = ", ".join(sorted(set(selection.lost.values())))
        accepted, reason = False, Reason.NODE_CONFLICT
        message = (
            f"spec.nodeSelector: {names} belong to DataPlane {holders}, which is older; narrow one of the selectors"
        )
    conditions = set_condition(conditions, ConditionType.ACCEPTED, accepted, reason, message, generation, now)
    ready, why, text = _readiness(selection, working)
    conditions = set_condition(conditions, ConditionType.READY, ready, why, text, generation, now)
    rolling = bool(steps.outdated)
    text = f"{steps.outdated} nodes run an earlier version; {steps.waiting}" if rolling else text
    conditions = set_condition(
        conditions, ConditionType.RECONCILING, rolling or not ready, Reason.PROGRESSING, text, generation, now
    )
    return set_condition(conditions, ConditionType.STALLED, not accepted, reason, message, generation, now)


def _readiness(selection: nodes.Selection, working: set[str]) -> tuple[bool, Reason, str]:
    if not selection.own:
        return False, Reason.NO_NODES_SELECTED, "spec.nodeSelector and tolerations select no node; label a node"
    behind = [node for node in selection.own if node.name not in working]
    if not behind:
        count = len(selection.own)
        return True, Reason.READY, f"{count} of {count} nodes are Ready"
    without = [node.name for node in behind if not node.internal]
    if without:
        return False, Reason.NODES_NOT_READY, f"node {without[0]} has no InternalIP; see `kubectl get node -o wide`"
    shown = ", ".join(node.name for node in behind[:NAMES_SHOWN])
    return False, Reason.NODES_NOT_READY, f"not Ready: {shown}; see `kubectl describe dpn`"


def _overloaded(
    conditions: tuple[Condition, ...], mine: Sequence[DataPlaneNode], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Say what the nodes run out of, as their agents tell it; nothing before one of them has."""
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
