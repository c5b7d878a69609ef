"""Guardrails: whatever a policy wants, what comes out is within bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from penstock_agent.guardrails import Guardrails, configured, guard, normalise

SIZE = 6
anything = npst.arrays(float, SIZE, elements=st.floats(allow_nan=True, allow_infinity=True))
positive = npst.arrays(float, SIZE, elements=st.floats(1e-3, 1e3))
previous_steps = npst.arrays(float, SIZE, elements=st.floats(0.05, 20))
flags = npst.arrays(bool, SIZE)
all_bounds = st.builds(Guardrails, max_weight_ratio=st.floats(1.0, 1000), max_change_per_step=st.floats(0.01, 1))


@given(wanted=anything, previous=previous_steps, eligible=flags, bounds=all_bounds)
def test_always_within_bounds(wanted, previous, eligible, bounds):
    out = guard(wanted, previous, eligible=eligible, bounds=bounds)
    assert np.isfinite(out.weights).all()
    assert (out.weights[~eligible] == 0).all()
    if eligible.any():
        weights = out.weights[eligible]
        assert weights.max() / weights.min() <= bounds.max_weight_ratio * (1 + 1e-9)
        inside = eligible & (previous <= bounds.highest) & (previous >= 1 / bounds.highest)
        change = np.abs(out.previous[inside] / previous[inside] - 1)
        assert (change <= bounds.max_change_per_step * (1 + 1e-9)).all()


@given(wanted=positive, eligible=flags, bounds=all_bounds, scale=st.floats(1e-3, 1e3))
def test_scale_does_not_matter(wanted, eligible, bounds, scale):
    one = guard(wanted, np.ones(SIZE), eligible=eligible, bounds=bounds)
    other = guard(wanted * scale, np.ones(SIZE), eligible=eligible, bounds=bounds)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-9)


def test_steps_reach_what_is_wanted():
    wanted, previous = np.array([1.0, 4.0]), np.ones(2)
    bounds = Guardrails(max_weight_ratio=10, max_change_per_step=0.25)
    for _ in range(10):
        out = guard(wanted, previous, eligible=np.ones(2, bool), bounds=bounds)
        previous = out.previous
    assert out.weights.tolist() == pytest.approx([0.5, 2.0])
    assert (out.bounded, out.slowed, out.invalid) == (0, 0, 0)


def test_what_is_held_back_is_counted():
    bounds = Guardrails(max_weight_ratio=4, max_change_per_step=0.25)
    out = guard(np.array([1.0, 100.0, np.nan, -1.0]), np.ones(4), eligible=np.ones(4, bool), bounds=bounds)
    assert (out.bounded, out.slowed, out.invalid) == (2, 2, 2)
    assert out.weights.tolist() == pytest.approx([0.75, 1.25, 1.0, 1.0])


@given(weights=npst.arrays(float, SIZE, elements=st.floats(0, 1e12)), eligible=flags)
def test_configured_weights_pass_up_to_what_a_data_plane_takes(weights, eligible):
    out = configured(weights, eligible=eligible)
    assert out.weights.tolist() == np.where(eligible, np.minimum(weights, 1e6), 0).tolist()
    assert np.isfinite(out.previous).all()
    assert (out.previous > 0).all()


def test_a_policy_goes_on_from_where_the_fallback_was():
    fallback = configured(np.array([1.0, 4.0]), eligible=np.ones(2, bool))
    out = guard(np.array([1.0, 1.0]), fallback.previous, eligible=np.ones(2, bool), bounds=Guardrails())
    assert out.weights.tolist() == pytest.approx([0.5 * 1.25, 2.0 * 0.75])


@given(weights=positive, valid=flags)
def test_normalised_weights_have_a_geometric_mean_of_one(weights, valid):
    scaled = normalise(weights, valid)
    assert np.log(scaled[valid]).sum() == pytest.approx(0, abs=1e-9)
    assert (scaled[~valid] == 1).all()
