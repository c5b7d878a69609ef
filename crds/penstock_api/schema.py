"""Renders models as CustomResourceDefinitions with structural schemas and CEL rules.

pydantic's JSON schema says most of it; here its references are put in place, `null` is dropped (an absent field is
absent), and what only Kubernetes knows is added: printer columns, the default of a status, the status subresource.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from penstock_api.model import Model
from penstock_api.names import GROUP, PART_OF_LABEL, VERSION, Column
from penstock_api.objects import KubeObject, Status
from penstock_api.prose import WithProse
from penstock_api.rules import VALIDATIONS

Schema = dict[str, Any]

_DROPPED = ("title", "anyOf", "$ref", "$defs", "propertyNames")
_ENVELOPE = ("apiVersion", "kind", "metadata")


def render_crd(model: type[KubeObject]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    info = model.info
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in info.columns],
        "schema": {"openAPIV3Schema": render_schema(model)},
    }
    if "status" in model.model_fields:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": info.crd_name, "labels": {PART_OF_LABEL: "penstock"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.singular,
                "shortNames": list(info.short_names),
                "categories": ["penstock"],
            },
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "versions": [version],
        },
    }


def render_schema(model: type[KubeObject]) -> Schema:
    """Return the structural schema of a kind."""
    generated = render_model(model)
    bodies = {name: node for name, node in generated["properties"].items() if name not in _ENVELOPE}
    schema: Schema = {
        "description": inspect.getdoc(model),
        "type": "object",
        "required": [name for name in generated.get("required", ()) if name in bodies],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **bodies,
        },
    }
    if not schema["required"]:
        del schema["required"]
    if model.rules:
        schema[VALIDATIONS] = [rule.render() for rule in model.rules]
    if "status" in bodies:
        for _, node in walk(bodies["status"]):
            node.pop("default", None)
        # What an object says of itself before anybody has looked: not a guess, but that nobody has.
        bodies["status"]["default"] = Status().to_dict()
    return schema


def render_model(model: type[Model]) -> Schema:
    """Return the schema of a model, without references and nulls, with what its fields mean."""
    generated = model.model_json_schema(by_alias=True, schema_generator=WithProse)
    return _structural(generated, generated.get("$defs", {}))


def _column(column: Column) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        rendered["description"] = column.description
    if column.priority:
        rendered["priority"] = column.priority
    return rendered


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a node with references and nulls resolved, and everything below it likewise."""
    merged = _resolved(node, definitions)
    result: Schema = {key: value for key, value in merged.items() if key not in _DROPPED}
    if "x-kubernetes-preserve-unknown-fields" in result:
        result.pop("type", None)  # of several types: the enumeration says which values
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in result:
        result["properties"] = {name: _structural(child, definitions) for name, child in result["properties"].items()}
    if isinstance(result.get("items"), dict):
        result["items"] = _structural(result["items"], definitions)
    if isinstance(result.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(result["additionalProperties"], definitions)
    if isinstance(result.get("default"), dict):
        result["default"] = _object_default(result)
    if result.get("default", ...) in ([], "", None):
        del result["default"]  # absent and empty mean the same; only one of them is written into users' objects
    return _ordered(result)


def _object_default(node: Schema) -> dict[str, Any] | None:
    """Return the default of an object: empty, since the defaults of its fields fill it in.

    Except where it has rules: the API server holds them against the default as it stands. And none where no field
    has a default.
    """
    if not any("default" in child for child in node.get("properties", {}).values()):
        return None
    if VALIDATIONS not in node:
        return {}
    return {name: value for name, value in node["default"].items() if value not in (None, [], "")}


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Merge a node with what it refers to; its own words come first, an enumeration's meanings are added."""
    target: Schema = {}
    if "$ref" in node:
        target = _resolved(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
    elif "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a structural schema has no unions: {node}")
        target = _resolved(options[0], definitions)
    merged = {**target, **{key: value for key, value in node.items() if key not in ("$ref", "anyOf")}}
    if "description" in node:
        merged["description"] = " ".join(node["description"].split()) if "enum" not in node else node["description"]
        if "enum" in target and target.get("description", merged["description"]) != merged["description"]:
            merged["description"] += f"\n{target['description']}"
    return merged


_ORDER = ("description", "type", "format", "default", "enum", "required", VALIDATIONS, "properties", "items")


def _ordered(schema: Schema) -> Schema:
    """Put the keys into the order in which people read them."""
    rest = [key for key in schema if key not in _ORDER]
    head = [key for key in _ORDER[:5] if key in schema]
    tail = [key for key in _ORDER[5:] if key in schema]
    return {key: schema[key] for key in (*head, *rest, *tail)}


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every node of a schema with its path, for checks and for the reference."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}".removeprefix("."))
    if isinstance(schema.get("items"), dict):
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")
