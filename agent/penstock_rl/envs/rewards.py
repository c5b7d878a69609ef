"""Rewards: what a balancer gets for a step, from what happened to requests and servers in it.

Computation only. All are larger when things are better. Those of time are in units of the mean work of a request, and
per request that is expected in a step: the mean of `duration` over an episode is minus the mean completion time in
units of work, whatever the scenario's rates. Formulas and sources: docs/explanation/rewards.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

FAILURE_COST = 20.0
"""A request that failed or was refused counts as one that took so many times the mean work."""

TAIL = 5.0
"""A request is slow when it took more than so many times the mean work."""

LEAST_LOAD = 1e-3
"""Of a server in a product: one idle server must not make it 0."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What happened during a step: E environments, L balancers, N servers."""

    seconds: float
    expected: FloatArray  # [E, L]: requests that arrive in a step of this scenario on average; 0: no such balancer
    work: FloatArray  # [E, 1]: mean work of a request, seconds
    completed: FloatArray  # [E, L]
    durations: FloatArray  # [E, L]: sum over those that completed, seconds
    lost: FloatArray  # [E, L]: requests that failed, connections that were refused
    in_progress: FloatArray  # [E, L]: mean of the counts at the step's ends
    slowdowns: FloatArray  # [E, L]: sum of duration / work over those that completed
    slow: FloatArray  # [E, L]: those that took more than TAIL times the mean work
    utilisation: FloatArray  # [E, N]: CPU time used over CPU time offered; NaN where nothing was offered
    load: FloatArray  # [E, N]: requests in progress over capacity; NaN where there is none


Reward = Callable[[Passed], FloatArray]


def duration(passed: Passed) -> FloatArray:
    """Minus the completion times of requests that ended."""
    return -_per_request(passed.durations / passed.work + FAILURE_COST * passed.lost, passed)


def occupancy(passed: Passed) -> FloatArray:
    """Minus the request-seconds in progress: by Little's law the same mean as `duration`, without its delay."""
    return -_per_request(passed.in_progress * passed.seconds / passed.work + FAILURE_COST * passed.lost, passed)


def slowdown(passed: Passed) -> FloatArray:
    """Minus the completion times over the requests' own work."""
    return -_per_request(passed.slowdowns + FAILURE_COST * passed.lost, passed)


def tail(passed: Passed) -> FloatArray:
    """Minus the share of slow requests."""
    return -_per_request(passed.slow + passed.lost, passed)


def jain_utilisation(passed: Passed) -> FloatArray:
    """Jain's index of the servers' utilisation."""
    return _shared(jain(passed.utilisation), passed)


def jain_load(passed: Passed) -> FloatArray:
    """Jain's index of the servers' requests per capacity."""
    return _shared(jain(passed.load), passed)


def product_utilisation(passed: Passed) -> FloatArray:
    """Product fairness of the servers' utilisation."""
    return _shared(product(passed.utilisation), passed)


def product_load(passed: Passed) -> FloatArray:
    """Product fairness of the servers' requests per capacity."""
    return _shared(product(passed.load), passed)


REWARDS: Mapping[str, Reward] = {
    "duration": duration,
    "occupancy": occupancy,
    "slowdown": slowdown,
    "tail": tail,
    "jain-utilisation": jain_utilisation,
    "jain-load": jain_load,
    "product-utilisation": product_utilisation,
    "product-load": product_load,
}

READ_REQUESTS = ("slowdown", "tail")
"""Rewards that need single requests, which cost a copy of the records per step."""


class UnknownRewardError(ValueError):
    """A name that is no reward."""


def by_name(name: str) -> Reward:
    """Look a reward up; UnknownRewardError lists those there are."""
    try:
        return REWARDS[name]
    except KeyError:
        raise UnknownRewardError(f"reward: {name!r} is not known; use one of {', '.join(REWARDS)}") from None


def jain(values: FloatArray) -> FloatArray:
    """Return (sum x)^2 / (n sum x^2) over the last axis, 1 for equal values; NaN values do not count; 1 for none."""
    known = np.isfinite(values)
    plain = np.where(known, values, 0.0)
    squares = known.sum(axis=-1) * (plain * plain).sum(axis=-1)
    total = plain.sum(axis=-1)
    return np.where(squares > 0, total * total / np.where(squares > 0, squares, 1.0), 1.0)


def product(values: FloatArray) -> FloatArray:
    """Return the product of x / max x over the last axis as its geometric mean, within [0, 1]; 1 for equal values.

    The papers' product without the root falls with the number of servers. NaN values do not count.
    """
    known = np.isfinite(values)
    plain = np.where(known, np.maximum(values, 0.0), 0.0)
    highest = np.maximum(plain.max(axis=-1, keepdims=True), LEAST_LOAD)
    logs = np.where(known, np.log(np.maximum(plain / highest, LEAST_LOAD)), 0.0)
    idle = plain.max(axis=-1) <= LEAST_LOAD
    return np.where(idle, 1.0, np.exp(logs.sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)))


def _per_request(amount: FloatArray, passed: Passed) -> FloatArray:
    """Return amounts per expected request; 0 where there is no balancer."""
    there = passed.expected > 0
    return np.where(there, amount / np.where(there, passed.expected, 1.0), 0.0)


def _shared(value: FloatArray, passed: Passed) -> FloatArray:
    """Give every balancer of an environment the same."""
    return np.where(passed.expected > 0, value[:, None], 0.0)
