"""Servers that are short of processor time are slow, not dead: health checks must not make it worse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster.processes import wait_until
from e2e.load import Load, Summary, running
from e2e.shop import NAMESPACE, REPORTS, Shop

ITERATIONS = 24_000  # about 2 ms of a core a page: four servers of a twentieth of a core answer some 80 a second
SECONDS = 20.0
TOLERATED = 0.01  # of the requests may fail beyond what fails without checks: the machine is shared


def apply_vip(shop: Shop, *, checked: bool) -> None:
    """Serve the slow servers with or without health checks."""
    image = shop.installation.images["httpserver"].reference
    shop.apply("slow.yaml.jinja", image=image, iterations=ITERATIONS, checked=checked)


def put_under_load(shop: Shop, name: str, rate: float, seconds: float) -> Summary:
    """Send requests at a constant rate; return what became of them."""
    load = Load(f"http://{shop.installation.address(NAMESPACE, 'slow')}/", rate, seconds)
    program = shop.installation.cluster.client_program("loadgen")
    REPORTS.mkdir(parents=True, exist_ok=True)
    with running(program, load, REPORTS / f"overload-{name}.jsonl") as run:
        return run.finish().summary


@pytest.fixture(scope="module")
def capacity(shop: Shop) -> Iterator[float]:
    """Requests per second that the slow servers answer when they always have some to answer."""
    cluster = shop.installation.cluster
    apply_vip(shop, checked=False)
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/slow", "--timeout=120s", timeout=150)
    shop.installation.wait_condition("loadbalancervip", "slow", "Ready", namespace=NAMESPACE)
    try:
        yield put_under_load(shop, "capacity", 200.0, 4.0).throughput
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", "loadbalancervip/slow", "deployment/slow", "service/slow")


@pytest.mark.parametrize(
    "share", [pytest.param(0.7, marks=pytest.mark.long), 0.9, pytest.param(1.2, marks=pytest.mark.long)]
)
def test_checks_cost_no_requests_when_servers_are_starved(shop: Shop, capacity: float, share: float) -> None:
    failed = {}
    for checked in (False, True):
        apply_vip(shop, checked=checked)
        assert wait_until(lambda: _serves(shop), 30)
        summary = put_under_load(shop, f"{share}-{'checked' if checked else 'plain'}", share * capacity, SECONDS)
        failed[checked] = summary.failed / summary.requests
        print(
            f"{share:.0%} of {capacity:.0f}/s, checks {'on' if checked else 'off'}: {summary.failed} of "
            f"{summary.requests} failed, mean {summary.latency_ms.mean:.0f} ms, p99 {summary.latency_ms.p99:.0f} ms"
        )
    assert failed[True] <= failed[False] + TOLERATED


def _serves(shop: Shop) -> bool:
    """Return whether every node has the VIP's last spec in force."""
    vip = shop.installation.cluster.get("-n", NAMESPACE, "loadbalancervip", "slow")
    conditions = {item["type"]: item for item in vip["status"].get("conditions", [])}
    ready = conditions.get("Ready", {})
    return bool(ready.get("status") == "True" and ready.get("observedGeneration") == vip["metadata"]["generation"])
