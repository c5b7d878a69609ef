"""The simulator for Python: arrays are views, bad input is refused with its place, other threads run meanwhile."""

from __future__ import annotations

import gc
import re
import threading
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import penstock_core
import penstock_sim
import pytest
from hypothesis import given, settings

from tests.support.simulations import environment, request_class, server, simulation

ARRAYS = ("active", "generation", "server", "eligible", "configured", "weight", "base")


def test_arrays_have_the_shape_of_the_largest_environment() -> None:
    small = environment(split=[1.0], servers=[server()])
    lab = simulation(small, environment(seed=2))
    assert (lab.environments, lab.balancers, lab.servers) == (2, 2, 2)
    for name in ARRAYS:
        assert getattr(lab, name).shape == (2, 2, lab.slots)
    assert lab.step_completed.shape == lab.step_duration.shape == lab.step_failed.shape == (2, 2, 2)
    assert lab.busy.shape == lab.offered.shape == (2, 2)
    assert not lab.active[0, 1].any()
    assert (lab.server[0, 1] == -1).all()
    assert sorted(lab.server[1, 0][lab.active[1, 0]]) == [0, 1]


def test_arrays_are_views_that_advance_refreshes() -> None:
    lab = simulation()
    flows, completed = lab.counters["n_flow"], lab.step_completed
    assert flows.dtype == np.int64
    assert flows.sum() == 0
    lab.advance(10)
    assert 60 < flows.sum() < 140
    assert flows.sum() - lab.counters["n_flow_on"].sum() == completed.sum()
    lab.advance(10)
    assert completed.sum() == 0


@pytest.mark.parametrize("name", [*ARRAYS, "step_completed", "step_duration", "step_failed", "busy", "offered"])
def test_arrays_cannot_be_written(name: str) -> None:
    array = getattr(simulation(), name)
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 1


def test_arrays_keep_the_simulation() -> None:
    lab = simulation()
    lab.advance(5)
    flows = lab.counters["n_flow"]
    before = flows.copy()
    del lab
    gc.collect()
    assert (flows == before).all()


@pytest.mark.parametrize("level", ["off", "basic", "full"])
def test_counters_are_those_of_frames(level: str) -> None:
    recorded = {c.name for c in penstock_core.COUNTERS if c.recorded in {"off", level} or level == "full"}
    assert set(simulation(level=level).counters) == recorded


def test_reductions_have_a_number_where_there_are_samples() -> None:
    lab = simulation(level="basic")
    before = lab.reduce(["fct"])["fct"]
    assert before.shape == (1, 2, lab.slots, len(penstock_core.REDUCTIONS))
    assert np.isnan(before).all()
    lab.advance(20)
    after = lab.reduce(["fct", "flow_duration"])["fct"]
    assert (np.isnan(after[..., 0]) == ~lab.active).all()
    assert 0.05 < np.nanmean(after[..., 0]) < 0.5


def test_weights_come_into_force() -> None:
    lab = simulation(scheduler="sed")
    weights = np.where(lab.server == 0, 3.0, 1.0)
    lab.act(weights)
    lab.advance(0.2)
    np.testing.assert_allclose(lab.weight[lab.active], weights[lab.active], rtol=1e-6)
    lab.act(weights.astype(np.float32), base=np.full(weights.shape, 0.5, np.float32))
    lab.advance(0.4)
    assert (lab.base[lab.active] == 0.5).all()


def test_requests_are_recorded() -> None:
    lab = simulation(environment(seed=4))
    lab.advance(30)
    found = lab.requests(0)
    columns = {"arrival", "duration", "work", "io", "pause", "connection", "server", "balancer", "class"}
    assert set(found) == columns
    assert {len(column) for column in found.values()} == {len(found["arrival"])}
    assert (found["duration"] >= found["work"] * (1 - 1e-6)).all()
    assert simulation(record=False).requests(0)["arrival"].size == 0
    with pytest.raises(IndexError):
        lab.requests(1)


def test_oracles_have_no_frames() -> None:
    lab = simulation(rule=penstock_sim.RULES["marginal"])
    lab.advance(10)
    assert not lab.active.any()
    assert lab.step_completed.sum() > 0
    with pytest.raises(ValueError, match="rule: is 2; must be 0"):
        lab.act(np.ones(lab.active.shape, np.float32))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sead": 1}, r"environments\[0\]\.sead: is unknown; keys are seed"),
        ({"seed": -1}, r"environments\[0\]\.seed: .*must be a whole number from 0 to"),
        ({"seed": 2**64}, r"environments\[0\]\.seed"),
        ({"seed": "x"}, r"environments\[0\]\.seed"),
        ({"warmup": "x"}, r"environments\[0\]\.warmup"),
        ({"warmup": float("nan")}, r"environments\[0\]\.warmup: is nan"),
        ({"servers": []}, r"environments\[0\]\.servers: has 0 rows"),
        ({"servers": [[1.0]]}, r"servers: has another shape; must be an array of rows of 11 columns"),
        ({"servers": [1.0, [2.0]]}, r"environments\[0\]\.servers: is no array of numbers"),
        ({"servers": None}, r"environments\[0\]\.servers"),
        ({"servers": object()}, r"environments\[0\]\.servers: is no array of numbers"),
        ({"servers": [server(cores=-1)]}, r"servers\[0\]\.cores: is -1; must be a number from 0\.001 to 4096"),
        ({"split": [[1.0]]}, r"environments\[0\]\.split: has another shape"),
        ({"split": [0.5]}, r"split: shares add up to 0\.5"),
        ({"rates": []}, r"environments\[0\]: must have rows of either rates or trace"),
        ({"rates": [[0.0, 1e12]]}, r"rates\[0\]\.rate"),
        ({"classes": [request_class(share=0.5)]}, r"classes: shares add up to 0\.5"),
        ({"events": [[1.0, 9.0, 0.0, 0.0]]}, r"events\[0\]\.kind: is 9; must be a whole number from 0 to 5"),
    ],
)
def test_bad_environments_are_refused_by_their_place(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulation(environment(**keys))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "none"}, 'level: is "none"; must be one of off, basic, full'),
        ({"scheduler": "rr"}, 'scheduler: is "rr"; must be one of maglev, sed, lsq, alias, p2c'),
        ({"load": "all"}, "load: is"),
        ({"forwarding": "l3dsr"}, "forwarding: is"),
        ({"rule": 7}, "rule: is"),
        ({"threads": 0}, "threads: is 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulation(**options)


def test_bad_calls_change_nothing() -> None:
    lab = simulation()
    lab.advance(1)
    with pytest.raises(ValueError, match=r"until: is 0\.5"):
        lab.advance(0.5)
    with pytest.raises(ValueError, match=r"weights: has another shape; must be \[1, 2, "):
        lab.act(np.ones((1, 2, 1), np.float32))
    with pytest.raises(penstock_sim.SimulationError, match=r"weights\[0, 0\]: "):
        lab.act(np.full(lab.active.shape, np.nan, np.float32))
    with pytest.raises(ValueError, match='channels: "x" is unknown'):
        lab.reduce(["x"])
    with pytest.raises(penstock_sim.SimulationError, match="not recorded at level basic"):
        simulation(level="basic").reduce(["win"])
    with pytest.raises(ValueError, match="environments: are 0; must be 1 to 1024"):
        penstock_sim.Simulation([], level="off", scheduler="lsq", load="open", forwarding="nat")
    lab.advance(2)


numbers = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 0.5, -1.0, 1e9, 2.0**40]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_number_anywhere_does_harm(data: st.DataObject) -> None:
    """A changed number is refused, or the simulation runs on."""
    given_ = environment(events=[[0.1, 0.0, 0.0, 0.5], [0.2, 4.0, 1.0, 2.0], [0.3, 2.0, 0.0, 0.0]])
    key = data.draw(st.sampled_from(["servers", "classes", "rates", "events"]))
    table = np.array(given_[key])
    place = data.draw(st.tuples(*(st.integers(0, size - 1) for size in table.shape)))
    table[place] = data.draw(numbers)
    try:
        lab = simulation(given_ | {key: table})
    except ValueError as error:
        assert f"environments[0].{key}" in str(error)
        return
    try:
        lab.advance(0.5)
    except penstock_sim.SimulationError as error:
        assert "environments[0]: at " in str(error)


def test_other_threads_run_while_time_advances() -> None:
    lab = simulation(environment(rates=[[0.0, 25.0]]), rule=1, record=False)
    begun = threading.Event()

    def advance() -> None:
        begun.set()
        lab.advance(100_000)

    thread = threading.Thread(target=advance)
    thread.start()
    begun.wait()
    turns = 0
    while thread.is_alive():
        time.sleep(0.002)
        turns += 1
    thread.join()
    assert turns > 5  # 2.5 million arrivals take longer than that


def test_two_threads_cannot_use_one_simulation() -> None:
    lab = simulation(environment(rates=[[0.0, 25.0]]), rule=1, record=False)
    thread = threading.Thread(target=lab.advance, args=(200_000.0,))
    thread.start()
    errors: list[str] = []
    while thread.is_alive() and not errors:
        try:
            lab.advance(lab.time)
        except penstock_sim.SimulationError as error:
            errors.append(str(error))
        except ValueError:
            break  # it had advanced before we came
    thread.join()
    assert not errors or errors == ["another thread uses this simulation"]


def test_package_has_types() -> None:
    stub = Path(penstock_sim.__file__).with_name("penstock_sim-stubs") / "__init__.pyi"
    assert "class Simulation" in stub.read_text()


SHARING = {
    "interval": 0.02,
    "delay_low": 0.001,
    "delay_high": 0.005,
    "loss": 0.01,
    "anticipate": 0.5,
    "doubt": 0.2,
    "mirror": 0.5,
    "mean": 0.7,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": 2.0}, "sharing.loss: is 2; must be a number from 0 to 1"),
        ({"loss": "much"}, "sharing.loss: must be a number"),
        ({"los": 0.1}, "sharing: has an unknown field"),
    ],
)
def test_a_wrong_exchange_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        simulation(sharing=SHARING | change)


def test_frames_show_the_flows_of_peers() -> None:
    lab = simulation(sharing=SHARING)
    assert (lab.peers == -1).all()
    lab.advance(1.0)
    assert (lab.peers[lab.eligible] >= 0).all()
