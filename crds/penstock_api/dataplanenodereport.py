"""DataPlaneNodeReport: how a node's VIPs are, in shards of 100."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_api.dataplanenode import ErrorText
from penstock_api.fields import LabelName, ObjectName, map_list, unique_by
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo
from penstock_api.objects import Count, KubeObject, ShortText
from penstock_api.rules import immutable

SHARD_SIZE = 100
"""VIPs of one report."""


class VipReport(Model):
    """How one VIP is on the node."""

    namespace: LabelName
    """Namespace of the VIP."""
    name: ObjectName
    """Name of the VIP."""
    uid: Annotated[str, Field(max_length=64)]
    """UID of the VIP: tells it from an earlier one of the same name."""
    generation: Count
    """Generation of the VIP's spec that the node has in force."""
    ready: Count = 0
    """Backends that are healthy."""
    total: Count = 0
    """Backends that the VIP has."""
    policy: ShortText = ""
    """Policy in force."""
    mode: ShortText = ""
    """Its mode."""
    error: ErrorText = ""
    """Why the VIP isn't forwarded as it should be; empty if it is."""
    warning: ErrorText = ""
    """What the user should know although the VIP works."""


class NodeReport(Model):
    """How VIPs are on one node."""

    node_name: Annotated[ObjectName, immutable("nodeName")]
    """Name of the Kubernetes node. Can't be changed."""
    data_plane_name: Annotated[LabelName, immutable("dataPlaneName")]
    """DataPlane that the node belongs to. Can't be changed."""
    vips: Annotated[
        tuple[VipReport, ...],
        Field(max_length=SHARD_SIZE, json_schema_extra=map_list("namespace", "name")),
        unique_by("VIP", lambda report: (report.namespace, report.name)),
    ] = ()
    """The VIPs of this shard."""


class DataPlaneNodeReport(KubeObject):
    """How VIPs are on one node, written by its agent on change. Not for users to write."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="DataPlaneNodeReport",
        plural="dataplanenodereports",
        singular="dataplanenodereport",
        short_names=("dpnr",),
        namespaced=False,
        columns=(
            Column("DataPlane", ".report.dataPlaneName"),
            Column("Node", ".report.nodeName"),
            AGE_COLUMN,
        ),
    )

    kind: Literal["DataPlaneNodeReport"] = "DataPlaneNodeReport"
    report: NodeReport
    """How VIPs are on one node."""
