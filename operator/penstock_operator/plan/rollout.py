"""Replacing outdated data-plane pods: one at a time, the next only once the last one works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock_api import DataPlaneNode

from penstock_operator.plan.facts import NodeFacts, PodFacts

REPLACED_ANNOTATION = "penstock.dev/replaced-instance"
"""On a DataPlaneNode: the run of the data plane whose pod we deleted; a new one must have taken its place."""


@dataclass(frozen=True)
class Rollout:
    """What to replace now, what keeps us waiting, and how many nodes run the current version."""

    replace: PodFacts | None = None
    waiting: str = ""
    updated: int = 0
    outdated: int = 0


def plan_rollout(
    current_hash: str,
    nodes: Iterable[NodeFacts],
    pods: Iterable[PodFacts],
    data_plane_nodes: Mapping[str, DataPlaneNode],
) -> Rollout:
    """Choose the pod to replace next.

    A node that is NotReady is passed over: its pod can't be replaced now, and would hold up all others. An outdated
    pod that doesn't work is replaced first, because the new version may mend it and nothing is lost.
    """
    by_node = {pod.node: pod for pod in pods if pod.forwards and not pod.deleting}
    alive = [node for node in nodes if node.ready]
    outdated = [by_node[n.name] for n in alive if n.name in by_node and by_node[n.name].template_hash != current_hash]
    updated = sum(1 for n in alive if n.name in by_node and by_node[n.name].template_hash == current_hash)
    if not outdated:
        return Rollout(updated=updated)
    unsettled = {
        node.name: why for node in alive if (why := _unsettled(by_node.get(node.name), node, data_plane_nodes))
    }
    broken = [pod for pod in outdated if pod.node in unsettled]
    blocking = [name for name in unsettled if name not in {pod.node for pod in broken}]
    if blocking:
        name = blocking[0]
        return Rollout(None, f"node {name}: {unsettled[name]}", updated, len(outdated))
    chosen = broken[0] if broken else outdated[0]
    return Rollout(chosen, f"replacing the data plane on node {chosen.node}", updated, len(outdated))


def _unsettled(pod: PodFacts | None, node: NodeFacts, data_plane_nodes: Mapping[str, DataPlaneNode]) -> str:
    """Say why a node can't be counted on yet; empty if it can."""
    if pod is None:
        return "its data-plane pod is not there yet"
    if not pod.ready:
        return f"pod {pod.name[1]} is not Ready; see `kubectl -n {pod.name[0]} describe pod {pod.name[1]}`"
    data_plane_node = data_plane_nodes.get(node.name)
    if data_plane_node is None or not data_plane_node.ready:
        return "its DataPlaneNode is not Ready; see `kubectl describe dpn`"
    replaced = data_plane_node.metadata.annotations.get(REPLACED_ANNOTATION)
    if replaced and data_plane_node.status.instance_id == replaced:
        return "its agent has not seen the new data plane yet"
    return ""
