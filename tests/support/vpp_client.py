"""Clients of VPP's binary API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.vpp import RunningVpp

TIMEOUTS = {  # milliseconds
    "tcp_handshake": 10_000,
    "tcp_established": 900_000,
    "tcp_closing": 10_000,
    "udp_unreplied": 10_000,
    "udp_exchange": 30_000,
    "udp_stream": 180_000,
    "udp_dns_answered": 1_000,
}


@contextmanager
def vpp_client(balancer: RunningVpp) -> Iterator[Any]:
    """Yield a connected client; skips the test where there is none to be had."""
    papi = pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")
    connected = papi.VPPApiClient(bootstrapapi=True, server_address=str(balancer.directory / "api.sock"))
    connected.connect("test")
    try:
        yield connected
    finally:
        connected.disconnect()
