"""What a source knows, and what follows from it for one node: values only, the last good of them is kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from penstock_api.dataplanenode import DataPlaneNodeSpec
from penstock_api.dataplanenodereport import Finding
from penstock_api.rlpolicy import PolicyMode, PolicySpec
from penstock_api.vip import LoadBalancerVIP
from penstock_embedded.messages import Backend, NatSource, Vip
from pydantic import BaseModel, ConfigDict

from penstock_agent.probes import Check, Target
from penstock_agent.slices import Service, Slice

Address = IPv4Address | IPv6Address
Name = tuple[str, str]  # namespace, name


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
    services: Mapping[Name, Service] | None = None  # of those that VIPs refer to; None: not known
    vip_addresses: frozenset[Address] = frozenset()  # of all VIPs of the cluster: no backend may have one
    unreadable: Mapping[Name, str] = field(default_factory=dict)  # VIPs that are there but not understood
    unreadable_policies: Mapping[Name, str] = field(default_factory=dict)
    override: str = ""  # policy that the data plane was told to have used on this node; no source knows it

    def service(self, name: Name) -> Service | None:
        """Return a Service; None if it does not exist, one without ports where Services are not known."""
        return Service() if self.services is None else self.services.get(name)


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


class Origin(Frozen):
    """Where the backends of a core VIP came from when its spec last led somewhere."""

    service: str
    target: int | str | None


class HealthRules(Frozen):
    """What health checks may do to the backends of a core VIP."""

    panic_percent: int = 50
    max_failed_percent: int = 100
    fail_open: bool = True
    slow_start: float = 0.0  # seconds


class CoreVip(Frozen):
    """One core VIP before health is known."""

    owner: Owner
    vip: Vip
    origin: Origin | None = None  # None: static endpoints, or a plan of version 0.1.0
    kept: bool = False  # the spec leads nowhere: the backends are those of `origin`
    shortfall: Finding | None = None  # why there are no backends, or they are kept
    policy: PolicyChoice
    check: Check | None  # None: the endpoint's readiness is all that counts
    check_port: int | None = None  # None: each backend's own
    rules: HealthRules = HealthRules()

    @cached_property
    def targets(self) -> dict[str, Target]:
        """What to check to know whether a backend is well, by its id; empty where nothing is checked."""
        if self.check is None:
            return {}
        return {b.id: Target(b.address, self.check_port or b.port, self.check) for b in self.vip.backends}

    def with_backends(self, backends: tuple[Backend, ...]) -> CoreVip:
        """Return the same with other backends."""
        fields = {name: getattr(self, name) for name in CoreVip.model_fields}  # a copy would keep the cached targets
        return CoreVip(**fields | {"vip": self.vip.model_copy(update={"backends": backends})})


class Findings(Frozen):
    """What there is to say about one VIP object."""

    owner: Owner
    faults: tuple[Finding, ...] = ()  # why it is not programmed as its spec says
    notes: tuple[Finding, ...] = ()  # what its user should know besides
    paused: bool = False

    @property
    def errors(self) -> tuple[str, ...]:
        """Messages of the faults."""
        return tuple(found.message for found in self.faults)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages of the notes."""
        return tuple(found.message for found in self.notes)


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

    @property
    def services(self) -> frozenset[Name]:
        """Services whose endpoints are the backends, those that specs do not name any more among them."""
        return frozenset((core.owner.namespace, core.origin.service) for core in self.vips if core.origin is not None)


def core_vip_id(uid: str, protocol: str, port: int, version: int) -> str:
    """Name a core VIP for ever: it names shared-memory objects, too."""
    return hashlib.sha256(f"{uid}/{protocol}/{port}/IPv{version}".encode()).hexdigest()[:16]
