"""LoadBalancerVIP: a service address, its ports and the servers behind it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_api.choices import Choice
from penstock_api.fields import (
    ATOMIC,
    SET,
    Address,
    AddressFamily,
    AddressInStatus,
    LabelName,
    ObjectName,
    Port,
    Protocol,
    TargetPort,
    family_of,
    map_list,
    unique,
    unique_by,
)
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo, ready_columns
from penstock_api.objects import Count, KubeObject, ShortText, Status
from penstock_api.rules import Rule, immutable


class Forwarding(Choice):
    """How packets reach a backend."""

    NAT = "NAT"
    """Both addresses are translated: backends see the node's address, never the client's."""
    GRE = "GRE"
    """Packets reach the backend whole, in GRE; it answers the client itself, from the VIP's address."""
    L3DSR = "L3DSR"
    """Only destination and DSCP change; the backend knows the VIP by `dscp`, and answers the client itself."""


class Affinity(Choice):
    """What stays with a backend."""

    FLOW = "Flow"
    """Each connection chooses anew."""
    CLIENT_IP = "ClientIP"
    """All connections of one client address go to the same backend."""


class Refusal(Choice):
    """What becomes of packets that cannot be served."""

    REJECT = "Reject"
    """TCP gets a RST and UDP an ICMP port unreachable, as from a host without such a service."""
    DROP = "Drop"
    """They are dropped: clients wait, try again, and time out."""


class HealthCheckType(Choice):
    """How a backend is asked whether it works."""

    NONE = "None"
    """Not at all: the readiness of its endpoint is all that counts."""
    TCP = "TCP"
    """By opening a connection."""
    HTTP = "HTTP"
    """By a GET request."""


class VipPort(Model):
    """One port that the VIP listens on."""

    name: LabelName | None = None
    """A name for people and metrics."""
    port: Port
    """Port that clients connect to."""
    protocol: Protocol = Protocol.TCP
    """Transport protocol."""
    target_port: TargetPort | None = None
    """Port of the backends: a number, or the name of a port of the Service. Default: what the Service's own port of
    this number leads to, else the same as `port`."""

    @property
    def target(self) -> int | str:
        """Port of the backends, the default filled in."""
        return self.port if self.target_port is None else self.target_port


class ServiceBackend(Model):
    """Backends are the endpoints of a Service."""

    name: ObjectName
    """A Service of the VIP's namespace."""


class Endpoint(Model):
    """One server, named by address."""

    address: Address
    """Address of the server; it must lie in `staticEndpointCIDRs` of the DataPlane."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the server for every port of the VIP; 0 means the VIP port's `targetPort`."""
    weight: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Share of new flows in relation to the other endpoints, for the heuristics `static` and `sed`; 0
    stops new flows and leaves open ones alone."""


class Backends(Model):
    """Where flows go: exactly one of the two."""

    service: ServiceBackend | None = None
    """The endpoints of a Service, followed as they come and go."""
    endpoints: (
        Annotated[
            tuple[Endpoint, ...],
            Field(min_length=1, max_length=256, json_schema_extra=map_list("address", "port")),
            unique_by("address and port", lambda endpoint: (endpoint.address, endpoint.port)),
        ]
        | None
    ) = None
    """Servers by address, for what runs outside Kubernetes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.service) != has(self.endpoints)",
            message="exactly one of service and endpoints must be set",
            fix="name a Service, or list endpoints, not both",
            holds=lambda self: (self.service is None) != (self.endpoints is None),
        ),
    )


class FlowTimeouts(Model):
    """Seconds of silence after which a flow is forgotten."""

    tcp_handshake_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """A TCP connection that is not yet established."""
    tcp_established_seconds: Annotated[int, Field(ge=1, le=604_800)] = 7440
    """An established TCP connection. Default: 2 h 4 min, which RFC 5382 asks for. Where the flow table or the NAT ports
    of a backend are used up, open flows that have been silent for longest, 30 s at least, make room for new ones."""
    tcp_closing_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """A TCP connection that both ends have closed, or one has reset; with `NAT`, one end alone: at least 120 s."""
    udp_unreplied_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """UDP without a reply."""
    udp_exchange_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """UDP after one question and answer."""
    udp_stream_seconds: Annotated[int, Field(ge=1, le=86_400)] = 180
    """UDP in both directions, repeatedly."""
    udp_dns_answered_seconds: Annotated[int, Field(ge=1, le=3600)] = 1
    """UDP on port 53 once it has had as many answers as questions."""


_DEFAULT_STATUSES = ((200, 399),)


def _status_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


StatusRange = Annotated[
    str,
    Field(max_length=7, pattern=r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"),
    Rule(
        cel="!self.contains('-') || self.split('-').size() != 2 || self.split('-')[0] <= self.split('-')[1]",
        message="must be a status or a range whose first status is not above its last",
        fix="write for example 200 or 200-399",
        holds=lambda text: _status_range(text)[0] <= _status_range(text)[1],
    ),
]


def _is_printable_path(path: str) -> bool:
    return path.startswith("/") and all(" " < character <= "~" for character in path)


HttpPath = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Rule(
        cel="self.matches('^/[!-~]*$')",
        message="must start with / and hold no spaces or control characters",
        fix="write for example /healthz",
        holds=_is_printable_path,
    ),
]


class HealthCheck(Model):
    """How backends are checked, from every load-balancing node."""

    type: HealthCheckType = HealthCheckType.TCP
    """How a backend is asked whether it works."""
    port: Port | None = None
    """Port that is asked. Default: the one that flows go to; without it, backends of a UDP port are not checked."""
    path: HttpPath | None = None
    """Path and query of the GET request; HTTP needs it."""
    expected_statuses: (
        Annotated[tuple[StatusRange, ...], Field(min_length=1, max_length=16, json_schema_extra=SET), unique("range")]
        | None
    ) = None
    """Statuses that mean healthy, as `200` or `200-399`; for HTTP. Default: `200-399`."""
    interval_seconds: Annotated[int, Field(ge=1, le=300)] = 2
    """Time between two checks of a backend."""
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] = 1
    """Time that a check may take."""
    healthy_threshold: Annotated[int, Field(ge=1, le=10)] = 2
    """Checks in a row that must pass before a failed backend is used again."""
    unhealthy_threshold: Annotated[int, Field(ge=1, le=10)] = 3
    """Checks in a row that must fail before a backend counts as failed."""
    panic_percent: Annotated[int, Field(ge=0, le=100)] = 50
    """When fewer than this share of the backends pass, those whose checks are merely late are used all the same, for
    overload looks like that; 0: never. Not those to which clients send without any packet back."""
    max_failed_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Largest share of the backends that failed checks take out of use, also while all fail; of others, those that
    failed last stay in use."""
    fail_open: bool = True
    """Whether the backends that were the last to pass are used when all fail; else new flows are refused, unless
    `maxFailedPercent` is below 100."""
    slow_start_seconds: Annotated[int, Field(ge=0, le=900)] = 10
    """Time in which the share of a backend that passes again grows to its full size; 0: at once."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.type != 'HTTP' || has(self.path)",
            message="an HTTP check needs a path",
            fix="set healthCheck.path, for example /healthz",
            holds=lambda self: self.type is not HealthCheckType.HTTP or self.path is not None,
        ),
        Rule(
            cel="self.type == 'HTTP' || (!has(self.path) && !has(self.expectedStatuses))",
            message="path and expectedStatuses are for HTTP checks",
            fix="set healthCheck.type to HTTP or remove them",
            holds=lambda self: self.type is HealthCheckType.HTTP or (not self.path and not self.expected_statuses),
        ),
        Rule(
            cel="self.timeoutSeconds <= self.intervalSeconds",
            message="a check must end before the next begins",
            fix="make timeoutSeconds at most intervalSeconds",
            holds=lambda self: self.timeout_seconds <= self.interval_seconds,
            field="timeoutSeconds",
        ),
    )

    def accepts(self, status: int) -> bool:
        """Tell whether an HTTP status means healthy."""
        ranges = (
            [_status_range(text) for text in self.expected_statuses] if self.expected_statuses else _DEFAULT_STATUSES
        )
        return any(first <= status <= last for first, last in ranges)


class VipSpec(Model):
    """What the VIP should be."""

    data_plane_name: LabelName | None = None
    """DataPlane that serves the VIP. Default: the one annotated `penstock.dev/default: "true"`. Can't be changed."""
    address_pool: ObjectName | None = None
    """AddressPool to allocate from. Default: any pool with `autoAssign` that this namespace may use."""
    address_families: Annotated[
        tuple[AddressFamily, ...], Field(min_length=1, max_length=2, json_schema_extra=SET), unique("family")
    ] = (AddressFamily.IPV4,)
    """Families to have an address of. Can't be changed."""
    addresses: (
        Annotated[tuple[Address, ...], Field(min_length=1, max_length=8, json_schema_extra=SET), unique("address")]
        | None
    ) = None
    """Addresses of your choice, each from an AddressPool. Default: one per family is allocated."""
    ports: Annotated[
        tuple[VipPort, ...],
        Field(min_length=1, max_length=32, json_schema_extra=map_list("port", "protocol")),
        unique_by("port and protocol", lambda port: (port.port, port.protocol)),
    ]
    """Ports that the VIP listens on."""
    backends: Backends
    """Where flows go."""
    forwarding: Annotated[Forwarding, immutable("forwarding")] = Forwarding.NAT
    """How packets reach a backend. `NAT` hides the client's address from it; `GRE` and `L3DSR` keep addresses and
    ports, and need servers that are set up for them. Can't be changed."""
    dscp: Annotated[int, Field(ge=1, le=63)] | None = None
    """With `L3DSR`: the DSCP that tells a server which VIP a packet was for."""
    affinity: Affinity = Affinity.FLOW
    """What stays with a backend: each connection by itself, or all of a client address."""
    timeouts: FlowTimeouts = FlowTimeouts()
    """Seconds of silence after which a flow is forgotten."""
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """Time that the flows of a backend on its way out have to end by themselves."""
    when_no_backends: Refusal = Refusal.REJECT
    """What becomes of new flows while no backend takes any: there is none, none is ready, or all have weight 0."""
    when_no_flow: Refusal = Refusal.REJECT
    """What becomes of TCP packets that belong to no flow, say because it was silent for too long. They are always
    dropped where the DataPlane has more than one node, for another may know the flow, and with `GRE` and `L3DSR`."""
    health_check: HealthCheck = HealthCheck()
    """How backends are checked."""
    policy_name: ObjectName | None = None
    """RLPolicy of the same namespace that sets the weights. Default: least loaded (`lsq`)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.dataPlaneName) == has(oldSelf.dataPlaneName) && "
            "(!has(self.dataPlaneName) || self.dataPlaneName == oldSelf.dataPlaneName)",
            message="dataPlaneName can't be changed",
            fix="delete the object and create it anew",
            holds=None,
            field="dataPlaneName",
        ),
        Rule(
            cel="self.addressFamilies.all(f, f in oldSelf.addressFamilies) && "
            "oldSelf.addressFamilies.all(f, f in self.addressFamilies)",
            message="addressFamilies can't be changed",
            fix="delete the object and create it anew",
            holds=None,
            field="addressFamilies",
        ),
        Rule(
            # An entry that is no address has an error of its own, and says nothing of families.
            cel="!has(self.addresses) || self.addresses.exists(a, !isIP(a)) || ("
            "self.addresses.all(a, !isIP(a) || (ip(a).family() == 4 ? 'IPv4' : 'IPv6') in self.addressFamilies) && "
            "self.addressFamilies.all(f, self.addresses.exists(a, "
            "isIP(a) && (ip(a).family() == 4 ? 'IPv4' : 'IPv6') == f)))",
            message="addresses must have the families of addressFamilies, at least one of each",
            fix="list the family in addressFamilies, or add or remove an address",
            holds=lambda self: (
                self.addresses is None or {family_of(a) for a in self.addresses} == set(self.address_families)
            ),
            field="addresses",
        ),
        Rule(
            cel="!has(self.backends.endpoints) || self.backends.endpoints.all(e, "
            "!isIP(e.address) || (ip(e.address).family() == 4 ? 'IPv4' : 'IPv6') in self.addressFamilies)",
            message="an endpoint has an address of a family that the VIP has not",
            fix="list the family in addressFamilies or remove the endpoint",
            holds=lambda self: all(
                family_of(e.address) in self.address_families for e in self.backends.endpoints or ()
            ),
            field="backends.endpoints",
        ),
        Rule(
            cel="!has(self.addresses) || !has(self.backends.endpoints) || "
            "self.backends.endpoints.all(e, !(e.address in self.addresses))",
            message="an endpoint has an address of the VIP itself, which would be a loop",
            fix="use the server's own address",
            holds=lambda self: not ({e.address for e in self.backends.endpoints or ()} & set(self.addresses or ())),
            field="backends.endpoints",
        ),
        Rule(
            cel="!has(self.backends.endpoints) || self.ports.all(p, !has(p.targetPort) || type(p.targetPort) == int)",
            message="a targetPort can be a name only where a Service gives names to its ports",
            fix="write the number of the endpoints' port",
            holds=lambda self: (
                self.backends.endpoints is None or all(isinstance(port.target, int) for port in self.ports)
            ),
            field="ports",
        ),
        Rule(
            cel="(self.forwarding == 'L3DSR') == has(self.dscp)",
            message="dscp belongs to forwarding L3DSR, which needs it",
            fix="set dscp to the number that the servers know the VIP by, or remove it",
            holds=lambda self: (self.forwarding is Forwarding.L3DSR) == (self.dscp is not None),
            field="dscp",
        ),
        Rule(
            cel="self.forwarding == 'NAT' || self.ports.all(p, !has(p.targetPort) || p.targetPort == p.port)",
            message="only NAT can change the port: with GRE and L3DSR targetPort is the port itself",
            fix="remove targetPort, or use forwarding NAT",
            holds=lambda self: (
                self.forwarding is Forwarding.NAT or all(port.target == port.port for port in self.ports)
            ),
            field="ports",
        ),
        Rule(
            cel="self.healthCheck.type != 'HTTP' || has(self.healthCheck.port) || "
            "self.ports.all(p, p.protocol == 'TCP')",
            message="a UDP port cannot be checked by HTTP",
            fix="set healthCheck.port to a TCP port of the backends, or healthCheck.type to None",
            holds=lambda self: (
                self.health_check.type is not HealthCheckType.HTTP
                or self.health_check.port is not None
                or all(port.protocol is Protocol.TCP for port in self.ports)
            ),
            field="healthCheck",
        ),
    )


class VipNodes(Model):
    """How far the nodes of the DataPlane are."""

    selected: Count = 0
    """Load-balancing nodes of the DataPlane."""
    ready: Count = 0
    """Of these, the ones that work."""
    programmed: Count = 0
    """Of these, the ones that forward as the spec says."""


class HeldPort(Model):
    """A port that the VIP holds on each of its addresses."""

    port: Port
    """Port that clients connect to."""
    protocol: Protocol
    """Transport protocol."""


class VipAnnouncement(Model):
    """Which node the network sends an address to."""

    address: AddressInStatus
    """Address of the VIP."""
    node_name: ObjectName
    """Node that announces it."""


class VipSummary(Model):
    """The columns of `kubectl get vip`."""

    addresses: ShortText = ""
    """Addresses in force."""
    ports: ShortText = ""
    """Ports and protocols."""
    backends: ShortText = ""
    """Healthy backends of all, for example `3/4`."""
    policy: ShortText = ""
    """Policy in force and its mode."""


class VipStatus(Status):
    """What the VIP is."""

    data_plane_name: ShortText | None = None
    """DataPlane that serves the VIP, the default filled in."""
    addresses: Annotated[tuple[AddressInStatus, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    """Addresses that the VIP holds; these are programmed."""
    ports: Annotated[tuple[HeldPort, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Ports that the VIP holds on these addresses: those of the last spec that was accepted."""
    address_pool: ShortText | None = None
    """`addressPool` of the spec that the addresses were given for."""
    announcements: Annotated[tuple[VipAnnouncement, ...], Field(max_length=64, json_schema_extra=ATOMIC)] = ()
    """Which node announces which address, with announcement `L2`."""
    nodes: VipNodes | None = None
    """How far the nodes of the DataPlane are."""
    summary: VipSummary = VipSummary()
    """The columns of `kubectl get vip`."""


class LoadBalancerVIP(KubeObject):
    """A service address with its ports, and the servers that new flows to it are spread over."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="LoadBalancerVIP",
        plural="loadbalancervips",
        singular="loadbalancervip",
        short_names=("vip",),
        namespaced=True,
        columns=(
            Column("Addresses", ".status.summary.addresses"),
            Column("Ports", ".status.summary.ports"),
            Column("Backends", ".status.summary.backends", description="healthy/all"),
            Column("Policy", ".status.summary.policy"),
            *ready_columns(),
            AGE_COLUMN,
            Column("DataPlane", ".status.dataPlaneName", priority=1),
        ),
    )

    kind: Literal["LoadBalancerVIP"] = "LoadBalancerVIP"
    spec: VipSpec
    """What the VIP should be."""
    status: VipStatus = VipStatus()
    """What the VIP is."""
