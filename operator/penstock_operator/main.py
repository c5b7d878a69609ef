"""Wires the operator up: wait for the lease, learn what there is, then follow events until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

import structlog
from penstock_api.names import API_VERSION, DATAPLANE_LABEL, GROUP, PART_OF_LABEL
from penstock_kube import (
    DAEMON_SETS,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICE_CIDRS,
    SERVICES,
    ApiError,
    EventRecorder,
    HistoryRewoundError,
    Key,
    KubeClient,
    KubeConfigError,
    LeaderLease,
    LeaseLostError,
    NotFound,
    Object,
    Reflector,
    Resource,
    WorkQueue,
)
from penstock_kube.config import load
from prometheus_client import CollectorRegistry, generate_latest

from penstock_operator import handlers, health, kinds, serving
from penstock_operator.apply import Writer
from penstock_operator.feed import Feed
from penstock_operator.heartbeats import HeartbeatLister
from penstock_operator.reconcile import Reconciler
from penstock_operator.settings import Settings
from penstock_operator.store import Store
from penstock_operator.sweep import Sweeper

log = structlog.get_logger(__name__)

CLUSTER_WIDE = (
    NODES,
    SERVICES,
    SERVICE_CIDRS,
    kinds.POOLS,
    kinds.DATA_PLANES,
    kinds.DATA_PLANE_NODES,
    kinds.REPORTS,
    kinds.POLICIES,
    kinds.VIPS,
)
"""Kinds that kopf follows."""

OF_OUR_NAMESPACE = (
    (DAEMON_SETS, DATAPLANE_LABEL),
    (PODS, DATAPLANE_LABEL),
    (SERVICE_ACCOUNTS, f"{PART_OF_LABEL}=penstock"),
)
"""Kinds, each with a label selector, that are followed in the namespace of the installation only, which needs no right
to see all pods. kopf watches either the whole cluster or namespaces, never both."""

LEADERSHIP_LOST = 3  # exit status


@dataclass
class Operator:
    """A running operator and its parts."""

    settings: Settings
    metrics: health.OperatorMetrics = field(default_factory=health.OperatorMetrics)
    heart: health.Heart = field(default_factory=health.Heart)
    leading: asyncio.Event = field(default_factory=asyncio.Event)
    following: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Wait for the lease, then work until `stop` is set; raises LeaseLostError when another may lead."""
        settings = self.settings
        connection = load(settings.kubeconfig, settings.context)
        # The lease has a connection of its own: renewing must not queue behind the work.
        async with (
            KubeClient(connection, user_agent="penstock-operator") as client,
            KubeClient(connection, user_agent="penstock-operator-lease") as lease_client,
        ):
            lease = LeaderLease(
                lease_client,
                settings.lease_name,
                settings.namespace,
                settings.identity,
                duration=settings.lease_seconds,
                renew_deadline=settings.lease_seconds * 2 / 3,
                retry=settings.lease_seconds * 2 / 15,
            )
            beating = asyncio.create_task(self.heart.run())
            try:
                await _until(self.stop, lease.acquire(), _kinds_exist(client))
                if not self.stop.is_set():
                    self.leading.set()
                    self.metrics.leading = True
                    await self._lead_through_restores(client, lease)
            finally:
                beating.cancel()
                self.metrics.leading = False
                await lease.release()

    async def _lead_through_restores(self, client: KubeClient, lease: LeaderLease) -> None:
        """Lead; where the API server has an older state than it had, begin anew with nothing but the lease."""
        while True:
            try:
                await self._lead(client, lease)
            except HistoryRewoundError as error:
                self.following.clear()
                log.warning("state of the API server is an older one, beginning anew", error=str(error))
            else:
                return

    async def _lead(self, client: KubeClient, lease: LeaderLease) -> None:
        settings = self.settings
        feed = Feed(Store(), WorkQueue(delay_for=_delay_for))
        sweeper = Sweeper(client, feed.store, CLUSTER_WIDE, feed.tell)
        reflectors = [self._reflector(client, *followed, feed) for followed in OF_OUR_NAMESPACE]
        heartbeats = HeartbeatLister(client, feed.store, settings.namespace, feed.beats_changed)
        events = EventRecorder(client, controller="penstock.dev/operator", instance=settings.identity)
        writer = Writer(client, feed.store, feed.learn, lambda: lease.held)
        reconciler = Reconciler(
            feed.store, writer, events, settings.installation, feed.queue.add_after, settings.reserved_cidrs
        )
        self.heart.stuck_seconds = feed.queue.stuck_seconds
        self.metrics.observe(feed, writer, events, reflectors, sweeper, reconciler.world)

        def on_event(resource: Resource, type_: str | None, raw: Object) -> None:
            feed.event(resource, type_, raw)
            if type_ is None and self.following.is_set():
                sweeper.suspect(resource)  # kopf listed again, so its watch had a gap

        async with _Background() as background:
            background.start(lease.hold())
            background.start(events.run())
            for reflector in reflectors:
                background.start(reflector.run())
            await background.watch(_learn_all(sweeper, reflectors))
            feed.everything()
            background.start(feed.queue.run(reconciler, workers=settings.workers))
            background.start(sweeper.run())
            background.start(heartbeats.run())
            log.info("operator works", vips=feed.store.count(kinds.VIPS))
            following = handlers.run(
                CLUSTER_WIDE,
                on_event,
                client.connection,
                identity=settings.identity,
                stop=self.stop,
                ready=self.following,
            )
            await background.watch(following)

    def _reflector(self, client: KubeClient, resource: Resource, labels: str, feed: Feed) -> Reflector:
        def on_change(key: Key, raw: Object | None) -> None:
            if raw is not None:
                feed.learn(resource, raw)
            else:
                feed.forget(resource, key)

        return Reflector(
            client,
            resource,
            namespace=self.settings.namespace,
            label_selector=labels,
            on_change=on_change,
        )


class _Background:
    """Tasks beside the main one: when one of them fails, so does what is waited for by `watch`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that never ends by itself."""
        self._tasks.add(asyncio.create_task(work))

    async def watch(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for `work`; cancel it and raise if a background task ends first."""
        main = asyncio.create_task(work)
        try:
            await asyncio.wait({main, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            if not main.done():
                main.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await main


async def _learn_all(sweeper: Sweeper, reflectors: list[Reflector]) -> None:
    """Learn what there is before the first decision; an API server that is away is waited for."""
    while True:
        try:
            await sweeper.fill()
            break
        except ApiError as error:
            log.warning("can't list, trying again", error=str(error))
            await asyncio.sleep(2.0)
    for reflector in reflectors:
        await reflector.synced.wait()


async def _kinds_exist(client: KubeClient) -> None:
    """Wait until the API server serves our kinds: the chart may bring them a moment after us."""
    wanted = {res.plural for res in CLUSTER_WIDE if res.group == GROUP}
    told = False
    while True:
        try:
            served = await client.get_path(f"/apis/{API_VERSION}")
            if wanted <= {entry["name"] for entry in served.get("resources") or ()}:
                break
        except NotFound:
            if not told:
                log.warning("the kinds of penstock.dev are not installed; install the chart with crds.enabled=true")
            told = True
        except ApiError as error:
            log.warning("the API server can't be used yet", error=str(error))
        await asyncio.sleep(2.0)


async def _until(stop: asyncio.Event, *steps: Coroutine[Any, Any, None]) -> None:
    """Do steps one after another; leave off when `stop` is set."""

    async def all_steps() -> None:
        for step in steps:
            await step

    working, stopping = asyncio.create_task(all_steps()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        for step in steps:
            step.close()


def _delay_for(error: Exception) -> float:
    """Return how long an error asks us to wait: what a repetition can't mend is repeated rarely."""
    if isinstance(error, ApiError):
        return (error.retry_after or 0.0) if error.retriable else 15.0
    return 1.0


def configure_logging(level: str) -> None:
    """Log as key-value pairs; kopf and httpx only where they complain."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="level=%(levelname)s event=%(message)r")


async def _serve(settings: Settings) -> int:
    operator = Operator(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, operator.stop.set)
    registry = CollectorRegistry()
    registry.register(operator.metrics)
    with (
        serving.Server(settings.health_port, {"/healthz": operator.heart.answer}),
        serving.Server(settings.metrics_port, {"/metrics": lambda: serving.metrics(generate_latest(registry))}),
    ):
        try:
            await operator.run()
        except LeaseLostError as error:
            log.error("another operator may lead, exiting", error=str(error))  # noqa: TRY400 - no trace needed
            return LEADERSHIP_LOST
    log.info("operator stopped")
    return 0


def run(settings: Settings) -> int:
    """Run the operator until a signal; return the exit status."""
    configure_logging(settings.log_level)
    try:
        return asyncio.run(_serve(settings))
    except KubeConfigError as error:
        log.error("no API server to work with", error=str(error))  # noqa: TRY400 - the message says it all
        return 2
    except OSError as error:
        log.error("a port can't be listened on", error=str(error))  # noqa: TRY400 - the message says it all
        return 2
