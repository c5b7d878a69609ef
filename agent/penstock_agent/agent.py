"""The agent: brings source, health, announcement, data plane and loop together.

Level-based: whatever changed, `reconcile` computes the whole desired state afresh and hands each part its share.
A second run changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from penstock_api.dataplanenodereport import Finding
from penstock_embedded.messages import Backend, BackendState, Dump, VipStatus

from penstock_agent import desired, policies
from penstock_agent.announcer import Address, sort_addresses
from penstock_agent.dataplane.link import Link
from penstock_agent.desired import CoreVip, Findings, Plan
from penstock_agent.files import StateStore
from penstock_agent.findings import NodeFindings
from penstock_agent.health import HealthChecker
from penstock_agent.health_overlay import Standing, WithHealth, desired_state
from penstock_agent.loop import LoopVip, WeightLoop
from penstock_agent.observation import Slots
from penstock_agent.probes import Target
from penstock_agent.sources import Source
from penstock_agent.traffic_watch import Place, TrafficWatch

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 0.02  # changes often come together: one state for all of them
STEER_SECONDS = 10.0  # after which the state is computed again without any news
PLAN = "plan.json"  # the last good state
OUT_OF_USE = (BackendState.FAILED, BackendState.UNREADY)


class Announcer(Protocol):
    """Decides which addresses this node announces."""

    def announce(self, addresses: frozenset[Address], lost: frozenset[Address]) -> frozenset[Address]:
        """Choose among the addresses of all VIPs; `lost` ones were heard from another node."""
        ...


class AloneAnnouncer:
    """Announcer where there is no other node."""

    def announce(self, addresses: frozenset[Address], lost: frozenset[Address]) -> frozenset[Address]:
        """Announce everything."""
        return addresses


class Agent:
    """One node's desired state, its parts, and what they found."""

    def __init__(
        self,
        *,
        source: Source,
        link: Link,
        checker: HealthChecker,
        loop: WeightLoop,
        traffic: TrafficWatch,
        announcer: Announcer,
        store: StateStore,
        shm_dir: Path,
        findings: NodeFindings | None = None,
    ) -> None:
        self.findings = findings or NodeFindings()
        self.source = source
        self.link = link
        self.checker = checker
        self.loop = loop
        self.traffic = traffic
        self._announcer = announcer
        self._store = store
        self._shm_dir = shm_dir
        self._dirty = asyncio.Event()
        self._memo = desired.Memo()
        self._snapshot: desired.Snapshot | None = None
        self._override = ""
        self._lost: frozenset[Address] = frozenset()
        self.started_at = time.monotonic()
        self.plan: Plan | None = store.load(PLAN, Plan)
        self.outcome: WithHealth | None = None
        self.announced: frozenset[Address] = frozenset()
        self.listeners: list[Callable[[], None]] = []
        if self.plan is not None:
            source.follow(self.plan.services)

    @property
    def node_findings(self) -> tuple[str, ...]:
        """Findings about this node itself: the agent's own and those of the data plane."""
        return (*self.findings.texts, *(self.link.stats.findings if self.link.stats else ()))

    def changed(self) -> None:
        """Have the state computed again soon; the parts call this."""
        self._dirty.set()

    async def run(self) -> None:
        """Reconcile whenever something changed, and now and then."""
        while True:
            try:
                async with asyncio.timeout(STEER_SECONDS):
                    await self._dirty.wait()
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass
            self._dirty.clear()
            self._reconcile_or_report()

    def _reconcile_or_report(self) -> None:
        """Reconcile; whatever that raises, the data plane keeps what it has and the agent goes on."""
        subject = "desired state"
        try:
            self.reconcile()
        except Exception as error:
            log.exception("desired state not computed, the last one stays")
            text = f"desired state not computed, the last one stays: {type(error).__name__}: {error}; report this"
            self.findings.report(subject, text)
        else:
            self.findings.report(subject, "")

    def reconcile(self) -> None:
        """Compute what should be, and hand it out."""
        self._take_snapshot()
        if self.plan is None or self.link.dump is None:
            return  # without a dump we do not know what the data plane holds as failed
        self._check_health(self.plan, self.link.dump)
        self.announced = self._announce(self.plan)
        self.outcome = desired_state(
            self.plan,
            self._standing,
            self.outcome,
            sort_addresses(self.announced),
            now=time.monotonic(),
            traffic=self.traffic,
        )
        self.link.want(self.outcome.state)
        self.loop.configure(self._loop_vips(self.plan, self.outcome, self.link.dump))
        for listener in self.listeners:
            listener()

    async def withdraw(self) -> None:
        """Take everything off the node: it is leaving."""
        self.plan, self.outcome, self._snapshot = None, None, None
        await self._store.remove(PLAN)
        self.checker.set_targets({})
        self.loop.configure(())
        await self.link.withdraw()
        log.info("withdrawn from the node")

    def _take_snapshot(self) -> None:
        snapshot = self.source.snapshot
        override = self.link.stats.policy if self.link.stats else ""
        if snapshot is None or (snapshot is self._snapshot and override == self._override):
            return
        if override != self._override:
            known = not override or override in policies.POLICIES
            log.warning("data plane was told which policy to use", policy=override or "as configured", known=known)
        planned = desired.plan(replace(snapshot, override=override), self.plan, self._memo)
        self._snapshot, self._override = snapshot, override
        if planned != self.plan:
            _log_findings(self.plan, planned)
            self.plan = planned
            self.source.follow(planned.services)
            self._store.put(PLAN, planned)

    def _check_health(self, plan: Plan, dump: Dump) -> None:
        out = {vip.id: {b.id for b in vip.backends if b.state in OUT_OF_USE} for vip in dump.vips}
        owners: dict[Target, str] = {}
        places: dict[Target, list[Place]] = {}
        failed: set[Target] = set()
        for core in plan.vips:
            active = {b.id for b in core.vip.backends if b.state is BackendState.ACTIVE}
            for backend, target in core.targets.items():
                owners.setdefault(target, core.owner.uid)
                places.setdefault(target, []).append((core.vip.id, backend))
                if backend in active and backend in out.get(core.vip.id, ()):
                    failed.add(target)
        self.checker.set_targets(owners, failed=failed)
        failing = [place for target, found in places.items() if not self.checker.healthy(target) for place in found]
        self.traffic.set_places(places, frozenset(failing))

    def _standing(self, target: Target) -> Standing:
        health = self.checker.states.get(target)
        return Standing(health.healthy, health.late, health.changed_at) if health else Standing()

    def _announce(self, plan: Plan) -> frozenset[Address]:
        if not plan.l2:
            return frozenset()
        stats = self.link.stats
        lost = frozenset(stats.lost_announcements) if stats else frozenset()
        announced = self._announcer.announce(plan.addresses, lost)
        if lost - self._lost and announced & lost:
            # The data plane gave up an address that is ours by the Leases: have it announced again.
            log.warning("announced by another node, announcing again", addresses=[str(a) for a in announced & lost])
            self.link.reapply()
        self._lost = lost
        return announced

    def _loop_vips(self, plan: Plan, outcome: WithHealth, dump: Dump) -> Iterator[LoopVip]:
        held = {vip.id: vip for vip in dump.vips}
        for core, vip in zip(plan.vips, outcome.state.vips, strict=True):
            status = held.get(vip.id)
            if status is not None:
                wanted = {b.id: b for b in vip.backends}
                yield self._loop_vip(core, wanted, status, outcome.ramps.get(vip.id, {}), outcome.state.nodes)

    def _loop_vip(
        self, core: CoreVip, wanted: dict[str, Backend], status: VipStatus, ramps: Mapping[str, float], balancers: int
    ) -> LoopVip:
        in_force, base_in_force = np.zeros(status.slots), np.zeros(status.slots)
        placed = []
        for backend in status.backends:
            ours = wanted.get(backend.id)
            takes_flows = ours is not None and ours.state is BackendState.ACTIVE
            placed.append((backend.slot, backend.id, ours.weight if ours else 0.0, takes_flows))
            in_force[backend.slot] = backend.weight
            base_in_force[backend.slot] = backend.base
        return LoopVip(
            id=status.id,
            key=status.key,
            frames=self._shm_dir / status.frames.lstrip("/"),
            actions=self._shm_dir / status.actions.lstrip("/"),
            slots=Slots.of(status.slots, placed),
            in_force=in_force,
            base_in_force=base_in_force,
            choice=core.policy,
            balancers=balancers,
            ramps=ramps,
            slow_start=core.rules.slow_start,
        )


def _log_findings(before: Plan | None, after: Plan) -> None:
    """Log what is newly found of VIPs: without Kubernetes the log is where their users learn it."""
    known = {(found.owner.uid, each) for found in (before.findings if before else ()) for each in _each(found)}
    for found in after.findings:
        for each in _each(found):
            if (found.owner.uid, each) not in known:
                vip = f"{found.owner.namespace}/{found.owner.name}"
                log.warning("finding", vip=vip, reason=each.reason, field=each.field, message=each.message)


def _each(found: Findings) -> tuple[Finding, ...]:
    return (*found.faults, *found.notes)
