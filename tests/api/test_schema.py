"""The schemas are structural, bounded, and say what the models say."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from penstock_api import KINDS
from penstock_api.choices import Choice
from penstock_api.model import Model
from penstock_api.objects import KubeObject
from penstock_api.rules import VALIDATIONS, Rule
from penstock_api.schema import render_crd, render_schema, walk

KINDS_BY_NAME = pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)

ALLOWED = {
    *("description", "type", "format", "default", "enum", "required", "properties", "items", "additionalProperties"),
    *("minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems"),
    *("maxProperties", VALIDATIONS, "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
}


def nodes(model: type[KubeObject]) -> list[tuple[str, dict[str, Any]]]:
    schema = render_schema(model)
    bodies = [body for body in ("spec", "status", "report") if body in schema["properties"]]
    return [node for body in bodies for node in walk(schema["properties"][body], body)]


@KINDS_BY_NAME
def test_only_what_a_structural_schema_may_hold(model: type[KubeObject]) -> None:
    for path, node in nodes(model):
        assert set(node) <= ALLOWED, path
        # Values of several types only where each of them is named.
        listed = "enum" in node and node.get("x-kubernetes-preserve-unknown-fields")
        assert ("type" in node) is not bool(listed or node.get("x-kubernetes-int-or-string")), path


@KINDS_BY_NAME
def test_everything_is_bounded(model: type[KubeObject]) -> None:
    for path, node in nodes(model):
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path
        if node.get("type") == "array":
            assert "maxItems" in node, path
            assert node["x-kubernetes-list-type"] in ("set", "map", "atomic"), path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


@KINDS_BY_NAME
def test_everything_is_explained(model: type[KubeObject]) -> None:
    for path, node in nodes(model):
        if not path.endswith(("[]", "{}")):
            assert node.get("description", "").rstrip().endswith((".", "?")), path


@KINDS_BY_NAME
def test_every_rule_has_both_halves_or_is_about_a_change(model: type[KubeObject]) -> None:
    for path, node in nodes(model):
        for rule in node.get(VALIDATIONS, ()):
            assert ";" in rule["message"], f"{path}: the message tells no fix"
            assert len(rule["message"]) < 250, path


@KINDS_BY_NAME
def test_names(model: type[KubeObject]) -> None:
    crd = render_crd(model)
    names = crd["spec"]["names"]
    assert crd["metadata"]["name"] == f"{names['plural']}.penstock.dev"
    assert names["categories"] == ["penstock"]
    assert model.resource() == ("penstock.dev", "v1alpha1", names["plural"], names["kind"], model.info.namespaced)


def test_short_names_belong_to_one_kind_each() -> None:
    short_names = [name for model in KINDS.values() for name in model.info.short_names]
    assert sorted(short_names) == ["dp", "dpn", "dpnr", "pool", "rlp", "vip"]


def test_unions_are_refused() -> None:
    class Odd(KubeObject):
        """Odd."""

        info = KINDS["DataPlane"].info
        spec: int | str

    with pytest.raises(ValueError, match="no unions"):
        render_schema(Odd)


def test_a_rule_without_cel_renders_nothing() -> None:
    class Holder(Model):
        value: Annotated[int, Rule(cel=None, message="m", fix="f", holds=lambda value: value > 0)]

    assert VALIDATIONS not in str(Holder.model_json_schema())
    with pytest.raises(ValueError, match="m; f"):
        Holder(value=0)
    with pytest.raises(ValueError, match="without CEL"):
        Rule(cel=None, message="m", fix="f", holds=None).render()


def test_choices_explain_themselves() -> None:
    class Colour(Choice):
        """A colour."""

        RED = "red"
        """As blood."""
        GREEN = "green"
        """As a meadow is in May,
        when it rains enough."""
        BLUE = "blue"

    assert Colour.meanings() == {"red": "As blood.", "green": "As a meadow is in May, when it rains enough."}
