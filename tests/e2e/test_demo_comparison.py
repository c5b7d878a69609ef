"""What blocks of two policies allow to be said: balanced random order, requests by block, paired intervals."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from e2e.demo import comparison
from e2e.demo.comparison import Latency, Results, Window, compare, order, pairs_of
from e2e.load import Request

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def request(second: float, latency: float = 10.0, **fields: object) -> Request:
    return Request.model_validate({"intended": BEGAN + timedelta(seconds=second), "latency_ms": latency, **fields})


@pytest.mark.parametrize("pairs", range(2, comparison.MAX_PAIRS + 1))
def test_each_pair_has_both_policies_and_neither_is_always_first(pairs: int) -> None:
    for seed in range(20):
        found = order(("a", "b"), pairs, seed)
        firsts = found[::2]
        assert all({one, other} == {"a", "b"} for one, other in zip(firsts, found[1::2], strict=True))
        assert abs(firsts.count("a") - firsts.count("b")) <= 1
        assert order(("a", "b"), pairs, seed) == found


def test_the_seed_decides_the_order() -> None:
    assert len({tuple(order(("a", "b"), 6, seed)) for seed in range(30)}) > 5


@pytest.mark.parametrize("pairs", [0, 1, comparison.MAX_PAIRS + 1])
def test_a_number_of_pairs_without_an_interval_is_refused(pairs: int) -> None:
    with pytest.raises(ValueError, match="pairs"):
        order(("a", "b"), pairs, 1)


def test_a_block_has_the_requests_that_were_due_in_it() -> None:
    window = Window("a", BEGAN + timedelta(seconds=1), BEGAN + timedelta(seconds=2))
    found = [request(second) for second in (0.99, 1.0, 1.99, 2.0)]
    assert [window.holds(one) for one in found] == [False, True, True, False]


def test_failed_requests_are_counted_and_have_no_latency() -> None:
    found = Results.of([request(0, 10, backend="x"), request(1, 30, backend="x"), request(2, 5000, kind="timeout")])
    assert (found.requests, found.failed) == (3, 1)
    assert found.latency_ms == Latency(20.0, 10.0, 30.0, 30.0)
    assert found.backends == {"x": 2}


def test_nothing_answered_has_no_latency() -> None:
    assert math.isnan(Results.of([]).latency_ms.mean)


def test_an_interval_by_hand() -> None:
    """Logarithms of 2 and 4 have the mean 1.5 ln 2 and the standard error .5 ln 2; t of one degree is 12.706."""
    found = compare([(1.0, 2.0), (1.0, 4.0)])
    assert found is not None
    assert found.ratio == pytest.approx(2**1.5)
    assert (found.low, found.high) == pytest.approx((2 ** (1.5 - 6.353), 2 ** (1.5 + 6.353)))
    assert not found.shown


def test_one_noisy_block_is_no_difference() -> None:
    """The same policy twice, and a block that took 50 times as long: a mean of -98 % is not claimed."""
    found = compare([(600.0, 12.0), (12.1, 12.0), (12.0, 12.2), (11.9, 12.1), (12.0, 11.9)])
    assert found is not None
    assert not found.shown


def test_a_difference_in_every_pair_is_shown_although_the_machine_drifts() -> None:
    found = compare(
        [(10.0 * drift, 6.0 * drift * noise) for drift, noise in [(1, 1.02), (3, 0.97), (9, 1.01), (27, 1)]]
    )
    assert found is not None
    assert found.shown
    assert found.high < 0.7


def test_equal_policies_are_rarely_told_apart() -> None:
    """Of 400 comparisons of a policy with itself some 5 % may claim a difference."""
    dice = random.Random(7)
    claims = 0
    for _ in range(400):
        noise = [dice.lognormvariate(0, 0.5) for _ in range(10)]
        found = compare(list(zip(noise[::2], noise[1::2], strict=True)))
        claims += found is not None and found.shown
    assert claims < 36  # 20 expected; 36 or more in one of 2,000 seeds


@pytest.mark.parametrize("pairs", [[(1.0, 2.0)], [(1.0, 2.0), (math.nan, 1.0)], [(1.0, 2.0), (0.0, 1.0)]])
def test_without_values_in_every_block_nothing_is_said(pairs: list[tuple[float, float]]) -> None:
    assert compare(pairs) is None


def test_pairs_are_in_the_order_of_the_policies() -> None:
    one, other = (Results.of([request(0, latency)]) for latency in (10.0, 20.0))
    blocks = [("a", one), ("b", other), ("b", other), ("a", one)]
    assert pairs_of(blocks, ("a", "b"), lambda latency: latency.mean) == [(10.0, 20.0), (10.0, 20.0)]
