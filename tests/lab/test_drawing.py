"""What real clients replay is what the simulator draws, whatever serves it there."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_rl import scenarios, simulation
from penstock_rl.evaluation.policies import POLICIES
from penstock_rl.scenarios import Scenario

from tools.lab.drawing import drawn
from tools.lab.requests import plan
from tools.lab.settings import SETTINGS

UNTIL = 30.0

BUSY = Scenario.model_validate(
    {
        "name": "busy",
        "duration": UNTIL,
        "warmUp": 0,
        "balancers": {"count": 2, "split": [0.7, 0.3]},
        "servers": [{"count": 2, "cores": 2, "quota": {"cpus": 0.4}}],
        "arrivals": {"load": 0.9},
        "classes": [
            {"name": "page", "share": 3, "work": {"mean": 0.02}},
            {
                "name": "session",
                "requests": 4,
                "geometric": True,
                "think": 0.1,
                "io": 0.05,
                "idleShare": 0.5,
                "idle": 1,
                "work": {"distribution": "lognormal", "mean": 0.01},
            },
        ],
    }
)


@pytest.mark.parametrize("policy", ["lsq", "little"])
def test_every_request_of_a_simulation_is_in_the_plan(policy: str) -> None:
    environment = scenarios.expand(BUSY, 5)
    connections = drawn(environment, UNTIL)
    evaluated = POLICIES[policy]
    [found] = simulation.run([environment], evaluated.policy, until=UNTIL, setting=evaluated.setting("full", "nat"))
    # The first request of a connection is found by its arrival, which no two have in common.
    number = np.searchsorted(connections.arrival, found.arrival)
    number = np.minimum(number, len(connections.arrival) - 1)
    first = connections.arrival[number] == found.arrival
    assert first.sum() > 500
    assert (connections.balancer[number[first]] == found.balancer[first]).all()
    assert (connections.kind[number[first]] == found.kind[first]).all()
    assert len(found.arrival) <= len(connections.work)
    assert set(np.unique(connections.balancer)) == {0, 1}


def test_pauses_and_ends_are_those_of_the_class() -> None:
    found = drawn(scenarios.expand(BUSY, 5), UNTIL)
    session = found.kind == 1
    count = np.diff(found.first)
    assert (count[~session] == 1).all()
    assert count[session].mean() == pytest.approx(4, rel=0.3)
    assert (found.idle[~session] == 0).all()
    rows = np.repeat(session, count)
    assert (found.io[rows] > 0).all()
    assert (found.io[~rows] == 0).all()
    last = np.zeros(len(found.work), dtype=bool)
    last[found.first[1:] - 1] = True
    assert (found.pause[last] == 0).all()
    assert (found.pause[~last] > 0).all()
    assert found.idle[session].max() > 0


def test_a_plan_has_a_line_for_each_connection() -> None:
    found = drawn(scenarios.expand(BUSY, 5), 1.0)
    lines = list(plan(found, np.array([[200.0, 1000.0], [300.0, 2000.0]])))
    assert len(lines) == len(found.arrival)
    for index, line in enumerate(lines):
        words = line.split()
        assert float(words[0]) == pytest.approx(found.arrival[index])
        assert int(words[1]) == found.balancer[index] + 1
        assert words[2] == ("200", "300")[found.kind[index]]
        assert int(words[5]) == (len(words) - 6) / 3 == np.diff(found.first)[index]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_fits_as_it_is(name: str) -> None:
    setting = SETTINGS[name]()
    assert setting.policy in POLICIES
    assert setting.scenario.features.value == "full"
    assert sum(group.count * group.cpus for group in setting.scenario.servers) <= 1.2
