"""From rows of an environment to the servers of the laboratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from penstock_sim import SERVER_FIELDS

from tools.lab.errors import LabError
from tools.lab.setup import Server


def server_rows(environment: Mapping[str, object]) -> list[dict[str, float]]:
    """Return the servers' columns by name."""
    rows: NDArray[np.float64] = np.asarray(environment["servers"], dtype=np.float64)
    return [dict(zip(SERVER_FIELDS, map(float, row), strict=True)) for row in rows]


def spread(rows: Sequence[Mapping[str, float]], processors: Sequence[int]) -> tuple[Server, ...]:
    """Give each server as many processors as it has cores, so that quotas add up to about the same on each."""
    booked = dict.fromkeys(processors, 0.0)
    built: dict[int, Server] = {}
    for index in sorted(range(len(rows)), key=lambda index: -share(rows[index])):
        cores = rows[index]["cores"]
        if cores not in range(1, len(processors) + 1):
            raise LabError(f"servers[{index}].cores: is {cores:g}; must be a whole number from 1 to {len(processors)}")
        chosen = sorted(processors, key=lambda processor: booked[processor])[: int(cores)]
        for processor in chosen:
            booked[processor] += share(rows[index]) / cores
        built[index] = _server(rows[index], chosen)
    return tuple(built[index] for index in range(len(rows)))


def share(row: Mapping[str, float]) -> float:
    """Return the processors that a server uses at most, over time."""
    return min(row["cores"], row["quota"] / row["quota_period"]) if row["quota"] else row["cores"]


def _server(row: Mapping[str, float], processors: Sequence[int]) -> Server:
    return Server(
        processors=tuple(sorted(processors)),
        quota=row["quota"],
        period=row["quota_period"],
        limit=int(row["limit"]),
        backlog=int(row["backlog"]),
        weight=row["weight"],
    )
