"""What happens in one run, period by period: load, times, shares and weights of servers, disturbances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock_sim import EVENT_KINDS

from penstock_rl import simulation
from penstock_rl.evaluation.cases import Case
from penstock_rl.evaluation.policies import Evaluated
from penstock_rl.scenarios import Scenario, capacities
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


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What one server did after the warm-up; times in seconds."""

    capacity: float  # seconds of work in a second, before anything happened to it
    share: float  # of completed requests
    mean: float  # completion time; NaN where nothing completed
    p90: float
    failed: int  # requests
    utilisation: float  # NaN where it was never there


@dataclass(frozen=True, slots=True)
class Story:
    """What happened in one run."""

    periods: tuple[Period, ...]
    servers: tuple[ServerResult, ...]


def follow(case: Case, policy: Evaluated, seed: int, every: float, watch: Watch | None = None) -> Story:
    """Run a scenario once, and divide what happened into periods; `watch` gets each decision's moment."""
    scenario = case.scenario
    environment = policy.prepared(case.environment(seed), capacities(scenario))
    ends = np.append(np.arange(every, scenario.duration - 1e-9, every), scenario.duration)
    notes = _Notes(environment, ends, watch)
    (outcome,) = simulation.run(
        [{**environment, "warmup": 0.0}],
        policy.policy,
        until=scenario.duration,
        setting=policy.setting(scenario.features.value.lower(), scenario.forwarding.value.lower()),
        interval=scenario.interval,
        look=notes.look,
    )
    periods = _divide(outcome, environment, ends, notes.weights)
    return Story(tuple(periods), tuple(_servers(outcome, scenario, notes.utilisation())))


@dataclass(frozen=True, slots=True)
class Moment:
    """What a decision left behind, by server [servers]."""

    time: float  # seconds
    weights: FloatArray  # as of Period
    flows: NDArray[np.int64]  # open connections, of all balancers
    completed: NDArray[np.int64]  # requests since the last decision
    duration: FloatArray  # sum of their completion times in seconds
    failed: NDArray[np.int64]
    events: tuple[str, ...]  # since the last decision


Watch = Callable[[Moment], None]


class _Notes:
    """What has to be noted while the simulation runs."""

    def __init__(self, environment: Environment, ends: FloatArray, watch: Watch | None) -> None:
        self._environment = environment
        self._servers = len(environment["servers"])
        self._ends = ends
        self._watch = watch
        self._before = 0.0
        self._warm: FloatArray | None = None  # busy and offered CPU seconds when the warm-up ended
        self._used = np.zeros((2, self._servers))  # and now
        self.weights: list[FloatArray] = []  # at the end of each period

    def look(self, time: float, simulated: Any) -> None:
        """Note what there is at a time."""
        self._used = np.stack([simulated.busy[0][: self._servers], simulated.offered[0][: self._servers]])
        if self._warm is None and time >= self._environment["warmup"] - 1e-9:
            self._warm = self._used if self._environment["warmup"] else np.zeros_like(self._used)
        while len(self.weights) < len(self._ends) and time >= self._ends[len(self.weights)] - 1e-9:
            self.weights.append(_weights(simulated, self._servers))
        if self._watch is not None:
            self._watch(self._moment(time, simulated))
        self._before = time

    def utilisation(self) -> FloatArray:
        """Return CPU time used over CPU time offered after the warm-up, by server."""
        busy, offered = self._used - (0.0 if self._warm is None else self._warm)
        used: FloatArray = np.divide(busy, offered, out=np.full(self._servers, np.nan), where=offered > 0)
        return used

    def _moment(self, time: float, simulated: Any) -> Moment:
        places, open_flows = simulated.server[0], simulated.counters["n_flow_on"][0]
        flows = np.zeros(self._servers, dtype=np.int64)
        np.add.at(flows, places[places >= 0], open_flows[places >= 0])
        steps = (simulated.step_completed, simulated.step_duration, simulated.step_failed)
        completed, duration, failed = (each[0].sum(axis=0)[: self._servers] for each in steps)
        events = tuple(_events(self._environment, self._before, time))
        return Moment(time, _weights(simulated, self._servers), flows, completed, duration, failed, events)


def _servers(outcome: Outcome, scenario: Scenario, utilisation: FloatArray) -> Iterator[ServerResult]:
    kept = outcome.arrival >= scenario.warm_up
    done = kept & np.isfinite(outcome.duration)
    for server, capacity in enumerate(capacities(scenario)):
        own = outcome.server == server
        mean, p90 = _times(outcome.duration[own & done])
        share = int(np.count_nonzero(own & done)) / max(int(np.count_nonzero(done)), 1)
        failed = int(np.count_nonzero(own & kept & ~done))
        yield ServerResult(float(capacity), share, mean, p90, failed, float(utilisation[server]))


def _times(durations: FloatArray) -> tuple[float, float]:
    """Return mean and 90th percentile; NaN where there is none."""
    return (float(durations.mean()), float(np.quantile(durations, 0.9))) if len(durations) else (np.nan, np.nan)


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
        mean, p90 = _times(durations)
        yield Period(
            float(start),
            float(end),
            completed=len(durations),
            failed=int(inside.sum()) - len(durations),
            mean=mean,
            p90=p90,
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


_KINDS = {number: name for name, number in EVENT_KINDS.items()}
_STATES = ("removed", "active", "draining", "failed", "unready")  # as lbrl_backend_state_t counts


def _events(environment: Environment, start: float, end: float) -> Iterator[str]:
    times = environment["events"][:, 0]
    first = np.searchsorted(times, start, side="right") if start else 0
    last = np.searchsorted(times, end, side="right")
    for second, kind, server, value in environment["events"][first:last]:
        yield f"{second:.1f} s: server {int(server)} {_what(_KINDS[int(kind)], value)}"


def _what(kind: str, value: float) -> str:
    if kind in ("stop", "start"):
        return kind
    if kind == "state":
        return _STATES[int(value)]
    return f"{kind} x {value:.3g}" if kind == "speed" else f"{kind} {value:g}"
