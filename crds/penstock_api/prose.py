"""The strings below members of a class, which say what each means: read from the source where a schema is rendered.

No other program needs them, and pydantic's `use_attribute_docstrings` would read them while every program starts.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema


def below_members(cls: type) -> dict[str, str]:
    """Return what each member of a class means, by name, those of its bases not included."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{cls.__name__} is not defined by a class statement")
    found: dict[str, str] = {}
    member = ""
    for statement in body.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and member:
            found[member] = inspect.cleandoc(str(statement.value.value))
        member = _assigned(statement)
    return found


def _assigned(statement: ast.stmt) -> str:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return ""


class WithProse(GenerateJsonSchema):
    """Adds to a JSON schema what the fields of models mean."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Render a model."""
        rendered = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for base in model.__mro__:
            if issubclass(base, BaseModel) and base is not BaseModel:
                self._add(rendered.get("properties", {}), model, below_members(base))
        return rendered

    def _add(self, properties: dict[str, Any], model: type[BaseModel], prose: dict[str, str]) -> None:
        for name, text in prose.items():
            field = model.model_fields.get(name)
            if field is not None:
                properties[field.alias or name].setdefault("description", text)
