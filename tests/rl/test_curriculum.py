"""Draws of scenarios: the same for a seed, never one that evaluation reports."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_rl import recipes, scenarios
from penstock_rl.recipes import RecipeError
from penstock_rl.training.curriculum import Curriculum

HEAD = "name: a\nalgorithm: {name: ppo}\n"


def curriculum(folder, text=""):
    return Curriculum(recipes.read(HEAD + text, "r.yaml"), folder)


def equal(left, right):
    return all(np.array_equal(left[name], right[name]) for name in ("seed", "servers", "classes", "split"))


def test_an_iteration_is_the_same_every_time_and_another_one_differs(tmp_path):
    first, again = curriculum(tmp_path).training(3), curriculum(tmp_path).training(3)
    assert all(equal(*pair) for pair in zip(first.environments, again.environments, strict=True))
    other = curriculum(tmp_path).training(4)
    assert not any(equal(*pair) for pair in zip(first.environments, other.environments, strict=True))


def test_training_and_evaluation_draw_from_their_own_seeds(tmp_path):
    found = curriculum(tmp_path)
    assert all(each["seed"] in scenarios.TRAINING for each in found.training(0).environments)
    assert all(each["seed"] in scenarios.CHOOSING for draw in found.evaluation() for each in draw.environments)


def test_scenarios_fit_the_limits_of_the_recipe(tmp_path):
    draw = curriculum(tmp_path, "scenarios: {maxBackends: 9, maxBalancers: 2}\n").training(0)
    assert all(len(each["servers"]) <= 9 and len(each["split"]) <= 2 for each in draw.environments)


def test_limits_that_no_scenario_fits_are_refused(tmp_path):
    found = curriculum(tmp_path, "scenarios: {maxBackends: 2, curriculum: [{scenarios: [speeds]}]}\n")
    with pytest.raises(RecipeError, match=r"raise scenarios\.maxBackends"):
        found.training(0)


def test_stages_follow_each_other(tmp_path):
    text = (
        "scenarios: {environments: 4, curriculum: [{until: 0.5, scenarios: [control]}, {scenarios: [het8]}]}\n"
        "training: {iterations: 10}\n"
    )
    found = curriculum(tmp_path, text)
    assert {len(each["servers"]) for each in found.training(4).environments} == {4}
    assert {len(each["servers"]) for each in found.training(5).environments} == {8}


def test_levels_and_forwarding_take_turns(tmp_path):
    found = curriculum(tmp_path, "environment: {level: both, forwarding: both}\n")
    seen = [(draw.level, draw.forwarding) for draw in map(found.training, range(4))]
    assert seen == [("full", "nat"), ("basic", "nat"), ("full", "gre"), ("basic", "gre")]
    assert [draw.level for draw in found.evaluation()] == ["full", "basic"]


def test_evaluation_has_scenarios_of_its_own(tmp_path):
    text = "scenarios: {curriculum: [{scenarios: [het8]}], evaluation: [control]}\n"
    found = curriculum(tmp_path, text)
    assert {len(each["servers"]) for each in found.training(0).environments} == {8}
    assert {len(each["servers"]) for draw in found.evaluation() for each in draw.environments} == {4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenarios: {maxBackends: 5, curriculum: [{scenarios: [het8]}]}\n", r"maxBackends: het8 has 8 backends"),
        ("scenarios: {maxBalancers: 1, curriculum: [{scenarios: [het8]}]}\n", r"maxBalancers: het8 has 2 balancers"),
        ("scenarios: {maxBackends: 5, evaluation: [het8]}\n", r"maxBackends: het8 has 8 backends"),
        (
            "environment: {step: 20}\nscenarios: {seconds: 900, curriculum: [{scenarios: [het8]}]}\n",
            r"het8 lasts 200 s",
        ),
    ],
)
def test_scenarios_that_do_not_fit_are_refused_before_training(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        curriculum(tmp_path, text)


def test_episodes_that_end_within_the_warm_up_are_refused(tmp_path):
    found = curriculum(tmp_path, "scenarios: {seconds: 20, curriculum: [{scenarios: [het8]}]}\n")
    with pytest.raises(RecipeError, match=r"scenarios\.seconds: .*warm-up of 30 s"):
        found.training(0)


def test_unknown_scenario_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(RecipeError, match=r"'het9' is not known.*training.*cores.*het8"):
        curriculum(tmp_path, "scenarios: {curriculum: [{scenarios: [het9]}]}\n")


def test_own_files_are_found_from_the_recipe(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "name: own\nduration: 40\nservers: [{cores: 3, count: 5}]\narrivals: {load: 0.5}\n"
    )
    draw = curriculum(tmp_path, "scenarios: {curriculum: [{scenarios: [own.yaml]}]}\n").training(0)
    assert draw.seconds == 40
    assert {len(each["servers"]) for each in draw.environments} == {5}
    with pytest.raises(RecipeError, match=r"gone\.yaml: No such file"):
        curriculum(tmp_path, "scenarios: {curriculum: [{scenarios: [gone.yaml]}]}\n")
