"""A short form of `make lab`: the same requests in the simulator and on real servers behind the real data plane."""

from __future__ import annotations

import re

import numpy as np
import pytest
from penstock_rl.scenarios import Scenario

from tools.lab.comparison import compare
from tools.lab.errors import LabError

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("limits")]

LOOSE = 0.5  # a few hundred requests, on a machine that also does other things

SHORT = Scenario.model_validate(
    {
        "name": "short",
        "duration": 8,
        "warmUp": 2,
        "servers": [{"cores": 1, "quota": {"cpus": 0.15}}, {"cores": 1, "quota": {"cpus": 0.45}}],
        "arrivals": {"load": 0.6},
        "classes": [{"work": {"mean": 0.01}}],
    }
)


@pytest.mark.alone
def test_simulator_and_laboratory_agree_roughly() -> None:
    found = compare(SHORT, "lsq", seed=1)
    if found.disturbance:
        pytest.skip(found.disturbance)
    assert found.simulator.run.completed == found.lab.run.completed
    assert found.simulator.run.failed == found.lab.run.failed == 0
    assert abs(found.difference("mean")) < LOOSE
    shares = [np.array(side.counts) / sum(side.counts) for side in (found.simulator, found.lab)]
    assert np.abs(shares[0] - shares[1]).max() < 0.15


def test_policies_that_no_data_plane_has_are_refused() -> None:
    for name in ("oracle-sed", "sed-base-1", "sed+shared"):
        with pytest.raises(LabError, match=re.escape(f"policy {name}: no data plane has it")):
            compare(SHORT, name, seed=1)
