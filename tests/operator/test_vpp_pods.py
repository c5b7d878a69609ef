"""The pod of a data plane of type vpp, as the API server gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from penstock_operator.plan import daemonsets

from tests.support.plan_builders import data_plane

GOLDEN = Path(__file__).parent / "golden"
INSTALLATION = daemonsets.Installation(
    "penstock-system", "penstock/dataplane:1", "penstock/agent:1", "penstock/vpp:1", "IfNotPresent"
)
ADDRESSES = [{"node": "lb-1", "address": "192.0.2.11/24"}, {"node": "lb-2", "address": "192.0.2.12/24"}]
SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "large": {
        "flowTableSize": 4_194_304,
        "announcement": {"type": "L2"},
        "resources": {"dataPlane": {"limits": {"memory": "4Gi"}}},
        "vpp": {"workers": 3, "exclusiveCPUs": True, "hugepages": {"amount": "2048Mi"}},
    },
    "af-packet": {
        "vpp": {"interfaces": [{"type": "AfPacket", "name": "eth1", "addresses": ADDRESSES, "gateways": ["192.0.2.1"]}]}
    },
    "af-xdp": {
        "vpp": {"workers": 2, "interfaces": [{"type": "AfXdp", "name": "eth1", "queues": 2, "addresses": ADDRESSES}]}
    },
    "dpdk": {
        "vpp": {
            "hugepages": {"pageSize": "1Gi", "amount": "2Gi"},
            "interfaces": [
                {
                    "type": "Dpdk",
                    "pciAddress": "0000:3b:00.0",
                    "resourceName": "example.com/card",
                    "addresses": ADDRESSES,
                }
            ],
        }
    },
}


def daemon_set(**spec: Any) -> dict[str, Any]:
    return daemonsets.data_plane_daemon_set(data_plane(type="vpp", **spec), INSTALLATION)


def containers(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    pod = manifest["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


@pytest.mark.parametrize("name", SPECS)
def test_the_daemon_set(name: str) -> None:
    assert daemon_set(**SPECS[name]) == yaml.safe_load((GOLDEN / f"vpp-{name}.yaml").read_text())


def test_what_parses_packets_may_do_nothing_to_the_node() -> None:
    powers = {name: each["securityContext"] for name, each in containers(daemon_set()).items()}
    assert powers["vpp"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW", "IPC_LOCK"]}
    assert powers["prepare"]["capabilities"]["add"] == ["NET_ADMIN"]
    assert powers["control"]["capabilities"]["add"] == ["NET_ADMIN"]
    assert not any(each["privileged"] or not each["readOnlyRootFilesystem"] for each in powers.values())


def test_announcing_needs_raw_sockets_in_the_control_container_only() -> None:
    found = containers(daemon_set(announcement={"type": "L2"}))
    assert found["control"]["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]


def test_exclusive_processors_need_a_pod_of_fixed_size() -> None:
    for name, container in containers(daemon_set(**SPECS["large"])).items():
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], name
        assert {"cpu", "memory"} <= resources["limits"].keys(), name
    vpp = containers(daemon_set(**SPECS["large"]))["vpp"]["resources"]["limits"]
    assert vpp == {"cpu": "4", "memory": "4Gi", "hugepages-2Mi": "2Gi"}


def test_hugepages_come_with_a_request_of_memory() -> None:
    resources = containers(daemon_set(vpp={"hugepages": {}}))["vpp"]["resources"]
    assert resources["requests"] == {"memory": "64Mi", "hugepages-2Mi": "512Mi"}
    assert resources["limits"] == {"memory": "2560Mi", "hugepages-2Mi": "512Mi"}


def test_an_embedded_data_plane_has_one_container() -> None:
    manifest = daemonsets.data_plane_daemon_set(data_plane(), INSTALLATION)
    assert [each["image"] for each in manifest["spec"]["template"]["spec"]["containers"]] == ["penstock/dataplane:1"]
