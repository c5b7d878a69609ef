"""Quantiles of reservoirs, for people: policies read the reductions. Computation only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import DECAY_PER_SECOND, BoolArray, FloatArray, Samples


def worker_weights(valid: BoolArray, seen: NDArray[np.uint64]) -> FloatArray:
    """Weigh each sample by how many its worker saw for each that it kept; [slots, samples]."""
    slots, workers = seen.shape
    per_worker = valid.reshape(slots, workers, -1)
    kept = per_worker.sum(axis=-1)
    weight = np.where(kept > 0, seen / np.maximum(kept, 1), 0.0)
    weights: FloatArray = np.broadcast_to(weight[:, :, None], per_worker.shape).reshape(valid.shape) * valid
    return weights


def summarise(samples: Samples, quantiles: tuple[float, ...]) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Count, recency-weighted mean and quantiles of each slot; NaN where there is no sample."""
    values, ages, valid, seen = samples
    weights = worker_weights(valid, seen)
    count = valid.sum(axis=1)
    clean = np.where(valid, values, 0.0).astype(float)
    recent = weights * DECAY_PER_SECOND ** np.where(valid, ages, 0.0)
    total = recent.sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, (clean * recent).sum(axis=1) / np.where(total > 0, total, np.nan), np.nan)
    return count, mean, _weighted_quantiles(clean, valid, weights, quantiles)


def quantiles(
    values: NDArray[np.float32], valid: BoolArray, seen: NDArray[np.uint64], of: tuple[float, ...]
) -> FloatArray:
    """Quantiles of each slot alone, [slots, quantiles]: several times cheaper than all of `summarise`."""
    if seen.shape[1] > 1:
        return _weighted_quantiles(values.astype(float), valid, worker_weights(valid, seen), of)
    # Of one worker all samples weigh the same, and the number of those that are there says where to look.
    ordered = np.sort(np.where(valid, values, np.float32(np.inf)), axis=1)
    count = np.count_nonzero(valid, axis=1)
    places = np.maximum(np.ceil(np.multiply.outer(count, of) - 1e-9).astype(int) - 1, 0)
    return np.where(count[:, None] > 0, np.take_along_axis(ordered, places, axis=1), np.nan).astype(float)


def _weighted_quantiles(
    values: FloatArray, valid: BoolArray, weights: FloatArray, quantiles: tuple[float, ...]
) -> FloatArray:
    order = np.argsort(np.where(valid, values, np.inf), axis=1)
    rows = np.arange(len(values))[:, None]
    ordered, mass = values[rows, order], np.cumsum(weights[rows, order], axis=1)
    count = valid.sum(axis=1)
    result = np.full((len(values), len(quantiles)), np.nan)
    for column, quantile in enumerate(quantiles):
        reached = mass >= quantile * mass[:, -1:] - 1e-9
        first = np.argmax(reached, axis=1)
        result[:, column] = np.where(count > 0, ordered[np.arange(len(values)), first], np.nan)
    return result
