"""Fifty thousand connections, SYNs as fast as the data plane takes them, ports that servers' closing keeps busy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import storms
from tests.support.dataplane import RunningDataplane, running_dataplane, vip
from tests.support.lab import Lab, eventually
from tests.support.lab import lab as build_lab

pytestmark = [pytest.mark.netns]

ESTABLISHED = 50_000
TABLE = 131_072  # flows
WAY_MS = 20.0  # what a packet of a new client takes
NEW, NEW_PER_SECOND = 1500, 400.0
MEGABYTES = 16  # of buffers, which become real with first use


@pytest.fixture
def stormy() -> Iterator[tuple[Lab, RunningDataplane]]:
    with build_lab("pn-storm", 2, start_servers=False) as lab, running_dataplane(lab, flow_table_size=TABLE) as running:
        # What servers answer to addresses that nobody has goes to the client, which forgets it.
        lab.balancer.sh("ip route add 198.18.0.0/15 via 10.77.0.2")
        yield lab, running
        running.withdraw()


def own_memory(pid: int) -> int:
    """Return the anonymous memory of a process in KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0])


def pool_ms(running: RunningDataplane) -> float:
    """Return how long a half-open flow lasts now, once floods recycle them."""
    eventually(lambda: running.stats().recycled > 0)
    first, began = running.stats(), time.monotonic()
    time.sleep(0.5)
    last = running.stats()
    return last.half_open / (last.recycled - first.recycled) * (time.monotonic() - began) * 1e3


@pytest.mark.alone
def test_a_flood_as_fast_as_it_goes_costs_nobody_anything(stormy: tuple[Lab, RunningDataplane]) -> None:
    lab, running = stormy
    running.apply(vip(lab, backends=storms.serve(lab, ports=8)))
    with storms.Crowd(lab, ESTABLISHED) as crowd, storms.longer_way(lab, WAY_MS):
        assert crowd.held == ESTABLISHED
        before, memory = running.stats(), own_memory(running.child())
        flooding = storms.Flooding(lab)
        lasts_ms = pool_ms(running)
        new = storms.connections(lab, NEW, NEW_PER_SECOND, prompt_ms=lasts_ms - WAY_MS)
        flood = flooding.end()
        after = running.stats()
        print(f"{flood}; half-open flows last {lasts_ms:.0f} ms; {new}")
        # Whose round trip was shorter than half-open flows lasted.
        assert new.ended - new.slow >= NEW / 2
        assert new.good >= 0.99 * (new.ended - new.slow)
        assert crowd.ask() == {"moved": 0, "lost": 0}
        assert after.flows <= before.flows + TABLE / 4 + NEW
        assert own_memory(running.child()) < memory + MEGABYTES * 1024


def test_connections_that_servers_close_never_wait_for_a_port(stormy: tuple[Lab, RunningDataplane]) -> None:
    """Twice as many as there are ports, which rest for a minute after each."""
    lab, running = stormy
    running.apply(vip(lab, backends=storms.serve(lab, ports=1)))
    new = storms.connections(lab, 2 * 2 * 12_288, rate=5000)
    print(new)
    assert new.failed == 0
    assert running.stats().dropped["no_nat_port"] == 0
