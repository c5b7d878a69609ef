"""Core, device, node and memory, kept in step: the shell around `plan`. Everything here blocks.

One thread at a time may change a forwarder; `state`, `vip_statuses` and `stats` may be read by another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import structlog
from penstock_core import DataplaneError
from penstock_node import NodeError, TunError
from penstock_node import withdraw as withdraw_node

from penstock_embedded import allowed, native, state
from penstock_embedded.engine import Engine
from penstock_embedded.messages import ApplyResult, DesiredState, Error, NatSource, Vip, VipResult, VipStatus
from penstock_embedded.plan import Change, RemoveVip, SetNode, SetSources, SetVip, announceable, plan, warnings
from penstock_embedded.plumbing import occupied, plumb
from penstock_embedded.refusals import Bounds
from penstock_embedded.repairs import Repairs
from penstock_embedded.settings import Settings
from penstock_embedded.state import State

log = structlog.get_logger()

FIXES = {
    "exhausted": "start the data plane with a larger flow table, more VIPs or more slots",
    "conflict": "wait until the VIP that holds it has drained, or choose another address or port",
    "unsupported": "remove the VIP and add it under another id",
    "invalid": "correct the VIP",
}


class StartError(Exception):
    """Arena or device cannot be taken into use; `error` says what to do."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Outcome:
    """What came of an apply, while it is made."""

    changed: bool = False
    vips: dict[str, Error] = field(default_factory=dict)
    node: list[Error] = field(default_factory=list)


class Forwarder:
    """Takes nothing on the node into use until it is told to become something, or finds an earlier arena."""

    def __init__(self, settings: Settings, instance_id: str) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._engine: Engine | None = None
        self._repairs = Repairs()
        self._blocked: tuple[str, ...] = ()  # firewall chains that drop what is forwarded
        self._keeper = state.Keeper()
        self.state = State()

    # ---- life

    def resume(self) -> None:
        """Go on where an earlier process ended: forward first, by what the arena holds, then remember names."""
        if not self._settings.arena_path.exists():
            return
        engine = self._engine = Engine(self._settings, self._instance_id)
        try:
            engine.start()
        except TunError as error:
            log.warning("device cannot be attached to: it is made again at once", error=str(error))
        remembered = state.load(self._settings.state_path)
        present = engine.vip_ids()
        if engine.kept_arena:
            vips = {known: vip for known, vip in remembered.vips.items() if known in present}
            removing = {known: vip for known, vip in remembered.removing.items() if known in present}
            self.state = remembered.model_copy(update={"vips": vips, "removing": removing})

    def close(self) -> None:
        """Let go of everything and change nothing on the node."""
        self._repairs.close()
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()

    def withdraw(self) -> None:
        """Remove everything from the node and forget the state."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.withdraw()
        self.state = State()
        self._keeper.forget(self._settings.state_path)
        withdraw_node()

    # ---- changes

    def become(self, desired: DesiredState) -> ApplyResult:
        """Make the changes that `desired` asks for, each VIP whole or not at all."""
        engine = self._engine or self._begin()
        found = engine.vip_ids() - self.state.removing.keys()
        bounds = Bounds(occupied(desired, self.state), allowed.load(self._settings.allowed_vips))
        planned = plan(desired, self.state, found, bounds)
        outcome = Outcome(changed=bool(planned.changes), vips=dict(planned.refused), node=list(planned.errors))
        if any(isinstance(change, SetSources) for change in planned.changes):
            # Replies must find us before the first flow goes out: the node would answer them with RST.
            self._plumb(outcome, desired.nat_sources)
        for change in planned.changes:
            self._perform(engine, change, outcome)
        engine.publish()
        self._plumb(outcome, self.state.nat_sources or ())
        announcement, errors = announceable(desired, self.state)
        outcome.node += errors
        self._update(generation=desired.generation, announcement=announcement)
        self._remember(engine)
        return ApplyResult(
            generation=desired.generation,
            changed=outcome.changed,
            vips=tuple(_vip_result(vip, outcome) for vip in desired.vips),
            errors=tuple(outcome.node),
        )

    def maintain(self) -> None:
        """Follow drains that end and the device; repair what others change on the node."""
        engine = self._engine
        if engine is None:
            return
        self._keeper.again()
        present = engine.vip_ids()
        gone = self.state.removing.keys() - present
        if gone:
            self._update(removing={known: vip for known, vip in self.state.removing.items() if known in present})
            self._remember(engine)
        if not engine.forwarding():
            log.warning("the device is gone: it is made again")
            self._attach(engine)
        elif self.state.generation is None:
            return  # an arena that outlived its state forwards: what the node needs for that, the next apply says
        elif gone or self._repairs.due():
            self._plumb(Outcome(), self.state.nat_sources or ())

    def _begin(self) -> Engine:
        try:
            engine = Engine(self._settings, self._instance_id)
        except (DataplaneError, OSError) as error:
            raise StartError(
                Error(code=_code(error), field="arena", message=str(error), fix=FIXES["exhausted"])
            ) from error
        try:
            self._attach(engine)
        except (DataplaneError, NodeError) as error:
            engine.close()
            fix = "run `penstock dataplane --preflight` for what the node lacks"
            raise StartError(Error(code=_code(error), field="device", message=str(error), fix=fix)) from error
        self._engine = engine
        return engine

    def _attach(self, engine: Engine) -> None:
        """Make the device where it is missing or another, and forward from it."""
        engine.stop()
        sources = self.state.nat_sources or ()
        plumbed = plumb(self._settings, self.state.addresses_beside(sources), sources)
        for error in plumbed.errors:
            log.warning("the device may not be as it should", error=error.message)
        engine.start()

    def _plumb(self, outcome: Outcome, sources: tuple[NatSource, ...]) -> None:
        self._repairs.begin()
        plumbed = plumb(self._settings, self.state.addresses_beside(sources), sources)
        self._blocked = plumbed.blocked
        outcome.changed |= plumbed.changed
        outcome.node += [error for error in plumbed.errors if error not in outcome.node]
        if plumbed.new_device and self._engine is not None:
            self._engine.stop()
            self._engine.start()

    def _perform(self, engine: Engine, change: Change, outcome: Outcome) -> None:
        try:
            engine.perform(change)
        except DataplaneError as error:
            problem = Error(code=_code(error), message=str(error), fix=FIXES.get(_code(error), ""))
            if isinstance(change, SetVip):
                outcome.vips[change.vip.id] = problem
            else:
                outcome.node.append(problem)
        else:
            self._note(change)

    def _note(self, change: Change) -> None:
        now = self.state
        match change:
            case SetNode():
                self._update(scheduler_key=change.scheduler_key, nodes=change.nodes)
            case SetSources():
                self._update(nat_sources=change.sources)
            case SetVip(vip):
                names = {native.backend_number(each.id): each.id for each in vip.backends}
                self._update(
                    vips=now.vips | {vip.id: vip},
                    removing={known: each for known, each in now.removing.items() if known != vip.id},
                    backend_names=now.backend_names | names,
                )
            case RemoveVip(identifier):
                removed = {known: each for known, each in now.vips.items() if known == identifier}
                vips = {known: each for known, each in now.vips.items() if known != identifier}
                self._update(vips=vips, removing=now.removing | removed)

    def _update(self, **changes: Any) -> None:
        self.state = self.state.model_copy(update=changes)

    def _remember(self, engine: Engine) -> None:
        in_use = {row["id"] for known in engine.vip_ids() for row in engine.vip_status(known).get("backends", ())}
        names = {number: name for number, name in self.state.backend_names.items() if number in in_use}
        self._update(backend_names=names)
        self._keeper.save(self._settings.state_path, self.state)

    # ---- status

    @property
    def reattached_flows(self) -> int:
        """Flows that were found in the arena at start."""
        return self._engine.reattached_flows if self._engine is not None else 0

    @property
    def stalled(self) -> str:
        """Which thread makes no progress; "" if all do."""
        return self._engine.stalled() if self._engine is not None else ""

    def vip_statuses(self) -> tuple[VipStatus, ...]:
        """Return the VIPs in force, draining ones included."""
        engine, now = self._engine, self.state
        if engine is None:
            return ()
        rows = {known: engine.vip_status(known) for known in sorted(engine.vip_ids())}
        return tuple(native.vip_status(row, now.key_of(known), now.backend_names) for known, row in rows.items() if row)

    def stats(self) -> dict[str, Any]:
        """Return the core's counters; nothing before the first apply."""
        if self._engine is None:
            return {}
        counters = self._engine.stats()
        problems = [self._keeper.problem] if self._keeper.problem else []
        return counters | {"findings": (*counters["findings"], *problems, *self._blocked)}


def _vip_result(vip: Vip, outcome: Outcome) -> VipResult:
    return VipResult(id=vip.id, error=outcome.vips.get(vip.id), warnings=warnings(vip))


def _code(error: Exception) -> str:
    return str(getattr(error, "code", "internal"))
