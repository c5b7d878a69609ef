"""Keeps a data plane at its desired state, through restarts of either side.

The link sends a state when it differs from what it knows to be in force, and never otherwise. What is in force it
remembers on disk as (instance, generation, digest): after its own restart it finds a data plane that is already
right and leaves it alone; after the data plane's, which is noticed by the instance id, it replays the state. Where
nothing can be kept on disk, a restart of its own costs one apply.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

import structlog
from penstock_embedded.messages import ApplyResult, DesiredState, Dump, Hello, Stats
from pydantic import BaseModel

from penstock_agent.boot import boot_id
from penstock_agent.dataplane import DataPlane
from penstock_agent.errors import DataPlaneError, DataPlaneUnreachableError
from penstock_agent.files import StateStore

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 0.5  # between two looks at an idle data plane
SHORTEST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0
REFUSED_RETRY_SECONDS = 5.0  # a state refused in part or whole is offered again: ports may have become free
IN_FORCE = "applied.json"
DUMP_SECONDS = 10.0  # slots change only with an apply or at the end of a drain


class InForce(BaseModel):
    """The state that a data plane is known to have."""

    instance_id: str
    generation: int
    digest: str
    boot_id: str = ""  # of the machine; nothing on it outlives that


class Link:
    """Runs until cancelled; `want` may be called at any time and only the latest state counts."""

    def __init__(
        self, dataplane: DataPlane, store: StateStore, *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._dataplane = dataplane
        self._store = store
        self._on_change = on_change
        self._in_force = store.load(IN_FORCE, InForce)
        self._boot_id = boot_id()
        self._wanted: DesiredState | None = None
        self._digest = ""
        self._answered = "none"
        self._wake = asyncio.Event()
        self._dump_due = 0.0
        self._offer_due = 0.0
        self.hello: Hello | None = None  # None while the data plane cannot be reached
        self.dump: Dump | None = None  # kept from before while it cannot be reached
        self.stats: Stats | None = None
        self.result: ApplyResult | None = None  # of the last apply
        self.error = ""  # why the data plane is not as wanted, "" when it is
        self.applies = 0
        self.failures = 0

    def want(self, desired: DesiredState) -> None:
        """Set the state to be kept; its generation is the link's business."""
        digest = _digest(desired)
        if digest != self._digest:
            self._wanted, self._digest = desired, digest
            self._offer_due = 0.0
            self._wake.set()

    def reapply(self) -> None:
        """Send the state again although nothing changed: an address given up may be announced again."""
        self._in_force = self._in_force and self._in_force.model_copy(update={"digest": ""})
        self._offer_due = 0.0
        self._wake.set()

    def refresh(self) -> None:
        """Ask for a new dump soon: slots or objects are not what the last one said."""
        self._dump_due = 0.0
        self._wake.set()

    @property
    def settled(self) -> bool:
        """Tell whether the data plane has the wanted state."""
        return self.hello is not None and self._is_right()

    @property
    def answered(self) -> bool:
        """Tell whether the data plane took the wanted state, be it that it refused parts of it."""
        return self.settled or (self.hello is not None and self._answered == self._digest)

    async def withdraw(self) -> None:
        """Have everything taken off the node, and forget what was in force.

        Raises DataPlaneError if that fails; a data plane that cannot be reached need not, if it was told nothing yet.
        """
        self._wanted, self._digest = None, ""
        try:
            await self._dataplane.withdraw()
        except DataPlaneUnreachableError as error:
            if self._has_told():
                raise
            log.info("no data plane, and nothing to withdraw", error=str(error))
        self._in_force = None
        await self._store.remove(IN_FORCE)

    async def run(self) -> None:
        """Connect, keep, reconnect."""
        retry = SHORTEST_RETRY_SECONDS
        while True:
            try:
                await self._connect()
                retry = SHORTEST_RETRY_SECONDS
                while True:
                    await self._step()
            except DataPlaneError as error:
                self._lost(error)
            await asyncio.sleep(retry)
            retry = min(retry * 2, LONGEST_RETRY_SECONDS)

    async def _connect(self) -> None:
        hello = await self._dataplane.hello()
        self.stats = await self._dataplane.stats()  # what it asks for is part of what it should be
        self.hello = hello
        self.error, self._answered = "", "none"
        log.info(
            "data plane connected",
            instance=self.hello.instance_id,
            generation=self.hello.generation,
            reattached_flows=self.hello.reattached_flows,
        )
        self._dump_due = 0.0
        self._offer_due = 0.0
        self._on_change()

    async def _step(self) -> None:
        """Do the one thing that is due, or wait for a reason to."""
        now = time.monotonic()
        if self._wanted is not None and not self._is_right() and now >= self._offer_due:
            await self._offer(self._wanted)
        elif now >= self._dump_due:
            self.dump = await self._dataplane.dump()
            self._dump_due = now + DUMP_SECONDS
            self._on_change()
        else:
            await self._watch()

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            before = self.stats
            self.stats = await self._dataplane.stats()
            if self.hello is not None and self.stats.instance_id != self.hello.instance_id:
                raise DataPlaneUnreachableError("the data plane was replaced") from None
            if before is None or _asks(before) != _asks(self.stats):
                self._on_change()

    async def _offer(self, wanted: DesiredState) -> None:
        hello, digest = self.hello, self._digest
        if hello is None:
            raise DataPlaneUnreachableError("not connected")
        last = max(hello.generation or 0, self._in_force.generation if self._in_force else 0)
        desired = wanted.model_copy(update={"generation": last + 1})
        self._offer_due = time.monotonic() + REFUSED_RETRY_SECONDS
        self.applies += 1
        if not self._has_told():  # known before anything is on the node
            told = InForce(instance_id=hello.instance_id, generation=last, digest="", boot_id=self._boot_id)
            self._in_force = told
            await self._store.save(IN_FORCE, told)
        try:
            self.result = await self._dataplane.apply(desired)
        except DataPlaneError as error:
            self.failures += 1
            if isinstance(error, DataPlaneUnreachableError):
                raise
            self.error = str(error)
            log.warning("data plane refused the state", error=str(error))
            self._on_change()
            return
        self._accepted(
            InForce(instance_id=hello.instance_id, generation=desired.generation, digest=digest, boot_id=self._boot_id)
        )

    def _accepted(self, in_force: InForce) -> None:
        result = self.result
        assert result is not None  # noqa: S101 - set by the only caller
        refused = [f"{vip.id}: {vip.error.message}" for vip in result.vips if vip.error]
        refused += [error.message for error in result.errors]
        self.hello = self.hello and self.hello.model_copy(update={"generation": in_force.generation})
        # A state taken in part is offered again after a while, so it is not remembered as right.
        self._remember(in_force if not refused else in_force.model_copy(update={"digest": ""}))
        self._answered = in_force.digest
        self.error = "; ".join(refused[:3])
        self.failures += bool(refused)
        self._dump_due = 0.0
        log.info("state applied", generation=in_force.generation, changed=result.changed, refused=refused)
        self._on_change()

    def _remember(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._store.put(IN_FORCE, in_force)

    def _has_told(self) -> bool:
        """Tell whether a data plane may have been told a state since the machine was booted. If in doubt, yes."""
        if self._in_force is None:
            return self._store.found(IN_FORCE)
        return self._in_force.boot_id in ("", self._boot_id)

    def _is_right(self) -> bool:
        return (
            self._in_force is not None
            and self.hello is not None
            and self._in_force.instance_id == self.hello.instance_id
            and self._in_force.generation == self.hello.generation
            and self._in_force.digest == self._digest
        )

    def _lost(self, error: DataPlaneError) -> None:
        if self.hello is not None or not self.error:
            log.warning("data plane lost", error=str(error))
        self.hello = None
        self.error = str(error)
        self._on_change()


def _asks(stats: Stats) -> tuple[object, ...]:
    """Return what of the counters is a reason to compute the state again."""
    return stats.lost_announcements, stats.policy


def _digest(desired: DesiredState) -> str:
    return hashlib.sha256(desired.model_copy(update={"generation": 0}).model_dump_json().encode()).hexdigest()
