"""Conditions of a kind's status, as kstatus and `kubectl wait` understand them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainSerializer

from penstock_api.choices import Choice
from penstock_api.model import Model

MESSAGE_LIMIT = 1024

Timestamp = Annotated[
    datetime, PlainSerializer(lambda time: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str)
]


class ConditionType(StrEnum):
    """Types of conditions."""

    ACCEPTED = "Accepted"
    """The spec is valid and nothing else holds what it asks for."""
    PROGRAMMED = "Programmed"
    """All selected, Ready nodes forward as the spec says."""
    READY = "Ready"
    """Traffic is served."""
    RECONCILING = "Reconciling"
    """Work is under way; present only when True."""
    STALLED = "Stalled"
    """Nothing more happens until somebody changes something; present only when True."""


class Reason(StrEnum):
    """Reasons of conditions; the message tells the fix."""

    PENDING = "Pending"
    ACCEPTED = "Accepted"
    PROGRAMMED = "Programmed"
    READY = "Ready"
    PAUSED = "Paused"
    PROGRESSING = "Progressing"
    DELETING = "Deleting"
    INVALID_SPEC = "InvalidSpec"
    # LoadBalancerVIP
    ADDRESS_CONFLICT = "AddressConflict"
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
    NO_ADDRESS_AVAILABLE = "NoAddressAvailable"
    POOL_NOT_FOUND = "PoolNotFound"
    DATAPLANE_NOT_FOUND = "DataPlaneNotFound"
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    POLICY_NOT_FOUND = "PolicyNotFound"
    POLICY_CONFLICT = "PolicyConflict"
    NO_BACKENDS = "NoBackends"
    FAIL_OPEN = "FailOpen"
    NODES_FAILING = "NodesFailing"
    NO_READY_NODES = "NoReadyNodes"
    # AddressPool, DataPlane, DataPlaneNode
    POOL_OVERLAP = "PoolOverlap"
    NODE_CONFLICT = "NodeConflict"
    NO_NODES_SELECTED = "NoNodesSelected"
    NODES_NOT_READY = "NodesNotReady"
    NODE_NOT_READY = "NodeNotReady"
    NODE_LOST = "NodeLost"
    PREFLIGHT_FAILED = "PreflightFailed"
    DATAPLANE_UNREACHABLE = "DataPlaneUnreachable"
    FRAMES_STALE = "FramesStale"
    ERROR = "Error"


class ConditionStatus(Choice):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


TRANSIENT = frozenset({ConditionType.RECONCILING, ConditionType.STALLED})
"""Types that are absent unless True."""


class Condition(Model):
    """One aspect of an object's state."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Aspect, for example `Ready`."""
    status: ConditionStatus
    """`True`, `False` or `Unknown`."""
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
