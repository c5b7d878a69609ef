"""Hot-cold lexicographic rule of B. Wydrowski, R. Kleinberg, S. M. Rumble, A. Archer, "Load is not what you should
balance: Introducing Prequal", NSDI 2024.

A backend is hot if its requests in flight (RIF) exceed a quantile of the RIF of all. Prequal takes the cold backend
with the lowest latency; where all are hot, the one with the lowest RIF.

As a weight and a base for the scheduler `sed`, which takes the lowest (count + base) / weight, with threshold t, count
l at the decision and latency d relative to the highest of all:

    hot:   count / t                                                 at least 1
    cold:  (count + b) / (t + b), b: such that it is COLDEST x d now below 1 until the count reaches t

so cold backends go before hot ones, those with lower latency first, and a cold one that takes flows becomes hot. A base
is above 0, so no cold backend has less than l / t: of those with a low latency the count decides.

What differs: Prequal probes servers asynchronously and decides per request among a few probes, with RIF and latency as
servers know them. Here nothing is probed. RIF is this balancer's own count, the latency is the mean of what it
measured, and both are five times a second; between decisions only the count moves. At high load few backends are cold,
and what is left is the rule for hot ones, least RIF: it suits servers of equal capacity, as replicas are in the paper.
"""

from __future__ import annotations

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.inverse_duration import mean_duration
from penstock_agent.policies.requests import Watch, watch

HOT_QUANTILE = 0.84
"""Backends above this quantile of RIF are hot: 2 ** -0.25, the paper's default."""

COLDEST = 0.8
"""Index of the cold backend with the highest latency, at its present count; below the 1 of hot ones."""

LEAST_THRESHOLD = 1.0
LEAST_BASE = 0.01


def decide(observation: Observation, state: Watch | None) -> tuple[Decision, Watch]:
    """Return lines that order cold backends by latency and hot ones by requests in flight."""
    eligible = observation.eligible
    work, seen = watch(observation, state)
    load = work.load
    latency = neutral_where_unknown(mean_duration(observation), eligible)
    slowest = np.maximum.reduce(latency, axis=-1, keepdims=True, initial=0.0)
    threshold = np.maximum(_quantile(load, eligible, HOT_QUANTILE), LEAST_THRESHOLD)
    base = _base(load, threshold, COLDEST * latency / np.where(slowest > 0, slowest, 1.0))
    return Decision(np.where(eligible, threshold + base, 0.0), np.where(eligible, base, 1.0)), seen


def _base(load: FloatArray, threshold: FloatArray, index: FloatArray) -> FloatArray:
    """Return the base with which (count + base) / (threshold + base) is the index of a cold backend at its load."""
    base = np.where(load < threshold, (index * threshold - load) / (1.0 - index), 0.0)
    return np.maximum(base, LEAST_BASE)


def _quantile(values: FloatArray, eligible: BoolArray, share: float) -> FloatArray:
    """Return a quantile over the eligible slots, [..., 1]; 0 where there are none."""
    count = np.add.reduce(eligible, axis=-1, keepdims=True)
    if values.shape[-1] == 0:
        return count.astype(float)
    ordered = np.sort(np.where(eligible, values, np.inf), axis=-1)
    place = np.maximum(np.ceil(share * count).astype(int) - 1, 0)
    found = np.take_along_axis(ordered, place, axis=-1)
    return np.where(count > 0, found, 0.0)


POLICY = Policy("prequal", SchedulerType.SED, ("fct",), decide, better_channels=("pt_gen",))
