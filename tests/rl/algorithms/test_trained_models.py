"""A trained network and the model that is exported from it decide alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("torchrl", reason="the extra `train` is not installed")

from penstock_agent import features  # noqa: E402 - after the check
from penstock_agent.models import load  # noqa: E402
from penstock_agent.models.network import Network  # noqa: E402
from penstock_rl import algorithms, recipes  # noqa: E402
from penstock_rl.algorithms import checkpoints  # noqa: E402
from penstock_rl.algorithms.models import network_file, write  # noqa: E402
from penstock_rl.training.layout import Layout, of_groups  # noqa: E402

from tests.support.tiny_batch import TinyStep  # noqa: E402

NAMES = tuple(
    name for name in features.known() if name.partition("/")[0] in ("counts", "fct", "flow_duration", "turns")
)
LAYOUT = Layout(NAMES, ("cores", "speed", "active"), 3, 7)
ALGORITHMS = ("sac-gru", "rlb-sac", "qmix", "ppo", "imitation")
E, L, S = 4, 3, 7


def trained(name, text=""):
    recipe = recipes.read(f"name: tried\nalgorithm: {{name: {name}}}\nnetwork: {{hidden: 16{text}}}\n", "r")
    learner = algorithms.learner(recipe, replace(LAYOUT, features=of_groups(NAMES, recipe.feature_groups)))
    generator = np.random.default_rng(3)
    for _, value in learner.network.named_parameters():
        torch.nn.init.normal_(value, std=0.4)
    seen = generator.normal(2.0, 3.0, (200, len(learner.layout.features))).astype(np.float32)
    learner.normaliser.update(seen, np.ones(200, dtype=np.bool_))
    return learner


def observed(learner, generator, first):
    shape = (E, L, S)
    values = generator.normal(1.0, 6.0, (*shape, len(learner.layout.features))).astype(np.float32)
    values[generator.random(values.shape) < 0.2] = np.nan
    zeros = np.zeros(shape, dtype=np.float32)
    return TinyStep(
        features=values,
        mask=generator.random(shape) < 0.8,
        renewed=np.full(shape, first) | (generator.random(shape) < 0.2),
        anchor=np.zeros((*shape, 2), dtype=np.float32),
        count=zeros,
        truth=np.zeros((*shape, 3), dtype=np.float32),
        reward=np.zeros((E, L), dtype=np.float32),
        present=np.ones((E, L), dtype=np.bool_),
        done=False,
    )


@pytest.mark.parametrize("text", ["", ", memory: false", ", base_limit: 0.0"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_numpy_decides_what_torch_decides(name, text):
    learner = trained(name, text)
    file = network_file(learner)
    network, actor = Network(file.metadata, file.arrays), learner.actor()
    generator, hidden = np.random.default_rng(5), None
    actor.begin()
    for step in range(6):
        seen = observed(learner, generator, first=step == 0)
        _, expected = actor.act(seen, explore=False)
        if hidden is not None:
            hidden = np.where(seen.renewed[..., None], np.float32(0), hidden)
        found = network(seen.features, seen.mask, hidden)
        hidden = found.hidden
        np.testing.assert_allclose(np.where(seen.mask[..., None], found.residual, 0), expected, atol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_checkpoint_becomes_a_model_that_agents_load(tmp_path, name):
    learner = trained(name)
    layout = learner.layout
    stored = {"features": layout.features, "truth": layout.truth, "balancers": layout.balancers, "slots": layout.slots}
    content = {
        "recipe": learner.recipe.model_dump_json(),
        "iteration": 3,
        "decisions": 4711,
        "layout": stored,
        "evaluations": [{"iteration": 3, "change": -0.2, "low": -0.3, "high": -0.1}],
        "learner": learner.state(),
    }
    checkpoints.save(tmp_path / "checkpoint.pt", content)
    digest = write(tmp_path / "checkpoint.pt", tmp_path / "tried.npz")
    model = load(tmp_path / "tried.npz")
    assert model.sha256 == digest
    assert model.card.algorithm == name
    assert model.card.steps == 4711
    assert model.card.results[0].value == -0.2
    assert f'"name": "{name}"' in model.card.recipe
    assert model.metadata.anchor == "bayes"
    for field, values in network_file(learner).arrays.items():
        np.testing.assert_array_equal(model.arrays[field], values)
    assert (tmp_path / "tried.card.json").exists()


def test_workers_act_with_the_weights_they_are_sent():
    first, second = trained("sac-gru"), trained("sac-gru")
    with torch.no_grad():
        for value in second.network.parameters():
            value.zero_()
    second.load_weights(first.weights())
    seen = observed(first, np.random.default_rng(1), first=True)
    results = []
    for learner in (first, second):
        with learner.generators(9):
            results.append(learner.actor().act(seen, explore=True)[1])
    np.testing.assert_array_equal(*results)
