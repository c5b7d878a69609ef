"""Connections and requests that real clients replay, and what they measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.lab.network import mark

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]

FAILED, UNFINISHED = -1, -2  # in the place of a server


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections in order of arrival, and their requests: those of connection c are first[c] .. first[c + 1]."""

    arrival: FloatArray  # seconds
    balancer: IntArray
    kind: IntArray  # class
    idle: FloatArray  # seconds that it stays open after its last response; 0: it does not
    first: IntArray
    work: FloatArray  # seconds of processor time
    io: FloatArray  # seconds
    pause: FloatArray  # seconds from the response to the next request


def plan(connections: Connections, sizes: FloatArray) -> Iterator[str]:
    """Yield the lines of the client's plan; `sizes` are bytes of request and response by class."""
    for index in range(len(connections.arrival)):
        request, response = sizes[connections.kind[index]]
        begin, end = connections.first[index], connections.first[index + 1]
        head = f"{connections.arrival[index]:.9f} {mark(int(connections.balancer[index]))} {request:.0f} {response:.0f}"
        requests = (
            f"{connections.work[row]:.9f} {connections.io[row]:.9f} {connections.pause[row]:.9f}"
            for row in range(begin, end)
        )
        yield f"{head} {connections.idle[index]:.9f} {end - begin} {' '.join(requests)}"


@dataclass(frozen=True, slots=True)
class Records:
    """What the client measured of each request that it sent, in the order of the plan; seconds from time 0."""

    connection: IntArray
    request: IntArray
    intended: FloatArray
    sent: FloatArray
    done: FloatArray  # NaN: failed, or not done at the end
    seen: FloatArray
    server: IntArray  # or FAILED, UNFINISHED

    @property
    def duration(self) -> FloatArray:
        """Seconds from the SYN, or a later request of its connection, to the response's last byte."""
        return self.done - self.sent

    @property
    def lateness(self) -> FloatArray:
        """Seconds by which the client itself sent a request too late."""
        return self.sent - self.intended


def read_records(path: Path) -> Records:
    """Read the client's output."""
    rows = np.loadtxt(path, skiprows=1, ndmin=2).reshape(-1, 7)
    connection, request, intended, sent, done, seen, server = rows.T
    whole = np.int64
    return Records(connection.astype(whole), request.astype(whole), intended, sent, done, seen, server.astype(whole))
