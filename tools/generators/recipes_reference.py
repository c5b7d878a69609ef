"""docs/reference/recipes.md: every field of a recipe of training, from the models."""

from __future__ import annotations

from penstock_api.model import Model
from penstock_api.schema import render_model
from penstock_rl import recipes

from tools.generators.fields import fields_table, rules_list
from tools.generators.output import NOTICE, REFERENCE, Files

_INTRODUCTION = """\
# Recipes

A recipe is what `penstock train` reads: one YAML file with the sections below. Unknown fields are refused; only `name`
and `algorithm`, with its `name`, are required. Examples are in `examples/train`.
"""

_SECTIONS: tuple[tuple[str, type[Model]], ...] = (
    ("environment", recipes.EnvironmentSection),
    ("scenarios", recipes.ScenarioSection),
    ("network", recipes.NetworkSection),
    ("training", recipes.TrainingSection),
    ("algorithm: sac-gru", recipes.SacGru),
    ("algorithm: rlb-sac", recipes.RlbSac),
    ("algorithm: qmix", recipes.Qmix),
    ("algorithm: ppo", recipes.Ppo),
    ("algorithm: imitation", recipes.Imitation),
)


_RULES = "\nRules:\n\n"


def render() -> Files:
    """Return the page."""
    parts = [f"<!-- {NOTICE.format(source='agent/penstock_rl/recipes.py')} -->\n\n{_INTRODUCTION}"]
    parts += [_section(title, model) for title, model in _SECTIONS]
    parts.append(f"## Rules of a whole recipe\n\n{rules_list(render_model(recipes.Recipe)).removeprefix(_RULES)}")
    return {REFERENCE / "recipes.md": "\n".join(parts)}


def _section(title: str, model: type[Model]) -> str:
    schema = render_model(model)
    return f"## {title}\n\n{schema['description']}\n\n{fields_table(schema)}{rules_list(schema)}"
