"""Arena, frames and weights of a VPP, as the next VPP and an agent see them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import penstock_core
import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]


def reader_of(balancer: RunningVpp) -> penstock_core.FrameReader:
    (path,) = balancer.shm.glob("*.frames")
    return penstock_core.FrameReader(str(path))


def took_weights(balancer: RunningVpp, number: int) -> bool:
    return f"weights number {number} " in balancer.ctl("show lb rl agent")


def published(reader: penstock_core.FrameReader) -> penstock_core.Frame | None:
    """The newest frame of an object that may be new itself."""
    try:
        return reader.read()
    except penstock_core.ShmError as error:
        assert error.reason == "empty"
        return None


def slots(balancer: RunningVpp) -> dict[str, int]:
    """Slot by the backend's address."""
    said = balancer.ctl("show lb rl vips")
    return {address: int(slot) for slot, address in re.findall(r"slot (\d+): ([0-9.]+):", said)}


def test_frames_count_what_was_served(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    reader = reader_of(balancer)
    eventually(lambda: published(reader))
    for _ in range(6):
        get(lab, VIP_IPV4)
    with HttpConnection(lab, VIP_IPV4) as kept:
        kept.get()
        frame = eventually(lambda: (f := reader.read()).counters["n_flow"].sum() == 7 and f)
    assert set(np.flatnonzero(frame.active)) == set(slots(balancer).values())
    eventually(lambda: reader.read().counters["n_fct"].sum() == 7)
    _values, _ages, _valid, seen = reader.samples("fct")
    assert seen.sum() == 7


@pytest.mark.parametrize("scheduler", ["maglev", "sed", "lsq", "alias", "p2c"])
def test_an_agent_steers_new_flows_by_weights(lab: Lab, balancer: RunningVpp, scheduler: str) -> None:
    balancer.balance(VIP_IPV4, options=f"scheduler {scheduler}")
    reader = reader_of(balancer)
    frame = eventually(lambda: published(reader))
    path = next(balancer.shm.glob("*.frames")).with_suffix(".actions")
    writer = penstock_core.ActionsWriter(str(path), len(frame.generation))
    by_address = slots(balancer)
    for server in lab.servers:
        weights = np.zeros(len(frame.generation), dtype=np.float32)
        weights[by_address[server.ipv4]] = 1.0
        sequence = writer.write(weights, frame.generation, penstock_core.boottime_us())
        eventually(partial(took_weights, balancer, sequence))
        assert {get(lab, VIP_IPV4) for _ in range(6)} == {server.name.encode()}


@pytest.mark.parametrize("end", [RunningVpp.stop, RunningVpp.kill])
def test_the_next_vpp_goes_on_with_the_connections(
    lab: Lab, balancer: RunningVpp, end: Callable[[RunningVpp], None]
) -> None:
    balancer.balance(VIP_IPV4)
    connections = [HttpConnection(lab, VIP_IPV4) for _ in range(8)]
    names = [connection.get() for connection in connections]
    old = reader_of(balancer)
    end(balancer)
    balancer.restart()
    # Nobody has told it anything: VIPs, routes and NAT sources are the arena's.
    assert [connection.get() for connection in connections] == names
    assert "taken over: 1 VIPs, 8 flows" in balancer.ctl("show lb rl memory")
    assert {get(lab, VIP_IPV4) for _ in range(24)} == {b"s1", b"s2"}
    assert old.retired
    assert reader_of(balancer).instance_id != old.instance_id
    for connection in connections:
        connection.close()


def test_withdrawn_leaves_nothing_behind(lab: Lab, balancer: RunningVpp) -> None:
    balancer.balance(VIP_IPV4)
    assert list(balancer.shm.iterdir())
    balancer.ctl("lb rl disable withdraw")
    assert not list(balancer.shm.iterdir())
    assert "lb-rl" not in balancer.ctl("show ip fib")
    balancer.quiet(f"lb rl enable directory {balancer.shm} flows 4096")
    assert balancer.ctl("show lb rl vips").strip() == ""
