"""Service accounts and what each may do: no rule without a line of code that needs it."""

from __future__ import annotations

from typing import Any

from penstock_api import GROUP
from penstock_api.names import AGENT_ACCOUNT, DATAPLANE_ACCOUNT, INSTALL_NAMESPACE, OPERATOR_ACCOUNT, PART_OF_LABEL

from tools.generators.output import CHART, MANIFESTS, Files, dump

_SOURCE = "tools/generators/rbac.py"
_RBAC = "rbac.authorization.k8s.io"
_LABELS = {PART_OF_LABEL: "penstock"}

_READ = ("get", "list", "watch")
_APPLY = ("create", "patch")  # server-side apply of an object that may not be there yet

_USER_KINDS = ("loadbalancervips", "rlpolicies")
_ADMIN_KINDS = ("addresspools", "dataplanes")
_NODE_KINDS = ("dataplanenodes", "dataplanenodereports")


def _rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


def _status(kinds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{kind}/status" for kind in kinds)


_OPERATOR_CLUSTER = [
    _rule(GROUP, (*_USER_KINDS, *_ADMIN_KINDS, *_NODE_KINDS), _READ),
    _rule(GROUP, (*_status(_USER_KINDS), *_status(_ADMIN_KINDS)), ("patch",)),
    _rule(GROUP, ("dataplanes",), ("patch",)),  # its finalizer
    _rule(GROUP, ("dataplanenodes",), (*_APPLY, "delete")),
    _rule(GROUP, ("dataplanenodes/status",), ("patch",)),  # of nodes whose agents are silent
    _rule(GROUP, ("dataplanenodereports",), ("delete",)),  # of nodes that are gone
    _rule("", ("nodes",), (*_READ, "patch")),  # the label that pods are placed by; an admission policy refuses all else
    _rule("", ("services",), _READ),  # whose addresses a VIP must not take
    _rule("networking.k8s.io", ("servicecidrs",), _READ),
    _rule("events.k8s.io", ("events",), _APPLY),
]

_OPERATOR_NAMESPACE = [
    _rule("apps", ("daemonsets",), (*_READ, *_APPLY, "delete")),
    _rule("", ("pods/proxy",), ("get",)),  # `penstock top` in the operator's pod reads agents' states
    # One data-plane pod at a time is replaced; an annotation has its volumes refreshed, and an admission policy refuses
    # all other changes.
    _rule("", ("pods",), (*_READ, "patch", "delete")),
    _rule("", ("configmaps",), ("get", *_APPLY)),  # addresses that data planes are told
    # Its own, those that agents renew, and those of lost nodes.
    _rule("coordination.k8s.io", ("leases",), ("get", "list", "create", "update", "delete")),
    _rule("", ("serviceaccounts",), _READ),  # the agents': pods of a deleted one have to be replaced
]

_AGENT_CLUSTER = [
    _rule(GROUP, (*_USER_KINDS, "dataplanenodes"), _READ),
    _rule(GROUP, ("dataplanenodes/status",), ("patch",)),
    _rule(GROUP, ("dataplanenodes",), ("patch",)),  # its finalizer; an admission policy refuses all else
    _rule(GROUP, ("dataplanenodereports",), (*_APPLY, "delete")),
    _rule("discovery.k8s.io", ("endpointslices",), _READ),
    _rule("", ("services",), _READ),  # where their ports lead
    _rule("events.k8s.io", ("events",), _APPLY),
]

_AGENT_NAMESPACE = [
    _rule("coordination.k8s.io", ("leases",), ("list", "watch", *_APPLY, "delete")),  # its own and its peers'
]

_USER_VERBS = (*_READ, "create", "update", "patch", "delete", "deletecollection")


def render() -> Files:
    """Return the accounts for kubectl and for the chart, which knows its namespace only when installed."""
    return {
        MANIFESTS / "rbac.yaml": dump(objects(INSTALL_NAMESPACE), source=_SOURCE),
        CHART / "templates" / "rbac.yaml": _with_pull_secrets(
            dump(objects("{{ .Release.Namespace }}"), source=_SOURCE)
        ),
    }


_PULL_SECRETS = """\
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
"""


def _with_pull_secrets(text: str) -> str:
    """Let every pod pull with the chart's Secrets, by way of its account."""
    lines = text.splitlines(keepends=True)
    return "".join(line + _PULL_SECRETS if line.startswith("automountServiceAccountToken") else line for line in lines)


def objects(namespace: str) -> list[dict[str, Any]]:
    """Return accounts, roles and bindings of an installation in a namespace."""
    return [
        _account(OPERATOR_ACCOUNT, namespace, token=True),
        _account(AGENT_ACCOUNT, namespace, token=True),
        _account(DATAPLANE_ACCOUNT, namespace, token=False),
        *_cluster_role(OPERATOR_ACCOUNT, namespace, _OPERATOR_CLUSTER),
        *_role(OPERATOR_ACCOUNT, namespace, _OPERATOR_NAMESPACE),
        *_cluster_role(AGENT_ACCOUNT, namespace, _AGENT_CLUSTER),
        *_role(AGENT_ACCOUNT, namespace, _AGENT_NAMESPACE),
        _aggregated("view", [_rule(GROUP, _USER_KINDS, _READ)]),
        _aggregated("edit", [_rule(GROUP, _USER_KINDS, _USER_VERBS)]),
    ]


def _account(name: str, namespace: str, *, token: bool) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "labels": _LABELS},
        "automountServiceAccountToken": token,
    }


def _cluster_role(name: str, namespace: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    metadata = {"name": name, "labels": _LABELS}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        _binding("ClusterRole", name, namespace, metadata),
    ]


def _role(name: str, namespace: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    metadata = {"name": name, "namespace": namespace, "labels": _LABELS}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        _binding("Role", name, namespace, metadata),
    ]


def _binding(role_kind: str, name: str, namespace: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role_kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }


def _aggregated(to: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a role that Kubernetes adds to its own, so that a namespace's users may use the namespaced kinds."""
    labels = {**_LABELS, f"{_RBAC}/aggregate-to-{to}": "true"}
    if to == "edit":
        labels[f"{_RBAC}/aggregate-to-admin"] = "true"
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": f"penstock-aggregate-{to}", "labels": labels},
        "rules": rules,
    }
