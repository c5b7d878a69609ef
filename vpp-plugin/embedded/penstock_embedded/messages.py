"""Messages between an agent and a data plane over its control socket.

One request and one reply per line, JSON in UTF-8, at most `MAX_MESSAGE_BYTES` each. A request carries
the complete desired state, never a change to it: applying the same request twice changes nothing.
Computation only: no sockets here, so that the agent may import this module alone.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainValidator, field_validator, model_validator

PROTOCOL_VERSION = 1
# Counts what requests gained within the version: 2 added when_no_backends, when_no_flow and the state unready.
PROTOCOL_REVISION = 2
MAX_MESSAGE_BYTES = 8 * 1024 * 1024


def _address(value: Any) -> IPv4Address | IPv6Address:
    """Read an address as one thing: a union of two types would name each of them in the field of an error."""
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise ValueError("must be an IPv4 or IPv6 address, as text")  # noqa: TRY004 -- pydantic wants it so
    address = ip_address(value)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise ValueError(f"{address} is an IPv4 address in IPv6's clothes: write {address.ipv4_mapped}")
        if address.scope_id is not None:
            raise ValueError(f"{address} has a zone, which means nothing to other nodes: leave it out")
    return address


Address = Annotated[
    IPv4Address | IPv6Address, PlainValidator(_address), Field(description="IPv4 or IPv6 address, without a zone")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="128-bit key in hexadecimal")]


class Message(BaseModel):
    """Base of what an agent asks: unknown fields are errors, for what they want would not be done.

    Lists end at their first error: a request with a million of them is refused as fast as one with one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Answer(BaseModel):
    """Base of what a data plane says: what a newer one adds is left out, so that an older agent goes on."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Protocol(StrEnum):
    """Transport protocol of a VIP."""

    TCP = "TCP"
    UDP = "UDP"


class SchedulerType(StrEnum):
    """Rule that picks a backend for a new flow."""

    MAGLEV = "maglev"
    SED = "sed"
    LSQ = "lsq"
    ALIAS = "alias"
    P2C = "p2c"


class SchedulerLoad(StrEnum):
    """Flows that count as a backend's load, for schedulers that compare loads."""

    OPEN = "open"
    ACTIVE = "active"  # those that wait for an answer; TCP at level full, else as open


class BackendState(StrEnum):
    """What the data plane may do with a backend."""

    ACTIVE = "active"  # takes new flows
    DRAINING = "draining"  # keeps its flows until they end or the drain timeout passes
    FAILED = "failed"  # its flows are cut by rule
    UNREADY = "unready"  # keeps its flows for as long as it is listed so


class Refusal(StrEnum):
    """What becomes of packets that cannot be served."""

    REJECT = "reject"  # TCP gets a RST, UDP an ICMP port unreachable
    DROP = "drop"


class FeatureLevel(StrEnum):
    """How much is measured of each flow."""

    OFF = "off"
    BASIC = "basic"
    FULL = "full"


class Forwarding(StrEnum):
    """How packets reach a backend; GRE and L3DSR are one-way: it answers clients itself, from the VIP's address."""

    NAT = "NAT"
    GRE = "GRE"
    L3DSR = "L3DSR"


class Backend(Message):
    """One server behind a VIP; `id` stays the same for as long as it is the same server."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    address: Address
    port: Port
    weight: Weight = 1.0
    state: BackendState = BackendState.ACTIVE


class Scheduler(Message):
    """Scheduler of one VIP; `table_size` is Maglev's M and must be prime."""

    type: SchedulerType = SchedulerType.LSQ
    load: SchedulerLoad = SchedulerLoad.OPEN
    table_size: Annotated[int, Field(ge=251, le=1_048_583)] = 65_537


class Timeouts(Message):
    """Seconds of silence after which a flow's state is dropped."""

    tcp_handshake: Annotated[float, Field(gt=0, le=300)] = 10.0
    tcp_established: Annotated[float, Field(gt=0, le=604_800)] = 7440.0  # RFC 5382, REQ-5
    tcp_closing: Annotated[float, Field(gt=0, le=300)] = 10.0
    udp_unreplied: Annotated[float, Field(gt=0, le=3600)] = 10.0
    udp_exchange: Annotated[float, Field(gt=0, le=3600)] = 30.0
    udp_stream: Annotated[float, Field(gt=0, le=86_400)] = 180.0
    udp_dns_answered: Annotated[float, Field(gt=0, le=3600)] = 1.0


class Vip(Message):
    """One core VIP: one port over all addresses of one family.

    `id` names its shared-memory objects (`/penstock.<id>.frames` and `.actions`); `key` is for people.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    key: Annotated[str, Field(min_length=1, max_length=600)]
    addresses: Annotated[tuple[Address, ...], Field(min_length=1, max_length=8), FailFast()]
    protocol: Protocol = Protocol.TCP
    port: Port
    forwarding: Forwarding = Forwarding.NAT  # can't be changed
    dscp: Annotated[int, Field(ge=0, le=63)] = 0  # L3DSR: tells the backend which VIP it was; else 0
    tunnel_mtu: Annotated[int, Field(ge=1280, le=65_535)] = (
        1500  # GRE: of the way to the backends, outer header included; IPv6 VIPs: 1304 or more, 1324 with IPv6 backends
    )
    client_affinity: bool = False  # all flows of one client address to the same backend (maglev)
    when_no_backends: Refusal = Refusal.REJECT  # new flows that no backend takes
    when_no_flow: Refusal = Refusal.REJECT  # TCP without a flow; dropped always where nodes > 1, and with GRE and L3DSR
    scheduler: Scheduler = Scheduler()
    features: FeatureLevel = FeatureLevel.BASIC
    timeouts: Timeouts = Timeouts()
    drain_timeout: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    backends: Annotated[tuple[Backend, ...], Field(max_length=1024), FailFast()] = ()

    @model_validator(mode="after")
    def _check(self) -> Vip:
        if len({a.version for a in self.addresses}) != 1:
            raise ValueError("addresses: a core VIP has addresses of one family; make one VIP per family")
        if (self.forwarding is Forwarding.L3DSR) != (self.dscp != 0):
            raise ValueError("dscp: must be 1 to 63 with L3DSR, and 0 without")
        ids = [b.id for b in self.backends]
        if len(set(ids)) != len(ids):
            raise ValueError("backends: each id may appear once")
        return self


class NatSource(Message):
    """An address and port range that the data plane may use as the source of NAT flows.

    `port_first` and the number of ports are multiples of 64: the low 6 bits of a NAT port name the
    partition that owns the flow.
    """

    address: Address
    port_first: Annotated[int, Field(ge=1024, le=65472, multiple_of=64)]
    port_last: Annotated[int, Field(ge=1087, le=65535)]

    @model_validator(mode="after")
    def _check(self) -> NatSource:
        if self.port_last <= self.port_first or (self.port_last + 1) % 64:
            raise ValueError("port_last: must be above port_first and one less than a multiple of 64")
        return self


class Announcement(Message):
    """Addresses that this node answers ARP and neighbour discovery for (`L2`)."""

    interfaces: Annotated[tuple[str, ...], Field(max_length=16), FailFast()] = ()  # empty: that of the default route
    addresses: Annotated[tuple[Address, ...], Field(max_length=4096), FailFast()] = ()


class DesiredState(Message):
    """All that a data plane should be; what is not in it goes (VIPs by drain, then removal)."""

    generation: Annotated[int, Field(ge=0)]  # counts up at the agent; echoed in replies
    scheduler_key: Key  # shared by all nodes of a DataPlane
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1  # load-balancing nodes that share the load (L)
    nat_sources: Annotated[tuple[NatSource, ...], Field(max_length=8), FailFast()] = ()
    announcement: Announcement = Announcement()
    vips: Annotated[tuple[Vip, ...], Field(max_length=4096), FailFast()] = ()

    @field_validator("nat_sources")
    @classmethod
    def _check_sources(cls, sources: tuple[NatSource, ...]) -> tuple[NatSource, ...]:
        if len({source.address for source in sources}) != len(sources):
            raise ValueError("an address appears twice: give each address one port range")
        return sources


class Method(StrEnum):
    """What a request asks for."""

    HELLO = "hello"  # -> Hello
    APPLY = "apply"  # params: DesiredState -> ApplyResult
    DUMP = "dump"  # -> Dump
    STATS = "stats"  # -> Stats
    WITHDRAW = "withdraw"  # remove everything from the node and forget the state -> {}


class Request(Message):
    """One line from the agent."""

    version: Literal[1] = 1
    id: Annotated[int, Field(ge=0, lt=2**53)]
    method: Method
    params: dict[str, Any] = {}


class Error(Answer):
    """Why a request, or one VIP of it, was refused: which field, what is wrong, what to do."""

    code: str  # malformed, too-large, forbidden, invalid, unsupported, conflict, exhausted, stalled, internal
    field: str = ""
    message: str
    fix: str = ""


class Reply(Answer):
    """One line from the data plane; `error` is set exactly when nothing was changed."""

    id: int
    result: dict[str, Any] | None = None
    error: Error | None = None


class Hello(Answer):
    """Who the data plane is."""

    protocol_version: int
    protocol_revision: int = 1  # of the requests that it understands
    version: str
    type: Literal["embedded", "vpp"]
    instance_id: str  # new at each start of the process
    boot_id: str
    reattached_flows: int  # flows found in the arena at start
    generation: int | None  # of the state in force, None before the first apply


class VipResult(Answer):
    """Outcome of one VIP of an apply."""

    id: str
    error: Error | None = None
    warnings: tuple[str, ...] = ()  # for example weights that a Maglev table cannot represent


class ApplyResult(Answer):
    """Outcome of an apply: each VIP is applied whole or not at all."""

    generation: int
    changed: bool
    vips: tuple[VipResult, ...]
    errors: tuple[Error, ...] = ()  # of the node: devices, routes, announcement


class BackendStatus(Answer):
    """A backend as the data plane has it."""

    id: str
    slot: int
    address: Address
    port: Port
    state: str  # a BackendState, or one that only a newer data plane knows
    weight: float  # in force
    base: float = 0.0  # in force: flows that sed and p2c add to the count; 0: not known
    open_flows: int
    flows: int  # since the backend was added
    packets: int
    bytes: int


class VipStatus(Answer):
    """A VIP as the data plane has it."""

    id: str
    key: str
    frames: str  # name of the shared-memory object in force
    actions: str
    slots: int
    backends: tuple[BackendStatus, ...]


class Dump(Answer):
    """The state in force."""

    instance_id: str
    generation: int | None
    vips: tuple[VipStatus, ...]


class Stats(Answer):
    """Counters of the data plane since its start."""

    instance_id: str
    uptime_seconds: float
    packets: int
    forwarded: int
    dropped: dict[str, int]  # by reason
    flows: int
    flow_capacity: int
    half_open: int
    recycled: int = 0  # half-open flows that made room for new ones before their handshake or time-out ended
    evicted: int = 0  # open flows that made room for new ones, for they had been silent for longest
    queue_dropped: int = 0  # packets that found the device's queue full, since the device was made
    # Announced addresses that another node was heard to announce: given up until the next apply.
    findings: tuple[str, ...] = ()  # what is wanting on this node, each with its remedy
    lost_announcements: tuple[Address, ...] = ()
    policy: str = ""  # that an operator wants on this node in place of those configured; "": none
