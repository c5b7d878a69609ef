"""The operator through failover, outages of the API server, and its own start and stop as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from penstock_api.names import INSTALL_NAMESPACE
from penstock_kube import CRDS, LEASES, KubeClient, LeaseLostError
from penstock_operator import kinds
from penstock_operator.settings import Settings

from e2e.cluster import ControlPlane
from tests.support.operator_rig import Cluster, RunningOperator, is_true, until

pytestmark = pytest.mark.apiserver


async def test_the_standby_takes_over(
    operators: Callable[..., RunningOperator], settings: Settings, ready_cluster: Cluster
) -> None:
    cluster = ready_cluster
    first = operators(identity="first")
    await until(lambda: first.following)
    second = operators(identity="second")
    await cluster.vip("one")
    before = await cluster.wait_vip(is_true("Accepted"), "one")
    assert not second.leading
    first.stop()
    await until(lambda: second.following)
    await cluster.vip("two")
    await cluster.wait_vip(is_true("Accepted"), "two")
    after = await cluster.get_vip("one")
    assert after["status"]["addresses"] == before["status"]["addresses"]
    lease = await cluster.client.get(LEASES, settings.lease_name, INSTALL_NAMESPACE)
    assert lease["spec"]["holderIdentity"] == "second"


async def test_a_leader_that_is_robbed_of_its_lease_stops(
    operators: Callable[..., RunningOperator], settings: Settings, ready_cluster: Cluster
) -> None:
    operator = operators(identity="first")
    await until(lambda: operator.following)
    robbery = {"spec": {"holderIdentity": "robber", "leaseDurationSeconds": 3600}}
    await ready_cluster.client.patch(LEASES, settings.lease_name, robbery, INSTALL_NAMESPACE)
    await until(lambda: operator.error is not None)
    assert isinstance(operator.error, LeaseLostError)


async def test_the_api_server_goes_and_comes_back(
    apiserver: ControlPlane, operators: Callable[..., RunningOperator], ready_cluster: Cluster
) -> None:
    cluster = ready_cluster
    operator = operators(lease_seconds=60.0)
    await until(lambda: operator.following)
    await cluster.vip("before")
    await cluster.wait_vip(is_true("Accepted"), "before")
    await asyncio.to_thread(apiserver.stop_apiserver)
    await asyncio.sleep(2)
    await asyncio.to_thread(apiserver.start_apiserver)
    await cluster.vip("after")
    await cluster.wait_vip(is_true("Accepted"), "after")
    assert operator.error is None


async def test_a_deletion_that_no_event_told_of_is_found(operator: RunningOperator, ready_cluster: Cluster) -> None:
    assert operator.operator is not None
    metrics = operator.operator.metrics
    await until(lambda: metrics.store is not None and metrics.store.count(kinds.POOLS) == 1)
    assert metrics.store is not None
    assert metrics.sweeper is not None
    ghost = {
        "metadata": {"name": "ghost", "uid": "never-was", "resourceVersion": "1"},
        "spec": {"addresses": ["198.51.100.0/24"]},
    }
    metrics.store.put(kinds.POOLS, ghost)
    operator.call(metrics.sweeper.suspect, kinds.POOLS)
    await until(lambda: metrics.sweeper is not None and metrics.sweeper.found == 1)
    assert metrics.store.count(kinds.POOLS) == 1


async def test_the_process_starts_serves_and_stops(client: KubeClient, settings: Settings, tmp_path: Path) -> None:
    environment = os.environ | {
        "PENSTOCK_KUBECONFIG": str(settings.kubeconfig),
        "PENSTOCK_LEASE_NAME": settings.lease_name,
        "PENSTOCK_HEALTH_PORT": "18080",
        "PENSTOCK_METRICS_PORT": "18090",
    }
    log = tmp_path / "operator.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_operator", env=environment, stderr=output
        )
        try:
            await until(lambda: "operator works" in log.read_text() or process.returncode is not None)
            assert fetch(18080, "/healthz") == "ok\n"
            metrics = fetch(18090, "/metrics")
            assert "penstock_operator_leader 1.0" in metrics
            assert 'penstock_operator_watch_age_seconds{kind="Pod"}' in metrics
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    lease = await client.get(LEASES, settings.lease_name, INSTALL_NAMESPACE)
    assert not lease["spec"].get("holderIdentity")  # released: the next one need not wait


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PENSTOCK_WORKERS": "many"}, "workers (PENSTOCK_WORKERS)"),
        ({"PENSTOCK_KUBECONFIG": "/proc/nowhere"}, "Configuration file /proc/nowhere not found"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(environment: dict[str, str], expected: str) -> None:
    command = [sys.executable, "-m", "penstock_operator"]
    ports = {"PENSTOCK_HEALTH_PORT": "0", "PENSTOCK_METRICS_PORT": "0"}
    done = subprocess.run(
        command, env=os.environ | ports | environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert expected in done.stderr


def fetch(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


async def test_kinds_that_come_late_are_waited_for(
    kinds_installed: ControlPlane, operators: Callable[..., RunningOperator], cluster: Cluster
) -> None:
    crd = await cluster.client.get(CRDS, "rlpolicies.penstock.dev")
    await cluster.client.delete(CRDS, "rlpolicies.penstock.dev")
    await cluster.gone(CRDS, "rlpolicies.penstock.dev")
    operator = operators()
    await asyncio.sleep(1)
    assert not operator.following
    fresh = {"metadata": {"name": "rlpolicies.penstock.dev"}, "spec": crd["spec"]}
    await cluster.client.create(CRDS, fresh)
    await until(lambda: operator.following)
    await asyncio.to_thread(kinds_installed.kubectl, "wait", "--for=condition=Established", "crd", "--all")
