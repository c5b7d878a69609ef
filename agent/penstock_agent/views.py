"""Builds the state that an agent shows of itself, VIP by VIP, so that the loop gets its turns in between."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from penstock_embedded.messages import Backend, BackendState, Stats, Vip

from penstock_agent import samples
from penstock_agent.agent import Agent
from penstock_agent.desired import CoreVip, Findings
from penstock_agent.loop import Steering
from penstock_agent.observation import FloatArray
from penstock_agent.state import AgentState, BackendView, DataPlaneView, Durations, VipView

CHANNELS = ("fct", "flow_duration", "lat_synack", "pt_1st")
QUANTILES = (0.5, 0.9)
VERSION = version("penstock")


async def build(
    agent: Agent, *, node: str, dataplane: str, backends: bool = True, within: float = math.inf
) -> AgentState:
    """Gather everything, which takes some milliseconds per VIP; or all but what there is of each backend.

    Durations are of samples that are at most `within` seconds old.
    """
    vips = []
    if agent.plan is not None and agent.outcome is not None:
        findings = {found.owner.uid: found for found in agent.plan.findings}
        for core, vip in list(zip(agent.plan.vips, agent.outcome.state.vips, strict=True)):
            vips.append(_Viewer(agent, core, vip, within).view(findings.get(core.owner.uid), backends=backends))
            await asyncio.sleep(0)
    checker, loop, link = agent.checker, agent.loop, agent.link
    return AgentState(
        version=VERSION,
        node=node,
        dataplane=dataplane,
        time=time.time(),
        uptime=time.monotonic() - agent.started_at,
        settled=link.settled,
        link=_link(agent),
        source_error=agent.source.error,
        findings=agent.node_findings,
        source_ages=agent.source.ages(),
        announced=tuple(sorted(agent.announced, key=str)),
        turns=loop.turns,
        turn_seconds=loop.turn_seconds,
        late_seconds=loop.late_seconds,
        health_checks=checker.checks,
        health_unmade=checker.unmade,
        health_lag=checker.lag,
        applies=link.applies,
        apply_failures=link.failures,
        vips=tuple(vips),
    )


def _link(agent: Agent) -> DataPlaneView:
    hello, stats = agent.link.hello, agent.link.stats
    counts: dict[str, Any] = (
        stats.model_dump(include=set(DataPlaneView.model_fields) & set(Stats.model_fields))
        if stats
        else {"flows": 0, "flow_capacity": 0, "half_open": 0, "packets": 0, "forwarded": 0, "dropped": {}}
    )
    return DataPlaneView(
        **{
            **counts,
            "connected": hello is not None,
            "instance_id": hello.instance_id if hello else "",
            "version": hello.version if hello else "",
            "reattached_flows": hello.reattached_flows if hello else 0,
            "error": agent.link.error,
        }
    )


@dataclass(frozen=True, slots=True)
class _Viewer:
    agent: Agent
    core: CoreVip
    vip: Vip
    within: float

    def view(self, found: Findings | None, *, backends: bool) -> VipView:
        core, vip, choice = self.core, self.vip, self.core.policy
        outcome, steering = self.agent.outcome, self.agent.loop.vips.get(vip.id)
        return VipView(
            id=vip.id,
            key=vip.key,
            namespace=core.owner.namespace,
            name=core.owner.name,
            addresses=vip.addresses,
            port=vip.port,
            protocol=vip.protocol,
            scheduler=vip.scheduler.type,
            policy=choice.heuristic,
            mode=choice.mode,
            fallback=choice.fallback,
            fallback_reason=(steering.reason or "") if steering else "",
            fail_open=outcome is not None and vip.id in outcome.fail_open,
            panic=outcome is not None and vip.id in outcome.panic,
            no_path=outcome is not None and vip.id in outcome.no_path,
            paused=found is not None and found.paused,
            errors=found.errors if found else (),
            warnings=found.warnings if found else (),
            frame_age=steering.frame_age if steering and np.isfinite(steering.frame_age) else None,
            steps=dict(steering.steps) if steering else {},
            held=dict(steering.held) if steering else {},
            write_errors=steering.write_errors if steering else 0,
            backends=tuple(self._backends(steering)) if backends else (),
        )

    def _backends(self, steering: Steering | None) -> list[BackendView]:
        measured = _Measured.of(steering, self.within)
        wanted = {backend.id: backend for backend in self.vip.backends}
        views = [self._backend(backend, measured) for backend in wanted.values()]
        # Backends that left but still have flows are not wanted any more, yet there.
        dump = self.agent.link.dump
        for status in next((v.backends for v in dump.vips if v.id == self.vip.id), ()) if dump else ():
            if status.id not in wanted:
                leaving = Backend(id=status.id, address=status.address, port=status.port, state=BackendState.DRAINING)
                views.append(self._backend(leaving, measured))
        return views

    def _backend(self, backend: Backend, measured: _Measured) -> BackendView:
        target = self.core.targets.get(backend.id)
        health = self.agent.checker.states.get(target) if target else None
        slot = measured.slots.get(backend.id)
        return BackendView(
            id=backend.id,
            address=backend.address,
            port=backend.port,
            slot=slot,
            state=backend.state,
            healthy=health.healthy if health else True,
            health_error=health.error if health else "",
            weight=_at(measured.weights, slot),
            wanted=_at(measured.wanted, slot),
            base=_at(measured.base, slot) or None,
            wanted_base=_at(measured.wanted_base, slot) or None,
            open_flows=max(measured.counter("n_flow_on", slot), 0),
            flows=measured.counter("n_flow", slot),
            packets=measured.counter("packets", slot),
            bytes=measured.counter("bytes", slot),
            flow_rate=_at(measured.rates, slot) or 0.0,
            fct=measured.durations("fct", slot),
            flow_duration=measured.durations("flow_duration", slot),
            active_flows=max(measured.counter("n_active", slot), 0) if "n_active" in measured.counters else None,
            handshake=measured.durations("lat_synack", slot),
            first_byte=measured.durations("pt_1st", slot),
        )


def _at(values: FloatArray | None, slot: int | None) -> float | None:
    return float(values[slot]) if values is not None and slot is not None and slot < len(values) else None


@dataclass(frozen=True, slots=True)
class _Measured:
    """Arrays of one VIP by slot; empty where nothing could be read."""

    slots: dict[str, int]
    counters: dict[str, Any]
    weights: FloatArray | None
    wanted: FloatArray | None
    base: FloatArray | None
    wanted_base: FloatArray | None
    rates: FloatArray | None
    summaries: dict[str, tuple[Any, FloatArray, FloatArray]]

    @classmethod
    def of(cls, steering: Steering | None, within: float) -> _Measured:
        if steering is None:
            return cls({}, {}, None, None, None, None, None, {})
        slots = {backend: slot for slot, backend in enumerate(steering.vip.slots.backends) if backend}
        frame = steering.frame
        return cls(
            slots,
            dict(frame.counters) if frame else {},
            steering.weights,
            steering.wanted,
            steering.base,
            steering.wanted_base,
            _rates(steering),
            _summaries(steering, within),
        )

    def counter(self, name: str, slot: int | None) -> int:
        values = self.counters.get(name)
        return int(values[slot]) if values is not None and slot is not None and slot < len(values) else 0

    def durations(self, channel: str, slot: int | None) -> Durations | None:
        if channel not in self.summaries or slot is None:
            return None
        count, mean, quantiles = self.summaries[channel]
        if slot >= len(count) or not count[slot]:
            return None
        return Durations(
            samples=int(count[slot]),
            mean=float(mean[slot]),
            p50=float(quantiles[slot, 0]),
            p90=float(quantiles[slot, 1]),
        )


def _rates(steering: Steering) -> FloatArray | None:
    if len(steering.history) < 2:
        return None
    first, last = steering.history[0], steering.history[-1]
    if first.generation.shape != last.generation.shape or last.time_us <= first.time_us:
        return None
    gained = last.counters["n_flow"] - first.counters["n_flow"]
    same = (first.generation == last.generation) & (gained >= 0)
    rates: FloatArray = np.where(same, gained, 0) / ((last.time_us - first.time_us) / 1e6)
    return rates


def _summaries(steering: Steering, within: float) -> dict[str, tuple[Any, FloatArray, FloatArray]]:
    found = {}
    for channel in CHANNELS:
        if steering.reader is None:
            break
        try:
            values, ages, valid, seen = steering.reader.samples(channel)
            found[channel] = samples.summarise((values, ages, valid & (ages <= within), seen), QUANTILES)
        except (KeyError, ValueError):
            continue  # not measured at this VIP's feature level
    return found
