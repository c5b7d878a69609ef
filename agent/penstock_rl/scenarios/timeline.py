"""What holds for each server when: its speed, cores, process, state and weight, of all disturbances together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

from penstock_rl.scenarios import steps
from penstock_rl.scenarios.disturbances import (
    MOST_TIMES,
    Add,
    CapacityChange,
    Failure,
    NoisyNeighbor,
    Remove,
    RollingRestart,
)
from penstock_rl.scenarios.draws import Draws
from penstock_rl.scenarios.fields import Span
from penstock_rl.scenarios.model import Scenario
from penstock_rl.scenarios.servers import ServerGroup
from penstock_rl.scenarios.steps import Interval, Steps

ABSENT, ACTIVE, DRAINING, FAILED = 0.0, 1.0, 2.0, 3.0  # lbrl_backend_state_t, and 0


class Changes:
    """What disturbances do to one server."""

    def __init__(self) -> None:
        self.slow: list[Interval] = []
        self.down: list[Interval] = []
        self.failed: list[Interval] = []
        self.draining: list[Interval] = []
        self.present: list[tuple[float, float]] = []
        self.cores: list[tuple[float, float]] = []
        self.speed: list[tuple[float, float]] = []
        self.weight: list[tuple[float, float]] = []


class Timeline(NamedTuple):
    """What holds for one server."""

    speed: Steps  # factor on that of its group
    cores: Steps
    up: Steps  # 1: its process runs
    state: Steps
    weight: Steps
    capacity: Steps  # seconds of work in a second, without what disturbs it for a while


def timelines(scenario: Scenario, seed: int) -> list[Timeline]:
    """Return the timeline of each server; what is random in it depends on the seed alone."""
    changes = defaultdict[int, Changes](Changes)
    servers = range(scenario.server_count)
    for index, disturbance in enumerate(scenario.disturbances):
        draws = Draws("disturbance", index, seed)
        _apply(disturbance.body, changes, servers, scenario.duration, draws)
    return [_timeline(group, changes[index]) for index, group in enumerate(scenario.each_server)]


def _timeline(group: ServerGroup, changes: Changes) -> Timeline:
    present = steps.latest(changes.present, float(group.present))
    cores = steps.latest(changes.cores, group.cores)
    speed = steps.latest(((time, value / group.speed) for time, value in changes.speed), 1.0)
    return Timeline(
        speed=steps.combine(lambda own, slow: own * slow, speed, steps.lowest(changes.slow, 1.0)),
        cores=cores,
        up=steps.lowest(changes.down, 1.0),
        state=steps.combine(_state, present, steps.lowest(changes.failed, 1.0), steps.lowest(changes.draining, 1.0)),
        weight=steps.latest(changes.weight, group.weight),
        capacity=steps.combine(
            lambda here, number, factor: here * group.usable(number) * group.speed * factor, present, cores, speed
        ),
    )


def _state(present: float, passes_checks: float, takes_new: float) -> float:
    if not present:
        return ABSENT
    if not passes_checks:
        return FAILED
    return ACTIVE if takes_new else DRAINING


# --- What each kind of disturbance does: `changes` is by server, `servers` are all there are ---


@singledispatch
def _apply(body: Any, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    raise TypeError(f"no disturbance: {type(body).__name__}")


@_apply.register
def _(body: NoisyNeighbor, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    for number, begin in enumerate(_beginnings(body, until, draws)):
        server = _in_turn(body.servers, servers, number, draws)
        end = begin + draws.within(body.lasting)
        changes[server].slow.append(Interval(begin, end, draws.within(body.factor)))


@_apply.register
def _(body: Failure, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    for number, begin in enumerate(_beginnings(body, until, draws)):
        server = _in_turn(body.servers, servers, number, draws)
        end = begin + draws.within(body.lasting) if body.lasting else math.inf
        changes[server].down.append(Interval(begin, end, 0.0))
        if begin + body.detection < end:
            changes[server].failed.append(Interval(begin + body.detection, end + body.detection, 0.0))


@_apply.register
def _(body: RollingRestart, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    begin = body.at
    for server in body.servers or servers:
        ends = begin + body.drain
        starts = ends + body.down
        ready = starts + body.detection
        changes[server].draining.append(Interval(begin, ready, 0.0))
        changes[server].down.append(Interval(ends, starts, 0.0))
        begin = ready + body.pause


@_apply.register
def _(body: Add, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    for number, server in enumerate(body.servers):
        changes[server].present.append((body.at + number * body.every, 1.0))


@_apply.register
def _(body: Remove, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    for number, server in enumerate(body.servers):
        begin = body.at + number * body.every
        changes[server].draining.append(Interval(begin, begin + body.drain, 0.0))
        changes[server].present.append((begin + body.drain, 0.0))


@_apply.register
def _(body: CapacityChange, changes: dict[int, Changes], servers: Sequence[int], until: float, draws: Draws) -> None:
    for server in body.servers:
        for name in ("cores", "speed", "weight"):
            value = getattr(body, name)
            if value is not None:
                getattr(changes[server], name).append((body.at, value))


def _beginnings(body: NoisyNeighbor | Failure, until: float, draws: Draws) -> Iterator[float]:
    most = body.times or (1 if body.every is None else MOST_TIMES)
    every = body.every or Span(until, until)
    begin = body.at
    for _ in range(most):
        if begin >= until:
            return
        yield begin
        begin += draws.within(every)


def _in_turn(named: Sequence[int] | None, servers: Sequence[int], number: int, draws: Draws) -> int:
    return named[number % len(named)] if named else draws.choice(servers)
