"""What an agent shows of itself: the answer of `/state`, which `penstock top` reads, and the source of its metrics."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from penstock_embedded.messages import BackendState, Protocol, SchedulerType
from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """Base of all parts; readers of another version ignore what they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Durations(View):
    """A channel of one backend, in seconds."""

    samples: int
    mean: float  # the recent weigh more
    p50: float
    p90: float


class BackendView(View):
    """One server behind a core VIP."""

    id: str
    address: IPv4Address | IPv6Address
    port: int
    slot: int | None  # None: the data plane does not have it yet
    state: BackendState
    healthy: bool
    health_error: str  # of the last check, "" when it passed
    weight: float | None  # written last
    wanted: float | None  # by the policy, within guardrails; differs from weight in Shadow; None: not decided
    base: float | None = None  # written last; None: the data plane's own
    wanted_base: float | None = None  # by the policy, likewise
    open_flows: int
    flows: int  # this and the next two since the backend took its slot
    packets: int
    bytes: int
    flow_rate: float  # flows per second over the last two
    fct: Durations | None  # completion times of flows
    flow_duration: Durations | None  # ages of flows at each packet
    active_flows: int | None = None  # with a request outstanding; this and the next two at features: full only
    handshake: Durations | None = None  # until the server answered the SYN
    first_byte: Durations | None = None  # from the client's first payload to the server's first answer


class VipView(View):
    """One core VIP."""

    id: str
    key: str
    namespace: str
    name: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    port: int
    protocol: Protocol
    scheduler: SchedulerType
    policy: str
    mode: str
    fallback: str
    fallback_reason: str  # why the fallback is used, "" while the policy is
    fail_open: bool
    panic: bool = False  # too few backends pass their checks, so those that are late are used
    no_path: bool = False  # backends pass their checks, and clients get no packet of theirs
    paused: bool
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    frame_age: float | None  # seconds; None: no frame could be read
    steps: dict[str, int]  # decisions by what they led to: active, or the reason of the fallback
    held: dict[str, int]  # weights that guardrails held back
    write_errors: int
    backends: tuple[BackendView, ...]


class DataPlaneView(View):
    """The data plane of this node."""

    connected: bool
    instance_id: str
    version: str
    flows: int
    flow_capacity: int
    half_open: int
    recycled: int = 0
    evicted: int = 0
    queue_dropped: int = 0
    packets: int
    forwarded: int
    dropped: dict[str, int]
    reattached_flows: int
    error: str


class AgentState(View):
    """An agent and all it has."""

    version: str
    node: str
    dataplane: str
    time: float  # seconds since 1970
    uptime: float
    settled: bool  # the data plane has the desired state
    link: DataPlaneView
    source_error: str
    findings: tuple[str, ...] = ()  # about this node itself, each with its remedy
    source_ages: dict[str, float]
    announced: tuple[IPv4Address | IPv6Address, ...]
    turns: int
    turn_seconds: float  # of the last turn of the loop over all VIPs
    late_seconds: float
    health_checks: int
    health_unmade: int = 0  # checks that this machine could not make
    health_lag: float
    applies: int
    apply_failures: int
    vips: tuple[VipView, ...]
