"""What a DataPlane's plan is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock_api import DataPlane, DataPlaneNode

from penstock_operator.plan import nodes
from penstock_operator.plan.facts import NodeFacts, PodFacts
from penstock_operator.plan.handover import ServedVip
from penstock_operator.plan.heartbeats import NO_BEATS, Beats


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
    beats: Beats = NO_BEATS
    account: str = ""  # UID of the agents' ServiceAccount; empty where it is not known
    vips: Callable[[], Sequence[ServedVip]] = tuple  # computed when a rollout needs it

    def is_lost(self, node_name: str, now: datetime) -> bool:
        """Return whether nothing can be expected of a node any more."""
        data_plane_node = self.data_plane_nodes.get(node_name)
        beats = data_plane_node is not None and data_plane_node.metadata.name in self.beats.beating
        return nodes.is_lost(self.nodes.get(node_name), now, beats=beats)

    def works(self, node: NodeFacts) -> bool:
        """Return whether a node forwards."""
        return nodes.works(node, self.data_plane_nodes.get(node.name), self.beats)

    def pods_on(self, node_name: str) -> list[PodFacts]:
        """Return the pods of a node that are not on their way out, the one that forwards first."""
        found = [pod for pod in self.pods if pod.node == node_name and not pod.deleting]
        return sorted(found, key=lambda pod: (not pod.forwards, pod.name))
