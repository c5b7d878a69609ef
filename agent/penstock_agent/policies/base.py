"""What every policy is, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import FloatArray, Observation

State = Any  # whatever a policy returned last; None at first


@dataclass(frozen=True, slots=True)
class Decision:
    """Parameters of the scheduler by slot: `sed` and `p2c` minimise (flows + base) / weight."""

    weights: FloatArray
    base: FloatArray | None = None  # flows added to the count, > 0; None: the data plane's own 1 / (nodes x workers)
    shared: bool = False  # bases are added to the flows of all balancers, which a shared view shows


class UnknownPolicyError(ValueError):
    """A policy name that is not in the registry."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named function `decide(observation, state) -> (decision, state)` and what it relies on."""

    name: str
    scheduler: SchedulerType  # below the weights, unless the user chooses another
    channels: tuple[str, ...]  # reservoirs it reads; empty: it works without any measurement
    decide: Callable[[Observation, State], tuple[Decision, State]]
    better_channels: tuple[str, ...] = ()  # reservoirs it reads instead where the data plane records them all
    decides_without: bool = False  # whether it decides without those that the data plane does not record

    def reads(self, recorded: Collection[str]) -> tuple[str, ...]:
        """Return the reservoirs to read of a data plane that records these."""
        better = self.better_channels and set(recorded).issuperset(self.better_channels)
        wanted = self.better_channels if better else self.channels
        return tuple(each for each in wanted if each in recorded) if self.decides_without else wanted


def neutral_where_unknown(weights: FloatArray, eligible: np.ndarray[Any, np.dtype[np.bool_]]) -> FloatArray:
    """Give eligible backends without an estimate (NaN) the mean of those that have one, or 1; others get 0.

    A newcomer is neither flooded, as a guess from no evidence might, nor starved of the flows that would measure it.
    """
    known = eligible & np.isfinite(weights)
    estimates = np.where(known, weights, 0.0)
    count = np.add.reduce(known, axis=-1, keepdims=True)
    mean = np.add.reduce(estimates, axis=-1, keepdims=True) / np.maximum(count, 1)
    return np.where(eligible & ~known, np.where(count > 0, mean, 1.0), estimates)
