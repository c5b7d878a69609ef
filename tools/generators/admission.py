"""ValidatingAdmissionPolicies: bounds of our own accounts that RBAC alone can't say.

An agent writes only what belongs to its node and its DataPlane, and Events in its own name. A pod's token names the
node and the pod, in the user's extras `authentication.kubernetes.io/node-name` and `pod-name`; the policy compares both
with the object. Names are compared too: else an agent could take the name of another node's object before it exists.
Of an object's metadata an agent sets what it needs: the one finalizer by which it leaves, its labels, its one owner.

Of a Node the operator changes one label, by which the pods of a DataPlane are placed.
"""

from __future__ import annotations

from typing import Any

from penstock_api import API_VERSION, GROUP, SHARDS_MAX, VERSION
from penstock_api.names import (
    AGENT_ACCOUNT,
    DATAPLANE_LABEL,
    INSTALL_NAMESPACE,
    NODE_FINALIZER,
    NODE_LABEL,
    OPERATOR_ACCOUNT,
    PART_OF_LABEL,
)

from tools.generators.output import CHART, MANIFESTS, Files, dump

_SOURCE = "tools/generators/admission.py"
_NODE_KEY = "authentication.kubernetes.io/node-name"
_POD_KEY = "authentication.kubernetes.io/pod-name"
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
            {"name": "pod", "expression": f"request.userInfo.extra[?'{_POD_KEY}'][?0].orValue('')"},
            {"name": "object", "expression": "object == null ? oldObject : object"},
            {"name": "name", "expression": "variables.object.metadata.name"},
            {"name": "dataplane", "expression": _DATA_PLANE},
            {"name": "labels", "expression": "variables.object.metadata.?labels.orValue({})"},
            {"name": "owners", "expression": "variables.object.metadata.?ownerReferences.orValue([])"},
            {"name": "finalizers", "expression": "variables.object.metadata.?finalizers.orValue([])"},
            {
                "name": "oldFinalizers",
                "expression": "oldObject == null ? [] : oldObject.metadata.?finalizers.orValue([])",
            },
        ],
        "validations": _VALIDATIONS,
    }
    return [
        *_policy("penstock-agent-own-node", AGENT_ACCOUNT, namespace, agent),
        *_policy("penstock-operator-node-label", OPERATOR_ACCOUNT, namespace, _NODE_LABEL_POLICY),
        *_policy("penstock-operator-pod-annotation", OPERATOR_ACCOUNT, namespace, _POD_ANNOTATION_POLICY),
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
            "object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences && "
            "object.metadata.?finalizers == oldObject.metadata.?finalizers && "
            f"variables.labels.all(k, k == '{DATAPLANE_LABEL}' || variables.oldLabels[?k] == variables.labels[?k]) && "
            f"variables.oldLabels.all(k, k == '{DATAPLANE_LABEL}' || k in variables.labels)",
            "message": f"of a Node the operator may change the label {DATAPLANE_LABEL} and nothing else",
            "reason": "Forbidden",
        }
    ],
}

_ALLOWED_ANNOTATION = "penstock.dev/allowed"

_POD_ANNOTATION_POLICY = {
    "matchConstraints": {
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}]
    },
    "variables": [
        {"name": "notes", "expression": "object.metadata.?annotations.orValue({})"},
        {"name": "oldNotes", "expression": "oldObject.metadata.?annotations.orValue({})"},
    ],
    "validations": [
        {
            "expression": "object.spec == oldObject.spec && object.metadata.?labels == oldObject.metadata.?labels && "
            "object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences && "
            "object.metadata.?finalizers == oldObject.metadata.?finalizers && "
            f"variables.notes.all(k, k == '{_ALLOWED_ANNOTATION}' || variables.oldNotes[?k] == variables.notes[?k]) && "
            f"variables.oldNotes.all(k, k == '{_ALLOWED_ANNOTATION}' || k in variables.notes)",
            "message": f"of a Pod the operator may change the annotation {_ALLOWED_ANNOTATION} and nothing else",
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

_OLD_FINALIZERS = "oldObject == null ? [] : oldObject.metadata.?finalizers.orValue([])"
_KIND = "request.resource.resource"

# The DataPlane that an object belongs to, by the place that carries it. Events belong to none.
_DATA_PLANE = (
    f"{_KIND} == 'dataplanenodes' ? variables.object.spec.dataPlaneName : "
    f"{_KIND} == 'dataplanenodereports' ? variables.object.report.dataPlaneName : "
    f"{_KIND} == 'leases' && variables.name.startsWith('penstock-') && variables.name.contains('.') ? "
    "variables.name.substring(size('penstock-'), variables.name.indexOf('.')) : ''"
)

_OWNER_FIELDS = {
    "apiVersion": f"'{API_VERSION}'",
    "kind": "'DataPlaneNode'",
    "name": "variables.dataplane + '.' + variables.node",
}
_IS_OWNER = " && ".join(
    (
        *(f"o.{field} == {value}" for field, value in _OWNER_FIELDS.items()),
        "!o.?controller.orValue(false) && !o.?blockOwnerDeletion.orValue(false)",
    )
)

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
        "expression": f"{_KIND} != 'dataplanenodes' || (request.operation == 'UPDATE' && "
        "object.spec == oldObject.spec && object.metadata.?labels == oldObject.metadata.?labels && "
        "object.metadata.?annotations == oldObject.metadata.?annotations && "
        "object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences && "
        f"variables.finalizers.all(f, f == '{NODE_FINALIZER}' || f in variables.oldFinalizers) && "
        f"variables.oldFinalizers.all(f, f == '{NODE_FINALIZER}' || f in variables.finalizers))",
        "message": f"of a DataPlaneNode an agent may change the status and the finalizer {NODE_FINALIZER}; "
        "the rest is the operator's",
        "reason": "Forbidden",
    },
    {
        # A finalizer would keep the object for ever, a foreign owner would let others' deletions take it along.
        "expression": f"{_KIND} == 'dataplanenodes' || object == null || ("
        "variables.finalizers == variables.oldFinalizers && "
        "object.metadata.?annotations.orValue({}) == "
        "(oldObject == null ? {} : oldObject.metadata.?annotations.orValue({})))",
        "message": "an agent sets no finalizers and no annotations here",
        "reason": "Forbidden",
    },
    {
        "expression": f"{_KIND} == 'dataplanenodes' || object == null || ({_KIND} == 'events' "
        "? size(variables.owners) == 0 && size(variables.labels) == 0 "
        f": size(variables.owners) <= 1 && variables.owners.all(o, {_IS_OWNER}) && "
        f"variables.labels.all(k, (k == '{DATAPLANE_LABEL}' && variables.labels[k] == variables.dataplane) || "
        f"(k == '{NODE_LABEL}' && variables.labels[k] == variables.node)))",
        "message": "an agent's objects have the DataPlaneNode of its node as their only owner and the labels "
        f"{DATAPLANE_LABEL} and {NODE_LABEL}; Events have neither",
        "reason": "Forbidden",
    },
    {
        "expression": "request.resource.resource != 'dataplanenodereports' || ("
        "variables.object.report.nodeName == variables.node && "
        "variables.name.matches('-(0|[1-9][0-9]*)$') && "
        "variables.name.substring(0, variables.name.lastIndexOf('-')) == "
        "variables.object.report.dataPlaneName + '.' + variables.node)",
        "messageExpression": "'DataPlaneNodeReport ' + variables.name + ' belongs to node ' + "
        f"variables.object.report.nodeName + ', the token to node ' + variables.node + '; {_FIX}'",
        "reason": "Forbidden",
    },
    {
        "expression": f"{_KIND} != 'dataplanenodereports' || object == null || "
        f"(variables.name.matches('-[0-9]{{1,9}}$') && "
        f"int(variables.name.substring(variables.name.lastIndexOf('-') + 1)) < {SHARDS_MAX})",
        "message": f"a node has at most {SHARDS_MAX} DataPlaneNodeReports",
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
        "variables.object.?reportingInstance.orValue('') == variables.node && "
        f"variables.object.?regarding.?apiVersion.orValue('') == '{API_VERSION}')",
        "message": "an agent records Events about Penstock's kinds, as reportingController penstock.dev/agent and the "
        f"reportingInstance that is its node; {_FIX}",
        "reason": "Forbidden",
    },
    {
        # A token that is bound to a node alone is made by an administrator's hand; those of pods name their pod.
        "expression": f"{_KIND} == 'events' || variables.pod == '' || "
        "variables.pod.substring(0, variables.pod.lastIndexOf('-')) == 'penstock-' + variables.dataplane + '-agent'",
        "messageExpression": "'the object belongs to DataPlane ' + variables.dataplane + ', the token to pod ' + "
        "variables.pod + '; an agent may write only what belongs to its own DataPlane'",
        "reason": "Forbidden",
    },
]
