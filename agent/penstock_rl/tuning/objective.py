"""Objective of a search: completion times in simulated scenarios, in relation to `lsq`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from penstock_agent.observation import FloatArray
from penstock_agent.policies import Policy, bayes, lsq
from penstock_agent.policies.tunable import bounds_of, from_vector, to_vector
from penstock_embedded.messages import SchedulerLoad

from penstock_rl import scenarios
from penstock_rl.simulation import Outcome, Setting, Sharing, run

FIXED = ("idle_seconds", "idle_share", "served_seconds", "tolerance")
"""Parameters that are not searched for: what they serve, starved backends, is not in these scenarios."""
NAMES = tuple(name for name in bounds_of(bayes.Parameters) if name not in FIXED)
"""Parameters that are searched for, in the order of a point's coordinates."""
LONGEST = 60.0
"""Seconds after which a scenario is cut off; enough to tell points apart, and a fourth less to compute."""


@dataclass(frozen=True, slots=True)
class Group:
    """Environments that run for the same time."""

    environments: list[dict[str, Any]]
    until: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Points against `lsq` in scenarios that change with every generation."""

    seed: int = 0  # of the first scenario
    scenarios: int = 16  # per generation
    threads: int = 1
    level: str = "full"
    shared: bool = False  # balancers exchange their counts

    def __call__(self, generation: int, points: FloatArray) -> FloatArray:
        """Return for each point the mean log ratio of mean completion times; below 0: shorter than under `lsq`."""
        first = self.seed + generation * self.scenarios
        sums = np.zeros(len(points))
        for group in draw(range(first, first + self.scenarios)):
            rivals = self._mean_durations(group, lsq.POLICY, None)
            batch = Group([each for _ in points for each in group.environments], group.until)
            policy = tuned(np.repeat(points, len(group.environments), axis=0), shared=self.shared)
            means = self._mean_durations(batch, policy, Sharing() if self.shared else None)
            sums += np.log(means.reshape(len(points), -1) / rivals).sum(axis=1)
        return np.asarray(sums / self.scenarios)

    def _mean_durations(self, group: Group, policy: Policy, sharing: Sharing | None) -> FloatArray:
        setting = Setting(policy.scheduler, SchedulerLoad.ACTIVE, self.level, sharing=sharing)
        outcomes = run(group.environments, policy, until=group.until, setting=setting, threads=self.threads)
        return np.array([mean_duration(outcome) for outcome in outcomes])


def start(*, shared: bool = False) -> FloatArray:
    """Return the point at which the filter's present parameters are."""
    return to_vector(_present(shared))[_searched()]


def parameters(point: FloatArray, *, shared: bool = False) -> bayes.Parameters:
    """Return the filter's parameters at a point, or a batch of them at points [rows, NAMES]."""
    point = np.asarray(point)
    whole = np.tile(to_vector(_present(shared)), (*point.shape[:-1], 1))
    whole[..., _searched()] = point
    return from_vector(bayes.Parameters, whole)


def tuned(points: FloatArray, *, shared: bool = False) -> Policy:
    """Return the Bayes filter with the parameters at a point, or at one point for each environment."""
    return replace(bayes.POLICY, decide=bayes.tuned_policy(parameters(points, shared=shared)))


def _present(shared: bool) -> bayes.Parameters:
    return bayes.SHARED if shared else bayes.OWN


def draw(seeds: Sequence[int]) -> list[Group]:
    """Return environments of the training seeds, by the time until which they run."""
    groups: dict[float, Group] = {}
    for seed in seeds:
        scenario = scenarios.unseen(scenarios.TRAINING[seed])
        until = min(scenario.duration, LONGEST)
        group = groups.setdefault(until, Group([], until))
        group.environments.append(scenarios.expand(scenario, seed))
    return list(groups.values())


def mean_duration(outcome: Outcome) -> float:
    """Return the mean completion time; a failed request counts as the slowest."""
    durations = outcome.duration
    if not np.isfinite(durations).any():
        return float("inf")
    return float(np.where(np.isfinite(durations), durations, np.nanmax(durations)).mean())


def _searched() -> list[int]:
    return [index for index, name in enumerate(bounds_of(bayes.Parameters)) if name not in FIXED]
