"""Objective of a search: completion times in simulated scenarios, in relation to `lsq`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from penstock_agent.observation import FloatArray
from penstock_agent.policies import Policy, bayes, lsq
from penstock_agent.policies.tunable import from_vector
from penstock_embedded.messages import SchedulerLoad

from penstock_rl import scenarios
from penstock_rl.simulation import Outcome, Setting, run

Environments = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Points against `lsq` in scenarios that change with every generation."""

    seed: int = 0
    scenarios: int = 16  # per generation
    threads: int = 1
    level: str = "full"

    def __call__(self, generation: int, points: FloatArray) -> FloatArray:
        """Return for each point the mean log ratio of mean completion times; below 0: shorter than under `lsq`."""
        first = self.seed + generation * self.scenarios
        environments, until = draw(range(first, first + self.scenarios))
        rivals = self._mean_durations(environments, lsq.POLICY, until)
        batch = [environment for _ in points for environment in environments]
        means = self._mean_durations(batch, tuned(np.repeat(points, len(environments), axis=0)), until)
        ratios = np.log(means.reshape(len(points), -1) / rivals)
        return np.asarray(ratios.mean(axis=1))

    def _mean_durations(self, environments: Environments, policy: Policy, until: float) -> FloatArray:
        setting = Setting(policy.scheduler, SchedulerLoad.ACTIVE, self.level)
        outcomes = run(environments, policy, until=until, setting=setting, threads=self.threads)
        return np.array([mean_duration(outcome) for outcome in outcomes])


def draw(seeds: Sequence[int]) -> tuple[Environments, float]:
    """Return environments of the training seeds, and the time until which all of them run."""
    drawn = [scenarios.unseen(scenarios.TRAINING[seed]) for seed in seeds]
    environments = [scenarios.expand(scenario, seed) for scenario, seed in zip(drawn, seeds, strict=True)]
    return environments, min(scenario.duration for scenario in drawn)


def tuned(points: FloatArray) -> Policy:
    """Return the Bayes filter with the parameters at a point, or at one point for each environment."""
    parameters = from_vector(bayes.Parameters, points)
    return replace(bayes.POLICY, decide=bayes.tuned_policy(parameters))


def mean_duration(outcome: Outcome) -> float:
    """Return the mean completion time; a failed request counts as the slowest."""
    durations = outcome.duration
    if not np.isfinite(durations).any():
        return float("inf")
    return float(np.where(np.isfinite(durations), durations, np.nanmax(durations)).mean())
