"""VIPs from apply to Ready, against a real API server with the real operator."""

from __future__ import annotations

import pytest

from tests.support.operator_rig import Cluster, RunningOperator, condition, entry, is_true, refused

pytestmark = pytest.mark.apiserver


async def test_a_vip_is_accepted_programmed_and_ready(operator: RunningOperator, ready_cluster: Cluster) -> None:
    cluster = ready_cluster
    await cluster.vip()
    vip = await cluster.wait_vip(is_true("Accepted"))
    assert vip["status"]["addresses"] == ["203.0.113.10"]
    assert vip["status"]["dataPlaneName"] == "edge"
    assert vip["status"]["observedGeneration"] == vip["metadata"]["generation"]
    vip = await cluster.wait_vip(lambda obj: condition(obj, "Programmed")["reason"] == "Progressing")  # nodes start
    assert condition(vip, "Reconciling")["status"] == "True"
    await cluster.report("lb-1", entry(vip))
    await cluster.report("lb-2")
    behind = await cluster.wait_vip(lambda obj: "lb-2" in condition(obj, "Programmed").get("message", ""))
    assert behind["status"]["nodes"] == {"selected": 2, "ready": 2, "programmed": 1}
    assert condition(behind, "Ready")["status"] == "True"  # the other node serves
    await cluster.report("lb-2", entry(vip, ready=4))
    ready = await cluster.wait_vip(is_true("Programmed"))
    assert ready["status"]["summary"] == {
        "addresses": "203.0.113.10",
        "ports": "80/TCP",
        "backends": "3/4",
        "policy": "little (Active)",
    }
    assert condition(ready, "Reconciling")["status"] == "absent"
    metadata = ready["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    types = await cluster.events("Accepted", "Progressing", "Programmed", "Ready")
    assert {types[reason] for reason in ("Accepted", "Progressing", "Programmed", "Ready")} == {"Normal"}
    await cluster.report("lb-2", entry(vip, error="TUN is missing"))
    failing = await cluster.wait_vip(refused("NodesFailing", "Programmed"))
    assert "node lb-2: TUN is missing" in condition(failing, "Ready")["message"]
    await cluster.report("lb-2", entry(vip, ready=0))
    await cluster.report("lb-1", entry(vip, ready=0, warning="all backends fail their check, flows go to all of them"))
    failing = await cluster.wait_vip(refused("FailOpen", "Ready"))
    assert failing["status"]["summary"]["backends"] == "0/4"


async def test_what_an_accepted_vip_lacks_is_a_warning(operator: RunningOperator, ready_cluster: Cluster) -> None:
    await ready_cluster.vip(policyName="gone")
    types = await ready_cluster.events("PolicyNotFound")
    assert types["PolicyNotFound"] == "Warning"
    assert "Accepted" not in types
