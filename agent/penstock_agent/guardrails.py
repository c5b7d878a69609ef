"""Bounds that what a policy learned from measurements passes before it reaches the data plane.

Computation only. Weights are scaled to a geometric mean of 1 and kept within [1/sqrt(R), sqrt(R)], so that no two
are further apart than R, and each moves by at most a given share per step. Policies that read no measurement
repeat what users configured: there is nothing to guard against, and a fallback has to take effect at once
(`configured`).
"""

from __future__ import annotations

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
        return float(np.sqrt(self.max_weight_ratio))


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
    lowest, highest = 1.0 / bounds.highest, bounds.highest
    within = np.clip(scaled, lowest, highest)
    step = bounds.max_change_per_step
    paced = np.clip(within, previous * (1.0 - step), previous * (1.0 + step))
    # A previous step under wider bounds may lie outside: the ratio wins over the pace.
    paced = np.clip(paced, lowest, highest)
    return Guarded(
        weights=np.where(eligible, paced, 0.0),
        previous=np.where(eligible, paced, 1.0),
        invalid=int((eligible & ~valid).sum()),
        bounded=int((valid & (within != scaled)).sum()),
        slowed=int((valid & (paced != within)).sum()),
    )


def configured(wanted: FloatArray, *, eligible: BoolArray) -> Guarded:
    """Pass weights that repeat the configuration; the next guarded step goes on from them."""
    weights = np.where(eligible, np.minimum(wanted, LARGEST_WEIGHT), 0.0)
    return Guarded(weights, normalise(weights, weights > 0))


def normalise(weights: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale to a geometric mean of 1 over the valid ones; the others become 1."""
    logs = np.log(np.where(valid, weights, 1.0))
    logs -= np.where(valid, logs.sum(axis=-1, keepdims=True) / np.maximum(valid.sum(axis=-1, keepdims=True), 1), 0.0)
    scaled: FloatArray = np.exp(np.clip(logs, -LARGEST_LOG, LARGEST_LOG))
    return scaled
