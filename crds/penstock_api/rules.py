"""Rules beyond types and ranges, each stated once: as CEL for the API server, as Python for files.

A rule sits on a model (`rules`) or on one value (`Annotated[..., Rule(...)]`). Both halves say the same;
tests/api holds them against each other with one table of bad objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """What must hold, and what to tell the user if it doesn't.

    `cel` is None where the schema says the same by other means (a list's type), `holds` is None for transition
    rules (`oldSelf`): a file has no earlier state. `field` names the offending field below the model that the
    rule sits on.
    """

    cel: str | None
    message: str
    fix: str
    holds: Callable[[Any], bool] | None
    field: str = ""

    def check(self, value: Any) -> None:
        """Raise if the rule doesn't hold for `value`."""
        if self.holds is not None and not self.holds(value):
            raise PydanticCustomError(
                "rule", "{message}; {fix}", {"message": self.message, "fix": self.fix, "field": self.field}
            )

    def render(self) -> dict[str, str]:
        """Return the entry of x-kubernetes-validations."""
        if self.cel is None:
            raise ValueError(f"rule without CEL: {self.message}")
        rendered = {"rule": self.cel, "message": f"{self.message}; {self.fix}"}
        if self.field:
            rendered["fieldPath"] = f".{self.field}"
        return rendered

    def _checked(self, value: Any) -> Any:
        self.check(value)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rendered = handler(schema)
        if self.cel is not None:
            rendered.setdefault(VALIDATIONS, []).append(self.render())
        return rendered


def immutable(what: str) -> Rule:
    """Return the rule that a value, once set, stays."""
    return Rule(
        cel="self == oldSelf",
        message=f"{what} can't be changed",
        fix="delete the object and create it anew",
        holds=None,
    )
