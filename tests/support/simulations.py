"""Small environments for tests of the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import penstock_sim


def server(**columns: float) -> list[float]:
    """Return a row of servers: one core of speed 1 unless said."""
    values = {"cores": 1.0, "speed": 1.0, "weight": 1.0, "present": 1.0} | columns
    return [values.get(name, 0.0) for name in penstock_sim.SERVER_FIELDS]


def request_class(**columns: float) -> list[float]:
    """Return a row of classes: all connections, one request of 0.1 s, exponential, unless said."""
    values = {
        "share": 1.0,
        "work_kind": float(penstock_sim.WORK_KINDS["exponential"]),
        "work_mean": 0.1,
        "requests": 1.0,
        "request_bytes": 100.0,
        "response_bytes": 1000.0,
    } | columns
    return [values.get(name, 0.0) for name in penstock_sim.CLASS_FIELDS]


def environment(**keys: Any) -> dict[str, Any]:
    """Return an environment: two servers, two balancers, ten connections a second unless said."""
    given = {
        "seed": 1,
        "warmup": 0.0,
        "split": [0.5, 0.5],
        "servers": [server(), server(cores=2.0)],
        "classes": [request_class()],
        "events": np.empty((0, len(penstock_sim.EVENT_FIELDS))),
    } | keys
    return given if "trace" in given else {"rates": [[0.0, 10.0]]} | given


def simulation(*environments: dict[str, Any], **options: Any) -> penstock_sim.Simulation:
    """Return a simulation of environments, with `lsq` on open flows at level full unless said."""
    chosen = {"level": "full", "scheduler": "lsq", "load": "open", "forwarding": "nat"} | options
    return penstock_sim.Simulation(environments or (environment(),), **chosen)
