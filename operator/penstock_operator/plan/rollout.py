"""Replacing outdated data-plane pods: one at a time, the next only once the last one works.

The node of the pod stops announcing first, and starts again once its new data plane works.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock_api import DataPlaneNode

from penstock_operator.plan.facts import NodeFacts, PodFacts

REPLACED_ANNOTATION = "penstock.dev/replaced-instance"
"""On a DataPlaneNode: the run of the data plane whose pod we deleted; a new one must have taken its place."""


@dataclass(frozen=True)
class Rollout:
    """What to replace now, which nodes to keep from announcing, why it waits, and how many nodes are up to date."""

    replace: PodFacts | None = None
    waiting: str = ""
    updated: int = 0
    outdated: int = 0
    draining: frozenset[str] = frozenset()  # node names


HandedOver = Callable[[str, Collection[str]], str]
"""Returns what keeps a node's addresses from being announced by the given other nodes; empty when all are."""


def plan_rollout(
    current_hash: str,
    nodes: Iterable[NodeFacts],
    pods: Iterable[PodFacts],
    data_plane_nodes: Mapping[str, DataPlaneNode],
    handover: HandedOver | None = None,
) -> Rollout:
    """Choose the pod to replace next; with `handover`, other nodes announce its addresses before it stops.

    A node that is NotReady is passed over: its pod cannot be replaced now, and would hold up all others. An outdated
    pod that does not work is replaced first, because the new version may mend it and nothing is lost.
    """
    by_node = {pod.node: pod for pod in pods if pod.forwards and not pod.deleting}
    alive = [node for node in nodes if node.ready]
    outdated = [by_node[n.name] for n in alive if n.name in by_node and by_node[n.name].template_hash != current_hash]
    updated = sum(1 for n in alive if n.name in by_node and by_node[n.name].template_hash == current_hash)
    unsettled = {
        node.name: why for node in alive if (why := _unsettled(by_node.get(node.name), node, data_plane_nodes))
    }
    # A node whose new data plane does not work yet goes on draining, so that its addresses stay where they are.
    draining = frozenset(name for name in unsettled if name in data_plane_nodes and _drains(data_plane_nodes[name]))
    if not outdated:
        return Rollout(updated=updated, draining=draining)
    found = Rollout(None, "", updated, len(outdated), draining)
    broken = [pod for pod in outdated if pod.node in unsettled]
    blocking = [name for name in unsettled if name not in {pod.node for pod in broken}]
    if blocking:
        return replace(found, waiting=f"node {blocking[0]}: {unsettled[blocking[0]]}")
    if broken:
        return replace(found, replace=broken[0], waiting=_replacing(broken[0]))
    return _hand_over(outdated, [node.name for node in alive], data_plane_nodes, handover, found)


def _hand_over(
    outdated: Sequence[PodFacts],
    alive: Sequence[str],
    data_plane_nodes: Mapping[str, DataPlaneNode],
    handover: HandedOver | None,
    found: Rollout,
) -> Rollout:
    """Drain the node of the next pod, and replace the pod once others announce in its place."""
    chosen = next((pod for pod in outdated if _drains(data_plane_nodes[pod.node])), outdated[0])
    others = frozenset(alive) - {chosen.node}
    if handover is None or not others:
        return replace(found, replace=chosen, waiting=_replacing(chosen))
    draining = found.draining | {chosen.node}
    if not _drains(data_plane_nodes[chosen.node]):
        return replace(found, draining=draining, waiting=f"node {chosen.node}: handing its addresses over")
    if why := handover(chosen.node, others):
        return replace(found, draining=draining, waiting=f"node {chosen.node}: handing its addresses over: {why}")
    return replace(found, replace=chosen, draining=draining, waiting=_replacing(chosen))


def _drains(node: DataPlaneNode) -> bool:
    return node.spec.draining


def _replacing(pod: PodFacts) -> str:
    return f"replacing the data plane on node {pod.node}"


def _unsettled(pod: PodFacts | None, node: NodeFacts, data_plane_nodes: Mapping[str, DataPlaneNode]) -> str:
    """Return why a node cannot be counted on yet; empty if it can."""
    if pod is None:
        return "its data-plane pod is not there yet"
    if pod.trouble and not pod.ready:
        return f"pod {pod.name[1]}: {pod.trouble}"
    if not pod.ready:
        return f"pod {pod.name[1]} is not Ready; see `kubectl -n {pod.name[0]} describe pod {pod.name[1]}`"
    data_plane_node = data_plane_nodes.get(node.name)
    if data_plane_node is None or not data_plane_node.ready:
        return "its DataPlaneNode is not Ready; see `kubectl describe dpn`"
    replaced = data_plane_node.metadata.annotations.get(REPLACED_ANNOTATION)
    if replaced and data_plane_node.status.instance_id == replaced:
        return "its agent has not seen the new data plane yet"
    return ""
