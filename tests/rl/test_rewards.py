"""Rewards, at sizes a reader can check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from penstock_rl.envs import rewards
from penstock_rl.envs.rewards import Passed

NAN = float("nan")
loads = npst.arrays(float, (3, 5), elements=st.floats(0, 100))


def passed(**changes):
    """Return a step of two balancers, of which the second does not exist, and two servers."""
    given: dict[str, Any] = {
        "seconds": 0.2,
        "expected": np.array([[2.0, 0.0]]),
        "work": np.array([[0.1]]),
        "completed": np.array([[3.0, 0.0]]),
        "durations": np.array([[0.6, 0.0]]),
        "lost": np.array([[0.0, 0.0]]),
        "in_progress": np.array([[4.0, 0.0]]),
        "slowdowns": np.array([[9.0, 0.0]]),
        "slow": np.array([[1.0, 0.0]]),
        "utilisation": np.array([[0.5, 1.0]]),
        "load": np.array([[1.0, 2.0]]),
    }
    return Passed(**given | changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duration", -0.6 / 0.1 / 2),
        ("occupancy", -4 * 0.2 / 0.1 / 2),
        ("slowdown", -9 / 2),
        ("tail", -1 / 2),
        ("jain-utilisation", 1.5**2 / (2 * 1.25)),
        ("jain-load", 9 / (2 * 5)),
        ("product-utilisation", 0.5**0.5),
        ("product-load", 0.5**0.5),
    ],
)
def test_each_reward_is_its_formula(name, value):
    assert rewards.by_name(name)(passed()).tolist() == [[pytest.approx(value), 0.0]]


def test_lost_requests_cost_as_much_as_very_slow_ones():
    lost = passed(lost=np.array([[1.0, 0.0]]))
    for name in ("duration", "occupancy", "slowdown"):
        reward = rewards.by_name(name)
        assert reward(lost)[0, 0] == pytest.approx(reward(passed())[0, 0] - rewards.FAILURE_COST / 2)


@given(values=loads)
def test_fairness_is_between_0_and_1_and_1_for_equals(values):
    for index in (rewards.jain, rewards.product):
        fairness = index(values)
        assert ((fairness >= 0) & (fairness <= 1 + 1e-9)).all()
        assert index(np.full((3, 5), 7.0)).tolist() == [pytest.approx(1.0)] * 3


@given(values=loads, scale=st.floats(1e-2, 1e2))
def test_fairness_does_not_depend_on_the_scale(values, scale):
    busy = values + 1.0
    np.testing.assert_allclose(rewards.jain(busy * scale), rewards.jain(busy), rtol=1e-9)
    np.testing.assert_allclose(rewards.product(busy * scale), rewards.product(busy), rtol=1e-9)


def test_absent_servers_do_not_count():
    both, one = np.array([[0.5, 1.0]]), np.array([[0.5, 1.0, NAN]])
    assert rewards.jain(one) == pytest.approx(rewards.jain(both))
    assert rewards.product(one) == pytest.approx(rewards.product(both))


def test_no_server_is_fair():
    nothing = replace(passed(), utilisation=np.full((1, 2), NAN), load=np.zeros((1, 2)))
    assert rewards.jain_utilisation(nothing)[0, 0] == rewards.product_load(nothing)[0, 0] == 1.0


def test_an_unknown_reward_is_named():
    with pytest.raises(rewards.UnknownRewardError, match="'speed' is not known; use one of duration"):
        rewards.by_name("speed")
