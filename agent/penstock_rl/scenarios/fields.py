"""Base and types of the fields of scenario files. All times are in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from penstock_api.fields import LabelName
from penstock_api.model import Model
from penstock_api.rules import VALIDATIONS, Rule
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

LONGEST = 86_400.0  # seconds that a scenario may last
MOST_SERVERS = 1024  # as backends of a VIP

Name = LabelName
Duration = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
PositiveDuration = Annotated[float, Field(ge=0.001, le=LONGEST, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
PositiveFactor = Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)]
Speed = Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)]
Cores = Annotated[float, Field(ge=0.01, le=1024, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
ServerIndex = Annotated[int, Field(ge=0, le=MOST_SERVERS - 1)]
ServerList = Annotated[tuple[ServerIndex, ...], Field(min_length=1, max_length=MOST_SERVERS)]


class Part(Model):
    """A scenario, or a part of one. Unknown fields are typing errors."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # No API server checks these rules: they have no CEL, and the reference page shows their messages.
        rendered = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            rendered[VALIDATIONS] = [
                {"message": f"{rule.message}; {rule.fix}", "fieldPath": f".{rule.field}"} for rule in cls.rules
            ]
        return rendered


def rule(message: str, fix: str, holds: Any, field: str) -> Rule:
    """Return a rule of a model, with the field that its errors name."""
    return Rule(cel=None, message=message, fix=fix, holds=holds, field=field)


def given(*names: str) -> Any:
    """Return a function that counts which of these fields of a model are set."""
    return lambda self: sum(getattr(self, name) is not None for name in names)


class Span(NamedTuple):
    """A number, or bounds between which numbers are drawn uniformly."""

    low: float
    high: float


@dataclass(frozen=True)
class Bounds:
    """Makes a Span a field that takes a number from `low` to `high`, or a list of two such numbers."""

    low: float
    high: float
    fix: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_serialize)
        return core_schema.no_info_plain_validator_function(self._parse, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high, "x-span": True}

    def _parse(self, value: Any) -> Span:
        bounds = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(bounds) != 2 or not all(_is_number(each) and self.low <= each <= self.high for each in bounds):
            raise _refusal(f"must be a number from {self.low:g} to {self.high:g}, or a list of two", self.fix)
        if bounds[0] > bounds[1]:
            raise _refusal("the first of two numbers must be the smaller one", "exchange them")
        return Span(float(bounds[0]), float(bounds[1]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _serialize(value: Span) -> list[float] | float:
    return value.low if value.low == value.high else list(value)


def _refusal(message: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{message}; {fix}", {"message": message, "fix": fix, "field": ""})
