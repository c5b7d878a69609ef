"""Entry: `run(settings)` until SIGTERM or SIGINT. Leaving changes nothing on the node."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import penstock_core
import structlog

from penstock_agent import metrics, views
from penstock_agent.agent import Agent, AloneAnnouncer, Announcer
from penstock_agent.backend_metrics import BackendMetrics
from penstock_agent.dataplane.embedded import EmbeddedDataPlane
from penstock_agent.dataplane.link import Link
from penstock_agent.files import StateStore
from penstock_agent.findings import NodeFindings
from penstock_agent.health import HealthChecker
from penstock_agent.http import HttpServer, Query, Response
from penstock_agent.loop import WeightLoop
from penstock_agent.settings import Settings, SourceType
from penstock_agent.sources import Source
from penstock_agent.sources.files import FilesSource
from penstock_agent.traffic_watch import TrafficWatch

log = structlog.get_logger(__name__)

# A loop without a turn for this long is stuck: the probe says so and the kubelet restarts the process.
STUCK_SECONDS = 10.0

Job = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Parts:
    """What differs between sources."""

    source: Source
    announcer: Announcer
    more_jobs: Callable[[Agent], list[Job]] = lambda agent: []


def run(settings: Settings) -> None:
    """Run an agent in the foreground."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(settings))


async def serve(settings: Settings, *, ready: Callable[[Agent, int], None] = lambda agent, port: None) -> None:
    """Run an agent until it is cancelled or told to stop; `ready` gets it and the port of its HTTP server."""
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: somebody else stops us
            running.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        agent, jobs = await assemble(settings, stack)
        server = HttpServer(settings.host, settings.port, pages(agent, settings), always=("/healthz",))
        await stack.enter_async_context(server)
        await stack.enter_async_context(_running(jobs))
        ready(agent, server.port)
        await stop.wait()
        log.info("stopping; the node stays as it is")


async def assemble(settings: Settings, stack: AsyncExitStack) -> tuple[Agent, list[Job]]:
    """Build an agent's parts and name the jobs that keep them going."""
    agent: Agent | None = None

    def changed() -> None:
        if agent is not None:
            agent.changed()

    dataplane = EmbeddedDataPlane(settings.socket)
    stack.push_async_callback(dataplane.close)
    findings = NodeFindings()
    store = StateStore(settings.state_dir, findings)
    link = Link(dataplane, store, on_change=changed)
    loop = WeightLoop(
        open_reader=lambda path: penstock_core.FrameReader(str(path)),
        open_writer=lambda path, slots: penstock_core.ActionsWriter(str(path), slots),
        now_us=penstock_core.boottime_us,
        on_unknown_slots=link.refresh,
    )
    traffic = TrafficWatch(loop, changed)
    checker = HealthChecker(changed, answered_since=traffic.answered_since, findings=findings)
    parts = await _parts(settings, changed, link, store, stack)
    agent = Agent(
        source=parts.source,
        link=link,
        checker=checker,
        loop=loop,
        traffic=traffic,
        announcer=parts.announcer,
        findings=findings,
        store=store,
        shm_dir=settings.shm_dir,
    )
    jobs = [parts.source.run, link.run, checker.run, loop.run, traffic.run, agent.run, store.run]
    return agent, [*jobs, *parts.more_jobs(agent)]


async def _parts(
    settings: Settings, changed: Callable[[], None], link: Link, store: StateStore, stack: AsyncExitStack
) -> Parts:
    if settings.source is SourceType.FILES and settings.files is not None:
        source = FilesSource(
            settings.files,
            changed,
            store=store,
            node_name=settings.node_name,
            node_addresses=settings.node_addresses,
        )
        return Parts(source, AloneAnnouncer())
    return await _kubernetes(settings, changed, link, store, stack)


async def _kubernetes(
    settings: Settings, changed: Callable[[], None], link: Link, store: StateStore, stack: AsyncExitStack
) -> Parts:
    # Imported here: `penstock run` needs no client of an API server.
    from penstock_kube import EventRecorder, KubeClient

    from penstock_agent.announcing import LeaseAnnouncer
    from penstock_agent.reporting import Reporter
    from penstock_agent.shortages import Shortages
    from penstock_agent.sources.kubernetes import KubernetesSource
    from penstock_agent.telling import CONTROLLER, Herald

    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    client = KubeClient.from_kubeconfig(kubeconfig, user_agent="penstock-agent")
    await stack.enter_async_context(client)
    source = KubernetesSource(client, changed, dataplane=settings.dataplane, node_name=settings.node_name)
    announcer = LeaseAnnouncer(
        client,
        source,
        changed,
        namespace=settings.namespace,
        dataplane=settings.dataplane,
        store=store,
        lease_seconds=settings.lease_seconds,
        is_forwarding=lambda: link.hello is not None,
        probe_port=settings.port or 9402,
    )

    # A user hears of a hundred VIPs within two minutes, and a broken node is no burden to the API server.
    recorder = EventRecorder(client, controller=CONTROLLER, instance=settings.node_name, rate=1.0, burst=20)

    def more_jobs(agent: Agent) -> list[Job]:
        shortages = Shortages()
        reporter = Reporter(client, agent, source, shortages=shortages, leave=announcer.leave)
        herald = Herald(recorder, agent, source, shortages=shortages, node_name=settings.node_name)
        return [announcer.run, reporter.run, herald.run, recorder.run]

    return Parts(source, announcer, more_jobs)


def pages(agent: Agent, settings: Settings) -> dict[str, Callable[[Query], Coroutine[Any, Any, Response]]]:
    """Pages of the HTTP server."""
    node = settings.node_name or "localhost"

    backends = BackendMetrics(agent)

    async def show_metrics(_: Query) -> Response:
        state = await views.build(agent, node=node, dataplane=settings.dataplane, backends=False)
        head = await asyncio.to_thread(metrics.render, state)
        return Response(head + await backends.render(), metrics.CONTENT_TYPE)

    async def show_state(query: Query) -> Response:
        try:
            within = float(query.get("within", "inf"))
        except ValueError:
            return Response(f"within: {query['within']!r} is not a number of seconds\n".encode(), status=400)
        state = await views.build(agent, node=node, dataplane=settings.dataplane, within=within)
        return Response(state.model_dump_json().encode(), "application/json")

    async def show_health(_: Query) -> Response:
        since = time.monotonic() - agent.loop.progress_at
        if since > STUCK_SECONDS:
            return Response(f"the loop took no turn for {since:.0f} s\n".encode(), status=500)
        return Response(b"ok\n")

    return {"/metrics": show_metrics, "/state": show_state, "/healthz": show_health}


@asynccontextmanager
async def _running(jobs: list[Job]) -> AsyncIterator[None]:
    """Run jobs until the block ends; one that fails ends the block and all the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job()) for job in jobs]
        yield
        for task in tasks:
            task.cancel()
