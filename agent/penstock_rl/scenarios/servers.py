"""Servers and balancers of a scenario."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, ClassVar

from penstock_api.rules import Rule
from pydantic import Field

from penstock_rl.scenarios.fields import MOST_SERVERS, Cores, Part, PositiveFactor, Speed, Weight, rule

MOST_BALANCERS = 64


class Quota(Part):
    """A limit of processor time, as the kernel enforces it for a container."""

    cpus: Cores
    """Processor seconds per second. A server that used up those of a period does nothing until the next one begins."""
    period: Annotated[float, Field(ge=0.001, le=1)] = 0.1
    """Seconds after which the limit counts anew; the kernel's default is 0.1."""

    @property
    def per_period(self) -> float:
        """Processor seconds in each period."""
        return self.cpus * self.period


class Thrash(Part):
    """A server that becomes slower the more requests it serves at once, for example where memory is short."""

    above: Annotated[int, Field(ge=0, le=1_000_000)]
    """Requests at once up to which it is as fast as it can be."""
    slope: Annotated[float, Field(ge=0, le=100)]
    """Its capacity with n requests is divided by 1 + slope x (n - above)."""


class ServerGroup(Part):
    """Servers that are alike."""

    count: Annotated[int, Field(ge=1, le=MOST_SERVERS)] = 1
    """How many."""
    cores: Cores
    """Requests that are served at full speed at once: each uses one core at most, and all share them equally."""
    speed: Speed = 1.0
    """Seconds of work that a core does in a second."""
    quota: Quota | None = None
    """Limit of processor time below what the cores could do."""
    limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests that are served at once, as the workers of a web server; 0: no limit."""
    backlog: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Connections that wait beyond `limit`, first come first served; more are refused."""
    thrash: Thrash | None = None
    """How it becomes slower under many requests."""
    latency: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Seconds that a packet takes between balancer and server."""
    weight: Weight = 1.0
    """Configured weight, as in `endpoints` of a VIP: what an administrator wrote, right or wrong."""
    present: bool = True
    """From the start; `false`: an `add` disturbance brings them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "goes with a limit: without one nobody waits",
            "add limit, or remove backlog",
            lambda self: not self.backlog or self.limit,
            "backlog",
        ),
    )

    @property
    def cpus(self) -> float:
        """Cores that can be used over time."""
        return self.usable(self.cores)

    def usable(self, cores: float) -> float:
        """Return how many of these cores the quota lets it use over time."""
        return min(cores, self.quota.cpus) if self.quota else cores


def grouped(servers: Iterable[ServerGroup]) -> tuple[ServerGroup, ...]:
    """Put neighbors that are alike into groups; the order of the servers stays."""
    runs = ((group, len(list(run))) for group, run in groupby(servers))
    return tuple(group.model_copy(update={"count": length * group.count}) for group, length in runs)


class Balancers(Part):
    """Data planes that share a VIP, as nodes behind a router that spreads connections over them."""

    count: Annotated[int, Field(ge=1, le=MOST_BALANCERS)] = 1
    """How many."""
    split: Annotated[tuple[PositiveFactor, ...], Field(min_length=1, max_length=MOST_BALANCERS)] | None = None
    """Parts of the connections that each one gets, on any scale; default: equal ones."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "must have a number for each balancer",
            "list as many numbers as count",
            lambda self: self.split is None or len(self.split) == self.count,
            "split",
        ),
    )

    @property
    def shares(self) -> list[float]:
        """Fraction of the connections of each balancer; they add up to 1."""
        parts = self.split or (1.0,) * self.count
        return [part / sum(parts) for part in parts]
