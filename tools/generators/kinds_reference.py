"""docs/reference/kinds.md: every field of every kind, from the models."""

from __future__ import annotations

from pathlib import Path

from penstock_api import API_VERSION, KINDS, LoadBalancerVIP
from penstock_api.conditions import ConditionType, Reason
from penstock_api.dataplanenodereport import FindingReason
from penstock_api.names import DEFAULT_ANNOTATION, PAUSED_ANNOTATION
from penstock_api.objects import KubeObject
from penstock_api.rules import VALIDATIONS
from penstock_api.schema import render_schema

from tools.generators.fields import CONDITIONS, fields_table, rules_list
from tools.generators.output import NOTICE, REFERENCE, Files

_BODIES = ("spec", "report", "status")
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "kubernetes"

_INTRODUCTION = f"""\
# Kinds

All kinds belong to `{API_VERSION}`. `kubectl explain vip.spec` shows the same words; `penstock validate -f FILE` checks
a file without a cluster. Unknown fields are refused in files and pruned by the API server.

| kind | short name | scope | written by |
|---|---|---|---|
"""

_WRITERS = {
    "LoadBalancerVIP": "users",
    "RLPolicy": "users",
    "AddressPool": "cluster administrators",
    "DataPlane": "cluster administrators",
    "DataPlaneNode": "the operator, answered by the node's agent",
    "DataPlaneNodeReport": "the node's agent",
}

_ANNOTATIONS = f"""\
## Annotations

| annotation | on | meaning |
|---|---|---|
| `{DEFAULT_ANNOTATION}: "true"` | DataPlane | serves VIPs that name no DataPlane |
| `{PAUSED_ANNOTATION}: "true"` | LoadBalancerVIP | what is programmed stays, nothing changes until it is removed |
"""


def render() -> Files:
    """Return the page."""
    parts = [f"<!-- {NOTICE.format(source='crds/penstock_api')} -->\n\n{_INTRODUCTION}{_overview()}"]
    parts += [_section(model) for model in KINDS.values()]
    parts += [_ANNOTATIONS, _conditions(), _findings()]
    return {Path(REFERENCE / "kinds.md"): "\n".join(parts)}


def _overview() -> str:
    rows = []
    for model in KINDS.values():
        info = model.info
        scope = "namespace" if info.namespaced else "cluster"
        link = f"[{info.kind}](#{info.kind.lower()})"
        rows.append(f"| {link} | `{', '.join(info.short_names)}` | {scope} | {_WRITERS[info.kind]} |\n")
    return "".join(rows)


def _section(model: type[KubeObject]) -> str:
    schema = render_schema(model)
    text = f"## {model.info.kind}\n\n{schema['description']}\n"
    for rule in schema.get(VALIDATIONS, ()):
        text += f"\nRule: {rule['message']}.\n"
    text += _example(model.info.singular)
    for body in _BODIES:
        if body in schema["properties"]:
            node = schema["properties"][body]
            text += f"\n### {model.info.kind} {body}\n\n{fields_table(node)}"
            text += rules_list(node) if body != "status" else ""
    return text


def _example(name: str) -> str:
    path = _EXAMPLES / f"{name}.yaml"
    return f"\n```yaml\n{path.read_text()}```\n" if path.exists() else ""


def _conditions() -> str:
    condition = render_schema(LoadBalancerVIP)["properties"]["status"]["properties"][CONDITIONS]["items"]
    text = f"## Conditions\n\n{fields_table(condition)}\n| type | meaning |\n|---|---|\n"
    text += "".join(f"| `{name}` | {meaning} |\n" for name, meaning in ConditionType.meanings().items())
    text += "\n| reason | meaning |\n|---|---|\n"
    return text + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in Reason.meanings().items())


def _findings() -> str:
    text = (
        "\n## Findings\n\nReasons of `report.vips[].ports[]` and `report.vips[].findings[]` of a DataPlaneNodeReport.\n"
        "\n| reason | meaning |\n|---|---|\n"
    )
    return text + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in FindingReason.meanings().items())
