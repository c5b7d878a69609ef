"""Errors of reading kinds: one tree, each error says which field, what is wrong and what to do."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_MOST_ERRORS = 20  # of one object that are shown
_LONGEST_NAME = 253 + 1 + 63  # characters, with the namespace
_VALUE_LIMIT = 80  # characters of a value shown: enough to recognise it, short enough for one line


class KindError(ValueError):
    """An object that cannot be read; `line` is where it is in its file, 0 where that is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line

    def located(self, file: str) -> str:
        """Return the error with its place; one line of text for each thing that is wrong."""
        return f"{file}:{self.line}: {self}" if self.line else f"{file}: {self}"


class MalformedDocumentError(KindError):
    """Not YAML, or not an object of Kubernetes."""


class UnknownKindError(KindError):
    """An object of another group, version or kind."""


class FieldError(NamedTuple):
    """What is wrong with one field."""

    path: str
    value: str
    message: str
    fix: str
    line: int = 0

    def __str__(self) -> str:
        value = f" (is {self.value})" if self.value else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.path}: {self.message}{value}{fix}"


class InvalidObjectError(KindError):
    """Fields that break the kind's rules; `errors` has one entry for each."""

    def __init__(self, kind: str, name: str, errors: tuple[FieldError, ...]) -> None:
        self.kind = kind
        self.name = name
        self.errors = errors
        super().__init__("\n".join(f"{kind} {name}: {error}" for error in errors), errors[0].line if errors else 0)

    def located(self, file: str) -> str:
        """Return each error with its place."""
        lines = (f"{file}:{error.line}" if error.line else file for error in self.errors)
        return "\n".join(f"{where}: {self.kind} {self.name}: {e}" for where, e in zip(lines, self.errors, strict=True))

    def brief(self) -> str:
        """Return all errors in one line, as conditions carry them."""
        return "; ".join(str(error) for error in self.errors)


def from_validation_error(
    model: type[BaseModel],
    raw: Mapping[str, Any],
    error: ValidationError,
    line_of: Callable[[tuple[int | str, ...]], int] = lambda path: 0,
) -> InvalidObjectError:
    """Translate pydantic's errors into ours: paths as users write them, and a fix for each."""
    metadata = raw.get("metadata", raw)
    name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
    namespace = metadata.get("namespace", "") if isinstance(metadata, Mapping) else ""
    full_name = (f"{namespace}/{name}" if namespace else str(name or "(no name)"))[:_LONGEST_NAME]
    details = error.errors(include_url=False)
    inner = {location[:depth] for location in (d["loc"] for d in details) for depth in range(len(location))}
    # A list whose items are wrong also counts as too short: what an inner error explains is left out.
    causes = [d for d in details if d["type"] != "too_short" or d["loc"] not in inner]
    errors = [_translate(model, d)._replace(line=line_of(_location(d))) for d in causes[:_MOST_ERRORS]]
    if len(causes) > _MOST_ERRORS:
        errors.append(FieldError("(more)", "", f"{len(causes) - _MOST_ERRORS} more fields are wrong", "correct these"))
    return InvalidObjectError(model.__name__, full_name, tuple(errors))


def _translate(model: type[BaseModel], detail: ErrorDetails) -> FieldError:
    context = detail.get("ctx", {})
    location = detail["loc"]
    kind = detail["type"]
    if kind == "rule":
        value = "" if context["field"] else _show(detail["input"])
        return FieldError(_path(_location(detail)) or "metadata", value, context["message"], context["fix"])
    if kind == "extra_forbidden":
        return FieldError(_path(location), "", "unknown field", _suggest(model, location))
    if kind == "missing":
        return FieldError(_path(location), "", "is required", "add it")
    translate = _MESSAGES.get(kind)
    message, fix = translate(context) if translate else (_lower(detail["msg"]), "correct it")
    return FieldError(_path(location), _show(detail["input"]), message, fix)


def _location(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return where an error is; a rule of a model names the field."""
    field = detail.get("ctx", {}).get("field", "") if detail["type"] == "rule" else ""
    return (*detail["loc"], *(field.split(".") if field else ()))


def _bound(word: str, key: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda context: (f"must be {word} {context[key]}", f"use a value of {word} {context[key]}")


def _type(name: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda context: (f"must be {name}", f"write {name}")


_MESSAGES: dict[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "multiple_of": _bound("a multiple of", "multiple_of"),
    "enum": lambda c: (f"must be one of {c['expected']}", "choose one of them"),
    "literal_error": lambda c: (f"must be one of {c['expected']}", "choose one of them"),
    "too_long": lambda c: (f"must have at most {c['max_length']} items", "remove some or split the object"),
    "too_short": lambda c: (f"must have at least {c['min_length']} item", "add one or remove the field"),
    "string_too_long": lambda c: (f"must have at most {c['max_length']} characters", "shorten it"),
    "string_too_short": lambda c: (f"must have at least {c['min_length']} character", "fill it in or remove the field"),
    "string_pattern_mismatch": lambda c: (f"must match {c['pattern']}", "correct its spelling"),
    "int_type": _type("an integer (without quotes)"),
    "int_from_float": _type("an integer"),
    "float_type": _type("a number (without quotes)"),
    "bool_type": _type("true or false (without quotes)"),
    "string_type": _type("a string (in quotes)"),
    "tuple_type": _type("a list"),
    "dict_type": _type("a map"),
    "model_type": _type("a map of fields"),
}


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _show(value: object) -> str:
    if isinstance(value, BaseModel):
        return ""
    text = json.dumps(value, default=str)
    return text if len(text) <= _VALUE_LIMIT else f"{text[: _VALUE_LIMIT - 3]}..."


def _suggest(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Name the known field that is spelled most like the unknown one."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    node = schema
    for part in location[:-1]:
        node = _resolve(node, definitions)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    known = list(_resolve(node, definitions).get("properties", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it; known fields: {', '.join(known)}" if known else "remove it"


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", ()):
        if option.get("type") != "null":
            return _resolve(option, definitions)
    reference = node.get("$ref")
    return definitions[reference.rsplit("/", 1)[1]] if reference else node
