"""Lists the agents' Leases now and then, so that the store knows which agents live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from penstock_api.names import DATAPLANE_LABEL, node_lease_name
from penstock_kube import LEASES, ApiError, KubeClient

from penstock_operator.plan.heartbeats import Heartbeats
from penstock_operator.store import Store

log = structlog.get_logger(__name__)

INTERVAL = 5.0  # seconds; a watch would bring every renewal of every node
PREFIX = node_lease_name("")  # of Leases; the DataPlaneNode's name follows


class HeartbeatLister:
    """Keeps `store.beats`; calls `changed` with the names of DataPlaneNodes that live or are silent now."""

    def __init__(
        self, client: KubeClient, store: Store, namespace: str, changed: Callable[[frozenset[str]], None]
    ) -> None:
        self._client = client
        self._store = store
        self._namespace = namespace
        self._changed = changed
        self._heartbeats = Heartbeats()

    async def run(self) -> None:
        """List at intervals, until cancelled."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                log.warning("leases not listed, trying again", error=str(error))
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """List once."""
        leases, _ = await self._client.list(LEASES, self._namespace, label_selector=DATAPLANE_LABEL)
        renewals = {
            lease["metadata"]["name"].removeprefix(PREFIX): str((lease.get("spec") or {}).get("renewTime"))
            for lease in leases
        }
        before, after = self._store.beats, self._heartbeats.look(renewals, time.monotonic())
        self._store.beats = after
        changed = (before.beating ^ after.beating) | (before.silent ^ after.silent)
        if changed:
            self._changed(changed)
