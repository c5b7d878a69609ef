"""Which nodes a DataPlane has, and what each is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock_api import DataPlane, DataPlaneNode, DataPlaneNodeSpec, NodeNatSource
from penstock_api.names import DATAPLANE_LABEL, NODE_LABEL

from penstock_operator.plan.facts import NodeFacts, Taint
from penstock_operator.plan.heartbeats import Beats

GONE_AFTER = timedelta(minutes=5)
"""A node NotReady for longer is dropped: what it forwards can't be told, and it must not hold anything up."""

LABEL_LIMIT = 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ALWAYS_TOLERATED = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
)
"""Taints that pods of every DaemonSet ignore."""


@dataclass(frozen=True)
class Selection:
    """Nodes of one DataPlane: its own, those that an older one has, and the names of the older ones."""

    own: tuple[NodeFacts, ...]
    lost: Mapping[str, str]  # node name -> DataPlane that has it


def age_order(data_plane: DataPlane) -> tuple[datetime, str, str]:
    """Order DataPlanes: the older first."""
    metadata = data_plane.metadata
    return metadata.creation_timestamp or _EPOCH, metadata.uid, metadata.name


def select(data_plane: DataPlane, others: Iterable[DataPlane], nodes: Iterable[NodeFacts]) -> Selection:
    """Find the nodes of a DataPlane; where selectors overlap, the older DataPlane has the node."""
    older = [o for o in others if age_order(o) < age_order(data_plane)]
    own, lost = [], {}
    for node in sorted(nodes, key=lambda node: node.name):
        if not matches(data_plane, node):
            continue
        winner = next((o for o in sorted(older, key=age_order) if not o.deleting and matches(o, node)), None)
        if winner is None:
            own.append(node)
        else:
            lost[node.name] = winner.metadata.name
    return Selection(tuple(own), lost)


def matches(data_plane: DataPlane, node: NodeFacts) -> bool:
    """Tell whether a DataPlane selects a node: by labels, and by taints as the scheduler would."""
    labels = node.labels
    if any(labels.get(key) != value for key, value in data_plane.spec.node_selector.items()):
        return False
    # Pods that run already are only driven off by NoExecute.
    effects = ("NoExecute",) if node.owner == data_plane.metadata.name else ("NoExecute", "NoSchedule")
    return all(_tolerated(data_plane, taint) for taint in node.taints if taint.effect in effects)


def _tolerated(data_plane: DataPlane, taint: Taint) -> bool:
    if taint.key in ALWAYS_TOLERATED:
        return True
    for toleration in data_plane.spec.tolerations:
        effect_fits = toleration.effect is None or toleration.effect == taint.effect
        key_fits = toleration.key is None or toleration.key == taint.key
        value_fits = toleration.operator == "Exists" or (toleration.value or "") == taint.value
        if effect_fits and key_fits and value_fits and toleration.toleration_seconds is None:
            return True
    return False


def works(node: NodeFacts | None, data_plane_node: DataPlaneNode | None, beats: Beats) -> bool:
    """Return whether a node forwards: its agent says so and lives.

    Where the agent renews its Lease, what Kubernetes says of the node does not matter: a kubelet that stopped stops no
    data plane.
    """
    if node is None or data_plane_node is None or not data_plane_node.ready:
        return False
    name = data_plane_node.metadata.name
    return name in beats.beating or (node.ready and name not in beats.silent)


def is_lost(node: NodeFacts | None, now: datetime, *, beats: bool = False) -> bool:
    """Return whether a node is gone, or NotReady for so long that it counts as gone; `beats`: its agent lives."""
    if node is None:
        return True
    return not beats and not node.ready and node.ready_changed is not None and now - node.ready_changed >= GONE_AFTER


def seconds_until_lost(nodes: Sequence[NodeFacts], now: datetime) -> float | None:
    """Return when the next NotReady node will count as gone, in seconds."""
    due = [
        (node.ready_changed + GONE_AFTER - now).total_seconds()
        for node in nodes
        if not node.ready and node.ready_changed is not None and now - node.ready_changed < GONE_AFTER
    ]
    return max(min(due), 0.0) + 1.0 if due else None


def node_labels(data_plane: str, node: str) -> dict[str, str]:
    """Return labels of a DataPlaneNode; node names that are too long for a label are left out."""
    labels = {DATAPLANE_LABEL: data_plane}
    if len(node) <= LABEL_LIMIT:
        labels[NODE_LABEL] = node
    return labels


def node_spec(
    data_plane: DataPlane, node: NodeFacts, scheduler_key: str, count: int, *, draining: bool = False
) -> DataPlaneNodeSpec:
    """Return what is asked of one node; the node has an internal address."""
    spec = data_plane.spec
    return DataPlaneNodeSpec(
        data_plane_name=data_plane.metadata.name,
        node_name=node.name,
        type=spec.type,
        scheduler_key=scheduler_key,
        nodes=max(count, 1),
        features=spec.features,
        nat_source=NodeNatSource(
            addresses=node.primary(), port_first=spec.nat_source.port_first, port_last=spec.nat_source.port_last
        ),
        announcement=spec.announcement,
        draining=draining,
        static_endpoint_cidrs=spec.static_endpoint_cidrs,
        limits=spec.limits,
    )


def surviving_key(nodes: Iterable[DataPlaneNode]) -> str | None:
    """Return the key that nodes already use, should the DataPlane's status have lost it."""
    return next((node.spec.scheduler_key for node in sorted(nodes, key=lambda n: n.metadata.name)), None)
