"""Enumerations whose members explain themselves, in code and to `kubectl explain` alike."""

from __future__ import annotations

import ast
import inspect
import textwrap
from enum import StrEnum
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema


class Choice(StrEnum):
    """A string out of a few; the string below a member says what it means."""

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Return what each member means, by value."""
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        if not isinstance(body, ast.ClassDef):
            raise TypeError(f"{cls.__name__} is not defined by a class statement")
        meanings: dict[str, str] = {}
        member = ""
        for statement in body.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                member = cls[statement.targets[0].id].value
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and member:
                meanings[member] = " ".join(str(statement.value.value).split())  # one line per member
        return meanings

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rendered = handler.resolve_ref_schema(handler(schema))
        meanings = "\n".join(f"{value}: {meaning}" for value, meaning in cls.meanings().items())
        rendered["description"] = meanings or inspect.getdoc(cls) or ""
        return rendered
