"""What happens in one run, period by period: load, times, shares and weights of servers, disturbances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_rl import simulation
from penstock_rl.evaluation.cases import Case
from penstock_rl.evaluation.policies import Evaluated
from penstock_rl.scenarios import capacities
from penstock_rl.scenarios.columns import EVENT_KINDS
from penstock_rl.simulation import Environment, Outcome

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Period:
    """A part of a run; times in seconds. Requests belong to the period in which they ended."""

    start: float
    end: float
    completed: int
    failed: int
    mean: float  # completion time; NaN where nothing completed
    p90: float
    shares: FloatArray  # [servers], of completed requests
    weights: FloatArray  # [servers], at the end, mean over balancers; NaN where there is no weight
    events: tuple[str, ...]


def periods(case: Case, policy: Evaluated, seed: int, every: float) -> list[Period]:
    """Run a scenario once and divide what happened into periods."""
    scenario = case.scenario
    environment = policy.prepared(case.environment(seed), capacities(scenario))
    ends = np.append(np.arange(every, scenario.duration - 1e-9, every), scenario.duration)
    weights: list[FloatArray] = []

    def look(time: float, simulated: Any) -> None:
        while len(weights) < len(ends) and time >= ends[len(weights)] - 1e-9:
            weights.append(_weights(simulated, len(environment["servers"])))

    (outcome,) = simulation.run(
        [{**environment, "warmup": 0.0}],
        policy.policy,
        until=scenario.duration,
        setting=policy.setting(scenario.features.value.lower(), scenario.forwarding.value.lower()),
        interval=scenario.interval,
        look=look,
    )
    return list(_divide(outcome, environment, ends, weights))


def _divide(
    outcome: Outcome, environment: Environment, ends: FloatArray, weights: list[FloatArray]
) -> Iterator[Period]:
    servers = len(environment["servers"])
    # A failed request has no duration: it counts when it arrived.
    ended = outcome.arrival + np.nan_to_num(outcome.duration)
    for index, (start, end) in enumerate(zip(np.append(0.0, ends[:-1]), ends, strict=True)):
        inside = (ended > start) & (ended <= end)
        done = inside & np.isfinite(outcome.duration)
        durations = outcome.duration[done]
        counts = np.bincount(outcome.server[done], minlength=servers)
        yield Period(
            float(start),
            float(end),
            completed=len(durations),
            failed=int(inside.sum()) - len(durations),
            mean=float(durations.mean()) if len(durations) else np.nan,
            p90=float(np.quantile(durations, 0.9)) if len(durations) else np.nan,
            shares=counts / max(len(durations), 1),
            weights=weights[index] if index < len(weights) else np.full(servers, np.nan),
            events=tuple(_events(environment, float(start), float(end))),
        )


def _weights(simulated: Any, servers: int) -> FloatArray:
    """Return the weights in force by server, relative to their mean, averaged over balancers."""
    place, weight = simulated.server[0], np.asarray(simulated.weight[0], dtype=float)
    found = np.full((len(place), servers), np.nan)
    for balancer in range(len(place)):
        taken = (place[balancer] >= 0) & (weight[balancer] > 0)
        if taken.any():
            found[balancer, place[balancer][taken]] = weight[balancer][taken] / weight[balancer][taken].mean()
    known = np.isfinite(found)
    count = known.sum(axis=0)
    mean: FloatArray = np.where(count > 0, np.where(known, found, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean


def _events(environment: Environment, start: float, end: float) -> Iterator[str]:
    for second, kind, server, value in environment["events"]:
        if start < second <= end or second == start == 0:
            name = EVENT_KINDS[int(kind)]
            amount = "" if name in ("stop", "start") else f" {value:g}"
            yield f"{second:.1f} s: server {int(server)} {name}{amount}"
