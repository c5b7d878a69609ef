"""The operator's shell: settings, health, metrics, start and stop, without a cluster where none is needed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from penstock_api import KubeObject, LoadBalancerVIP, parse
from penstock_kube import (
    NODES,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    EventRecorder,
    KubeClient,
    Resource,
    Superseded,
    Unavailable,
    WorkQueue,
    config,
)
from penstock_operator import health, kinds, main, serving
from penstock_operator.apply import Writer
from penstock_operator.feed import Feed
from penstock_operator.plan.allocation import World
from penstock_operator.plan.pools import Pools
from penstock_operator.plan.reserved import Reserved
from penstock_operator.settings import Settings, SettingsError
from penstock_operator.store import Store
from penstock_operator.sweep import Sweeper
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.operator_rig import until
from tests.support.plan_builders import pool, vip


def test_settings_come_from_the_environment_and_from_options() -> None:
    environment = {
        "POD_NAMESPACE": "lb",
        "POD_NAME": "operator-0",
        "PENSTOCK_AGENT_IMAGE": "registry.example/agent:2",
        "PENSTOCK_RESERVED_CIDRS": "10.0.0.0/8, 2001:db8::/32",
        "PENSTOCK_WORKERS": "3",
    }
    settings = Settings.from_environment(environment, dataplane_image="registry.example/dp:2", kubeconfig=None)
    assert settings.namespace == "lb"
    assert settings.identity == "operator-0"
    assert [str(network) for network in settings.reserved_cidrs] == ["10.0.0.0/8", "2001:db8::/32"]
    assert settings.installation.agent_image == "registry.example/agent:2"
    assert settings.installation.data_plane_image == "registry.example/dp:2"
    assert (settings.workers, settings.kubeconfig) == (3, None)
    assert Settings().identity != Settings().identity  # two on one machine are told apart


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PENSTOCK_WORKERS": "0"}, r"workers \(PENSTOCK_WORKERS\)"),
        ({"PENSTOCK_IMAGE_PULL_POLICY": "Sometimes"}, "image_pull_policy"),
        ({"PENSTOCK_RESERVED_CIDRS": "everything"}, "reserved_cidrs"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment(environment)


def test_health_is_the_loops_own_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    heart = health.Heart()
    assert heart.answer().status == 200
    heart.stuck_seconds = lambda: 301.0
    assert heart.answer().status == 503
    monkeypatch.setattr(time, "monotonic", lambda: heart._beat + 31)
    assert b"no progress for 31 s" in heart.answer().body


async def test_the_heart_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BEAT", 0.01)
    heart = health.Heart()
    first = heart._beat
    beating = asyncio.create_task(heart.run())
    await until(lambda: heart._beat > first)
    beating.cancel()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_pages_are_served_by_threads_of_their_own() -> None:
    routes: dict[str, serving.Route] = {
        "/healthz": lambda: serving.text(503, "late"),
        "/metrics": lambda: serving.metrics(b"up 1\n"),
    }
    with serving.Server(0, routes) as server:
        assert get(server.port, "/healthz") == (503, "late\n")
        assert get(server.port, "/metrics?x=1") == (200, "up 1\n")
        assert get(server.port, "/") == (404, "not here; try /healthz or /metrics\n")
    assert not [thread for thread in threading.enumerate() if thread is server._thread]


async def test_metrics_count_what_the_parts_do() -> None:
    metrics = health.OperatorMetrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    assert b"penstock_operator_leader 0.0" in generate_latest(registry)
    async with KubeClient(config.Connection("http://127.0.0.1:1")) as client:
        feed = Feed(Store(), WorkQueue())
        writer = Writer(client, feed.store, feed.learn, lambda: True)
        events = EventRecorder(client, controller="c", instance="i")
        sweeper = Sweeper(client, feed.store, (), feed.tell)
        reserved = Reserved()
        public = pool("203.0.113.10-203.0.113.13")
        world = World(Pools([public], reserved), reserved, feed.store.ledger)
        metrics.observe(feed, writer, events, [], sweeper, lambda: world)
        feed.store.put(kinds.POOLS, versioned(public))
        feed.store.put(kinds.VIPS, versioned(ready_vip()))
        page = generate_latest(registry).decode()
    for name in ("queue_keys 0.0", "handled_total 0.0", "writes_total 0.0", "swept_total 0.0", "events_total 0.0"):
        assert f"penstock_operator_{name}" in page
    for line in (
        'penstock_operator_objects{kind="LoadBalancerVIP"} 1.0',
        'penstock_pool_addresses_used{pool="public"} 1.0',
        'penstock_pool_addresses_free{pool="public"} 3.0',
        'penstock_vip_ready{name="web",namespace="shop"} 1.0',
        'penstock_vip_nodes_programmed{name="web",namespace="shop"} 2.0',
        'penstock_vip_announced{address="203.0.113.10",name="web",namespace="shop",node="lb-1"} 1.0',
    ):
        assert line in page


def versioned(obj: KubeObject) -> dict[str, Any]:
    raw = obj.to_dict()
    raw["metadata"]["resourceVersion"] = "1"
    return raw


def ready_vip() -> KubeObject:
    raw = vip(held=["203.0.113.10"]).to_dict()
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    raw["status"] |= {
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", **since}],
        "nodes": {"selected": 2, "ready": 2, "programmed": 2},
        "announcements": [{"address": "203.0.113.10", "nodeName": "lb-1"}],
    }
    return parse(LoadBalancerVIP, raw)


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        (NODES, {"spec": {"podCIDRs": ["10.0.0.0/99", None]}, "status": {"addresses": [{}], "conditions": [{}]}}),
        (NODES, {"spec": {"podCIDR": "x"}, "status": {"conditions": [{"type": "Ready", "lastTransitionTime": "x"}]}}),
        (NODES, {"spec": {"taints": [{}]}, "status": {"addresses": 7}}),
        (SERVICES, {"spec": {"externalIPs": ["010.0.0.1", None]}, "status": {"loadBalancer": {"ingress": [{}]}}}),
        (SERVICES, {"spec": {"clusterIPs": 7}}),
        (SERVICE_CIDRS, {"spec": {"cidrs": ["x", "10.96.0.0/16"]}}),
        (PODS, {"status": {"containerStatuses": [{"state": {"waiting": None}}], "conditions": [{}]}}),
        (PODS, {"spec": {"affinity": {"nodeAffinity": 7}}}),
    ],
)
def test_an_odd_object_of_others_stops_nobody(resource: Resource, fields: dict[str, Any]) -> None:
    feed = Feed(Store(), WorkQueue())
    for version in ("1", "2"):
        metadata = {"name": "odd", "namespace": "shop", "uid": "u", "resourceVersion": version}
        feed.event(resource, "MODIFIED", {"metadata": metadata, **fields})
    feed.event(resource, "DELETED", {"metadata": {"name": "odd", "namespace": "shop", "uid": "u"}})


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Unavailable("x", retry_after=7.0), 7.0),
        (Unavailable("x"), 0.0),
        (Superseded("x"), 15.0),
        (ValueError("x"), 1.0),
    ],
)
def test_errors_say_how_long_to_wait(error: Exception, seconds: float) -> None:
    assert main._delay_for(error) == seconds


async def test_an_operator_that_waits_for_the_lease_stops_when_told() -> None:
    settings = Settings(kubeconfig=None)
    operator = main.Operator(settings)
    async with KubeClient(config.Connection("http://127.0.0.1:1")):
        operator.stop.set()
        await main._until(operator.stop, asyncio.sleep(60))


def test_run_reports_failures_by_its_status(free_ports: Callable[[], Settings]) -> None:
    assert main.run(free_ports().model_copy(update={"kubeconfig": "/proc/nowhere"})) == 2
    with serving.Server(0, {}) as taken:
        assert main.run(free_ports().model_copy(update={"health_port": taken.port})) == 2


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def free_ports() -> Callable[[], Settings]:
    return lambda: Settings(health_port=0, metrics_port=0, log_level="error")


@pytest.mark.apiserver
def test_run_ends_on_a_signal(settings: Settings) -> None:
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        assert main.run(settings.model_copy(update={"health_port": 0, "metrics_port": 0})) == 0
    finally:
        timer.cancel()


def test_silent_connections_make_room_for_the_probe() -> None:
    with serving.Server(0, {"/healthz": lambda: serving.text(200, "ok")}) as server:
        address = ("127.0.0.1", server.port)
        silent = [socket.create_connection(address) for _ in range(serving.MOST_CONNECTIONS + 20)]
        try:
            for each in silent:
                each.sendall(b"GET /healthz HTTP/1.1\r\n")
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5) as answer:
                assert answer.read() == b"ok\n"
            assert len(server._server._connections) <= serving.MOST_CONNECTIONS
        finally:
            for each in silent:
                each.close()
