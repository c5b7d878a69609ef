"""Several of VPP's workers, which share the flows: packets that arrive at another one, restarts with more or fewer."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import penstock_core
import pytest
from numpy.typing import NDArray

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4, VIP_IPV6, vip
from tests.support.http_load import http_load
from tests.support.lab import HTTP_PORT, Lab, eventually
from tests.support.vpp import RunningVpp, running_control, running_vpp

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]

SHOWN_BACKEND = re.compile(r"slot \d+: (\S+) active .* (\d+) open flows")
SHOWN_FLOW = re.compile(r"^tcp \S+ -> \S+ as \S+ -> (\S+?),? .*established", re.MULTILINE)


@pytest.fixture
def two_workers(lab_of_its_own: Lab) -> Iterator[RunningVpp]:
    """What clients send arrives at one worker, and what servers send at the other."""
    with running_vpp(lab_of_its_own, workers=2) as running:
        place(running)
        yield running


def place(running: RunningVpp) -> None:
    for device in running.lab.interfaces:
        running.ctl(f"set interface rx-placement host-{device} worker {0 if device == 'c0' else 1}")


def open_flows(running: RunningVpp) -> Counter[str]:
    """Open flows by backend, as they were counted."""
    return +Counter({backend: int(flows) for backend, flows in SHOWN_BACKEND.findall(running.ctl("show lb rl vips"))})


def recount(running: RunningVpp) -> Counter[str]:
    """The same, of the flows themselves."""
    return Counter(SHOWN_FLOW.findall(running.ctl("show lb rl flows max 4096")))


def test_packets_of_both_directions_reach_the_worker_of_their_flow(two_workers: RunningVpp) -> None:
    lab = two_workers.lab
    two_workers.balance(VIP_IPV4)
    two_workers.balance(VIP_IPV6)
    two_workers.ctl("trace add af-packet-input 200")
    for address in (VIP_IPV4, VIP_IPV6):
        assert {get(lab, address) for _ in range(24)} == {b"s1", b"s2"}
    trace = two_workers.ctl("show trace max 400")
    for ip in ("ip4", "ip6"):
        assert f"lb-rl-{ip}-handoff: to thread 2" in trace
        assert f"lb-rl-nat-return-{ip}-handoff: to thread 1" in trace
    with HttpConnection(lab, VIP_IPV4) as connection:
        assert len(connection.get("/bytes/3000000")) == 3_000_000
        assert connection.post(b"x" * 3_000_000) == b"3000000"
    assert "handover_full" not in two_workers.ctl("show lb rl stats")


def test_flows_of_all_workers_are_counted(two_workers: RunningVpp) -> None:
    lab = two_workers.lab
    two_workers.balance(VIP_IPV4)
    connections = [HttpConnection(lab, VIP_IPV4) for _ in range(24)]
    names = Counter(connection.get() for connection in connections)
    servers = {server.name.encode(): f"{server.ipv4}:{HTTP_PORT}" for server in lab.servers}
    expected = Counter({servers[name]: count for name, count in names.items()})
    assert open_flows(two_workers) == recount(two_workers) == expected
    for connection in connections[::2]:
        connection.close()
    left = Counter(servers[connection.get()] for connection in connections[1::2])
    eventually(lambda: open_flows(two_workers) == recount(two_workers) == left)
    for connection in connections[1::2]:
        connection.close()
    eventually(lambda: open_flows(two_workers) == recount(two_workers) == Counter())


def test_another_number_of_workers_after_a_kill_keeps_the_flows(two_workers: RunningVpp) -> None:
    lab = two_workers.lab
    for address in (VIP_IPV4, VIP_IPV6):
        two_workers.balance(address)
    connections = [HttpConnection(lab, address) for address in (VIP_IPV4, VIP_IPV6) for _ in range(12)]
    names = [connection.get() for connection in connections]
    counted = open_flows(two_workers)
    for workers in (1, 2, 0):
        two_workers.kill()
        two_workers.set_workers(workers)
        two_workers.restart()
        if workers == 2:
            place(two_workers)
        assert f"{max(workers, 1)} workers" in two_workers.ctl("show lb rl memory")
        assert open_flows(two_workers) == counted
        assert [connection.get() for connection in connections] == names
        # lsq may choose one server for all of them, where the connections that are kept are unequal
        assert {get(lab, VIP_IPV4) for _ in range(24)} <= {b"s1", b"s2"}
        eventually(lambda: open_flows(two_workers) == recount(two_workers) == counted)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("scheduler", ["maglev", "sed", "alias"])
def test_weights_change_under_load(two_workers: RunningVpp, scheduler: str) -> None:
    lab = two_workers.lab
    with running_control(two_workers) as control:
        control.apply(vip(lab, scheduler={"type": scheduler}))
        status = eventually(lambda: next((each for each in control.dump().vips if each.frames), None))
        path = two_workers.shm / status.actions.lstrip("/")
        generation = _generation(two_workers, status.frames)
        writer = penstock_core.ActionsWriter(str(path), len(generation))

        def write(*weights: float) -> None:
            values = np.zeros(len(generation), dtype=np.float32)
            for backend, weight in zip(sorted(status.backends, key=lambda each: each.id), weights, strict=True):
                values[backend.slot] = weight
            writer.write(values, generation, penstock_core.boottime_us())

        with http_load(lab, VIP_IPV4, 80, kept=6, fresh=4) as load:
            for weights in itertools.islice(itertools.cycle([(1, 0), (1, 3), (0, 1), (5, 1)]), 16):
                write(*weights)
                time.sleep(0.25)
            write(0, 1)
            eventually(
                lambda: [b.weight for b in sorted(control.dump().vips[0].backends, key=lambda b: b.id)] == [0, 1]
            )
            load.share_of_next(b"s2", 4)  # these may have begun before
            assert load.share_of_next(b"s2", 40) == 1
        assert not load.errors()
        assert all(len(asker.answers) == 1 for asker in load.kept)


def _generation(running: RunningVpp, frames: str) -> NDArray[np.uint8]:
    def read() -> NDArray[np.uint8] | None:
        try:
            return penstock_core.FrameReader(str(running.shm / frames.lstrip("/"))).read().generation
        except (penstock_core.ShmError, FileNotFoundError):
            return None

    found = eventually(lambda: (generation := read()) is not None and [generation])
    return found[0]
