"""The scenarios that come with Penstock are what their descriptions say."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from penstock_rl.scenarios import Scenario, capacities, dump, expand, load, named
from penstock_rl.scenarios.reading import NAMED
from penstock_sim import EVENT_KINDS, SERVER_FIELDS

from tests.rl.test_expansion import simulate

ROOT = Path(__file__).resolve().parents[2]
HET8 = [1, 1, 2, 2, 4, 4, 8, 8]
SPD = [0.4, 0.4, 0.8, 0.8, 1.2, 1.2, 1.6, 1.6]
# name: cores, speeds, balancers, load
DEFINED = {
    "het8": (HET8, [1] * 8, 2, 0.85),
    "het2": ([2] * 4 + [4] * 4, [1] * 8, 6, 0.85),
    "spd": ([4] * 8, SPD, 2, 0.85),
    "mix": ([2, 2, 4, 4, 4, 4, 8, 8], [1, 0.5] * 4, 2, 0.85),
    "noisy": ([4] * 8, SPD, 4, 0.75),
    "ka": (HET8, [1] * 8, 2, 0.85),
    "wide": (sorted(HET8 * 8), [1] * 64, 6, 0.85),
    "pers": (HET8, [1] * 8, 2, 0.7),
    "churn": ([*HET8, 4, 4], [1] * 10, 2, 0.7),
    "diurnal": (HET8, [1] * 8, 2, None),
    "quota": ([8] * 8, [1] * 8, 2, 0.85),
    "starved": ([4] * 8, [1] * 8, 2, 0.3),
    "control": ([4] * 4, [1] * 4, 1, 0.85),
}


def test_there_are_twelve_and_a_control() -> None:
    assert set(named()) == set(DEFINED)
    assert {path.stem for path in NAMED.glob("*")} == set(DEFINED)
    assert (ROOT / "examples" / "scenarios").resolve() == NAMED.resolve()


@pytest.mark.parametrize("name", DEFINED)
def test_servers_balancers_and_load(name: str) -> None:
    cores, speeds, balancers, load = DEFINED[name]
    scenario = named()[name]
    assert [group.cores for group in scenario.each_server] == cores
    assert [group.speed for group in scenario.each_server] == speeds
    assert {group.weight for group in scenario.each_server} == {1}  # what nobody was told
    assert (scenario.balancers.count, scenario.balancers.split) == (balancers, None)
    assert scenario.arrivals.load == load
    assert scenario.duration == (230 if name == "noisy" else 200)
    assert (scenario.warm_up, scenario.interval, scenario.features.value) == (30, 0.2, "full")
    assert scenario.work_per_connection == pytest.approx(1.0 if name == "pers" else 0.1)
    assert scenario.description


@pytest.mark.parametrize("name", DEFINED)
def test_the_rate_is_that_of_the_load(name: str) -> None:
    scenario = named()[name]
    rates = expand(scenario, 1)["rates"]
    if name not in ("churn", "diurnal"):
        expected = DEFINED[name][3] * capacities(scenario).sum() / scenario.work_per_connection
        assert rates.tolist() == [[0, pytest.approx(expected)]]


@pytest.mark.parametrize("name", DEFINED)
def test_it_is_the_same_after_it_was_written_and_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(dump(named()[name]))
    assert load(path) == named()[name]


@pytest.mark.parametrize("name", ["control", "het8", "quota"])
def test_the_simulator_finds_the_load(name: str) -> None:
    scenario = named()[name]
    simulation = simulate(scenario, expand(scenario, 1), scenario.duration)
    assert simulation.busy.sum() / simulation.offered.sum() == pytest.approx(scenario.arrivals.load, abs=0.02)


def events(scenario: Scenario, kind: str) -> list[list[float]]:
    rows = expand(scenario, 1)["events"]
    kept: list[list[float]] = rows[rows[:, 1] == EVENT_KINDS[kind]][:, [0, 2, 3]].tolist()
    return kept


def test_noisy_slows_server_3k_mod_8_down() -> None:
    slow = [([30 + 25 * k, 3 * k % 8, 0.3], [50 + 25 * k, 3 * k % 8, 1]) for k in range(8)]
    assert events(named()["noisy"], "speed") == list(chain.from_iterable(slow))


def test_ka_keeps_most_connections_open() -> None:
    (body,) = named()["ka"].classes
    assert (body.idle_share, body.idle, body.requests) == (0.8, 5, 1)


def test_pers_has_many_requests_in_a_connection() -> None:
    (body,) = named()["pers"].classes
    assert (body.requests, body.geometric, body.work.mean, body.think) == (20, False, 0.05, 1)


def test_churn_adds_removes_and_restarts_one_server_after_another() -> None:
    scenario = named()["churn"]
    stops = [row[:2] for row in events(scenario, "stop")]
    starts = [row[:2] for row in events(scenario, "start")]
    assert [server for _, server in stops] == [server for _, server in starts] == [0, 1, 2, 3, 6, 7, 8, 9]
    # No server begins before the one before it is back.
    assert all(start < stop for (start, _), (stop, _) in zip(starts, stops[1:], strict=False))
    states = events(scenario, "state")
    assert [row[1] for row in states if row[2] == 0] == [4, 5]
    assert [row[1] for row in states if row[2] == 1][:2] == [8, 9]
    assert states[-1][0] < 195


def test_diurnal_rises_to_its_peak_with_two_kinds_of_pages() -> None:
    scenario = named()["diurnal"]
    rates = expand(scenario, 1)["rates"]
    load = rates[:, 1] * scenario.work_per_connection / capacities(scenario).sum()
    assert load.max() == pytest.approx(0.95)
    assert load[0] < 0.45
    assert rates[load.argmax(), 0] > 170
    assert [each.name for each in scenario.classes] == ["static", "dynamic"]


def test_quota_has_the_capacities_of_het8_by_limits_each_tenth_of_a_second() -> None:
    scenario = named()["quota"]
    assert capacities(scenario).tolist() == HET8
    servers = expand(scenario, 1)["servers"]
    assert servers[:, SERVER_FIELDS.index("quota")] == pytest.approx(np.array(HET8) / 10)
    assert set(servers[:, SERVER_FIELDS.index("quota_period")]) == {0.1}


def test_starved_slows_one_server_down_for_a_minute() -> None:
    assert events(named()["starved"], "speed") == [[40, 3, 0.1], [100, 3, 1]]
