"""Enumerations whose members explain themselves, in code and to `kubectl explain` alike."""

from __future__ import annotations

import inspect
from enum import StrEnum
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from penstock_api.prose import below_members


class Choice(StrEnum):
    """A string out of a few; the string below a member says what it means."""

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Return what each member means, by value."""
        return {cls[name].value: " ".join(text.split()) for name, text in below_members(cls).items()}  # a line each

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rendered = handler.resolve_ref_schema(handler(schema))
        meanings = "\n".join(f"{value}: {meaning}" for value, meaning in cls.meanings().items())
        rendered["description"] = meanings or inspect.getdoc(cls) or ""
        return rendered
