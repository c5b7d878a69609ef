"""The objective of a search: simulated completion times in relation to `lsq`."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cma")
from penstock_rl.tuning.objective import Comparison, start

START = start()


def test_points_are_compared_on_the_same_requests_and_repeatably():
    objective = Comparison(seed=7, scenarios=2)
    worse = START.copy()
    worse[1] = 0.0
    values = objective(0, np.stack((START, worse, START)))
    assert values.shape == (3,)
    assert np.isfinite(values).all()
    assert values[0] == values[2]  # common random numbers
    assert values[0] != values[1]
    assert (objective(0, np.stack((START, worse, START))) == values).all()
    assert (objective(1, np.stack((START, worse))) != values[:2]).all()  # other scenarios
