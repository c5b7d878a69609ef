"""Random scenarios: the space in which policies are compared, and the wider one in which models are trained.

A seed stands for one scenario, for ever. The ranges of seeds for training, choosing and reporting have none in common:
a figure that is reported comes from scenarios that nothing was trained on and nothing was chosen by.
"""

from __future__ import annotations

import math
from typing import Any

from penstock_rl.scenarios.arrivals import Arrivals, Modulated, RequestClass, Work, WorkDistribution
from penstock_rl.scenarios.disturbances import Disturbance, NoisyNeighbor
from penstock_rl.scenarios.draws import Draws
from penstock_rl.scenarios.model import Scenario
from penstock_rl.scenarios.servers import Balancers, ServerGroup, grouped

TRAINING = range(0, 1_000_000)
"""Seeds for training."""
CHOOSING = range(1_000_000, 1_100_000)
"""Seeds for choosing between models, parameters and checkpoints."""
REPORTING = range(2_000_000, 2_000_096)
"""Seeds of the scenarios whose results are published: each kind twelve times."""

KINDS = (
    "cores",
    "cores-again",
    "speeds",
    "noisy",
    "modulated",
    "cores-noisy",
    "cores-speeds",
    "idle",
)
"""Kinds of unseen scenarios, in turn: a seed's kind is its remainder of the division by their number."""

_CHOICES = {"speeds": (4,), "noisy": (4,), "modulated": (2, 4), "idle": (2, 4)}  # of cores, elsewhere 1 to 8
_HIGHEST_LOAD = {"noisy": 0.78, "modulated": 0.68, "idle": 0.8}  # elsewhere 0.9
_WORK = (WorkDistribution.EXPONENTIAL, WorkDistribution.LOGNORMAL, WorkDistribution.PARETO)


def unseen(seed: int, kind: int | None = None) -> Scenario:
    """Return the random scenario of a seed; `kind` is an index of KINDS, by default the one in turn.

    8, 12 or 24 servers (8 twice as often) behind 1, 2, 3, 4 or 6 balancers; load from 0.5; 80 s, of which 20 s are
    warm-up (50 s with 24 servers); work of mean 0.1 s, exponential, lognormal or Pareto.
    """
    index = seed % len(KINDS) if kind is None else kind
    name = KINDS[index]
    draws = Draws("unseen", index, seed)
    servers = draws.choice((8, 8, 12, 24))
    balancers = draws.choice((1, 2, 3, 4, 6))
    load = draws.uniform(0.5, _HIGHEST_LOAD.get(name, 0.9))
    work = Work(distribution=draws.choice(_WORK), mean=0.1)
    idle: dict[str, Any] = {"idle_share": 0.7, "idle": round(draws.uniform(1, 5), 3)} if name == "idle" else {}
    return Scenario(
        name=f"unseen-{name}-{seed}",
        duration=50.0 if servers == 24 else 80.0,
        warm_up=20.0,
        balancers=Balancers(count=balancers),
        servers=grouped([_server(name, draws) for _ in range(servers)]),
        arrivals=Arrivals(
            load=round(load, 4),
            modulated=Modulated(factors=(1.4, 0.6), every=4.0) if name == "modulated" else None,
        ),
        classes=(RequestClass(work=work, **idle),),
        disturbances=(noisy_neighbors(),) if name in ("noisy", "cores-noisy") else (),
    )


def noisy_neighbors() -> Disturbance:
    """Return what happens in noisy scenarios: now and then one server is slow for some seconds."""
    body = NoisyNeighbor.model_validate({"at": 10.0, "every": [8, 25], "lasting": [5, 20], "factor": [0.1, 0.6]})
    return Disturbance(noisy_neighbor=body)


def _server(kind: str, draws: Draws) -> ServerGroup:
    cores = draws.choice(_CHOICES.get(kind, (1, 2, 4, 8)))
    speed = math.exp(draws.uniform(-0.8, 0.8)) if kind in ("speeds", "cores-speeds") else 1.0
    return ServerGroup(cores=cores, speed=round(speed, 4))
