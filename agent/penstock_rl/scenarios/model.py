"""Scenario: servers, load and what happens to them, as a person writes it down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

from penstock_api import FeatureLevelName
from penstock_api.choices import Choice
from penstock_api.rules import Rule
from pydantic import Field

from penstock_rl.scenarios.arrivals import Arrivals, RequestClass
from penstock_rl.scenarios.disturbances import Disturbance
from penstock_rl.scenarios.fields import MOST_SERVERS, Duration, Name, Part, PositiveDuration, rule
from penstock_rl.scenarios.servers import Balancers, ServerGroup


class ScenarioForwarding(Choice):
    """How packets reach a server, which decides what a balancer sees of its answers."""

    NAT = "NAT"
    """Both directions pass the balancer."""
    GRE = "GRE"
    """Answers do not pass it: it sees half of each connection. `L3DSR` is the same to a policy."""


class Scenario(Part):
    """Servers behind load balancers, their load, and what happens to them. It is simulated, or run on real servers. All
    times are in seconds."""

    name: Name
    """What reports call it."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What it is for."""
    duration: PositiveDuration = 200.0
    """Seconds that it lasts."""
    warm_up: Duration = 30.0
    """Seconds at the beginning that results leave out."""
    interval: Annotated[float, Field(ge=0.02, le=60)] = 0.2
    """Seconds between two decisions of a policy."""
    features: FeatureLevelName = FeatureLevelName.FULL
    """How much the data plane measures."""
    forwarding: ScenarioForwarding = ScenarioForwarding.NAT
    """How packets reach a server."""
    balancers: Balancers = Balancers()
    """Data planes that share the VIP."""
    servers: Annotated[tuple[ServerGroup, ...], Field(min_length=1, max_length=MOST_SERVERS)]
    """Servers, in groups of equal ones."""
    arrivals: Arrivals
    """When requests arrive."""
    classes: Annotated[tuple[RequestClass, ...], Field(min_length=1, max_length=64)] = (RequestClass(),)
    """Kinds of connections and requests; default: one, with all of its fields at their defaults."""
    disturbances: Annotated[tuple[Disturbance, ...], Field(max_length=64)] = ()
    """What happens to servers."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            f"there may be {MOST_SERVERS} servers in all",
            "lower count",
            lambda self: self.server_count <= MOST_SERVERS,
            "servers",
        ),
        rule(
            "at least one server must be present from the start",
            "remove present: false from a group",
            lambda self: any(group.present for group in self.servers),
            "servers",
        ),
        rule("must be less than duration", "lower it", lambda self: self.warm_up < self.duration, "warmUp"),
        rule(
            "begins after the end of the run",
            "lower begin",
            lambda self: self.arrivals.ramp is None or self.arrivals.ramp.begin + 0.001 <= self.duration,
            "arrivals.ramp",
        ),
        rule(
            "each class must have a name of its own",
            "rename one",
            lambda self: len({each.name for each in self.classes}) == len(self.classes),
            "classes",
        ),
        rule(
            "names a server that is not there: they are numbered from 0, in the order of the groups",
            "use a smaller number, or add servers",
            lambda self: all(i < self.server_count for each in self.disturbances for i in each.servers),
            "disturbances",
        ),
        rule(
            "must be one with a trace, whose lines are connections of one request",
            "remove requests from the classes",
            lambda self: self.arrivals.trace is None or all(each.requests == 1 for each in self.classes),
            "classes",
        ),
    )

    @property
    def server_count(self) -> int:
        """Servers in all groups, those that come later included."""
        return sum(group.count for group in self.servers)

    @property
    def each_server(self) -> list[ServerGroup]:
        """The group of each server."""
        return [group for group in self.servers for _ in range(group.count)]

    @property
    def requests_per_connection(self) -> float:
        """Mean over all classes."""
        return self._mean_over_classes(lambda each: each.requests)

    @property
    def work_per_connection(self) -> float:
        """Mean seconds of work over all classes."""
        return self._mean_over_classes(lambda each: each.requests * each.work.mean)

    def _mean_over_classes(self, value: Callable[[RequestClass], float]) -> float:
        total = sum(each.share for each in self.classes)
        return sum(each.share * value(each) for each in self.classes) / total
