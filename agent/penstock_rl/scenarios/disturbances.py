"""What happens to servers while a scenario runs. Servers are numbered from 0, in the order of the groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from penstock_api.rules import Rule
from pydantic import Field

from penstock_rl.scenarios.fields import (
    LONGEST,
    Bounds,
    Cores,
    Duration,
    Part,
    ServerList,
    Span,
    Speed,
    Weight,
    given,
    rule,
)

MOST_TIMES = 10_000
LengthSpan = Annotated[Span, Bounds(0.001, LONGEST, "write for example 20, or [5, 20] for another one each time")]
PauseSpan = Annotated[Span, Bounds(0.1, LONGEST, "write for example 25, or [8, 25] for another one each time")]
SlowSpan = Annotated[Span, Bounds(0.001, 1, "write for example 0.3, or [0.1, 0.6] for another one each time")]
Detection = Annotated[float, Field(ge=0, le=3600)]


class NoisyNeighbor(Part):
    """Something else on a server's machine uses its processor."""

    at: Duration
    """Second at which it begins for the first time."""
    every: PauseSpan | None = None
    """Seconds from one beginning to the next; default: it happens once."""
    times: Annotated[int, Field(ge=1, le=MOST_TIMES)] | None = None
    """How often at most; default: until the end."""
    lasting: LengthSpan
    """Seconds that it lasts. Where two overlap on a server, the stronger one counts."""
    factor: SlowSpan
    """The server's speed meanwhile, in relation to what it was."""
    servers: ServerList | None = None
    """Servers in turn, over and over; default: one drawn each time, all alike."""


class Failure(Part):
    """A server's process ends, its connections are reset and new ones refused, until it starts again."""

    at: Duration
    """Second of the first one."""
    every: PauseSpan | None = None
    """Seconds from one to the next; default: it happens once."""
    times: Annotated[int, Field(ge=1, le=MOST_TIMES)] | None = None
    """How often at most; default: until the end."""
    lasting: LengthSpan | None = None
    """Seconds until it starts again; default: it stays away."""
    detection: Detection = 3.0
    """Seconds after which health checks take it out, and after its start in again."""
    servers: ServerList | None = None
    """Servers in turn, over and over; default: one drawn each time, all alike."""


class RollingRestart(Part):
    """Servers are restarted one after another."""

    at: Duration
    """Second at which the first one begins to drain."""
    drain: Duration = 10.0
    """Seconds for which a server gets no new connections before its process ends, which resets those left."""
    down: Annotated[float, Field(ge=0.001, le=3600)] = 2.0
    """Seconds until its process is there again."""
    detection: Detection = 3.0
    """Seconds from then until it gets new connections."""
    pause: Duration = 0.0
    """Seconds from then until the next one begins to drain."""
    servers: ServerList | None = None
    """Servers in this order; default: all."""


class Add(Part):
    """Servers come that were not present."""

    at: Duration
    """Second at which the first one comes."""
    every: Duration = 0.0
    """Seconds from one to the next."""
    servers: ServerList
    """Which ones, in this order."""


class Remove(Part):
    """Servers go for good, or until they are added again."""

    at: Duration
    """Second at which the first one begins to drain."""
    every: Duration = 0.0
    """Seconds from one to the next."""
    drain: Duration = 0.0
    """Seconds for which a server gets no new connections before it is removed."""
    servers: ServerList
    """Which ones, in this order."""


class CapacityChange(Part):
    """Servers become stronger or weaker for good, as after a change of their limits. Loads are in relation to the new
    capacity from then on."""

    at: Duration
    """Second at which it happens."""
    cores: Cores | None = None
    """New number of cores."""
    speed: Speed | None = None
    """New speed."""
    weight: Weight | None = None
    """New configured weight."""
    servers: ServerList
    """Which ones."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "at least one of cores, speed and weight must be given",
            "add what changes",
            lambda self: given("cores", "speed", "weight")(self) > 0,
            "cores",
        ),
    )


_KINDS = ("noisy_neighbor", "failure", "rolling_restart", "add", "remove", "capacity_change")


class Disturbance(Part):
    """One of these; an item of the list for each."""

    noisy_neighbor: NoisyNeighbor | None = None
    """Something else uses a server's processor."""
    failure: Failure | None = None
    """A process ends, and health checks notice later."""
    rolling_restart: RollingRestart | None = None
    """Servers are restarted one after another."""
    add: Add | None = None
    """Servers come."""
    remove: Remove | None = None
    """Servers go."""
    capacity_change: CapacityChange | None = None
    """Servers become stronger or weaker."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "each item must be exactly one of noisyNeighbor, failure, rollingRestart, add, remove and capacityChange",
            "write an item for each",
            lambda self: given(*_KINDS)(self) == 1,
            "noisyNeighbor",
        ),
    )

    @property
    def body(self) -> Any:
        """The one that it is."""
        return next(getattr(self, kind) for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def servers(self) -> Iterator[int]:
        """The servers that it names."""
        yield from self.body.servers or ()
