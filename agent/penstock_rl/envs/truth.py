"""What only a simulator knows of its servers, for critics in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import penstock_sim
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NAMES = ("cores", "speed", "active", "capacity_share")
"""cores (limited by a quota); speed now; requests at the server from all balancers; its share of the capacity."""

_COLUMN = {name: index for index, name in enumerate(penstock_sim.SERVER_FIELDS)}
_KIND = {name: index for index, name in enumerate(penstock_sim.EVENT_KINDS)}


class Servers:
    """The servers of a batch in the course of their environments' events."""

    def __init__(self, environments: Sequence[Mapping[str, Any]]) -> None:
        self._events = [np.asarray(each["events"], dtype=float).reshape(-1, 4) for each in environments]
        self._next = [0] * len(environments)
        most = max(len(each["servers"]) for each in environments)
        self.cores = np.zeros((len(environments), most))
        self._nominal = np.zeros_like(self.cores)
        self._quota = np.full_like(self.cores, np.inf)
        self._runs = np.zeros_like(self.cores)
        for index, each in enumerate(environments):
            columns = np.asarray(each["servers"], dtype=float).T
            count = columns.shape[1]
            self.cores[index, :count] = columns[_COLUMN["cores"]]
            self._nominal[index, :count] = columns[_COLUMN["speed"]]
            quota, period = columns[_COLUMN["quota"]], columns[_COLUMN["quota_period"]]
            self._quota[index, :count] = np.where(quota > 0, quota / np.where(quota > 0, period, 1.0), np.inf)
            self._runs[index, :count] = 1.0
        self._factor = np.ones_like(self.cores)

    def advance(self, time: float) -> None:
        """Apply what happened up to a time."""
        for index, events in enumerate(self._events):
            while self._next[index] < len(events) and events[self._next[index], 0] <= time:
                _, kind, server, value = events[self._next[index]]
                self._apply(index, int(kind), int(server), float(value))
                self._next[index] += 1

    def _apply(self, index: int, kind: int, server: int, value: float) -> None:
        if kind == _KIND["speed"]:
            self._factor[index, server] = value
        elif kind == _KIND["cores"]:
            self.cores[index, server] = value
        elif kind in (_KIND["stop"], _KIND["start"]):
            self._runs[index, server] = float(kind == _KIND["start"])

    @property
    def usable_cores(self) -> FloatArray:
        """Cores that a server may use on average [E, N]."""
        return np.minimum(self.cores, self._quota)

    @property
    def speed(self) -> FloatArray:
        """Work seconds per second and core [E, N]; 0 for one that is stopped."""
        return self._nominal * self._factor * self._runs

    @property
    def capacity(self) -> FloatArray:
        """Work seconds per second [E, N]."""
        return self.usable_cores * self.speed


def by_slot(values: FloatArray, server: NDArray[np.integer[Any]]) -> FloatArray:
    """Return values of servers [E, N] at their slots [E, L, S]; 0 in free ones."""
    rows = np.arange(len(values))[:, None, None]
    return np.where(server >= 0, values[rows, np.maximum(server, 0)], 0.0)


def by_server(values: FloatArray, server: NDArray[np.integer[Any]], servers: int) -> FloatArray:
    """Return the sum over balancers of values at slots [E, L, S], by server [E, N]."""
    total = np.zeros((len(values), servers))
    rows = np.broadcast_to(np.arange(len(values))[:, None, None], values.shape)
    taken = server >= 0
    np.add.at(total, (rows[taken], server[taken]), values[taken])
    return total


def at_slots(servers: Servers, count: FloatArray, server: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Return the named values at each slot [E, L, S, names]; `count` are each balancer's requests [E, L, S]."""
    active = by_server(count, server, servers.cores.shape[1])
    capacity = servers.capacity
    total = np.maximum(capacity.sum(axis=-1, keepdims=True), 1e-9)
    columns = (servers.usable_cores, servers.speed, active, capacity / total)
    return np.stack([by_slot(each, server) for each in columns], axis=-1).astype(np.float32)
