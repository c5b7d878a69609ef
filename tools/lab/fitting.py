"""Makes a scenario small enough for this machine: the same load on servers that are weaker by one factor.

A server of the laboratory is a process with a quota of processor time. What it can do in a second is that of the
scenario's server divided by the factor, and all times are multiplied by it, except those of work: then the load and the
number of requests stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from penstock_rl.scenarios import Scenario
from penstock_rl.scenarios.arrivals import Arrivals, RequestClass
from penstock_rl.scenarios.model import ScenarioForwarding
from penstock_rl.scenarios.servers import Quota, ServerGroup

from tools.lab.errors import LabError
from tools.lab.groups import SHORTEST

ROOM = 0.6
"""Part of the machine's processors that the servers' quotas may add up to. The rest is for the network's packets, data
planes and the client, and for servers that need a processor at the same time."""
MOST_BYTES = 12_000  # of a request, that the server reads
LEAST = 0.01  # processors of a server, as scenario files have it
PERIOD = 0.1  # seconds: the kernel's default


class Fitted(NamedTuple):
    """A scenario that fits, and the factor by which its times are longer."""

    scenario: Scenario
    factor: float


def fit(scenario: Scenario, processors: int) -> Fitted:
    """Return the scenario for a machine with so many processors; LabError names what the laboratory does not have."""
    for field, problem in _missing(scenario):
        raise LabError(f"scenario {scenario.name}: {field}: {problem}")
    factor = max(1.0, sum(map(_capacity, scenario.each_server)) / (ROOM * processors))
    _check_strength(scenario, factor)
    if factor == 1.0 and all(_runs_as_it_is(group, processors) for group in scenario.servers):
        return Fitted(scenario, 1.0)
    changes = {
        "duration": scenario.duration * factor,
        "warm_up": scenario.warm_up * factor,
        "servers": tuple(_server(group, factor, processors) for group in scenario.servers),
        "arrivals": _arrivals(scenario.arrivals, factor),
        "classes": tuple(_class(each, factor) for each in scenario.classes),
    }
    return Fitted(scenario.model_copy(update=changes), factor)


def _missing(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield fields that the laboratory has nothing for."""
    if scenario.disturbances:
        yield "disturbances", "the laboratory has none; remove them"
    if scenario.forwarding is not ScenarioForwarding.NAT:
        yield "forwarding", "the laboratory has NAT alone; remove it"
    if scenario.arrivals.trace or scenario.arrivals.mmpp or scenario.arrivals.diurnal or scenario.arrivals.ramp:
        yield "arrivals", "the laboratory has constant and modulated rates; use load or rate"
    for index, group in enumerate(scenario.servers):
        if group.thrash or group.latency or not group.present:
            yield f"servers[{index}]", "the laboratory has no thrash, no latency and no absent servers; remove them"
    for index, each in enumerate(scenario.classes):
        if each.request_bytes > MOST_BYTES:
            yield f"classes[{index}].requestBytes", f"is {each.request_bytes}; at most {MOST_BYTES} are read"


def _check_strength(scenario: Scenario, factor: float) -> None:
    for index, group in enumerate(scenario.each_server):
        cpus = _capacity(group) / factor
        if cpus * _period(group) < SHORTEST or cpus < LEAST:
            raise LabError(
                f"scenario {scenario.name}: server {index}: would have {cpus:.4f} processors here, too little for a "
                "quota; use fewer servers, more equal ones, or a longer period"
            )


def _runs_as_it_is(group: ServerGroup, processors: int) -> bool:
    return group.quota is not None and group.speed == 1.0 and group.cores in range(1, processors + 1)


def _capacity(group: ServerGroup) -> float:
    return group.cpus * group.speed


def _period(group: ServerGroup) -> float:
    return group.quota.period if group.quota else PERIOD


def _server(group: ServerGroup, factor: float, processors: int) -> ServerGroup:
    """Return a server that does as much in a second: with a quota, on as many processors as it needs."""
    cpus = _capacity(group) / factor
    cores = float(min(processors, max(1, math.ceil(cpus))))
    return group.model_copy(update={"cores": cores, "speed": 1.0, "quota": Quota(cpus=cpus, period=_period(group))})


def _arrivals(arrivals: Arrivals, factor: float) -> Arrivals:
    """Return arrivals further apart; a load stays what it is."""
    rate = arrivals.rate / factor if arrivals.rate else None
    modulated = arrivals.modulated
    if modulated:
        modulated = modulated.model_copy(update={"every": modulated.every * factor})
    return arrivals.model_copy(update={"rate": rate, "modulated": modulated})


def _class(each: RequestClass, factor: float) -> RequestClass:
    names = ("io", "think", "idle")
    return each.model_copy(update={name: getattr(each, name) * factor for name in names})
