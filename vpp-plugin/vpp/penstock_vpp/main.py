"""What `penstock vpp control` does: answer the control socket for a VPP that runs beside it."""

from __future__ import annotations

import asyncio

from penstock_embedded import serving
from penstock_embedded.supervisor import Supervisor

from penstock_vpp.dataplane import VppDataplane
from penstock_vpp.settings import Settings


def run(settings: Settings) -> int:
    """Serve until SIGTERM, starting again after a crash; return the exit code. VPP is neither started nor ended."""
    return Supervisor(lambda: serve(settings)).run()


def serve(settings: Settings) -> int:
    """Serve in this process until SIGTERM."""
    asyncio.run(serving.serve(VppDataplane(settings), settings, vpp=str(settings.vpp_socket)))
    return 0
