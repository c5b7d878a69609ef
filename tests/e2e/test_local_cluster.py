"""A real cluster of two nodes: pods are served, parts fail and come back, and nothing is left in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.cgroups import Cgroups
from e2e.cluster.errors import StateError
from e2e.cluster.local import LocalCluster
from e2e.cluster.network import namespaces
from e2e.cluster.processes import wait_until
from e2e.cluster.spec import make_spec
from e2e.images.build import Image, build

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces, mounts and control groups: needs root"),
]
NAME = f"selftest{os.environ.get('PYTEST_XDIST_WORKER', '')}"  # a cluster for each process that has some of these tests
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    made = LocalCluster(NAME)
    made.down()
    made.up(make_spec(2, name=NAME, labels=["2:role=web"], taints=["1:dedicated=lb:NoSchedule"]))
    yield made
    made.down()


@pytest.fixture(scope="module")
def serving(cluster: LocalCluster) -> LocalCluster:
    """Run two servers in the cluster."""
    (server,) = build(["httpserver"])
    cluster.load_images([server.archive], nodes=["node-2"])
    cluster.kubectl("apply", "-f", "-", stdin=web(server))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return cluster


def web(image: Image) -> str:
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    container = {"name": "web", "image": image.reference, "imagePullPolicy": "Never", "env": [pod_name]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})


def pod_addresses(cluster: LocalCluster) -> list[str]:
    pods = cluster.get("pods", "--selector=app=web")["items"]
    return [pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")]


def test_the_client_reaches_pods_on_the_nodes_they_may_run_on(serving: LocalCluster) -> None:
    pods = serving.get("pods", "--selector=app=web")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-2"}
    for address in pod_addresses(serving):
        load = [*serving.client_program("loadgen"), "--target", f"http://{address}:8080/", "--rate=20", "--duration=1s"]
        lines = subprocess.run(load, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
        summary = json.loads(lines[-1])
        assert (summary["completed"], summary["failed"]) == (20, 0)
        assert set(summary["backends"]) <= {pod["metadata"]["name"] for pod in pods}


def test_a_node_has_folders_of_its_own(cluster: LocalCluster) -> None:
    for node in ("node-1", "node-2"):
        command = [*cluster.node_command(node), "sh", "-c", f"hostname; ls /dev/shm; touch /dev/shm/{node}"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{node}\n"
    assert not Path("/dev/shm/node-1").exists()


def test_a_second_cluster_of_that_name_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(StateError, match="down` first"):
        LocalCluster(NAME).up(make_spec(1, name=NAME))


def test_the_api_server_stops_while_pods_go_on(serving: LocalCluster) -> None:
    (address, *_) = pod_addresses(serving)
    again = LocalCluster(NAME)  # as another process finds it
    again.stop_apiserver()
    load = [*again.client_program("loadgen"), "--target", f"http://{address}:8080/", "--rate=20", "--duration=1s"]
    summary = subprocess.run(load, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[-1]
    again.start_apiserver()
    assert json.loads(summary)["failed"] == 0
    assert len(again.ready_nodes()) == 2


def test_a_lost_node_comes_back_empty_handed(cluster: LocalCluster) -> None:
    subprocess.run([*cluster.node_command("node-1"), "ip", "route", "add", "192.0.2.0/24", "dev", "lo"], check=True)
    cluster.kill_node("node-1")
    with pytest.raises(StateError, match="not running"):
        cluster.node_command("node-1")
    cluster.start_node("node-1")
    assert wait_until(cluster.node("node-1").containerd_ready, 30)
    routes = subprocess.run(
        [*cluster.node_command("node-1"), "ip", "route"], capture_output=True, text=True, check=True
    )
    assert "192.0.2.0" not in routes.stdout
    assert not list(Path("/dev/shm").glob("node-*"))
    assert wait_until(lambda: len(cluster.ready_nodes()) == 2, 60, interval=0.5)


def test_down_leaves_nothing(cluster: LocalCluster) -> None:
    spec = cluster.spec
    groups = Cgroups.detect()
    cluster.down()
    assert not cluster.exists()
    assert not [name for name in namespaces(spec) if (Path("/run/netns") / name).exists()]
    assert not [h for h in (*groups.hierarchies, *groups.others) if list(h.glob(f"penstock-cluster.{NAME}*"))]
    assert str(cluster.directory) not in Path("/proc/self/mounts").read_text()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if str(cluster.directory).encode() in command]
    cluster.down()


def test_down_clears_what_a_crash_left(cluster: LocalCluster) -> None:
    cluster.down()
    command = [sys.executable, "-m", "e2e.cluster", "up", "--nodes=1", f"--name={NAME}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as making:
        assert making.stderr is not None
        for line in making.stderr:
            if "control plane" in line:
                break
        assert wait_until((cluster.directory / "nodes").exists, 30)
        making.kill()
    spec = cluster.spec
    cluster.down()
    assert not cluster.exists()
    assert not [name for name in namespaces(spec) if (Path("/run/netns") / name).exists()]
