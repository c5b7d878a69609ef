"""Arrivals and classes of requests of a scenario."""

from __future__ import annotations

from typing import Annotated, ClassVar

from penstock_api.choices import Choice
from penstock_api.rules import Rule
from pydantic import Field

from penstock_rl.scenarios.fields import Duration, Factor, Name, Part, PositiveFactor, given, rule

MOST_FACTORS = 64


class Modulated(Part):
    """A rate that changes at fixed times, over and over."""

    factors: Annotated[tuple[Factor, ...], Field(min_length=2, max_length=MOST_FACTORS)]
    """The rate in relation to its mean, one after the other."""
    every: Annotated[float, Field(ge=0.1, le=86_400)]
    """Seconds for which each one holds."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "the first must be at least 0.001",
            "begin with another one",
            lambda self: self.factors[0] >= 0.001,
            "factors",
        ),
    )


class Mmpp(Part):
    """A Markov-modulated Poisson process: a rate that changes at random times."""

    factors: Annotated[tuple[PositiveFactor, ...], Field(min_length=2, max_length=MOST_FACTORS)]
    """The rate in relation to its mean, of each state."""
    dwell: Annotated[
        tuple[Annotated[float, Field(ge=0.1, le=86_400)], ...], Field(min_length=2, max_length=MOST_FACTORS)
    ]
    """Mean seconds in each state, exponential; the next state is any other one, with equal probability."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "must have a time for each factor",
            "list as many times as factors",
            lambda self: len(self.dwell) == len(self.factors),
            "dwell",
        ),
    )


class Diurnal(Part):
    """A rate that changes over a day as that of Wikipedia: lowest early in the morning, highest in the evening."""

    day: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """Seconds that a day takes in the run; default: the whole run."""
    begin: Annotated[float, Field(ge=0, le=24)] = 0.0
    """Hour of the day (UTC) at which the run begins."""


class Ramp(Part):
    """A rate that rises or falls steadily."""

    first: Factor
    """The rate before it changes, in relation to that after it or any other scale."""
    last: Factor
    """The rate after it changed, on the same scale."""
    begin: Duration = 0.0
    """Second at which it begins to change."""
    end: Duration | None = None
    """Second from which it stays; default: the end of the run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "first or last must be at least 0.001",
            "raise one",
            lambda self: max(self.first, self.last) >= 0.001,
            "last",
        ),
        rule(
            "must be at least 0.001 after begin",
            "raise it",
            lambda self: self.end is None or self.end >= self.begin + 0.001,
            "end",
        ),
    )


class Trace(Part):
    """Connections one by one, from a file of comma-separated values with the columns arrival, work and kind."""

    file: Annotated[str, Field(min_length=1, max_length=4096)]
    """Path, from the folder of the scenario file. `arrival`: seconds from the start; `work`: seconds of processor
    time; `kind`: name of a class, may be left out where there is one class."""


class Arrivals(Part):
    """When requests arrive: Poisson at a rate, constant or changing. Exactly one of load, peakLoad and rate is given,
    none is needed with a trace."""

    load: Annotated[float, Field(gt=0, le=10)] | None = None
    """Mean processor time that requests need, over what all servers can do: the number that queueing theory calls rho.
    Servers are counted with cores, quotas and speeds, for as long as they are present."""
    peak_load: Annotated[float, Field(gt=0, le=10)] | None = None
    """The same while the rate is highest."""
    rate: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Mean number of requests in a second."""
    modulated: Modulated | None = None
    """The rate changes at fixed times."""
    mmpp: Mmpp | None = None
    """The rate changes at random times."""
    diurnal: Diurnal | None = None
    """The rate changes over a day."""
    ramp: Ramp | None = None
    """The rate rises or falls."""
    trace: Trace | None = None
    """Arrivals and work from a file; with `load` or `rate` its times are stretched until these are its means."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "exactly one of load, peakLoad and rate must be given",
            "write for example load: 0.8",
            lambda self: given("load", "peak_load", "rate")(self) in ((0, 1) if self.trace else (1,)),
            "load",
        ),
        rule(
            "at most one of modulated, mmpp, diurnal, ramp and trace may be given",
            "remove the others",
            lambda self: given("modulated", "mmpp", "diurnal", "ramp", "trace")(self) <= 1,
            "modulated",
        ),
        rule(
            "does not go with a trace",
            "use load or rate, or none to replay the trace as it is",
            lambda self: self.peak_load is None or self.trace is None,
            "peakLoad",
        ),
    )


class WorkDistribution(Choice):
    """How the work of requests varies."""

    CONSTANT = "constant"
    """All the same."""
    EXPONENTIAL = "exponential"
    """Exponential."""
    LOGNORMAL = "lognormal"
    """Lognormal, with `sigma`."""
    PARETO = "pareto"
    """Bounded Pareto, with `alpha` and `max`: a few requests are most of the work."""


class Work(Part):
    """Processor time that a request needs on a core of speed 1."""

    distribution: WorkDistribution = WorkDistribution.EXPONENTIAL
    """How it varies. A bimodal distribution is two classes."""
    mean: Annotated[float, Field(ge=0.000_001, le=3600)] = 0.1
    """Mean seconds, whatever the distribution."""
    sigma: Annotated[float, Field(ge=0.01, le=3)] | None = None
    """Of `lognormal`: standard deviation of the logarithm; default: 1."""
    alpha: Annotated[float, Field(ge=1.05, le=10)] | None = None
    """Of `pareto`: shape, the smaller the heavier the tail; default: 1.5."""
    max: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Of `pareto`: longest work; default: 50 times the mean."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "belongs to the distribution lognormal",
            "remove it, or set distribution: lognormal",
            lambda self: self.sigma is None or self.distribution is WorkDistribution.LOGNORMAL,
            "sigma",
        ),
        rule(
            "belongs to the distribution pareto",
            "remove it, or set distribution: pareto",
            lambda self: self.alpha is None or self.distribution is WorkDistribution.PARETO,
            "alpha",
        ),
        rule(
            "belongs to the distribution pareto",
            "remove it, or set distribution: pareto",
            lambda self: self.max is None or self.distribution is WorkDistribution.PARETO,
            "max",
        ),
        rule(
            "must be at least twice the mean",
            "raise it",
            lambda self: self.max is None or self.max >= 2 * self.mean,
            "max",
        ),
    )

    @property
    def shape(self) -> float:
        """Sigma or alpha; 0 where the distribution has none."""
        if self.distribution is WorkDistribution.LOGNORMAL:
            return self.sigma or 1.0
        return self.alpha or 1.5 if self.distribution is WorkDistribution.PARETO else 0.0

    @property
    def longest(self) -> float:
        """Bound of the bounded Pareto distribution; 0 for others."""
        return (self.max or 50 * self.mean) if self.distribution is WorkDistribution.PARETO else 0.0


class RequestClass(Part):
    """Connections that are alike, and their requests."""

    name: Name = "default"
    """What reports and traces call it."""
    share: Annotated[float, Field(gt=0, le=1_000_000)] = 1.0
    """Its part of all connections, on any scale."""
    work: Work = Work()
    """Processor time of each request."""
    io: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Mean seconds (exponential) that a request then waits for something else, without a processor."""
    requests: Annotated[float, Field(ge=1, le=10_000)] = 1.0
    """Requests of a connection, one after the other: a whole number, or their mean with `geometric`."""
    geometric: bool = False
    """Their number varies, by the geometric distribution."""
    think: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Mean seconds (exponential) from an answer to the connection's next request."""
    idle_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the connections that stay open after their last answer, with nothing to do."""
    idle: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Mean seconds (exponential) that they do so."""
    request_bytes: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Size of a request."""
    response_bytes: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Size of an answer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "must be a whole number unless geometric is true",
            "round it, or add geometric: true",
            lambda self: self.geometric or self.requests == int(self.requests),
            "requests",
        ),
        rule(
            "needs more than one request in a connection",
            "raise requests, or remove think",
            lambda self: not self.think or self.requests > 1,
            "think",
        ),
        rule(
            "goes with idleShare: how many stay open, and for how long",
            "give both or none",
            lambda self: bool(self.idle) == bool(self.idle_share),
            "idle",
        ),
    )
