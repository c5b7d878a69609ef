"""Servers of the simulator against a model that keeps what is left of each request, and moves it on step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import penstock_sim
from hypothesis import given, settings

from tests.support.simulations import environment, request_class, server, simulation

Request = tuple[float, float]  # arrival, work
CONSTANT = float(penstock_sim.WORK_KINDS["constant"])


@dataclass
class Model:
    """One server; a quota's first period ends at `phase` periods."""

    cores: float
    speed: float = 1.0
    thrash_from: float = 0.0
    thrash: float = 0.0
    limit: int = 10**9
    backlog: int = 0
    quota: float = math.inf
    period: float = math.inf
    phase: float = 1.0
    now: float = 0.0
    left: dict[int, float] = field(default_factory=dict)  # work, of the requests in service
    waiting: list[int] = field(default_factory=list)

    def durations(self, requests: list[Request]) -> list[float]:
        """Return how long each request takes; not-a-number where it is refused."""
        ends = [math.nan] * len(requests)
        budget, period_end, number = self.quota, self.phase * self.period, 0
        while number < len(requests) or self.left:
            running = len(self.left) if budget > 0 else 0
            loss = 1 + self.thrash * max(0.0, running - self.thrash_from)
            rate = self.speed * min(1.0, self.cores / running) / loss if running else 0.0
            use = min(running, self.cores)
            next_end = min(self.left.values()) / rate if running else math.inf
            next_arrival = requests[number][0] - self.now if number < len(requests) else math.inf
            step = min(next_end, next_arrival, period_end - self.now, budget / use if running else math.inf)
            ended = [request for request, work in self.left.items() if running and work / rate == step]
            self.now += step
            self.left = {request: work - rate * step for request, work in self.left.items() if request not in ended}
            budget -= use * step
            if budget < 1e-12:
                budget = 0.0
            if step == next_arrival:
                self._arrive(number, requests)
                number += 1
            if self.now >= period_end:
                budget, period_end = self.quota, period_end + self.period
            for request in ended:
                ends[request] = self.now - requests[request][0]
            while self.waiting and len(self.left) < self.limit:
                request = self.waiting.pop(0)
                self.left[request] = requests[request][1]
        return ends

    def _arrive(self, number: int, requests: list[Request]) -> None:
        if len(self.left) < self.limit:
            self.left[number] = requests[number][1]
        elif len(self.waiting) < self.backlog:
            self.waiting.append(number)


def simulated(requests: list[Request], seed: int = 1, **columns: float) -> list[float]:
    """Return how long each request takes on a server of these columns, in order of arrival."""
    trace = np.array([[arrival, work, 0.0] for arrival, work in requests])
    servers = [server(**columns)]
    lab = simulation(environment(seed=seed, split=[1.0], servers=servers, trace=trace), rule=1)
    lab.advance(trace[-1, 0] + 10_000)
    found = lab.requests(0)
    assert len(found["arrival"]) == len(requests)
    return list(found["duration"][np.argsort(found["arrival"], kind="stable")])


# Sums of gaps are rational, sums of works are not: no request ends when another arrives, which rounding would decide.
gaps = st.integers(1, 1000).map(lambda number: number / 1000)
works = st.integers(10, 2000).map(lambda number: number / 1000 * math.sqrt(2))


@st.composite
def some_requests(draw: st.DrawFn) -> list[Request]:
    drawn = draw(st.lists(st.tuples(gaps, works), min_size=1, max_size=40))
    arrivals = np.cumsum([gap for gap, _ in drawn])
    return [(float(arrival), work) for arrival, (_, work) in zip(arrivals, drawn, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    some_requests(),
    st.floats(0.5, 8.0),
    st.floats(0.1, 5.0),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.1, 2.0]),
)
def test_processors_are_shared_as_in_the_model(
    requests: list[Request], cores: float, speed: float, thrash_from: int, thrash: float
) -> None:
    model = Model(cores, speed, thrash_from=thrash_from, thrash=thrash)
    found = simulated(requests, cores=cores, speed=speed, thrash_from=thrash_from, thrash=thrash)
    np.testing.assert_allclose(found, model.durations(requests), rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(some_requests(), st.integers(1, 4), st.integers(0, 4))
def test_limit_and_backlog_are_kept_as_in_the_model(requests: list[Request], limit: int, backlog: int) -> None:
    found = simulated(requests, cores=2.0, limit=limit, backlog=backlog)
    np.testing.assert_allclose(found, Model(2.0, limit=limit, backlog=backlog).durations(requests), rtol=1e-9)


def test_quota_gives_the_mean_of_the_model() -> None:
    """Light load: requests of 30 ms on four cores with a quota of 25 ms in 100 ms, one in three meets another."""
    rng = np.random.default_rng(5)
    found, expected = [], []
    for seed in range(60):
        arrivals = np.cumsum(rng.exponential(0.4, 60))
        requests = [(float(arrival), 0.03) for arrival in arrivals]
        found.append(np.mean(simulated(requests, seed, cores=4.0, quota=0.025, quota_period=0.1)))
        model = Model(4.0, quota=0.025, period=0.1, phase=float(rng.uniform()))
        expected.append(np.mean(model.durations(requests)))
    differences = np.array(found) - np.array(expected)
    half = 3.5 * differences.std(ddof=1) / np.sqrt(len(differences))  # 99.9 %
    assert half < 0.1 * np.mean(expected)
    assert abs(differences.mean()) < half
    assert np.mean(expected) > 0.045  # the quota matters


def test_constant_work_is_recorded_as_drawn() -> None:
    classes = [request_class(work_kind=CONSTANT, work_mean=0.25)]
    lab = simulation(environment(classes=classes), rule=1)
    lab.advance(20)
    assert set(lab.requests(0)["work"]) == {np.float32(0.25)}
