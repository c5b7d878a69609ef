"""Figures of the embedded data plane that have no counterpart in the kernel: bars are absolute."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import penstock_core

from tests.support import storms
from tests.support.dataplane import RunningDataplane, running_dataplane, vip
from tests.support.lab import eventually, lab
from tools.bench.figures import Figure

CLOSED = 50_000
CLOSED_PER_SECOND = 5000.0
REACHED = 0.98  # of that rate, which must be: with less, to have no stalls says little
WEIGHTS = 40  # vectors
FORGOTTEN_SECONDS = 10.0


def measure(pinned: list[str]) -> Iterator[Figure]:
    """Measure all; programs run behind this prefix."""
    yield from closed_by_servers(pinned)
    yield from weights_used()


def closed_by_servers(pinned: list[str]) -> Iterator[Figure]:
    """Open connections at a rate; their servers close them, so that ports rest and are taken again."""
    with lab("bench-ports", 2, start_servers=False) as built, running_dataplane(built, prefix=pinned) as dataplane:
        dataplane.apply(vip(built, backends=storms.serve(built, ports=1)))
        storms.connections(built, 500, 0)  # caches, neighbours
        found = storms.connections(built, CLOSED, CLOSED_PER_SECOND)
        dataplane.withdraw()
    rate, least = found.ended / found.seconds, REACHED * CLOSED_PER_SECOND
    yield Figure("embedded.closed_by_servers", rate, "connections/s", least, rate >= least)
    stalls = found.stalled + found.failed
    yield Figure("embedded.closed_by_servers.stalls", stalls, "longer than 200 ms", 0, stalls == 0)
    yield Figure("embedded.closed_by_servers.longest", found.longest_ms, "ms")


def weights_used() -> Iterator[Figure]:
    """Write weights as an agent does, and see from which frame on they are in force."""
    with lab("bench-weights", 2, start_servers=False) as built, running_dataplane(built) as dataplane:
        dataplane.apply(vip(built))
        frames, times = zip(*_writes(dataplane), strict=True)
        dataplane.withdraw()
    yield Figure("embedded.weights_used", max(frames), "frames, the longest", 1, max(frames) <= 1, list(frames))
    yield Figure("embedded.weights_used.time", max(times), "ms, the longest", runs=list(times))


def _writes(dataplane: RunningDataplane) -> Iterator[tuple[int, float]]:
    """Return for each vector of weights in how many frames, and milliseconds, it was in force."""
    shm, status = dataplane.settings.shm_dir, dataplane.dump().vips[0]
    reader = penstock_core.FrameReader(str(shm / status.frames.lstrip("/")))
    writer = penstock_core.ActionsWriter(str(shm / status.actions.lstrip("/")), status.slots)
    random = np.random.default_rng(1)
    eventually(lambda: _published(reader))
    for _ in range(WEIGHTS):
        time.sleep(random.uniform(0, 0.2))  # anywhere between two frames
        frame = reader.read()
        weights = random.uniform(1, 2, len(frame.generation)).astype(np.float32)
        began = time.monotonic()
        written = writer.write(weights, frame.generation, penstock_core.boottime_us())
        before = reader.read().sequence
        while (frame := reader.read()).actions_sequence != written:
            if time.monotonic() - began > FORGOTTEN_SECONDS:
                raise RuntimeError("weights were written and never used")
            time.sleep(0.0005)
        yield frame.sequence - before, round((time.monotonic() - began) * 1e3, 3)


def _published(reader: penstock_core.FrameReader) -> bool:
    try:
        return reader.read().sequence > 0
    except penstock_core.ShmError:
        return False
