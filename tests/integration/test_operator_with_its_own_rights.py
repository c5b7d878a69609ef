"""The operator's program under its generated role and nothing more, of a user without a name, as pods may be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster import ControlPlane, control_plane

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "penstock-system"
NODE = """
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {penstock.dev/load-balancer: "true"}
"""
NODE_STATUS = """{"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
"conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}]}}"""

pytestmark = pytest.mark.apiserver


@pytest.fixture
def cluster() -> Iterator[ControlPlane]:
    """An API server of its own: the operator works on all there is."""
    with control_plane() as plane:
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / "manifests"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=penstock")
        plane.kubectl("apply", "-f", "-", stdin=NODE)
        plane.kubectl("patch", "node", "n1", "--subresource=status", "--type=merge", "-p", NODE_STATUS)
        yield plane


@pytest.fixture
def log(cluster: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """Run the operator with a token of its account, as a user id that no name belongs to; return its log."""
    path = tmp_path / "operator.log"
    kubeconfig = str(cluster.issue_service_account(NAMESPACE, "penstock-operator"))
    nameless = ["unshare", "--user", "--map-user=54321"]
    program = [sys.executable, "-m", "penstock_cli", "operator"]
    command = [*nameless, *program, "--kubeconfig", kubeconfig, "--namespace", NAMESPACE]
    named = ("LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    with path.open("w") as output:
        ports = ["--health-port", "0", "--metrics-port", "0"]
        operator = subprocess.Popen([*command, *ports], stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield path
        finally:
            operator.terminate()
            operator.wait(20)


def eventually(reached: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline, f"not within 30 s: {what}\n{log.read_text()[-3000:]}"
        time.sleep(0.2)


def test_from_examples_to_nothing(cluster: ControlPlane, log: Path) -> None:
    def kubectl(*arguments: str) -> str:
        return cluster.kubectl(*arguments, check=False)

    examples = str(ROOT / "examples" / "kubernetes")
    cluster.kubectl("apply", "-f", examples)
    accepted = ("wait", "--for=condition=Accepted", "--timeout=1s", "vip/web")
    eventually(lambda: "condition met" in kubectl(*accepted), "the VIP is accepted", log)
    eventually(lambda: "edge.n1" in kubectl("get", "dpn"), "the node has its object", log)
    eventually(lambda: "dataplane=edge" in kubectl("get", "node", "n1", "--show-labels"), "the node is labelled", log)
    daemon_sets = ("get", "daemonsets", "-n", NAMESPACE, "-o", "name")
    eventually(lambda: kubectl(*daemon_sets).count("penstock-edge") == 2, "two DaemonSets", log)
    eventually(lambda: "Accepted" in kubectl("get", "events"), "an Event tells", log)

    cluster.kubectl("delete", "-f", examples, "--wait=false")
    everything = ("get", "vip,rlp,pool,dp,dpn,dpnr", "-A", "-o", "name")
    eventually(lambda: not kubectl(*everything).strip(), "all objects are gone", log)
    eventually(lambda: not kubectl(*daemon_sets).strip(), "the DaemonSets are gone", log)
    eventually(lambda: "dataplane=edge" not in kubectl("get", "node", "n1", "--show-labels"), "the label is gone", log)
    assert "orbidden" not in log.read_text()
