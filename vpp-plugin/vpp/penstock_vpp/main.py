"""What `penstock vpp control` does: answer the control socket for a VPP that runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import structlog
from penstock_embedded.server import ControlServer
from penstock_embedded.supervisor import Supervisor

from penstock_vpp.dataplane import VppDataplane
from penstock_vpp.settings import Settings

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Serve until SIGTERM, starting again after a crash; return the exit code. VPP is neither started nor ended."""
    return Supervisor(lambda: serve(settings)).run()


def serve(settings: Settings) -> int:
    """Serve in this process until SIGTERM."""
    asyncio.run(_serve(VppDataplane(settings), settings))
    return 0


async def _serve(dataplane: VppDataplane, settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = ControlServer(settings.socket_path, dataplane, uids=settings.trusted_uids(), group=settings.group)
    await server.start()
    log.info("control of VPP ready", socket=str(settings.socket_path), vpp=str(settings.vpp_socket))
    watch = asyncio.create_task(dataplane.watch())
    waiting = asyncio.create_task(stop.wait())
    try:
        # A watch that ends has failed: the supervisor starts afresh.
        await asyncio.wait({watch, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
    finally:
        for task in (watch, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await server.stop()
        await dataplane.close()
