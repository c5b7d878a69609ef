"""Endpoint changes: a Service without selector whose EndpointSlice is written again and again during a run."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from typing import Any

from penstock_kube import ApiError, KubeClient
from penstock_kube.resources import ENDPOINT_SLICES

from e2e.shop import NAMESPACE, Shop

NAME = "changing"
PORT = 8080
_CONDITIONS = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "unready": {"ready": False, "serving": False, "terminating": False},
    "terminating": {"ready": False, "serving": True, "terminating": True},
}


def endpoint_slice(addresses: Sequence[str], generator: random.Random) -> dict[str, Any]:
    """Return a slice in which each server is ready, not ready, terminating or absent, at random; one is ready."""
    ready = generator.choice(addresses)
    endpoints = []
    for address in addresses:
        state = "ready" if address == ready else generator.choice((*_CONDITIONS, "absent"))
        if state != "absent":
            endpoints.append({"addresses": [address], "conditions": _CONDITIONS[state]})
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


class Changes:
    """A thread that writes the slice at a constant rate while the `with` block runs.

    A write that the API server does not take, because it is stopped for example, is not counted and tried again.
    """

    def __init__(self, shop: Shop, seed: int, wanted: int, seconds: float) -> None:
        self._kubeconfig = str(shop.installation.cluster.kubeconfig)
        self._addresses = shop.server_addresses()
        self._generator = random.Random(seed)
        self._pause = seconds / wanted
        self._wanted = wanted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="endpoint changes")
        self.written = 0

    def __enter__(self) -> Changes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with KubeClient.from_kubeconfig(self._kubeconfig) as client:
            while self.written < self._wanted and not self._stop.is_set():
                await asyncio.sleep(self._pause)
                try:
                    await client.apply(
                        ENDPOINT_SLICES, endpoint_slice(self._addresses, self._generator), field_manager="soak"
                    )
                except ApiError:
                    continue
                self.written += 1
