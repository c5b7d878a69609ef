"""Scenarios to train in: wider than any that results are reported for."""

from __future__ import annotations

import math
from typing import Any

from penstock_api import FeatureLevelName

from penstock_rl.scenarios.arrivals import (
    Arrivals,
    Diurnal,
    Mmpp,
    Modulated,
    Ramp,
    RequestClass,
    Work,
    WorkDistribution,
)
from penstock_rl.scenarios.disturbances import CapacityChange, Disturbance, Failure, NoisyNeighbor, RollingRestart
from penstock_rl.scenarios.draws import Draws
from penstock_rl.scenarios.model import Scenario, ScenarioForwarding
from penstock_rl.scenarios.servers import Balancers, Quota, ServerGroup, Thrash, grouped

DURATION, WARM_UP = 80.0, 20.0


def training(seed: int) -> Scenario:
    """Return the scenario of a seed: 2 to 16 servers behind 1 to 6 balancers, each part of it drawn at random."""
    draws = Draws("training", seed)
    servers = draws.choice(range(2, 17))
    balancers = draws.choice(range(1, 7))
    arrivals, highest = _arrivals(draws)
    return Scenario(
        name=f"training-{seed}",
        duration=DURATION,
        warm_up=WARM_UP,
        features=FeatureLevelName.BASIC if draws.happens(0.3) else FeatureLevelName.FULL,
        forwarding=ScenarioForwarding.GRE if draws.happens(0.2) else ScenarioForwarding.NAT,
        balancers=_balancers(balancers, draws),
        servers=_servers(servers, draws),
        arrivals=Arrivals(load=_round(draws.uniform(0.3, highest)), **arrivals),
        classes=_classes(draws),
        disturbances=_disturbances(servers, draws),
    )


def _balancers(count: int, draws: Draws) -> Balancers:
    uneven = draws.happens(0.3)
    return Balancers(count=count, split=tuple(_log_uniform(0.3, 1.0, draws) for _ in range(count)) if uneven else None)


def _servers(count: int, draws: Draws) -> tuple[ServerGroup, ...]:
    cores = draws.choice(((4,), (2, 4), (1, 2, 4, 8)))
    spread = draws.choice((0.0, 0.5, 1.0))
    common: dict[str, Any] = {"latency": _round(draws.uniform(0, 0.002)) if draws.happens(0.5) else 0.0}
    if draws.happens(0.2):
        common["thrash"] = Thrash(above=draws.choice(range(8, 33)), slope=_log_uniform(0.005, 0.05, draws))
    if draws.happens(0.2):
        common |= {"limit": draws.choice((16, 32, 64, 150)), "backlog": 511}
    period = draws.choice((0.01, 0.1)) if draws.happens(0.2) else None
    weights = draws.choice(("equal", "equal", "equal", "right", "wrong"))
    return grouped([_server(draws.choice(cores), spread, period, weights, common, draws) for _ in range(count)])


def _server(
    cores: int, spread: float, period: float | None, weights: str, common: dict[str, Any], draws: Draws
) -> ServerGroup:
    speed = _round(math.exp(draws.uniform(-spread, spread)))
    weight = {"equal": 1.0, "right": _round(cores * speed), "wrong": _log_uniform(0.5, 8, draws)}[weights]
    if period is None:
        return ServerGroup(cores=cores, speed=speed, weight=weight, **common)
    # A container on a machine of eight cores or more.
    return ServerGroup(cores=8, speed=speed, weight=weight, quota=Quota(cpus=cores, period=period), **common)


def _arrivals(draws: Draws) -> tuple[dict[str, Any], float]:
    """Return a pattern, and the highest mean load under it that servers bear."""
    kind = draws.choice(("steady", "steady", "steady", "modulated", "mmpp", "mmpp", "diurnal", "ramp"))
    if kind == "modulated":
        depth = draws.uniform(0.1, 0.5)
        factors = (_round(1 + depth), _round(1 - depth))
        return {"modulated": Modulated(factors=factors, every=_round(draws.uniform(2, 10)))}, 0.95 / (1 + depth)
    if kind == "mmpp":
        factors = (1.0, _round(draws.uniform(1.2, 2.5)))
        dwell = (_round(draws.uniform(4, 20)), _round(draws.uniform(1, 6)))
        return {"mmpp": Mmpp(factors=factors, dwell=dwell)}, 0.7
    if kind == "diurnal":
        return {"diurnal": Diurnal(begin=_round(draws.uniform(0, 24)))}, 0.65
    if kind == "ramp":
        return {"ramp": Ramp(first=_round(draws.uniform(0.2, 1)), last=1.0)}, 0.6
    return {}, 0.92


def _classes(draws: Draws) -> tuple[RequestClass, ...]:
    names = ("short", "long") if draws.happens(0.25) else ("default",)
    mean = _log_uniform(0.05, 0.2, draws)
    life = _life(draws)
    found = []
    for name in names:
        factor = {"default": 1.0, "short": 0.4, "long": 4.0}[name]
        share = {"default": 1.0, "short": 0.8, "long": 0.2}[name]
        work = _work(_round(mean * factor), draws)
        io = _round(work.mean * draws.uniform(0.2, 2)) if draws.happens(0.25) else 0.0
        found.append(RequestClass(name=name, share=share, work=work, io=io, **life))
    return tuple(found)


def _life(draws: Draws) -> dict[str, Any]:
    """Return what connections do beside one request."""
    found: dict[str, Any] = {}
    if draws.happens(0.3):
        found = {"requests": float(draws.choice(range(2, 31))), "geometric": draws.happens(0.5)}
        found["think"] = _log_uniform(0.1, 2, draws)
    if draws.happens(0.3):
        found |= {"idle_share": _round(draws.uniform(0.2, 0.9)), "idle": _round(draws.uniform(1, 6))}
    size = int(_log_uniform(200, 20_000, draws))
    return found | {"response_bytes": size}


def _work(mean: float, draws: Draws) -> Work:
    kind = draws.choice(tuple(WorkDistribution))
    if kind is WorkDistribution.LOGNORMAL:
        return Work(distribution=kind, mean=mean, sigma=_round(draws.uniform(0.3, 1.5)))
    if kind is WorkDistribution.PARETO:
        return Work(distribution=kind, mean=mean, alpha=_round(draws.uniform(1.2, 2.5)))
    return Work(distribution=kind, mean=mean)


def _disturbances(servers: int, draws: Draws) -> tuple[Disturbance, ...]:
    found = []
    if draws.happens(0.4):
        body = {"at": _round(draws.uniform(5, 30)), "every": [8, 25], "lasting": [5, 20], "factor": [0.1, 0.7]}
        found.append(Disturbance(noisy_neighbor=NoisyNeighbor.model_validate(body)))
    if draws.happens(0.1):
        failure = {"at": _round(draws.uniform(20, 60)), "lasting": [5, 15], "detection": _round(draws.uniform(0, 4))}
        found.append(Disturbance(failure=Failure.model_validate(failure)))
    if draws.happens(0.05):
        order = tuple(draws.shuffled(range(servers))[:3])
        found.append(Disturbance(rolling_restart=RollingRestart(at=25.0, drain=5.0, servers=order)))
    if draws.happens(0.15):
        change = CapacityChange(
            at=_round(draws.uniform(20, 60)), speed=_log_uniform(0.3, 2, draws), servers=(draws.choice(range(servers)),)
        )
        found.append(Disturbance(capacity_change=change))
    return tuple(found)


def _log_uniform(low: float, high: float, draws: Draws) -> float:
    return _round(math.exp(draws.uniform(math.log(low), math.log(high))))


def _round(value: float) -> float:
    """Return a number that a person could have written."""
    return float(f"{value:.4g}")
