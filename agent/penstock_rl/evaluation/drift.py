"""Whether a few runs agree with results of before. Computation only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_rl.evaluation import statistics
from penstock_rl.evaluation.results import Results

FloatArray = NDArray[np.float64]

LEVEL = 0.999  # of one comparison: a hundred of them together are wrong once in ten times at most
SMALLEST = 0.01  # relative difference that is never counted: rounding differs between machines


@dataclass(frozen=True, slots=True)
class Drift:
    """A mean time that is not what it was; seconds."""

    scenario: str
    policy: str
    before: float
    now: float
    allowed: float  # relative difference

    def __str__(self) -> str:
        return (
            f"{self.scenario}, {self.policy}: mean {self.now * 1000:.1f} ms was {self.before * 1000:.1f} ms; "
            f"{self.now / self.before - 1:+.1%} is more than {self.allowed:.1%}"
        )


def drifts(now: Results, before: Results) -> list[Drift]:
    """Compare the mean times of all scenarios and policies that both have, by a pooled t test on logarithms."""
    earlier = before.metric("mean")
    found = []
    for scenario, policies in now.metric("mean").items():
        for policy, times in policies.items():
            if policy in earlier.get(scenario, {}):
                found.append(_drift(scenario, policy, times, earlier[scenario][policy]))
    return [drift for drift in found if drift is not None]


def _drift(scenario: str, policy: str, now: FloatArray, before: FloatArray) -> Drift | None:
    allowed = _allowed(np.log(now), np.log(before))
    means = [float(np.exp(np.log(times).mean())) for times in (before, now)]
    if means[0] == means[1] or abs(math.log(means[1] / means[0])) <= math.log1p(allowed):
        return None
    return Drift(scenario, policy, before=means[0], now=means[1], allowed=allowed)


def _allowed(now: FloatArray, before: FloatArray) -> float:
    freedom = len(now) + len(before) - 2
    if freedom < 1:
        return SMALLEST
    squares = sum(float(np.square(logs - logs.mean()).sum()) for logs in (now, before))
    error = math.sqrt(squares / freedom * (1 / len(now) + 1 / len(before)))
    return max(math.expm1(statistics.t_quantile(freedom, LEVEL) * error), SMALLEST)
