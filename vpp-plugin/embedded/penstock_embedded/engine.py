"""The C side of a data plane and the device that it reads: opened, started, changed, withdrawn together."""

from __future__ import annotations

import os
from typing import Any

import structlog
from penstock_core import DataplaneError, EmbeddedDataplane
from penstock_node import dropped_by_queue, open_tun

from penstock_embedded import native
from penstock_embedded.boot import boot_id
from penstock_embedded.plan import Change, RemoveVip, SetNode, SetSources, SetVip
from penstock_embedded.plumbing import tun_of
from penstock_embedded.settings import Settings
from penstock_embedded.sharing import share_directory
from penstock_embedded.sizing import size_in_force

log = structlog.get_logger()


class Engine:
    """Arena, VIPs, threads and TUN descriptors of one process. Calls may block; none needs an event loop."""

    def __init__(self, settings: Settings, instance_id: str) -> None:
        share_directory(settings.shm_dir, settings.group)
        self._tun = tun_of(settings)
        self._queues: tuple[int, ...] = ()
        self._workers = settings.queues
        self._core = EmbeddedDataplane(
            str(settings.shm_dir),
            instance_id,
            bytes.fromhex(boot_id().replace("-", "")),
            flows=size_in_force(settings.flow_table_size, settings.shm_dir),
            vips=settings.max_vips,
            slots=settings.max_slots,
            workers=settings.queues,
            grace_ms=max(1, round(settings.grace_seconds * 1000)),
            group=settings.group,
        )
        self._report = self._core.report
        log.info("arena taken into service", **self._report)

    @property
    def kept_arena(self) -> bool:
        """Whether VIPs and flows of an earlier process are in force."""
        return self._report["status"] in {"attached", "imported"}

    @property
    def reattached_flows(self) -> int:
        """Flows that were found in the arena."""
        return int(self._report["flows"])

    def start(self) -> None:
        """Attach to the device and forward. Raises TunError when the device cannot be attached to."""
        self._queues = open_tun(self._tun)
        self._core.start(list(self._queues))

    def stop(self) -> None:
        """Let go of the device; packets then vanish in it."""
        self._core.stop()
        for queue in self._queues:
            os.close(queue)
        self._queues = ()

    def close(self) -> None:
        """Stop and leave everything for the next process."""
        self.stop()
        self._core.close()

    def withdraw(self) -> None:
        """Stop and remove the shared-memory objects."""
        self.stop()
        self._core.withdraw()

    def perform(self, change: Change) -> None:
        """Make one change. Raises DataplaneError, and then has changed nothing."""
        match change:
            case SetNode():
                self._core.set_node(bytes.fromhex(change.scheduler_key), change.nodes)
            case SetSources():
                self._core.set_sources([native.source(each) for each in change.sources])
            case SetVip():
                self._core.set_vip(native.vip_number(change.vip.id), **native.vip_arguments(change.vip))
            case RemoveVip():
                self._core.remove_vip(native.vip_number(change.id))

    def publish(self) -> None:
        """Publish frames now: who has applied something may read them at once."""
        self._core.publish()

    def vip_ids(self) -> frozenset[str]:
        """Return the VIPs in force, those still draining included."""
        return frozenset(native.vip_identifier(number) for number in self._core.vip_ids())

    def vip_status(self, identifier: str) -> dict[str, Any]:
        """Return what the core says of a VIP; nothing when it has just gone."""
        try:
            return self._core.vip_status(native.vip_number(identifier))
        except DataplaneError:
            return {}

    def forwarding(self) -> bool:
        """Whether packets are read: False before the start, and when the device was deleted under us."""
        counters = self._core.stats()
        return bool(counters["running"] and not counters["queue_lost"])

    def stalled(self) -> str:
        """Return which thread makes no progress; "" if all do. Waits for nothing that such a thread may hold."""
        thread = self._core.stalled()
        if thread < 0:
            return ""
        return f"packet thread {thread}" if thread < self._workers else "the control thread"

    def stats(self) -> dict[str, Any]:
        """Return the counters since the start."""
        return self._core.stats() | {"queue_dropped": dropped_by_queue(self._tun.name)}
