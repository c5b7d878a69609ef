"""What a step adds to the evidence: requests that ended, request-seconds, and the load at which they were.

Computation only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.bayes.parameters import Parameters
from penstock_agent.policies.bayes.posterior import Estimate, Narrow, log_slowdown
from penstock_agent.policies.bayes.state import BINS, BayesState, peers_of
from penstock_agent.policies.requests import Work
from penstock_agent.policies.tunable import Number

BIN_WIDTH = 0.35


def updated(observation: Observation, state: BayesState, work: Work, p: Parameters) -> BayesState:
    """Return the state with what happened in a step, and older evidence decayed."""
    seconds, done = work.seconds, work.ended
    load_left = _decay(seconds, p.load_seconds)
    mean_load = work.load + (state.mean_load - work.load) * load_left
    peers, mean_peers = peers_of(observation), state.mean_peers
    if peers is None or state.peers is None or state.peers.shape != peers.shape:
        before = state.mean_load + others_of(state.mean_load, state.mean_load, observation, p)
        total = work.between + others_of(work.between, mean_load, observation, p)
        mean_peers = mean_peers if peers is None else peers
    else:
        before = state.mean_load + state.mean_peers
        total = work.between + (peers + state.peers) / 2.0
        mean_peers = peers + (mean_peers - peers) * load_left
    request_seconds = work.between * seconds
    served = state.served + (done / seconds - state.served) * (1.0 - _decay(seconds, p.served_seconds))
    left = _decay(seconds, p.memory_seconds) * _idle_decay(observation, served, work, p)
    left = left * np.exp(-np.maximum(surprise(state, p), 0.0) * seconds / np.asarray(p.surprise_seconds))
    known = ~np.isnan(state.estimate.log_rate)
    expected = np.where(known, request_seconds * _rate(total, state.estimate, p), 0.0)
    fast = _decay(seconds, p.fast_seconds)
    return replace(
        state,
        mean_load=mean_load,
        peers=peers,
        mean_peers=mean_peers,
        evidence=_decayed(state.evidence, left, _binned(before, total, done, request_seconds)),
        fast_ended=state.fast_ended * fast + np.where(known, done, 0.0),
        fast_expected=state.fast_expected * fast + expected,
        served=served,
    )


def _decayed(evidence: Narrow, left: FloatArray, added: Narrow) -> Narrow:
    decayed = evidence * left[..., None, None].astype(np.float32)
    decayed += added
    return decayed


def _decay(seconds: float, over: Number) -> FloatArray:
    return np.asarray(np.exp(-seconds / np.asarray(over)))


def _starved(eligible: BoolArray, served: FloatArray, p: Parameters) -> FloatArray:
    """Return by how much, from 0 to 1, a backend's throughput is below `idle_share` of the mean."""
    count = np.maximum(np.add.reduce(eligible, axis=-1, keepdims=True), 1)
    mean = np.add.reduce(np.where(eligible, served, 0.0), axis=-1, keepdims=True) / count
    limit = np.where(eligible & (mean > 0), p.idle_share * mean, 1.0)
    return np.where(eligible & (mean > 0), np.maximum(1.0 - served / limit, 0.0), 0.0)


def _idle_decay(observation: Observation, served: FloatArray, work: Work, p: Parameters) -> FloatArray:
    """Return what a step leaves of the evidence of backends that are starved and idle."""
    idle = work.between + work.ended == 0
    rate = np.where(idle, _starved(observation.eligible, served, p), 0.0) / np.asarray(p.idle_seconds)
    return np.asarray(np.exp(-work.seconds * rate))


def _rate(total: FloatArray, estimate: Estimate, p: Parameters) -> FloatArray:
    """Return the rate at which each request ends, as estimated; NaN before the first evidence."""
    slowdown = log_slowdown(np.log(np.maximum(total, 1e-3)) - estimate.log_cores, p.bend)
    return np.asarray(np.exp(estimate.log_rate + estimate.log_speed - slowdown))


def _binned(before: FloatArray, total: FloatArray, done: FloatArray, request_seconds: FloatArray) -> Narrow:
    place = np.minimum(np.log(np.maximum(before, 1.0)) / BIN_WIDTH, BINS[-1]).astype(np.float32)
    shares = np.abs(place[..., None] - BINS)
    np.subtract(np.float32(1.0), shares, out=shares)
    np.maximum(shares, np.float32(0.0), out=shares)
    inverse = request_seconds / np.maximum(total, 1e-3)
    amounts = np.stack((done, request_seconds, inverse), axis=-1).astype(np.float32)
    return np.asarray(amounts[..., None] * shares[..., None, :])


def surprise(state: BayesState, p: Parameters) -> FloatArray:
    """Return the log of requests that ended lately over those expected, less what chance explains."""
    expected = state.fast_expected + p.fast_evidence
    ratio = np.log((state.fast_ended + p.fast_evidence) / expected)
    return np.copysign(np.maximum(np.abs(ratio) - p.fast_threshold / np.sqrt(expected), 0.0), ratio)


def others_of(load: FloatArray, mean_load: FloatArray, observation: Observation, p: Parameters) -> FloatArray:
    """Estimate the requests of the other balancers from those of this one."""
    others = np.asarray(observation.balancers) - 1.0
    return np.asarray(others * (p.others_share * load + (1.0 - np.asarray(p.others_share)) * mean_load))
