"""The pod of a data plane of type `vpp`: three containers of one image, each with no more power than it needs.

`prepare` makes VPP's device and ends, `vpp` parses packets and can do nothing else to the node, `control` answers the
agent and keeps routes, rules and announcements.
"""

from __future__ import annotations

import json

from penstock_api import AnnouncementType, DataPlane
from penstock_api.names import DATAPLANE_ACCOUNT
from penstock_api.vppspec import VppInterface, VppInterfaceType, VppSpec

from penstock_operator.plan import pods
from penstock_operator.plan.pods import Manifest

VPP_DIR = "/run/vpp"

# Kubernetes gives processors only to pods all of whose containers have as much as they may use.
_FIXED = {"cpu": "250m", "memory": "256Mi"}
_VPP_MEBIBYTES = 2048  # heap, buffers and statistics where they lie in small pages, and frames


def pod(data_plane: DataPlane, image: str, pull_policy: str) -> Manifest:
    """Return the pod's spec."""
    name = data_plane.metadata.name
    common = {"image": image, "imagePullPolicy": pull_policy}
    spec = pods.pod(data_plane, [_vpp(data_plane) | common, _control(data_plane) | common], DATAPLANE_ACCOUNT)
    spec["initContainers"] = [_prepare(data_plane) | common]
    vpp = {"name": "vpp", "emptyDir": {"medium": "Memory"}}
    spec["volumes"] = [*pods.shared_volumes(name), pods.allowed_volume(name), vpp]
    return spec


def _prepare(data_plane: DataPlane) -> Manifest:
    return {
        "name": "prepare",
        "command": ["penstock", "vpp", "prepare"],
        "args": _start_arguments(data_plane),
        "env": [pods.downward("NODE_NAME", "spec.nodeName")],
        "securityContext": pods.security(["NET_ADMIN"]),
        "volumeMounts": [_shm_mount(data_plane)],
        "resources": _small(data_plane),
    }


def _vpp(data_plane: DataPlane) -> Manifest:
    alive = ("vppctl", "-s", f"{VPP_DIR}/cli.sock", "show", "version")
    return {
        "name": "vpp",
        "command": ["penstock", "vpp", "start"],
        "args": [*_start_arguments(data_plane), "--group", str(pods.AGENT_ID)],
        "env": [pods.downward("NODE_NAME", "spec.nodeName")],
        "securityContext": pods.security(_vpp_capabilities(data_plane)),
        "volumeMounts": [_shm_mount(data_plane), {"name": "vpp", "mountPath": VPP_DIR}],
        **pods.probes(*alive),
        "resources": _vpp_resources(data_plane),
    }


def _control(data_plane: DataPlane) -> Manifest:
    run_dir = pods.run_dir(data_plane.metadata.name)
    capabilities = ["NET_ADMIN"]
    if data_plane.spec.announcement.type is AnnouncementType.L2:
        capabilities.append("NET_RAW")  # ARP and neighbour discovery
    return {
        "name": "control",
        "command": ["penstock", "vpp", "control"],
        "args": [
            *("--run-dir", run_dir, "--vpp-dir", VPP_DIR),
            *("--shm-dir", pods.shared_memory(data_plane.metadata.name), "--wire"),
            *(["--cards"] if _interfaces(data_plane) else []),
            *pods.for_agent(data_plane.metadata.name),
        ],
        "securityContext": pods.security(capabilities),
        "volumeMounts": [
            _shm_mount(data_plane),
            {"name": "run", "mountPath": run_dir},
            pods.state_mount(data_plane.metadata.name),
            pods.allowed_mount(),
            {"name": "vpp", "mountPath": VPP_DIR},
        ],
        # Ready while VPP answers through it; alive while it answers, so that it outlives a VPP that is away.
        **pods.probes("penstock-probe", run_dir, alive=("penstock-probe", run_dir, "--alive")),
        "resources": _small(data_plane),
    }


def _start_arguments(data_plane: DataPlane) -> list[str]:
    spec = data_plane.spec
    wanted = spec.vpp or VppSpec()
    arguments = ["--vpp-dir", VPP_DIR, "--shm-dir", pods.shared_memory(data_plane.metadata.name)]
    arguments += ["--flow-table-size", pods.table_size(data_plane), "--workers", str(wanted.workers)]
    if wanted.exclusive_cpus:
        arguments.append("--exclusive-cpus")
    if wanted.hugepages is not None:
        arguments += ["--page-size", wanted.hugepages.page_size.value]
        arguments += ["--hugepages-mebibytes", str(wanted.hugepages.mebibytes)]
    for interface in wanted.interfaces:
        card = {key: value for key, value in interface.to_dict().items() if key != "resourceName"}
        arguments += ["--card", json.dumps(card, sort_keys=True)]
    return arguments


def _vpp_capabilities(data_plane: DataPlane) -> list[str]:
    capabilities = ["NET_RAW", "IPC_LOCK"]  # packet sockets, and their rings in locked memory
    if VppInterfaceType.AF_XDP in {each.type for each in _interfaces(data_plane)}:
        capabilities += ["NET_ADMIN", "BPF"]  # to put its program before the driver
    return capabilities


def _interfaces(data_plane: DataPlane) -> tuple[VppInterface, ...]:
    return data_plane.spec.vpp.interfaces if data_plane.spec.vpp is not None else ()


def _vpp_resources(data_plane: DataPlane) -> Manifest:
    spec = data_plane.spec
    wanted = spec.vpp or VppSpec()
    found = pods.resources(spec.resources.data_plane, _VPP_MEBIBYTES + pods.table_mebibytes(data_plane))
    if spec.exclusive_cpus:
        size = {"cpu": str(wanted.workers + 1), "memory": str(spec.data_plane_limits.memory)}
        found = {"requests": dict(size), "limits": dict(size)}
    if wanted.hugepages is not None:
        pages = {f"hugepages-{wanted.hugepages.page_size.value}": pods.amount(wanted.hugepages.mebibytes)}
        found = {kind: {**found.get(kind, {}), **pages} for kind in ("requests", "limits")}
    for resource in sorted({each.resource_name for each in _interfaces(data_plane) if each.resource_name}):
        count = str(sum(each.resource_name == resource for each in _interfaces(data_plane)))
        found = {kind: {**found.get(kind, {}), resource: count} for kind in ("requests", "limits")}
    return found


def _small(data_plane: DataPlane) -> Manifest:
    if data_plane.spec.exclusive_cpus:
        return {"requests": dict(_FIXED), "limits": dict(_FIXED)}
    return pods.resources(None, pods.CONTROL_MEBIBYTES)


def _shm_mount(data_plane: DataPlane) -> Manifest:
    # At the node's own path: the rest of /dev/shm is the container's, where VPP keeps segments of its own.
    return {"name": "shm", "mountPath": pods.shared_memory(data_plane.metadata.name)}
