"""ValidatingAdmissionPolicies: bounds of our own accounts that RBAC alone can't say.

An agent writes only what is its node's, and Events in its own name. A pod's token names the node that the pod runs on,
in the user's extra `authentication.kubernetes.io/node-name`; the policy compares that with the object's. Names are
compared too: else an agent could take the name of another node's object before it exists.

Of a Node the operator changes one label, by which the pods of a DataPlane are placed.
"""

from __future__ import annotations

from typing import Any

from penstock_api import GROUP, VERSION
from penstock_api.names import AGENT_ACCOUNT, DATAPLANE_LABEL, INSTALL_NAMESPACE, OPERATOR_ACCOUNT, PART_OF_LABEL

from tools.generators.output import CHART, MANIFESTS, Files, dump

_SOURCE = "tools/generators/admission.py"
_NODE_KEY = "authentication.kubernetes.io/node-name"
_FIX = "an agent may write only what belongs to its own node; start it in a pod of that node"


def render() -> Files:
    """Return the policies for kubectl and for the chart."""
    return {
        MANIFESTS / "admission.yaml": dump(objects(INSTALL_NAMESPACE), source=_SOURCE),
        CHART / "templates" / "admission.yaml": dump(objects("{{ .Release.Namespace }}"), source=_SOURCE),
    }


def objects(namespace: str) -> list[dict[str, Any]]:
    """Return policies and bindings of an installation in a namespace."""
    agent = {
        "matchConstraints": {"resourceRules": _RESOURCES},
        "variables": [
            {"name": "node", "expression": f"request.userInfo.extra[?'{_NODE_KEY}'][?0].orValue('')"},
            {"name": "object", "expression": "object == null ? oldObject : object"},
            {"name": "name", "expression": "variables.object.metadata.name"},
        ],
        "validations": _VALIDATIONS,
    }
    return [
        *_policy("penstock-agent-own-node", AGENT_ACCOUNT, namespace, agent),
        *_policy("penstock-operator-node-label", OPERATOR_ACCOUNT, namespace, _NODE_LABEL_POLICY),
    ]


def _policy(name: str, account: str, namespace: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a policy for requests of one of our accounts, and its binding."""
    metadata = {"name": name, "labels": {PART_OF_LABEL: "penstock"}}
    head = {"apiVersion": "admissionregistration.k8s.io/v1"}
    who = f"request.userInfo.username == 'system:serviceaccount:{namespace}:{account}'"
    rules = {"failurePolicy": "Fail", "matchConditions": [{"name": "account", "expression": who}], **spec}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {**head, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": rules},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "metadata": metadata, "spec": binding},
    ]


_NODE_LABEL_POLICY = {
    "matchConstraints": {
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"]}]
    },
    "variables": [
        {"name": "labels", "expression": "object.metadata.?labels.orValue({})"},
        {"name": "oldLabels", "expression": "oldObject.metadata.?labels.orValue({})"},
    ],
    "validations": [
        {
            "expression": "object.spec == oldObject.spec && "
            "object.metadata.?annotations == oldObject.metadata.?annotations && "
            f"variables.labels.all(k, k == '{DATAPLANE_LABEL}' || variables.oldLabels[?k] == variables.labels[?k]) && "
            f"variables.oldLabels.all(k, k == '{DATAPLANE_LABEL}' || k in variables.labels)",
            "message": f"of a Node the operator may change the label {DATAPLANE_LABEL} and nothing else",
            "reason": "Forbidden",
        }
    ],
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
    {
        "apiGroups": ["events.k8s.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["events"],
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
    {
        "expression": "request.resource.resource != 'events' || ("
        "variables.object.?reportingController.orValue('') == 'penstock.dev/agent' && "
        "variables.object.?reportingInstance.orValue('') == variables.node)",
        "message": "an agent records Events as reportingController penstock.dev/agent and the reportingInstance that "
        f"is its node; {_FIX}",
        "reason": "Forbidden",
    },
]
