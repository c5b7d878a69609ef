"""The batch of environments that training uses shows a network what an agent would, and does what an agent would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from penstock_agent import features, policies
from penstock_agent.models import read
from penstock_agent.models.network import Network
from penstock_agent.observation import AVG_DECAY, REDUCTIONS
from penstock_agent.policies import learned
from penstock_embedded.messages import SchedulerLoad
from penstock_rl.envs import truth
from penstock_rl.envs.batch import Batch, Endless, Settings
from penstock_rl.scenarios import expand
from penstock_rl.simulation import Setting, Sharing, run

from tests.rl.small import short
from tests.support.models import model_file

SECONDS = 4.0
NAMES = ("counts/open", "active/active_relative", "endings/slow", "fct/avg_decay", "action/log_weight", "context/open")


def entries(*seeds, **changes):
    return [expand(short(**changes), seed) for seed in seeds]


def played(batch, residual=None):
    steps = [batch.reset()]
    while not steps[-1].done:
        nothing = np.zeros((*batch.shape, 2), dtype=np.float32)
        steps.append(batch.step(nothing if residual is None else residual(steps[-1])))
    return steps


def test_an_episode_has_its_steps_and_shapes():
    batch = Batch(entries(1, 2, 3), Settings(anchor="lsq"), SECONDS)
    steps = played(batch)
    environments, balancers, slots = batch.shape
    assert (environments, balancers, len(steps)) == (3, 2, 21)
    for step in steps:
        assert step.features.shape == (*batch.shape, len(batch.feature_names))
        assert step.truth.shape == (*batch.shape, len(batch.truth_names))
        assert step.anchor.shape == (3, 2, slots, 2)
        assert step.mask.sum() == 3 * 2 * 4
        assert step.present.all()
        assert step.features.dtype == step.reward.dtype == np.float32
    assert steps[0].renewed.all()
    assert not any(step.renewed[step.mask].any() for step in steps[1:])
    assert [step.done for step in steps] == [False] * 20 + [True]


def test_an_episode_repeats_itself():
    batch = Batch(entries(1), Settings(anchor="little"), SECONDS)
    first, second = played(batch), played(batch)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.features, other.features)
        np.testing.assert_array_equal(one.reward, other.reward)


def test_no_residual_is_a_run_of_the_anchor():
    environments = entries(4, 5)
    batch = Batch(environments, Settings(anchor="lsq", use_base=False), SECONDS)
    played(batch)
    completed, seconds = batch.totals()
    setting = Setting(level="full", load=SchedulerLoad.ACTIVE)
    outcomes = run(environments, policies.by_name("lsq"), until=SECONDS, setting=setting)
    for index, outcome in enumerate(outcomes):
        assert completed[index] == np.isfinite(outcome.duration).sum()
        assert seconds[index] == pytest.approx(np.nansum(outcome.duration))


@pytest.mark.parametrize(("level", "forwarding"), [("basic", "nat"), ("full", "nat"), ("full", "gre")])
def test_a_network_sees_in_training_what_it_sees_in_an_agent(level, forwarding):
    """An agent's policy of a model does what a batch does that is driven by the model's network."""
    environments = entries(6, 7)
    model = read(model_file(5, features=NAMES, anchor="little"))
    network = Network(model.metadata, model.arrays)
    settings = Settings(anchor="little", features=NAMES, level=level, forwarding=forwarding)
    batch = Batch(environments, settings, SECONDS)
    hidden = None

    def residual(step):
        nonlocal hidden
        hidden = None if hidden is None else np.where(step.renewed[..., None], 0, hidden).astype(np.float32)
        output = network(step.features, step.mask, hidden)
        hidden = output.hidden
        return output.residual

    played(batch, residual)
    setting = Setting(level=level, forwarding=forwarding, load=SchedulerLoad.ACTIVE)
    outcomes = run(environments, learned.policy(model, policies.POLICIES), until=SECONDS, setting=setting)
    completed, seconds = batch.totals()
    assert completed.tolist() == [np.isfinite(outcome.duration).sum() for outcome in outcomes]
    assert seconds == pytest.approx([np.nansum(outcome.duration) for outcome in outcomes])


def test_equal_entries_are_equal_and_see_the_same_clients():
    batch = Batch(entries(8, 8), Settings(anchor="lsq"), SECONDS)
    nothing = np.zeros((*batch.shape, 2), dtype=np.float32)
    batch.reset()
    step = batch.step(nothing)
    np.testing.assert_array_equal(step.features[0], step.features[1])
    other = nothing.copy()
    other[1, :, 0, 0] = 3.0
    while not step.done:
        step = batch.step(other)
    assert (step.count[0] != step.count[1]).any()


def test_residuals_change_where_flows_go():
    chosen = Settings(anchor="equal", max_weight_ratio=100, max_change_per_step=1.0, use_base=False)
    batch = Batch(entries(9), chosen, SECONDS)
    counts = {}
    for sign in (-3.0, 3.0):

        def residual(step, sign=sign):
            wanted = np.zeros((*batch.shape, 2), dtype=np.float32)
            wanted[..., 0] = sign * (step.truth[..., 0] > 1)  # of the larger servers
            return wanted

        counts[sign] = sum(step.count[step.truth[..., 0] > 1].sum() for step in played(batch, residual))
    assert counts[3.0] > 2 * counts[-3.0]


def test_the_truth_of_servers():
    change = {"capacityChange": {"at": 1.0, "servers": [3], "speed": 0.5}}
    batch = Batch(entries(10, disturbances=[change]), Settings(anchor="lsq"), SECONDS)
    steps = played(batch)
    at = dict(zip(batch.truth_names, range(4), strict=True))
    first, last = (step.truth[0, 0][step.mask[0, 0]] for step in (steps[0], steps[-1]))
    assert sorted(first[:, at["cores"]]) == [1, 1, 4, 4]
    assert first[:, at["capacity_share"]].sum() == pytest.approx(1)
    capacity = last[:, at["cores"]] * last[:, at["speed"]]
    assert sorted(capacity) == [1, 1, 2, 4]
    active = last[:, at["active"]]
    both = sum(steps[-1].count[0, index][steps[-1].mask[0, index]].sum() for index in (0, 1))
    assert active.sum() == both


def test_values_of_servers_and_slots():
    server = np.array([[[0, 1, -1], [1, 0, -1]]])
    assert truth.by_slot(np.array([[5.0, 7.0]]), server).tolist() == [[[5, 7, 0], [7, 5, 0]]]
    counted = np.array([[[1.0, 2, 9], [4, 8, 9]]])
    assert truth.by_server(counted, server, 2).tolist() == [[9, 6]]


def test_the_reward_is_minus_the_mean_completion_time():
    batch = Batch(entries(11), Settings(anchor="lsq"), SECONDS)
    steps = played(batch)
    requests = batch._simulation.requests(0)
    expected = (4 / (0.05 / 10) * 0.7) / 2  # per balancer: 4 s of 70 % of 10 cores
    for balancer in (0, 1):
        durations = requests["duration"][requests["balancer"] == balancer]
        total = sum(step.reward[0, balancer] for step in steps)
        assert total == pytest.approx(-durations.sum() / 0.05 / (expected / 20), rel=1e-3)


@pytest.mark.parametrize("reward", ["occupancy", "slowdown", "tail", "jain-utilisation", "product-load"])
def test_every_reward_is_a_number(reward):
    steps = played(Batch(entries(12), Settings(anchor="lsq", reward=reward), SECONDS))
    given = np.array([step.reward for step in steps[1:]])
    assert np.isfinite(given).all()
    assert given.any()
    assert (given <= (1 if "jain" in reward or "product" in reward else 0)).all()


def test_missing_balancers_are_absent():
    environments = [expand(short(), 1), expand(short(balancers={"count": 1}), 1)]
    step = played(Batch(environments, Settings(anchor="lsq"), SECONDS))[-1]
    assert step.present.tolist() == [[True, True], [True, False]]
    assert not step.mask[1, 1].any()
    assert step.reward[1, 1] == 0


@pytest.mark.parametrize("forwarding", ["nat", "gre"])
@pytest.mark.parametrize("level", ["off", "basic", "full"])
def test_every_level_and_forwarding_is_observed(level, forwarding):
    settings = Settings(anchor="lsq", level=level, forwarding=forwarding, features=features.known())
    step = played(Batch(entries(13), settings, SECONDS))[-1]
    at = features.known().index(f"fct/{REDUCTIONS[AVG_DECAY]}")
    measured = np.isfinite(step.features[step.mask])
    assert measured[:, features.known().index("counts/open")].all()
    assert measured[:, at].any() == (level != "off")


def test_episodes_follow_each_other():
    drawn = []

    def draw(number):
        drawn.append(number)
        return entries(number)

    endless = Endless(draw, Settings(anchor="lsq", step=0.5), 1.0)
    nothing = np.zeros((*endless.batch.shape, 2), dtype=np.float32)
    steps = [endless.step()] + [endless.step(nothing) for _ in range(5)]
    assert [step.done for step in steps] == [False, False, True] * 2
    assert drawn == [0, 1]
    endless.step()
    with pytest.raises(ValueError, match="residual: is missing"):
        endless.step()


@pytest.mark.parametrize("servers", [1, 9, 17, 33])
def test_any_number_of_servers_fits(servers):
    batch = Batch(entries(14, servers=[{"count": servers, "cores": 1}]), Settings(anchor="lsq"), SECONDS)
    assert batch.reset().mask[0, 0].sum() == servers


def test_balancers_may_share_their_counts():
    names = ("peers/flows", "filter/log_speed")
    settings = Settings(features=names, sharing=Sharing(loss=0.0))
    shared, alone = (Batch(entries(15), each, SECONDS) for each in (settings, replace(settings, sharing=None)))
    step, other = played(shared)[-1], played(alone)[-1]
    assert np.isfinite(step.features[step.mask]).all()
    assert np.isnan(other.features[other.mask][:, 0]).all()
    assert [each.decision.decision.shared for each in (shared, alone) if each.decision] == [True, False]


@pytest.mark.parametrize(
    ("changes", "seconds", "message"),
    [
        ({"reward": "speed"}, 4.0, "reward: 'speed' is not known"),
        ({"anchor": "magic"}, 4.0, "heuristic: 'magic' is not known"),
        ({}, 0.1, "seconds: 0.1 is less than a step"),
        ({"level": "all"}, 4.0, "level"),
    ],
)
def test_a_wrong_setting_is_named(changes, seconds, message):
    with pytest.raises(ValueError, match=message):
        Batch(entries(1), Settings(**{"anchor": "lsq"} | changes), seconds)
