"""The API server that other tests rely on: ready, restartable, with users and node-bound tokens of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster import ClusterError, ControlPlane, control_plane
from e2e.cluster.processes import start_ticks, wait_until

pytestmark = pytest.mark.apiserver
ROOT = Path(__file__).parents[2]


def claims(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    decoded: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return decoded


def test_users_are_subject_to_rbac(apiserver: ControlPlane) -> None:
    stranger = apiserver.issue("stranger", ["visitors"])
    with pytest.raises(ClusterError, match="Forbidden"):
        apiserver.kubectl("get", "nodes", kubeconfig=stranger)
    apiserver.kubectl("create", "clusterrole", "visitor", "--verb=list", "--resource=services")
    apiserver.kubectl("create", "clusterrolebinding", "visitors", "--clusterrole=visitor", "--group=visitors")

    def allowed() -> bool:
        answer = apiserver.kubectl("auth", "can-i", "list", "services", kubeconfig=stranger, check=False)
        return answer.strip() == "yes"

    assert wait_until(allowed, 10, interval=0.1)


def test_a_token_can_be_bound_to_a_node(apiserver: ControlPlane) -> None:
    apiserver.kubectl("apply", "-f", "-", stdin='{"apiVersion":"v1","kind":"Node","metadata":{"name":"bound"}}')
    apiserver.kubectl("create", "namespace", "tokens")
    apiserver.kubectl("create", "serviceaccount", "agent", "--namespace=tokens")
    claim = claims(apiserver.token("tokens", "agent", node="bound"))["kubernetes.io"]
    assert isinstance(claim, dict)
    assert claim["node"]["name"] == "bound"
    kubeconfig = apiserver.issue_service_account("tokens", "agent", node="bound")
    assert "system:serviceaccount:tokens:agent" in apiserver.kubectl("auth", "whoami", kubeconfig=kubeconfig)


def test_the_api_server_stops_and_comes_back_with_its_data() -> None:
    with control_plane() as plane:
        plane.kubectl("create", "namespace", "kept")
        plane.stop_apiserver()
        assert not plane.ready()
        plane.start_apiserver()
        assert "kept" in plane.kubectl("get", "namespaces", "-o", "name")
        directory = plane.directory
    assert not directory.exists()


def test_a_killed_owner_leaves_nothing_behind() -> None:
    script = """
import json, sys, time
from e2e.cluster import control_plane
with control_plane() as plane:
    pids = [plane.processes.record(name).pid for name in plane.processes.names()]
    print(json.dumps({"pids": pids, "directory": str(plane.directory)}), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        made = json.loads(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
    assert len(made["pids"]) == 2
    assert wait_until(lambda: all(start_ticks(pid) is None for pid in made["pids"]), 10)
    assert wait_until(lambda: not Path(made["directory"]).exists(), 10)
