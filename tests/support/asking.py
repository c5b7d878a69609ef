"""Threads that ask a data plane of their own process while it ends, over and over."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import penstock_core
from penstock_embedded import native
from penstock_embedded.messages import Vip

from tests.support.dataplane import VIP_IPV4


def ask(core: penstock_core.EmbeddedDataplane) -> None:
    """Ask until the answer is that it is closed."""
    with contextlib.suppress(ValueError):
        while True:
            core.stats()
            core.vip_status(1)


def main(directory: str) -> None:
    """End ten data planes, by turns in both ways."""
    arguments = native.vip_arguments(Vip(id="1" * 16, key="a", addresses=(VIP_IPV4,), port=80))
    for end in ("close", "withdraw") * 5:
        core = penstock_core.EmbeddedDataplane(directory, "one", bytes(16), flows=1024, vips=8, slots=64)
        core.set_vip(1, **arguments)
        with ThreadPoolExecutor(3) as threads:
            asking = [threads.submit(ask, core) for _ in range(3)]
            time.sleep(0.02)
            getattr(core, end)()
            for each in asking:
                each.result(timeout=10)
