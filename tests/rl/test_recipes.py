"""Recipes are read strictly; errors name file, line, field, value and fix. Without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock_rl import recipes
from penstock_rl.recipes import RecipeError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "train").glob("*.yaml"))
SMALL = "name: small\nalgorithm: {name: sac-gru}\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_recipes(path):
    assert recipes.load(path).name == path.stem


def test_compared_recipes_are_recipes():
    paths = sorted((ROOT / "examples" / "train" / "compared").glob("*.yaml"))
    assert [recipes.load(path).name for path in paths] == [path.stem for path in paths]
    assert {recipes.load(path).algorithm.name for path in paths} == {"sac-gru", "rlb-sac", "qmix", "ppo", "imitation"}


def test_there_is_an_example_of_every_algorithm():
    named = {recipes.load(path).algorithm.name for path in EXAMPLES}
    assert named == {"sac-gru", "rlb-sac", "qmix", "ppo", "imitation"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nalgorithm: {name: dqn}\n", ["algorithm", "sac-gru"]),
        ("name: A B\nalgorithm: {name: ppo}\n", ["r.yaml:1", "name", "must match"]),
        (SMALL + "training:\n  iteration: 5\n", ["r.yaml:4", "training.iteration", "unknown field", "iterations"]),
        (SMALL + "training: {iterations: 0}\n", ["training.iterations", "is 0", "at least 1"]),
        (SMALL + "training: {iterations: '5'}\n", ["training.iterations", "integer"]),
        (SMALL + "training: {batches: 3}\n", ["training.batches", "must divide scenarios.environments"]),
        (SMALL + "training: {batches: 2, workers: 4}\n", ["training.workers", "must not be above training.batches"]),
        (SMALL + "scenarios: {seconds: 3}\n", ["scenarios.seconds", "algorithm.sequence"]),
        (SMALL + "scenarios: {curriculum: [{until: 0.5}]}\n", ["curriculum", "end at 1"]),
        (SMALL + "scenarios: {curriculum: [{until: 0.5}, {until: 0.4}]}\n", ["curriculum", "must rise"]),
        (SMALL + "scenarios: {curriculum: []}\n", ["scenarios.curriculum", "at least 1"]),
        ("name: a\nalgorithm: {name: qmix, levels: [1.0, -1.0]}\n", ["levels", "above 0"]),
        ("name: a\nalgorithm: {name: sac-gru, gamma: 1.0}\n", ["gamma", "less than 1"]),
        (SMALL + "environment: {level: off}\n", ["environment.level"]),
        ("- 1\n", ["must be one mapping"]),
        ("", ["must be one mapping"]),
        ("name: a\n---\nname: b\n", ["must be one mapping"]),
        ("name: [\n", ["r.yaml"]),
        (SMALL + "network: {hidden: .nan}\n", ["r.yaml:3", ".nan"]),
    ],
)
def test_wrong_recipes_are_refused_with_field_and_fix(text, expected):
    with pytest.raises(RecipeError) as error:
        recipes.read(text, "r.yaml")
    for part in expected:
        assert part in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        recipes.load(tmp_path / "none.yaml")


def test_options_of_the_command_line_are_checked_like_fields():
    recipe = recipes.read(SMALL + "training: {batches: 4}\n", "r.yaml")
    assert recipes.with_training(recipe, "workers", 4).training.workers == 4
    with pytest.raises(RecipeError, match=r"workers.*must not be above training\.batches"):
        recipes.with_training(recipe, "workers", 5)
    with pytest.raises(RecipeError, match="device"):
        recipes.with_training(recipe, "device", "tpu")


def test_aquarius_reads_its_own_features_unless_the_recipe_names_others():
    assert recipes.read("name: a\nalgorithm: {name: rlb-sac}\n", "r").feature_groups == recipes.AQUARIUS_GROUPS
    assert recipes.read(SMALL, "r").feature_groups == ()
    named = recipes.read("name: a\nalgorithm: {name: rlb-sac}\nnetwork: {featureGroups: [fct]}\n", "r")
    assert named.feature_groups == ("fct",)


def test_recipe_survives_json():
    recipe = recipes.load(ROOT / "examples" / "train" / "qmix.yaml")
    assert recipes.Recipe.model_validate_json(recipe.model_dump_json()) == recipe
