"""Finds what events don't tell: all there is at the start, and deletions that fell into a broken watch.

When a watch expires, kopf lists again and reports what is there; what was deleted meanwhile it doesn't report.
A list of names now and then finds that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from penstock_kube import ApiError, KubeClient, NotFound, Resource, key_of

from penstock_operator.store import Change, Store

log = structlog.get_logger(__name__)

INTERVAL = 600.0  # seconds between sweeps where nothing points to a gap


class Sweeper:
    """Compares the store with lists of the API server."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        resources: Iterable[Resource],
        tell: Callable[[Change], None],
        interval: float = INTERVAL,
    ) -> None:
        self._client = client
        self._store = store
        self._resources = tuple(resources)
        self._tell = tell
        self._interval = interval
        self._suspects: set[Resource] = set()
        self._wake = asyncio.Event()
        self.found = 0

    async def fill(self) -> None:
        """Take in all there is; decisions need the whole picture before the first is made."""
        for resource in self._resources:
            try:
                async for page in self._client.pages(resource):
                    for item in page.items:
                        self._store.put(resource, item)
            except NotFound:
                # ServiceCIDR is younger than the other kinds; our own kinds are checked for at the start.
                log.info("the API server does not know a kind", kind=resource.kind)

    def suspect(self, resource: Resource) -> None:
        """Say that a kind was listed again, so its watch had a gap."""
        self._suspects.add(resource)
        self._wake.set()

    async def run(self) -> None:
        """Sweep suspects soon and everything at intervals, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
                await asyncio.sleep(1.0)  # one list for a whole burst of signs
            except TimeoutError:
                self._suspects.update(self._resources)
            self._wake.clear()
            while self._suspects:
                await self._sweep(self._suspects.pop())

    async def _sweep(self, resource: Resource) -> None:
        before = self._store.uids(resource)
        present: set[tuple[tuple[str, str], str]] = set()
        try:
            async for page in self._client.pages(resource, metadata_only=True):
                present.update((key_of(item), item["metadata"].get("uid", "")) for item in page.items)
        except NotFound:
            return
        except ApiError as error:
            log.warning("sweep failed, trying again later", resource=resource.plural, error=str(error))
            return
        for key, uid in before.items():
            if (key, uid) not in present and (change := self._store.drop(resource, key, uid)) is not None:
                self.found += 1
                log.info("found a deletion that no event told of", kind=resource.kind, name="/".join(filter(None, key)))
                self._tell(change)
