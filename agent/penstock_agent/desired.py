"""From kinds to the desired state of one data plane. Computation only.

`plan` has what users want; `health_overlay` adds health and which addresses this node announces. One port of one VIP is
one core VIP per address family.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from penstock_api.dataplane import AnnouncementType, FeatureLevelName
from penstock_api.dataplanenode import DataPlaneNodeSpec
from penstock_api.rlpolicy import Heuristic, PolicyMode, PolicySpec, SchedulerLoad, default_scheduler
from penstock_api.vip import Affinity, FlowTimeouts, HealthCheck, HealthCheckType, LoadBalancerVIP, VipPort
from penstock_embedded import messages
from penstock_embedded.messages import Backend, BackendState, NatSource, Vip
from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_agent import policies
from penstock_agent.endpoints import Resolved, Slice, from_slices, from_static
from penstock_agent.probes import Check, CheckType, Target

Address = IPv4Address | IPv6Address
Name = tuple[str, str]  # namespace, name
Place = tuple[Address, str, int]  # address, protocol, port: what only one VIP may have

MAX_BACKENDS = 1024  # of messages.Vip
MAX_VIPS = 4096  # of messages.DesiredState
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_POLICY = PolicySpec(heuristic=Heuristic.LSQ)


@dataclass(frozen=True, slots=True)
class Served:
    """A VIP and the addresses that it holds: from its status, or in files from its spec."""

    vip: LoadBalancerVIP
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a source knows, at one moment."""

    node: DataPlaneNodeSpec
    vips: tuple[Served, ...] = ()
    policies: Mapping[Name, PolicySpec] = field(default_factory=dict)
    slices: Mapping[Name, tuple[Slice, ...]] = field(default_factory=dict)  # by Service
    vip_addresses: frozenset[Address] = frozenset()  # of all VIPs of the cluster: no backend may have one
    unreadable: Mapping[Name, str] = field(default_factory=dict)  # VIPs that are there but not understood
    override: str = ""  # policy that the data plane was told to have used on this node; no source knows it


class Frozen(BaseModel):
    """Base of what a plan consists of: it is also the last good state on disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Owner(Frozen):
    """The VIP object that core VIPs come from."""

    namespace: str
    name: str
    uid: str
    generation: int


class PolicyChoice(Frozen):
    """How the weights of a core VIP come about."""

    heuristic: str
    mode: PolicyMode
    fallback: str
    interval: float  # seconds
    max_weight_ratio: float
    max_change_per_step: float
    max_frame_age: float


class CoreVip(Frozen):
    """One core VIP before health is known."""

    owner: Owner
    vip: Vip
    policy: PolicyChoice
    check: Check | None  # None: the endpoint's readiness is all that counts
    check_port: int | None = None  # None: each backend's own

    @cached_property
    def targets(self) -> dict[str, Target]:
        """What to check to know whether a backend is well, by its id; empty where nothing is checked."""
        if self.check is None:
            return {}
        return {b.id: Target(b.address, self.check_port or b.port, self.check) for b in self.vip.backends}


class Findings(Frozen):
    """What there is to say about one VIP object."""

    owner: Owner
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    paused: bool = False


class Plan(Frozen):
    """What users want of this node."""

    scheduler_key: str
    nodes: int
    nat_sources: tuple[NatSource, ...]
    l2: bool
    interfaces: tuple[str, ...]
    vips: tuple[CoreVip, ...]
    findings: tuple[Findings, ...]

    @property
    def addresses(self) -> frozenset[Address]:
        """Addresses of all VIPs."""
        return frozenset(address for core in self.vips for address in core.vip.addresses)


def core_vip_id(uid: str, protocol: str, port: int, version: int) -> str:
    """Name a core VIP for ever: it names shared-memory objects, too."""
    return hashlib.sha256(f"{uid}/{protocol}/{port}/IPv{version}".encode()).hexdigest()[:16]


Planned = tuple[list[CoreVip], Findings]


class Memo:
    """What was planned for each VIP from the same inputs: of hundreds of VIPs, a change mostly touches one.

    Equal inputs give equal plans with or without it; it only saves the time.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[tuple[object, ...], Planned]] = {}
        self._now: dict[str, tuple[tuple[object, ...], Planned]] = {}

    def next_plan(self) -> None:
        """Forget what the last plan did not use."""
        self._before, self._now = self._now, {}

    def get(self, uid: str, inputs: tuple[object, ...], compute: Callable[[], Planned]) -> Planned:
        """Take what was planned from equal inputs, else compute it."""
        kept = self._before.get(uid)
        self._now[uid] = kept if kept is not None and kept[0] == inputs else (inputs, compute())
        return self._now[uid][1]


def plan(snapshot: Snapshot, previous: Plan | None, memo: Memo | None = None) -> Plan:
    """Compute what this node should do; `previous` is what paused and unreadable VIPs are frozen at."""
    memo = memo or Memo()
    memo.next_plan()
    node = snapshot.node
    cores: list[CoreVip] = []
    findings: list[Findings] = []
    taken: dict[Place, Owner] = {}
    for name, error in sorted(snapshot.unreadable.items()):
        kept = [core for core in _of(previous) if (core.owner.namespace, core.owner.name) == name]
        if kept:  # else we cannot tell whether it is one of ours
            _take(kept, taken)
            cores += kept
            findings.append(Findings(owner=kept[0].owner, errors=(error,)))
    for served in sorted(snapshot.vips, key=_precedence):
        planned, found = _plan_vip(served, snapshot, previous, memo)
        errors = list(_conflicts(planned, taken))
        if len(cores) + len(planned) > MAX_VIPS:
            errors.append(f"more than {MAX_VIPS} ports of VIPs on one DataPlane; move VIPs to another one")
        if errors:
            found = found.model_copy(update={"errors": (*found.errors, *errors)})
        else:
            _take(planned, taken)
            cores += planned
        findings.append(found)
    cores.sort(key=_by_name)
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
    return not vip.paused, leaving, age, metadata.namespace, metadata.name, metadata.uid


def _places(core: CoreVip) -> Iterator[Place]:
    return ((address, core.vip.protocol, core.vip.port) for address in core.vip.addresses)


def _conflicts(planned: Iterable[CoreVip], taken: Mapping[Place, Owner]) -> Iterator[str]:
    """Say who has an address and port of a VIP already: two never have the same, not even for a moment."""
    for core in planned:
        for address, protocol, port in _places(core):
            holder = taken.get((address, protocol, port))
            if holder is not None:
                where = f"[{address}]" if address.version == 6 else address
                yield (
                    f"{where}:{port}/{protocol} is held by another VIP, {holder.namespace}/{holder.name}; "
                    "choose another address or port"
                )


def _take(planned: Iterable[CoreVip], taken: dict[Place, Owner]) -> None:
    for core in planned:
        taken.update(dict.fromkeys(_places(core), core.owner))


def _plan_vip(served: Served, snapshot: Snapshot, previous: Plan | None, memo: Memo) -> Planned:
    vip = served.vip
    owner = Owner(
        namespace=vip.metadata.namespace,
        name=vip.metadata.name,
        uid=vip.metadata.uid,
        generation=vip.metadata.generation,
    )
    if vip.paused:
        return _frozen(owner, previous)
    service, static = vip.spec.backends.service, vip.spec.backends.endpoints or ()
    slices = snapshot.slices.get((owner.namespace, service.name), ()) if service else ()
    candidates = {e.address for piece in slices for e in piece.endpoints} or {e.address for e in static}
    inputs = (
        owner,
        vip.spec,
        served.addresses,
        snapshot.node,
        snapshot.policies.get((owner.namespace, vip.spec.policy_name or "")),
        slices,
        candidates & snapshot.vip_addresses,
        snapshot.override,
    )
    return memo.get(owner.uid, inputs, lambda: _Builder(served, owner, snapshot).build())


def _frozen(owner: Owner, previous: Plan | None) -> Planned:
    kept = [core for core in _of(previous) if core.owner.uid == owner.uid]
    before = [found for found in (previous.findings if previous else ()) if found.owner.uid == owner.uid]
    if not kept:
        error = "paused before this node had it; remove the annotation penstock.dev/paused to have it programmed"
        return [], Findings(owner=owner, errors=(error,), paused=True)
    found = before[0] if before else Findings(owner=kept[0].owner)
    return kept, found.model_copy(update={"paused": True})


class _Builder:
    """Builds the core VIPs of one VIP, collecting what is wrong on the way."""

    def __init__(self, served: Served, owner: Owner, snapshot: Snapshot) -> None:
        self._served = served
        self._spec = served.vip.spec
        self._owner = owner
        self._snapshot = snapshot
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._policy = self._checked(self._overridden(self._choose_policy()))

    def build(self) -> Planned:
        """Build all of them."""
        built = [self._core_vip(port, version) for port in self._spec.ports for version in (4, 6)]
        found = Findings(owner=self._owner, errors=tuple(self.errors), warnings=tuple(self.warnings))
        return [core for core in built if core is not None], found

    def _core_vip(self, port: VipPort, version: int) -> CoreVip | None:
        """Build the core VIP of one port and family; None where the VIP has no such address, or it cannot be."""
        addresses = tuple(address for address in self._served.addresses if address.version == version)
        if not addresses:
            return None
        resolved = self._backends(port, version)
        self._note(self.errors, resolved.problems)
        if len(resolved.backends) > MAX_BACKENDS:
            self._note(self.errors, [f"more than {MAX_BACKENDS} endpoints; the rest get no traffic: split the Service"])
        check = self._spec.health_check
        try:
            vip = self._vip(port, addresses, _first(resolved.backends, MAX_BACKENDS))
        except ValidationError as error:
            problem = error.errors()[0]
            self._note(self.errors, [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"])
            return None
        return CoreVip(
            owner=self._owner, vip=vip, policy=_choice(self._policy), check=_check(check), check_port=check.port
        )

    def _vip(self, port: VipPort, addresses: tuple[Address, ...], backends: tuple[Backend, ...]) -> Vip:
        spec, version = self._spec, addresses[0].version
        return Vip(
            id=core_vip_id(self._owner.uid, port.protocol, port.port, version),
            key=f"{self._owner.namespace}/{self._owner.name}:{port.port}/{port.protocol}/IPv{version}",
            addresses=addresses,
            protocol=messages.Protocol(port.protocol),
            port=port.port,
            forwarding=messages.Forwarding(spec.forwarding),
            dscp=spec.dscp or 0,
            client_affinity=spec.affinity is Affinity.CLIENT_IP,
            scheduler=self._scheduler(),
            features=messages.FeatureLevel(self._snapshot.node.features),
            timeouts=_timeouts(spec.timeouts),
            drain_timeout=float(spec.drain_seconds),
            backends=backends,
        )

    def _backends(self, port: VipPort, version: int) -> Resolved:
        backends, forbidden = self._spec.backends, self._snapshot.vip_addresses | set(self._served.addresses)
        if backends.service is not None:
            slices = self._snapshot.slices.get((self._owner.namespace, backends.service.name), ())
            return from_slices(slices, port.target, port.protocol, version, forbidden)
        allowed = self._snapshot.node.static_endpoint_cidrs
        endpoints = []
        for endpoint in backends.endpoints or ():
            if any(endpoint.address in network for network in allowed):
                endpoints.append(endpoint)
                continue
            where = f"endpoint {endpoint.address}: lies in no network of the DataPlane's staticEndpointCIDRs"
            self._note(self.errors, [f"{where}; ask its admin to add one"])
        return from_static(endpoints, int(port.target), version, forbidden)

    def _choose_policy(self) -> PolicySpec:
        name = self._spec.policy_name
        chosen = self._snapshot.policies.get((self._owner.namespace, name)) if name else DEFAULT_POLICY
        if chosen is None:
            # The operator says the same of the spec; traffic is served meanwhile.
            self.warnings.append(
                f"policyName: there is no RLPolicy {self._owner.namespace}/{name}, lsq is used; create it"
            )
            return DEFAULT_POLICY
        return chosen

    def _overridden(self, chosen: PolicySpec) -> PolicySpec:
        """Put what the data plane was told in place of the heuristic, with the scheduler that goes with it."""
        asked = self._snapshot.override
        if not asked:
            return chosen
        said = f"`lb rl agent {asked}` was said to the data plane of this node"
        try:
            heuristic = Heuristic(policies.by_name(asked).name)
        except policies.UnknownPolicyError as error:
            self.warnings.append(f"{said}: {error}; {chosen.heuristic} stays")
            return chosen
        self.warnings.append(f"{said}: it is used in place of {chosen.heuristic}; `lb rl agent follow` ends that")
        return chosen.model_copy(update={"heuristic": heuristic, "scheduler": None})

    def _checked(self, chosen: PolicySpec) -> PolicySpec:
        """Say what the policy lacks on this node; without measurements a policy that needs them is off."""
        name = self._spec.policy_name
        if chosen.load is SchedulerLoad.ACTIVE and self._snapshot.node.features is not FeatureLevelName.FULL:
            self.warnings.append(
                f"policy {name}: load Active needs features: full of the DataPlane; open flows are counted instead"
            )
        channels = policies.by_name(chosen.heuristic).channels
        if channels and self._snapshot.node.features is FeatureLevelName.OFF:
            self.warnings.append(
                f"policy {name}: {chosen.heuristic} needs measurements, but the DataPlane has features: off; "
                f"the fallback {chosen.fallback} is used"
            )
            return chosen.model_copy(update={"mode": PolicyMode.OFF})
        return chosen

    def _scheduler(self) -> messages.Scheduler:
        policy = self._policy
        if self._spec.affinity is Affinity.CLIENT_IP:
            return messages.Scheduler(type=messages.SchedulerType.MAGLEV, table_size=policy.table_size)
        in_force = (
            policy.effective_scheduler
            if policy.mode is PolicyMode.ACTIVE
            else default_scheduler(Heuristic(policy.fallback))
        )
        return messages.Scheduler(
            type=messages.SchedulerType(in_force),
            load=messages.SchedulerLoad(policy.load.lower()),
            table_size=policy.table_size,
        )

    @staticmethod
    def _note(where: list[str], what: Iterable[str]) -> None:
        where.extend(text for text in what if text not in where)


def _first(backends: tuple[Backend, ...], limit: int) -> tuple[Backend, ...]:
    """Keep so many backends in their order; those that take new flows go before the others."""
    if len(backends) <= limit:
        return backends
    kept = sorted(backends, key=lambda backend: backend.state is not BackendState.ACTIVE)[:limit]
    return tuple(sorted(kept, key=lambda backend: backend.id))


def _choice(policy: PolicySpec) -> PolicyChoice:
    return PolicyChoice(
        heuristic=policy.heuristic,
        mode=policy.mode,
        fallback=policy.fallback,
        interval=policy.interval_milliseconds / 1000,
        max_weight_ratio=policy.guardrails.max_weight_ratio,
        max_change_per_step=policy.guardrails.max_change_per_step,
        max_frame_age=policy.guardrails.max_frame_age_milliseconds / 1000,
    )


def _check(check: HealthCheck) -> Check | None:
    if check.type is HealthCheckType.NONE:
        return None
    return Check(
        type=CheckType(check.type),
        path=check.path or "/",
        interval=check.interval_seconds,
        timeout=check.timeout_seconds,
        healthy_threshold=check.healthy_threshold,
        unhealthy_threshold=check.unhealthy_threshold,
        statuses=tuple(_range(text) for text in check.expected_statuses or ("200-399",)),
    )


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _timeouts(timeouts: FlowTimeouts) -> messages.Timeouts:
    return messages.Timeouts(
        **{name.removesuffix("_seconds"): float(seconds) for name, seconds in timeouts.model_dump().items()}
    )
