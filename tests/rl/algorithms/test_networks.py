"""Networks are equivariant over backends, ignore slots that are not eligible, and start as their anchor."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("torchrl", reason="the extra `train` is not installed")

from penstock_rl.algorithms.networks import (  # noqa: E402 - after the check
    Critic,
    Normaliser,
    SlotActions,
    SlotNetwork,
    pool,
)
from penstock_rl.algorithms.qmix import Mixer  # noqa: E402
from penstock_rl.training.layout import Layout  # noqa: E402

LAYOUT = Layout(("counts/a", "fct/b", "fct/c"), ("cores",), 3, 6)
B, T, S, WIDTH, HIDDEN = 4, 7, 6, 5, 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def case():
    inputs = torch.randn(B, T, S, WIDTH)
    eligible = torch.rand(B, T, S) < 0.7
    renewed = torch.rand(B, T, S) < 0.1
    return inputs, eligible, renewed, torch.randn(B, S, HIDDEN)


def random_network(memory=True):
    network = SlotNetwork(WIDTH, HIDDEN, 4, memory=memory)
    torch.nn.init.normal_(network.decoder[-1].weight)
    return network


@pytest.mark.parametrize("memory", [True, False])
def test_permuting_backends_permutes_outputs_and_memory(memory):
    network, (inputs, eligible, renewed, state) = random_network(memory), case()
    order = torch.randperm(S)
    outputs, after = network(inputs, eligible, renewed, state)
    permuted, after_permuted = network(
        inputs[:, :, order], eligible[:, :, order], renewed[:, :, order], state[:, order]
    )
    torch.testing.assert_close(permuted, outputs[:, :, order])
    torch.testing.assert_close(after_permuted, after[:, order])


def test_slots_that_are_not_eligible_change_no_other():
    network, (inputs, eligible, renewed, state) = random_network(), case()
    eligible[:, :, 0] = False
    changed = inputs.clone()
    changed[:, :, 0] += 100.0
    before, after = network(inputs, eligible, renewed, state)[0], network(changed, eligible, renewed, state)[0]
    torch.testing.assert_close(before[:, :, 1:], after[:, :, 1:])


def test_more_slots_fit_the_same_network():
    network, (inputs, eligible, renewed, state) = random_network(), case()
    wide = [torch.cat([each, torch.zeros_like(each[:, :, :3])], 2) for each in (inputs, eligible, renewed)]
    outputs, _ = network(*wide, torch.cat([state, torch.zeros_like(state[:, :3])], 1))
    torch.testing.assert_close(outputs[:, :, :S], network(inputs, eligible, renewed, state)[0])


def test_a_new_network_changes_nothing():
    network, given = SlotNetwork(WIDTH, HIDDEN, 4, memory=True), case()
    assert torch.count_nonzero(network(*given)[0]) == 0


def test_memory_step_by_step_is_memory_in_one_go():
    network, (inputs, eligible, renewed, state) = random_network(), case()
    whole, last = network(inputs, eligible, renewed, state)
    for step in range(T):
        now = slice(step, step + 1)
        output, state = network(inputs[:, now], eligible[:, now], renewed[:, now], state)
        torch.testing.assert_close(output, whole[:, now], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


def test_memory_restarts_where_a_slot_has_another_backend():
    network, (inputs, eligible, renewed, state) = random_network(), case()
    renewed[:, 3] = True
    other = inputs.clone()
    other[:, :3] = 0.0
    torch.testing.assert_close(
        network(inputs, eligible, renewed, state)[0][:, 3:], network(other, eligible, renewed, 2 * state)[0][:, 3:]
    )


def test_memory_of_several_balancers_is_that_of_each():
    network = random_network()
    inputs, eligible, renewed = (
        torch.randn(2, T, 3, S, WIDTH),
        torch.ones(2, T, 3, S, dtype=bool),
        torch.zeros(2, T, 3, S),
    )
    renewed = renewed.bool()
    state = torch.randn(2, 3, S, HIDDEN)
    together, _ = network(inputs, eligible, renewed, state)
    alone, _ = network(inputs[:, :, 1], eligible[:, :, 1], renewed[:, :, 1], state[:, 1])
    torch.testing.assert_close(together[:, :, 1], alone)


def test_pool_of_no_eligible_slot_is_zero():
    assert torch.count_nonzero(pool(torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=bool))) == 0


def test_normaliser_gives_zero_mean_and_unit_variance_however_it_is_fed():
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(500, 4, 3)) * [1, 10, 0.1] + [0, 100, -1]).astype(np.float32)
    features[generator.random(features.shape) < 0.2] = np.nan
    mask = generator.random((500, 4)) < 0.8
    once, parts = Normaliser(LAYOUT), Normaliser(LAYOUT)
    once.update(features, mask)
    for part in np.array_split(np.arange(500), 7):
        parts.update(features[part], mask[part])
    torch.testing.assert_close(once.mean, parts.mean)
    torch.testing.assert_close(once.deviation, parts.deviation)
    rows = features[mask]
    np.testing.assert_allclose(once.mean, np.nanmean(rows.astype(float), 0), rtol=1e-5)
    np.testing.assert_allclose(once.deviation, np.nanstd(rows.astype(float), 0), rtol=1e-4)


def test_missing_features_are_means_with_a_flag_for_each_group():
    normaliser = Normaliser(LAYOUT)
    outputs = normaliser(torch.tensor([[1.0, float("nan"), 2.0], [1.0, float("nan"), float("nan")]]))
    torch.testing.assert_close(outputs, torch.tensor([[1.0, 0.0, 2.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0]]))


def test_log_probability_is_the_mean_over_values_of_eligible_slots():
    location, scale = torch.randn(2, 3, 2), torch.rand(2, 3, 2) + 0.1
    eligible = torch.tensor([[True, False, True], [False, False, False]])
    distribution = SlotActions(location, scale, eligible)
    sample, scored = distribution.rsample_and_log_prob()
    normal = torch.distributions.Normal(location, scale)
    each = normal.log_prob(sample.atanh()) - torch.log1p(-sample.square())
    expected = (each * eligible.unsqueeze(-1)).sum((-2, -1)) / torch.tensor([4.0, 1.0])
    torch.testing.assert_close(scored, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(distribution.log_prob(sample), scored, atol=1e-4, rtol=1e-4)


def test_critic_ignores_the_order_of_backends_and_slots_that_are_not_eligible():
    critic, values, eligible = Critic(WIDTH, HIDDEN), torch.randn(B, S, WIDTH), torch.rand(B, S) < 0.6
    order = torch.randperm(S)
    torch.testing.assert_close(critic(eligible, values), critic(eligible[:, order], values[:, order]))
    hidden = torch.where(eligible.unsqueeze(-1), values, torch.nan)
    torch.testing.assert_close(critic(eligible, values), critic(eligible, hidden))


def test_mixer_rises_with_the_value_of_every_balancer():
    mixer = Mixer(3, 4, 16, together=True)
    chosen = torch.randn(32, 3, S, 1, requires_grad=True)
    value = mixer(chosen, torch.ones(32, 3, S, dtype=bool), torch.rand(32, 3, S, 4))
    assert value.shape == (32, 1)
    (gradient,) = torch.autograd.grad(value.sum(), chosen)
    assert (gradient >= 0).all()
    assert (gradient > 0).any()


def test_mixer_ignores_balancers_that_do_not_exist():
    mixer = Mixer(3, 4, 16, together=True)
    chosen, truth, eligible = torch.randn(8, 3, S, 1), torch.rand(8, 3, S, 4), torch.ones(8, 3, S, dtype=bool)
    eligible[:, 2] = False
    other = chosen.clone()
    other[:, 2] += 5.0
    torch.testing.assert_close(mixer(chosen, eligible, truth), mixer(other, eligible, truth))
