"""The two DaemonSets of a DataPlane: one touches the kernel, the other talks to the API server.

They share two directories of the node and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from penstock_api import AnnouncementType, DataPlane
from penstock_api.dataplane import PodResources
from penstock_api.names import (
    AGENT_ACCOUNT,
    COMPONENT_LABEL,
    DATAPLANE_ACCOUNT,
    DATAPLANE_LABEL,
    PART_OF_LABEL,
)

from penstock_operator.plan.facts import TEMPLATE_HASH_LABEL

Manifest = dict[str, Any]

AGENT_METRICS_PORT = 9402
HASH_ANNOTATION = "penstock.dev/applied-hash"


@dataclass(frozen=True)
class Installation:
    """Where and from which images pods run."""

    namespace: str
    data_plane_image: str
    agent_image: str
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
    pod = _pod(data_plane, _forwarder(data_plane, installation), DATAPLANE_ACCOUNT)
    pod |= {"hostNetwork": True, "dnsPolicy": "Default", "automountServiceAccountToken": False}
    pod["volumes"] = [*_shared_volumes(name), _host_path("tun", "/dev/net/tun", "CharDevice")]
    labels = _labels(name, "dataplane")
    template = {"metadata": {"labels": labels | {TEMPLATE_HASH_LABEL: digest(pod)}}, "spec": pod}
    return _daemon_set(data_plane_name(name), installation, labels, template, {"type": "OnDelete"})


def _forwarder(data_plane: DataPlane, installation: Installation) -> Manifest:
    name = data_plane.metadata.name
    capabilities = ["NET_ADMIN"]
    if data_plane.spec.announcement.type is AnnouncementType.L2:
        capabilities.append("NET_RAW")  # ARP and neighbour discovery
    probe = {"exec": {"command": ["penstock-probe", _run_dir(name)]}}
    return {
        "name": "dataplane",
        "image": installation.data_plane_image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["penstock", "dataplane"],
        "args": [
            *("--run-dir", _run_dir(name), "--flow-table-size", str(data_plane.spec.flow_table_size)),
            *([] if data_plane.spec.shortcut else ["--no-shortcut"]),
        ],
        "securityContext": _security(capabilities),
        "volumeMounts": [*_shared_mounts(name), {"name": "tun", "mountPath": "/dev/net/tun"}],
        "readinessProbe": probe | {"periodSeconds": 5, "timeoutSeconds": 10},
        # The supervisor inside restarts a crashed process; this is for one that hangs, and must survive a busy node.
        "livenessProbe": probe
        | {"initialDelaySeconds": 15, "periodSeconds": 20, "timeoutSeconds": 15, "failureThreshold": 4},
        "resources": _resources(data_plane.spec.resources.data_plane),
    }


def agent_daemon_set(data_plane: DataPlane, installation: Installation) -> Manifest:
    """Render the pods that steer: an API token and no power over the node."""
    name = data_plane.metadata.name
    pod = _pod(data_plane, _agent(data_plane, installation), AGENT_ACCOUNT)
    pod["volumes"] = [*_shared_volumes(name), _host_path("state", _state_dir(name))]
    labels = _labels(name, "agent")
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return _daemon_set(agent_name(name), installation, labels, template, strategy)


def _agent(data_plane: DataPlane, installation: Installation) -> Manifest:
    name = data_plane.metadata.name
    return {
        "name": "agent",
        "image": installation.agent_image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["penstock", "agent"],
        "env": [
            _downward("NODE_NAME", "spec.nodeName"),
            _downward("POD_NAMESPACE", "metadata.namespace"),
            {"name": "PENSTOCK_DATAPLANE", "value": name},
            {"name": "PENSTOCK_RUN_DIR", "value": _run_dir(name)},
            {"name": "PENSTOCK_STATE_DIR", "value": _state_dir(name)},
            {"name": "PENSTOCK_PORT", "value": str(AGENT_METRICS_PORT)},
        ],
        "ports": [{"name": "metrics", "containerPort": AGENT_METRICS_PORT, "protocol": "TCP"}],
        "securityContext": _security([]),
        "volumeMounts": [*_shared_mounts(name), {"name": "state", "mountPath": _state_dir(name)}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics", "scheme": "HTTP"},
            "initialDelaySeconds": 10,
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
        "resources": _resources(data_plane.spec.resources.agent),
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


def _pod(data_plane: DataPlane, container: Manifest, account: str) -> Manifest:
    pod: Manifest = {
        "serviceAccountName": account,
        # The operator's own label on the node, not the user's selector: it stays until the node has been cleared.
        "nodeSelector": {DATAPLANE_LABEL: data_plane.metadata.name},
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    tolerations = [toleration.to_dict() for toleration in data_plane.spec.tolerations]
    if tolerations:
        pod["tolerations"] = tolerations
    return pod


def _security(capabilities: list[str]) -> Manifest:
    # User 0 in both pods: the agent owns the files that it shares with the data plane, and has no capability at all.
    powers: Manifest = {"drop": ["ALL"]}
    if capabilities:
        powers["add"] = capabilities
    return {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": powers,
    }


def _shared_mounts(name: str) -> list[Manifest]:
    return [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - where POSIX shared memory lives
        {"name": "run", "mountPath": _run_dir(name)},
    ]


def _shared_volumes(name: str) -> list[Manifest]:
    return [
        _host_path("shm", f"/dev/shm/penstock/{name}"),  # noqa: S108 - the node's own, one directory of it
        _host_path("run", _run_dir(name)),
    ]


def _host_path(name: str, path: str, type_: str = "DirectoryOrCreate") -> Manifest:
    return {"name": name, "hostPath": {"path": path, "type": type_}}


def _downward(name: str, field: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}}


def _run_dir(name: str) -> str:
    return f"/run/penstock/{name}"


def _state_dir(name: str) -> str:
    return f"/var/lib/penstock/{name}"


def _resources(resources: PodResources | None) -> Manifest:
    return resources.to_dict() if resources else {}
