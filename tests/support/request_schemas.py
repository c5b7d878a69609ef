"""The JSON schemas of requests in each revision of the control protocol, and whether a request fits one.

An older data plane refuses fields and values that it does not know: `unknown` finds them as it would.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_embedded.messages import DesiredState

DIRECTORY = Path(__file__).resolve().parents[1] / "contracts/protocol"
PROSE = ("description", "title")

Json = dict[str, Any]


def current() -> Json:
    """The schema of what `apply` takes now, without prose."""
    schema: Json = _bare(DesiredState.model_json_schema())
    return schema


def of(revision: int) -> Json:
    """The schema of a revision."""
    schema: Json = json.loads((DIRECTORY / f"apply-{revision}.json").read_text())
    return schema


def unknown(document: Any, schema: Json, root: Json | None = None, at: str = "") -> Iterator[str]:
    """Yield the fields of a document that a schema does not have, and those with values outside of an enumeration."""
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema and document not in schema["enum"]:
        yield f"{at}={document}"
    if isinstance(document, dict) and "properties" in schema:
        for name, value in document.items():
            where = f"{at}.{name}".lstrip(".")
            if name in schema["properties"]:
                yield from unknown(value, schema["properties"][name], root, where)
            else:
                yield where
    if isinstance(document, list):
        for index, item in enumerate(document):
            yield from unknown(item, schema["items"], root, f"{at}.{index}")


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _bare(each) for key, each in value.items() if not (key in PROSE and isinstance(each, str))}
