"""DataPlaneNode: what the operator asks of one node, and what its agent answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_api.dataplane import AnnouncementSpec, DataPlaneType, FeatureLevelName, NatPorts
from penstock_api.fields import ATOMIC, SET, Address, Cidr, LabelName, ObjectName, unique
from penstock_api.limits import VipLimits
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo, overloaded_column, ready_columns
from penstock_api.objects import Count, KubeObject, ShortText, Status
from penstock_api.rules import immutable

FAILING_LIMIT = 50
"""Most failing VIPs that one node lists; the rest are counted."""

ErrorText = Annotated[str, Field(max_length=1024)]


class NodeNatSource(NatPorts):
    """Source addresses and ports of NAT flows on this node."""

    addresses: Annotated[
        tuple[Address, ...], Field(min_length=1, max_length=8, json_schema_extra=SET), unique("address")
    ]
    """The node's own addresses, at most one per family."""


class DataPlaneNodeSpec(Model):
    """What the operator asks of the node."""

    data_plane_name: Annotated[LabelName, immutable("dataPlaneName")]
    """DataPlane that the node belongs to. Can't be changed."""
    node_name: Annotated[ObjectName, immutable("nodeName")]
    """Name of the Kubernetes node. Can't be changed."""
    type: DataPlaneType = DataPlaneType.EMBEDDED
    """Program that forwards packets."""
    scheduler_key: Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]{32}$")]
    """Key of the schedulers' hash, the same on all nodes of a DataPlane."""
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of nodes that share the load."""
    features: FeatureLevelName = FeatureLevelName.BASIC
    """How much is measured of each flow."""
    nat_source: NodeNatSource
    """Source addresses and ports of NAT flows."""
    announcement: AnnouncementSpec = AnnouncementSpec()
    """How the network learns where a VIP is."""
    draining: bool = False
    """Whether the other nodes announce in its place, because its data plane is about to be replaced."""
    static_endpoint_cidrs: Annotated[
        tuple[Cidr, ...],
        Field(alias="staticEndpointCIDRs", max_length=32, json_schema_extra=SET),
        unique("network"),
    ] = ()
    """Networks that static endpoints may lie in."""
    limits: VipLimits = VipLimits()
    """Largest values that VIPs get."""


class NodeVips(Model):
    """How many VIPs the node has."""

    programmed: Count = 0
    """Forwarded as they should be."""
    failing: Count = 0
    """Not forwarded as they should be."""


class FailingVip(Model):
    """A VIP that the node doesn't forward as it should."""

    namespace: ShortText
    """Namespace of the VIP."""
    name: ShortText
    """Name of the VIP."""
    error: ErrorText = ""
    """What is the matter, and the fix."""


class NodeSummary(Model):
    """The columns of `kubectl get dpn`."""

    vips: ShortText = ""
    """Programmed VIPs of all."""
    flows: ShortText = ""
    """Flows held, and room for them."""


class DataPlaneNodeStatus(Status):
    """What the node is."""

    instance_id: ShortText | None = None
    """Run of the data-plane process; changes when it restarts."""
    version: ShortText | None = None
    """Version of the data plane."""
    agent_version: ShortText | None = None
    """Version of the agent."""
    flows: Count = 0
    """Flows held."""
    flow_capacity: Count = 0
    """Flows that can be held."""
    reattached_flows: Count = 0
    """Flows that the data plane found again when it last started."""
    vips: NodeVips = NodeVips()
    """How many VIPs the node has."""
    failing_vips: Annotated[
        tuple[FailingVip, ...], Field(alias="failingVIPs", max_length=FAILING_LIMIT, json_schema_extra=ATOMIC)
    ] = ()
    """VIPs that the node doesn't forward as it should, at most 50."""
    last_error: ErrorText = ""
    """Last error of the node itself; empty once it is mended."""
    summary: NodeSummary = NodeSummary()
    """The columns of `kubectl get dpn`."""


class DataPlaneNode(KubeObject):
    """One load-balancing node: written by the operator, answered by the agent there. Not for users to write."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="DataPlaneNode",
        plural="dataplanenodes",
        singular="dataplanenode",
        short_names=("dpn",),
        namespaced=False,
        columns=(
            Column("DataPlane", ".spec.dataPlaneName"),
            Column("Node", ".spec.nodeName"),
            Column("VIPs", ".status.summary.vips", description="programmed/all"),
            Column("Flows", ".status.summary.flows"),
            *ready_columns(),
            AGE_COLUMN,
            overloaded_column(),
            Column("Version", ".status.version", priority=1),
            Column("Error", ".status.lastError", priority=1),
        ),
    )

    kind: Literal["DataPlaneNode"] = "DataPlaneNode"
    spec: DataPlaneNodeSpec
    """What the operator asks of the node."""
    status: DataPlaneNodeStatus = DataPlaneNodeStatus()
    """What the node is."""
