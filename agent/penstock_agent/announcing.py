"""Announcement `L2` among several nodes: renews this node's Lease, watches the others', and decides.

The Lease is renewed whatever is announced: by it the operator knows that the agent lives.

A Lease says that an agent lives, but it is the data plane that forwards, and an agent may be away for a few
seconds while it is restarted or upgraded. So before a node without renewals counts as lost, its machine is asked:
a refused connection is an answer, too. Only silence, or a longer absence, lets its addresses move; connections
through it would break without need.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog
from penstock_api.dataplane import AnnouncementType
from penstock_api.names import AGENT_MANAGER, API_VERSION, DATAPLANE_LABEL, NODE_LABEL, node_lease_name
from penstock_kube import LEASES, ApiError, Key, KubeClient, Object, Reflector
from penstock_kube.lease import NodeLease
from pydantic import BaseModel

from penstock_agent import announcer
from penstock_agent.announcer import Address, Peers, View
from penstock_agent.boot import boot_id as this_boot
from penstock_agent.files import StateStore
from penstock_agent.sources.kubernetes import KubernetesSource

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
PROBE_SECONDS = 0.5
ANNOUNCED = "announced.json"
GRACE_FACTOR = 10  # times the Lease's duration: for this long a machine that answers keeps its addresses
PREFIX = node_lease_name("")  # of Leases; the DataPlaneNode's name follows
DATAPLANE_SECONDS = 10.0  # without a data plane after which this node stops to claim that it can announce


class Memory(BaseModel):
    """What was announced last, and in which boot: kept for a start without API server."""

    boot_id: str
    addresses: frozenset[Address]


class LeaseAnnouncer:
    """An `Announcer` that agrees with the other nodes' by way of Leases."""

    def __init__(
        self,
        client: KubeClient,
        source: KubernetesSource,
        on_change: Callable[[], None],
        *,
        dataplane: str,
        namespace: str,
        store: StateStore,
        lease_seconds: int,
        is_forwarding: Callable[[], bool] = lambda: True,
        probe_port: int = 9402,
        boot_id: str | None = None,
    ) -> None:
        self._client = client
        self._source = source
        self._notify = on_change
        self._dataplane = dataplane
        self._namespace = namespace
        self._store = store
        self._seconds = lease_seconds
        self._is_forwarding = is_forwarding
        self._probe_port = probe_port
        self._boot_id = boot_id or this_boot()
        self._peers = Peers(lease_seconds, lease_seconds * GRACE_FACTOR)
        self._renewals: dict[str, str] = {}
        self._live: frozenset[str] = frozenset()
        self._lease: NodeLease | None = None
        self._forwarded_at = time.monotonic()
        before = store.load(ANNOUNCED, Memory)
        self._rebooted = before is None or before.boot_id != self._boot_id
        self._announced = before.addresses if before and not self._rebooted else frozenset()
        self._given_up: frozenset[Address] = frozenset()
        self._watch = Reflector(
            client,
            LEASES,
            namespace=namespace,
            label_selector=f"{DATAPLANE_LABEL}={dataplane}",
            on_change=self._lease_changed,
            max_backoff=1.0,
        )

    @property
    def live(self) -> frozenset[str]:
        """Nodes that can announce, by the names of their DataPlaneNodes."""
        return self._live

    @property
    def connected(self) -> bool:
        """Whether our own renewals come back by the watch: then what it says of others is current, too."""
        return self._own is not None and self._own in self._live

    @property
    def _own(self) -> str | None:
        node = self._source.node
        return None if node is None or node.deleting else node.metadata.name

    @property
    def _announces(self) -> bool:
        node = self._source.node
        return node is not None and node.spec.announcement.type is AnnouncementType.L2

    def ages(self) -> dict[str, float]:
        """Seconds since the watch of Leases was last known to be current."""
        return {"leases": self._watch.age_seconds()}

    def announce(self, addresses: frozenset[Address], lost: frozenset[Address]) -> frozenset[Address]:
        """Choose this node's share of the addresses."""
        connected = self.connected
        if connected:
            self._rebooted = False
        # What was heard from another node while cut off stays given up until the Leases say otherwise.
        self._given_up = frozenset() if connected else self._given_up | lost
        draining = frozenset(node.metadata.name for node in self._source.nodes if node.spec.draining)
        view = View(
            node=self._own or "",
            addresses=addresses,
            live=announcer.candidates(self._live, draining),
            connected=connected,
            announced=self._announced,
            lost=self._given_up,
            rebooted=self._rebooted,
            draining=self._own in draining,
        )
        announced = announcer.announced(view)
        if announced != self._announced:
            log.info("announcement changed", addresses=sorted(map(str, announced)), live=sorted(self._live))
            self._store.put(ANNOUNCED, Memory(boot_id=self._boot_id, addresses=announced))
            self._announced = announced
        return announced

    async def run(self) -> None:
        """Renew, watch and judge until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.run())
            group.create_task(self._renew())
            group.create_task(self._judge())

    async def leave(self) -> None:
        """Delete our Lease: the others take over at once."""
        node = self._source.node
        if node is not None:
            await self._client.delete(LEASES, node_lease_name(node.metadata.name), self._namespace)
        self._announced = frozenset()
        await self._store.remove(ANNOUNCED)

    async def _renew(self) -> None:
        while True:
            if self._is_forwarding():
                self._forwarded_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._write()
            await asyncio.sleep(self._seconds / 3)

    async def _write(self) -> None:
        """Renew our Lease, or give it up where nothing forwards: then the others need not wait."""
        own = self._own
        try:
            if own is None:
                self._lease = None
            elif time.monotonic() - self._forwarded_at < DATAPLANE_SECONDS:
                self._lease = self._lease or self._make_lease(own)
                await self._lease.renew()
            elif self._lease is not None:
                await self._lease.release()
                self._lease = None
                log.warning("no data plane: the others announce in our place", seconds=DATAPLANE_SECONDS)
        except ApiError as error:
            log.warning("lease not renewed", error=str(error))

    def _make_lease(self, own: str) -> NodeLease:
        node = self._source.node
        assert node is not None  # noqa: S101 - it has the name `own`
        return NodeLease(
            self._client,
            node_lease_name(own),
            self._namespace,
            self._boot_id,
            duration_seconds=self._seconds,
            field_manager=AGENT_MANAGER,
            labels={
                DATAPLANE_LABEL: self._dataplane,
                **{k: v for k, v in node.metadata.labels.items() if k == NODE_LABEL},
            },
            owner={
                "apiVersion": API_VERSION,
                "kind": "DataPlaneNode",
                "name": own,
                "uid": node.metadata.uid,
            },
        )

    def _lease_changed(self, key: Key, lease: Object | None) -> None:
        name = key[1].removeprefix(PREFIX)
        if lease is None:
            self._renewals.pop(name, None)
        else:
            self._renewals[name] = str((lease.get("spec") or {}).get("renewTime"))
        self._peers.observe(self._renewals, time.monotonic())

    async def _judge(self) -> None:
        while True:
            await self._judge_once()
            await asyncio.sleep(TICK_SECONDS)

    async def _judge_once(self) -> None:
        now = time.monotonic()
        own = self._own
        connected = own is not None and own in self._peers.live(now)
        if connected and not self.connected:
            # Back after a while without news: nobody may be judged by what we missed.
            self._peers.reconnected(now)
        if connected and self._announces:
            await self._ask_doubtful(now)
        members = {node.metadata.name for node in self._source.nodes if not node.deleting}
        live = self._peers.live(now) & members
        if live != self._live:
            log.info("live nodes changed", live=sorted(live), lost=sorted(self._live - live))
            self._live = live
            self._notify()

    async def _ask_doubtful(self, now: float) -> None:
        addresses = {n.metadata.name: n.spec.nat_source.addresses for n in self._source.nodes}
        doubtful = [node for node in self._peers.doubtful(now) if node in self._live and node in addresses]
        answers = await asyncio.gather(*(machine_answers(addresses[node][0], self._probe_port) for node in doubtful))
        for node, answers_now in zip(doubtful, answers, strict=True):
            if answers_now:
                self._peers.vouch(node, now)


async def machine_answers(address: Address, port: int) -> bool:
    """Tell whether a machine is there: it accepts a connection, or refuses it."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(str(address), port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
