"""Conditions of a kind's status, as kstatus and `kubectl wait` understand them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, PlainSerializer

from penstock_api.choices import Choice
from penstock_api.model import Model

MESSAGE_LIMIT = 1024

Timestamp = Annotated[
    datetime, PlainSerializer(lambda time: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str)
]


class ConditionType(Choice):
    """Types of conditions."""

    ACCEPTED = "Accepted"
    """The spec is valid and nothing else holds what it asks for."""
    PROGRAMMED = "Programmed"
    """All selected, Ready nodes forward as the spec says."""
    READY = "Ready"
    """Traffic is served."""
    OVERLOADED = "Overloaded"
    """New flows or packets are lost for want of something; of nodes and DataPlanes. It goes back to False when
    nothing was lost for a minute."""
    RECONCILING = "Reconciling"
    """Work is under way; present only when True."""
    STALLED = "Stalled"
    """Nothing more happens until somebody changes something; present only when True."""


class Reason(Choice):
    """Reasons of conditions; the message names what is concerned and tells the fix."""

    PENDING = "Pending"
    """Nobody has looked yet; check that the operator runs."""
    ACCEPTED = "Accepted"
    """Valid, and in conflict with nothing."""
    PROGRAMMED = "Programmed"
    """In force on all selected, Ready nodes."""
    READY = "Ready"
    """Works."""
    PAUSED = "Paused"
    """Frozen by the annotation `penstock.dev/paused`; remove it to go on."""
    PROGRESSING = "Progressing"
    """On its way; wait."""
    DELETING = "Deleting"
    """On its way out; wait."""
    INVALID_SPEC = "InvalidSpec"
    """The spec breaks a rule that the API server can't check."""
    ADDRESS_CONFLICT = "AddressConflict"
    """The address and port are held by another VIP, or something else in the cluster claims an address that the VIP
    holds; it keeps it."""
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
    """The address lies in no AddressPool that the namespace may use."""
    NO_ADDRESS_AVAILABLE = "NoAddressAvailable"
    """No pool that the namespace may use has a free address of the family."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace holds as many addresses of the pool as `addressesPerNamespace` allows."""
    POOL_NOT_FOUND = "PoolNotFound"
    """There is no AddressPool of this name."""
    DATAPLANE_NOT_FOUND = "DataPlaneNotFound"
    """There is no DataPlane of this name, or none annotated as default."""
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    """A static endpoint lies outside `staticEndpointCIDRs` of the DataPlane."""
    SERVICE_NOT_FOUND = "ServiceNotFound"
    """There is no Service of this name in the VIP's namespace."""
    POLICY_NOT_FOUND = "PolicyNotFound"
    """There is no RLPolicy of this name in the VIP's namespace; the default policy is used."""
    POLICY_CONFLICT = "PolicyConflict"
    """The policy can't be used with the VIP, for example affinity ClientIP without the scheduler maglev."""
    NO_BACKENDS = "NoBackends"
    """The VIP has no backends."""
    FAIL_OPEN = "FailOpen"
    """All backends fail their health checks, so the last ones go on being used."""
    NODES_FAILING = "NodesFailing"
    """Some nodes don't forward as the spec says."""
    NO_READY_NODES = "NoReadyNodes"
    """No node of the DataPlane works."""
    POOL_OVERLAP = "PoolOverlap"
    """Addresses belong to two pools, or to nodes, pods or Services."""
    NODE_CONFLICT = "NodeConflict"
    """A node is selected by two DataPlanes; it belongs to the older one."""
    NO_NODES_SELECTED = "NoNodesSelected"
    """No node matches the selector."""
    NODES_NOT_READY = "NodesNotReady"
    """Some nodes of the DataPlane don't work."""
    AGENT_SILENT = "AgentSilent"
    """The node's agent has not renewed its Lease for 30 s; look at its pod and the pod's log."""
    NODE_NOT_READY = "NodeNotReady"
    """Kubernetes says that the node is not Ready."""
    NODE_LOST = "NodeLost"
    """The node is gone, or has not been Ready for 5 minutes."""
    PREFLIGHT_FAILED = "PreflightFailed"
    """The node lacks something; the message has the command that mends it."""
    DATAPLANE_UNREACHABLE = "DataPlaneUnreachable"
    """The agent can't reach the data plane's control socket."""
    FRAMES_STALE = "FramesStale"
    """The data plane publishes no fresh measurements."""
    SUFFICIENT = "Sufficient"
    """There is room for what arrives."""
    FLOW_TABLE_FULL = "FlowTableFull"
    """New flows are dropped: raise `flowTableSize` of the DataPlane, add nodes, or shorten timeouts."""
    NAT_PORTS_EXHAUSTED = "NATPortsExhausted"
    """New flows are dropped, every NAT port to their backend is in use: widen `natSource`, add nodes or backends."""
    HANDSHAKES_CUT_SHORT = "HandshakesCutShort"
    """Half-open connections last less than a second, for there are too many: bound SYNs before the node."""
    PACKETS_DROPPED = "PacketsDropped"
    """More arrives than the data plane can take: give its pod more processor time, or add nodes."""
    ERROR = "Error"
    """Something else; the message says what."""


class ConditionStatus(Choice):
    """Whether a condition holds."""

    TRUE = "True"
    """It holds."""
    FALSE = "False"
    """It doesn't."""
    UNKNOWN = "Unknown"
    """Nobody knows yet."""


TRANSIENT = frozenset({ConditionType.RECONCILING, ConditionType.STALLED})
"""Types that are absent unless True."""


class Condition(Model):
    """One aspect of an object's state."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Aspect, for example `Ready`."""
    status: ConditionStatus
    """Whether it holds."""
    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """Generation of the spec that this was found for."""
    last_transition_time: Timestamp
    """When `status` last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """One word for programs."""
    message: Annotated[str, Field(max_length=MESSAGE_LIMIT)] = ""
    """A sentence for people: what is the matter and how to mend it."""


NEVER = datetime(1970, 1, 1, tzinfo=UTC)

PENDING = (
    Condition(
        type=ConditionType.READY,
        status=ConditionStatus.UNKNOWN,
        observed_generation=-1,
        last_transition_time=NEVER,
        reason=Reason.PENDING,
        message="Waiting for Penstock; if this stays, check that its operator runs",
    ),
)
"""Conditions of an object that nobody has looked at yet."""


def get_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of a type."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Tell whether a condition is there and True."""
    condition = get_condition(conditions, type_)
    return condition is not None and condition.status is ConditionStatus.TRUE


def set_condition(
    conditions: Iterable[Condition],
    type_: str,
    status: bool | ConditionStatus | None,
    reason: str,
    message: str,
    observed_generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return `conditions` with one of them set; its transition time moves only when its status changes.

    `status` None means Unknown. `Reconciling` and `Stalled` are removed when they aren't True. Equal input gives
    equal output, so a second run writes nothing.
    """
    status = _status(status)
    before = tuple(conditions)
    if type_ in TRANSIENT and status is not ConditionStatus.TRUE:
        return tuple(condition for condition in before if condition.type != type_)
    old = get_condition(before, type_)
    new = Condition(
        type=type_,
        status=status,
        observed_generation=observed_generation,
        last_transition_time=old.last_transition_time if old and old.status is status else now.replace(microsecond=0),
        reason=reason,
        message=message if len(message) <= MESSAGE_LIMIT else f"{message[: MESSAGE_LIMIT - 3]}...",
    )
    if old is None:
        return (*before, new)
    return tuple(new if condition.type == type_ else condition for condition in before)


def _status(status: bool | ConditionStatus | None) -> ConditionStatus:
    if status is None:
        return ConditionStatus.UNKNOWN
    if isinstance(status, bool):
        return ConditionStatus.TRUE if status else ConditionStatus.FALSE
    return status
