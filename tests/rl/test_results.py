"""What is kept of runs, and the file it is kept in."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_rl.evaluation import results
from penstock_rl.evaluation.results import Results, ResultsError, Run

RUN = Run("het8", "lsq", 1, 100, 0, 0.2, 0.1, 0.4, 0.9, 0.95, 1.2)
FIGURES = st.floats(1e-5, 1e5) | st.just(math.inf)


def test_quantiles_and_counts_of_a_run() -> None:
    durations = np.array([*np.linspace(0.01, 1.0, 100), np.nan, np.nan])
    run = results.summarise("s", "p", 3, durations, np.array([0.5, 0.5]))
    assert (run.completed, run.failed) == (100, 2)
    assert run.mean == pytest.approx(0.505)
    assert run.p50 == pytest.approx(0.505)
    assert run.p90 == pytest.approx(0.901)
    assert run.jain == 1.0


def test_a_run_in_which_all_requests_failed() -> None:
    run = results.summarise("s", "p", 1, np.full(5, np.nan), np.array([0.0, 0.0]))
    assert (run.completed, run.failed) == (0, 5)
    assert run.mean == run.p99 == math.inf
    assert math.isnan(run.jain)


def test_a_run_without_requests() -> None:
    run = results.summarise("s", "p", 1, np.array([]), np.array([np.nan]))
    assert (run.completed, run.failed, run.mean) == (0, 0, math.inf)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), FIGURES), min_size=1, max_size=8))
def test_a_file_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, str, float]]
) -> None:
    path = tmp_path_factory.mktemp("results") / "results.json"
    runs = tuple(replace(RUN, scenario=s, policy=p, seed=i, mean=mean) for i, (s, p, mean) in enumerate(drawn))
    written = Results(runs, "penstock evaluate", {"numpy": "2"}, {"a": "0"})
    path.write_text(results.dump(written))
    read = results.load(path)
    assert sorted(read.runs, key=lambda run: run.key) == sorted(runs, key=lambda run: run.key)
    assert results.dump(read) == path.read_text()


def test_figures_without_a_value_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(results.dump(Results((replace(RUN, mean=math.inf, jain=math.nan),))))
    run = results.load(path).runs[0]
    assert run.mean == math.inf
    assert math.isnan(run.jain)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "runs": [{}]}', '{"format": 1, "runs": 3}', "null", "{"]
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json: .*evaluate again"):
        results.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"none\.json: No such file.*name a results file"):
        results.load(tmp_path / "none.json")


def test_policies_are_paired_on_the_seeds_that_all_have() -> None:
    runs = [replace(RUN, policy="a", seed=seed, mean=seed) for seed in (3, 1, 2)]
    runs += [replace(RUN, policy="b", seed=seed, mean=10 * seed) for seed in (2, 3, 4)]
    assert {name: list(values) for name, values in Results(tuple(runs)).metric("mean")["het8"].items()} == {
        "a": [2, 3],
        "b": [20, 30],
    }


def test_a_composite_is_the_best_member_of_each_scenario() -> None:
    times = {("s", "a"): 1.0, ("s", "b"): 2.0, ("t", "a"): 4.0, ("t", "b"): 3.0}
    runs = tuple(replace(RUN, scenario=s, policy=p, seed=i, mean=m) for (s, p), m in times.items() for i in (1, 2))
    best = Results(runs).with_best_of({"best": ("a", "b"), "missing": ("a", "c")}).metric("mean")
    assert list(best["s"]["best"]) == [1.0, 1.0]
    assert list(best["t"]["best"]) == [3.0, 3.0]
    assert "missing" not in best["s"]
