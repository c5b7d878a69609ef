"""Bounds that every policy's output passes before it reaches the data plane.

Computation only. What is bounded is the factor by which a policy departs from the configured weights: where these
are equal, and they are for the backends of a Service, the factor is the weight. Scaled to a geometric mean of 1,
a factor stays within [1/sqrt(R), sqrt(R)], so that no two are further apart than R, and it moves by at most a
given share per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock_agent.observation import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Bounds of one RLPolicy."""

    max_weight_ratio: float = 10.0  # largest factor over smallest
    max_change_per_step: float = 0.25  # share of a factor that one step may add or take
    max_frame_age_seconds: float = 1.0  # older frames are not decided upon

    @property
    def highest(self) -> float:
        """Largest factor; its inverse is the smallest."""
        return float(np.sqrt(self.max_weight_ratio))


@dataclass(frozen=True, slots=True)
class Guarded:
    """What passed, and what had to be held back."""

    weights: FloatArray  # configured weight x factor; 0 where not eligible
    factors: FloatArray  # `previous` of the next step; 1 where not eligible
    invalid: int  # eligible backends whose weight was not a positive finite number
    bounded: int  # held by the ratio
    slowed: int  # held by the step


def guard(
    wanted: FloatArray,
    previous: FloatArray,
    *,
    configured: FloatArray,
    eligible: BoolArray,
    bounds: Guardrails,
) -> Guarded:
    """Turn what a policy wants into weights within bounds; `previous` are the factors of the step before."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        raw = wanted / configured
    valid = eligible & np.isfinite(raw) & (raw > 0)
    factors = normalise(raw, valid)
    highest = bounds.highest
    within = np.clip(factors, 1.0 / highest, highest)
    step = bounds.max_change_per_step
    paced = np.clip(within, previous * (1.0 - step), previous * (1.0 + step))
    # A previous step under wider bounds may lie outside: the ratio wins over the pace.
    paced = np.clip(paced, 1.0 / highest, highest)
    factors_out = np.where(eligible, paced, 1.0)
    return Guarded(
        weights=np.where(eligible, configured * factors_out, 0.0),
        factors=factors_out,
        invalid=int((eligible & ~valid).sum()),
        bounded=int((valid & (within != factors)).sum()),
        slowed=int((valid & (paced != within)).sum()),
    )


def normalise(factors: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale to a geometric mean of 1 over the valid ones; the others become 1."""
    logs = np.log(np.where(valid, factors, 1.0))
    logs -= np.where(valid, logs.sum(axis=-1, keepdims=True) / np.maximum(valid.sum(axis=-1, keepdims=True), 1), 0.0)
    return np.exp(logs)


def starting_factors(
    in_force: FloatArray, configured: FloatArray, eligible: BoolArray, bounds: Guardrails
) -> FloatArray:
    """Factors of the weights that a data plane has in force, so that a restarted agent goes on from there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = in_force / configured
    valid = eligible & np.isfinite(raw) & (raw > 0)
    return np.clip(normalise(raw, valid), 1.0 / bounds.highest, bounds.highest)
