"""What stops VPP's workers: new routes, and nothing that happens all the time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import penstock_core
import pytest

from tests.support.clients import get
from tests.support.dataplane import VIP_IPV4
from tests.support.lab import HTTP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp, running_vpp
from tests.support.vpp_client import vpp_client

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

# VPP's own log of its barriers, by the function that asked for one: a command, a message, a route of ours. Neighbours
# that VPP learns of meanwhile have one, too, by another.
BARRIER = re.compile(r"bar-trace-(vlib_cli_dispatch_sub_commands|vl_msg_api_barrier_sync|stop_workers)-#")
COMMAND, ROUTE = "vlib_cli_dispatch_sub_commands", "stop_workers"
AS = f"lb rl as {VIP_IPV4} port 80 server"


@pytest.fixture
def working(lab_of_its_own: Lab) -> Iterator[RunningVpp]:
    """A VPP whose packets a worker forwards, and which logs its barriers."""
    with running_vpp(lab_of_its_own, workers=1) as running:
        running.balance(VIP_IPV4, options="id 7 scheduler maglev")
        get(lab_of_its_own, VIP_IPV4)
        running.ctl("event-logger trace barrier")
        yield running


@pytest.fixture
def client(working: RunningVpp) -> Iterator[Any]:
    """A connected client of that VPP's binary API."""
    with vpp_client(working) as connected:
        yield connected


def who_stops(balancer: RunningVpp, change: Callable[[], object], *, commands: int = 0) -> list[str]:
    """Who stops the workers while something changes by so many commands; but for the `quit` that ends each of them."""
    balancer.ctl("event-logger clear")
    change()
    stopped = BARRIER.findall(balancer.ctl("show event-logger all"))
    for _ in range(2 + commands):  # `show` itself, and the end of `clear`
        stopped.remove(COMMAND)
    return stopped


@pytest.mark.parametrize(
    "command",
    [
        f"{AS} 10.77.1.2 port {HTTP_PORT} weight 3",
        f"{AS} 10.77.1.2 port {HTTP_PORT} draining",
        f"{AS} 10.77.1.2 port {HTTP_PORT} del",
        f"{AS} 10.77.9.9 port {HTTP_PORT}",
        f"lb rl vip {VIP_IPV4} port 80 scheduler lsq features full timeout udp-stream 3",
        "lb rl node nodes 3",
        "lb rl agent sed",
    ],
)
def test_commands_do_not(working: RunningVpp, command: str) -> None:
    assert who_stops(working, lambda: working.quiet(command), commands=1) == []


def test_messages_do_not(working: RunningVpp, client: Any) -> None:
    (details,) = client.api.lb_rl_vip_dump(id=7)
    same = ("id", "protocol", "port", "scheduler", "feature_level", "forwarding", "table_size", "drain_timeout")
    fields = {name: getattr(details, name) for name in (*same, "address_count", "addresses")}
    fields["timeouts"] = details.timeouts._asdict()
    backends = [each.backend._asdict() for each in client.api.lb_rl_backend_dump(vip=7)]

    def change() -> None:
        for weight, state, count in ((3.0, 1, 2), (3.0, 2, 2), (1.0, 1, 1), (0.5, 1, 2)):
            backends[0] |= {"weight": weight, "state": state}
            reply = client.api.lb_rl_vip_set(**fields, count=count, backends=backends[:count])
            assert reply.retval == 0, reply.message
        assert client.api.lb_rl_node_set(scheduler_key=bytes(range(16)), nodes=3).retval == 0
        assert client.api.lb_rl_agent_set(follow=False).retval == 0
        assert client.api.lb_rl_backend_dump(vip=7)[0].backend.weight == 0.5
        for look in ("get", "node_get", "memory_get", "stats_get", "stats_clear", "publish"):
            assert getattr(client.api, f"lb_rl_{look}")().retval == 0

    assert who_stops(working, change) == []


def test_weights_of_an_agent_do_not(working: RunningVpp, client: Any) -> None:
    (path,) = working.shm.glob("*.frames")
    client.api.lb_rl_publish()
    reader = penstock_core.FrameReader(str(path))
    generation = reader.read().generation
    writer = penstock_core.ActionsWriter(str(path.with_suffix(".actions")), reader.slots)
    wanted: list[int] = []

    def change() -> None:
        for weight in (1.0, 2.0, 3.0):
            weights = np.full(reader.slots, weight, dtype=np.float32)
            weights[0] = 0.25
            wanted.append(writer.write(weights, generation, penstock_core.boottime_us()))
            eventually(lambda: client.api.lb_rl_vip_dump(id=7)[0].actions_sequence == wanted[-1])

    assert who_stops(working, change) == []


def test_a_new_address_does_once(working: RunningVpp, client: Any) -> None:
    more = f"lb rl vip {VIP_IPV4} port 80 also 203.0.113.11 also 203.0.113.12"
    assert who_stops(working, lambda: working.quiet(more), commands=1) == [ROUTE]
    assert who_stops(working, lambda: working.quiet(more.replace("also", "without")), commands=1) == [ROUTE]
