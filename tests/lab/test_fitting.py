"""Scenarios that are made small enough for a machine keep their load; what the laboratory lacks is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_rl.scenarios import Scenario, capacities, expand
from penstock_sim import CLASS_FIELDS

from tools.lab.errors import LabError
from tools.lab.fitting import ROOM, fit
from tools.lab.servers import server_rows, share, spread

PROCESSORS = 2


def scenario(*servers: dict[str, Any], **fields: Any) -> Scenario:
    content = {"name": "some", "duration": 60, "warmUp": 10, "servers": servers, "arrivals": {"load": 0.8}}
    return Scenario.model_validate(content | fields)


def load(given_scenario: Scenario) -> float:
    """Work that arrives over work that the servers can do."""
    environment = expand(given_scenario, 1)
    classes = np.asarray(environment["classes"])
    share_of, requests, work = (CLASS_FIELDS.index(name) for name in ("share", "requests", "work_mean"))
    work_per_connection = (classes[:, share_of] * classes[:, requests] * classes[:, work]).sum()
    return float(environment["rates"][0, 1] * work_per_connection / capacities(given_scenario).sum())


servers = st.builds(
    lambda count, cores, speed: {"count": count, "cores": cores, "speed": speed},
    count=st.integers(1, 3),
    cores=st.integers(1, 4),
    speed=st.floats(0.5, 2),
)


@given(groups=st.lists(servers, min_size=1, max_size=4), rho=st.floats(0.1, 0.95))
def test_a_scenario_that_fits_has_the_load_of_the_scenario(groups: list[dict[str, Any]], rho: float) -> None:
    before = scenario(*groups, arrivals={"load": rho})
    after, factor = fit(before, PROCESSORS)
    assert capacities(after).sum() <= ROOM * PROCESSORS * (1 + 1e-9)
    assert capacities(after) == pytest.approx(capacities(before) / factor)
    assert load(after) == pytest.approx(rho)
    assert after.duration == pytest.approx(before.duration * factor)
    for row in server_rows(expand(after, 1)):
        assert row["cores"] in (1, 2)
        assert row["speed"] == 1
        assert 0 < share(row) <= row["cores"]


def test_a_server_that_would_be_too_weak_is_named() -> None:
    with pytest.raises(LabError, match=r"server 1: would have 0.0012 processors here, .* use fewer servers"):
        fit(scenario({"cores": 1000}, {"cores": 1}), PROCESSORS)


def test_a_scenario_with_a_rate_keeps_its_requests() -> None:
    before = scenario({"count": 4, "cores": 4}, arrivals={"rate": 100})
    after, factor = fit(before, PROCESSORS)
    assert factor == pytest.approx(16 / 1.2)
    assert load(after) == pytest.approx(load(before))


def test_a_scenario_that_fits_stays_as_it_is() -> None:
    before = scenario({"count": 2, "cores": 2, "quota": {"cpus": 0.5, "period": 0.02}})
    assert fit(before, PROCESSORS) == (before, 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"forwarding": "GRE"}, "some: forwarding: .* remove it"),
        ({"servers": [{"cores": 1}, {"cores": 1, "latency": 0.1}]}, r"servers\[1\]: the laboratory has no thrash"),
        ({"arrivals": {"load": 0.5, "diurnal": {}}}, "arrivals: .* use load or rate"),
        ({"classes": [{"requestBytes": 20_000}]}, r"classes\[0\].requestBytes: is 20000"),
        (
            {"disturbances": [{"failure": {"at": 20, "lasting": 5}}]},
            "disturbances: the laboratory has none; remove them",
        ),
    ],
)
def test_what_the_laboratory_does_not_have_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        fit(scenario({"cores": 1}, **fields), PROCESSORS)


def test_quotas_are_spread_over_processors() -> None:
    rows = [
        {"cores": 1.0, "quota": cpus / 10, "quota_period": 0.1, "limit": 0.0, "backlog": 0.0, "weight": 1.0}
        for cpus in (0.5, 0.1, 0.3, 0.3)
    ]
    found = spread(rows, [4, 6])
    assert [server.processors for server in found] == [(4,), (4,), (6,), (6,)]
    with pytest.raises(LabError, match=r"servers\[0\].cores: is 3; must be a whole number from 1 to 2"):
        spread([rows[0] | {"cores": 3.0}], [4, 6])
