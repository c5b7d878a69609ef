"""One scenario as an episode, for the interfaces of Gymnasium and PettingZoo: what both have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from penstock_agent import features

from penstock_rl.envs.batch import Batch, Settings, Step
from penstock_rl.scenarios import TRAINING, Scenario, expand, training

RESIDUAL_LIMITS = (3.0, 3.0)
"""Bounds of an action: log weight and log base, added to those of the anchor."""

Sampler = Callable[[int], Scenario]
"""From a seed to a scenario."""


@dataclass(frozen=True, slots=True)
class Space:
    """What episodes are drawn from, and how large their arrays are."""

    sample: Sampler = training
    seeds: range = TRAINING
    slots: int = 128
    settings: Settings = field(default_factory=Settings)
    seconds: float | None = None  # of an episode; None: the scenario's duration

    @property
    def observation(self) -> spaces.Space[Any]:
        """What one balancer observes: features (0 where not measured), which are measured, which slots take flows."""
        shape = (self.slots, len(self.settings.features))
        limit = np.float32(features.LARGEST)
        return spaces.Dict(
            {
                "features": spaces.Box(-limit, limit, shape, np.float32),
                "measured": spaces.MultiBinary(shape),
                "eligible": spaces.MultiBinary(self.slots),
            }
        )

    @property
    def action(self) -> spaces.Space[Any]:
        """The action of one balancer: log weight and log base by slot, added to those of the anchor."""
        high = np.broadcast_to(np.array(RESIDUAL_LIMITS, dtype=np.float32), (self.slots, 2))
        return spaces.Box(-high, high, (self.slots, 2), np.float32)


class Episode:
    """One scenario with one seed."""

    def __init__(self, space: Space, seed: int, scenario: Scenario | None = None) -> None:
        self.space = space
        self.seed = seed
        self.scenario = scenario or space.sample(seed)
        settings = replace(
            space.settings,
            step=self.scenario.interval,
            level=self.scenario.features.value.lower(),
            forwarding=self.scenario.forwarding.value.lower(),
        )
        seconds = self.scenario.duration if space.seconds is None else min(space.seconds, self.scenario.duration)
        self.batch = Batch([expand(self.scenario, seed)], settings, seconds)
        self.balancers, slots = self.batch.shape[1:]
        if slots > space.slots:
            raise ValueError(f"scenario {self.scenario.name}: needs {slots} slots; make the space with as many")
        self.last = self.batch.reset()

    def step(self, actions: NDArray[np.float32]) -> Step:
        """Step with an action per balancer [L, slots of the space, 2]."""
        self.last = self.batch.step(actions[None, :, : self.batch.shape[2]])
        return self.last

    def observation(self, balancer: int) -> dict[str, NDArray[Any]]:
        """Return what one balancer observes, padded to the slots of the space."""
        values, eligible = self.last.features[0, balancer], self.last.mask[0, balancer]
        measured = np.isfinite(values)
        return {
            "features": self._padded(np.where(measured, values, np.float32(0))),
            "measured": self._padded(measured.astype(np.int8)),
            "eligible": self._padded(eligible.astype(np.int8)),
        }

    def reward(self, balancer: int) -> float:
        """Return one balancer's reward of the step that just ended."""
        return float(self.last.reward[0, balancer])

    @property
    def info(self) -> dict[str, Any]:
        """Return what names the episode."""
        return {"scenario": self.scenario.name, "seed": self.seed}

    def _padded(self, values: NDArray[Any]) -> NDArray[Any]:
        padded = np.zeros((self.space.slots, *values.shape[1:]), dtype=values.dtype)
        padded[: len(values)] = values
        return padded
