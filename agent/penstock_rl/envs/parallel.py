"""The environment of all balancers of a VIP, by the parallel interface of PettingZoo: an agent per balancer.

J. K. Terry et al., "PettingZoo: Gym for Multi-Agent Reinforcement Learning", NeurIPS 2021.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from penstock_rl.envs.episodes import Episode, Space

Observed = dict[str, NDArray[Any]]


class PenstockParallelEnv(ParallelEnv[str, Observed, NDArray[np.float32]]):  # type: ignore[misc]  # it has no types
    """All balancers of one scenario, drawn anew for each episode; how many there are depends on the scenario.

    `reset` takes `options={"scenario": Scenario}` to choose one. An episode ends for all at once, by truncation.
    """

    metadata = {"name": "penstock_v1", "render_modes": []}  # noqa: RUF012 - as the base class has it

    def __init__(self, space: Space | None = None, balancers: int = 6, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._space = space or Space()
        self._most = balancers
        self.possible_agents = [f"balancer_{index}" for index in range(balancers)]
        self.agents: list[str] = []
        self.observation_spaces = dict.fromkeys(self.possible_agents, self._space.observation)
        self.action_spaces = dict.fromkeys(self.possible_agents, self._space.action)
        self._random = np.random.default_rng()
        self._episode: Episode | None = None

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the same object for an agent each time."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the same object for an agent each time."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observed], dict[str, dict[str, Any]]]:
        """Begin an episode; ValueError where its scenario has more balancers than there may be agents."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        seeds = self._space.seeds
        drawn = seeds[int(self._random.integers(len(seeds)))]
        episode = Episode(self._space, drawn, (options or {}).get("scenario"))
        if episode.balancers > self._most:
            raise ValueError(
                f"scenario {episode.scenario.name}: has {episode.balancers} balancers; make the environment for as many"
            )
        self._episode = episode
        self.agents = self.possible_agents[: episode.balancers]
        return self._observations(episode), dict.fromkeys(self.agents, episode.info)

    def step(
        self, actions: dict[str, NDArray[np.float32]]
    ) -> tuple[dict[str, Observed], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Decide for one interval; an agent without an action decides as the anchor."""
        episode, agents = self._episode, self.agents
        if episode is None or not agents:
            raise RuntimeError("step: there is no episode; call reset first")
        nothing = np.zeros((self._space.slots, 2), dtype=np.float32)
        step = episode.step(np.stack([actions.get(agent, nothing) for agent in agents]))
        observations = self._observations(episode)
        given = {agent: episode.reward(index) for index, agent in enumerate(agents)}
        truncations = dict.fromkeys(agents, step.done)
        if step.done:
            self.agents = []
        return observations, given, dict.fromkeys(agents, False), truncations, dict.fromkeys(agents, episode.info)

    def render(self) -> None:
        """Draw nothing: `penstock simulate` shows what happens in a scenario."""

    def _observations(self, episode: Episode) -> dict[str, Observed]:
        return {agent: episode.observation(index) for index, agent in enumerate(self.agents)}
