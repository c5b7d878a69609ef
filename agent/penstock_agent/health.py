"""Active health checks: TCP connect and HTTP GET, jittered, bounded, with thresholds.

What is checked is a `Target`: the same server behind several ports or families of a VIP, or behind several VIPs
with the same check, is asked once. A backend counts as healthy until its check says otherwise, or as what the
data plane had it before a restart of this process. A check that this machine could not make has no result: it
changes no backend's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from penstock_agent.findings import NodeFindings
from penstock_agent.probes import Check, Target, UnmadeCheckError, probe

log = structlog.get_logger(__name__)

JITTER = 0.1  # of the interval, both ways, so that many checks do not meet
ERROR_CHARACTERS = 200
UNMADE_SECONDS = 30.0  # without a check that could not be made, after which the finding about them ends
FINDING = "health checks"


@dataclass(slots=True)
class Health:
    """What is known of one target."""

    healthy: bool = True
    checked: bool = False  # at least one answer, or its lack, was seen
    streak: int = 0  # consecutive results against `healthy`
    error: str = ""  # of the last failed check
    changed_at: float = field(default_factory=time.monotonic)


def record(health: Health, check: Check, error: str) -> bool:
    """Count one result ("" is success) towards the thresholds; True when `healthy` turned over."""
    health.checked = True
    health.error = error[:ERROR_CHARACTERS]
    if health.healthy == (not error):
        health.streak = 0
        return False
    health.streak += 1
    threshold = check.healthy_threshold if not health.healthy else check.unhealthy_threshold
    if health.streak < threshold:
        return False
    health.healthy = not health.healthy
    health.streak = 0
    health.changed_at = time.monotonic()
    return True


class HealthChecker:
    """Checks a changing set of targets, at most `concurrency` at once."""

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        concurrency: int = 64,
        random_source: random.Random | None = None,
        findings: NodeFindings | None = None,
    ) -> None:
        self._on_change = on_change
        self._findings = findings or NodeFindings()
        self._unmade_at = 0.0
        self._random = random_source or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._slots = asyncio.Semaphore(concurrency)
        self._health: dict[Target, Health] = {}
        self._due: list[tuple[float, int, Target]] = []
        self._sequence = 0  # orders targets that are due at the same time
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self.checks = 0
        self.unmade = 0  # checks that this machine could not make
        self.lag = 0.0  # seconds by which the last check started late

    def set_targets(self, targets: Collection[Target], *, failed: Collection[Target] = ()) -> None:
        """Check exactly these; newcomers among `failed` start as failed and have to prove themselves."""
        wanted = set(targets)
        known = {(t.address, t.port): h for t, h in self._health.items()}
        for gone in self._health.keys() - wanted:
            del self._health[gone]
        for target in wanted - self._health.keys():
            # An edited check keeps what the old one found out about the same server.
            earlier = known.get((target.address, target.port))
            healthy = earlier.healthy if earlier else target not in failed
            self._health[target] = Health(healthy=healthy)
            self._schedule(target, self._random.uniform(0, min(target.check.interval, 1.0)))
        self._wake.set()

    def healthy(self, target: Target) -> bool:
        """Tell whether a target may get flows; one that is not checked may."""
        health = self._health.get(target)
        return health is None or health.healthy

    @property
    def states(self) -> Mapping[Target, Health]:
        """All that is known, for reports and metrics."""
        return self._health

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                await self._wait_for_due()
                _, _, target = heapq.heappop(self._due)
                if target not in self._health:
                    continue
                await self._slots.acquire()
                task = asyncio.create_task(self._check(target))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _wait_for_due(self) -> None:
        while True:
            self._wake.clear()
            delay = self._due[0][0] - time.monotonic() if self._due else None
            if delay is not None and delay <= 0:
                self.lag = -delay
                return
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _check(self, target: Target) -> None:
        try:
            error: str | None = await probe(target)
        except UnmadeCheckError as reason:
            self._count_unmade(str(reason))
            error = None
        except Exception:
            log.exception("health check failed in this program", address=str(target.address), port=target.port)
            self._count_unmade("health checks fail in this program; see the log, and report it")
            error = None
        finally:
            self._slots.release()
        if target not in self._health:
            return
        if error is not None:
            self._count(target, error)
        interval = target.check.interval
        self._schedule(target, interval * self._random.uniform(1 - JITTER, 1 + JITTER))

    def _count(self, target: Target, error: str) -> None:
        """Take the result of a check that was made."""
        self.checks += 1
        if time.monotonic() - self._unmade_at >= UNMADE_SECONDS:
            self._findings.report(FINDING, "")
        health = self._health[target]
        if record(health, target.check, error):
            log.info(
                "backend health changed",
                address=str(target.address),
                port=target.port,
                healthy=health.healthy,
                error=health.error,
            )
            self._on_change()

    def _count_unmade(self, reason: str) -> None:
        self.unmade += 1
        self._unmade_at = time.monotonic()
        self._findings.report(FINDING, f"{reason}; backends keep the state that they had")

    def _schedule(self, target: Target, delay: float) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (time.monotonic() + delay, self._sequence, target))
        self._wake.set()
