"""Bounds on what a scenario costs to run, whatever its file says."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_rl.scenarios.disturbances import MOST_TIMES
from penstock_rl.scenarios.errors import TooLargeError
from penstock_rl.scenarios.model import Scenario

MOST_REQUESTS = 30_000_000
HIGHEST_RATE = 1_000_000  # connections per second
MOST_MEASUREMENTS = 500_000_000  # servers x balancers x decisions
MOST_PERIODS = 50_000_000  # of quotas
MOST_PIECES = 100_000
_PIECES = "changes of the rate"


def check_size(scenario: Scenario, capacity: float) -> None:
    """Raise TooLargeError for the first bound that is passed; `capacity` is that of all servers in seconds a second."""
    for path, amount, most, what in _amounts(scenario, capacity):
        if amount > most:
            raise TooLargeError(path, f"makes {amount:,.0f} {what}, at most {most:,} are run")


def _amounts(scenario: Scenario, capacity: float) -> Iterator[tuple[tuple[str | int, ...], float, int, str]]:
    duration, arrivals = scenario.duration, scenario.arrivals
    decisions = duration / scenario.interval
    measured = scenario.server_count * scenario.balancers.count
    yield ("interval",), decisions * measured, MOST_MEASUREMENTS, "measurements: servers x balancers x decisions"
    for index, group in enumerate(scenario.servers):
        if group.quota:
            periods = group.count * duration / group.quota.period
            yield ("servers", index, "quota", "period"), periods, MOST_PERIODS, "periods of quotas"
    yield from _pieces(scenario)
    for index, disturbance in enumerate(scenario.disturbances):
        every = getattr(disturbance.body, "every", None)
        if isinstance(every, tuple) and disturbance.body.times is None:
            kind = next(iter(disturbance.to_dict()))
            yield ("disturbances", index, kind, "every"), duration / every[0], MOST_TIMES, "repetitions"
    for name, value in (("load", arrivals.load), ("peakLoad", arrivals.peak_load)):
        if value and not arrivals.trace:
            requests = value * capacity / scenario.work_per_connection * scenario.requests_per_connection
            yield ("arrivals", name), requests * duration, MOST_REQUESTS, "requests"
    if arrivals.rate and not arrivals.trace:
        yield ("arrivals", "rate"), arrivals.rate * duration, MOST_REQUESTS, "requests"


def _pieces(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], float, int, str]]:
    duration, arrivals = scenario.duration, scenario.arrivals
    if arrivals.modulated:
        yield (
            ("arrivals", "modulated", "every"),
            duration / arrivals.modulated.every,
            MOST_PIECES,
            "changes of the rate",
        )
    if arrivals.mmpp:
        yield ("arrivals", "mmpp", "dwell"), duration / min(arrivals.mmpp.dwell), MOST_PIECES, _PIECES
    if arrivals.diurnal and arrivals.diurnal.day:
        pieces = duration / arrivals.diurnal.day * 96
        yield ("arrivals", "diurnal", "day"), pieces, MOST_PIECES, _PIECES
