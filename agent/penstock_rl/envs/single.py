"""The environment of one balancer, by the interface of Gymnasium.

M. Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments", 2024.

The other balancers of its scenario decide as the anchor does.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from penstock_rl.envs.episodes import Episode, Space

Observed = dict[str, NDArray[Any]]


class PenstockEnv(gymnasium.Env[Observed, NDArray[np.float32]]):
    """One balancer of one scenario, drawn anew for each episode.

    `reset` takes `options={"scenario": Scenario}` to choose one. An episode ends by truncation.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as the base class has it

    def __init__(self, space: Space | None = None, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._space = space or Space()
        self.observation_space: spaces.Space[Observed] = self._space.observation
        self.action_space: spaces.Space[NDArray[np.float32]] = self._space.action
        self._episode: Episode | None = None
        self._balancer = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        seeds = self._space.seeds
        drawn = seeds[int(self.np_random.integers(len(seeds)))]
        episode = Episode(self._space, drawn, (options or {}).get("scenario"))
        self._balancer = int(self.np_random.integers(episode.balancers))
        self._episode = episode
        return episode.observation(self._balancer), self._info(episode)

    def step(self, action: NDArray[np.float32]) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Decide for one interval."""
        episode = self._episode
        if episode is None:
            raise RuntimeError("step: there is no episode; call reset first")
        actions = np.zeros((episode.balancers, self._space.slots, 2), dtype=np.float32)
        actions[self._balancer] = action
        step = episode.step(actions)
        reward = episode.reward(self._balancer)
        return episode.observation(self._balancer), reward, False, step.done, self._info(episode)

    def _info(self, episode: Episode) -> dict[str, Any]:
        return episode.info | {"balancer": self._balancer}
