"""Two policies in turn under one load: which block each request belongs to, and what the blocks allow to be said.

The order within each pair of blocks is random (seeded), so that a drift of the machine, or noise that comes and goes,
meets both policies alike. Differences are taken within pairs, as ratios: noise of a machine multiplies latencies.
Computation only.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from e2e.load import Request

CONFIDENCE = 0.95
# Student's t, 0.975 quantile, by degrees of freedom from 1 on.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
MAX_PAIRS = len(_T) + 1


def order(policies: tuple[str, str], pairs: int, seed: int) -> list[str]:
    """Return which policy each block has: both in each pair, in random order, each as often first as the other."""
    if not 2 <= pairs <= MAX_PAIRS:
        raise ValueError(f"pairs: {pairs} is not from 2 to {MAX_PAIRS}")
    one, other = policies
    chosen = [(one, other), (other, one)] * (pairs // 2) + [(one, other)] * (pairs % 2)
    random.Random(seed).shuffle(chosen)
    return [policy for pair in chosen for policy in pair]


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the intended time of sending."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """Summarise single requests; NaN where there is none."""
        ordered = sorted(milliseconds)
        return cls(
            statistics.fmean(ordered) if ordered else math.nan, *(_quantile(ordered, q) for q in (0.5, 0.9, 0.99))
        )


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(quantile * len(ordered)) - 1, 0)]


@dataclass(frozen=True)
class Window:
    """When a block counted: after the policy was in force and had settled, until the next one."""

    policy: str
    began: datetime
    ended: datetime

    def holds(self, request: Request) -> bool:
        """Tell whether the request was due in this time."""
        return self.began <= request.intended < self.ended


@dataclass(frozen=True)
class Results:
    """Requests of one block, or of all blocks of a policy."""

    requests: int
    failed: int
    retried: int
    latency_ms: Latency
    backends: Mapping[str, int]

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Results:
        """Summarise requests."""
        found = list(requests)
        answered = [request for request in found if not request.failed]
        return cls(
            requests=len(found),
            failed=len(found) - len(answered),
            retried=sum(request.retried for request in found),
            latency_ms=Latency.of([request.latency_ms for request in answered]),
            backends=Counter(request.backend for request in answered),
        )


@dataclass(frozen=True)
class Interval:
    """A ratio (new / old) with the bounds of its confidence interval."""

    ratio: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes that nothing changed."""
        return self.low > 1.0 or self.high < 1.0


def compare(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    """Return the ratio of (old, new) pairs with its 95 % t interval of logarithms; None where a value is missing."""
    if len(pairs) < 2 or not all(value > 0 and math.isfinite(value) for pair in pairs for value in pair):
        return None
    logarithms = [math.log(new / old) for old, new in pairs]
    mean = statistics.fmean(logarithms)
    reach = _T[len(pairs) - 2] * statistics.stdev(logarithms) / math.sqrt(len(pairs))
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def pairs_of(
    blocks: Sequence[tuple[str, Results]], policies: tuple[str, str], value: Callable[[Latency], float]
) -> list[tuple[float, float]]:
    """Return (first policy, second policy) of each pair of neighbouring blocks."""
    found = []
    for one, other in zip(blocks[::2], blocks[1::2], strict=True):
        by_policy = {policy: value(results.latency_ms) for policy, results in (one, other)}
        found.append((by_policy[policies[0]], by_policy[policies[1]]))
    return found
