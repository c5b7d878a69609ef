"""Writes to the API server what `reports` says: on change, at most once a second. And this node's leaving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from penstock_api.conditions import ConditionType, Reason, get_condition
from penstock_api.dataplanenode import DataPlaneNode, DataPlaneNodeStatus
from penstock_api.dataplanenodereport import DataPlaneNodeReport, NodeReport, VipReport
from penstock_api.names import AGENT_MANAGER, API_VERSION, DATAPLANE_LABEL, NODE_FINALIZER, NODE_LABEL, report_name
from penstock_kube import ApiError, KubeClient, NotFound, Object, Resource

from penstock_agent import reports
from penstock_agent.agent import Agent
from penstock_agent.announcer import Address
from penstock_agent.errors import DataPlaneError
from penstock_agent.reports import NodeFacts, Trouble
from penstock_agent.shortages import Shortages
from penstock_agent.sources.kubernetes import KubernetesSource
from penstock_agent.views import VERSION

log = structlog.get_logger(__name__)

NODES = Resource(*DataPlaneNode.resource())
REPORTS = Resource(*DataPlaneNodeReport.resource())

WRITE_SECONDS = 1.0  # between two writes
COUNTS_SECONDS = 10.0  # between two writes for nothing but the number of flows
TROUBLE_SECONDS = 5.0  # a fallback for less is a hiccup that nobody needs to hear of


class Reporter:
    """Keeps this node's objects at the API server as its agent has them."""

    def __init__(
        self,
        client: KubeClient,
        agent: Agent,
        source: KubernetesSource,
        *,
        shortages: Shortages,
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._agent = agent
        self._source = source
        self._shortages = shortages
        self._leave = leave
        self._in_force: dict[str, int] = {}
        self._announced: frozenset[Address] = frozenset()  # by the state that the data plane took last
        self._written: dict[str, NodeReport | None] = {}  # None: to be written again
        self._status: DataPlaneNodeStatus | None = None
        self._counted_at = float("-inf")
        self._owner = ""  # uid of the DataPlaneNode that all this was written for
        self._lists = 0  # of the DataPlaneNodes, when all this was written
        self.errors = 0

    async def run(self) -> None:
        """Look once a second whether there is something to write."""
        while True:
            try:
                await self.write()
            except ApiError as error:
                self.errors += 1
                log.warning("report not written, trying again", error=str(error))
            except DataPlaneError as error:
                log.warning("not withdrawn yet, trying again", error=str(error))
            except Exception:  # what cannot be reported must not end what is forwarded
                self.errors += 1
                log.exception("report not made, trying again")
            await asyncio.sleep(WRITE_SECONDS)

    async def write(self) -> None:
        """Write what changed."""
        node = self._source.node
        if node is None:
            return
        if node.metadata.uid != self._owner:
            self._owner, self._written, self._status = node.metadata.uid, {}, None
        if self._source.lists != self._lists:
            # Behind a new list the API server may have an older state than what was written.
            self._lists, self._written, self._status = self._source.lists, dict.fromkeys(self._written), None
        if node.deleting:
            await self._go(node)
            return
        if NODE_FINALIZER not in node.metadata.finalizers:
            await self._set_finalizers(node, (*node.metadata.finalizers, NODE_FINALIZER))
        entries = self._entries()
        await self._write_shards(node, reports.shards(node, entries))
        await self._write_status(node, entries)

    def _entries(self) -> tuple[VipReport, ...]:
        agent = self._agent
        if agent.plan is None or agent.outcome is None:
            return ()
        if agent.link.answered:
            self._in_force = {core.owner.uid: core.owner.generation for core in agent.plan.vips}
        found = reports.vip_reports(agent.plan, agent.outcome, self._in_force, agent.link.result, self._troubles())
        return reports.with_announcements(found, agent.plan, self._announcing())

    def _announcing(self) -> frozenset[Address]:
        """Return what the data plane announces: the operator waits for it before it replaces a data plane."""
        link = self._agent.link
        if link.answered:
            self._announced = self._agent.announced
        lost = frozenset(link.stats.lost_announcements) if link.stats else frozenset()
        return self._announced - lost if link.hello is not None else frozenset()

    def _troubles(self) -> dict[str, Trouble]:
        now = time.monotonic()
        return {
            vip: Trouble(steering.reason, steering.error)
            for vip, steering in self._agent.loop.vips.items()
            if steering.reason and steering.troubled_at is not None and now - steering.troubled_at > TROUBLE_SECONDS
        }

    async def _write_shards(self, node: DataPlaneNode, wanted: dict[str, NodeReport]) -> None:
        for name, report in wanted.items():
            if self._written.get(name) != report:
                body: Object = {"metadata": _owned(node, name), "report": report.to_dict()}
                await self._client.apply(REPORTS, body, field_manager=AGENT_MANAGER)
                self._written[name] = report
        for name in self._written.keys() - wanted.keys():
            await self._client.delete(REPORTS, name)
            del self._written[name]

    async def _write_status(self, node: DataPlaneNode, entries: tuple[VipReport, ...]) -> None:
        agent, link = self._agent, self._agent.link
        facts = NodeFacts(
            hello=link.hello,
            stats=link.stats,
            link_error=link.error,
            source_error=self._source.error,
            findings=self._agent.node_findings,
            result=link.result,
            settled=link.settled or agent.plan is None,
            troubles=self._troubles(),
            shortages=self._shortages.look(link.stats, time.monotonic()),
            agent_version=VERSION,
        )
        if _overruled(node):
            self._status = None  # written anew until the watch shows it
        base = node if self._status is None else node.model_copy(update={"status": self._status})
        status = reports.node_status(base, entries, facts, datetime.now(UTC))
        if self._status is not None and not _is_news(status, self._status, time.monotonic() - self._counted_at):
            return
        metadata = {"name": node.metadata.name, "uid": node.metadata.uid}
        body: Object = {"metadata": metadata, "status": status.to_dict()}
        await self._client.apply(NODES, body, field_manager=AGENT_MANAGER, subresource="status")
        self._status, self._counted_at = status, time.monotonic()

    async def _go(self, node: DataPlaneNode) -> None:
        """Leave the node: everything is withdrawn before the object may go."""
        if NODE_FINALIZER not in node.metadata.finalizers:
            return
        await self._agent.withdraw()
        await self._leave()
        # After a restart we do not know what was written; the one that is always there will do, its owner's end
        # takes the rest along.
        for name in {*self._written, report_name(node.metadata.name, 0)}:
            await self._client.delete(REPORTS, name)
        rest = tuple(f for f in node.metadata.finalizers if f != NODE_FINALIZER)
        await self._set_finalizers(node, rest)
        log.info("left the data plane", node=node.metadata.name)

    async def _set_finalizers(self, node: DataPlaneNode, finalizers: tuple[str, ...]) -> None:
        metadata = {"resourceVersion": node.metadata.resource_version, "finalizers": list(finalizers)}
        try:
            await self._client.patch(NODES, node.metadata.name, {"metadata": metadata})
        except NotFound:
            log.info("the DataPlaneNode is gone already", node=node.metadata.name)


def _overruled(node: DataPlaneNode) -> bool:
    """Return whether the operator wrote that this agent does not renew its Lease."""
    ready = get_condition(node.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == Reason.AGENT_SILENT


def _owned(node: DataPlaneNode, name: str) -> Object:
    """Metadata of an object that goes with its DataPlaneNode."""
    labels = {key: value for key, value in node.metadata.labels.items() if key in (DATAPLANE_LABEL, NODE_LABEL)}
    owner = {
        "apiVersion": API_VERSION,
        "kind": DataPlaneNode.info.kind,
        "name": node.metadata.name,
        "uid": node.metadata.uid,
    }
    return {"name": name, "labels": labels, "ownerReferences": [owner]}


def _is_news(status: DataPlaneNodeStatus, before: DataPlaneNodeStatus, age: float) -> bool:
    """Tell whether a status is worth a write: counts of flows always move, so these alone are written now and then."""
    if status == before:
        return False
    counts = {"flows": before.flows, "summary": before.summary}
    same_vips = status.summary.vips == before.summary.vips
    return age >= COUNTS_SECONDS or not same_vips or status.model_copy(update=counts) != before
