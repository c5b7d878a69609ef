"""Base of all models: camelCase in YAML, snake_case in Python, immutable, with rules."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from penstock_api.rules import VALIDATIONS, Rule


class Model(BaseModel):
    """Base of all models.

    Unknown fields are ignored here, because an older component must read objects of a newer schema; files are
    read with `extra="forbid"` (`penstock_api.reading`), because there an unknown field is a typing error.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        frozen=True,
        defer_build=True,  # most programs need few of the kinds
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rendered = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            rendered[VALIDATIONS] = [rule.render() for rule in cls.rules]
        return rendered

    def to_dict(self) -> dict[str, Any]:
        """Return the model as it is written in YAML or sent to the API server, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
