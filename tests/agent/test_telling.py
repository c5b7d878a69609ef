"""Events of an agent: what is worth one, when it is said, and when it is not said again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from penstock_agent.desired import plan
from penstock_agent.health_overlay import Standing, desired_state
from penstock_agent.loop import Reason
from penstock_agent.shortages import Shortage
from penstock_agent.telling import Situation, Subject, Teller, situations
from penstock_api.dataplanenode import DataPlaneNode

from tests.support.agent_objects import node, policy, snapshot, vip

SHOP = Subject("LoadBalancerVIP", "shop", "web", "uid-web")
DPN = DataPlaneNode.model_validate({"metadata": {"name": "edge.node-1", "uid": "u"}, "spec": node().to_dict()})
FAILING = {(SHOP, Situation.ALL_BACKENDS_FAILING): "all backends fail"}


def said(notices):
    return [notice.reason for notice in notices]


@pytest.fixture
def teller():
    return Teller("node-1")


def test_what_lasts_is_said_once_and_so_is_its_end(teller):
    assert not teller.tell(FAILING, 0)
    assert not teller.tell(FAILING, 2)
    (notice,) = teller.tell(FAILING, 3)
    assert (notice.subject, notice.warning, notice.reason) == (SHOP, True, "AllBackendsFailing")
    assert notice.note == "node node-1: all backends fail"
    assert not teller.tell({(SHOP, Situation.ALL_BACKENDS_FAILING): "for another cause"}, 4)
    (notice,) = teller.tell({}, 5)
    assert (notice.warning, notice.reason) == (False, "BackendsHealthy")
    assert not teller.tell({}, 6)


def test_a_hiccup_is_not_worth_an_event(teller):
    for second in range(0, 20, 2):
        assert not teller.tell(FAILING, second)
        assert not teller.tell({}, second + 1)


def test_what_comes_and_goes_is_said_once_a_minute(teller):
    events = []
    for second in range(0, 600, 10):
        events += teller.tell(FAILING, second)
        events += teller.tell(FAILING, second + 4)
        events += teller.tell({}, second + 8)
    assert 9 <= said(events).count("AllBackendsFailing") <= 10
    assert said(events).count("BackendsHealthy") == said(events).count("AllBackendsFailing")


def test_what_does_not_end_is_said_again_before_the_event_is_forgotten(teller):
    events = [teller.tell(FAILING, second) for second in range(7200)]
    assert said(notice for found in events for notice in found) == ["AllBackendsFailing"] * 4


def test_an_end_without_a_beginning_is_nothing(teller):
    teller.tell(FAILING, 0)
    assert not teller.tell({}, 1)


def an_agent(*vips, failed=(), hello=True, troubles=None, **fields):
    planned = plan(snapshot(*vips, **fields), None)
    outcome = desired_state(planned, lambda target: Standing(str(target.address) not in failed), None, ())
    states = {
        target: SimpleNamespace(error="connection refused" if str(target.address) in failed else "")
        for core in planned.vips
        for target in core.targets.values()
    }
    steering = {
        core.vip.id: SimpleNamespace(troubled_at=0.0, reason=troubles[core.owner.name], error="the frame is old")
        for core in planned.vips
        if core.owner.name in (troubles or {})
    }
    return SimpleNamespace(
        plan=planned,
        outcome=outcome,
        checker=SimpleNamespace(states=states),
        loop=SimpleNamespace(vips=steering),
        link=SimpleNamespace(hello=object() if hello else None, error="no such socket"),
    )


def test_a_vip_whose_backends_all_fail():
    ports = [{"port": 80, "targetPort": 8080}, {"port": 443, "targetPort": 8080}]
    agent = an_agent(vip(ports=ports), vip("well", addresses=("203.0.113.11",)), failed=())
    assert situations(agent, DPN, ()) == {}
    agent = an_agent(vip(ports=ports), failed=("10.0.0.1", "10.0.0.2"))
    ((key, note),) = situations(agent, DPN, ()).items()
    assert key == (SHOP, Situation.ALL_BACKENDS_FAILING)
    assert "port 80/TCP, 443/TCP" in note
    assert "connection refused" in note
    assert "check the backends" in note


def test_a_policy_that_cannot_decide():
    agent = an_agent(vip(policyName="fast"), policies={("shop", "fast"): policy()}, troubles={"web": Reason.STALE})
    ((key, note),) = situations(agent, DPN, ()).items()
    assert key == (SHOP, Situation.POLICY_FALLBACK)
    for words in ("policy little", "80/TCP", "stale", "the frame is old", "fallback lsq"):
        assert words in note


def test_an_unreachable_data_plane_is_the_cause_of_all_else():
    agent = an_agent(vip(), failed=("10.0.0.1", "10.0.0.2"), hello=False)
    ((key, note),) = situations(agent, DPN, ()).items()
    assert key == (Subject("DataPlaneNode", "", "edge.node-1", "u"), Situation.DATAPLANE_UNREACHABLE)
    assert "no such socket" in note


@pytest.mark.parametrize("shortage", Shortage)
def test_a_shortage_is_told_of_the_node(shortage):
    ((key, note),) = situations(an_agent(), DPN, [shortage]).items()
    assert key == (Subject("DataPlaneNode", "", "edge.node-1", "u"), shortage)
    assert "DataPlane edge" in note


def test_a_shortage_is_said_at_once_and_its_end_is_the_conditions(teller):
    going_on = {(SHOP, Shortage.NAT_PORTS_EXHAUSTED): "no port"}
    assert said(teller.tell(going_on, 0)) == ["NATPortsExhausted"]
    assert not teller.tell({}, 1)
