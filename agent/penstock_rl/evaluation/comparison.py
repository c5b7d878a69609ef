"""Results compared: one row for each policy of a scenario, one for each policy of a set of scenarios.

Computation only; `tables` and `plots` show the rows. References are LSQ on the counts that a policy uses, and the
oracle. A statistic whose reference was not run is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_rl.evaluation import statistics
from penstock_rl.evaluation.policies import ACTIVE, on_counts_of
from penstock_rl.evaluation.results import Results
from penstock_rl.evaluation.statistics import Interval, Worst

FloatArray = NDArray[np.float64]

LSQ = "lsq"
ORACLE = "oracle"
HEURISTICS = ("inverse-duration", "little")  # the better of them, scenario by scenario, is the second reference


@dataclass(frozen=True, slots=True)
class ScenarioRow:
    """A policy in one scenario, over seeds; times in seconds."""

    policy: str
    mean: Interval  # by t
    p50: float
    p90: float
    p99: float
    against_lsq: Interval  # paired relative difference, by t on logarithms
    gap: Interval | None  # log-gap closed, bootstrap over seeds
    linear_gap: float | None
    jain: float
    max_mean: float
    failed: float  # share of requests


@dataclass(frozen=True, slots=True)
class SetRow:
    """A policy over a set of scenarios; intervals by a bootstrap over scenarios."""

    policy: str
    gap: Interval | None
    against_lsq: Interval
    worst: Worst  # against LSQ
    against_better: Interval | None  # the better of 1/d and l/d
    worst_against_better: Worst | None
    worse: int | None  # scenarios significantly and more than 2 % worse than that


def of_scenario(results: Results, scenario: str) -> list[ScenarioRow]:
    """Compare the policies of one scenario, in the order of the results."""
    metrics = {name: results.metric(name)[scenario] for name in ("p50", "p90", "p99", "jain", "max_mean")}
    counts = {name: results.metric(name)[scenario] for name in ("completed", "failed")}
    times = results.metric("mean")[scenario]
    return [
        ScenarioRow(
            policy,
            mean=statistics.t_interval(times[policy]),
            p50=_mean(metrics["p50"][policy]),
            p90=_mean(metrics["p90"][policy]),
            p99=_mean(metrics["p99"][policy]),
            against_lsq=statistics.relative_difference(times[policy], _lsq(times, policy)),
            gap=_gap_in_one(times, policy),
            linear_gap=_linear_gap(times, policy),
            jain=_mean(metrics["jain"][policy]),
            max_mean=_mean(metrics["max_mean"][policy]),
            failed=_share(counts["failed"][policy], counts["completed"][policy]),
        )
        for policy in times
    ]


def of_set(results: Results, scenarios: Sequence[str] | None = None) -> list[SetRow]:
    """Compare the policies that all scenarios of a set have."""
    times = results.metric("mean")
    chosen = [times[name] for name in scenarios or results.scenarios]
    names = [policy for policy in results.policies if all(policy in each for each in chosen)]
    return [_set_row(chosen, policy) for policy in names]


def _set_row(times: Sequence[Mapping[str, FloatArray]], policy: str) -> SetRow:
    means = {name: np.array([_mean(each[name]) for each in times]) for name in times[0] if _everywhere(times, name)}
    lsq = _lsq(means, policy)
    oracle = means.get(ORACLE)
    better = _better(times, policy)
    against = None if better is None else np.array([_mean(each) for each in better])
    return SetRow(
        policy,
        gap=None if oracle is None else statistics.gap_closed(means[policy], lsq, oracle),
        against_lsq=statistics.mean_difference(means[policy], lsq),
        worst=statistics.worst_regret(means[policy], lsq),
        against_better=None if against is None else statistics.mean_difference(means[policy], against),
        worst_against_better=None if against is None else statistics.worst_regret(means[policy], against),
        worse=None if better is None else _count_worse([each[policy] for each in times], better),
    )


def _lsq(times: Mapping[str, FloatArray], policy: str) -> FloatArray:
    """Return the times of LSQ on the policy's counts; an oracle has none, and takes those that were run."""
    name = on_counts_of(policy, LSQ)
    return times[name] if name in times else times[LSQ + ACTIVE]


def _better(times: Sequence[Mapping[str, FloatArray]], policy: str) -> list[FloatArray] | None:
    """Return the times of the better of 1/d and l/d in each scenario, on the policy's counts."""
    names = [on_counts_of(policy, name) for name in HEURISTICS]
    if not all(_everywhere(times, name) for name in names):
        return None
    candidates = [[each[name] for name in names] for each in times]
    return [each[statistics.best(each)] for each in candidates]


def _count_worse(policy: Sequence[FloatArray], better: Sequence[FloatArray]) -> int:
    return sum(statistics.significantly_worse(one, other) for one, other in zip(policy, better, strict=True))


def _everywhere(times: Sequence[Mapping[str, FloatArray]], policy: str) -> bool:
    return all(policy in each for each in times)


def _gap_in_one(times: Mapping[str, FloatArray], policy: str) -> Interval | None:
    if ORACLE not in times:
        return None
    return statistics.gap_closed_in_one(times[policy], _lsq(times, policy), times[ORACLE])


def _linear_gap(times: Mapping[str, FloatArray], policy: str) -> float | None:
    if ORACLE not in times:
        return None
    return statistics.linear_gap_closed(times[policy], _lsq(times, policy), times[ORACLE])


def _share(failed: FloatArray, completed: FloatArray) -> float:
    requests = float(failed.sum() + completed.sum())
    return float(failed.sum()) / requests if requests else 0.0


def _mean(values: FloatArray) -> float:
    return float(values.mean())
