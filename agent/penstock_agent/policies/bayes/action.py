"""The scheduler's weights and bases, from an estimate and the present load. Computation only."""

from __future__ import annotations

import numpy as np

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision
from penstock_agent.policies.bayes.evidence import others_of, surprise
from penstock_agent.policies.bayes.parameters import Parameters
from penstock_agent.policies.bayes.posterior import LOG_CORES, grid, log_slowdown
from penstock_agent.policies.bayes.state import BayesState, peers_of

LEAST_BASE = 0.05
"""Smallest base, in requests: the scheduler needs one above 0."""

CORES = np.exp(LOG_CORES)


def act(observation: Observation, state: BayesState, p: Parameters) -> Decision:
    """Return the index of each backend at its present load as the scheduler's (count + base) / weight.

    The slope is that of a busy backend, so a weight is a capacity: it changes slowly, and two of them differ as
    capacities do, which is what the guardrails bound. The base carries the rest.
    """
    eligible, load = observation.eligible, state.watch.load
    peers = peers_of(observation)
    if peers is None:
        per_own = 1.0 + np.asarray(p.others_share) * (np.asarray(observation.balancers) - 1.0)
        total = load + others_of(load, state.mean_load, observation, p)
        counted = load
    else:
        per_own, total = np.asarray(1.0), load + peers
        counted = total
    pace = _pace(state, eligible, p)
    index, busy = _index(total, pace, p)
    index = _alike(index, _unused(state.served, 1.0 / busy, eligible), eligible, p)
    slope = np.asarray(p.stiffness) * (1.0 + np.asarray(p.externality)) * per_own * busy
    slope = np.minimum(slope, index / (counted + LEAST_BASE))
    base = np.maximum(index / slope - counted, LEAST_BASE / 2.0)
    return Decision(np.where(eligible, 1.0 / slope, 0.0), np.where(eligible, base, 1.0), shared=peers is not None)


def _unused(served: FloatArray, capacity: FloatArray, eligible: BoolArray) -> FloatArray:
    """Return by how much, from 0 to 1, a backend is used less than all are on average, by its capacity."""
    capacity = np.where(eligible, capacity, 0.0)
    total = np.add.reduce(np.where(eligible, served, 0.0), axis=-1, keepdims=True)
    fair = total * capacity / np.maximum(np.add.reduce(capacity, axis=-1, keepdims=True), 1e-9)
    return np.maximum(1.0 - served / np.where(fair > 0, fair, np.inf), 0.0) * (fair > 0)


def _alike(index: FloatArray, unused: FloatArray, eligible: BoolArray, p: Parameters) -> FloatArray:
    """Overlook by how much the index of a backend that is hardly used is above the least one, up to `tolerance`.

    Far below saturation all backends are about as fast. A small difference between estimates would decide where all
    requests go, and a backend that was slow and has recovered would get none.
    """
    least = np.minimum.reduce(np.where(eligible, index, np.inf), axis=-1, keepdims=True, initial=np.inf)
    above = np.log(np.where(eligible, index, 1.0)) - np.log(np.where(np.isfinite(least), least, 1.0))
    return np.asarray(index * np.exp(-np.minimum(np.maximum(above, 0.0), p.tolerance * unused)))


def _pace(state: BayesState, eligible: BoolArray, p: Parameters) -> FloatArray:
    """Return 1 / speed for each number of cores, times the chance of it [cores, ..., slots]."""
    estimate = state.estimate
    correction = _correction(state, p)
    extra = correction - estimate.known * p.caution_speed * estimate.speed_deviation
    log_speed = p.speed_gain * estimate.log_speed + extra
    best = np.maximum.reduce(np.where(eligible, log_speed, -np.inf), axis=-1, keepdims=True, initial=-np.inf)
    extra = extra + np.where(eligible, np.maximum(best + np.log(p.least_speed) - log_speed, 0.0), -log_speed)
    chance = estimate.chance * np.exp(-(p.caution_cores * estimate.known) * grid(LOG_CORES, eligible.ndim))
    chance *= np.exp(-extra) / np.add.reduce(chance, axis=0)
    chance *= np.exp(-np.asarray(p.speed_gain) * estimate.speeds)
    return np.asarray(chance)


def _correction(state: BayesState, p: Parameters) -> FloatArray:
    """Return what the fast correction adds to log s."""
    found = surprise(state, p)
    return found * np.where(found < 0, p.fast_gain_down, p.fast_gain_up)


def _index(total: FloatArray, pace: FloatArray, p: Parameters) -> tuple[FloatArray, FloatArray]:
    """Return the index at a number of requests, and 1 / (s c): both are means over what the backend may be."""
    others = np.asarray(p.externality) * total
    alone, joined = _slowdown(total, p), _slowdown(total + 1.0, p)
    alone *= -others
    joined *= 1.0 + others
    joined += alone
    joined *= pace
    return np.add.reduce(joined, axis=0), np.add.reduce(pace / grid(CORES, total.ndim), axis=0)


def _slowdown(total: FloatArray, p: Parameters) -> FloatArray:
    found = log_slowdown(np.log(np.maximum(total, 1e-3)) - grid(LOG_CORES, total.ndim), p.sharpness)
    return np.exp(found, out=found)
