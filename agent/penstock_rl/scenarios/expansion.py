"""From a scenario to an environment: the arrays that `penstock_sim.Simulation` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock_sim import CLASS_FIELDS, EVENT_KINDS, SERVER_FIELDS, WORK_KINDS

from penstock_rl.scenarios import patterns, steps, traces
from penstock_rl.scenarios.arrivals import RequestClass
from penstock_rl.scenarios.errors import ScenarioError, TooLargeError
from penstock_rl.scenarios.model import Scenario
from penstock_rl.scenarios.servers import ServerGroup
from penstock_rl.scenarios.sizes import HIGHEST_RATE, check_size
from penstock_rl.scenarios.steps import Steps
from penstock_rl.scenarios.timeline import Timeline, timelines

FloatArray = NDArray[np.float64]


def expand(scenario: Scenario, seed: int) -> dict[str, Any]:
    """Return the environment of a scenario and a seed: one entry of `environments` of penstock_sim.Simulation.

    The same scenario and seed give the same environment. What is random in it (modulation, disturbances) comes from
    streams of its own: the simulator's are not touched. Raises ScenarioError where it would be too large to run, or
    where its trace cannot be read.
    """
    lines = timelines(scenario, seed)
    capacity = sum(steps.mean(line.capacity, scenario.duration) for line in lines)
    check_size(scenario, capacity)
    environment: dict[str, Any] = {
        "seed": seed,
        "warmup": scenario.warm_up,
        "split": np.array(scenario.balancers.shares),
        "servers": np.array([_server(group) for group in scenario.each_server]),
        "classes": _classes(scenario),
        "events": _events(scenario, lines),
    }
    if scenario.arrivals.trace:
        return environment | {"trace": _trace(scenario, capacity)}
    return environment | {"rates": _rates(scenario, capacity, seed)}


def capacities(scenario: Scenario) -> FloatArray:
    """Return for each server [N] the seconds of work that it does in a second, before anything happens to it."""
    return np.array([group.cpus * group.speed for group in scenario.each_server])


def _server(group: ServerGroup) -> list[float]:
    thrash, quota = group.thrash, group.quota
    values = {
        "cores": group.cores,
        "speed": group.speed,
        "limit": group.limit,
        "backlog": group.backlog,
        "thrash_from": thrash.above if thrash else 0,
        "thrash": thrash.slope if thrash else 0.0,
        "quota": quota.per_period if quota else 0.0,
        "quota_period": quota.period if quota else 0.0,
        "latency": group.latency,
        "weight": group.weight,
        "present": group.present,
    }
    return [float(values[name]) for name in SERVER_FIELDS]


def _classes(scenario: Scenario) -> FloatArray:
    total = sum(each.share for each in scenario.classes)
    return np.array([_class(each, each.share / total) for each in scenario.classes])


def _class(body: RequestClass, share: float) -> list[float]:
    values = {
        "share": share,
        "work_kind": WORK_KINDS[body.work.distribution.value],
        "work_mean": body.work.mean,
        "work_shape": body.work.shape,
        "work_max": body.work.longest,
        "io_mean": body.io,
        "requests": body.requests,
        "requests_random": body.geometric,
        "think_mean": body.think,
        "idle_share": body.idle_share,
        "idle_mean": body.idle,
        "request_bytes": body.request_bytes,
        "response_bytes": body.response_bytes,
    }
    return [float(values[name]) for name in CLASS_FIELDS]


def _rates(scenario: Scenario, capacity: float, seed: int) -> FloatArray:
    """Return [pieces, 2]: from when on how many connections arrive in a second."""
    arrivals = scenario.arrivals
    shape = patterns.pattern(arrivals, scenario.duration, seed)
    if arrivals.rate:
        found = patterns.scaled(shape, scenario.duration, mean=arrivals.rate / scenario.requests_per_connection)
    elif arrivals.load:
        mean = arrivals.load * capacity / scenario.work_per_connection
        found = patterns.scaled(shape, scenario.duration, mean=mean)
    else:
        peak = (arrivals.peak_load or 0.0) * capacity / scenario.work_per_connection
        found = patterns.scaled(shape, scenario.duration, peak=peak)
    highest = max(rate for _, rate in found)
    if not highest <= HIGHEST_RATE:
        raise TooLargeError(
            ("arrivals",), f"makes up to {highest:,.0f} connections a second, at most {HIGHEST_RATE:,} are run"
        )
    return np.array(found)


def _trace(scenario: Scenario, capacity: float) -> FloatArray:
    """Return [arrivals, 3]: second, work and class; times stretched where a load or rate is given."""
    arrivals = scenario.arrivals
    assert arrivals.trace  # noqa: S101 - by the caller
    rows = traces.read(Path(arrivals.trace.file), [each.name for each in scenario.classes]).copy()
    span = rows[-1, 0] * (1 + 1 / len(rows)) or 1.0  # the last arrival has its share of the time, too
    if arrivals.load:
        rows[:, 0] *= rows[:, 1].sum() / span / (arrivals.load * capacity)
    elif arrivals.rate:
        rows[:, 0] *= len(rows) / span / arrivals.rate
    kept: FloatArray = rows[rows[:, 0] < scenario.duration]
    if not len(kept):
        raise ScenarioError(
            f"{arrivals.trace.file}: nothing arrives in the {scenario.duration:g} s of the run; shift its times"
        )
    return kept


def _events(scenario: Scenario, lines: list[Timeline]) -> FloatArray:
    """Return [events, 4]: second, kind, server and value, sorted."""
    found: list[tuple[float, float, float, float]] = []
    for server, (group, line) in enumerate(zip(scenario.each_server, lines, strict=True)):
        at_first = {"speed": 1.0, "cores": group.cores, "state": float(group.present), "weight": group.weight}
        for name, before in at_first.items():
            kind = EVENT_KINDS[name]
            found += [(time, kind, server, value) for time, value in _changes(getattr(line, name), before)]
        for time, up in _changes(line.up, 1.0):
            found.append((time, EVENT_KINDS["start" if up else "stop"], server, 0.0))
    kept = sorted(event for event in found if event[0] < scenario.duration)
    return np.array(kept, dtype=np.float64).reshape(-1, 4)


def _changes(line: Steps, before: float) -> Steps:
    """Return what changes of what the server's column has."""
    return line if line[0][1] != before else line[1:]
