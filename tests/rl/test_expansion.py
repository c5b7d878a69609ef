"""What scenarios expand to: the arrays that the simulator takes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import penstock_sim
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from penstock_api.reading import Source, parse
from penstock_rl.scenarios import Scenario, ScenarioError, capacities, dump, expand, load, unseen
from penstock_sim import CLASS_FIELDS, EVENT_KINDS, SERVER_FIELDS, WORK_KINDS

from tests.support.scenario_files import raw_scenarios

SEEDS = st.integers(0, 2**63 - 1)


def scenario(**fields: Any) -> Scenario:
    whole = {"name": "test", "servers": [{"count": 4, "cores": 2}], "arrivals": {"load": 0.5}, **fields}
    return parse(Scenario, whole, source=Source.FILE)


def environment(seed: int = 1, **fields: Any) -> dict[str, Any]:
    return expand(scenario(**fields), seed)


def mean_rate(found: dict[str, Any], duration: float) -> float:
    times, rates = found["rates"].T
    return float((np.diff([*times, duration]) * rates).sum() / duration)


def events(found: dict[str, Any], kind: str, server: int) -> list[tuple[float, float]]:
    rows = found["events"]
    kept = rows[(rows[:, 1] == EVENT_KINDS[kind]) & (rows[:, 2] == server)]
    return [(time, value) for time, _, _, value in kept.tolist()]


def check_environment(found: dict[str, Any], of: Scenario) -> None:
    servers, classes, rates, rows = (found[name] for name in ("servers", "classes", "rates", "events"))
    assert servers.shape == (of.server_count, len(SERVER_FIELDS))
    assert classes.shape == (len(of.classes), len(CLASS_FIELDS))
    assert found["split"].shape == (of.balancers.count,)
    assert found["split"].sum() == pytest.approx(1)
    assert classes[:, 0].sum() == pytest.approx(1)
    for array in (servers, classes, rates, rows, found["split"]):
        assert array.dtype == np.float64
        assert np.isfinite(array).all()
        assert (array >= 0).all()
    assert rates[0, 0] == 0
    assert (np.diff(rates[:, 0]) > 0).all()
    assert rows.shape[1] == 4
    assert (np.diff(rows[:, 0]) >= 0).all()
    assert (rows[:, 0] < of.duration).all()
    assert (rows[:, 2] < of.server_count).all()
    if rates[:, 1].max() < 10_000:  # it makes room for the flows of some seconds
        simulate(of, found, 0.0)


def simulate(of: Scenario, found: dict[str, Any], until: float) -> Any:
    """Run the environment in the simulator, which checks every number of it."""
    level, forwarding = of.features.value, of.forwarding.value.lower()
    simulation = penstock_sim.Simulation([found], level=level, scheduler="lsq", load="open", forwarding=forwarding)
    simulation.advance(until)
    return simulation


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(raw_scenarios(), SEEDS)
def test_any_scenario_expands_to_arrays_with_the_mean_rate_that_it_names(raw: dict[str, Any], seed: int) -> None:
    of = parse(Scenario, raw, source=Source.FILE)
    try:
        found = expand(of, seed)
    except ScenarioError as error:
        assert "at most" in str(error)
        assume(False)
    check_environment(found, of)
    mean, peak = mean_rate(found, of.duration), found["rates"][:, 1].max()
    assert mean <= peak * (1 + 1e-9)
    if of.arrivals.rate:
        assert mean * of.requests_per_connection == pytest.approx(of.arrivals.rate)
    elif not {"add", "remove", "capacityChange"} & {key for each in raw["disturbances"] for key in each}:
        reached = (mean if of.arrivals.load else peak) * of.work_per_connection / capacities(of).sum()
        assert reached == pytest.approx(of.arrivals.load or of.arrivals.peak_load)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(raw=raw_scenarios())
def test_any_scenario_is_the_same_after_it_was_written_and_read(raw: dict[str, Any], tmp_path_factory: Any) -> None:
    of = parse(Scenario, raw, source=Source.FILE)
    path = tmp_path_factory.mktemp("scenario") / "any.yaml"
    path.write_text(dump(of))
    try:
        assert load(path) == of
    except ScenarioError as error:
        assert "at most" in str(error)


MMPP = {"rate": 9, "mmpp": {"factors": [1, 3], "dwell": [2, 1]}}


@pytest.mark.parametrize(
    ("of", "random"),
    [(scenario(), False), (unseen(5), True), (scenario(arrivals=MMPP), True)],
    ids=["nothing random", "noise", "mmpp"],
)
def test_the_seed_decides_all_that_is_random(of: Scenario, random: bool) -> None:
    def as_text(seed: int) -> str:
        return json.dumps({key: np.asarray(value).tolist() for key, value in expand(of, seed).items() if key != "seed"})

    assert as_text(3) == as_text(3)
    assert (as_text(3) != as_text(4)) is random


def test_load_counts_processors_of_quotas_and_speeds() -> None:
    servers = [{"cores": 2, "speed": 0.5}, {"cores": 8, "quota": {"cpus": 1.5, "period": 0.1}}, {"cores": 1}]
    found = environment(servers=servers, arrivals={"load": 0.8})
    # 1 + 1.5 + 1 seconds of work in a second, 0.1 for each request.
    assert found["rates"].tolist() == [[0, pytest.approx(0.8 * 3.5 / 0.1)]]
    assert found["servers"][1, SERVER_FIELDS.index("quota")] == pytest.approx(0.15)


def test_load_counts_requests_of_connections_and_work_of_classes() -> None:
    classes = [
        {"name": "one", "share": 3, "work": {"mean": 0.02}},
        {"name": "many", "share": 1, "requests": 10, "work": {"mean": 0.05}},
    ]
    found = environment(classes=classes, arrivals={"load": 0.8})
    work = 0.75 * 0.02 + 0.25 * 10 * 0.05
    assert found["rates"][0, 1] == pytest.approx(0.8 * 8 / work)


def test_load_counts_servers_for_as_long_as_they_are_there() -> None:
    servers = [{"count": 2, "cores": 2}, {"cores": 4, "present": False}]
    disturbances: list[Any] = [
        {"add": {"servers": [2], "at": 100}},
        {"remove": {"servers": [0], "at": 40, "drain": 10}},
        {"capacityChange": {"servers": [1], "at": 150, "cores": 1, "speed": 0.5}},
    ]
    found = environment(servers=servers, disturbances=disturbances)
    capacity = (50 * 2 + 150 * 2 + 50 * 0.5 + 100 * 4) / 200
    assert found["rates"][0, 1] == pytest.approx(0.5 * capacity / 0.1)


def test_noise_failures_and_restarts_leave_the_load_as_it_is() -> None:
    quiet = environment()["rates"].tolist()
    for body in (
        {"noisyNeighbor": {"at": 10, "lasting": 100, "factor": 0.1}},
        {"failure": {"at": 10}},
        {"rollingRestart": {"at": 10}},
    ):
        assert environment(disturbances=[body])["rates"].tolist() == quiet


def test_a_disturbance_is_the_same_whatever_is_listed_after_it() -> None:
    noise = {"noisyNeighbor": {"at": 10, "every": [8, 25], "lasting": [5, 20], "factor": [0.1, 0.6]}}
    alone = environment(disturbances=[noise])["events"]
    more = environment(disturbances=[noise, {"failure": {"at": 20, "every": [5, 9]}}])["events"]
    assert more[more[:, 1] == EVENT_KINDS["speed"]].tolist() == alone.tolist()


def test_of_noise_that_overlaps_the_stronger_counts() -> None:
    disturbances = [
        {"noisyNeighbor": {"at": 10, "lasting": 20, "factor": 0.5, "servers": [1]}},
        {"noisyNeighbor": {"at": 15, "lasting": 5, "factor": 0.2, "servers": [1]}},
        {"noisyNeighbor": {"at": 25, "lasting": 15, "factor": 0.8, "servers": [1]}},
        {"capacityChange": {"at": 35, "speed": 2, "servers": [1]}},
    ]
    found = events(environment(disturbances=disturbances), "speed", 1)
    assert found == [(10, 0.5), (15, 0.2), (20, 0.5), (30, 0.8), (35, 1.6), (40, 2)]


def test_health_checks_notice_a_failure_later_and_a_short_one_never() -> None:
    disturbances = [
        {"failure": {"at": 10, "lasting": 20, "detection": 3, "servers": [1]}},
        {"failure": {"at": 50, "lasting": 2, "detection": 3, "servers": [1]}},
        {"failure": {"at": 70, "servers": [1]}},
    ]
    found = environment(disturbances=disturbances)
    assert [time for time, _ in events(found, "stop", 1)] == [10, 50, 70]
    assert [time for time, _ in events(found, "start", 1)] == [30, 52]
    assert events(found, "state", 1) == [(13, 3), (33, 1), (73, 3)]


def test_servers_are_restarted_one_after_another() -> None:
    body = {"at": 10, "drain": 4, "down": 2, "detection": 1, "pause": 3, "servers": [2, 0]}
    found = environment(disturbances=[{"rollingRestart": body}])
    assert events(found, "state", 2) == [(10, 2), (17, 1)]
    assert [events(found, kind, 2)[0][0] for kind in ("stop", "start")] == [14, 16]
    assert events(found, "state", 0) == [(20, 2), (27, 1)]


def test_a_server_that_was_removed_can_come_back() -> None:
    disturbances = [
        {"remove": {"at": 10, "drain": 5, "servers": [1]}},
        {"add": {"at": 30, "servers": [1]}},
    ]
    assert events(environment(disturbances=disturbances), "state", 1) == [(10, 2), (15, 0), (30, 1)]


def test_a_change_at_the_start_is_an_event() -> None:
    disturbances = [{"capacityChange": {"at": 0, "cores": 1, "weight": 3, "servers": [1]}}]
    found = environment(disturbances=disturbances)
    assert events(found, "cores", 1) == [(0, 1)]
    assert events(found, "weight", 1) == [(0, 3)]


def test_modulated_rates_alternate() -> None:
    rates = environment(arrivals={"load": 0.5, "modulated": {"factors": [1.4, 0.6], "every": 4}})["rates"]
    assert rates[:3, 0].tolist() == [0, 4, 8]
    assert (rates[:, 1] / 40).tolist() == pytest.approx([1.4, 0.6] * 25)


def test_states_of_an_mmpp_last_as_long_as_they_should() -> None:
    arrivals = {"rate": 10, "mmpp": {"factors": [1, 3], "dwell": [2, 1]}}
    rates = environment(duration=20_000, arrivals=arrivals)["rates"]
    lengths = np.diff([*rates[:, 0], 20_000])
    low = rates[:, 1] < 10
    assert lengths[low].mean() == pytest.approx(2, rel=0.1)
    assert lengths[~low].mean() == pytest.approx(1, rel=0.1)
    assert rates[~low, 1].mean() == pytest.approx(3 * rates[low, 1].mean())


def test_a_day_is_lowest_in_the_morning_and_highest_in_the_evening() -> None:
    rates = environment(duration=86_400, arrivals={"rate": 1, "diurnal": {}})["rates"]
    hours = rates[:, 0] / 3600
    assert 4 <= hours[rates[:, 1].argmin()] <= 6
    assert 19 <= hours[rates[:, 1].argmax()] <= 21
    assert 2 < rates[:, 1].max() / rates[:, 1].min() < 3


def test_a_ramp_rises_between_begin_and_end() -> None:
    ramp = {"first": 0.5, "last": 2, "begin": 50, "end": 150}
    rates = environment(arrivals={"peakLoad": 0.8, "ramp": ramp})["rates"]
    assert (rates[0, 1], rates[-1, 1]) == (pytest.approx(16), pytest.approx(64))
    assert (rates[0, 0], rates[1, 0], rates[-1, 0]) == (0, 50, pytest.approx(150))
    assert (np.diff(rates[:, 1]) > 0).all()


def test_the_kinds_of_work_have_their_shapes() -> None:
    classes = [
        {"name": "a", "work": {"distribution": "constant"}},
        {"name": "b"},
        {"name": "c", "work": {"distribution": "lognormal", "sigma": 0.7}},
        {"name": "d", "work": {"distribution": "pareto", "alpha": 1.2, "max": 9}},
        {"name": "e", "work": {"distribution": "pareto", "mean": 0.2}},
    ]
    found = environment(classes=classes)["classes"]
    columns = [CLASS_FIELDS.index(f"work_{name}") for name in ("kind", "mean", "shape", "max")]
    kinds = [WORK_KINDS[name] for name in ("constant", "exponential", "lognormal", "pareto", "pareto")]
    assert found[:, columns].tolist() == [
        [kinds[0], 0.1, 0, 0],
        [kinds[1], 0.1, 0, 0],
        [kinds[2], 0.1, 0.7, 0],
        [kinds[3], 0.1, 1.2, 9],
        [kinds[4], 0.2, 1.5, 10],
    ]
