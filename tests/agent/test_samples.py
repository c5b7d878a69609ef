"""Quantiles of reservoirs against numpy's own, and the weights of workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.samples import quantiles, summarise, worker_weights


def samples(slots, *, seen=None, workers=1, ages=0.0):
    """Reservoirs of four words per worker, from lists of values."""
    size = 4 * workers
    values = np.zeros((len(slots), size), np.float32)
    valid = np.zeros((len(slots), size), bool)
    for row, kept in enumerate(slots):
        values[row, : len(kept)] = kept
        valid[row, : len(kept)] = True
    counts = np.array(seen if seen is not None else [[len(kept)] * workers for kept in slots], np.uint64)
    return values, np.full(values.shape, ages, np.float32), valid, counts


@given(kept=st.lists(st.floats(0.0078125, 1000, width=32), min_size=1, max_size=4))
def test_one_worker_agrees_with_numpy(kept):
    count, mean, quantiles = summarise(samples([kept]), (0.5, 0.9))
    assert count.tolist() == [len(kept)]
    assert mean[0] == pytest.approx(np.mean(kept), rel=1e-5)
    expected = np.quantile(kept, [0.5, 0.9], method="inverted_cdf")
    assert quantiles[0].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_no_sample_is_no_number():
    count, mean, quantiles = summarise(samples([[], [1.0]]), (0.5,))
    assert count.tolist() == [0, 1]
    assert np.isnan(mean[0])
    assert np.isnan(quantiles[0, 0])
    assert quantiles[1, 0] == 1.0


def test_a_worker_that_saw_more_counts_more():
    # Worker 0 keeps four samples of 1 s out of 4, worker 1 four of 3 s out of 12: three quarters of all flows took 3 s.
    both = samples([[1.0] * 4 + [3.0] * 4], workers=2, seen=[[4, 12]])
    assert worker_weights(both[2], both[3])[0].tolist() == [1.0] * 4 + [3.0] * 4
    _, mean, quantiles = summarise(both, (0.25, 0.3))
    assert mean[0] == pytest.approx(2.5)
    assert quantiles[0].tolist() == [1.0, 3.0]


def test_old_samples_weigh_less_in_the_mean():
    values, ages, valid, seen = samples([[1.0, 3.0]])
    ages[0, 0] = 10.0
    _, mean, _ = summarise((values, ages, valid, seen), (0.5,))
    assert mean[0] == pytest.approx((0.9**10 + 3) / (0.9**10 + 1))


@given(
    kept=st.lists(st.lists(st.floats(0.0078125, 1000, width=32), max_size=8), min_size=1, max_size=3),
    workers=st.integers(1, 2),
)
def test_quantiles_alone_are_the_same(kept, workers):
    values, ages, valid, seen = samples(kept, workers=max(workers, 2))
    if workers == 1:
        seen = seen[:, :1]
    _, _, expected = summarise((values, ages, valid, seen), (0.5, 0.9))
    np.testing.assert_array_equal(quantiles(values, valid, seen, (0.5, 0.9)), expected)
