"""From kinds to the desired state of one data plane. Computation only.

`plan` has what users want; `health_overlay` adds health and which addresses this node announces. One port of one VIP is
one core VIP per address family.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from penstock_api.dataplane import AnnouncementType
from penstock_api.dataplanenodereport import Finding, FindingReason
from penstock_embedded.messages import NatSource

from penstock_agent.building import Builder
from penstock_agent.endpoints import finding, without_loops
from penstock_agent.plans import (
    Address,
    CoreVip,
    Findings,
    Name,
    Owner,
    Plan,
    PolicyChoice,
    Served,
    Snapshot,
    core_vip_id,
)

__all__ = [
    "Address",
    "CoreVip",
    "Findings",
    "Memo",
    "Name",
    "Owner",
    "Plan",
    "PolicyChoice",
    "Served",
    "Snapshot",
    "core_vip_id",
    "plan",
]

log = structlog.get_logger(__name__)

Place = tuple[Address, str, int]  # address, protocol, port: what only one VIP may have
Planned = tuple[list[CoreVip], Findings]

MAX_VIPS = 1024  # core VIPs that a data plane has room for
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Memo:
    """What was planned for each VIP from the same inputs: of hundreds of VIPs, a change mostly touches one.

    Equal inputs give equal plans with or without it; it only saves the time.
    """

    def __init__(self) -> None:
        self._before: dict[str, _Remembered] = {}
        self._now: dict[str, _Remembered] = {}

    def next_plan(self) -> None:
        """Forget what the last plan did not use."""
        self._before, self._now = self._now, {}

    def get(
        self,
        uid: str,
        inputs: tuple[object, ...],
        before: tuple[CoreVip, ...],
        compute: Callable[[], tuple[Planned, bool]],
    ) -> Planned:
        """Take what was planned from equal inputs, else compute it; that also returns whether `before` mattered."""
        known = self._before.get(uid)
        if known is None or known.inputs != inputs or (known.before is not None and known.before != before):
            planned, looked_back = compute()
            known = _Remembered(inputs, before if looked_back else None, planned)
        self._now[uid] = known
        return known.planned


@dataclass(frozen=True, slots=True)
class _Remembered:
    inputs: tuple[object, ...]
    before: tuple[CoreVip, ...] | None  # None: it did not matter
    planned: Planned


def plan(snapshot: Snapshot, previous: Plan | None, memo: Memo | None = None) -> Plan:
    """Compute what this node should do; `previous` is what paused and unreadable VIPs are frozen at."""
    memo = memo or Memo()
    memo.next_plan()
    node = snapshot.node
    cores: list[CoreVip] = []
    findings: list[Findings] = []
    taken: dict[Place, Owner] = {}
    before = _by_owner(previous)
    for name, error in sorted(snapshot.unreadable.items()):
        kept = [core for core in _of(previous) if (core.owner.namespace, core.owner.name) == name]
        if kept:  # else we cannot tell whether it is one of ours
            _take(kept, taken)
            kept, notes = _without_loops(kept, snapshot)
            cores += kept
            fault = finding(FindingReason.UNREADABLE, error)
            findings.append(Findings(owner=kept[0].owner, faults=(fault,), notes=notes))
    ordered = sorted(snapshot.vips, key=_precedence)
    holders = _holders(ordered)
    for served in ordered:
        planned, found = _plan_vip(served, snapshot, previous, before, memo)
        fitting, faults = _fitting(planned, taken, holders, MAX_VIPS - len(cores))
        # A VIP that was accepted before goes on with the ports that it can have; a new one has all of them or none.
        if not faults or served.vip.status.ports:
            _take(fitting, taken)
            cores += fitting
        findings.append(found.model_copy(update={"faults": (*found.faults, *dict.fromkeys(faults))}))
    findings.sort(key=_by_name)
    return Plan(
        scheduler_key=node.scheduler_key,
        nodes=node.nodes,
        nat_sources=tuple(
            NatSource(address=a, port_first=node.nat_source.port_first, port_last=node.nat_source.port_last)
            for a in node.nat_source.addresses
        ),
        l2=node.announcement.type is AnnouncementType.L2,
        interfaces=tuple(node.announcement.interfaces),
        vips=tuple(cores),
        findings=tuple(findings),
    )


def _of(previous: Plan | None) -> tuple[CoreVip, ...]:
    return previous.vips if previous else ()


def _by_owner(previous: Plan | None) -> dict[str, tuple[CoreVip, ...]]:
    owned: defaultdict[str, list[CoreVip]] = defaultdict(list)
    for core in _of(previous):
        owned[core.owner.uid].append(core)
    return {uid: tuple(cores) for uid, cores in owned.items()}


def _by_name(of: CoreVip | Findings) -> tuple[str, str]:
    return of.owner.namespace, of.owner.name


def _precedence(served: Served) -> tuple[bool, bool, datetime, str, str, str]:
    """Order VIPs for an address and port that several have, the same on every node.

    The operator gives no two VIPs the same, but what it writes of one VIP is seen before what it writes of another,
    and files are written by people. A paused VIP stays as it is; one that asks for other addresses than those it still
    has is about to leave them; then the older comes first.
    """
    vip, metadata = served.vip, served.vip.metadata
    leaving = vip.spec.addresses is not None and not set(served.addresses) <= set(vip.spec.addresses)
    age = metadata.creation_timestamp or _LONG_AGO
    age = age if age.tzinfo else age.replace(tzinfo=UTC)  # files are written by people
    return not vip.paused, leaving, age, metadata.namespace, metadata.name, metadata.uid


def _places(core: CoreVip) -> Iterator[Place]:
    return ((address, core.vip.protocol, core.vip.port) for address in core.vip.addresses)


def _holders(ordered: Iterable[Served]) -> dict[Place, Owner]:
    """Return which VIP holds an address and port by its status: others wait, whatever their age."""
    found: dict[Place, Owner] = {}
    for served in ordered:
        metadata = served.vip.metadata
        owner = Owner(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid, generation=0)
        for port in served.vip.status.ports:
            for address in served.vip.status.addresses:
                found.setdefault((address, str(port.protocol), port.port), owner)
    return found


def _conflict(core: CoreVip, taken: Mapping[Place, Owner], holders: Mapping[Place, Owner]) -> Finding | None:
    """Return which VIP has an address and port of a core VIP already: two never have the same, not even briefly."""
    for place in _places(core):
        holder = taken.get(place) or holders.get(place)
        if holder is not None and (place in taken or holder.uid != core.owner.uid):
            address, protocol, port = place
            where = f"[{address}]" if address.version == 6 else address
            message = f"{where}:{port}/{protocol} is held by another VIP, {holder.namespace}/{holder.name}"
            return finding(FindingReason.ADDRESS_CONFLICT, f"{message}; choose another address or port")
    return None


def _fitting(
    planned: Iterable[CoreVip], taken: Mapping[Place, Owner], holders: Mapping[Place, Owner], room: int
) -> tuple[list[CoreVip], list[Finding]]:
    """Return the core VIPs of one VIP that it can have, and why it cannot have the others."""
    fitting: list[CoreVip] = []
    faults: list[Finding] = []
    for core in planned:
        fault = _conflict(core, taken, holders) or (_no_room() if len(fitting) >= room else None)
        if fault is None:
            fitting.append(core)
        else:
            faults.append(fault)
    return fitting, faults


def _no_room() -> Finding:
    """Say that there is no room for one more core VIP; older VIPs come first."""
    message = (
        f"the DataPlane has {MAX_VIPS} ports of VIPs already, each counted once per address family, and older VIPs "
        "come first; move VIPs to another DataPlane"
    )
    return finding(FindingReason.TOO_MANY_PORTS, message)


def _take(planned: Iterable[CoreVip], taken: dict[Place, Owner]) -> None:
    for core in planned:
        taken.update(dict.fromkeys(_places(core), core.owner))


def _plan_vip(
    served: Served,
    snapshot: Snapshot,
    previous: Plan | None,
    before: Mapping[str, tuple[CoreVip, ...]],
    memo: Memo,
) -> Planned:
    metadata = served.vip.metadata
    owner = Owner(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid, generation=metadata.generation)
    if served.vip.paused:
        return _frozen(owner, previous, snapshot)
    cores = before.get(owner.uid, ())

    def compute() -> tuple[Planned, bool]:
        builder = Builder(served, owner, snapshot, cores)
        return builder.build(), builder.looked_back

    try:
        return memo.get(owner.uid, _inputs(served, owner, snapshot, cores), cores, compute)
    except Exception as error:  # one VIP's fault must not cost the others their turn
        log.exception("VIP not planned, what was programmed stays", vip=f"{owner.namespace}/{owner.name}")
        fault = finding(FindingReason.INTERNAL, f"not planned: {type(error).__name__}: {error}; report this")
        return list(cores), Findings(owner=owner, faults=(fault,))


def _inputs(served: Served, owner: Owner, snapshot: Snapshot, cores: Iterable[CoreVip]) -> tuple[object, ...]:
    """Gather all that a VIP's plan depends on, but what was before."""
    spec = served.vip.spec
    names = {(owner.namespace, spec.backends.service.name)} if spec.backends.service else set()
    names |= {(owner.namespace, core.origin.service) for core in cores if core.origin is not None}
    slices = [snapshot.slices.get(name, ()) for name in sorted(names)]
    candidates = {endpoint.address for pieces in slices for piece in pieces for endpoint in piece.endpoints}
    candidates |= {endpoint.address for endpoint in spec.backends.endpoints or ()}
    policy = owner.namespace, spec.policy_name or ""
    return (
        owner,
        spec,
        served.addresses,
        snapshot.node,
        snapshot.policies.get(policy),
        snapshot.unreadable_policies.get(policy),
        [(name, snapshot.service(name)) for name in sorted(names)],
        slices,
        candidates & snapshot.vip_addresses,
        snapshot.override,
    )


def _without_loops(kept: Iterable[CoreVip], snapshot: Snapshot) -> tuple[list[CoreVip], tuple[Finding, ...]]:
    """Leave out backends whose addresses VIPs have taken since; return the notes that say so."""
    left: list[CoreVip] = []
    notes: dict[Finding, None] = {}
    for core in kept:
        backends, loops = without_loops(core.vip.backends, snapshot.vip_addresses)
        left.append(core.with_backends(backends) if loops else core)
        notes |= dict.fromkeys(loops)
    return left, tuple(notes)


def _frozen(owner: Owner, previous: Plan | None, snapshot: Snapshot) -> Planned:
    kept = [core for core in _of(previous) if core.owner.uid == owner.uid]
    before = [found for found in (previous.findings if previous else ()) if found.owner.uid == owner.uid]
    if not kept:
        message = "paused before this node had it; remove the annotation penstock.dev/paused to have it programmed"
        return [], Findings(owner=owner, faults=(finding(FindingReason.PAUSED, message),), paused=True)
    found = before[0] if before else Findings(owner=kept[0].owner)
    kept, notes = _without_loops(kept, snapshot)
    return kept, found.model_copy(update={"paused": True, "notes": tuple(dict.fromkeys([*found.notes, *notes]))})
