"""Policies that others are compared with do what their rules promise, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_rl.evaluation import policies
from penstock_rl.evaluation.cases import Case
from penstock_rl.evaluation.runner import Block, run_block
from penstock_rl.scenarios import Scenario

from tests.rl.small import small

EQUAL = [{"count": 4, "cores": 4}]
SIZES = [{"count": 2, "cores": 1}, {"count": 2, "cores": 2}, {"count": 2, "cores": 4}, {"count": 2, "cores": 8}]
KEPT = [{"idleShare": 0.8, "idle": 5}]


def mean(scenario: Scenario, policy: str) -> float:
    runs = run_block(Block(Case(scenario), policies.named(policy), (1, 2)))
    return float(np.exp(np.mean([np.log(run.mean) for run in runs])))


@pytest.mark.parametrize(("policy", "most"), [("awcmp", 1.1), ("knapsack", 1.4)])
def test_weights_of_equal_servers_stay_alike(policy: str, most: float) -> None:
    scenario = small(servers=EQUAL, arrivals={"load": 0.8}, duration=90.0, warmUp=30.0)
    assert mean(scenario, policy) < most * mean(scenario, "random")


@pytest.mark.parametrize("policy", ["awcmp", "knapsack"])
def test_weights_find_the_sizes_of_servers(policy: str) -> None:
    scenario = small(servers=SIZES, arrivals={"load": 0.7}, duration=90.0, warmUp=30.0)
    assert mean(scenario, policy) < 0.2 * mean(scenario, "random")


def test_prequal_does_not_lose_to_least_requests() -> None:
    scenario = small(servers=SIZES, arrivals={"load": 0.7}, duration=60.0, warmUp=20.0)
    assert mean(scenario, "prequal") < 1.02 * mean(scenario, "lsq")


def test_little_does_not_overload_a_server_where_idle_connections_count() -> None:
    scenario = small(servers=SIZES, classes=KEPT, arrivals={"load": 0.8}, duration=60.0, warmUp=20.0)
    assert mean(scenario, "little") < 0.3 * mean(scenario, "lsq")
