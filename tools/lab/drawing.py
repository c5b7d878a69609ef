"""Connections and requests exactly as the simulator draws them for a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import penstock_sim
from numpy.typing import NDArray
from penstock_rl.simulation import Rule
from penstock_sim import SERVER_FIELDS

from tools.lab.requests import Connections

_FASTEST = {"cores": 4096.0, "speed": 1e6, "weight": 1.0, "present": 1.0}
"""A server that takes no time; its other columns are 0."""


def drawn(environment: Mapping[str, object], until: float) -> Connections:
    """Return what arrives until a time.

    The simulator draws connections before anything serves them, so they are the same whatever the servers are. Here
    one serves them that takes no time: all requests that any others can complete until then are among them.
    """
    server = [_FASTEST.get(name, 0.0) for name in SERVER_FIELDS]
    ideal = {**environment, "warmup": 0.0, "servers": np.array([server]), "events": np.empty((0, 4))}
    simulation = penstock_sim.Simulation(
        [ideal], level="off", scheduler="lsq", load="open", forwarding="nat", rule=int(Rule.ORACLE_SED), record=True
    )
    simulation.advance(until)
    return _by_connection(simulation.requests(0))


def _by_connection(records: Mapping[str, NDArray[Any]]) -> Connections:
    """Put the requests of a connection together; records are in order of completion."""
    order = np.argsort(records["connection"], kind="stable")
    rows = {name: np.asarray(values)[order] for name, values in records.items()}
    _, first = np.unique(rows["connection"], return_index=True)
    last = np.append(first[1:], len(order)) - 1
    pause = rows["pause"].astype(np.float64)
    idle = pause[last].copy()
    pause[last] = 0.0
    return Connections(
        arrival=rows["arrival"][first],
        balancer=rows["balancer"][first],
        kind=rows["class"][first],
        idle=idle,
        first=np.append(first, len(order)),
        work=rows["work"].astype(np.float64),
        io=rows["io"].astype(np.float64),
        pause=pause,
    )
