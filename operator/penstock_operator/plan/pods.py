"""Parts that pods of every make have: powers, directories of the node, variables."""

from __future__ import annotations

from typing import Any

from penstock_api import DataPlane
from penstock_api.dataplane import PodResources
from penstock_api.names import DATAPLANE_LABEL

Manifest = dict[str, Any]

ALLOWED_DIR = "/etc/penstock/allowed"
ALLOWED_FILE = "vips.json"
ALLOWED_ANNOTATION = "penstock.dev/allowed"
"""On a data-plane pod: digest of what its ConfigMap says. A change of it has the kubelet refresh the volume."""

AGENT_ID = 65532  # user and group of the agent; docker/agent.Dockerfile has the same

REQUESTED_MEMORY = "64Mi"
AGENT_MEBIBYTES = 512
DATA_PLANE_MEBIBYTES = (
    1024  # beside flow tables: frames of a thousand VIPs at level `full`, and a hostile agent's requests
)
CONTROL_MEBIBYTES = 256
BYTES_PER_FLOW = 512  # as in penstock_embedded.sizing, from which the next number is, too
LARGEST_AUTOMATIC_TABLE = 1_048_576


def pod(data_plane: DataPlane, containers: list[Manifest], account: str) -> Manifest:
    """Return what all our pods have in common, around their containers."""
    found: Manifest = {
        "serviceAccountName": account,
        # The operator's own label on the node, not the user's selector: it stays until the node has been cleared.
        "nodeSelector": {DATAPLANE_LABEL: data_plane.metadata.name},
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 10,
        # Files are shared by this group: a data plane that is a member can give it files without a capability.
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "supplementalGroups": [AGENT_ID]},
        "containers": containers,
    }
    tolerations = [toleration.to_dict() for toleration in data_plane.spec.tolerations]
    if tolerations:
        found["tolerations"] = tolerations
    return found


def security(capabilities: list[str], user: int = 0) -> Manifest:
    """Return the powers of a container: these capabilities and no other."""
    powers: Manifest = {"drop": ["ALL"]}
    if capabilities:
        powers["add"] = capabilities
    return {
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": user != 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": powers,
    }


def shared_mounts(name: str) -> list[Manifest]:
    """Return where a container has what data plane and agent share."""
    return [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - where POSIX shared memory lives
        {"name": "run", "mountPath": run_dir(name)},
    ]


def state_mount(name: str) -> Manifest:
    """Return where a container has the agent's state: the agent's, and of the data plane that hands it over."""
    return {"name": "state", "mountPath": state_dir(name)}


def allowed_name(name: str) -> str:
    """Return the name of the ConfigMap with the addresses that VIPs of a DataPlane may have."""
    return f"penstock-{name}-allowed"


def allowed_volume(name: str) -> Manifest:
    """Return the volume of that ConfigMap. A pod starts without it: then nothing is refused yet."""
    return {"name": "allowed", "configMap": {"name": allowed_name(name), "optional": True}}


def allowed_mount() -> Manifest:
    """Return where a data plane has that ConfigMap."""
    return {"name": "allowed", "mountPath": ALLOWED_DIR, "readOnly": True}


def for_agent(name: str) -> list[str]:
    """Return the options by which a data plane lets the agent in, and bounds what it may ask for."""
    return [
        *("--allow-uid", str(AGENT_ID), "--group", str(AGENT_ID), "--agent-state-dir", state_dir(name)),
        *("--allowed-vips", f"{ALLOWED_DIR}/{ALLOWED_FILE}"),
    ]


def shared_memory(name: str) -> str:
    """Return the directory of the node in which flow arena, frames and actions lie."""
    return f"/dev/shm/penstock/{name}"  # noqa: S108 - the node's own, one directory of it


def shared_volumes(name: str) -> list[Manifest]:
    """Return the directories of the node that data plane and agent share."""
    return [
        host_path("shm", shared_memory(name)),
        host_path("run", run_dir(name)),
        host_path("state", state_dir(name)),
    ]


def host_path(name: str, path: str, type_: str = "DirectoryOrCreate") -> Manifest:
    """Return a volume that is a file or directory of the node."""
    return {"name": name, "hostPath": {"path": path, "type": type_}}


def downward(name: str, field: str) -> Manifest:
    """Return a variable whose value is a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": field}}}


def run_dir(name: str) -> str:
    """Return the directory of the control socket."""
    return f"/run/penstock/{name}"


def probes(*command: str, alive: tuple[str, ...] | None = None) -> Manifest:
    """Return the probes of a container that forwards; `alive` is another command for liveness."""
    return {
        "readinessProbe": {"exec": {"command": [*command]}, "periodSeconds": 5, "timeoutSeconds": 10},
        # The supervisor inside restarts a crashed process; this is for one that hangs, and must survive a busy node.
        "livenessProbe": {
            "exec": {"command": [*(alive or command)]},
            **{"initialDelaySeconds": 15, "periodSeconds": 20, "timeoutSeconds": 15, "failureThreshold": 4},
        },
    }


def state_dir(name: str) -> str:
    """Return the directory of what outlives a restart of the node."""
    return f"/var/lib/penstock/{name}"


def resources(wanted: PodResources | None, limit_mebibytes: int) -> Manifest:
    """Return the resources of a container: what is wanted, with a limit of memory where nothing is said of memory.

    Without a request of its own a limit would be one, and keep the pod off small nodes.
    """
    found = wanted.to_dict() if wanted else {}
    if any("memory" in amounts for amounts in found.values()):
        return found
    default = {"requests": REQUESTED_MEMORY, "limits": amount(limit_mebibytes)}
    return found | {kind: {**found.get(kind, {}), "memory": memory} for kind, memory in default.items()}


def amount(mebibytes: int) -> str:
    """Return an amount of memory as the API server writes it, or it would differ for ever."""
    gibibytes, rest = divmod(mebibytes, 1024)
    return f"{mebibytes}Mi" if rest else f"{gibibytes}Gi"


def table_mebibytes(data_plane: DataPlane) -> int:
    """Return what to allow for flow tables: twice where a larger one takes over, with its indexes.

    An automatic table depends on the node, which is not known here. The data plane makes it for a third of its memory
    limit at most, so the limit that holds the largest one never bounds it.
    """
    return -(-(data_plane.spec.flow_table_size or LARGEST_AUTOMATIC_TABLE) * BYTES_PER_FLOW // 2**20)


def table_size(data_plane: DataPlane) -> str:
    """Return the size of flow tables as the data planes' option has it."""
    return str(data_plane.spec.flow_table_size or "auto")
