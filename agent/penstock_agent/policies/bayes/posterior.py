"""What the evidence says of the backends of a VIP: their speeds and cores.

Computation only. The likelihood of d requests that ended in q request-seconds at x requests is Poisson, and for given
cores c it is that of a Gamma distribution in the speed s; so the speed is integrated exactly, and only the cores need
a grid. Backends of a VIP are alike in part: the spread of their speeds and the frequencies of numbers of cores are
estimated from all of them and are the prior of each (H. Robbins, "An Empirical Bayes Approach to Statistics",
Proc. 3rd Berkeley Symposium, 1956).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import BoolArray, FloatArray
from penstock_agent.policies.bayes.parameters import Parameters
from penstock_agent.policies.requests import LARGEST_LOAD
from penstock_agent.policies.tunable import Number

LOG_CORES = np.linspace(0.0, np.log(64.0), 13)  # the square root of 2 apart

SHAPES = np.array([1.5, 4.0, 12.0, 40.0, 200.0])
"""Of the Gamma prior on speeds: the inverse of the squared spread of speeds among the backends of a VIP."""

Narrow = NDArray[np.float32]
"""Evidence, the largest array: float32 halves its memory, and numpy takes logarithms of it in a tenth of the time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The posterior by slot."""

    chance: FloatArray  # [cores, ..., slots]: of each number of cores
    speeds: FloatArray  # [cores, ..., slots]: mean log speed, if it has so many
    common: FloatArray  # [cores, ..., 1]: frequencies among the backends of the VIP, the prior of each
    log_speed: FloatArray
    speed_deviation: FloatArray
    log_cores: FloatArray
    cores_deviation: FloatArray
    known: FloatArray  # share of evidence, as against the prior, from 0 to 1
    log_rate: FloatArray  # [..., 1]: log mu; NaN before the first evidence


@dataclass(frozen=True, slots=True)
class _Joint:
    """What is believed of cores and speed together."""

    chance: FloatArray  # [cores, ..., slots]
    speeds: FloatArray  # [cores, ..., slots]: mean log speed at so many cores
    log_speed: FloatArray
    variance: FloatArray  # of log speed


def grid(values: FloatArray, dimensions: int) -> FloatArray:
    """Give a grid over cores or shapes the first axis, before `dimensions` others."""
    return values.reshape(-1, *(1,) * dimensions)


def core_prior(p: Parameters, dimensions: int) -> FloatArray:
    """Return the chance of each number of cores of a backend of which nothing is known [cores, ...]."""
    return _softmax(-0.5 * ((grid(LOG_CORES, dimensions) - np.log(p.cores_mean)) / p.cores_spread) ** 2)


def log_slowdown(log_ratio: FloatArray, exponent: Number | NDArray[np.float32]) -> FloatArray:
    """Turn log r into log (1 + r^exponent)^(1/exponent), in place."""
    log_ratio *= exponent
    linear = np.maximum(log_ratio, 0)
    np.abs(log_ratio, out=log_ratio)
    np.negative(log_ratio, out=log_ratio)
    np.log1p(np.exp(log_ratio, out=log_ratio), out=log_ratio)
    log_ratio += linear
    log_ratio /= exponent
    return log_ratio


def posterior(evidence: Narrow, before: Estimate, eligible: BoolArray, p: Parameters) -> Estimate:
    """Return the estimate from evidence [..., slots, 3, bins], with the frequencies and the rate of the one before."""
    ended, seconds, _ = np.moveaxis(np.add.reduce(evidence, axis=-1), -1, 0)
    log_rate = _first_rate(before.log_rate, ended, seconds, eligible)
    fit, exposed = _by_cores(evidence, p)
    exposed *= np.exp(np.where(np.isnan(log_rate), -np.inf, log_rate))
    joint = _joint(ended, fit, exposed, before.common, eligible, p)
    log_cores, cores_variance = _moments(joint.chance, grid(LOG_CORES, ended.ndim))
    known = ended / (ended + p.learned_after)
    shift = np.asarray(p.rate_gain) * _mean_log_speed(joint.log_speed, known, eligible)
    return Estimate(
        chance=joint.chance,
        speeds=joint.speeds - shift,
        common=_common(joint.chance, known, eligible, p),
        log_speed=joint.log_speed - shift,
        speed_deviation=np.sqrt(np.maximum(joint.variance, 0.0)),
        log_cores=log_cores,
        cores_deviation=np.sqrt(cores_variance),
        known=known,
        log_rate=log_rate + shift,
    )


def _joint(
    ended: FloatArray, fit: FloatArray, exposed: FloatArray, common: FloatArray, eligible: BoolArray, p: Parameters
) -> _Joint:
    """Integrate over the speed and over the spread of speeds; `exposed`: requests that end at speed 1.

    Arrays are [shapes, cores, ..., slots].
    """
    trust, prior = np.asarray(p.trust), grid(SHAPES, ended.ndim)
    shape = prior + trust * ended
    log_scale = prior[:, None] + trust * exposed
    np.log(log_scale, out=log_scale)
    weights = shape[:, None] * log_scale
    np.subtract((prior * np.log(prior) - _log_gamma(prior) + _log_gamma(shape))[:, None], weights, out=weights)
    weights += trust * fit + np.log(common + 1e-9)
    _weigh(weights, eligible)
    chance = np.add.reduce(weights, axis=0)
    # The mean of the log of a Gamma variable is digamma(shape) - log(inverse scale), its variance trigamma(shape).
    np.subtract(np.log(shape - 0.5)[:, None], log_scale, out=log_scale)
    variance = np.add.reduce(np.add.reduce(weights, axis=1) / (shape - 0.5), axis=0)
    weights *= log_scale
    speeds = np.add.reduce(weights, axis=0)
    log_speed = np.add.reduce(speeds, axis=0)
    weights *= log_scale
    variance += np.add.reduce(weights, axis=(0, 1)) - log_speed * log_speed
    return _Joint(chance, speeds / np.maximum(chance, 1e-12), log_speed, variance)


def _weigh(logs: FloatArray, eligible: BoolArray) -> None:
    """Turn log likelihoods [shapes, cores, ..., slots] into chances, in place; backends have the shape in common."""
    top = np.maximum.reduce(logs, axis=1)
    logs -= top[:, None]
    np.exp(logs, out=logs)
    totals = np.add.reduce(logs, axis=1)
    of_all = np.add.reduce(np.where(eligible, np.log(totals) + top, 0.0), axis=-1, keepdims=True)
    logs *= (_softmax(of_all) / totals)[:, None]


def _common(chance: FloatArray, known: FloatArray, eligible: BoolArray, p: Parameters) -> FloatArray:
    """Return how frequent each number of cores is among the backends, by what is known of them and the prior."""
    weight = np.where(eligible, known, 0.0)
    counts = np.add.reduce(weight * chance, axis=-1, keepdims=True)
    backends = np.asarray(p.cores_backends)
    total = backends + np.add.reduce(weight, axis=-1, keepdims=True)
    return np.asarray((backends * core_prior(p, known.ndim) + counts) / total)


def _log_gamma(values: FloatArray) -> FloatArray:
    """Return the log of the Gamma function by Stirling's series, to 1e-3; numpy has none."""
    far = values + 2.0
    series = (far - 0.5) * np.log(far) - far + 0.5 * math.log(2.0 * math.pi) + 1.0 / (12.0 * far)
    return np.asarray(series - np.log(values * (values + 1.0)))


def _by_cores(evidence: Narrow, p: Parameters) -> tuple[FloatArray, FloatArray]:
    """Return sum(d log g) and sum(q g) [cores, ..., slots]; each bin at its harmonic mean of requests."""
    ended, seconds, inverse = evidence[..., 0, :], evidence[..., 1, :], evidence[..., 2, :]
    mean = np.clip(seconds / np.maximum(inverse, np.float32(1e-9)), np.float32(1e-3), np.float32(LARGEST_LOAD))
    log_ratio = np.log(mean)[..., None] - LOG_CORES.astype(np.float32)  # [..., bins, cores]
    bend = np.asarray(p.bend, dtype=np.float32)
    log_share = log_slowdown(log_ratio, bend[..., None, None] if bend.ndim else bend)
    np.negative(log_share, out=log_share)
    fit = (ended[..., None, :] @ log_share)[..., 0, :]
    exposed = (seconds[..., None, :] @ np.exp(log_share, out=log_share))[..., 0, :]
    return np.moveaxis(fit, -1, 0).astype(float), np.moveaxis(exposed, -1, 0).astype(float)


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


def _mean_log_speed(log_speed: FloatArray, known: FloatArray, eligible: BoolArray) -> FloatArray:
    """Return the mean over backends with evidence: mu is the rate at a backend of mean speed."""
    weight = np.where(eligible, known, 0.0)
    total = np.add.reduce(weight, axis=-1, keepdims=True)
    mean = np.add.reduce(np.where(weight > 0, log_speed * weight, 0.0), axis=-1, keepdims=True)
    return np.asarray(mean / np.maximum(total, 1e-9))


def _softmax(logs: FloatArray) -> FloatArray:
    raised = np.exp(logs - np.maximum.reduce(logs, axis=0))
    return np.asarray(raised / np.add.reduce(raised, axis=0))


def _moments(chance: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = np.add.reduce(chance * values, axis=0)
    return mean, np.maximum(np.add.reduce(chance * values * values, axis=0) - mean * mean, 0.0)
