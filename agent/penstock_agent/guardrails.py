"""Bounds that what a policy learned from measurements passes before it reaches the data plane.

Computation only. Weights are scaled to a geometric mean of 1 and kept within [1/sqrt(R), sqrt(R)], so that no two
are further apart than R, and each moves by at most a given share per step. A base is at most R times the flows that
a backend has on average at all balancers (`_largest_base`), and 1 + base moves by at most the same share per step.
Policies that read no measurement repeat what users configured: there is nothing to guard against, and a fallback has
to take effect at once (`configured`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import Balancers, BoolArray, FloatArray
from penstock_agent.policies.base import Decision

LARGEST_LOG = 100.0  # far beyond every bound, and exp() of it is still a number
LARGEST_WEIGHT = 1e6  # that a data plane takes
LARGEST_BASE = 1e6  # that a data plane takes
SMALLEST_BASE = 1e-6


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

    decision: Decision  # both 0 where not eligible; a base of 0 stands for the data plane's own
    previous: Decision  # the same as the next step needs it: weight 1 where not eligible
    invalid: int = 0  # weights and bases of eligible backends that were not positive finite numbers
    bounded: int = 0  # held by the ratio
    slowed: int = 0  # held by the step

    @property
    def weights(self) -> FloatArray:
        """Weights that passed."""
        return self.decision.weights

    @property
    def base(self) -> FloatArray | None:
        """Bases that passed; None: the data plane's own for all."""
        return self.decision.base


@dataclass(frozen=True, slots=True)
class _Column:
    """Values of one kind, all of them between the bounds, and how many were held."""

    values: FloatArray
    invalid: int
    bounded: int
    slowed: int


def guard(
    wanted: Decision,
    previous: Decision,
    *,
    eligible: BoolArray,
    bounds: Guardrails,
    balancers: Balancers = 1,
    open_flows: NDArray[np.int64] | None = None,
) -> Guarded:
    """Bring what a policy wants within bounds; `previous` comes from the step before.

    `balancers` and `open_flows` (by slot, of this balancer) bound the base. Arrays may be stacked: [..., slots].
    """
    weights = _guard_weights(wanted.weights, previous.weights, eligible, bounds)
    paced, kept = np.where(eligible, weights.values, 0.0), np.where(eligible, weights.values, 1.0)
    if wanted.base is None:
        return Guarded(Decision(paced), Decision(kept), weights.invalid, weights.bounded, weights.slowed)
    before = previous.base if previous.shared == wanted.shared else None
    common = 1.0 / np.asarray(1 if wanted.shared else balancers)
    largest = _largest_base(eligible, bounds, balancers, open_flows)
    base = _guard_base(wanted.base, before, eligible, bounds, common, largest)
    return Guarded(
        Decision(paced, base.values, wanted.shared),
        Decision(kept, base.values, wanted.shared),
        invalid=weights.invalid + base.invalid,
        bounded=weights.bounded + base.bounded,
        slowed=weights.slowed + base.slowed,
    )


def _guard_weights(wanted: FloatArray, previous: FloatArray, eligible: BoolArray, bounds: Guardrails) -> _Column:
    valid = eligible & np.isfinite(wanted) & (wanted > 0)
    scaled = normalise(wanted, valid)
    return _paced(scaled, previous, eligible, valid, (1.0 / bounds.highest, bounds.highest), bounds.max_change_per_step)


def _guard_base(
    wanted: FloatArray,
    previous: FloatArray | None,
    eligible: BoolArray,
    bounds: Guardrails,
    common: FloatArray,
    largest: FloatArray,
) -> _Column:
    """Guard 1 + base as a weight is guarded; where a base is invalid, the common one of the data plane is used."""
    valid = eligible & np.isfinite(wanted) & (wanted > 0)
    before = common if previous is None else np.where(previous > 0, previous, common)
    limits = 1.0 + SMALLEST_BASE, 1.0 + largest
    plus_one = 1.0 + np.where(valid, wanted, common)
    held = _paced(plus_one, 1.0 + before, eligible, valid, limits, bounds.max_change_per_step)
    return _Column(np.where(valid, held.values - 1.0, 0.0), held.invalid, held.bounded, held.slowed)


def _paced(
    wanted: FloatArray,
    before: FloatArray,
    eligible: BoolArray,
    valid: BoolArray,
    limits: tuple[FloatArray | float, FloatArray | float],
    step: float,
) -> _Column:
    """Move from `before` to `wanted` by at most a share of `step`, and within limits."""
    within = _clip(wanted, *limits)
    paced = _clip(within, before * (1.0 - step), before * (1.0 + step))
    # A previous step under wider limits may lie outside: the limits win over the pace.
    paced = _clip(paced, *limits)
    return _Column(
        paced,
        invalid=int(np.count_nonzero(eligible & ~valid)),
        bounded=int(np.count_nonzero(valid & (within != wanted))),
        slowed=int(np.count_nonzero(valid & (paced != within))),
    )


def _largest_base(
    eligible: BoolArray, bounds: Guardrails, balancers: Balancers, open_flows: NDArray[np.int64] | None
) -> FloatArray:
    """Return max_weight_ratio x balancers x (1 + mean open flows of a backend at this balancer).

    The base stands for flows that this balancer does not count. A larger one would outweigh the counts.
    """
    mean: FloatArray | float = 0.0
    if open_flows is not None:
        total = np.add.reduce(np.where(eligible, np.maximum(open_flows, 0), 0), axis=-1, keepdims=True)
        mean = total / np.maximum(np.add.reduce(eligible, axis=-1, keepdims=True), 1)
    largest: FloatArray = np.minimum(bounds.max_weight_ratio * np.asarray(balancers) * (1.0 + mean), LARGEST_BASE)
    return largest


def configured(wanted: FloatArray, *, eligible: BoolArray) -> Guarded:
    """Pass weights that repeat the configuration; the next guarded step goes on from them."""
    weights = np.where(eligible, np.minimum(wanted, LARGEST_WEIGHT), 0.0)
    return Guarded(Decision(weights), Decision(normalise(weights, weights > 0)))


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
