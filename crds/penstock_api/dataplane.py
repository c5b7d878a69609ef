"""DataPlane: load-balancing nodes of one make."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from penstock_api.choices import Choice
from penstock_api.fields import ATOMIC, SET, Cidr, InterfaceName, IPAddress, unique
from penstock_api.limits import VipLimits
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo, overloaded_column, ready_columns
from penstock_api.objects import Count, KubeObject, ShortText, Status
from penstock_api.rules import Rule
from penstock_api.vppspec import VppSpec

NAME_LIMIT = 32
"""Characters of a DataPlane's name: with prefix and suffix it names DaemonSets and labels."""

NODE_PORTS = (30_000, 32_767)
"""Ports that Kubernetes gives to Services of type NodePort."""

PARTITIONS = 64
"""The low 6 bits of a NAT port name the partition that owns the flow, so ranges are multiples of 64."""


class DataPlaneType(Choice):
    """Program that forwards packets."""

    EMBEDDED = "embedded"
    """Penstock's own, on a TUN device; needs nothing on the node."""
    VPP = "vpp"
    """VPP with our plugin, on a veth pair; `vpp` says with how many processors and which memory."""


class FeatureLevelName(Choice):
    """How much is measured of each flow."""

    OFF = "off"
    """Nothing but counts."""
    BASIC = "basic"
    """Flow durations and completion times: what the heuristics need."""
    FULL = "full"
    """Also handshakes, answer times, bytes, gaps and windows: all 73 features; 64 bytes more per flow."""


class NatSourceType(Choice):
    """Which source address backends see."""

    NODE_ADDRESS = "NodeAddress"
    """The node's own, with a range of ports reserved for Penstock."""


class AnnouncementType(Choice):
    """How the network learns where a VIP is."""

    NONE = "None"
    """Not from Penstock: routes to the nodes are set up elsewhere."""
    L2 = "L2"
    """One node at a time answers ARP and neighbour discovery for an address."""


class TolerationOperator(Choice):
    """How a toleration matches a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(Choice):
    """Effect of a taint."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint that the pods may ignore, as in a pod's spec."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """Key of the taint; absent with operator `Exists`: every taint."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Whether key and value must match, or the key alone."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint. Default: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated. Default: for ever."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.key) || self.operator == 'Exists'",
            message="a toleration without key tolerates every taint, which operator Equal can't say",
            fix="set key, or operator: Exists",
            holds=lambda self: self.key is not None or self.operator is TolerationOperator.EXISTS,
        ),
    )


def _port_rules() -> tuple[Rule, ...]:
    first_node_port, last_node_port = NODE_PORTS
    return (
        Rule(
            cel=f"self.portLast > self.portFirst && (self.portLast + 1) % {PARTITIONS} == 0",
            message="portLast must be above portFirst and one less than a multiple of 64",
            fix="use for example 16384 to 28671",
            holds=lambda self: self.port_last > self.port_first and (self.port_last + 1) % PARTITIONS == 0,
            field="portLast",
        ),
        Rule(
            cel=f"self.portLast < {first_node_port} || self.portFirst > {last_node_port}",
            message="the range meets the NodePorts of Kubernetes, 30000 to 32767",
            fix="use for example 16384 to 28671",
            holds=lambda self: self.port_last < first_node_port or self.port_first > last_node_port,
            field="portFirst",
        ),
    )


class NatPorts(Model):
    """A range of ports."""

    port_first: Annotated[int, Field(ge=1024, le=65_472, multiple_of=PARTITIONS)] = 16_384
    """First port, a multiple of 64."""
    port_last: Annotated[int, Field(ge=1087, le=65_535)] = 28_671
    """Last port, one less than a multiple of 64."""

    rules: ClassVar[tuple[Rule, ...]] = _port_rules()


class NatSource(NatPorts):
    """Source address and ports that backends see."""

    type: NatSourceType = NatSourceType.NODE_ADDRESS
    """Which source address backends see."""


class AnnouncementSpec(Model):
    """How the network learns where a VIP is."""

    type: AnnouncementType = AnnouncementType.NONE
    """How the network learns where a VIP is."""
    interfaces: Annotated[
        tuple[InterfaceName, ...], Field(max_length=16, json_schema_extra=SET), unique("interface")
    ] = ()
    """Interfaces to announce on. Default: that of the default route."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type == 'L2' || !has(self.interfaces) || self.interfaces.size() == 0",
            message="interfaces are for announcement L2",
            fix="set announcement.type to L2 or remove interfaces",
            holds=lambda self: self.type is AnnouncementType.L2 or not self.interfaces,
            field="interfaces",
        ),
    )


_QUANTITY = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


Quantity = Annotated[
    str,
    Field(max_length=32, pattern=_QUANTITY),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": _QUANTITY}),
]


class ResourceAmounts(Model):
    """Amounts of CPU and memory."""

    cpu: Quantity | None = None
    """CPU, for example `500m`."""
    memory: Quantity | None = None
    """Memory, for example `256Mi`."""


class PodResources(Model):
    """Resources of one container."""

    requests: ResourceAmounts | None = None
    """What is set aside."""
    limits: ResourceAmounts | None = None
    """What may not be exceeded."""


class DataPlaneResources(Model):
    """Resources of the pods on each node."""

    data_plane: PodResources | None = None
    """Of the pod that forwards packets; its memory limit must hold flow table and statistics."""
    agent: PodResources | None = None
    """Of the pod that steers it."""


LabelMap = Annotated[
    dict[
        Annotated[str, Field(max_length=316)],
        Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")],
    ],
    Field(max_length=16),
]


class DataPlaneSpec(Model):
    """What the nodes should be."""

    type: DataPlaneType = DataPlaneType.EMBEDDED
    """Program that forwards packets."""
    node_selector: LabelMap = Field(default_factory=dict)
    """Labels of the nodes that load-balance. Default: every node."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Taints that the pods may ignore."""
    flow_table_size: Annotated[int, Field(ge=1024, le=4_194_304)] | None = None
    """Flows that one node can hold at a time; memory for them is reserved at start. Default: by the node's memory,
    65,536 to 1,048,576."""
    features: FeatureLevelName = FeatureLevelName.BASIC
    """How much is measured of each flow."""
    nat_source: NatSource = NatSource()
    """Source address and ports that backends see."""
    shortcut: bool = True
    """Whether packets of clients and backends reach an `embedded` data plane past the node's own filters, which is
    faster. Set it to false where these filters say who may use a VIP."""
    announcement: AnnouncementSpec = AnnouncementSpec()
    """How the network learns where a VIP is."""
    static_endpoint_cidrs: Annotated[
        tuple[Cidr, ...],
        Field(alias="staticEndpointCIDRs", max_length=32, json_schema_extra=SET),
        unique("network"),
    ] = ()
    """Networks that static endpoints of VIPs may lie in. Default: none, so VIPs can only use Services."""
    limits: VipLimits = VipLimits()
    """Largest values that VIPs get, whatever their owners ask for."""
    resources: DataPlaneResources = DataPlaneResources()
    """Resources of the pods on each node."""
    vpp: VppSpec | None = None
    """What a data plane of type `vpp` gets of each node. Default: no workers, ordinary pages."""

    @property
    def exclusive_cpus(self) -> bool:
        """Whether threads of VPP have processors to themselves."""
        return self.vpp is not None and self.vpp.exclusive_cpus

    @property
    def data_plane_limits(self) -> ResourceAmounts:
        """Return the limits of the pod that forwards."""
        pod = self.resources.data_plane or PodResources()
        return pod.limits or ResourceAmounts()

    @property
    def asks_for_cpu(self) -> bool:
        """Whether the resources of the pod that forwards name processor time."""
        pod = self.resources.data_plane or PodResources()
        return any(amounts is not None and amounts.cpu is not None for amounts in (pod.requests, pod.limits))

    def allows_endpoint(self, address: IPAddress) -> bool:
        """Tell whether a static endpoint may have an address."""
        return any(address in network for network in self.static_endpoint_cidrs)


class DataPlaneCounts(Model):
    """How many nodes there are."""

    selected: Count = 0
    """Nodes that match the selector and belong to this DataPlane."""
    ready: Count = 0
    """Of these, the ones that work."""
    updated: Count = 0
    """Of these, the ones that run the current version."""


class DataPlaneSummary(Model):
    """The columns of `kubectl get dp`."""

    nodes: ShortText = ""
    """Number of nodes."""
    ready: ShortText = ""
    """Ready nodes of all, for example `2/2`."""


class DataPlaneStatus(Status):
    """What the nodes are."""

    scheduler_key: Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]{32}$")] | None = None
    """Key of the schedulers' hash: drawn once, the same on all nodes for as long as the DataPlane lives."""
    nodes: DataPlaneCounts | None = None
    """How many nodes there are."""
    summary: DataPlaneSummary = DataPlaneSummary()
    """The columns of `kubectl get dp`."""


def _vpp_rules() -> tuple[Rule, ...]:
    """Rules of a spec, which stand on the whole object: a spec has a default, and that would have to fulfil them."""
    exclusive = "has(self.spec.vpp) && self.spec.vpp.exclusiveCPUs"
    pod = "self.spec.resources.dataPlane"
    sized = f"has(self.spec.resources) && has({pod})"
    return (
        Rule(
            cel="self.spec.type == 'vpp' || !has(self.spec.vpp)",
            message="vpp is for data planes of type vpp",
            fix="set type: vpp, or remove it",
            holds=lambda self: self.spec.type is DataPlaneType.VPP or self.spec.vpp is None,
            field="spec.vpp",
        ),
        Rule(
            cel=f"!({exclusive}) || ({sized} && has({pod}.limits) && has({pod}.limits.memory))",
            message="exclusiveCPUs needs a limit of memory: Kubernetes gives processors only to pods of fixed size",
            fix="set resources.dataPlane.limits.memory, for example to 2Gi",
            holds=lambda self: not self.spec.exclusive_cpus or self.spec.data_plane_limits.memory is not None,
            field="spec.resources",
        ),
        Rule(
            cel=f"!({exclusive}) || !({sized}) || ((!has({pod}.requests) || !has({pod}.requests.cpu))"
            f" && (!has({pod}.limits) || !has({pod}.limits.cpu)))",
            message="with exclusiveCPUs the number of workers says how much processor there is",
            fix="remove cpu from resources.dataPlane",
            holds=lambda self: not self.spec.exclusive_cpus or not self.spec.asks_for_cpu,
            field="spec.resources",
        ),
        Rule(
            cel="self.spec.announcement.type == 'None' || !has(self.spec.vpp) || !has(self.spec.vpp.interfaces)"
            " || self.spec.vpp.interfaces.size() == 0",
            message="nobody can announce VIPs on a card that VPP has taken",
            fix="set announcement.type to None and route the VIPs to VPP's addresses, or remove vpp.interfaces",
            holds=lambda self: (
                self.spec.announcement.type is AnnouncementType.NONE
                or self.spec.vpp is None
                or not self.spec.vpp.interfaces
            ),
            field="spec.announcement",
        ),
    )


class DataPlane(KubeObject):
    """Load-balancing nodes: which they are, what forwards packets there, and how the network finds them."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="DataPlane",
        plural="dataplanes",
        singular="dataplane",
        short_names=("dp",),
        namespaced=False,
        columns=(
            Column("Type", ".spec.type"),
            Column("Announcement", ".spec.announcement.type"),
            Column("Nodes", ".status.summary.ready", description="ready/all"),
            *ready_columns(),
            AGE_COLUMN,
            overloaded_column(),
        ),
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!self.metadata.name.contains('.') && size(self.metadata.name) <= {NAME_LIMIT}",
            message=f"metadata.name must be a DNS label of at most {NAME_LIMIT} characters",
            fix="choose a shorter name without dots, for example edge",
            holds=lambda self: len(self.metadata.name) <= NAME_LIMIT and "." not in self.metadata.name,
        ),
        *_vpp_rules(),
    )

    kind: Literal["DataPlane"] = "DataPlane"
    spec: DataPlaneSpec = DataPlaneSpec()
    """What the nodes should be."""
    status: DataPlaneStatus = DataPlaneStatus()
    """What the nodes are."""
