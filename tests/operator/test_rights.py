"""The operator works with the rights of its ServiceAccount, and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from penstock_api.names import DATAPLANE_LABEL, INSTALL_NAMESPACE, OPERATOR_ACCOUNT
from penstock_kube import DAEMON_SETS, NODES, Forbidden, KubeClient
from penstock_operator import kinds

from e2e.cluster import ControlPlane
from tests.support.operator_rig import MANIFESTS, Cluster, RunningOperator, condition, is_true, until

pytestmark = pytest.mark.apiserver


@pytest.fixture
def account(kinds_installed: ControlPlane, client: KubeClient) -> str:
    for name in ("rbac.yaml", "admission.yaml"):
        kinds_installed.kubectl("apply", f"--filename={MANIFESTS / name}")
    return str(kinds_installed.issue_service_account(INSTALL_NAMESPACE, OPERATOR_ACCOUNT))


async def test_its_account_is_enough(
    account: str, operators: Callable[..., RunningOperator], ready_cluster: Cluster
) -> None:
    cluster, client = ready_cluster, ready_cluster.client
    operator = operators(kubeconfig=account)
    await until(lambda: operator.following)
    await cluster.vip()
    await cluster.wait_vip(is_true("Accepted"))
    await cluster.events("Accepted")
    await cluster.wait(kinds.POOLS, "public", lambda obj: (obj["status"].get("summary") or {}).get("used") == "1")
    await cluster.wait(NODES, "lb-1", lambda obj: DATAPLANE_LABEL in obj["metadata"]["labels"])
    for node in ("lb-1", "lb-2"):
        await cluster.report(node)
    await cluster.wait(kinds.DATA_PLANES, "edge", is_true("Ready"))
    await cluster.daemon_set("penstock-edge-agent")
    await client.delete(NODES, "lb-2")
    await cluster.gone(kinds.REPORTS, "edge.lb-2-0")
    await client.delete(kinds.DATA_PLANES, "edge")
    await cluster.leave("lb-1")
    await cluster.gone(kinds.DATA_PLANES, "edge")
    vip = await cluster.get_vip()
    assert condition(vip, "Stalled")["status"] != "Unknown"


async def test_its_account_is_not_more_than_enough(account: str, ready_cluster: Cluster) -> None:
    async with KubeClient.from_kubeconfig(account) as operator:
        with pytest.raises(Forbidden):
            await operator.patch(NODES, "lb-1", {"metadata": {"labels": {"role": "web"}}})
        with pytest.raises(Forbidden):
            await operator.patch(NODES, "lb-1", {"spec": {"unschedulable": True}})
        with pytest.raises(Forbidden):
            await operator.list(DAEMON_SETS)
        with pytest.raises(Forbidden):
            await operator.delete(kinds.POOLS, "public")
