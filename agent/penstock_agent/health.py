"""Active health checks: TCP connect and HTTP GET, jittered, bounded, with thresholds.

What is checked is a `Target`: the same server behind several ports or families of a VIP, or behind several VIPs
with the same check, is checked once. A backend counts as healthy until its checks fail, or as what the data plane
had it before a restart of this process. Two results change nothing: that of a check which this machine could not make,
and that of a late check of a server which sent payload to its clients meanwhile: it is slow, not gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from penstock_agent.check_slots import CheckSlots
from penstock_agent.findings import NodeFindings
from penstock_agent.probes import Check, Outcome, Result, Target, UnmadeCheckError, probe

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
    late: bool = False  # the last check that failed was late
    error: str = ""  # of the last failed check
    changed_at: float = field(default_factory=time.monotonic)


def record(health: Health, check: Check, result: Result) -> bool:
    """Count one result towards the thresholds; True when `healthy` turned over."""
    passed = result.outcome is Outcome.PASSED
    health.checked = True
    health.error = result.error[:ERROR_CHARACTERS]
    health.late = result.outcome is Outcome.LATE
    if health.healthy == passed:
        health.streak = 0
        return False
    health.streak += 1
    threshold = check.healthy_threshold if passed else check.unhealthy_threshold
    if health.streak < threshold:
        return False
    health.healthy = passed
    health.streak = 0
    health.changed_at = time.monotonic()
    return True


class HealthChecker:
    """Checks a changing set of targets; `slots` bounds how many at once.

    `answered_since(target, time)` returns whether the server sent payload to clients after that monotonic time.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        *,
        slots: CheckSlots | None = None,
        answered_since: Callable[[Target, float], bool] = lambda target, time: False,
        random_source: random.Random | None = None,
        findings: NodeFindings | None = None,
    ) -> None:
        self._on_change = on_change
        self._answered_since = answered_since
        self._findings = findings or NodeFindings()
        self._unmade_at = 0.0
        self._random = random_source or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._slots = slots or CheckSlots()
        self._health: dict[Target, Health] = {}
        self._owners: Mapping[Target, str] = {}
        self._due: list[tuple[float, int, Target, Health]] = []
        self._waiting: dict[str, deque[tuple[float, Target, Health]]] = {}  # by owner: due at, no slot was free
        self._sequence = 0  # orders targets that are due at the same time
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self.checks = 0
        self.unmade = 0  # checks that this machine could not make
        self.outweighed = 0  # late checks of servers that answered their clients
        self.lag = 0.0  # seconds by which the last check started late

    def set_targets(self, targets: Mapping[Target, str], *, failed: Collection[Target] = ()) -> None:
        """Check exactly these, each for its owner; new ones among `failed` start as failed."""
        known = {(t.address, t.port): h for t, h in self._health.items()}
        for gone in self._health.keys() - targets.keys():
            del self._health[gone]
        self._owners = targets
        self._slots.set_owners(len(set(targets.values())))
        for target in targets.keys() - self._health.keys():
            # An edited check keeps what the old one found out about the same server.
            earlier = known.get((target.address, target.port))
            healthy = earlier.healthy if earlier else target not in failed
            self._health[target] = Health(healthy=healthy)
            self._schedule(target, self._random.uniform(0, min(target.check.interval, 1.0)))
        self._wake.set()

    def healthy(self, target: Target) -> bool:
        """Return whether a target passes its checks; one that is not checked does."""
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
                self._queue_due()
                self._start_waiting()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _wait_for_due(self) -> None:
        """Wait until a target is due, or something else changed."""
        delay = self._due[0][0] - time.monotonic() if self._due else None
        if delay is None or delay > 0:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
        self._wake.clear()

    def _queue_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, target, health = heapq.heappop(self._due)
            if self._health.get(target) is health:  # else the target was removed, and maybe added again
                self._waiting.setdefault(self._owners[target], deque()).append((due, target, health))

    def _start_waiting(self) -> None:
        """Start one check of each owner in turn, for as long as slots are free."""
        progress = True
        while progress:
            progress = False
            for owner in [owner for owner in self._waiting if self._slots.may_start(owner)]:
                due, target, health = self._waiting[owner].popleft()
                if not self._waiting[owner]:
                    del self._waiting[owner]
                progress = True
                if self._health.get(target) is health:
                    self._start(target, health, owner, due)

    def _start(self, target: Target, health: Health, owner: str, due: float) -> None:
        self.lag = max(time.monotonic() - due, 0.0)
        self._slots.start(owner)
        task = asyncio.create_task(self._check(target, health))
        self._running.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._slots.end(owner)
            self._wake.set()

        task.add_done_callback(ended)

    async def _check(self, target: Target, health: Health) -> None:
        began = time.monotonic()
        result: Result | None = None
        try:
            result = await probe(target)
        except UnmadeCheckError as reason:
            self._count_unmade(str(reason))
        except Exception:
            log.exception("health check failed in this program", address=str(target.address), port=target.port)
            self._count_unmade("health checks fail in this program; see the log, and report it")
        if self._health.get(target) is not health:
            return
        if result is not None:
            self._count(target, health, result, began)
        interval = target.check.interval
        self._schedule(target, interval * self._random.uniform(1 - JITTER, 1 + JITTER))

    def _count(self, target: Target, health: Health, result: Result, began: float) -> None:
        """Take the result of a check that was made."""
        self.checks += 1
        if time.monotonic() - self._unmade_at >= UNMADE_SECONDS:
            self._findings.report(FINDING, "")
        if result.outcome is Outcome.LATE and health.healthy and self._answered_since(target, began):
            self.outweighed += 1
            health.checked, health.error, health.streak = True, f"{result.error}, but it answers clients", 0
            return
        if record(health, target.check, result):
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
        heapq.heappush(self._due, (time.monotonic() + delay, self._sequence, target, self._health[target]))
        self._wake.set()
