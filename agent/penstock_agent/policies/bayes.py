"""Bayes filter: learns what each backend can do from how fast its requests end, and schedules by expected delay.

It is told no capacities. The server model is processor sharing with at most one core per request: of x requests at a
backend of speed s and c cores, each progresses at the rate

    h(x) = mu s g(x / c),    g(r) = (1 + r^6)^(-1/6),

where mu is the rate at which one request alone ends at an average backend; mu is common to the VIP. The methods are
textbook ones: a Poisson likelihood with a conjugate Gamma prior (A. Gelman et al., "Bayesian Data Analysis", 3rd ed.,
2013, section 2.6), with exponential forgetting (M. West, J. Harrison, "Bayesian Forecasting and Dynamic Models", 2nd
ed., 1997, section 6.3). The index of the action is that of shortest expected delay, extended by the delay that a
request causes to others (K. R. Krishnan, "Joining the right queue: a state-dependent decision rule", IEEE
Transactions on Automatic Control 35(1), 1990).

Load. l is the number of requests in progress that this balancer has at the backend (module `requests` has what is
counted). One of L balancers knows its own part, and estimates the total as

    x = l + (L - 1) (k l + (1 - k) mean(l)),    k: `others_share`, mean over `load_seconds`.

With a shared view x = l + `n_peers`, and the base is one on the flows of all balancers.

Evidence. Of each step of t seconds, request-seconds q = l t and requests that ended d are added to a bin k, decayed
over `memory_seconds`. The log-likelihood is sum_k d_k log h(x_k) - q_k h(x_k), x_k: harmonic mean of x in the bin,
because a busy backend has h in proportion to 1 / x. For given c it is that of a Gamma distribution in s, so the speed
is integrated exactly and only the cores need a grid. The bin is that of log x as smoothed *before* the step (width
0.35, linear interpolation between two): the load within a step depends on what ended in it, and bins of that would
show rates that fall with load where they do not. A backend that gets no work although others do forgets faster
(`idle_seconds`): it is tried again. So does one that is faster than believed (`surprise_seconds`): it has recovered.

Fast correction. The log of requests that ended over those expected within about `fast_seconds`, less a threshold in
standard deviations, is added to log s: a noisy neighbor is noticed in seconds.

Action. The index of x requests is

    I(x) = [sigma(x + 1) + e x (sigma(x + 1) - sigma(x))] / s,    sigma(m) = (1 + (m / c)^p)^(1/p),

e: `externality`, p: `sharpness`. Of what is known of a backend the cautious end is taken (`caution_speed`,
`caution_cores`); one that is not known is taken for an average one, or it would never be tried. As a function of the
count l it is linear within a step: (l + base) / weight, the form that the scheduler `sed` has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import BoolArray, FloatArray, Observation
from penstock_agent.policies.base import Decision, Policy
from penstock_agent.policies.progress import resized
from penstock_agent.policies.requests import LARGEST_LOAD, Watch, Work, watch
from penstock_agent.policies.tunable import Linear, Log, Number

REFRESH_SECONDS = 1.0
"""Time between two computations of the posterior."""

LEAST_BASE = 0.05
"""Smallest base, in requests: the scheduler needs one above 0."""

BIN_WIDTH = 0.35
BINS = np.arange(21, dtype=np.float32)  # of log x / width: from 1 to 1097 requests
LOG_CORES = np.linspace(0.0, np.log(64.0), 13)  # the square root of 2 apart


Narrow = NDArray[np.float32]
"""Evidence, the largest array: float32 halves its memory, and numpy takes logarithms of it in a tenth of the time."""

PER_CORES_SIXTH: Narrow = np.exp(-6.0 * LOG_CORES).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Constants of the filter. Each may be an array [rows, 1, 1], for a batch that compares values.

    The values were found by CMA-ES (`python -m penstock_rl.tuning`), except for those of starved backends
    (`idle_seconds`, `idle_share`, `served_seconds`), which the scenarios of the search do not reward.
    """

    # Evidence.
    memory_seconds: Annotated[Number, Log(10.0, 300.0, "s")] = 127.0
    trust: Annotated[Number, Log(0.1, 1.0)] = 0.187  # exponent of the likelihood, for what the model lacks
    speed_evidence: Annotated[Number, Log(1.0, 40.0, "requests")] = 3.68  # prior: as if so many had ended
    cores_mean: Annotated[Number, Log(1.0, 16.0, "cores")] = 10.7  # prior: geometric mean
    cores_spread: Annotated[Number, Log(0.2, 2.0, "log")] = 1.96  # prior: standard deviation
    rate_gain: Annotated[Number, Log(0.05, 1.0, "1/s")] = 0.646  # share of the mean log speed moved into mu
    # Load of the other balancers.
    load_seconds: Annotated[Number, Log(0.1, 5.0, "s")] = 0.63
    others_share: Annotated[Number, Linear(0.0, 1.0)] = 0.527
    # Fast correction.
    fast_seconds: Annotated[Number, Log(0.5, 10.0, "s")] = 2.98
    fast_evidence: Annotated[Number, Log(0.3, 20.0, "requests")] = 0.422  # prior: as if so many ended as expected
    fast_threshold: Annotated[Number, Linear(0.0, 3.0, "standard deviations")] = 2.31
    fast_gain_down: Annotated[Number, Linear(0.0, 1.5)] = 0.523
    fast_gain_up: Annotated[Number, Linear(0.0, 1.5)] = 1.14
    # Backends that may have changed.
    idle_seconds: Annotated[Number, Log(1.0, 100.0, "s")] = 5.0
    idle_share: Annotated[Number, Log(0.02, 0.8)] = 0.08  # of the mean throughput, below which it is starved
    served_seconds: Annotated[Number, Log(1.0, 30.0, "s")] = 5.0
    surprise_seconds: Annotated[Number, Log(1.0, 300.0, "s")] = 2.85  # of one e times as fast as believed
    # Action.
    caution_speed: Annotated[Number, Linear(-1.0, 2.0, "standard deviations")] = -0.676  # by which log s is taken lower
    caution_cores: Annotated[Number, Linear(-1.0, 2.0, "standard deviations")] = 0.305
    speed_gain: Annotated[Number, Linear(0.5, 1.5)] = 1.17
    externality: Annotated[Number, Linear(0.0, 1.5)] = 1.16
    sharpness: Annotated[Number, Log(1.5, 10.0)] = 1.51
    reach: Annotated[Number, Log(0.2, 5.0, "requests")] = 3.08  # distance over which the slope is taken
    reach_share: Annotated[Number, Linear(0.0, 1.0)] = 0.324  # the same, per request in progress
    least_slope: Annotated[Number, Log(0.02, 1.0)] = 0.637  # of that of a busy backend
    least_speed: Annotated[Number, Log(0.01, 0.3)] = 0.0105  # of the fastest backend's


DEFAULT = Parameters()


@dataclass(frozen=True, slots=True)
class Estimate:
    """The posterior by slot, as of the last refresh."""

    log_speed: FloatArray
    speed_deviation: FloatArray
    log_cores: FloatArray
    cores_deviation: FloatArray
    known: FloatArray  # share of evidence, as against the prior, from 0 to 1
    log_rate: FloatArray  # [..., 1]: log mu; NaN before the first evidence


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


def decide(
    observation: Observation, state: BayesState | None, parameters: Parameters = DEFAULT
) -> tuple[Decision, BayesState]:
    """Estimate every backend and return the scheduler's index at the present load."""
    work, seen = watch(observation, state.watch if state else None)
    state = _prepared(observation, state, work, seen, parameters)
    if work.seconds > 0:
        state = _updated(observation, state, work, parameters)
        if observation.time - state.refreshed >= REFRESH_SECONDS - 1e-3:
            estimate = _posterior(state, observation.eligible, parameters)
            state = replace(state, refreshed=observation.time, estimate=estimate)
    return _action(observation, state, parameters), state


def tuned_policy(parameters: Parameters) -> Callable[[Observation, BayesState | None], tuple[Decision, BayesState]]:
    """Return the filter's decision with other parameters."""
    return partial(decide, parameters=parameters)


def _peers(observation: Observation) -> FloatArray | None:
    """Return the requests of the other balancers; None without a shared view."""
    peers = observation.peers
    if peers is None or not peers.size or ((peers < 0) & observation.eligible).any():
        return None
    return np.minimum(np.maximum(peers, 0), LARGEST_LOAD).astype(float)


def _others(load: FloatArray, mean_load: FloatArray, observation: Observation, p: Parameters) -> FloatArray:
    """Estimate the requests of the other balancers from those of this one."""
    others = np.asarray(observation.balancers) - 1.0
    return np.asarray(others * (p.others_share * load + (1.0 - np.asarray(p.others_share)) * mean_load))


# ---- State ----


def _prepared(observation: Observation, state: BayesState | None, work: Work, seen: Watch, p: Parameters) -> BayesState:
    """Return the state without what was learned of backends that are gone."""
    shape = work.same.shape
    if state is None or state.mean_load.shape[:-1] != shape[:-1]:
        return _fresh(observation, work, seen, p)
    if state.mean_load.shape == shape and work.same.all():
        return replace(state, watch=seen)
    return _merged(state, _fresh(observation, work, seen, p), work.same)


def _fresh(observation: Observation, work: Work, seen: Watch, p: Parameters) -> BayesState:
    nothing = np.zeros(work.load.shape)
    estimate = Estimate(
        log_speed=nothing,
        speed_deviation=nothing + 1.0 / np.sqrt(p.speed_evidence),
        log_cores=nothing + np.log(p.cores_mean),
        cores_deviation=nothing + p.cores_spread,
        known=nothing,
        log_rate=np.full((*nothing.shape[:-1], 1), np.nan),
    )
    evidence = np.zeros((*nothing.shape, 3, len(BINS)), dtype=np.float32)
    peers = _peers(observation)
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
            log_speed=of(old.log_speed, new.log_speed),
            speed_deviation=of(old.speed_deviation, new.speed_deviation),
            log_cores=of(old.log_cores, new.log_cores),
            cores_deviation=of(old.cores_deviation, new.cores_deviation),
            known=of(old.known, new.known),
            log_rate=old.log_rate,
        ),
    )


# ---- Evidence ----


def _updated(observation: Observation, state: BayesState, work: Work, p: Parameters) -> BayesState:
    seconds, done = work.seconds, work.ended
    load_left = _decay(seconds, p.load_seconds)
    mean_load = work.load + (state.mean_load - work.load) * load_left
    peers, mean_peers = _peers(observation), state.mean_peers
    if peers is None or state.peers is None or state.peers.shape != peers.shape:
        before = state.mean_load + _others(state.mean_load, state.mean_load, observation, p)
        total = work.between + _others(work.between, mean_load, observation, p)
        mean_peers = mean_peers if peers is None else peers
    else:
        before = state.mean_load + state.mean_peers
        total = work.between + (peers + state.peers) / 2.0
        mean_peers = peers + (mean_peers - peers) * load_left
    request_seconds = work.between * seconds
    served = state.served + (done / seconds - state.served) * (1.0 - _decay(seconds, p.served_seconds))
    left = _decay(seconds, p.memory_seconds) * _idle_decay(observation, served, work, p)
    left = left * np.exp(-np.maximum(_surprise(state, p), 0.0) * seconds / np.asarray(p.surprise_seconds))
    known = ~np.isnan(state.estimate.log_rate)
    expected = np.where(known, request_seconds * _rate(total, state.estimate), 0.0)
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


def _rate(total: FloatArray, estimate: Estimate) -> FloatArray:
    """Return the rate at which each request ends, as estimated; NaN before the first evidence."""
    ratio = total * np.exp(-estimate.log_cores)
    cubed = ratio * ratio * ratio
    share = (1.0 + cubed * cubed) ** (-1.0 / 6.0)
    return np.asarray(np.exp(estimate.log_rate + estimate.log_speed) * share)


def _binned(before: FloatArray, total: FloatArray, done: FloatArray, request_seconds: FloatArray) -> Narrow:
    place = np.minimum(np.log(np.maximum(before, 1.0)) / BIN_WIDTH, BINS[-1]).astype(np.float32)
    shares = np.abs(place[..., None] - BINS)
    np.subtract(np.float32(1.0), shares, out=shares)
    np.maximum(shares, np.float32(0.0), out=shares)
    inverse = request_seconds / np.maximum(total, 1e-3)
    amounts = np.stack((done, request_seconds, inverse), axis=-1).astype(np.float32)
    return np.asarray(amounts[..., None] * shares[..., None, :])


def _surprise(state: BayesState, p: Parameters) -> FloatArray:
    """Return the log of requests that ended lately over those expected, less what chance explains."""
    expected = state.fast_expected + p.fast_evidence
    ratio = np.log((state.fast_ended + p.fast_evidence) / expected)
    return np.copysign(np.maximum(np.abs(ratio) - p.fast_threshold / np.sqrt(expected), 0.0), ratio)


# ---- Posterior ----


def _posterior(state: BayesState, eligible: BoolArray, p: Parameters) -> Estimate:
    trust = np.asarray(p.trust)
    ended, seconds, _ = np.moveaxis(np.add.reduce(state.evidence, axis=-1), -1, 0)
    fit, done = _by_cores(state.evidence)
    log_rate = _first_rate(state.estimate.log_rate, ended, seconds, eligible)
    shape = p.speed_evidence + trust * ended
    rate = np.exp(np.where(np.isnan(log_rate), -np.inf, log_rate))
    log_scale = np.log(_wide(p.speed_evidence) + _wide(trust * rate) * done)
    prior = -0.5 * ((LOG_CORES - np.log(_wide(p.cores_mean))) / _wide(p.cores_spread)) ** 2
    chance = _softmax(_wide(trust) * fit - shape[..., None] * log_scale + prior)
    # The mean of the log of a Gamma variable is digamma(shape) - log(inverse scale).
    by_cores = np.log(shape - 0.5)[..., None] - log_scale
    log_speed, variance = _moments(chance, by_cores)
    log_cores, cores_variance = _moments(chance, LOG_CORES)
    shift = np.asarray(p.rate_gain) * _mean_log_speed(log_speed, ended, eligible, p)
    return Estimate(
        log_speed=log_speed - shift,
        speed_deviation=np.sqrt(variance + 1.0 / (shape - 0.5)),
        log_cores=log_cores,
        cores_deviation=np.sqrt(cores_variance),
        known=1.0 - p.speed_evidence / shape,
        log_rate=log_rate + shift,
    )


def _by_cores(evidence: Narrow) -> tuple[FloatArray, FloatArray]:
    """Return sum(d log g) and sum(q g) for each number of cores; each bin at its harmonic mean of requests."""
    ended, seconds, inverse = evidence[..., 0, :], evidence[..., 1, :], evidence[..., 2, :]
    mean = np.minimum(seconds / np.maximum(inverse, np.float32(1e-9)), np.float32(LARGEST_LOAD))
    cubed = mean * mean * mean
    log_share = (cubed * cubed)[..., None] * PER_CORES_SIXTH  # [..., bins, cores]; large, so computed in place
    log_share += np.float32(1.0)
    np.log(log_share, out=log_share)
    log_share *= np.float32(-1.0 / 6.0)
    fit = (ended[..., None, :] @ log_share)[..., 0, :].astype(float)
    done = (seconds[..., None, :] @ np.exp(log_share, out=log_share))[..., 0, :].astype(float)
    return fit, done


def _wide(value: Number) -> FloatArray:
    """Give a parameter or an array over slots an axis for the cores."""
    return np.asarray(value)[..., None]


def _first_rate(log_rate: FloatArray, ended: FloatArray, seconds: FloatArray, eligible: BoolArray) -> FloatArray:
    """Begin with the VIP's mean rate per request."""
    unknown = np.isnan(log_rate)
    if not unknown.any():
        return log_rate
    all_ended = np.add.reduce(np.where(eligible, ended, 0.0), axis=-1, keepdims=True)
    all_seconds = np.add.reduce(np.where(eligible, seconds, 0.0), axis=-1, keepdims=True)
    known = (all_ended > 0) & (all_seconds > 0)
    first = np.log(np.where(known, all_ended, 1.0)) - np.log(np.where(known, all_seconds, 1.0))
    return np.where(unknown & known, first, log_rate)


def _mean_log_speed(log_speed: FloatArray, count: FloatArray, eligible: BoolArray, p: Parameters) -> FloatArray:
    """Return the mean over backends with evidence: mu is the rate at a backend of mean speed."""
    weight = np.where(eligible, count / (count + p.speed_evidence), 0.0)
    total = np.add.reduce(weight, axis=-1, keepdims=True)
    mean = np.add.reduce(np.where(weight > 0, log_speed * weight, 0.0), axis=-1, keepdims=True)
    return np.asarray(mean / np.maximum(total, 1e-9))


def _softmax(logs: FloatArray) -> FloatArray:
    raised = np.exp(logs - np.maximum.reduce(logs, axis=-1, keepdims=True))
    return np.asarray(raised / np.add.reduce(raised, axis=-1, keepdims=True))


def _moments(chance: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = np.add.reduce(chance * values, axis=-1)
    return mean, np.maximum(np.add.reduce(chance * values * values, axis=-1) - mean * mean, 0.0)


# ---- Action ----


def _action(observation: Observation, state: BayesState, p: Parameters) -> Decision:
    speed = np.exp(_log_speed(state, observation.eligible, p))
    estimate = state.estimate
    cores = np.exp(estimate.log_cores - estimate.known * p.caution_cores * estimate.cores_deviation)
    load, eligible = state.watch.load, observation.eligible
    peers = _peers(observation)
    if peers is None:
        per_own = 1.0 + p.others_share * (np.asarray(observation.balancers) - 1.0)
        total = load + _others(load, state.mean_load, observation, p)
        counted = load
    else:
        per_own, total = np.asarray(1.0), load + peers
        counted = total
    reach = p.reach + p.reach_share * counted
    near = _index(total, speed, cores, p)
    far = _index(total + per_own * reach, speed, cores, p)
    busy = (1.0 + p.externality) * per_own / (speed * cores)
    slope = np.maximum((far - near) / reach, p.least_slope * busy)
    slope = np.minimum(slope, near / (counted + LEAST_BASE))
    base = np.maximum(near / slope - counted, LEAST_BASE / 2.0)
    return Decision(np.where(eligible, 1.0 / slope, 0.0), np.where(eligible, base, 1.0), shared=peers is not None)


def _log_speed(state: BayesState, eligible: BoolArray, p: Parameters) -> FloatArray:
    estimate = state.estimate
    slow = p.speed_gain * estimate.log_speed - estimate.known * p.caution_speed * estimate.speed_deviation
    log_speed = slow + _correction(state, p)
    best = np.maximum.reduce(np.where(eligible, log_speed, -np.inf), axis=-1, keepdims=True, initial=-np.inf)
    return np.where(eligible, np.maximum(log_speed, best + np.log(p.least_speed)), 0.0)


def _correction(state: BayesState, p: Parameters) -> FloatArray:
    """Return what the fast correction adds to log s."""
    surprise = _surprise(state, p)
    return surprise * np.where(surprise < 0, p.fast_gain_down, p.fast_gain_up)


def _index(total: FloatArray, speed: FloatArray, cores: FloatArray, p: Parameters) -> FloatArray:
    alone, joined = _slowdown(total, cores, p), _slowdown(total + 1.0, cores, p)
    return np.asarray((joined + p.externality * total * (joined - alone)) / speed)


def _slowdown(total: FloatArray, cores: FloatArray, p: Parameters) -> FloatArray:
    sharpness = np.asarray(p.sharpness)
    return np.asarray((1.0 + (total / cores) ** sharpness) ** (1.0 / sharpness))


POLICY = Policy("bayes", SchedulerType.SED, ("fct",), decide, better_channels=("pt_gen",), decides_without=True)
