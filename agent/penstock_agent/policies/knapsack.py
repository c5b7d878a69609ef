"""Learn how each backend's latency grows with its share, and choose the shares that minimize the mean: after
R. Gandhi, S. Narayana, "KnapsackLB: Enabling Performance-Aware Layer-4 Load Balancing", arXiv 2404.17783, 2024.

The curve of a backend that takes r requests per second is that of processor sharing, d(r) = 1 / (a - b r). Its inverse
is a line, which is fitted by least squares to recent pairs of rate and inverse duration (requests that ended per
request-second); older pairs weigh less. The shares minimize
sum r_i d_i(r_i) for the present total R. At the optimum marginal latencies are equal, a / (a - b r)^2 = 1 / w^2, so

    r_i = max(a_i - w sqrt(a_i), 0) / b_i,    w = (sum a_i / b_i - R) / (sum sqrt(a_i) / b_i) over those with r_i > 0.

A line needs rates that differ. Those of random assignment do. To raise and lower shares on purpose costs more than it
finds: at a load of 0.85 a share that is 15 % higher uses most of the capacity that is left.

A backend with several cores has a curve that is flat and then steep. The least slope keeps the optimum near rates that
were measured: at most twice the present one.

What differs from the paper: latency is measured on the traffic itself, not by probes. A curve has two parameters that
are updated with every decision; the paper first measures each backend at one weight after another. The optimum is
exact for such curves; the paper solves an integer linear program over weights. A balancer knows its own rate only: the
latency that other balancers cause is part of a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy, neutral_where_unknown
from penstock_agent.policies.progress import Mark, Step, Throughput, advance, resized
from penstock_agent.policies.requests import Pace, Watch, watch

RATE_DECAY = 0.8
"""Decay per second of rates and inverse durations, the same, so that they belong to one load."""

EVIDENCE = 0.1
"""Requests as if they had ended at the common rate."""

MEMORY_SECONDS = 60.0
PRIOR_SECONDS = 2.0
PRIOR_SPREAD = 0.3
"""Prior: the line of a backend half used, b = y / r, as if seen so long with rates that differ by this share."""

FLATTEST, STEEPEST = 1.0, 20.0
"""Bounds of b in relation to the prior."""

LEAST_SHARE = 0.02
"""Share of its capacity a / b that a backend is given at least: it goes on being measured."""

ROUNDS = 8
"""Rounds in which backends that the optimum leaves out are found; each leaves out more."""


@dataclass(frozen=True, slots=True)
class KnapsackState:
    """What is kept between decisions: decayed sums over pairs of rate r and inverse duration y."""

    mark: Mark
    watch: Watch
    rate: Throughput
    pace: Pace
    sums: FloatArray  # [..., slots, 5]: 1, r, y, r^2, r y


def decide(observation: Observation, state: KnapsackState | None) -> tuple[Decision, KnapsackState]:
    """Weigh each eligible backend by its share of the optimum."""
    step, mark = advance(observation, state.mark if state else None, {"n_flow": observation.counters["n_flow"]})
    rate = Throughput.of(state.rate if state else None, step, step.added["n_flow"], RATE_DECAY)
    work, seen = watch(observation, state.watch if state else None)
    pace = Pace.of(state.pace if state else None, work, RATE_DECAY)
    sums = _sums(state, step, rate.per_second, pace.per_request(observation.eligible, EVIDENCE))
    shares = _optimum(*_line(sums), observation.eligible, rate.per_second)
    return Decision(neutral_where_unknown(shares, observation.eligible)), KnapsackState(mark, seen, rate, pace, sums)


def _sums(state: KnapsackState | None, step: Step, rate: FloatArray, inverse: FloatArray) -> FloatArray:
    shape = (*rate.shape, 5)
    before = np.zeros(shape) if state is None else resized(state.sums, shape, -2)
    known = step.same & np.isfinite(inverse) & (rate > 0)
    y, r = np.where(known, inverse, 0.0), np.where(known, rate, 0.0)
    added = np.stack((known.astype(float), r, y, r * r, r * y), axis=-1) * step.seconds
    left = np.where(step.same, np.exp(-step.seconds / MEMORY_SECONDS), 0.0)
    return before * left[..., None] + added


def _line(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a and b of y = a - b r, both positive; NaN without pairs."""
    count, r, y, rr, ry = (sums[..., i] for i in range(5))
    count = np.where((count > 0) & (r > 0), count, np.nan)
    mean_r, mean_y = r / count, y / count
    prior = mean_y / mean_r
    pull = PRIOR_SECONDS * (PRIOR_SPREAD * mean_r) ** 2
    fitted = (mean_r * y - ry + pull * prior) / (np.maximum(rr - mean_r * r, 0.0) + pull)
    b = np.minimum(np.maximum(fitted, FLATTEST * prior), STEEPEST * prior)
    return mean_y + b * mean_r, b


def _optimum(a: FloatArray, b: FloatArray, eligible: BoolArray, rate: FloatArray) -> FloatArray:
    """Return the rates that minimize the mean latency of the present total; NaN for backends without a curve."""
    known = eligible & np.isfinite(a) & np.isfinite(b)
    a, b = np.where(known, a, 1.0), np.where(known, b, 1.0)
    total = np.add.reduce(np.where(known, rate, 0.0), axis=-1, keepdims=True)
    capacity, root = a / b, np.sqrt(a)
    used, level = known, np.zeros(total.shape)
    for _ in range(ROUNDS):
        spare = np.add.reduce(np.where(used, capacity, 0.0), axis=-1, keepdims=True) - total
        scale = np.add.reduce(np.where(used, root / b, 0.0), axis=-1, keepdims=True)
        level = np.maximum(spare, 0.0) / np.where(scale > 0, scale, 1.0)
        used = used & (root > level)
    shares = np.maximum((a - level * root) / b, LEAST_SHARE * capacity)
    return np.where(known, shares, np.nan)


POLICY = Policy("knapsack", SchedulerType.ALIAS, ("fct",), decide, decides_without=True)
