"""`penstock simulate`: what happens in one scenario under one policy."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.evaluate import laboratory
from penstock_cli.failure import fail, reported

if TYPE_CHECKING:
    from penstock_rl.evaluation.progress import Period, ServerResult

MOST_SERVERS = 12  # that have a column


def simulate(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="Scenario file, or the name of one that comes with Penstock.")
    ],
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="A policy that `penstock evaluate` knows, or a model (.npz).")
    ] = "little",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 1,
    every: Annotated[
        float | None, typer.Option(min=0.2, help="Seconds of a row; default: a twentieth of the scenario.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the servers live, on a terminal.")] = False,
    pace: Annotated[
        float, typer.Option(min=0.1, max=1000, help="With --watch: seconds of the scenario in each second.")
    ] = 20.0,
) -> None:
    """Print what happens in one scenario under one policy: period by period, then server by server.

    In the first table, a server's column is its share of the completed requests and, after the slash, its weight in
    relation to the mean. The second one leaves out the warm-up.
    """
    with laboratory():
        from penstock_rl.evaluation.cases import one
        from penstock_rl.evaluation.policies import PolicyNameError, named
        from penstock_rl.evaluation.progress import follow
        from penstock_rl.scenarios import ScenarioError
        from penstock_sim import SimulationError

        from penstock_cli.watching import watching

    with reported(PolicyNameError, ScenarioError, SimulationError):
        case, chosen = one(scenario), named(policy)
        every = every or case.scenario.duration / 20
        if every > case.scenario.duration:
            fail(f"--every: {every:g} is longer than the scenario, {case.scenario.duration:g} s; use a smaller number")
        if watch and not sys.stdout.isatty():
            fail("--watch: standard output is not a terminal; leave it out")
        with watching(case.scenario, chosen.title, pace) if watch else nullcontext() as screen:
            story = follow(case, chosen, seed, every, screen)
        for line in (*_lines(story.periods), "", *_server_lines(story.servers)):
            typer.echo(line)


def _lines(periods: Sequence[Period]) -> Iterator[str]:
    servers = min(len(periods[0].shares), MOST_SERVERS)
    heads = [f"server {index}" for index in range(servers)]
    yield f"{'until':>8}{'req/s':>9}{'mean ms':>9}{'p90 ms':>9}{'failed':>8}  " + "".join(f"{h:>12}" for h in heads)
    for period in periods:
        for event in period.events:
            yield f"  -- {event}"
        cells = [_cell(period.shares[index], period.weights[index]) for index in range(servers)]
        rate = period.completed / (period.end - period.start)
        times = f"{_milliseconds(period.mean):>9}{_milliseconds(period.p90):>9}"
        yield f"{period.end:>7.1f}s{rate:>9.1f}{times}{period.failed:>8}  " + "".join(f"{cell:>12}" for cell in cells)


def _server_lines(servers: Sequence[ServerResult]) -> Iterator[str]:
    yield f"{'server':>8}{'capacity':>10}{'share':>9}{'mean ms':>9}{'p90 ms':>9}{'failed':>8}{'used':>8}"
    for number, each in enumerate(servers):
        used = "-" if math.isnan(each.utilisation) else f"{each.utilisation:.1%}"
        times = f"{_milliseconds(each.mean):>9}{_milliseconds(each.p90):>9}"
        yield f"{number:>8}{each.capacity:>10.3g}{each.share:>9.1%}{times}{each.failed:>8}{used:>8}"


def _cell(share: float, weight: float) -> str:
    return f"{share:.1%} /{'-' if math.isnan(weight) else f'{weight:.2f}'}"


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.1f}"
