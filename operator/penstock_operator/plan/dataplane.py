"""All that a DataPlane needs: nodes, DaemonSets, replacement of pods, and its way out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock_api import (
    AnnouncementType,
    Condition,
    DataPlane,
    DataPlaneNode,
    DataPlaneNodeSpec,
    DataPlaneStatus,
    Reason,
    get_condition,
    set_condition,
)
from penstock_api.conditions import ConditionType
from penstock_api.names import NODE_FINALIZER, node_object_name

from penstock_operator.plan import daemonsets, nodes, rollout
from penstock_operator.plan.dataplane_status import data_plane_status, hindrance, seconds_until_started, silence
from penstock_operator.plan.facts import NodeFacts, PodFacts
from penstock_operator.plan.handover import still_announced
from penstock_operator.plan.pods import Manifest
from penstock_operator.plan.view import DataPlaneView

NAMES_SHOWN = 5


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
    silent: tuple[tuple[DataPlaneNode, Condition], ...] = ()  # conditions of nodes whose agents write none
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
        return _leave(view, installation, now)
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
    alive = [node for node in selection.own if not view.is_lost(node.name, now) and node.internal]
    mine = [node for node in alive if node.owner in ("", view.name) or node.owner not in _names(view.others)]
    key = data_plane.status.scheduler_key or nodes.surviving_key(view.data_plane_nodes.values()) or draw_key()
    forwarder = daemonsets.data_plane_daemon_set(data_plane, installation)
    steps = _rollout(data_plane, view, mine, daemonsets.template_hash(forwarder))
    leaving = [n for name, n in view.data_plane_nodes.items() if name not in {node.name for node in mine}]
    cleared = [
        node
        for node in view.nodes.values()
        if node.owner == view.name and node.name not in own and node.name not in view.data_plane_nodes
    ]
    changes = _changes(data_plane, mine, key, steps, view.data_plane_nodes)
    status = data_plane_status(data_plane, selection, mine, key, steps, view, now)
    return replace(
        _departures(view, leaving, now),
        finalizer=True,
        status=status,
        label_nodes=tuple(node for node in mine if node.owner != view.name),
        nodes=changes,
        silent=_silent(view, installation.namespace, now),
        daemon_sets=(forwarder, daemonsets.agent_daemon_set(data_plane, installation, view.account)),
        replace_pod=steps.replace,
        unlabel_nodes=tuple(cleared),
        look_again=_earliest(
            nodes.seconds_until_lost(list(view.nodes.values()), now), seconds_until_started(view, now)
        ),
    )


def _earliest(*seconds: float | None) -> float | None:
    return min((each for each in seconds if each is not None), default=None)


def _rollout(data_plane: DataPlane, view: DataPlaneView, mine: Sequence[NodeFacts], hash_: str) -> rollout.Rollout:
    def handover(node: str, others: Collection[str]) -> str:
        return still_announced(node, view.vips(), others)

    announces = data_plane.spec.announcement.type is AnnouncementType.L2
    return rollout.plan_rollout(hash_, mine, view.pods, view.data_plane_nodes, handover if announces else None)


def _silent(view: DataPlaneView, namespace: str, now: datetime) -> tuple[tuple[DataPlaneNode, Condition], ...]:
    """Return the condition that silent agents cannot write of their nodes."""
    found = []
    for node in view.data_plane_nodes.values():
        before = get_condition(node.status.conditions, ConditionType.READY)
        known = before is not None and before.reason == Reason.AGENT_SILENT
        if node.metadata.name in view.beats.silent and not known:
            found.append((node, silence(node, namespace, now)))
    return tuple(found)


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
        spec = nodes.node_spec(data_plane, node, key, len(mine), draining=node.name in steps.draining)
        changes.append(NodeChange(node_object_name(data_plane.metadata.name, node.name), spec, replaced))
    return tuple(changes)


def _leave(view: DataPlaneView, installation: daemonsets.Installation, now: datetime) -> DataPlanePlan:
    """Clear away: agents withdraw from the nodes first, then the pods go, then our finalizer."""
    departures = _departures(view, list(view.data_plane_nodes.values()), now)
    plan = replace(departures, silent=_silent(view, installation.namespace, now))
    data_plane = view.data_plane
    status = None
    if data_plane is not None:
        waiting = ", ".join(sorted(view.data_plane_nodes)[:NAMES_SHOWN])
        message = f"waiting for agents to clear {waiting}{hindrance(view)}" if waiting else "removing the DaemonSets"
        conditions = data_plane.status.conditions
        generation = data_plane.metadata.generation
        for type_, value in ((ConditionType.READY, False), (ConditionType.RECONCILING, True)):
            conditions = set_condition(conditions, type_, value, Reason.DELETING, message, generation, now)
        status = data_plane.status.model_copy(update={"conditions": conditions, "observed_generation": generation})
    due = nodes.seconds_until_lost(list(view.nodes.values()), now)
    if view.data_plane_nodes:
        agents = _agents_that_can_leave(view, installation)
        return replace(plan, status=status, daemon_sets=agents, look_again=due)
    labelled = tuple(node for node in view.nodes.values() if node.owner == view.name)
    ours = (daemonsets.data_plane_name(view.name), daemonsets.agent_name(view.name))
    present = tuple(name for name in ours if name in view.daemon_sets)
    # Pods too: a DaemonSet that is made anew under this name takes those that end for its own, and makes no others.
    ending = any(not view.is_lost(pod.node, now) for pod in view.pods)
    done = not (labelled or present or ending)
    return replace(
        plan,
        status=None if done else status,
        finalizer=False if done and data_plane is not None else None,
        unlabel_nodes=labelled,
        delete_daemon_sets=present,
        look_again=due if ending else None,
    )


def _agents_that_can_leave(view: DataPlaneView, installation: daemonsets.Installation) -> tuple[Manifest, ...]:
    """Return the agents' DaemonSet while they have to clear their nodes: those of a deleted account cannot write."""
    if view.data_plane is None or daemonsets.agent_name(view.name) not in view.daemon_sets:
        return ()
    return (daemonsets.agent_daemon_set(view.data_plane, installation, view.account),)


def _departures(view: DataPlaneView, leaving: Sequence[DataPlaneNode], now: datetime) -> DataPlanePlan:
    lost = [node for node in leaving if view.is_lost(node.spec.node_name, now)]
    orphans = [report for report, node in view.reports.items() if node not in view.data_plane_nodes]
    return DataPlanePlan(
        delete_nodes=tuple(node for node in leaving if not node.deleting),
        drop_nodes=tuple(node for node in lost if NODE_FINALIZER in node.metadata.finalizers),
        delete_reports=tuple(orphans),
    )


def _names(data_planes: Sequence[DataPlane]) -> set[str]:
    return {data_plane.metadata.name for data_plane in data_planes}
