"""Builds the core VIPs of one VIP object. Computation only."""

from __future__ import annotations

from collections.abc import Iterable

from penstock_api.dataplane import FeatureLevelName
from penstock_api.dataplanenodereport import Finding, FindingReason
from penstock_api.fields import Protocol
from penstock_api.rlpolicy import Heuristic, PolicyMode, PolicySpec, SchedulerLoad, default_scheduler
from penstock_api.vip import Affinity, FlowTimeouts, Forwarding, HealthCheck, HealthCheckType, VipPort
from penstock_embedded import messages
from penstock_embedded.messages import Backend, BackendState, Vip
from pydantic import ValidationError

from penstock_agent import policies
from penstock_agent.caps import capped, capped_policy
from penstock_agent.endpoints import Resolved, Wanted, finding, from_slices, from_static, keep, listed
from penstock_agent.plans import (
    Address,
    CoreVip,
    Findings,
    HealthRules,
    Origin,
    Owner,
    PolicyChoice,
    Served,
    Snapshot,
    core_vip_id,
)
from penstock_agent.probes import Check, CheckType
from penstock_agent.slices import Slice

MAX_BACKENDS = 1024  # of messages.Vip
DEFAULT_POLICY = PolicySpec(heuristic=Heuristic.LSQ)


class Builder:
    """Builds the core VIPs of one VIP, collecting what is wrong on the way."""

    def __init__(self, served: Served, owner: Owner, snapshot: Snapshot, before: Iterable[CoreVip] = ()) -> None:
        self._served = served
        self._spec, cut = capped(served.vip.spec, snapshot.node)
        self._owner = owner
        self._snapshot = snapshot
        self._before = {core.vip.id: core for core in before}
        self._forbidden = snapshot.vip_addresses.union(served.addresses)
        self._notes: list[Finding] = cut
        self.looked_back = False  # the result depends on what was before
        self._policy = self._checked(self._overridden(self._choose_policy()))

    def build(self) -> tuple[list[CoreVip], Findings]:
        """Build all of them."""
        built = [
            self._core_vip(index, port, version) for index, port in enumerate(self._spec.ports) for version in (4, 6)
        ]
        return [core for core in built if core is not None], Findings(owner=self._owner, notes=tuple(self._notes))

    def _core_vip(self, index: int, port: VipPort, version: int) -> CoreVip | None:
        """Build the core VIP of one port and family; None where the VIP has no such address, or it cannot be."""
        addresses = tuple(address for address in self._served.addresses if address.version == version)
        if not addresses:
            return None
        origin = self._origin(port)
        if origin is None:
            resolved, kept = self._static(index, port, version), False
        else:
            id_ = core_vip_id(self._owner.uid, port.protocol, port.port, version)
            resolved, origin, kept = self._resolve(index, port, version, origin, self._before.get(id_))
        self._note(resolved.notes)
        if resolved.shortfall is not None:
            self._note([resolved.shortfall])
        check = self._spec.health_check
        unchecked = port.protocol is Protocol.UDP and check.port is None  # no connection can be made to it
        try:
            vip = self._vip(port, addresses, self._limited(resolved.backends))
        except ValidationError as error:
            problem = error.errors()[0]
            text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            self._note([finding(FindingReason.INTERNAL, f"port {port.port}/{port.protocol} is not programmed: {text}")])
            return None
        return CoreVip(
            owner=self._owner,
            vip=vip,
            origin=origin,
            kept=kept,
            shortfall=resolved.shortfall,
            policy=_choice(self._policy),
            check=None if unchecked else _check(check),
            check_port=check.port,
            rules=_rules(check),
        )

    def _limited(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Leave out what is too much: backends that take no new flows first, else the last ones."""
        node = self._snapshot.node
        most = node.limits.max_backends
        if len(backends) <= most:
            return backends
        by_use = sorted(backends, key=lambda backend: (backend.state is not BackendState.ACTIVE, backend.id))
        left_out = listed([backend.id for backend in by_use[most:]])
        limit = "" if most == MAX_BACKENDS else f" (limits.maxBackends of DataPlane {node.data_plane_name})"
        message = (
            f"spec.backends: {len(backends)} endpoints, of which a port of a VIP can have {most}{limit}; "
            f"left out: {left_out}; split the Service"
        )
        self._note([finding(FindingReason.TOO_MANY_BACKENDS, message, "spec.backends")])
        return tuple(sorted(by_use[:most], key=lambda backend: backend.id))

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
            when_no_backends=messages.Refusal(spec.when_no_backends.lower()),
            when_no_flow=messages.Refusal(spec.when_no_flow.lower()),
            scheduler=self._scheduler(),
            features=messages.FeatureLevel(self._snapshot.node.features),
            timeouts=_timeouts(spec.timeouts),
            drain_timeout=float(spec.drain_seconds),
            backends=backends,
        )

    def _origin(self, port: VipPort) -> Origin | None:
        service = self._spec.backends.service
        if service is None:
            return None
        # Only NAT can change the port.
        target = port.target_port if self._spec.forwarding is Forwarding.NAT else port.port
        return Origin(service=service.name, target=target)

    def _resolve(
        self, index: int, port: VipPort, version: int, origin: Origin, before: CoreVip | None
    ) -> tuple[Resolved, Origin, bool]:
        """Resolve a Service's endpoints; where the spec leads nowhere, go on with those of the last one that did.

        Returns also where they come from, and whether they are kept so.
        """
        resolved = self._of_service(index, port, version, origin)
        if before is None or not resolved.leads_nowhere:
            return resolved, origin, False
        self.looked_back = True
        last = before.origin or origin
        backends = self._of_service(index, port, version, last).backends
        backends = backends or keep(before.vip.backends, self._slices(last), self._forbidden)
        if not backends:
            return resolved, origin, False
        return Resolved(backends, resolved.shortfall, resolved.notes), last, True

    def _of_service(self, index: int, port: VipPort, version: int, origin: Origin) -> Resolved:
        wanted = Wanted(
            service=f"{self._owner.namespace}/{origin.service}",
            field=f"spec.ports[{index}]",
            port=port.port,
            protocol=port.protocol,
            target=origin.target,
            version=version,
        )
        service = self._snapshot.service((self._owner.namespace, origin.service))
        return from_slices(self._slices(origin), service, wanted, self._forbidden)

    def _slices(self, origin: Origin) -> tuple[Slice, ...]:
        return self._snapshot.slices.get((self._owner.namespace, origin.service), ())

    def _static(self, index: int, port: VipPort, version: int) -> Resolved:
        allowed = self._snapshot.node.static_endpoint_cidrs
        endpoints = list(enumerate(self._spec.backends.endpoints or ()))
        refused = [
            finding(
                FindingReason.ENDPOINT_NOT_ALLOWED,
                f"spec.backends.endpoints[{place}].address: {endpoint.address} lies in no network of the DataPlane's "
                "staticEndpointCIDRs and gets no traffic; ask its admin to add one",
                f"spec.backends.endpoints[{place}].address",
            )
            for place, endpoint in endpoints
            if endpoint.address.version == version and not any(endpoint.address in network for network in allowed)
        ]
        usable = [(place, e) for place, e in endpoints if any(e.address in network for network in allowed)]
        target = port.target_port if isinstance(port.target_port, int) else port.port
        resolved = from_static(usable, target, version, self._forbidden)
        notes = (*refused, *resolved.notes)
        first = notes[0] if resolved.shortfall is not None and not resolved.backends and notes else resolved.shortfall
        return Resolved(resolved.backends, first, notes)

    def _choose_policy(self) -> PolicySpec:
        name = self._spec.policy_name
        if not name:
            return DEFAULT_POLICY
        key = self._owner.namespace, name
        chosen = self._snapshot.policies.get(key)
        if (error := self._snapshot.unreadable_policies.get(key)) is not None:
            used = "the last one that could be read" if chosen else "lsq"
            self._note_policy(f"RLPolicy {'/'.join(key)} cannot be read, {used} is used: {error}")
        elif chosen is None:
            # The operator says the same of the spec; traffic is served meanwhile.
            self._note_policy(f"there is no RLPolicy {'/'.join(key)}, lsq is used; create it")
        return chosen or DEFAULT_POLICY

    def _overridden(self, chosen: PolicySpec) -> PolicySpec:
        """Put what the data plane was told in place of the heuristic, with the scheduler that goes with it."""
        asked = self._snapshot.override
        if not asked:
            return chosen
        said = f"`lb rl agent {asked}` was said to the data plane of this node"
        try:
            heuristic = Heuristic(policies.by_name(asked).name)
        except policies.UnknownPolicyError as error:
            self._note_policy(f"{said}: {error}; {chosen.heuristic} stays")
            return chosen
        self._note_policy(f"{said}: it is used in place of {chosen.heuristic}; `lb rl agent follow` ends that")
        return chosen.model_copy(update={"heuristic": heuristic, "scheduler": None})

    def _checked(self, chosen: PolicySpec) -> PolicySpec:
        """Say what the policy lacks on this node; without measurements a policy that needs them is off."""
        name = self._spec.policy_name
        if chosen.load is SchedulerLoad.ACTIVE and self._snapshot.node.features is not FeatureLevelName.FULL:
            self._note_policy(
                f"policy {name}: load Active needs features: full of the DataPlane; open flows are counted instead"
            )
        channels = policies.by_name(chosen.heuristic).channels
        if channels and self._snapshot.node.features is FeatureLevelName.OFF:
            self._note_policy(
                f"policy {name}: {chosen.heuristic} needs measurements, but the DataPlane has features: off; "
                f"the fallback {chosen.fallback} is used"
            )
            return chosen.model_copy(update={"mode": PolicyMode.OFF})
        return chosen

    def _scheduler(self) -> messages.Scheduler:
        type_ = self._scheduler_type()
        policy = self._policy
        if type_ is messages.SchedulerType.MAGLEV:
            policy, cut = capped_policy(policy, self._spec.policy_name or "", self._snapshot.node)
            self._note(cut)
        if self._spec.affinity is Affinity.CLIENT_IP:
            return messages.Scheduler(type=type_, table_size=policy.table_size)
        return messages.Scheduler(
            type=type_, load=messages.SchedulerLoad(policy.load.lower()), table_size=policy.table_size
        )

    def _scheduler_type(self) -> messages.SchedulerType:
        policy = self._policy
        if self._spec.affinity is Affinity.CLIENT_IP:
            return messages.SchedulerType.MAGLEV
        if policy.mode is PolicyMode.ACTIVE:
            return messages.SchedulerType(policy.effective_scheduler)
        return messages.SchedulerType(default_scheduler(Heuristic(policy.fallback)))

    def _note_policy(self, message: str) -> None:
        where = "spec.policyName"
        self._note([finding(FindingReason.POLICY, f"{where}: {message}", where)])

    def _note(self, what: Iterable[Finding]) -> None:
        self._notes.extend(found for found in what if found not in self._notes)


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


def _rules(check: HealthCheck) -> HealthRules:
    return HealthRules(
        panic_percent=check.panic_percent,
        max_failed_percent=check.max_failed_percent,
        fail_open=check.fail_open,
        slow_start=float(check.slow_start_seconds),
    )


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _timeouts(timeouts: FlowTimeouts) -> messages.Timeouts:
    return messages.Timeouts(
        **{name.removesuffix("_seconds"): float(seconds) for name, seconds in timeouts.model_dump().items()}
    )
