"""Whether a few runs agree with published results."""

from dataclasses import replace

import numpy as np
from penstock_rl.evaluation.drift import drifts
from penstock_rl.evaluation.results import Results, Run

RUN = Run("s", "lsq", 1, 100, 0, 0.2, 0.1, 0.4, 0.9, 0.95, 1.2)


def made(seed: int, mean: float, count: int, policy: str = "lsq", spread: float = 0.1) -> Results:
    times = mean * np.random.default_rng(seed).lognormal(0.0, spread, size=count)
    return Results(tuple(replace(RUN, policy=policy, seed=i, mean=time) for i, time in enumerate(times)))


def test_other_seeds_of_the_same_distribution_agree() -> None:
    found = [drifts(made(2 * i, 0.2, 3), made(2 * i + 1, 0.2, 8)) for i in range(500)]
    assert sum(map(len, found)) <= 4


def test_the_same_runs_agree_and_a_change_is_named() -> None:
    before = made(1, 0.2, 8)
    part = replace(before, runs=before.runs[:3])
    assert drifts(part, before) == []
    slower = replace(part, runs=tuple(replace(run, mean=run.mean * 2) for run in part.runs))
    (drift,) = drifts(slower, before)
    assert (drift.scenario, drift.policy) == ("s", "lsq")
    assert "s, lsq: mean" in str(drift)


def test_runs_without_variance_may_differ_by_rounding() -> None:
    before = made(1, 0.2, 8, spread=0.0)
    assert drifts(made(1, 0.2001, 3, spread=0.0), before) == []
    assert len(drifts(made(1, 0.21, 3, spread=0.0), before)) == 1


def test_one_run_is_compared_as_far_as_it_goes() -> None:
    assert drifts(made(1, 0.2, 1), made(1, 0.2, 1)) == []
    assert len(drifts(made(1, 0.3, 1), made(1, 0.2, 1))) == 1


def test_policies_that_were_not_published_are_left_out() -> None:
    assert drifts(made(1, 9.0, 3, policy="new"), made(1, 0.2, 8)) == []
