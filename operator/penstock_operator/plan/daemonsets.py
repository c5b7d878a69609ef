"""The two DaemonSets of a DataPlane: one touches the kernel, the other talks to the API server.

They share two directories of the node and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from penstock_api import AnnouncementType, DataPlane
from penstock_api.dataplane import DataPlaneType
from penstock_api.names import (
    AGENT_ACCOUNT,
    COMPONENT_LABEL,
    DATAPLANE_ACCOUNT,
    DATAPLANE_LABEL,
    PART_OF_LABEL,
)

from penstock_operator.plan import pods, vpp
from penstock_operator.plan.facts import TEMPLATE_HASH_LABEL
from penstock_operator.plan.pods import Manifest

AGENT_METRICS_PORT = 9402
ACCOUNT_ANNOTATION = "penstock.dev/account-uid"
HASH_ANNOTATION = "penstock.dev/applied-hash"


@dataclass(frozen=True)
class Installation:
    """Where and from which images pods run."""

    namespace: str
    data_plane_image: str
    agent_image: str
    vpp_image: str = "penstock/vpp:latest"
    pull_policy: str = "IfNotPresent"


def data_plane_name(name: str) -> str:
    """Return the name of the data-plane DaemonSet."""
    return f"penstock-{name}-dataplane"


def agent_name(name: str) -> str:
    """Return the name of the agent DaemonSet."""
    return f"penstock-{name}-agent"


def data_plane_daemon_set(data_plane: DataPlane, installation: Installation) -> Manifest:
    """Render the pods that forward packets; the operator replaces them one at a time (OnDelete)."""
    name = data_plane.metadata.name
    if data_plane.spec.type is DataPlaneType.VPP:
        pod = vpp.pod(data_plane, installation.vpp_image, installation.pull_policy)
    else:
        pod = _embedded(data_plane, installation)
    pod |= {"hostNetwork": True, "dnsPolicy": "Default", "automountServiceAccountToken": False}
    labels = _labels(name, "dataplane")
    template = {"metadata": {"labels": labels | {TEMPLATE_HASH_LABEL: digest(pod)}}, "spec": pod}
    return _daemon_set(data_plane_name(name), installation, labels, template, {"type": "OnDelete"})


def _embedded(data_plane: DataPlane, installation: Installation) -> Manifest:
    pod = pods.pod(data_plane, [_forwarder(data_plane, installation)], DATAPLANE_ACCOUNT)
    tun = pods.host_path("tun", "/dev/net/tun", "CharDevice")
    name = data_plane.metadata.name
    return pod | {"volumes": [*pods.shared_volumes(name), pods.allowed_volume(name), tun]}


def _forwarder(data_plane: DataPlane, installation: Installation) -> Manifest:
    name = data_plane.metadata.name
    capabilities = ["NET_ADMIN"]
    if data_plane.spec.announcement.type is AnnouncementType.L2:
        capabilities.append("NET_RAW")  # ARP and neighbour discovery
    return {
        "name": "dataplane",
        "image": installation.data_plane_image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["penstock", "dataplane"],
        "args": [
            *("--run-dir", pods.run_dir(name), "--flow-table-size", pods.table_size(data_plane)),
            *([] if data_plane.spec.shortcut else ["--no-shortcut"]),
            *pods.for_agent(name),
        ],
        "securityContext": pods.security(capabilities),
        "volumeMounts": [
            *pods.shared_mounts(name),
            pods.state_mount(name),
            pods.allowed_mount(),
            {"name": "tun", "mountPath": "/dev/net/tun"},
        ],
        **pods.probes("penstock-probe", pods.run_dir(name)),
        "resources": pods.resources(
            data_plane.spec.resources.data_plane, pods.DATA_PLANE_MEBIBYTES + pods.table_mebibytes(data_plane)
        ),
    }


def agent_daemon_set(data_plane: DataPlane, installation: Installation, account: str = "") -> Manifest:
    """Render the pods that steer: an API token and no power over the node.

    `account` is the UID of their ServiceAccount. When the account is deleted and made anew, tokens of the old one are
    refused for as long as a pod lives, so the pods have to be replaced.
    """
    name = data_plane.metadata.name
    pod = pods.pod(data_plane, [_agent(data_plane, installation)], AGENT_ACCOUNT)
    pod["volumes"] = pods.shared_volumes(name)
    labels = _labels(name, "agent")
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    metadata: Manifest = {"labels": labels}
    if account:
        metadata["annotations"] = {ACCOUNT_ANNOTATION: account}
    template = {"metadata": metadata, "spec": pod}
    return _daemon_set(agent_name(name), installation, labels, template, strategy)


def _agent(data_plane: DataPlane, installation: Installation) -> Manifest:
    name = data_plane.metadata.name
    return {
        "name": "agent",
        "image": installation.agent_image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["penstock", "agent"],
        "env": [
            pods.downward("NODE_NAME", "spec.nodeName"),
            pods.downward("POD_NAMESPACE", "metadata.namespace"),
            {"name": "PENSTOCK_DATAPLANE", "value": name},
            {"name": "PENSTOCK_RUN_DIR", "value": pods.run_dir(name)},
            {"name": "PENSTOCK_STATE_DIR", "value": pods.state_dir(name)},
            {"name": "PENSTOCK_PORT", "value": str(AGENT_METRICS_PORT)},
        ],
        "ports": [{"name": "metrics", "containerPort": AGENT_METRICS_PORT, "protocol": "TCP"}],
        "securityContext": pods.security([], user=pods.AGENT_ID),
        "volumeMounts": [*pods.shared_mounts(name), pods.state_mount(name)],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics", "scheme": "HTTP"},
            "initialDelaySeconds": 10,
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
        "resources": pods.resources(data_plane.spec.resources.agent, pods.AGENT_MEBIBYTES),
    }


def template_hash(daemon_set: Manifest) -> str:
    """Return the hash that an up-to-date data-plane pod carries."""
    return str(daemon_set["spec"]["template"]["metadata"]["labels"][TEMPLATE_HASH_LABEL])


def digest(value: object) -> str:
    """Return a short hash of what JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _daemon_set(
    name: str, installation: Installation, labels: dict[str, str], template: Manifest, strategy: Manifest
) -> Manifest:
    spec = {"selector": {"matchLabels": labels}, "template": template, "updateStrategy": strategy}
    return {
        "metadata": {
            "name": name,
            "namespace": installation.namespace,
            "labels": labels,
            "annotations": {HASH_ANNOTATION: digest(spec)},
        },
        "spec": spec,
    }


def _labels(name: str, component: str) -> dict[str, str]:
    return {PART_OF_LABEL: "penstock", COMPONENT_LABEL: component, DATAPLANE_LABEL: name}
