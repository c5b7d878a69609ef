"""What `penstock vpp control` does: answer the control socket for a VPP that runs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock_embedded import serving
from penstock_embedded.sharing import hand_over
from penstock_embedded.supervisor import Supervisor

from penstock_vpp.dataplane import VppDataplane
from penstock_vpp.settings import Settings


def run(settings: Settings) -> int:
    """Serve until SIGTERM, starting again after a crash; return the exit code. VPP is neither started nor ended."""
    return Supervisor(lambda ready: serve(settings, ready)).run()


def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> int:
    """Serve in this process until SIGTERM."""
    hand_over(settings.agent_state_dir, settings.group)
    asyncio.run(serving.serve(VppDataplane(settings), settings, ready, vpp=str(settings.vpp_socket)))
    return 0
