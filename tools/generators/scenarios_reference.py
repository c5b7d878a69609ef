"""docs/reference/scenarios.md: every field of scenario files, from the models."""

from __future__ import annotations

from penstock_api.rules import VALIDATIONS
from penstock_api.schema import Schema, render_model
from penstock_rl.scenarios import CHOOSING, REPORTING, TRAINING, Scenario, named
from penstock_rl.scenarios.reading import NAMED

from tools.generators.fields import fields_table, rules_list
from tools.generators.output import NOTICE, REFERENCE, Files

_INTRODUCTION = """\
# Scenario files

A scenario is one YAML file: servers behind load balancers, their load, and what happens to them.
[How to write one](../how-to/write-a-scenario.md). All times are in seconds, all sizes in bytes. Unknown fields are
refused. A field of type "number or list of two" takes a number, or two bounds between which one is drawn each time.
"""

_PARTS = ("balancers", "servers", "arrivals", "classes", "disturbances")


def render() -> Files:
    """Return the page."""
    schema = render_model(Scenario)
    parts = [f"<!-- {NOTICE.format(source='agent/penstock_rl/scenarios')} -->\n\n{_INTRODUCTION}", _top(schema)]
    parts += [_part(name, schema["properties"][name]) for name in _PARTS]
    parts += [_named(), _seeds()]
    return {REFERENCE / "scenarios.md": "\n".join(parts)}


def _top(schema: Schema) -> str:
    flat = {name: {k: v for k, v in node.items() if k != "properties"} for name, node in schema["properties"].items()}
    for node in flat.values():
        if isinstance(node.get("items"), dict):
            node["items"] = {"type": "object"}
    shown = {**schema, "properties": flat}
    rules = rules_list({"properties": {}, VALIDATIONS: schema[VALIDATIONS]})
    return f"## Scenario\n\n{schema['description']}\n\n{fields_table(shown)}{rules}"


def _part(name: str, node: Schema) -> str:
    body = node.get("items", node)
    title = f"{name}[]" if "items" in node else name
    return f"## {title}\n\n{node['description']}\n\n{fields_table(body)}{rules_list(body)}"


def _named() -> str:
    rows = "".join(f"| `{name}` | {scenario.description} |\n" for name, scenario in named().items())
    text = (NAMED / "noisy.yaml").read_text()
    return (
        "## Scenarios that come with Penstock\n\nTheir files are in `examples/scenarios/`.\n\n"
        f"| name | |\n|---|---|\n{rows}\nOne of them:\n\n```yaml\n{text}```\n"
    )


def _seeds() -> str:
    ranges = ((TRAINING, "training"), (CHOOSING, "choosing between models"), (REPORTING, "published results"))
    rows = "".join(f"| {each.start:,} to {each.stop - 1:,} | {use} |\n" for each, use in ranges)
    return (
        "## Random scenarios\n\n"
        "`penstock_rl.scenarios.unseen(seed)` returns one of the random scenarios that policies are compared in, "
        "`training(seed)` one of a wider range. What a seed stands for does not change. Ranges of seeds have none in "
        f"common:\n\n| seeds | for |\n|---|---|\n{rows}"
    )
