"""DataPlaneNodeReport: how a node's VIPs are, in shards of 100."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_api.choices import Choice
from penstock_api.dataplanenode import ErrorText
from penstock_api.fields import (
    ATOMIC,
    AddressFamily,
    AddressInStatus,
    LabelName,
    ObjectName,
    Port,
    Protocol,
    map_list,
    unique_by,
)
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo
from penstock_api.objects import Count, KubeObject, ShortText
from penstock_api.rules import immutable

SHARD_SIZE = 100
"""VIPs of one report."""

SHARDS_MAX = 100
"""Reports of one node; an admission policy refuses more."""

FINDINGS_LIMIT = 16
"""Most findings that are listed for one VIP."""

FINDING_TEXT_LIMIT = 512  # characters of a message


class FindingReason(Choice):
    """Reasons of findings; the message names object, field and value and tells the fix."""

    SERVICE_NOT_FOUND = "ServiceNotFound"
    """There is no Service of this name in the VIP's namespace."""
    EXTERNAL_NAME = "ExternalNameService"
    """The Service is of type ExternalName, which has no endpoints."""
    NO_ENDPOINT_SLICES = "NoEndpointSlices"
    """The Service has no endpoints: its selector matches no pod."""
    PORT_NOT_FOUND = "PortNotFound"
    """The Service has endpoints, but no port like the VIP's target port."""
    PROTOCOL_MISMATCH = "ProtocolMismatch"
    """The Service has the target port with another protocol only."""
    FAMILY_MISMATCH = "FamilyMismatch"
    """All endpoints are of another address family."""
    NO_READY_ENDPOINTS = "NoReadyEndpoints"
    """There are endpoints, but none is ready."""
    ONLY_TERMINATING = "OnlyTerminating"
    """Every endpoint that still serves is terminating; these are used."""
    ALL_WEIGHTS_ZERO = "AllWeightsZero"
    """Every endpoint has weight 0."""
    ALL_UNHEALTHY = "AllUnhealthy"
    """Every backend fails its health checks."""
    FEW_HEALTHY = "FewHealthy"
    """So few backends pass their health checks that those whose checks are late are used too."""
    NO_PATH = "NoPath"
    """Backends pass their health checks, but clients get no packet of theirs."""
    ENDPOINT_INVALID = "EndpointInvalid"
    """An endpoint or a port of an EndpointSlice cannot be used; the others are."""
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    """An endpoint has an address that the DataPlane does not allow; the others are used."""
    TOO_MANY_BACKENDS = "TooManyBackends"
    """There are more endpoints than one port of a VIP can have; the rest are left out."""
    LIMITED = "Limited"
    """The VIP asks for more than `limits` of the DataPlane allow, and gets as much as they do."""
    ADDRESS_CONFLICT = "AddressConflict"
    """Another VIP has the address and port."""
    TOO_MANY_PORTS = "TooManyPorts"
    """The DataPlane has more ports of VIPs than one node can have."""
    REFUSED = "Refused"
    """The data plane refuses the VIP."""
    UNREADABLE = "Unreadable"
    """The VIP breaks a rule that this version has; what was programmed stays."""
    PAUSED = "Paused"
    """The VIP was paused before the node had it."""
    POLICY = "Policy"
    """The policy cannot be used as the VIP asks."""
    INTERNAL = "InternalError"
    """The VIP could not be planned; what was programmed stays."""


ReasonText = Annotated[str, Field(max_length=64)]  # no enumeration: a newer agent may have further reasons
FindingText = Annotated[str, Field(max_length=FINDING_TEXT_LIMIT)]


class Finding(Model):
    """What a user should know about a VIP."""

    reason: ReasonText
    """One word for programs."""
    field: ShortText = ""
    """Field of the VIP, for example `spec.ports[0].targetPort`; empty where it is none of its fields."""
    message: FindingText = ""
    """A sentence for people: object, field, value and fix."""


class PortReport(Model):
    """How one port of a VIP is in one address family."""

    port: Port
    """Port of the VIP."""
    protocol: Protocol
    """Its protocol."""
    family: AddressFamily
    """Address family."""
    total: Count = 0
    """Backends that may take new flows: ready endpoints whose weight is not 0."""
    ready: Count = 0
    """Of these, the ones that pass their health checks."""
    kept: bool = False
    """The spec's backends cannot be found, so the last ones that could be are used; `reason` is why."""
    reason: ReasonText = ""
    """Why nothing is ready, or `kept` is set; else empty."""
    message: FindingText = ""
    """The same for people, with the fix."""


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
    announces: Annotated[tuple[AddressInStatus, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    """Addresses of the VIP that the node announces."""
    warning: ErrorText = ""
    """What the user should know although the VIP works."""
    ports: Annotated[tuple[PortReport, ...], Field(max_length=64, json_schema_extra=ATOMIC)] = ()
    """Each port of the VIP in each of its address families."""
    findings: Annotated[tuple[Finding, ...], Field(max_length=FINDINGS_LIMIT, json_schema_extra=ATOMIC)] = ()
    """All that the errors and warnings are about, the gravest first."""


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
