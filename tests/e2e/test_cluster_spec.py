"""What a user types becomes a spec, or an error that names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import layout
from e2e.cluster.errors import StateError
from e2e.cluster.kind import configuration
from e2e.cluster.layout import Layout
from e2e.cluster.local import available_memory
from e2e.cluster.node import kubelet_configuration, node_object, pod_network
from e2e.cluster.spec import ClusterSpec, make_spec


def test_labels_and_taints_reach_the_nodes_they_name() -> None:
    spec = make_spec(
        4,
        labels=["1-2:penstock.dev/load-balancer=true", "zone=a", "3:zone=b"],
        taints=["4:dedicated=web:NoSchedule", "1:lonely:NoExecute"],
    )
    assert [node.labels for node in spec.nodes] == [
        {"penstock.dev/load-balancer": "true", "zone": "a"},
        {"penstock.dev/load-balancer": "true", "zone": "a"},
        {"zone": "b"},
        {"zone": "a"},
    ]
    assert spec.nodes[0].taint_objects() == [{"key": "lonely", "value": "", "effect": "NoExecute"}]
    assert spec.nodes[3].taint_objects() == [{"key": "dedicated", "value": "web", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"nodes": 0}, "--nodes: 0"),
        ({"nodes": 33}, "--nodes: 33"),
        ({"nodes": 1, "name": "Penstock"}, "--name"),
        ({"nodes": 1, "name": "x" * 16}, "--name"),
        ({"nodes": 2, "labels": ["zone"]}, "--label: 'zone'"),
        ({"nodes": 2, "labels": ["3:zone=a"]}, "names nodes 3 to 3"),
        ({"nodes": 2, "labels": ["2-1:zone=a"]}, "names nodes 2 to 1"),
        ({"nodes": 2, "taints": ["zone=a"]}, "--taint: 'zone=a'"),
        ({"nodes": 2, "taints": ["zone=a:Sometimes"]}, "--taint"),
    ],
)
def test_what_makes_no_sense_is_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StateError, match=complaint):
        make_spec(**arguments)


def test_a_spec_survives_its_file() -> None:
    spec = make_spec(3, labels=["2:a=b"], taints=["c:NoSchedule"])
    assert ClusterSpec.from_json(spec.to_json()) == spec
    with pytest.raises(StateError, match="node-1, node-2, node-3"):
        spec.node("node-4")


def test_nodes_have_networks_of_their_own() -> None:
    spec = make_spec(32)
    addresses = {layout.node_address(node) for node in spec.nodes}
    networks = {layout.pod_cidr(node) for node in spec.nodes}
    names = {Layout("penstock").node_namespace(node) for node in spec.nodes}
    assert len(addresses) == len(networks) == len(names) == 32
    assert not addresses & {layout.CONTROL_ADDRESS, layout.CLIENT_ADDRESS}


def test_a_node_is_told_its_pod_network_everywhere_alike() -> None:
    (node,) = make_spec(1, labels=["role=web"]).nodes
    document = json.dumps(node_object(node))
    assert '"podCIDR": "10.244.1.0/24"' in document
    assert '"role": "web"' in document
    assert "10.244.1.0/24" in json.dumps(pod_network(node))


def test_a_kubelet_keeps_to_its_control_group() -> None:
    socket = Path("/state/containerd.sock")
    (node,) = make_spec(1, quota_period="10ms").nodes
    configured = kubelet_configuration(Path("/state"), "penstock-cluster.x/node-1", socket, node)
    assert configured["cgroupRoot"] == "/penstock-cluster.x/node-1"
    assert configured["containerRuntimeEndpoint"] == "unix:///state/containerd.sock"
    assert configured["cpuCFSQuotaPeriod"] == "10ms"


def test_kind_gets_a_worker_per_node() -> None:
    made = configuration(make_spec(2, labels=["1:a=b"], taints=["2:c=d:NoSchedule"]))
    nodes = made["nodes"]
    assert isinstance(nodes, list)
    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    assert nodes[1]["labels"] == {"a": "b"}
    assert json.loads(nodes[2]["kubeadmConfigPatches"][0])["nodeRegistration"]["taints"][0]["key"] == "c"


def test_kind_gives_all_kubelets_one_quota_period() -> None:
    assert "kubeadmConfigPatches" not in configuration(make_spec(2))
    (patch,) = configuration(make_spec(2, quota_period="10ms"))["kubeadmConfigPatches"]
    assert json.loads(patch)["cpuCFSQuotaPeriod"] == "10ms"
    first, second = make_spec(2).nodes
    with pytest.raises(StateError, match="one quota_period for all nodes"):
        configuration(ClusterSpec("x", [first, replace(second, quota_period="10ms")]))


def test_processors_are_given_to_pods_alone_where_that_is_asked_for() -> None:
    spec = make_spec(2, exclusive_cpus=True)
    configured = kubelet_configuration(Path("/state"), "x/node-1", Path("/state/containerd.sock"), spec.nodes[0])
    assert configured["cpuManagerPolicy"] == "static"
    (patch,) = configuration(spec)["kubeadmConfigPatches"]
    assert json.loads(patch)["cpuManagerPolicy"] == "static"
    with pytest.raises(StateError, match="one exclusive_cpus for all nodes"):
        configuration(ClusterSpec("x", [spec.nodes[0], replace(spec.nodes[1], exclusive_cpus=False)]))


def test_memory_is_what_the_kernel_says_is_available() -> None:
    assert available_memory("MemTotal: 24000000 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n") == 2048 * 1024
    assert available_memory("MemFree: 1 kB\n") == 0
    assert available_memory() > 0
