"""docs/reference/kinds.md: every field of every kind, from the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from penstock_api import API_VERSION, KINDS, LoadBalancerVIP
from penstock_api.conditions import ConditionType, Reason
from penstock_api.dataplanenodereport import FindingReason
from penstock_api.names import DEFAULT_ANNOTATION, PAUSED_ANNOTATION
from penstock_api.objects import KubeObject
from penstock_api.rules import VALIDATIONS
from penstock_api.schema import Schema, render_schema, walk

from tools.generators.output import NOTICE, REFERENCE, Files

_BODIES = ("spec", "report", "status")
_CONDITIONS = "conditions"
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
            text += f"\n### {model.info.kind} {body}\n\n{_table(node)}"
            text += _rules(node) if body != "status" else ""
    return text


def _example(name: str) -> str:
    path = _EXAMPLES / f"{name}.yaml"
    return f"\n```yaml\n{path.read_text()}```\n" if path.exists() else ""


def _table(body: Schema) -> str:
    rows = ["| field | type | default | meaning |\n|---|---|---|---|\n"]
    for path, node, required in _fields(body):
        default = "required" if required else _default(node)
        rows.append(f"| `{path}` | {_type(node)} | {default} | {_meaning(node)} |\n")
    return "".join(rows)


def _fields(node: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yield every named field below a node, in the order of the model."""
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, child, name in required
        if path == _CONDITIONS:
            continue  # the same for all kinds: shown once, at the end of the page
        yield from _fields(child, f"{path}.")
        if isinstance(child.get("items"), dict):
            yield from _fields(child["items"], f"{path}[].")


def _type(node: Schema) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "integer or string"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"] if value is not False)
    if node["type"] == "array":
        return f"list of {_type(node['items'])}, at most {node['maxItems']}"
    if node["type"] == "object":
        return "map" if "additionalProperties" in node else "object"
    if node["type"] in ("integer", "number"):
        return f"{node['type']}{_range(node)}"
    return "time" if node.get("format") == "date-time" else str(node["type"])


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    return f", at least {low:,}" if low is not None else ""


def _default(node: Schema) -> str:
    value = node.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`".replace(".0`", "`")


def _meaning(node: Schema) -> str:
    first, *choices = str(node.get("description", "")).split("\n")
    listed = "".join(f"<br>`{name}`: {text}" for name, _, text in (choice.partition(": ") for choice in choices))
    return (first + listed).replace("|", "\\|")


def _rules(body: Schema) -> str:
    places: dict[str, list[str]] = {}
    for path, node in walk(body):
        for rule in node.get(VALIDATIONS, ()):
            place = f"{path}{rule.get('fieldPath', '')}".removeprefix(".")
            listed = places.setdefault(rule["message"], [])
            if place and place not in listed:
                listed.append(place)
    lines = [f"- {', '.join(f'`{place}`' for place in listed)}: {message}\n" for message, listed in places.items()]
    return "\nRules:\n\n" + "".join(lines) if lines else ""


def _conditions() -> str:
    condition = render_schema(LoadBalancerVIP)["properties"]["status"]["properties"][_CONDITIONS]["items"]
    text = f"## Conditions\n\n{_table(condition)}\n| type | meaning |\n|---|---|\n"
    text += "".join(f"| `{name}` | {meaning} |\n" for name, meaning in ConditionType.meanings().items())
    text += "\n| reason | meaning |\n|---|---|\n"
    return text + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in Reason.meanings().items())


def _findings() -> str:
    text = (
        "\n## Findings\n\nReasons of `report.vips[].ports[]` and `report.vips[].findings[]` of a DataPlaneNodeReport.\n"
        "\n| reason | meaning |\n|---|---|\n"
    )
    return text + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in FindingReason.meanings().items())
