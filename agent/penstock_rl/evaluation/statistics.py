"""Statistics of paired runs: intervals, log-gap closed, regret. Computation only.

Runs are paired: two policies meet the same arrivals, works and splits under the same seed. Differences are relative
and taken on logarithms, because scenarios differ by an order of magnitude. Intervals over seeds are Student's t on
the paired logarithms; intervals over scenarios are percentile bootstraps with a fixed seed. A mean time of infinity
means that no request completed; NaN means that a statistic is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 4000
BOOTSTRAP_SEED = 20261130
WORSE = 0.02  # relative difference below which a loss is not counted
LEAST_GAP = 0.01  # log(LSQ / oracle) below which a scenario has no gap to close


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval; NaN bounds where one value gives none."""

    estimate: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """Apply an increasing function to the estimate and both bounds."""
        return Interval(function(self.estimate), function(self.low), function(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Return whether the difference is significant at 5 %."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest regret over scenarios, and where it occurs."""

    regret: float
    index: int


def jain(values: FloatArray) -> float:
    """Jain's fairness index: 1 where all are equal, 1/n where one has everything.

    R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation in
    Shared Computer Systems", DEC TR-301, 1984.
    """
    known = values[np.isfinite(values)]
    squares = float(np.square(known).sum())
    return float(np.square(known.sum()) / (len(known) * squares)) if squares > 0 else math.nan


def max_over_mean(values: FloatArray) -> float:
    """Largest value over the mean: 1 where all are equal."""
    known = values[np.isfinite(values)]
    return float(known.max() / known.mean()) if len(known) and known.mean() > 0 else math.nan


@cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Return the t with P(|T| < t) = level, by bisection on the finite series of Abramowitz and Stegun 26.7.3-4."""
    low, high = 0.0, math.pi / 2  # theta = atan(t / sqrt(freedom)): the probability grows with it
    for _ in range(100):
        middle = (low + high) / 2
        if _t_probability(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.tan((low + high) / 2) * math.sqrt(freedom)


def _t_probability(theta: float, freedom: int) -> float:
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(odd + 1, freedom + 1 - odd, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def t_interval(values: FloatArray) -> Interval:
    """Return the mean with Student's interval."""
    mean = _mean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap(count: int, statistic: Callable[[NDArray[np.intp]], FloatArray]) -> Interval:
    """Percentile bootstrap: `statistic` maps indices [resamples, count] to one value for each resample."""
    estimate = float(statistic(np.arange(count)[None, :])[0])
    if count < 2 or not math.isfinite(estimate):
        return Interval(estimate, math.nan, math.nan)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(0, count, size=(RESAMPLES, count))
    found = statistic(drawn)
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high))


def relative_difference(policy: FloatArray, reference: FloatArray) -> Interval:
    """Return mean paired difference over seeds as a share of the reference, by t on logarithms."""
    return t_interval(_log_ratio(policy, reference)).map(math.expm1)


def gap_closed(policy: FloatArray, lsq: FloatArray, oracle: FloatArray) -> Interval:
    """Return sum log(LSQ / policy) / sum log(LSQ / oracle) over scenarios; bootstrap over scenarios."""
    return _gap(_log_ratio(lsq, policy), _log_ratio(lsq, oracle))


def gap_closed_in_one(policy: FloatArray, lsq: FloatArray, oracle: FloatArray) -> Interval:
    """Return log(LSQ / policy) / log(LSQ / oracle) of mean times over seeds; bootstrap over seeds."""

    def statistic(rows: NDArray[np.intp]) -> FloatArray:
        means = [np.log(values[rows].mean(axis=1)) for values in (lsq, policy, oracle)]
        return _ratio(means[0] - means[1], means[0] - means[2])

    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap(len(policy), statistic)


def linear_gap_closed(policy: FloatArray, lsq: FloatArray, oracle: FloatArray) -> float:
    """Return (LSQ - policy) / (LSQ - oracle) of mean times over seeds."""
    best, base = _mean(oracle), _mean(lsq)
    if not math.isfinite(base) or not base > best * math.exp(LEAST_GAP):
        return math.nan
    return (base - _mean(policy)) / (base - best)


def worst_regret(policy: FloatArray, reference: FloatArray) -> Worst:
    """Return the largest relative loss against the reference over scenarios."""
    regrets = np.expm1(_log_ratio(policy, reference))
    known = np.where(np.isnan(regrets), -np.inf, regrets)
    index = int(np.argmax(known))
    return Worst(float(known[index]), index)


def mean_difference(policy: FloatArray, reference: FloatArray) -> Interval:
    """Return the geometric mean of policy / reference over scenarios, less 1; bootstrap over scenarios."""
    logs = _log_ratio(policy, reference)
    return bootstrap(len(logs), lambda rows: logs[rows].mean(axis=1)).map(math.expm1)


def significantly_worse(policy: FloatArray, reference: FloatArray) -> bool:
    """Return whether a policy loses more than 2 % on average over seeds, and significantly so."""
    difference = relative_difference(policy, reference)
    if math.isinf(difference.estimate):  # no request completed
        return difference.estimate > 0
    return difference.estimate > WORSE and difference.low > 0


def best(candidates: Sequence[FloatArray]) -> int:
    """Return the index of the lowest mean over seeds, the first of equals."""
    means = [_mean(values) for values in candidates]
    return int(np.argmin([math.inf if math.isnan(mean) else mean for mean in means]))


def _gap(gained: FloatArray, possible: FloatArray) -> Interval:
    def statistic(rows: NDArray[np.intp]) -> FloatArray:
        return _ratio(gained[rows].sum(axis=1), possible[rows].sum(axis=1), least=LEAST_GAP)

    return bootstrap(len(gained), statistic)


def _ratio(gained: FloatArray, possible: FloatArray, least: float = LEAST_GAP) -> FloatArray:
    some = possible > least
    ratio: FloatArray = np.where(some, gained / np.where(some, possible, 1.0), np.nan)
    return ratio


def _log_ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    """Return log(over / under); 0 where both are infinite: neither completed a request."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs: FloatArray = np.log(over) - np.log(under)
    logs[np.isinf(over) & np.isinf(under)] = 0.0
    return logs


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan
