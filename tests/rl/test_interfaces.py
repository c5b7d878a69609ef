"""The environments pass the official checkers of Gymnasium and PettingZoo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from penstock_rl.envs.batch import Settings
from penstock_rl.envs.episodes import Space
from penstock_rl.envs.parallel import PenstockParallelEnv
from penstock_rl.envs.single import PenstockEnv
from pettingzoo.test import parallel_api_test, parallel_seed_test

from tests.rl.small import short

SETTINGS = Settings(anchor="lsq")


def sample(seed):
    """Return a scenario with 1 or 2 balancers."""
    return short(name=f"small-{seed}", balancers={"count": 1 + seed % 2})


def space(**changes):
    given: dict[str, Any] = {"sample": sample, "seeds": range(8), "settings": SETTINGS}
    return Space(**given | changes)


def test_gymnasium_accepts_the_environment():
    check_env(PenstockEnv(space()), skip_render_check=True)


def test_pettingzoo_accepts_the_environment():
    # The checker expects all possible agents in each episode.
    parallel_api_test(PenstockParallelEnv(space(sample=lambda seed: short()), balancers=2), num_cycles=60)


def test_pettingzoo_environments_repeat_themselves():
    parallel_seed_test(lambda: PenstockParallelEnv(space(), balancers=2), num_cycles=30)


def test_an_episode_of_one_balancer():
    env = PenstockEnv(space())
    seen, info = env.reset(seed=3)
    assert info["scenario"] == f"small-{info['seed']}"
    assert seen["eligible"].sum() == 4
    steps, truncated = 0, False
    while not truncated:
        seen, reward, terminated, truncated, _ = env.step(np.zeros_like(env.action_space.sample()))
        assert not terminated
        assert np.isfinite(reward)
        steps += 1
    assert steps == 20
    assert seen["measured"].any()
    assert (seen["features"][seen["measured"] == 0] == 0).all()


def test_a_scenario_may_be_chosen():
    env = PenstockEnv(space())
    _, info = env.reset(seed=1, options={"scenario": short(name="mine")})
    assert info["scenario"] == "mine"


def test_the_default_space_is_that_of_training():
    env = PenstockEnv()
    seen, info = env.reset(seed=5)
    assert info["scenario"].startswith("training-")
    assert env.observation_space.contains(seen)
    seen, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(seen)


def test_all_balancers_of_a_scenario_are_agents():
    env = PenstockParallelEnv(space(), balancers=3)
    seen, _ = env.reset(seed=1, options={"scenario": short(balancers={"count": 3})})
    assert list(seen) == env.agents == ["balancer_0", "balancer_1", "balancer_2"]
    _, given, _, _, _ = env.step({})
    assert set(given) == set(seen)


def test_too_many_balancers_or_slots_are_refused():
    env = PenstockParallelEnv(space(), balancers=1)
    with pytest.raises(ValueError, match="scenario small: has 2 balancers"):
        env.reset(options={"scenario": short()})
    with pytest.raises(ValueError, match=r"scenario small-\d: needs \d+ slots"):
        PenstockEnv(space(slots=3)).reset(seed=1)


def test_a_step_without_an_episode_is_refused():
    single = PenstockEnv(space())
    with pytest.raises(RuntimeError, match="call reset first"):
        single.step(single.action_space.sample())
    with pytest.raises(RuntimeError, match="call reset first"):
        PenstockParallelEnv(space()).step({})
