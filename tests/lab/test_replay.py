"""A plan that is replayed through two real data planes with their agents: what comes out, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from penstock_api.rlpolicy import PolicySpec

from tools.lab.replay import replay
from tools.lab.requests import Connections, plan
from tools.lab.setup import Server, Setup

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("limits")]

WORK = 0.002
COUNT = 100
SERVERS = 3


def test_a_plan_is_replayed_through_two_data_planes() -> None:
    quota = Server(processors=(0,), quota=0.02, period=0.1, limit=0, backlog=0, weight=1.0)
    setup = Setup(
        servers=(quota,) * SERVERS,
        balancers=2,
        policy=PolicySpec.model_validate({"heuristic": "lsq", "load": "Active"}),
        features="full",
        warmup=0.0,
        until=8.0,  # the last request is due at 2
    )
    connections = Connections(
        arrival=np.linspace(0.02, 2.0, COUNT),
        balancer=np.arange(COUNT) % 2,
        kind=np.zeros(COUNT, dtype=int),
        idle=np.full(COUNT, 0.05),
        first=np.arange(COUNT + 1) * 2,
        work=np.full(2 * COUNT, WORK),
        io=np.zeros(2 * COUNT),
        pause=np.zeros(2 * COUNT),
    )
    records, measured = replay(setup, plan(connections, np.array([[300.0, 2000.0]])))
    assert records.connection.tolist() == np.repeat(np.arange(COUNT), 2).tolist()
    assert set(records.server) == set(range(SERVERS))
    assert (records.duration >= WORK).all()
    first = records.server[records.request == 0]
    assert (first == records.server[records.request == 1]).all()  # a connection stays with its server
    assert np.bincount(first).min() >= COUNT // SERVERS // 2
    # The last requests may not be counted yet when the accounts are read, sending is no part of the work.
    used = sum(each.seconds for each in measured.servers)
    assert 2 * COUNT * WORK * 0.9 < used < 2 * COUNT * WORK * 1.5
    assert [each["active"] > 0 for each in measured.decisions] == [True, True]
