"""Names that other programs and people rely on: group, kinds, annotations, labels, finalizers, managers."""

from __future__ import annotations

from typing import NamedTuple

GROUP = "penstock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

INSTALL_NAMESPACE = "penstock-system"

DEFAULT_ANNOTATION = f"{GROUP}/default"
"""`"true"` on a DataPlane: it serves VIPs that name none."""

PAUSED_ANNOTATION = f"{GROUP}/paused"
"""`"true"` on a VIP: what is programmed stays, nothing changes until it is removed."""

MOVE_ANNOTATION = f"{GROUP}/move-address"
"""`"true"` on a VIP: it gives up an allocated address that something else claims, or that lies in no pool open to it,
and is given a free one."""

DATAPLANE_LABEL = f"{GROUP}/dataplane"
NODE_LABEL = f"{GROUP}/node"
COMPONENT_LABEL = "app.kubernetes.io/component"
PART_OF_LABEL = "app.kubernetes.io/part-of"

NODE_FINALIZER = f"{GROUP}/node"
"""On a DataPlaneNode, dropped by its agent once everything is withdrawn from the node."""

DATAPLANE_FINALIZER = f"{GROUP}/dataplane"
"""On a DataPlane, dropped by the operator once its nodes and DaemonSets are gone."""

OPERATOR_MANAGER = "penstock-operator"
AGENT_MANAGER = "penstock-agent"

OPERATOR_ACCOUNT = "penstock-operator"
AGENT_ACCOUNT = "penstock-agent"
DATAPLANE_ACCOUNT = "penstock-dataplane"


def node_object_name(dataplane: str, node: str) -> str:
    """Name of a node's DataPlaneNode. A DataPlane's name has no dot, so no two pairs share a name."""
    return f"{dataplane}.{node}"


def report_name(node_object: str, shard: int) -> str:
    """Name of a node's DataPlaneNodeReport."""
    return f"{node_object}-{shard}"


def node_lease_name(node_object: str) -> str:
    """Name of the Lease by which a node shows that it lives."""
    return f"penstock-{node_object}"


class ResourceName(NamedTuple):
    """What an API client needs to address a kind; unpacks into `penstock_kube.Resource(*resource)`."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool


class Column(NamedTuple):
    """One column of `kubectl get`; `priority` 1 shows it only with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


class KindInfo(NamedTuple):
    """How a kind is called, addressed and printed."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...] = ()

    @property
    def resource(self) -> ResourceName:
        """The kind as an API client addresses it."""
        return ResourceName(GROUP, VERSION, self.plural, self.kind, self.namespaced)

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


AGE_COLUMN = Column("Age", ".metadata.creationTimestamp", "date")


def ready_columns() -> tuple[Column, ...]:
    """Return the columns that show the condition `Ready`: its status, why, and, when asked for more, what to do."""
    condition = '.status.conditions[?(@.type=="Ready")]'
    return (
        Column("Ready", f"{condition}.status"),
        Column("Reason", f"{condition}.reason"),
        Column("Message", f"{condition}.message", priority=1),
    )


def overloaded_column() -> Column:
    """Return the wide column that shows the condition `Overloaded`."""
    path = '.status.conditions[?(@.type=="Overloaded")].status'
    return Column("Overloaded", path, priority=1, description="flows or packets are lost for want of something")
