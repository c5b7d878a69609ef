"""The handler behind the control socket: hands what blocks to one thread, where one change follows the other.

Packets have their threads in C and notice nothing of it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import TypeVar

import structlog
from penstock_core import DataplaneError
from penstock_node import NodeError

from penstock_embedded.announcements import Announcements
from penstock_embedded.boot import boot_id
from penstock_embedded.forwarder import Forwarder, StartError
from penstock_embedded.messages import (
    PROTOCOL_REVISION,
    PROTOCOL_VERSION,
    Announcement,
    ApplyResult,
    DesiredState,
    Dump,
    Error,
    Hello,
    Stats,
)
from penstock_embedded.server import RequestError
from penstock_embedded.settings import Settings

T = TypeVar("T")

log = structlog.get_logger()

STALL_SECONDS = 0.5  # between two looks at the watchdog
WATCH_SECONDS = 0.5  # between two looks at drains, at the device and at changes of the node


class Dataplane:
    """An embedded data plane, from its start to its end or withdrawal."""

    def __init__(self, settings: Settings) -> None:
        self._instance_id = uuid.uuid4().hex
        self._boot_id = boot_id()
        self._version = metadata.version("penstock")
        self._started = time.monotonic()
        self._forwarder = Forwarder(settings, self._instance_id)
        self._announcements = Announcements()
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="changes")

    def resume(self) -> None:
        """Forward again if an earlier process did; before there is an event loop, for speed."""
        self._forwarder.resume()

    async def watch(self) -> None:
        """Keep node and device as they should be; until cancelled."""
        for error in await self._announcements.update(self._forwarder.state.announcement):
            log.warning("not announced", error=error.message)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_node())
            tasks.create_task(self._watch_threads())

    async def _watch_threads(self) -> None:
        """Announce nothing while a thread makes no progress: another node forwards in this one's place."""
        silent = False
        while True:
            stalled = self._forwarder.stalled
            if bool(stalled) != silent:
                silent = bool(stalled)
                if silent:
                    log.error("nothing is announced: a thread makes no progress", thread=stalled)
                await self._announcements.update(Announcement() if silent else self._forwarder.state.announcement)
            await asyncio.sleep(STALL_SECONDS)

    async def _watch_node(self) -> None:
        while True:
            try:
                await self._in_thread(self._forwarder.maintain)
            except (NodeError, DataplaneError, OSError) as error:
                log.warning("upkeep failed: it is tried again", error=str(error))
            await asyncio.sleep(WATCH_SECONDS)

    async def close(self) -> None:
        """Let go of everything and change nothing on the node."""
        await self._announcements.close()
        await self._in_thread(self._forwarder.close)
        self._changes.shutdown()

    async def hello(self) -> Hello:
        """Say who this is."""
        self._require_progress()
        return Hello(
            protocol_version=PROTOCOL_VERSION,
            protocol_revision=PROTOCOL_REVISION,
            version=self._version,
            type="embedded",
            instance_id=self._instance_id,
            boot_id=self._boot_id,
            reattached_flows=self._forwarder.reattached_flows,
            generation=self._forwarder.state.generation,
        )

    async def apply(self, desired: DesiredState) -> ApplyResult:
        """Become what is desired."""
        self._require_progress()
        try:
            result = await self._in_thread(lambda: self._forwarder.become(desired))
        except StartError as failure:
            raise RequestError(failure.error) from failure
        errors = (*result.errors, *await self._announcements.update(self._forwarder.state.announcement))
        for error in errors:
            log.warning("not all of the node is as desired", field=error.field, error=error.message)
        return result.model_copy(update={"errors": errors})

    async def dump(self) -> Dump:
        """Tell the state in force."""
        statuses = await asyncio.to_thread(self._forwarder.vip_statuses)
        return Dump(instance_id=self._instance_id, generation=self._forwarder.state.generation, vips=statuses)

    async def stats(self) -> Stats:
        """Tell the counters."""
        self._require_progress()
        counters = await asyncio.to_thread(self._forwarder.stats)
        return Stats(
            instance_id=self._instance_id,
            uptime_seconds=time.monotonic() - self._started,
            packets=counters.get("packets", 0),
            forwarded=counters.get("forwarded", 0),
            dropped=counters.get("dropped", {}),
            flows=counters.get("flows", 0),
            flow_capacity=counters.get("flow_capacity", 0),
            half_open=counters.get("half_open", 0),
            recycled=counters.get("recycled", 0),
            evicted=counters.get("evicted", 0),
            queue_dropped=counters.get("queue_dropped", 0),
            findings=tuple(counters.get("findings", ())),
            lost_announcements=self._announcements.lost,
        )

    async def withdraw(self) -> None:
        """Remove everything from the node and forget the state; a later apply starts afresh."""
        await self._announcements.update(Announcement())
        try:
            await self._in_thread(self._forwarder.withdraw)
        except NodeError as error:
            fix = "run the commands named, then withdraw again"
            raise RequestError(Error(code="internal", field="node", message=str(error), fix=fix)) from error
        log.info("withdrawn from the node")

    def _require_progress(self) -> None:
        """Raise RequestError while a thread makes no progress, so that probes fail and the agent gives the node up."""
        if stalled := self._forwarder.stalled:
            message = f"{stalled} has made no progress for seconds"
            fix = "the data plane starts again by itself if that goes on; see its log"
            raise RequestError(Error(code="stalled", message=message, fix=fix))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._changes, function)
