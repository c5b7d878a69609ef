"""The handler behind the control socket of a VPP: what the agent says, made so in VPP, one change after the other.

VPP forwards, remembers its VIPs in the arena and needs nothing of this process but changes. What is remembered here, in
a file beside the arena, is what the arena has not: names that people gave to VIPs and backends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import structlog
from penstock_embedded import allowed, native, state
from penstock_embedded.announcements import Announcements
from penstock_embedded.boot import boot_id
from penstock_embedded.messages import (
    PROTOCOL_REVISION,
    PROTOCOL_VERSION,
    Announcement,
    ApplyResult,
    DesiredState,
    Dump,
    Error,
    Hello,
    NatSource,
    Stats,
    Vip,
    VipResult,
    VipStatus,
)
from penstock_embedded.plan import Change, RemoveVip, SetNode, SetSources, SetVip, announceable, plan, warnings
from penstock_embedded.plumbing import Plumbed, occupied
from penstock_embedded.refusals import Bounds
from penstock_embedded.server import RequestError
from penstock_embedded.state import State
from penstock_node import NodeError

from penstock_vpp import cards, fields
from penstock_vpp.api import Api, Instance, VppAwayError, VppError
from penstock_vpp.settings import Settings
from penstock_vpp.wire import Wire

T = TypeVar("T")

log = structlog.get_logger()

WATCH_SECONDS = 1.0
SILENT_SECONDS = 3.0  # after which nothing is announced for a VPP that is away: another node forwards
AWAY_SECONDS = 10.0  # until then it may be starting again
STATE_NAME = "penstock.state"
ARENA_NAME = "penstock.arena"

FIXES = {
    "conflict": "wait until the VIP that holds it has drained, or choose another address or port",
    "exhausted": "give the `lb-rl` section of startup.conf more flows, vips or slots, and restart VPP",
    "unreachable": "see whether VPP runs; the agent tries again",
    "unsupported": "remove the VIP and add it under another id",
}


class VppDataplane:
    """The load balancer of one VPP, through restarts of VPP and of this process."""

    def __init__(self, settings: Settings) -> None:
        self._api = Api(settings.vpp_socket)
        self._wire: Wire | None = None
        if settings.wire:
            self._wire = Wire(self._api, settings.vpp_dir, settings.interfaces, lead_vips=not settings.cards)
        self._announcements = Announcements()
        self._started = time.monotonic()
        self._boot_id = boot_id()
        self._instance: Instance | None = None
        self._away_since: float | None = None
        self._shm_dir = settings.shm_dir
        self._allowed_vips = settings.allowed_vips
        self._state = State()
        self._keeper = state.Keeper()
        self._calls = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vpp")

    async def watch(self) -> None:
        """Notice a VPP that has come back, before anybody asks, and keep the node as it should be; until cancelled."""
        announcing = False
        served = time.monotonic()
        while True:
            try:
                await self._in_thread(self._maintain)
            except RequestError as error:
                log.warning("VPP is away, or without a wire to the node", error=error.error.message)
                if announcing and time.monotonic() - served >= SILENT_SECONDS:
                    announcing = False
                    log.warning("nothing is announced: VPP does not forward")
                    await self._announcements.update(Announcement())
            except NodeError as error:
                log.warning("upkeep failed: it is tried again", error=str(error))
            else:
                served = time.monotonic()
                if not announcing:  # of an earlier process, or before VPP was away
                    announcing = True
                    await self._announce(self._state.announcement)
            await asyncio.sleep(WATCH_SECONDS)

    async def close(self) -> None:
        """Hang up; VPP goes on."""
        await self._announcements.close()
        await asyncio.get_running_loop().run_in_executor(self._calls, self._api.close)
        self._calls.shutdown()

    async def hello(self) -> Hello:
        """Say who VPP is."""
        instance = await self._in_thread(self._greet)
        return Hello(
            protocol_version=PROTOCOL_VERSION,
            protocol_revision=PROTOCOL_REVISION,
            version=metadata.version("penstock"),
            type="vpp",
            instance_id=instance.instance_id,
            boot_id=self._boot_id,
            reattached_flows=instance.attached_flows,
            generation=self._state.generation,
        )

    async def apply(self, desired: DesiredState) -> ApplyResult:
        """Become what is desired."""
        result = await self._in_thread(lambda: self._become(desired))
        errors = (*result.errors, *await self._announce(self._state.announcement))
        for error in errors:
            log.warning("not all of the node is as desired", field=error.field, error=error.message)
        return result.model_copy(update={"errors": errors})

    async def dump(self) -> Dump:
        """Tell the state in force."""
        return await self._in_thread(self._dump)

    async def stats(self) -> Stats:
        """Tell the counters."""
        stats = await self._in_thread(self._stats)
        return stats.model_copy(update={"lost_announcements": self._announcements.lost})

    async def withdraw(self) -> None:
        """Remove everything from VPP and forget the state; it forwards again when VPP is started anew.

        A VPP that has been away for AWAY_SECONDS, or never came, is not waited for: what it left behind is removed.
        """
        await self._announcements.update(Announcement())
        try:
            await self._in_thread(self._withdraw)
        except NodeError as error:
            fix = "run the commands named, then withdraw again"
            raise RequestError(Error(code="internal", field="node", message=str(error), fix=fix)) from error
        log.info("withdrawn from VPP")

    async def _announce(self, desired: Announcement) -> tuple[Error, ...]:
        if self._wire is not None:
            return await self._announcements.update(desired)
        if not desired.addresses:
            return ()
        fix = "use announcement None, and routes to this node"
        return (Error(code="unsupported", field="announcement", message="VPP announces no VIPs", fix=fix),)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._calls, function)
        except VppError as error:
            raise RequestError(_error(error)) from error

    # ---- everything below runs in the one thread

    def _follow(self) -> Instance:
        """Return who runs. What an earlier VPP was told counts no more, but for names: the agent says it again."""
        try:
            instance = self._api.instance()
        except VppAwayError:
            self._away_since = self._away_since or time.monotonic()
            raise
        self._away_since = None
        if self._instance is None or instance.instance_id != self._instance.instance_id:
            remembered = state.load(instance.directory / STATE_NAME)
            known = {native.vip_identifier(each.id) for each in self._api.vips()}
            going = remembered.vips | remembered.removing
            self._state = State(
                backend_names=remembered.backend_names,
                removing={name: vip for name, vip in going.items() if name in known},
                announcement=remembered.announcement,
            )
            self._instance = instance
            log.info("VPP found", instance_id=instance.instance_id, flows=instance.attached_flows)
        return instance

    def _greet(self) -> Instance:
        instance = self._follow()
        if self._wire is not None:
            self._wire.check()
        return instance

    def _maintain(self) -> None:
        """Follow VPP and drains that end; now and then repair what others change on the node."""
        instance = self._follow()
        self._keeper.again()
        if self._state.removing and self._state.generation is not None:
            known = {native.vip_identifier(each.id) for each in self._api.vips()}
            left = {name: vip for name, vip in self._state.removing.items() if name in known}
            if left != self._state.removing:
                self._state = self._state.model_copy(update={"removing": left})
                self._keeper.save(instance.directory / STATE_NAME, self._state)
                self._lead(self._state.nat_sources or ())
        if self._wire is not None:
            self._wire.repair()

    def _lead(self, sources: tuple[NatSource, ...]) -> Plumbed:
        """Have the node lead packets to what is in force."""
        if self._wire is None:
            return Plumbed(changed=False, new_device=False, errors=())
        return self._wire.lead(self._state.addresses_beside(sources), sources)

    def _become(self, desired: DesiredState) -> ApplyResult:
        if not self._api.instance().enabled:
            self._api.enable()
        instance = self._follow()
        found = {native.vip_identifier(each.id) for each in self._api.vips() if not each.removing}
        taken = occupied(desired, self._state) if self._wire is not None else {}
        planned = plan(desired, self._state, found, Bounds(taken, allowed.load(self._allowed_vips)))
        refused = dict(planned.refused)
        node = list(planned.errors)
        if any(isinstance(change, SetSources) for change in planned.changes):
            # Replies must find VPP before the first flow goes out: the node would answer them with RST.
            node += self._lead(desired.nat_sources).errors
        for change in planned.changes:
            try:
                self._perform(change)
            except VppError as error:
                if error.code == "unreachable":
                    raise
                if isinstance(change, SetVip):
                    refused[change.vip.id] = _error(error)
                else:
                    node.append(_error(error))
            else:
                self._note(change)
        self._api.publish()  # those who applied something may read its frames at once
        plumbed = self._lead(self._state.nat_sources or ())
        node += [error for error in plumbed.errors if error not in node]
        announcement, errors = announceable(desired, self._state)
        node += errors
        update = {"generation": desired.generation, "announcement": announcement}
        self._state = self._state.model_copy(update=update)
        self._keeper.save(instance.directory / STATE_NAME, self._state)
        return ApplyResult(
            generation=desired.generation,
            changed=bool(planned.changes) or plumbed.changed,
            vips=tuple(VipResult(id=vip.id, error=refused.get(vip.id), warnings=warnings(vip)) for vip in desired.vips),
            errors=tuple(node),
        )

    def _perform(self, change: Change) -> None:
        match change:
            case SetNode():
                self._api.set_node(bytes.fromhex(change.scheduler_key), change.nodes)
            case SetSources():
                self._api.set_sources([fields.source(each) for each in change.sources])
            case SetVip():
                self._api.set_vip(fields.vip(change.vip))
            case RemoveVip():
                self._api.remove_vip(native.vip_number(change.id))

    def _note(self, change: Change) -> None:
        now = self._state
        match change:
            case SetNode():
                update: dict[str, object] = {"scheduler_key": change.scheduler_key, "nodes": change.nodes}
            case SetSources():
                update = {"nat_sources": change.sources}
            case SetVip(vip):
                names = {native.backend_number(each.id): each.id for each in vip.backends}
                update = {
                    "vips": now.vips | {vip.id: vip},
                    "removing": _without(now.removing, vip.id),
                    "backend_names": now.backend_names | names,
                }
            case RemoveVip(gone):
                removed = {gone: now.vips[gone]} if gone in now.vips else {}
                update = {"vips": _without(now.vips, gone), "removing": now.removing | removed}
        self._state = now.model_copy(update=update)

    def _dump(self) -> Dump:
        instance = self._follow()
        now = self._state
        rows: list[VipStatus] = []
        names: dict[int, str] = {}
        for details in sorted(self._api.vips(), key=lambda each: int(each.id)):
            backends = self._api.backends(details.id)
            names |= {each.backend.id: now.backend_names.get(each.backend.id, "") for each in backends}
            key = now.key_of(native.vip_identifier(details.id))
            rows.append(fields.vip_status(details, backends, key, now.backend_names))
        in_use = {number: name for number, name in names.items() if name}
        self._state = now.model_copy(update={"backend_names": in_use})  # those that are gone are forgotten
        return Dump(instance_id=instance.instance_id, generation=now.generation, vips=tuple(rows))

    def _stats(self) -> Stats:
        instance = self._follow()
        uptime = time.monotonic() - self._started
        if not instance.enabled:
            nothing = dict.fromkeys(("packets", "forwarded", "flows", "flow_capacity", "half_open"), 0)
            return Stats(
                instance_id=instance.instance_id, uptime_seconds=uptime, dropped={}, policy=instance.policy, **nothing
            )
        reply = self._api.stats()
        problems = (self._keeper.problem,) if self._keeper.problem else ()
        blocked = self._wire.blocked if self._wire is not None else ()
        return Stats(
            instance_id=instance.instance_id,
            findings=(*_missing_objects(instance.directory, self._state), *problems, *blocked),
            uptime_seconds=uptime,
            packets=reply.packets,
            forwarded=reply.forwarded,
            dropped=fields.dropped(reply),
            flows=reply.flows,
            flow_capacity=reply.flow_capacity,
            half_open=reply.half_open,
            recycled=reply.flows_recycled,
            evicted=reply.flows_evicted,
            policy=instance.policy,
        )

    def _withdraw(self) -> None:
        try:
            directory = self._follow().directory
            self._api.disable()
        except VppAwayError as error:
            if self._away_since is None or time.monotonic() - self._away_since < AWAY_SECONDS:
                raise
            log.warning("withdrawing what VPP has left, without it", error=str(error))
            directory = self._instance.directory if self._instance is not None else self._shm_dir
            _unlink_objects(directory)
        if self._wire is not None:
            self._wire.withdraw(directory, vpp_is_away=self._away_since is not None)
        self._keeper.forget(directory / STATE_NAME)
        self._state = State()


def _missing_objects(directory: Path, state: State) -> Iterator[str]:
    """Say what VPP goes on without, for want of shared memory."""
    if not (directory / ARENA_NAME).exists():
        yield f"{directory}: VPP has no flow arena there; flows end with VPP: free shared memory, then restart VPP"
    unshown = [each.key for name, each in state.vips.items() if not (directory / f"penstock.{name}.frames").exists()]
    if unshown:
        yield f"{directory}: no frames of {len(unshown)} VIPs, {unshown[0]} among them; free shared memory"


def _unlink_objects(directory: Path) -> None:
    """Remove arena, frames and actions of a VPP that is gone."""
    for left in directory.glob("penstock.*"):
        if left.name not in (STATE_NAME, cards.RECORD_NAME):  # which have to tell what else is to be undone
            left.unlink(missing_ok=True)


def _without(vips: dict[str, Vip], identifier: str) -> dict[str, Vip]:
    return {known: vip for known, vip in vips.items() if known != identifier}


def _error(error: VppError) -> Error:
    field, separator, _ = str(error).partition(": ")
    named = field if separator and " " not in field and "/" not in field else ""
    return Error(code=error.code, field=named, message=str(error), fix=FIXES.get(error.code, "correct the field named"))
