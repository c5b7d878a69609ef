"""A search for parameters: it finds an optimum, and an interrupted one goes on exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("cma")
from penstock_rl.tuning.search import Plan, Search, TuningError

OPTIMUM = np.array([0.2, 0.9, 0.5])
PLAN = Plan(start=(0.5, 0.5, 0.5), population=8, generations=40)


def objective(generation, points):
    """Return the distance from the optimum, with noise that differs between generations."""
    noise = np.random.default_rng(generation).normal(0, 1e-4)
    return ((points - OPTIMUM) ** 2).sum(axis=1) + noise


def test_the_optimum_is_found():
    search = Search(PLAN, objective)
    generations = list(search.run())
    assert len(generations) == PLAN.generations
    assert search.center == pytest.approx(OPTIMUM, abs=0.05)
    assert generations[-1].mean < generations[0].mean


def test_an_optimum_at_the_border_is_found():
    search = Search(PLAN, lambda _, points: points.sum(axis=1))
    list(search.run())
    assert search.center == pytest.approx(np.zeros(3), abs=0.1)


def test_points_lie_in_the_unit_cube_and_differ_by_seed():
    asked = []

    def record(_, points):
        asked.append(points)
        return points.sum(axis=1)

    for seed in (0, 0, 1):
        next(Search(Plan(PLAN.start, seed, population=8), record).run())
    assert all(((points >= 0) & (points <= 1)).all() for points in asked)
    assert (asked[0] == asked[1]).all()
    assert (asked[0] != asked[2]).any()


def test_an_interrupted_search_goes_on_exactly(tmp_path):
    whole = list(Search(PLAN, objective).run())
    checkpoint = tmp_path / "search.json"
    for stop_after in (7, 1, 100):
        for number, _ in enumerate(Search(PLAN, objective, checkpoint).run(), 1):
            if number == stop_after:
                break
    again = Search(PLAN, objective, checkpoint)
    assert (again.center == whole[-1].center).all()
    assert list(again.run()) == []


def test_more_generations_may_be_added(tmp_path):
    checkpoint = tmp_path / "search.json"
    list(Search(Plan(PLAN.start, population=8, generations=3), objective, checkpoint).run())
    longer = Plan(PLAN.start, population=8, generations=5)
    assert len(list(Search(longer, objective, checkpoint).run())) == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is not a checkpoint of a search"),
        ("[]", "is not a checkpoint of a search"),
        ('{"format": 1, "plan": {}, "values": "x"}', "is not a checkpoint of a search"),
        ('{"format": 1, "plan": {}, "values": []}', "belongs to another plan \\(start, seed"),
    ],
)
def test_other_files_are_refused(tmp_path, content, match):
    checkpoint = tmp_path / "search.json"
    checkpoint.write_text(content)
    with pytest.raises(TuningError, match=match):
        Search(PLAN, objective, checkpoint)
    assert checkpoint.read_text() == content


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    checkpoint = tmp_path / "search.json"
    next(Search(PLAN, objective, checkpoint).run())
    assert json.loads(checkpoint.read_text())["format"] == 1
    with pytest.raises(TuningError, match=r"\(seed differ\); remove it to start anew"):
        Search(Plan(PLAN.start, 1, population=8), objective, checkpoint)


def test_bad_plans_and_objectives_are_refused():
    with pytest.raises(TuningError, match="population: is 2"):
        Plan(PLAN.start, population=2)
    with pytest.raises(TuningError, match="start: has coordinates outside"):
        Plan((2.0,))
    with pytest.raises(TuningError, match="must be finite"):
        next(Search(PLAN, lambda _, points: points[:, 0] * np.nan).run())
