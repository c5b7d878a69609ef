"""What happened at each slot since a policy's last decision.

Computation only. Totals count from when a backend took its slot, so a slot with another backend and totals that fell
with a restarted data plane have no past: their step is empty. A table that has grown keeps the slots it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from penstock_agent.observation import BoolArray, FloatArray, Generations, Observation

LONGEST_SECONDS = 60.0
"""Longest step that is taken as it is; the longest interval of an RLPolicy."""

Kind = TypeVar("Kind", bound=np.generic)
Totals = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the last decision saw."""

    time: float
    generation: Generations
    names: tuple[str, ...]
    totals: NDArray[np.int64]  # [names, ..., slots]


@dataclass(frozen=True, slots=True)
class Step:
    """The difference to the last decision."""

    seconds: float  # 0 at the first decision, and while the clock stands still or runs backward
    same: BoolArray  # slots whose backend and totals go on
    added: Mapping[str, FloatArray]  # by total; 0 where not the same


def advance(observation: Observation, mark: Mark | None, totals: Totals) -> tuple[Step, Mark]:
    """Compare an observation with the mark of the last one."""
    now = Mark(observation.time, observation.generation, tuple(totals), np.array(list(totals.values()), dtype=np.int64))
    mark = None if mark is None or mark.names != now.names else _fitted(mark, now)
    if mark is None:
        nothing = np.zeros(observation.generation.shape)
        return Step(0.0, np.zeros(nothing.shape, dtype=np.bool_), dict.fromkeys(totals, nothing)), now
    same = observation.generation == mark.generation
    same = same & np.logical_and.reduce(now.totals >= mark.totals, axis=0)
    added = np.where(same, now.totals - mark.totals, 0).astype(float)
    seconds = min(max(now.time - mark.time, 0.0), LONGEST_SECONDS)
    return Step(seconds, same, dict(zip(now.names, added, strict=True))), now


def resized(values: NDArray[Kind], shape: tuple[int, ...], axis: int = -1) -> NDArray[Kind]:
    """Return values with the slots on `axis` cut or filled with zeros to the given shape."""
    if values.shape == shape:
        return values
    grown = np.zeros(shape, dtype=values.dtype)
    common = min(values.shape[axis], shape[axis])
    at: list[slice] = [slice(None)] * len(shape)
    at[axis] = slice(common)
    grown[tuple(at)] = values[tuple(at)]
    return grown


def _fitted(mark: Mark, now: Mark) -> Mark | None:
    """Return the mark with as many slots as there are now; None where it is of other rows."""
    shape = now.generation.shape
    if mark.generation.shape == shape:
        return mark
    if mark.generation.shape[:-1] != shape[:-1]:
        return None
    known = mark.generation.shape[-1]
    generation = np.array(now.generation + 1, dtype=np.uint8)  # slots that are new differ
    generation[..., :known] = mark.generation[..., : shape[-1]]
    return Mark(mark.time, generation, mark.names, resized(mark.totals, now.totals.shape))


class Elapsed(Protocol):
    """A step's time and the slots that go on."""

    @property
    def seconds(self) -> float:
        """Length of the step."""
        ...

    @property
    def same(self) -> BoolArray:
        """Slots with the backend of before."""
        ...


@dataclass(frozen=True, slots=True)
class Throughput:
    """Events per second of each slot, averaged with weights that decay with age."""

    events: FloatArray
    seconds: FloatArray

    @property
    def per_second(self) -> FloatArray:
        """Return the rate; 0 where nothing was observed yet."""
        rate: FloatArray = self.events / np.maximum(self.seconds, 1e-9)
        return rate

    @classmethod
    def of(cls, before: Throughput | None, step: Elapsed, added: FloatArray, decay_per_second: float) -> Throughput:
        """Add the events of a step; slots with another backend begin anew."""
        shape = step.same.shape
        if before is None:
            before = cls(np.zeros(shape), np.zeros(shape))
        left = np.where(step.same, decay_per_second**step.seconds, 0.0)
        return cls(
            resized(before.events, shape) * left + added,
            resized(before.seconds, shape) * left + np.where(step.same, step.seconds, 0.0),
        )
