"""What the filter keeps between decisions, slot by slot."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.bayes.parameters import Parameters
from penstock_agent.policies.bayes.posterior import LOG_CORES, Estimate, Narrow, core_prior
from penstock_agent.policies.progress import resized
from penstock_agent.policies.requests import LARGEST_LOAD, Watch, Work

BINS = np.arange(21, dtype=np.float32)  # of log x / width: from 1 to 1097 requests


@dataclass(frozen=True, slots=True)
class BayesState:
    """What the filter keeps between decisions."""

    watch: Watch
    mean_load: FloatArray
    peers: FloatArray | None  # requests of the other balancers, where a shared view shows them
    mean_peers: FloatArray
    evidence: Narrow  # [..., slots, 3, bins]: requests that ended, request-seconds, and these / requests
    fast_ended: FloatArray
    fast_expected: FloatArray
    served: FloatArray  # requests that ended per second
    refreshed: float  # time of the last posterior
    estimate: Estimate


def peers_of(observation: Observation) -> FloatArray | None:
    """Return the requests of the other balancers; None without a shared view."""
    peers = observation.peers
    if peers is None or not peers.size or ((peers < 0) & observation.eligible).any():
        return None
    return np.minimum(np.maximum(peers, 0), LARGEST_LOAD).astype(float)


def prepared(observation: Observation, state: BayesState | None, work: Work, seen: Watch, p: Parameters) -> BayesState:
    """Return the state without what was learned of backends that are gone."""
    shape = work.same.shape
    if state is None or state.mean_load.shape[:-1] != shape[:-1]:
        return _fresh(observation, work, seen, p)
    if (state.peers is None) != (peers_of(observation) is None):
        state = replace(state, estimate=_with_prior(state.estimate, p))
    if state.mean_load.shape == shape and work.same.all():
        return replace(state, watch=seen)
    return _merged(state, _fresh(observation, work, seen, p), work.same)


def _with_prior(estimate: Estimate, p: Parameters) -> Estimate:
    """Return the estimate with the prior of other parameters: what backends have in common confirms itself."""
    common = estimate.common
    return replace(estimate, common=np.zeros(common.shape) + core_prior(p, common.ndim - 1))


def _fresh(observation: Observation, work: Work, seen: Watch, p: Parameters) -> BayesState:
    nothing = np.zeros(work.load.shape)
    prior = core_prior(p, nothing.ndim)
    estimate = Estimate(
        chance=nothing + prior,
        speeds=np.zeros((len(LOG_CORES), *nothing.shape)),
        common=nothing[..., :1] + prior,
        log_speed=nothing,
        speed_deviation=nothing + 1.0,
        log_cores=nothing + np.log(p.cores_mean),
        cores_deviation=nothing + p.cores_spread,
        known=nothing,
        log_rate=np.full((*nothing.shape[:-1], 1), np.nan),
    )
    evidence = np.zeros((*nothing.shape, 3, len(BINS)), dtype=np.float32)
    peers = peers_of(observation)
    mean_peers = nothing if peers is None else peers
    return BayesState(
        seen, work.load, peers, mean_peers, evidence, nothing, nothing, nothing, observation.time, estimate
    )


def _merged(state: BayesState, fresh: BayesState, keep: BoolArray) -> BayesState:
    """Take the slots to keep from the state, the others from a fresh one."""

    def of(old: FloatArray, new: FloatArray) -> FloatArray:
        return np.where(keep, resized(old, new.shape), new)

    old, new = state.estimate, fresh.estimate
    return replace(
        fresh,
        mean_load=of(state.mean_load, fresh.mean_load),
        mean_peers=of(state.mean_peers, fresh.mean_peers),
        evidence=np.where(keep[..., None, None], resized(state.evidence, fresh.evidence.shape, -3), fresh.evidence),
        fast_ended=of(state.fast_ended, fresh.fast_ended),
        fast_expected=of(state.fast_expected, fresh.fast_expected),
        served=of(state.served, fresh.served),
        refreshed=state.refreshed,
        estimate=Estimate(
            chance=of(old.chance, new.chance),
            speeds=of(old.speeds, new.speeds),
            common=old.common,
            log_speed=of(old.log_speed, new.log_speed),
            speed_deviation=of(old.speed_deviation, new.speed_deviation),
            log_cores=of(old.log_cores, new.log_cores),
            cores_deviation=of(old.cores_deviation, new.cores_deviation),
            known=of(old.known, new.known),
            log_rate=old.log_rate,
        ),
    )
