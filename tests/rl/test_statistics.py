"""Statistics of paired runs, against independent computations."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_rl.evaluation import statistics
from penstock_rl.evaluation.statistics import Interval

TIMES = st.floats(1e-4, 1e4)


def many(size: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(TIMES, min_size=size, max_size=size).map(np.array)


# 97.5 % points of Student's t, from the table in "Handbook of Mathematical Functions" (26.10).
@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (7, 2.365), (8, 2.306), (15, 2.131), (30, 2.042), (120, 1.980)],
)
def test_t_quantile_is_that_of_tables(freedom: int, expected: float) -> None:
    assert statistics.t_quantile(freedom) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 8])
def test_t_quantile_agrees_with_the_integral_of_the_density(freedom: int) -> None:
    limit = statistics.t_quantile(freedom)
    x = np.linspace(-limit, limit, 200_001)
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    assert np.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x) == pytest.approx(0.95, abs=1e-6)


def test_t_interval_covers_the_mean_in_95_of_100_samples() -> None:
    samples = np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 8))
    covered = [each.low < 3.0 < each.high for each in map(statistics.t_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_one_seed_gives_an_estimate_without_an_interval() -> None:
    interval = statistics.relative_difference(np.array([2.0]), np.array([1.0]))
    assert interval.estimate == pytest.approx(1.0)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.excludes_zero
    assert not statistics.significantly_worse(np.array([2.0]), np.array([1.0]))


def test_zero_variance_gives_an_interval_of_no_width() -> None:
    interval = statistics.relative_difference(np.full(8, 1.1), np.full(8, 1.0))
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)
    assert statistics.significantly_worse(np.full(8, 1.1), np.full(8, 1.0))


@given(many(8))
def test_equal_policies_tie(times: np.ndarray) -> None:
    assert statistics.relative_difference(times, times) == Interval(0.0, 0.0, 0.0)
    assert not statistics.significantly_worse(times, times)
    assert statistics.worst_regret(times, times).regret == 0.0
    assert math.isnan(statistics.gap_closed(times, times, times).estimate)


@given(many(8), many(8), st.floats(0.01, 100))
def test_differences_do_not_depend_on_the_unit(policy: np.ndarray, reference: np.ndarray, unit: float) -> None:
    one = statistics.relative_difference(policy, reference)
    other = statistics.relative_difference(policy * unit, reference * unit)
    assert one.estimate == pytest.approx(other.estimate, rel=1e-6, abs=1e-9)
    assert one.low == pytest.approx(other.low, rel=1e-6, abs=1e-9)


def test_pairing_removes_what_seeds_have_in_common() -> None:
    seeds = np.random.default_rng(2).lognormal(0.0, 1.0, size=8)
    interval = statistics.relative_difference(seeds * 1.03, seeds)
    assert interval.low == pytest.approx(0.03)
    assert statistics.significantly_worse(seeds * 1.03, seeds)
    assert not statistics.significantly_worse(seeds * 1.01, seeds), "1 % is not counted, however certain"


def test_noise_is_not_significant() -> None:
    generator = np.random.default_rng(3)
    found = [statistics.significantly_worse(*generator.lognormal(0.0, 0.2, size=(2, 8))) for _ in range(1000)]
    assert np.mean(found) < 0.05


def test_bootstrap_and_t_agree_on_many_seeds() -> None:
    generator = np.random.default_rng(4)
    reference = generator.lognormal(0.0, 0.3, size=60)
    policy = reference * generator.lognormal(0.05, 0.1, size=60)
    one = statistics.relative_difference(policy, reference)
    logs = np.log(policy / reference)
    other = statistics.bootstrap(60, lambda rows: logs[rows].mean(axis=1)).map(math.expm1)
    assert other.estimate == pytest.approx(one.estimate)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.006)


def test_bootstrap_of_three_values_is_that_of_all_resamples() -> None:
    logs = np.array([0.0, 0.3, 0.9])
    exact = np.sort([np.mean(each) for each in product(logs, repeat=3)])
    interval = statistics.bootstrap(3, lambda rows: logs[rows].mean(axis=1))
    assert exact[0] <= interval.low <= exact[2]
    assert exact[-3] <= interval.high <= exact[-1]


def test_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(5).normal(size=20)
    assert len({statistics.bootstrap(20, lambda rows: values[rows].mean(axis=1)) for _ in range(3)}) == 1


def test_gap_closed_is_a_ratio_of_sums_of_logarithms() -> None:
    lsq, policy, oracle = np.array([2.0, 4.0]), np.array([1.5, 2.0]), np.array([1.0, 1.0])
    expected = (math.log(2 / 1.5) + math.log(4 / 2)) / (math.log(2) + math.log(4))
    assert statistics.gap_closed(policy, lsq, oracle).estimate == pytest.approx(expected)


@given(many(6), st.floats(0.0, 1.0))
def test_gap_closed_of_a_policy_between_lsq_and_oracle(lsq: np.ndarray, share: float) -> None:
    oracle = lsq * 0.5
    policy = lsq ** (1 - share) * oracle**share
    interval = statistics.gap_closed(policy, lsq, oracle)
    assert interval.estimate == pytest.approx(share, abs=1e-9)
    assert interval.low == pytest.approx(share, abs=1e-9), "all scenarios are alike"


def test_scenarios_weigh_by_what_can_be_gained_in_them() -> None:
    lsq, oracle = np.array([10.0, 1.001]), np.array([1.0, 1.0])
    assert statistics.gap_closed(np.array([1.0, 1.001]), lsq, oracle).estimate > 0.99


def test_gap_in_one_scenario_uses_means_over_seeds() -> None:
    lsq, policy, oracle = np.array([1.0, 3.0]), np.array([1.0, 2.0]), np.array([1.0, 1.0])
    expected = math.log(2 / 1.5) / math.log(2)
    assert statistics.gap_closed_in_one(policy, lsq, oracle).estimate == pytest.approx(expected)
    assert statistics.linear_gap_closed(policy, lsq, oracle) == pytest.approx(0.5)


def test_no_gap_where_the_oracle_gains_nothing() -> None:
    times = np.full(8, 0.5)
    assert math.isnan(statistics.gap_closed_in_one(times, times, times * 0.999).estimate)
    assert math.isnan(statistics.linear_gap_closed(times, times, times * 0.999))


def test_worst_regret_names_the_scenario() -> None:
    worst = statistics.worst_regret(np.array([1.0, 1.2, 0.5]), np.array([1.0, 1.0, 1.0]))
    assert worst.index == 1
    assert worst.regret == pytest.approx(0.2)


def test_a_policy_that_completes_nothing_is_infinitely_worse() -> None:
    never, some = np.full(8, math.inf), np.full(8, 0.1)
    assert statistics.worst_regret(np.array([0.1, math.inf]), np.array([0.1, 0.1])).regret == math.inf
    assert statistics.significantly_worse(never, some)
    assert not statistics.significantly_worse(some, never)
    assert not statistics.significantly_worse(never, never)
    assert statistics.best([never, some]) == 1
    assert statistics.gap_closed(never, some, some * 0.5).estimate == -math.inf


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20).map(np.array))
def test_jain_is_between_one_of_n_and_one(values: np.ndarray) -> None:
    if not values.any():
        assert math.isnan(statistics.jain(values))
        assert math.isnan(statistics.max_over_mean(values))
    elif np.square(values).sum() > 0:
        assert 1 / len(values) - 1e-9 <= statistics.jain(values) <= 1 + 1e-9
        assert 1 - 1e-9 <= statistics.max_over_mean(values) <= len(values) + 1e-9


def test_balance_leaves_out_servers_that_were_never_there() -> None:
    assert statistics.jain(np.array([0.5, 0.5, math.nan])) == pytest.approx(1.0)
    assert statistics.jain(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert statistics.max_over_mean(np.array([0.9, 0.3, math.nan])) == pytest.approx(1.5)


def test_the_best_of_equals_is_the_first() -> None:
    assert statistics.best([np.array([1.0, 2.0]), np.array([2.0, 1.0])]) == 0
