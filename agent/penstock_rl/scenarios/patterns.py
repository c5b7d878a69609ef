"""How the rate of arrivals changes over a run, in relation to its mean."""

from __future__ import annotations

import math

from penstock_rl.scenarios import steps
from penstock_rl.scenarios.arrivals import Arrivals, Diurnal, Mmpp, Modulated, Ramp
from penstock_rl.scenarios.draws import Draws
from penstock_rl.scenarios.steps import Steps

PIECES = 200  # that stand for a rate which changes steadily

DAY = (
    0.92, 0.82, 0.72, 0.64, 0.59, 0.58, 0.61, 0.68, 0.78, 0.88, 0.96, 1.03,
    1.08, 1.13, 1.17, 1.20, 1.22, 1.25, 1.30, 1.37, 1.41, 1.37, 1.24, 1.07,
)  # fmt: skip
"""Rate at each hour of a day (UTC): its shape follows the traces of Wikipedia that were published with G. Urdaneta,
G. Pierre and M. van Steen, "Wikipedia workload analysis for decentralized hosting", Computer Networks 53 (2009): one
wide peak in the evening, one trough in the early morning, less than half as high. The values are ours."""


def pattern(arrivals: Arrivals, duration: float, seed: int) -> Steps:
    """Return the rate over time on any scale; of random patterns the run that the seed has."""
    if arrivals.modulated:
        return _modulated(arrivals.modulated, duration)
    if arrivals.mmpp:
        return _mmpp(arrivals.mmpp, duration, Draws("mmpp", seed))
    if arrivals.diurnal:
        return _diurnal(arrivals.diurnal, duration)
    return _ramp(arrivals.ramp, duration) if arrivals.ramp else [(0.0, 1.0)]


def scaled(shape: Steps, duration: float, *, mean: float | None = None, peak: float | None = None) -> Steps:
    """Return a pattern on the scale on which its mean, or its highest value, is this."""
    if peak is not None:
        factor = peak / max(value for _, value in shape)
    else:
        factor = (mean or 0.0) / steps.mean(shape, duration)
    return [(time, value * factor) for time, value in shape]


def _modulated(body: Modulated, duration: float) -> Steps:
    count = math.ceil(duration / body.every)
    return [(index * body.every, body.factors[index % len(body.factors)]) for index in range(count)]


def _mmpp(body: Mmpp, duration: float, draws: Draws) -> Steps:
    states = range(len(body.factors))
    weights = [dwell / sum(body.dwell) for dwell in body.dwell]
    state = draws.weighted(states, weights)  # as it is found at any time
    time, found = 0.0, []
    while time < duration:
        found.append((time, body.factors[state]))
        time += max(0.001, draws.exponential(body.dwell[state]))
        state = draws.choice([other for other in states if other != state])
    return found


def _diurnal(body: Diurnal, duration: float) -> Steps:
    day = body.day or duration
    pieces = max(PIECES, math.ceil(duration / day * 24 * 4))
    length = duration / pieces
    return [(index * length, _at_hour(body.begin + (index + 0.5) * length / day * 24)) for index in range(pieces)]


def _at_hour(hour: float) -> float:
    whole = math.floor(hour)
    before, after = DAY[whole % 24], DAY[(whole + 1) % 24]
    return before + (hour - whole) * (after - before)


def _ramp(body: Ramp, duration: float) -> Steps:
    end = duration if body.end is None else body.end
    length = (end - body.begin) / PIECES
    rise = (body.last - body.first) / PIECES
    inside = [(body.begin + index * length, body.first + (index + 0.5) * rise) for index in range(PIECES)]
    found = [(0.0, body.first)] if body.begin else []
    return [step for step in [*found, *inside, (end, body.last)] if step[0] < duration]
