"""Whether the operator's own loop makes progress, and what it counts.

Never whether the API server can be reached: an outage there must not restart anything here.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Iterator

from penstock_kube import EventRecorder, Reflector, WorkQueue
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_operator import kinds, serving
from penstock_operator.apply import Writer
from penstock_operator.feed import Feed
from penstock_operator.keys import WorkKey
from penstock_operator.object_metrics import object_metrics
from penstock_operator.plan.allocation import World
from penstock_operator.store import Store
from penstock_operator.sweep import Sweeper

BEAT = 1.0  # seconds
LATE = 30.0  # seconds without a beat: the loop hangs
STUCK = 300.0  # seconds in one handling: every request has a timeout far below


class Heart:
    """Beats in the loop; looked at from other threads."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self.stuck_seconds: Callable[[], float] = lambda: 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT)

    def answer(self) -> serving.Answer:
        """Return what /healthz says."""
        late, stuck = time.monotonic() - self._beat, self.stuck_seconds()
        if late > LATE:
            return serving.text(503, f"the event loop has made no progress for {late:.0f} s")
        if stuck > STUCK:
            return serving.text(503, f"one object has been worked on for {stuck:.0f} s")
        return serving.text(200, "ok")


class OperatorMetrics(Collector):
    """Counts of a running operator."""

    def __init__(self) -> None:
        self.leading = False
        self.queue: WorkQueue[WorkKey] | None = None
        self.writer: Writer | None = None
        self.events: EventRecorder | None = None
        self.store: Store | None = None
        self.reflectors: list[Reflector] = []
        self.sweeper: Sweeper | None = None
        self.world: Callable[[], World] | None = None

    def observe(
        self,
        feed: Feed,
        writer: Writer,
        events: EventRecorder,
        reflectors: list[Reflector],
        sweeper: Sweeper,
        world: Callable[[], World],
    ) -> None:
        """Count what these parts do from now on."""
        self.queue, self.store, self.world = feed.queue, feed.store, world
        self.writer, self.events, self.reflectors, self.sweeper = writer, events, reflectors, sweeper

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield _gauge("penstock_operator_leader", "Whether this replica leads.", float(self.leading))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        yield _gauge("penstock_operator_memory_peak_bytes", "Most resident memory so far.", float(peak))
        if self.queue is not None:
            yield _gauge("penstock_operator_queue_keys", "Objects waiting to be looked at.", float(len(self.queue)))
            yield _gauge(
                "penstock_operator_queue_wait_seconds", "Wait of the oldest of them.", self.queue.waiting_seconds()
            )
            yield _counter("penstock_operator_handled", "Objects looked at.", self.queue.handled)
            yield _counter("penstock_operator_failed", "Looks that failed and are tried again.", self.queue.failed)
        if self.writer is not None:
            yield _counter("penstock_operator_writes", "Writes to the API server.", self.writer.writes)
        if self.events is not None:
            yield _counter("penstock_operator_events", "Events written.", self.events.written)
            yield _counter("penstock_operator_events_dropped", "Events given up.", self.events.dropped)
        if self.sweeper is not None:
            yield _counter("penstock_operator_swept", "Deletions that no event told of.", self.sweeper.found)
        yield from self._objects()

    def _objects(self) -> Iterator[Metric]:
        if self.store is not None:
            family = GaugeMetricFamily("penstock_operator_objects", "Objects known.", labels=["kind"])
            for res in (kinds.VIPS, kinds.POLICIES, kinds.POOLS, kinds.DATA_PLANES, kinds.DATA_PLANE_NODES):
                family.add_metric([res.kind], self.store.count(res))
            yield family
            if self.world is not None:
                yield from object_metrics(self.store, self.world())
        family = GaugeMetricFamily(
            "penstock_operator_watch_age_seconds", "Time since a watch was last known to be current.", labels=["kind"]
        )
        for reflector in self.reflectors:
            family.add_metric([reflector.resource.kind], reflector.age_seconds())
        yield family


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value=value)


def _counter(name: str, help_: str, value: int) -> Metric:
    return CounterMetricFamily(name, help_, value=value)
