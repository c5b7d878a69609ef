"""Whatever an API server hands out, the agent goes on: one object's fault is its own."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.desired import plan
from penstock_agent.health_overlay import Standing, desired_state
from penstock_agent.reports import shards, vip_reports
from penstock_agent.sources.kubernetes import KubernetesSource
from penstock_kube import Forbidden, KubeClient, WatchEvent, config

from tests.support import raw_objects
from tests.support.bad_objects import GOOD

OBJECTS = {
    "dataplanenodes": raw_objects.other_versions("node"),
    "loadbalancervips": raw_objects.other_versions("vip"),
    "rlpolicies": raw_objects.other_versions("policy"),
    "services": raw_objects.services,
    "endpointslices": raw_objects.slices,
}
events = st.one_of(
    *(st.tuples(st.just(name), st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), raw) for name, raw in OBJECTS.items())
)


NOWHERE = KubeClient(config.Connection("http://127.0.0.1:1"))


class Fed:
    """A source that is fed by hand."""

    def __init__(self):
        self.source = KubernetesSource(NOWHERE, lambda: None, dataplane="edge", node_name="node-1")
        self.watches = self.source._watches
        for watch in self.watches.values():
            watch.synced.set()

    def take(self, name, type_, raw):
        self.watches[name]._handle(WatchEvent(type_, raw))

    @property
    def faults(self):
        return sum(watch.faults for watch in self.watches.values())


@given(history=st.lists(events, max_size=10))
async def test_every_history_of_objects_gives_a_plan(history):
    fed, previous = Fed(), None
    fed.take("dataplanenodes", "ADDED", GOOD_NODE)
    for event in history:
        fed.take(*event)
        fed.source._missing.clear()
        snapshot = fed.source.snapshot
        if snapshot is None:
            continue
        previous = plan(snapshot, previous)
        fed.source.follow(previous.services)
        assert not any("InternalError" in found.reason for each in previous.findings for found in each.faults)
        outcome = desired_state(previous, lambda target: Standing(), None, ())
        reports = vip_reports(previous, outcome, {}, None, {})
        assert fed.source.node is not None
        assert shards(fed.source.node, reports)
    assert fed.faults == 0
    await asyncio.sleep(0)


async def test_services_that_may_not_be_read_are_done_without():
    fed = Fed()
    services = fed.watches["services"]
    services.synced.clear()
    fed.take("dataplanenodes", "ADDED", GOOD_NODE)
    before = fed.source.snapshot
    services._note_failure(Forbidden("services is forbidden", status=403))
    after = fed.source.snapshot
    assert before is None
    assert after is not None
    assert after.services is None
    assert "Services cannot be read" in fed.source.error


GOOD_NODE = {**GOOD["node"]}
GOOD_NODE["metadata"] = {**GOOD_NODE["metadata"], "uid": "u", "resourceVersion": "1", "generation": 1}
