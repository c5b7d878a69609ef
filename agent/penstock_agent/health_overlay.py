"""What health makes of a plan: backends that fail their checks are taken out of use, within bounds.

Computation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock_embedded.messages import Announcement, BackendState, DesiredState, Vip

from penstock_agent.announcer import Address
from penstock_agent.desired import Plan
from penstock_agent.probes import Target


@dataclass(frozen=True, slots=True)
class WithHealth:
    """The state to send, and what health did to it."""

    state: DesiredState
    fail_open: frozenset[str]  # ids of core VIPs whose backends all fail: the last healthy ones are kept, else all
    well: Mapping[str, frozenset[str]]  # backends that pass their checks, by core VIP
    last_healthy: Mapping[str, frozenset[str]]  # the same argument of the next call

    def used_instead(self, vip: str) -> str:
        """Say which backends a core VIP of `fail_open` uses."""
        return "the last healthy ones are used" if self.last_healthy.get(vip) else "none was ever healthy, all are used"


def desired_state(
    wanted: Plan,
    healthy: Callable[[Target], bool],
    last_healthy: Mapping[str, frozenset[str]],
    announced: tuple[Address, ...],
) -> WithHealth:
    """Cut failed backends; where all fail, keep those that were the last to be healthy."""
    vips: list[Vip] = []
    fail_open: set[str] = set()
    all_well: dict[str, frozenset[str]] = {}
    now_healthy: dict[str, frozenset[str]] = {}
    for core in wanted.vips:
        sick = {backend for backend, target in core.targets.items() if not healthy(target)}
        well = frozenset(b.id for b in core.vip.backends if b.id not in sick)
        all_well[core.vip.id] = well
        active = frozenset(b.id for b in core.vip.backends if b.state is BackendState.ACTIVE)
        now_healthy[core.vip.id] = well & active
        if active and not well & active:
            fail_open.add(core.vip.id)
            kept = last_healthy.get(core.vip.id, frozenset()) & active
            now_healthy[core.vip.id] = kept
            well |= kept or active
        # A server on its way out may have closed its listening socket: its open flows end by themselves.
        cut = active - well
        backends = tuple(
            b.model_copy(update={"state": BackendState.FAILED}) if b.id in cut else b for b in core.vip.backends
        )
        vips.append(core.vip.model_copy(update={"backends": backends}))
    state = DesiredState(
        generation=0,
        scheduler_key=wanted.scheduler_key,
        nodes=wanted.nodes,
        nat_sources=wanted.nat_sources,
        announcement=Announcement(interfaces=wanted.interfaces if wanted.l2 else (), addresses=announced),
        vips=tuple(vips),
    )
    return WithHealth(state, frozenset(fail_open), all_well, now_healthy)
