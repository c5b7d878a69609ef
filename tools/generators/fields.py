"""Tables of fields and lists of rules, from schemas of models."""

from __future__ import annotations

import json
from collections.abc import Iterator

from penstock_api.rules import VALIDATIONS
from penstock_api.schema import Schema, walk

CONDITIONS = "conditions"


def fields_table(body: Schema) -> str:
    """Return the table of all named fields below a node."""
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
        if path == CONDITIONS:
            continue  # the same for all kinds: shown once, at the end of the page
        yield from _fields(child, f"{path}.")
        if isinstance(child.get("items"), dict):
            yield from _fields(child["items"], f"{path}[].")


def _type(node: Schema) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "integer or string"
    if "x-span" in node:
        return f"number or list of two{_range(node)}"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"] if value is not False)
    if node["type"] == "array":
        return f"list of {_type(node['items'])}, at most {node['maxItems']}"
    if node["type"] == "object":
        return "map" if node.get("additionalProperties", False) else "object"
    if node["type"] in ("integer", "number"):
        return f"{node['type']}{_range(node)}"
    return "time" if node.get("format") == "date-time" else str(node["type"])


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    if "exclusiveMinimum" in node and high is not None:
        return f", more than {_number(node['exclusiveMinimum'])}, at most {_number(high)}"
    return f", at least {low:,}" if low is not None else ""


def _number(value: float) -> str:
    text = f"{value:,.6f}" if isinstance(value, float) else f"{value:,}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _default(node: Schema) -> str:
    value = node.get("default")
    if value is None or isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict)):
        return ""
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`".replace(".0`", "`")


def _meaning(node: Schema) -> str:
    first, *choices = str(node.get("description", "")).split("\n")
    listed = "".join(f"<br>`{name}`: {text}" for name, _, text in (choice.partition(": ") for choice in choices))
    return (first + listed).replace("|", "\\|")


def rules_list(body: Schema) -> str:
    """Return the list of the rules of a node and all below it; empty where there are none."""
    places: dict[str, list[str]] = {}
    for path, node in walk(body):
        for rule in node.get(VALIDATIONS, ()):
            place = f"{path}{rule.get('fieldPath', '')}".removeprefix(".")
            listed = places.setdefault(rule["message"], [])
            if place and place not in listed:
                listed.append(place)
    lines = [f"- {', '.join(f'`{place}`' for place in listed)}: {message}\n" for message, listed in places.items()]
    return "\nRules:\n\n" + "".join(lines) if lines else ""
