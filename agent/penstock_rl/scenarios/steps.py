"""Piecewise constant functions of time: what holds when, of overlapping intervals and of changes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

Steps = list[tuple[float, float]]
"""(second from which it holds, value), sorted, the first at 0, neighbors different."""


class Interval(NamedTuple):
    """A value from `begin` until before `end`."""

    begin: float
    end: float
    value: float


def lowest(intervals: Iterable[Interval], otherwise: float) -> Steps:
    """Return the smallest value of the intervals that hold, or `otherwise`."""
    waiting = sorted(intervals)
    times = sorted({0.0, *(each.begin for each in waiting), *(each.end for each in waiting)})
    holding: list[tuple[float, float]] = []  # value, end
    found: Steps = []
    position = 0
    for time in times:
        while position < len(waiting) and waiting[position].begin <= time:
            heapq.heappush(holding, (waiting[position].value, waiting[position].end))
            position += 1
        while holding and holding[0][1] <= time:
            heapq.heappop(holding)
        found.append((time, holding[0][0] if holding else otherwise))
    return _changes(found)


def latest(changes: Iterable[tuple[float, float]], before: float) -> Steps:
    """Return the value of the latest change; of those at the same time, the last one listed counts."""
    values = {0.0: before}
    for time, value in sorted(changes, key=lambda change: change[0]):
        values[time] = value
    return _changes(list(values.items()))


def combine(function: Callable[..., float], *inputs: Steps) -> Steps:
    """Return the function of the inputs' values."""
    positions = [0] * len(inputs)
    found: Steps = []
    for time in sorted({time for steps in inputs for time, _ in steps}):
        for index, steps in enumerate(inputs):
            if positions[index] + 1 < len(steps) and steps[positions[index] + 1][0] <= time:
                positions[index] += 1
        values = (steps[position][1] for steps, position in zip(inputs, positions, strict=True))
        found.append((time, function(*values)))
    return _changes(found)


def mean(steps: Steps, until: float) -> float:
    """Return the mean over time, from 0."""
    ends = [*(time for time, _ in steps[1:]), until]
    parts = ((value, min(end, until) - begin) for (begin, value), end in zip(steps, ends, strict=True))
    return sum(value * max(0.0, length) for value, length in parts) / until


def _changes(steps: Steps) -> Steps:
    return [step for index, step in enumerate(steps) if index == 0 or step[1] != steps[index - 1][1]]
