"""ValidatingAdmissionPolicy: an agent writes only what is its node's. RBAC alone can't say this.

A pod's token names the node that the pod runs on (`authentication.kubernetes.io/node-name`); the policy compares that
with the object's. Names are compared too: else an agent could take the name of another node's object before it exists.
"""

from __future__ import annotations

from typing import Any

from penstock_api import GROUP, VERSION
from penstock_api.names import AGENT_ACCOUNT, INSTALL_NAMESPACE, PART_OF_LABEL

from tools.generators.output import CHART, MANIFESTS, Files, dump

_SOURCE = "tools/generators/admission.py"
_NAME = "penstock-agent-own-node"
_NODE_KEY = "authentication.kubernetes.io/node-name"
_FIX = "an agent may write only what belongs to its own node; start it in a pod of that node"


def render() -> Files:
    """Return the policy for kubectl and for the chart."""
    return {
        MANIFESTS / "admission.yaml": dump(objects(INSTALL_NAMESPACE), source=_SOURCE),
        CHART / "templates" / "admission.yaml": dump(objects("{{ .Release.Namespace }}"), source=_SOURCE),
    }


def objects(namespace: str) -> list[dict[str, Any]]:
    """Return policy and binding of an installation in a namespace."""
    metadata = {"name": _NAME, "labels": {PART_OF_LABEL: "penstock"}}
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": metadata}
    binding = {"policyName": _NAME, "validationActions": ["Deny"]}
    return [
        {**head, "kind": "ValidatingAdmissionPolicy", "spec": _policy(namespace)},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def _policy(namespace: str) -> dict[str, Any]:
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": _RESOURCES},
        "matchConditions": [
            {
                "name": "is-agent",
                "expression": f"request.userInfo.username == 'system:serviceaccount:{namespace}:{AGENT_ACCOUNT}'",
            }
        ],
        "variables": [
            {"name": "node", "expression": f"request.userInfo.extra[?'{_NODE_KEY}'][?0].orValue('')"},
            {"name": "object", "expression": "object == null ? oldObject : object"},
            {"name": "name", "expression": "variables.object.metadata.name"},
        ],
        "validations": _VALIDATIONS,
    }


_RESOURCES = [
    {
        "apiGroups": [GROUP],
        "apiVersions": [VERSION],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["dataplanenodes", "dataplanenodes/status", "dataplanenodereports"],
    },
    {
        "apiGroups": ["coordination.k8s.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["leases"],
    },
]

_VALIDATIONS = [
    {
        "expression": "variables.node != ''",
        "message": f"the token names no node; {_FIX}",
        "reason": "Forbidden",
    },
    {
        "expression": "request.resource.resource != 'dataplanenodes' || "
        "variables.object.spec.nodeName == variables.node",
        "messageExpression": "'DataPlaneNode ' + variables.name + ' belongs to node ' + "
        f"variables.object.spec.nodeName + ', the token to node ' + variables.node + '; {_FIX}'",
        "reason": "Forbidden",
    },
    {
        "expression": "request.resource.resource != 'dataplanenodes' || (request.operation == 'UPDATE' && "
        "object.spec == oldObject.spec && object.metadata.?labels == oldObject.metadata.?labels)",
        "message": "of a DataPlaneNode an agent may change the status and the finalizers; the rest is the operator's",
        "reason": "Forbidden",
    },
    {
        "expression": "request.resource.resource != 'dataplanenodereports' || ("
        "variables.object.report.nodeName == variables.node && variables.name.matches('-[0-9]+$') && "
        "variables.name.substring(0, variables.name.lastIndexOf('-')) == "
        "variables.object.report.dataPlaneName + '.' + variables.node)",
        "messageExpression": "'DataPlaneNodeReport ' + variables.name + ' belongs to node ' + "
        f"variables.object.report.nodeName + ', the token to node ' + variables.node + '; {_FIX}'",
        "reason": "Forbidden",
    },
    {
        "expression": "request.resource.resource != 'leases' || (variables.name.startsWith('penstock-') && "
        "variables.name.contains('.') && "
        "variables.name.substring(variables.name.indexOf('.') + 1) == variables.node)",
        "messageExpression": "'Lease ' + variables.name + ' does not belong to the node of the token, ' + "
        f"variables.node + '; {_FIX}'",
        "reason": "Forbidden",
    },
]
