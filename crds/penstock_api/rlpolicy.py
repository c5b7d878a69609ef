"""RLPolicy: how the weights of a VIP's backends come about."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from penstock_api.choices import Choice
from penstock_api.model import Model
from penstock_api.names import AGE_COLUMN, Column, KindInfo, ready_columns
from penstock_api.objects import KubeObject, ShortText, Status
from penstock_api.rules import Rule

FRAME_MILLISECONDS = 200
"""The data plane publishes a frame this often; a policy can't decide more often."""

TableSize = Literal[251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537, 131071, 262139, 524287, 1048573]
"""Sizes of a Maglev table: primes near powers of two."""


class Heuristic(Choice):
    """Rule that sets the weights."""

    EQUAL = "equal"
    """All the same."""
    STATIC = "static"
    """As configured on the endpoints."""
    LSQ = "lsq"
    """None: the least loaded backend takes the next flow."""
    SED = "sed"
    """As configured, and the backend with the shortest expected delay takes the next flow."""
    INVERSE_DURATION = "inverse-duration"
    """In inverse proportion to the mean time work takes: a request until its answer begins where the DataPlane records
    features at level `full`, else a flow until it is complete."""
    LITTLE = "little"
    """Work that ends per second plus 1 / mean time it takes: by Little's law the rate at which a backend gets work
    done. Work is as for inverse-duration."""
    BAYES = "bayes"
    """Learned from how fast requests end under which load: number of cores and speed of each backend, as a weight and a
    base for the scheduler `sed`. Best with `load: Active`, where the DataPlane records features at level `full`."""


class SchedulerName(Choice):
    """Rule by which the data plane picks a backend for a new flow."""

    MAGLEV = "maglev"
    """Consistent hash over the weights: all nodes choose alike, counts don't matter."""
    SED = "sed"
    """Shortest expected delay: least flows in relation to weight."""
    LSQ = "lsq"
    """Least flows, weights don't matter."""
    ALIAS = "alias"
    """At random, in proportion to the weights; counts don't matter."""
    P2C = "p2c"
    """The better of two such draws, by flows in relation to weight: nearly as even as `sed`, and herds less."""


class SchedulerLoad(Choice):
    """Flows that count as a backend's load."""

    OPEN = "Open"
    """Those that are open, idle or not."""
    ACTIVE = "Active"
    """Those that wait for an answer: better where clients keep connections open. TCP only, and with
    `features: full` of the DataPlane; elsewhere as `Open`."""


class PolicyMode(Choice):
    """What becomes of the weights."""

    ACTIVE = "Active"
    """They are used."""
    SHADOW = "Shadow"
    """They are computed and exported as metrics; the fallback is used."""
    OFF = "Off"
    """They aren't computed; the fallback is used."""


def _off_unquoted(value: Any) -> Any:
    return PolicyMode.OFF if value is False else value


ModeField = Annotated[
    PolicyMode,
    BeforeValidator(_off_unquoted),
    Field(json_schema_extra={"enum": [*PolicyMode, False], "x-kubernetes-preserve-unknown-fields": True}),
]
"""A mode, or what YAML makes of an unquoted `Off`. A structural schema has no unions, but may leave a type open."""


class Fallback(Choice):
    """Heuristic used when the policy is off, in shadow, or can't decide."""

    LSQ = "lsq"
    """The least loaded backend takes the next flow."""
    EQUAL = "equal"
    """All weights the same."""
    STATIC = "static"
    """Weights as configured."""
    SED = "sed"
    """Weights as configured, shortest expected delay."""


class Guardrails(Model):
    """Bounds that every decision passes before it reaches the data plane."""

    max_weight_ratio: Annotated[float, Field(ge=1, le=1000)] = 10.0
    """The largest weight is at most this many times the smallest. A base, where a policy sets one, is at most this many
    times balancers x (1 + mean open flows of a backend at one of them)."""
    max_change_per_step: Annotated[float, Field(ge=0.01, le=1)] = 0.25
    """A weight changes by at most this fraction from one decision to the next, and so does 1 + base."""
    max_frame_age_milliseconds: Annotated[int, Field(ge=2 * FRAME_MILLISECONDS, le=60_000)] = 1000
    """Measurements older than this aren't decided on; the fallback takes over until fresh ones come."""


_DEFAULT_SCHEDULERS = {
    Heuristic.EQUAL: SchedulerName.MAGLEV,
    Heuristic.STATIC: SchedulerName.MAGLEV,
    Heuristic.LSQ: SchedulerName.LSQ,
}


_COMPARE_LOADS = {SchedulerName.SED, SchedulerName.LSQ, SchedulerName.P2C}


class PolicySpec(Model):
    """How weights come about."""

    heuristic: Heuristic
    """Rule that sets the weights."""
    scheduler: SchedulerName | None = None
    """Rule by which the data plane picks a backend. Default: `maglev` for `equal` and `static`, `lsq` for `lsq`,
    else `sed`."""
    load: SchedulerLoad = SchedulerLoad.OPEN
    """Flows that count as a backend's load, for the schedulers `sed`, `lsq` and `p2c`."""
    interval_milliseconds: Annotated[int, Field(ge=FRAME_MILLISECONDS, le=60_000, multiple_of=FRAME_MILLISECONDS)] = (
        FRAME_MILLISECONDS
    )
    """Time between two decisions, a multiple of 200."""
    mode: ModeField = PolicyMode.ACTIVE
    """What becomes of the weights. `false` means `Off`: that is what YAML makes of the word without quotes."""
    table_size: TableSize = 65_537
    """Entries of the Maglev table, a prime; more entries represent weights more finely."""
    guardrails: Guardrails = Guardrails()
    """Bounds that every decision passes."""
    fallback: Fallback = Fallback.LSQ
    """Heuristic used when the policy is off, in shadow, or can't decide."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.scheduler) || (self.scheduler == 'lsq') == (self.heuristic == 'lsq')",
            message="the scheduler lsq ignores weights, so it goes with the heuristic lsq and with no other",
            fix="remove scheduler, or set both to lsq",
            holds=lambda self: (
                self.scheduler is None or (self.scheduler is SchedulerName.LSQ) == (self.heuristic is Heuristic.LSQ)
            ),
            field="scheduler",
        ),
        Rule(
            cel="!has(self.scheduler) || self.heuristic != 'sed' || self.scheduler == 'sed'",
            message="the heuristic sed is the scheduler sed with configured weights",
            fix="remove scheduler, or use the heuristic static with the scheduler maglev",
            holds=lambda self: (
                self.scheduler is None or self.heuristic is not Heuristic.SED or self.scheduler is SchedulerName.SED
            ),
            field="scheduler",
        ),
        Rule(
            cel="self.load == 'Open' || (has(self.scheduler) ? self.scheduler in ['sed', 'lsq', 'p2c'] : "
            "!(self.heuristic in ['equal', 'static']))",
            message="the schedulers maglev and alias don't look at loads",
            fix="remove load, or use the scheduler sed, lsq or p2c",
            holds=lambda self: self.load is SchedulerLoad.OPEN or self.effective_scheduler in _COMPARE_LOADS,
            field="load",
        ),
    )

    @property
    def effective_scheduler(self) -> SchedulerName:
        """The scheduler in force, the default filled in."""
        return self.scheduler or default_scheduler(self.heuristic)


def default_scheduler(heuristic: Heuristic) -> SchedulerName:
    """Return the scheduler that goes with a heuristic unless the user says otherwise."""
    return _DEFAULT_SCHEDULERS.get(heuristic, SchedulerName.SED)


class PolicySummary(Model):
    """The columns of `kubectl get rlp`."""

    mode: ShortText = ""
    """What becomes of the weights."""
    vips: ShortText = ""
    """Number of VIPs that use the policy."""


class PolicyStatus(Status):
    """Who uses the policy."""

    summary: PolicySummary = PolicySummary()
    """The columns of `kubectl get rlp`."""


class RLPolicy(KubeObject):
    """How the weights of a VIP's backends come about: a heuristic, its bounds and what replaces it in need."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="RLPolicy",
        plural="rlpolicies",
        singular="rlpolicy",
        short_names=("rlp",),
        namespaced=True,
        columns=(
            Column("Heuristic", ".spec.heuristic"),
            Column("Mode", ".status.summary.mode"),
            Column("Fallback", ".spec.fallback", priority=1),
            Column("VIPs", ".status.summary.vips"),
            *ready_columns(),
            AGE_COLUMN,
        ),
    )

    kind: Literal["RLPolicy"] = "RLPolicy"
    spec: PolicySpec
    """How weights come about."""
    status: PolicyStatus = PolicyStatus()
    """Who uses the policy."""
