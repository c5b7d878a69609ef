"""Bounds that what a policy learned from measurements passes before it reaches the data plane.

Computation only. Weights are scaled to a geometric mean of 1 and kept within [1/sqrt(R), sqrt(R)], so that no two
are further apart than R, and each moves by at most a given share per step. Policies that read no measurement
repeat what users configured: there is nothing to guard against, and a fallback has to take effect at once
(`configured`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penstock_agent.observation import BoolArray, FloatArray

LARGEST_LOG = 100.0  # far beyond every bound, and exp() of it is still a number
LARGEST_WEIGHT = 1e6  # that a data plane takes


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Bounds of one RLPolicy."""

    max_weight_ratio: float = 10.0  # largest weight over smallest
    max_change_per_step: float = 0.25  # share of a weight that one step may add or take

    @property
    def highest(self) -> float:
        """Largest weight; its inverse is the smallest."""
        return math.sqrt(self.max_weight_ratio)


@dataclass(frozen=True, slots=True)
class Guarded:
    """What passed, and what had to be held back."""

    weights: FloatArray  # 0 where not eligible
    previous: FloatArray  # the same as the next step needs it: 1 where not eligible
    invalid: int = 0  # eligible backends whose weight was not a positive finite number
    bounded: int = 0  # held by the ratio
    slowed: int = 0  # held by the step


def guard(wanted: FloatArray, previous: FloatArray, *, eligible: BoolArray, bounds: Guardrails) -> Guarded:
    """Turn what a policy wants into weights within bounds; `previous` comes from the step before."""
    valid = eligible & np.isfinite(wanted) & (wanted > 0)
    scaled = normalise(wanted, valid)
    highest, step = bounds.highest, bounds.max_change_per_step
    within = _clip(scaled, 1.0 / highest, highest)
    paced = _clip(within, previous * (1.0 - step), previous * (1.0 + step))
    # A previous step under wider bounds may lie outside: the ratio wins over the pace.
    paced = _clip(paced, 1.0 / highest, highest)
    return Guarded(
        weights=np.where(eligible, paced, 0.0),
        previous=np.where(eligible, paced, 1.0),
        invalid=int(np.count_nonzero(eligible & ~valid)),
        bounded=int(np.count_nonzero(valid & (within != scaled))),
        slowed=int(np.count_nonzero(valid & (paced != within))),
    )


def configured(wanted: FloatArray, *, eligible: BoolArray) -> Guarded:
    """Pass weights that repeat the configuration; the next guarded step goes on from them."""
    weights = np.where(eligible, np.minimum(wanted, LARGEST_WEIGHT), 0.0)
    return Guarded(weights, normalise(weights, weights > 0))


def normalise(weights: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale to a geometric mean of 1 over the valid ones; the others become 1."""
    logs = np.log(np.where(valid, weights, 1.0))  # 0 where not valid: adds nothing to the sum
    count = np.maximum(np.add.reduce(valid, axis=-1, keepdims=True), 1)
    centred = np.where(valid, logs - np.add.reduce(logs, axis=-1, keepdims=True) / count, 0.0)
    scaled: FloatArray = np.exp(_clip(centred, -LARGEST_LOG, LARGEST_LOG))
    return scaled


def _clip(values: FloatArray, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """Clip as np.clip does, at a third of its cost on arrays this small."""
    clipped: FloatArray = np.minimum(np.maximum(values, low), high)
    return clipped
