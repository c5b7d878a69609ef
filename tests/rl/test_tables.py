"""Results compared and shown: references, composites, formats."""

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_rl.evaluation import comparison, plots, policies, report, results, tables
from penstock_rl.evaluation.results import Results, Run

RUN = Run("s", "lsq", 1, 100, 0, 0.2, 0.1, 0.4, 0.9, 0.95, 1.2)


def made(times: dict[tuple[str, str], float], seeds: int = 8, noise: float = 0.01) -> Results:
    """Runs with these mean times, a common factor for each seed, and little noise."""
    generator = np.random.default_rng(0)
    common = generator.lognormal(0.0, 0.2, size=seeds)
    runs = []
    for (scenario, policy), mean in times.items():
        drawn = mean * common * generator.lognormal(0.0, noise, size=seeds)
        runs += [replace(RUN, scenario=scenario, policy=policy, seed=i + 1, mean=m) for i, m in enumerate(drawn)]
    return Results(tuple(runs), "penstock evaluate --scenarios s", {"penstock": "1"})


TIMES = {
    ("s", "lsq"): 0.4, ("s", "inverse-duration"): 0.2, ("s", "little"): 0.3, ("s", "oracle"): 0.1,
    ("t", "lsq"): 0.4, ("t", "inverse-duration"): 0.4, ("t", "little"): 0.2, ("t", "oracle"): 0.2,
}  # fmt: skip


def test_a_set_is_compared_with_lsq_and_the_better_heuristic() -> None:
    rows = {row.policy: row for row in comparison.of_set(made(TIMES))}
    row = rows["inverse-duration"]
    assert row.gap is not None
    assert row.gap.estimate == pytest.approx(math.log(2) / (math.log(4) + math.log(2)), abs=0.02)
    assert row.worst.regret == pytest.approx(0.0, abs=0.02)
    assert row.against_better is not None
    assert row.against_better.estimate == pytest.approx(math.sqrt(2) - 1, abs=0.02)
    assert row.worst_against_better is not None
    assert row.worst_against_better.index == 1
    assert row.worse == 1
    assert rows["oracle"].gap is not None
    assert rows["oracle"].gap.estimate == pytest.approx(1.0)


def test_the_oracle_is_compared_with_the_lsq_that_was_run() -> None:
    found = made({("s", "lsq+active"): 0.4, ("s", "bayes+active"): 0.2, ("s", "oracle"): 0.1})
    for rows in (comparison.of_set(found), comparison.of_scenario(found, "s")):
        against = {row.policy: row.against_lsq.estimate for row in rows}
        assert against["bayes+active"] == pytest.approx(-0.5, abs=0.02)
        assert against["oracle"] == pytest.approx(-0.75, abs=0.02)


def test_pairing_makes_a_scenario_row_narrow() -> None:
    rows = {row.policy: row for row in comparison.of_scenario(made(TIMES), "s")}
    row = rows["little"]
    assert row.mean.high - row.mean.low > 0.05, "seeds differ by 20 %"
    assert row.against_lsq.high - row.against_lsq.low < 0.03
    assert row.against_lsq.estimate == pytest.approx(-0.25, abs=0.01)
    assert row.linear_gap == pytest.approx((0.4 - 0.3) / (0.4 - 0.1), abs=0.02)


def test_policies_on_active_counts_are_compared_among_themselves() -> None:
    times = {**TIMES, ("s", "lsq+active"): 0.2, ("t", "lsq+active"): 0.4}
    times |= {("s", "little+active"): 0.1, ("t", "little+active"): 0.4}
    rows = {row.policy: row for row in comparison.of_set(made(times))}
    assert rows["little+active"].worst.regret == pytest.approx(0.0, abs=0.02)
    assert rows["little+active"].worse is None, "1/d was not run on active counts"


def test_statistics_without_their_reference_are_left_out() -> None:
    table = tables.set_table(made({("s", "lsq"): 0.4, ("s", "sed"): 0.2}))
    assert table.splitlines()[-1].count(f"| {tables.NONE} ") == 4


@given(st.dictionaries(st.tuples(st.sampled_from("st"), st.sampled_from(["lsq", "little", "oracle"])),
                       st.floats(1e-4, 1e3) | st.just(math.inf), min_size=1), st.integers(1, 3))  # fmt: skip
def test_any_results_have_a_page(times: dict[tuple[str, str], float], seeds: int) -> None:
    times |= {(scenario, "lsq"): 0.3 for scenario in "st"}
    page = tables.page(made(times, seeds), "Results")
    for line in page.splitlines():
        assert "nan" not in line
        if line.startswith("|"):
            assert line.count("|") in (8, 12), "each row has all columns"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    found = made(TIMES)
    report.report(found, tmp_path / "one")
    (tmp_path / "two").mkdir()
    report.report(results.load(tmp_path / "one" / "results.json"), tmp_path / "two")
    # Figures are rounded when a run ends, here they are not: the second file is the first one's.
    report.report(results.load(tmp_path / "two" / "results.json"), tmp_path / "three")
    for path in (tmp_path / "two").iterdir():
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes(), path.name


def test_plots_are_svg_without_a_date() -> None:
    found = made(TIMES)
    for text in (plots.set_plot(found), plots.scenario_plot(found)):
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg")
        assert "<dc:date>" not in text
        assert "l/d" in text


def test_pages_name_the_command_and_the_seeds() -> None:
    page = tables.page(made(TIMES), "Results")
    assert "`penstock evaluate --scenarios s` (penstock 1; seeds 1 to 8)" in page


def test_the_choice_of_policies_brings_its_references() -> None:
    assert [each.name for each in policies.select(["l/d"])] == ["lsq", "little", "oracle-sed", "oracle-marginal"]
    names = [each.name for each in policies.select(["1/d+active"])]
    assert names == ["lsq+active", "inverse-duration+active", "oracle-sed", "oracle-marginal"]
    assert {"sed", "sed^2"} < {each.name for each in policies.select(["sed-best"])}
    assert {each.name for each in policies.select(policies.default_names())} == set(policies.POLICIES)


@pytest.mark.parametrize("name", ["", "LSQ", "lsq+", "lsq+active+active", "equal+active", "no such"])
def test_an_unknown_policy_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(policies.PolicyNameError, match=re.escape(repr(name.strip())) + ".*inverse-duration"):
        policies.select([name])


def test_a_search_is_shown_as_one_policy() -> None:
    members = policies.COMPOSITES["sed-best"]
    times = {("s", name): 0.3 + 0.01 * i for i, name in enumerate(members)} | {("s", "lsq"): 0.4}
    shown = policies.presented(made(times))
    assert set(shown.policies) == {"lsq", "sed", "sed-best"}
    assert list(shown.metric("mean")["s"]["sed-best"]) == list(shown.metric("mean")["s"]["sed"])


def test_told_policies_get_capacities_as_weights() -> None:
    servers = np.zeros((3, 11))
    servers[:, 9] = [1.0, 1.0, 0.0]
    environment = {"servers": servers, "seed": 1}
    told = policies.POLICIES["sed^2"].prepared(environment, np.array([2.0, 4.0, 8.0]))
    assert list(np.asarray(told["servers"])[:, 9]) == [4.0, 16.0, 0.0]
    assert list(servers[:, 9]) == [1.0, 1.0, 0.0], "the environment of the others is left alone"
    assert policies.POLICIES["lsq"].prepared(environment, np.ones(3)) is environment
