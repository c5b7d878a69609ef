"""What health makes of a plan: backends that fail their checks are taken out of use, within bounds.

Overload makes checks late on many servers at once, and taking some out makes it worse for the others. So checks that
are late take out backends only down to a share of all (`panic_percent`, as in Envoy), unless traffic shows that these
are gone; checks take out at most `max_failed_percent`, also where all fail; and a backend that still sends payload to
its clients keeps their flows. Computation only.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from penstock_embedded.messages import (
    Announcement,
    Backend,
    BackendState,
    DesiredState,
    Forwarding,
    Protocol,
    SchedulerType,
    Vip,
)

from penstock_agent.plans import Address, CoreVip, HealthRules, Plan
from penstock_agent.probes import Target

Ids = frozenset[str]
NONE: Ids = frozenset()


class Standing(NamedTuple):
    """What the checks of one target have found."""

    healthy: bool = True
    late: bool = False  # it fails because its answers are late
    since: float = 0.0  # monotonic seconds


class Traffic(typing.Protocol):
    """What clients' own traffic shows of a backend, by core VIP and id."""

    def answers(self, vip: str, backend: str) -> bool:
        """Return whether it has just sent payload to clients: its flows are not cut."""
        ...

    def silent(self, vip: str, backend: str) -> bool:
        """Return whether clients sent to it again and again, and it sent nothing: it is gone, not overloaded."""
        ...

    def no_path(self, vip: str) -> bool:
        """Return whether clients of a VIP sent again and again, and no backend sent anything."""
        ...


class NoTraffic:
    """Traffic that shows nothing."""

    def answers(self, vip: str, backend: str) -> bool:
        """Return False."""
        return False

    def silent(self, vip: str, backend: str) -> bool:
        """Return False."""
        return False

    def no_path(self, vip: str) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which backends of a core VIP that could take new flows do."""

    out: Ids  # taken out of use
    panic: bool = False  # late ones are used, because too few pass
    all_fail: bool = False
    fail_open: bool = False  # all fail and some are used
    bounded: bool = False  # more would be out, were it not for `max_failed_percent`


@dataclass(frozen=True, slots=True)
class WithHealth:
    """The state to send, and what health did to it."""

    state: DesiredState
    well: Mapping[str, Ids]  # backends that pass their checks, by core VIP
    selections: Mapping[str, Selection]  # by core VIP
    last_healthy: Mapping[str, Ids]  # by core VIP: that take new flows and pass; while none does, the last that did
    ramps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by core VIP and backend: when it returned
    no_path: Ids = NONE  # core VIPs with backends that pass, none of which answers any client

    @property
    def fail_open(self) -> Ids:
        """Ids of core VIPs whose backends all fail, and are used."""
        return frozenset(vip for vip, selection in self.selections.items() if selection.fail_open)

    @property
    def panic(self) -> Ids:
        """Ids of core VIPs of which backends with late checks are used."""
        return frozenset(vip for vip, selection in self.selections.items() if selection.panic)

    def used_instead(self, vip: str) -> str:
        """Return which backends a core VIP uses of which all fail; empty where some pass."""
        selection = self.selections.get(vip)
        if selection is None or not selection.all_fail:
            return ""
        if not selection.fail_open:
            return "new flows are refused (healthCheck.failOpen is false)"
        if selection.bounded:
            return "those that failed last are used (healthCheck.maxFailedPercent)"
        return "the last healthy ones are used" if self.last_healthy.get(vip) else "none was ever healthy, all are used"


def select(
    standings: Mapping[str, Standing], rules: HealthRules, last_healthy: Ids, silent: Callable[[str], bool]
) -> Selection:
    """Choose which backends are taken out of use; `standings` has every one that could take new flows."""
    failing = frozenset(backend for backend, standing in standings.items() if not standing.healthy)
    all_fail = bool(failing) and len(failing) == len(standings)
    if all_fail:
        unwanted, panic = _unwanted_of_all(failing, rules, last_healthy), False
    else:
        unwanted, panic = _unwanted(standings, failing, rules, silent)
    most = rules.max_failed_percent * len(standings) // 100
    longest = sorted(unwanted, key=lambda backend: (standings[backend].since, backend))
    out = frozenset(longest[:most])
    return Selection(
        out,
        panic=panic,
        all_fail=all_fail,
        fail_open=all_fail and out != failing,
        bounded=len(unwanted) > most,
    )


def _unwanted_of_all(failing: Ids, rules: HealthRules, last_healthy: Ids) -> Ids:
    """Return those to take out of use where all fail."""
    if not rules.fail_open:
        return failing
    kept = last_healthy & failing
    return failing - kept if kept else NONE


def _unwanted(
    standings: Mapping[str, Standing], failing: Ids, rules: HealthRules, silent: Callable[[str], bool]
) -> tuple[Ids, bool]:
    """Return those to take out of use where some pass, and whether late ones stay because few do."""
    late = frozenset(backend for backend in failing if standings[backend].late and not silent(backend))
    passing = len(standings) - len(failing)
    panic = bool(late) and passing * 100 < rules.panic_percent * len(standings)
    return (failing - late if panic else failing), panic


def desired_state(
    wanted: Plan,
    standing: Callable[[Target], Standing],
    previous: WithHealth | None,
    announced: tuple[Address, ...],
    *,
    now: float = 0.0,
    traffic: Traffic | None = None,
) -> WithHealth:
    """Compute the state to send from a plan, from what checks have found and from what traffic shows."""
    traffic = traffic or NoTraffic()
    vips: list[Vip] = []
    well: dict[str, Ids] = {}
    selections: dict[str, Selection] = {}
    last_healthy: dict[str, Ids] = {}
    ramps: dict[str, Mapping[str, float]] = {}
    for core in wanted.vips:
        vip = core.vip
        standings = {backend: standing(target) for backend, target in core.targets.items()}
        well[vip.id] = frozenset(b.id for b in vip.backends if b.id not in standings or standings[b.id].healthy)
        active = {b.id: standings.get(b.id, Standing()) for b in vip.backends if b.state is BackendState.ACTIVE}
        before = previous.last_healthy.get(vip.id, NONE) if previous else NONE
        chosen = selections[vip.id] = select(active, core.rules, before, partial(traffic.silent, vip.id))
        last_healthy[vip.id] = before & active.keys() if chosen.fail_open else well[vip.id] & active.keys()
        ramps[vip.id] = _ramps(core, well[vip.id] - chosen.out, previous, now)
        vips.append(_with_states(vip, chosen.out, traffic, ramping=bool(ramps[vip.id])))
    state = DesiredState(
        generation=0,
        scheduler_key=wanted.scheduler_key,
        nodes=wanted.nodes,
        nat_sources=wanted.nat_sources,
        announcement=Announcement(interfaces=wanted.interfaces if wanted.l2 else (), addresses=announced),
        vips=tuple(vips),
    )
    no_path = frozenset(vip.id for vip in vips if _should_answer(vip, well) and traffic.no_path(vip.id))
    return WithHealth(state, well, selections, last_healthy, ramps, no_path)


def _should_answer(vip: Vip, well: Mapping[str, Ids]) -> bool:
    """Return whether a packet has to come back through this node when clients send: UDP may be one-way."""
    in_use = {b.id for b in vip.backends if b.state is BackendState.ACTIVE}
    return vip.forwarding is Forwarding.NAT and vip.protocol is Protocol.TCP and bool(in_use & well[vip.id])


def _with_states(vip: Vip, out: Ids, traffic: Traffic, *, ramping: bool) -> Vip:
    def with_state(backend: Backend) -> Backend:
        if backend.id not in out:
            return backend
        state = BackendState.UNREADY if traffic.answers(vip.id, backend.id) else BackendState.FAILED
        return backend.model_copy(update={"state": state})

    scheduler = vip.scheduler
    if ramping and scheduler.type is SchedulerType.LSQ:
        # lsq reads no weights; with equal ones sed picks as lsq does, and it can be given smaller ones.
        scheduler = scheduler.model_copy(update={"type": SchedulerType.SED})
    backends = tuple(with_state(backend) for backend in vip.backends)
    return vip.model_copy(update={"backends": backends, "scheduler": scheduler})


def _ramps(core: CoreVip, used: Ids, previous: WithHealth | None, now: float) -> Mapping[str, float]:
    """Return when those backends returned to use whose share of new flows still grows."""
    if previous is None or not core.rules.slow_start:
        return {}
    selection, ramps = previous.selections.get(core.vip.id), previous.ramps.get(core.vip.id, {})
    returned = dict.fromkeys(used & selection.out, now) if selection else {}
    going_on = {b: start for b, start in ramps.items() if b in used and now - start < core.rules.slow_start}
    return going_on | returned
