"""What the program `penstock dataplane` does: run under a supervisor, or ask a running one how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock_embedded import client, serving
from penstock_embedded.dataplane import Dataplane
from penstock_embedded.messages import Hello, Method, Stats
from penstock_embedded.settings import Settings
from penstock_embedded.sharing import hand_over
from penstock_embedded.supervisor import Supervisor


def run(settings: Settings) -> int:
    """Run a data plane until SIGTERM, restarting it when it crashes; return the exit code."""
    return Supervisor(lambda ready: serve(settings, ready)).run()


def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> int:
    """Run a data plane in this process until SIGTERM; the node stays as it is then."""
    dataplane = Dataplane(settings)
    dataplane.resume()
    hand_over(settings.agent_state_dir, settings.group)
    asyncio.run(serving.serve(dataplane, settings, ready))
    return 0


def probe(settings: Settings, *, timeout: float = 2.0) -> tuple[Hello, Stats]:
    """Ask the running data plane how it is. Raises client.ControlError when it does not answer."""
    hello = client.request(settings.socket_path, Method.HELLO, timeout=timeout)
    stats = client.request(settings.socket_path, Method.STATS, timeout=timeout)
    return Hello.model_validate(hello), Stats.model_validate(stats)


def withdraw(settings: Settings, *, timeout: float = 30.0) -> None:
    """Have the running data plane remove everything of its from the node. Raises client.ControlError."""
    client.request(settings.socket_path, Method.WITHDRAW, timeout=timeout)
