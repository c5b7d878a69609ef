"""The same environment in the simulator and in the laboratory, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock_rl import scenarios, simulation
from penstock_rl.evaluation import results
from penstock_rl.evaluation.policies import POLICIES
from penstock_rl.scenarios import Scenario
from penstock_rl.simulation import Outcome
from rich.table import Table

from tools.lab import laboratory
from tools.lab.fitting import fit

FloatArray = NDArray[np.float64]

BOUND = 0.15
"""Largest difference of mean and p90, in relation to the laboratory's."""
TAIL = 5.0  # seconds after the scenario's end in which load goes on, so that requests from before it can end


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two measured: of requests that arrived between warm-up and the scenario's end."""

    run: results.Run
    counts: tuple[int, ...]  # completed requests by server
    utilisation: tuple[float, ...]  # by server


@dataclass(frozen=True, slots=True)
class Comparison:
    """A scenario under a policy in both."""

    scenario: str
    policy: str
    factor: float  # by which the scenario's times were multiplied
    simulator: Side
    lab: Side
    disturbance: str  # why nothing can be concluded; empty: it can

    def difference(self, metric: str) -> float:
        """Return the simulator's metric in relation to the laboratory's, less 1."""
        return float(getattr(self.simulator.run, metric) / getattr(self.lab.run, metric)) - 1

    @property
    def disagreement(self) -> str:
        """What is too different; empty where nothing is."""
        if self.simulator.run.failed != self.lab.run.failed:
            return "other numbers of requests failed in the simulator and on real servers"
        if any(abs(self.difference(metric)) > BOUND for metric in ("mean", "p90")):
            return f"simulator and real servers differ by more than {BOUND:.0%}"
        return ""


def compare(scenario: Scenario, policy: str, seed: int) -> Comparison:
    """Run a scenario, made to fit this machine, in both."""
    fitted = fit(scenario, len(os.sched_getaffinity(0)))
    evaluated = POLICIES[policy]
    until = fitted.scenario.duration + TAIL
    environment = evaluated.prepared(scenarios.expand(fitted.scenario, seed), scenarios.capacities(fitted.scenario))
    features = fitted.scenario.features.value.lower()
    [simulated] = simulation.run(
        [environment],
        evaluated.policy,
        until=until,
        setting=evaluated.setting(features, "nat"),
        interval=fitted.scenario.interval,
    )
    run = laboratory.run(environment, evaluated, until=until, features=features)
    simulator, lab = (_side(fitted.scenario, policy, seed, each) for each in (simulated, run.outcome))
    return Comparison(scenario.name, policy, fitted.factor, simulator, lab, run.disturbance)


def _side(scenario: Scenario, policy: str, seed: int, outcome: Outcome) -> Side:
    counted = (outcome.arrival >= scenario.warm_up) & (outcome.arrival < scenario.duration)
    durations, servers = outcome.duration[counted], outcome.server[counted]
    completed = np.bincount(servers[np.isfinite(durations)], minlength=scenario.server_count)
    return Side(
        results.summarise(scenario.name, policy, seed, durations, outcome.utilisation),
        tuple(completed.tolist()),
        tuple(outcome.utilisation.tolist()),
    )


def table(comparisons: Sequence[Comparison]) -> Table:
    """Return mean and p90 of both with their difference, and what each server did."""
    built = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("scenario", "policy", "requests", "mean ms", "", "p90 ms", "", "requests by server", "utilisation"):
        built.add_column(name, justify="left" if name in {"scenario", "policy"} else "right")
    for each in comparisons:
        for title, side in (("simulator", each.simulator), ("laboratory", each.lab)):
            first = title == "simulator"
            run = side.run
            built.add_row(
                each.scenario if first else "",
                each.policy if first else "",
                f"{title} {run.completed + run.failed}" + (f", {run.failed} failed" if run.failed else ""),
                f"{run.mean * 1e3:.1f}",
                f"{each.difference('mean'):+.1%}" if first else "",
                f"{run.p90 * 1e3:.1f}",
                f"{each.difference('p90'):+.1%}" if first else "",
                " ".join(map(str, side.counts)),
                " ".join(f"{value:.2f}" for value in side.utilisation),
            )
    return built
