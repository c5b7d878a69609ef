"""From a key to its desired state: gather from the store, plan, apply. Each part is elsewhere; this joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network

import structlog
from penstock_api import (
    AddressPool,
    DataPlane,
    KubeObject,
    LoadBalancerVIP,
    Reason,
    RLPolicy,
    VipStatus,
    get_condition,
)
from penstock_api.conditions import Condition, ConditionStatus, ConditionType
from penstock_api.names import AGENT_ACCOUNT
from penstock_kube import (
    DAEMON_SETS,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICE_CIDRS,
    SERVICES,
    EventRecorder,
    Superseded,
)

from penstock_operator import kinds
from penstock_operator.apply import Writer
from penstock_operator.keys import Subject, WorkKey
from penstock_operator.plan import acceptance, allowed, status
from penstock_operator.plan.allocation import World
from penstock_operator.plan.daemonsets import ACCOUNT_ANNOTATION, Installation, agent_name
from penstock_operator.plan.dataplane import plan_data_plane
from penstock_operator.plan.facts import PodFacts
from penstock_operator.plan.handover import ServedVip
from penstock_operator.plan.ledger import Claim
from penstock_operator.plan.pools import Pools, pool_status
from penstock_operator.plan.reserved import Reserved
from penstock_operator.plan.view import DataPlaneView
from penstock_operator.store import Store, Unreadable, data_plane_of

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network
LookAgain = Callable[[WorkKey, float], None]


def now() -> datetime:
    """Return the time as the API server writes it."""
    return datetime.now(UTC).replace(microsecond=0)


class Reconciler:
    """Brings one object at a time to its desired state; called by the work queue, one call per key."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        events: EventRecorder,
        installation: Installation,
        look_again: LookAgain,
        reserved: tuple[Network, ...] = (),
    ) -> None:
        self._store = store
        self._writer = writer
        self._events = events
        self._installation = installation
        self._look_again = look_again
        self._extra_reserved = reserved
        self._world: tuple[int, World] | None = None

    async def __call__(self, key: WorkKey) -> None:
        """Handle one key."""
        handle = {
            Subject.VIP: self._vip,
            Subject.POLICY: self._policy,
            Subject.POOL: self._pool,
            Subject.DATA_PLANE: self._data_plane,
        }[key.subject]
        try:
            await handle(key)
        except Superseded:
            log.debug("object is gone, its events will tell", key=str(key))

    def world(self) -> World:
        """Return what addresses are decided by; computed anew only after a change of pools, nodes or Services."""
        revision = self._store.revision
        if self._world is None or self._world[0] != revision:
            networks = [n for found in self._store.all(SERVICE_CIDRS).values() for n in found]
            reserved = Reserved(
                self._store.all(NODES).values(), self._store.all(SERVICES).values(), networks, self._extra_reserved
            )
            pools = Pools(self._store.all(kinds.POOLS).values(), reserved)
            self._world = revision, World(pools, reserved, self._store.ledger)
        return self._world[1]

    async def _vip(self, key: WorkKey) -> None:
        vip = self._store.get(kinds.VIPS, (key.namespace, key.name))
        if isinstance(vip, Unreadable):
            await self._unreadable_vip(vip)
            return
        if not isinstance(vip, LoadBalancerVIP) or vip.deleting:
            return
        if vip.paused:
            wanted = status.paused_status(vip, self._node_views(vip, vip.status.data_plane_name), now())
            await self._write_vip(vip, wanted)
            return
        decided = self._store.as_decided(vip)
        verdict = acceptance.judge(decided, self._neighbours(vip), self.world())
        data_plane = verdict.data_plane.metadata.name if verdict.data_plane else None
        wanted = status.vip_status(decided, verdict, self._node_views(vip, data_plane), now())
        await self._write_vip(vip, wanted)

    async def _unreadable_vip(self, vip: Unreadable) -> None:
        """Say why a VIP can't be read: of a newer schema, or older than a rule. What it holds stays."""
        metadata = vip.raw["metadata"]
        before = status.read_status(vip.raw.get("status"))
        wanted = status.invalid_status(before, metadata.get("generation", 0), vip.message, now())
        if wanted != before:
            log.warning("object cannot be read", kind="LoadBalancerVIP", name=metadata["name"], error=vip.message)
            identity = {name: metadata[name] for name in ("name", "namespace", "uid")}
            await self._writer.raw_status(kinds.VIPS, identity, wanted)

    async def _write_vip(self, vip: LoadBalancerVIP, wanted: VipStatus) -> None:
        # Entered before the write, because other workers decide while it is under way.
        self._store.ledger.put(Claim.of(vip.model_copy(update={"status": wanted})))
        before = self._store.decide(vip, wanted)
        try:
            written = await self._writer.status(kinds.VIPS, vip, wanted)
        except BaseException:
            self._store.decide(vip, before)
            raise
        finally:
            current = self._store.get(kinds.VIPS, (vip.metadata.namespace, vip.metadata.name))
            if isinstance(current, LoadBalancerVIP):
                self._store.ledger.put(Claim.of(self._store.as_decided(current)))
            else:
                self._store.ledger.remove((vip.metadata.namespace, vip.metadata.name))
        if written:
            self._tell(vip, vip.status.conditions, wanted.conditions)
            self._tell_addresses(vip, before or vip.status, wanted)

    def _tell(self, obj: KubeObject, before: Sequence[Condition], after: Sequence[Condition]) -> None:
        """Say what changed to whoever looks at the object's Events."""
        for type_ in (ConditionType.ACCEPTED, ConditionType.PROGRAMMED, ConditionType.READY):
            found = get_condition(after, type_)
            if found is None or not _news(get_condition(before, type_), found):
                continue
            # True for another reason than itself is a warning: accepted, but without the policy it names, for example.
            good = found.status is ConditionStatus.TRUE and found.reason == str(type_)
            waiting = found.reason in (Reason.PROGRESSING, Reason.PAUSED)
            reason = str(type_) if good else found.reason
            self._events.record(
                kinds.reference(obj),
                type_="Normal" if good or waiting else "Warning",
                reason=reason,
                note=found.message or reason,
            )

    def _tell_addresses(self, vip: LoadBalancerVIP, before: VipStatus, after: VipStatus) -> None:
        """Record that a VIP has other addresses than before, which clients do not use, and who announces them."""
        if announced := status.new_announcers(vip.status, after):
            self._events.record(kinds.reference(vip), type_="Normal", reason=status.ANNOUNCED, note=announced)
        change = status.address_change(before, after)
        if change:
            log.info("addresses changed", vip=vip.key, change=change)
            self._events.record(kinds.reference(vip), type_="Warning", reason=status.ADDRESSES_CHANGED, note=change)

    def _neighbours(self, vip: LoadBalancerVIP) -> acceptance.Neighbours:
        namespace = vip.metadata.namespace
        service = vip.spec.backends.service
        policy = self._store.get(kinds.POLICIES, (namespace, vip.spec.policy_name)) if vip.spec.policy_name else None
        return acceptance.Neighbours(
            data_planes=self._data_planes(),
            service_exists=service is None or self._store.get(SERVICES, (namespace, service.name)) is not None,
            policy=policy if isinstance(policy, RLPolicy) else None,
            policy_names=self._policy_names(namespace) if policy is None and vip.spec.policy_name else (),
        )

    def _policy_names(self, namespace: str) -> tuple[str, ...]:
        return tuple(name for where, name in self._store.uids(kinds.POLICIES) if where == namespace)

    def _data_planes(self) -> dict[str, DataPlane]:
        return {name: data_plane for (_, name), data_plane in self._store.all(kinds.DATA_PLANES).items()}

    def _node_views(self, vip: LoadBalancerVIP, data_plane: str | None) -> list[status.NodeView]:
        nodes = {
            name: node
            for (_, name), node in self._store.all(kinds.DATA_PLANE_NODES).items()
            if node.spec.data_plane_name == data_plane
        }
        facts = {name: node for (_, name), node in self._store.all(NODES).items()}
        return status.node_views(nodes, facts, self._store.reports_of(vip.metadata.uid), self._store.beats)

    async def _policy(self, key: WorkKey) -> None:
        name = (key.namespace, key.name)
        policy = self._store.get(kinds.POLICIES, name)
        if isinstance(policy, RLPolicy) and not policy.deleting:
            users = len(self._store.users_of("policy", name))
            await self._writer.status(kinds.POLICIES, policy, status.policy_status(policy, users, now()))

    async def _pool(self, key: WorkKey) -> None:
        pool = self._store.get(kinds.POOLS, ("", key.name))
        if not isinstance(pool, AddressPool) or pool.deleting:
            return
        world = self.world()
        if key.name in world.pools.by_name:
            held = self._store.ledger.held_addresses()
            wanted = pool_status(pool, world.pools, held, world.reserved, now())
            if await self._writer.status(kinds.POOLS, pool, wanted):
                self._tell(pool, pool.status.conditions, wanted.conditions)

    async def _data_plane(self, key: WorkKey) -> None:
        view = self._data_plane_view(key.name)
        if view is None:
            return
        if view.data_plane is not None and not view.data_plane.deleting:
            await self._tell_allowed(view.data_plane, view.pods)
        plan = plan_data_plane(view, self._installation, now())
        await self._writer.data_plane(key.name, view.data_plane, plan, self._installation.namespace)
        for node, found in plan.silent:
            self._events.record(kinds.reference(node), type_="Warning", reason=found.reason, note=found.message)
        if view.data_plane is not None and plan.status is not None:
            self._tell(view.data_plane, view.data_plane.status.conditions, plan.status.conditions)
        if plan.look_again is not None:
            self._look_again(key, plan.look_again)

    async def _tell_allowed(self, data_plane: DataPlane, pods: Sequence[PodFacts]) -> None:
        pools, vips = (self._store.all(kind).values() for kind in (kinds.POOLS, kinds.VIPS))
        manifest = allowed.config_map(data_plane, pools, vips, self._installation.namespace)
        await self._writer.allowed(manifest, [pod for pod in pods if pod.forwards and not pod.deleting])

    def _data_plane_view(self, name: str) -> DataPlaneView | None:
        found = self._store.get(kinds.DATA_PLANES, ("", name))
        if isinstance(found, Unreadable):
            log.warning("object cannot be read", kind="DataPlane", name=name, error=found.message)
            return None  # what runs goes on running
        data_planes = self._data_planes()
        data_planes.pop(name, None)
        return DataPlaneView(
            name=name,
            data_plane=found,
            others=list(data_planes.values()),
            nodes={node: facts for (_, node), facts in self._store.all(NODES).items()},
            data_plane_nodes={
                node.spec.node_name: node
                for node in self._store.all(kinds.DATA_PLANE_NODES).values()
                if node.spec.data_plane_name == name
            },
            pods=[pod for pod in self._store.all(PODS).values() if pod.data_plane == name],
            daemon_sets=frozenset(
                daemon_set
                for (namespace, daemon_set), kept in self._store.all(DAEMON_SETS).items()
                if namespace == self._installation.namespace and data_plane_of(kept["metadata"].get("labels")) == name
            ),
            reports={
                report.metadata.name: report.report.node_name
                for report in self._store.all(kinds.REPORTS).values()
                if report.report.data_plane_name == name
            },
            beats=self._store.beats,
            account=self._agents_account(name),
            vips=lambda: self._served_vips(name),
        )

    def _agents_account(self, data_plane: str) -> str:
        """Return the UID of the agents' account; while there is none, the one that their pods were made for."""
        namespace = self._installation.namespace
        if account := self._store.get(SERVICE_ACCOUNTS, (namespace, AGENT_ACCOUNT)):
            return str(account)
        daemon_set = self._store.get(DAEMON_SETS, (namespace, agent_name(data_plane))) or {}
        metadata = (daemon_set.get("spec") or {}).get("template", {}).get("metadata") or {}
        return str((metadata.get("annotations") or {}).get(ACCOUNT_ANNOTATION, ""))

    def _served_vips(self, data_plane: str) -> list[ServedVip]:
        return [
            ServedVip(vip.key, vip.status.addresses, self._store.reports_of(vip.metadata.uid))
            for vip in self._store.all(kinds.VIPS).values()
            if vip.status.data_plane_name == data_plane
        ]


def _news(before: Condition | None, after: Condition) -> bool:
    """Return whether a condition changed in a way that is worth an Event."""
    if before is None:
        return after.status is ConditionStatus.TRUE or after.type == ConditionType.ACCEPTED
    return before.status is not after.status or before.reason != after.reason
