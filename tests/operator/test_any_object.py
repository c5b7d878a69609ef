"""Whatever an API server hands out, the operator goes on: one object's fault is its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_kube import NODES, SERVICE_CIDRS, SERVICES, Object, Resource, WorkQueue
from penstock_operator import kinds
from penstock_operator.feed import Feed
from penstock_operator.keys import everything
from penstock_operator.store import READERS, Store

from tests.support import raw_objects
from tests.support.operator_parts import reconciler_of

OBJECTS = {
    NODES: raw_objects.nodes,
    SERVICES: raw_objects.services,
    SERVICE_CIDRS: raw_objects.service_cidrs,
    kinds.VIPS: raw_objects.other_versions("vip"),
    kinds.POLICIES: raw_objects.other_versions("policy"),
    kinds.POOLS: raw_objects.other_versions("pool"),
    kinds.DATA_PLANES: raw_objects.other_versions("dataplane"),
    kinds.DATA_PLANE_NODES: raw_objects.other_versions("node"),
    kinds.REPORTS: raw_objects.other_versions("report"),
}
events = st.one_of(
    *(
        st.tuples(st.just(res), st.sampled_from([None, "ADDED", "MODIFIED", "DELETED"]), raw)
        for res, raw in OBJECTS.items()
    )
)


@pytest.mark.parametrize("resource", OBJECTS, ids=lambda resource: resource.kind)
def test_every_object_is_read(resource: Resource) -> None:
    @given(raw=OBJECTS[resource])
    def read(raw: Object) -> None:
        READERS[resource](raw)

    read()


@given(history=st.lists(events, max_size=8))
async def test_every_history_of_objects_is_followed(history: list[tuple[Resource, str | None, Object]]) -> None:
    feed = Feed(Store(), WorkQueue())
    for resource, type_, raw in history:
        feed._take(resource, type_, raw)
    reconcile = reconciler_of(feed.store)
    for key in everything(feed.store):
        await reconcile(key)


async def test_an_event_that_breaks_something_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(Store(), WorkQueue())
    metadata = {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"}

    def fail(_: Object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(READERS, SERVICES, fail)
    feed.event(SERVICES, None, {"metadata": metadata})
    feed.learn(SERVICES, {"metadata": metadata})  # the answer to a write of ours
    assert feed.store.count(SERVICES) == 0
    monkeypatch.undo()
    feed.event(SERVICES, None, {"metadata": metadata})
    assert feed.store.count(SERVICES) == 1


async def test_an_event_with_which_nothing_can_be_done_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(Store(), WorkQueue())

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("penstock_operator.feed.affected", fail)
    feed.event(SERVICES, None, {"metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1"}})
    assert feed.store.count(SERVICES) == 1


def test_addresses_with_leading_zeros_are_reserved_as_kubernetes_reads_them() -> None:
    store = Store()
    service = {"metadata": {"name": "a", "namespace": "b"}, "spec": {"externalIPs": ["010.0.0.1", "not one"]}}
    store.put(SERVICES, service)
    node = {"metadata": {"name": "n"}, "spec": {"podCIDRs": ["010.001.0.0/24", "nonsense"]}}
    store.put(NODES, node)
    assert [str(a) for a in store.get(SERVICES, ("b", "a")).addresses] == ["10.0.0.1"]
    assert [str(n) for n in store.get(NODES, ("", "n")).pod_networks] == ["10.1.0.0/24"]


def test_one_entry_of_a_report_that_cannot_be_read_costs_the_others_nothing() -> None:
    good = {"namespace": "shop", "name": "web", "uid": "u", "generation": 1}
    odd = {"namespace": "shop", "name": "odd", "uid": "o", "generation": 1}
    odd["ports"] = [{"port": 80, "protocol": "QUIC", "family": "IPv4"}]
    metadata = {"name": "edge.a-0", "uid": "r", "resourceVersion": "1"}
    store = Store()
    store.put(
        kinds.REPORTS, {"metadata": metadata, "report": {"nodeName": "a", "dataPlaneName": "edge", "vips": [odd, good]}}
    )
    assert store.reports_of("u")["a"].name == "web"
    assert store.reports_of("o") == {}


@pytest.mark.parametrize("version", ["", "abc", "9" * 5000])
def test_versions_that_are_no_numbers_are_taken_as_they_come(version: str) -> None:
    store = Store()
    metadata = {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": version}
    for text in ("10.0.0.1", "10.0.0.2"):
        store.put(SERVICES, {"metadata": metadata, "spec": {"externalIPs": [text]}})
        assert [str(a) for a in store.get(SERVICES, ("b", "a")).addresses] == [text]
