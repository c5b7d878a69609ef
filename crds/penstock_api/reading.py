"""From YAML or the API server's JSON to models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import ValidationError

from penstock_api import documents
from penstock_api.addresspool import AddressPool
from penstock_api.dataplane import DataPlane
from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.dataplanenodereport import DataPlaneNodeReport
from penstock_api.documents import Located
from penstock_api.errors import KindError, MalformedDocumentError, UnknownKindError, from_validation_error
from penstock_api.model import Model
from penstock_api.names import API_VERSION
from penstock_api.objects import KubeObject, ObjectMeta
from penstock_api.rlpolicy import RLPolicy
from penstock_api.schema import render_schema
from penstock_api.vip import LoadBalancerVIP

KINDS: dict[str, type[KubeObject]] = {
    model.info.kind: model
    for model in (LoadBalancerVIP, RLPolicy, AddressPool, DataPlane, DataPlaneNode, DataPlaneNodeReport)
}
"""All kinds by name, in the order in which the reference shows them."""

Object = TypeVar("Object", bound=Model)


class Source(StrEnum):
    """Where an object comes from."""

    API_SERVER = "api-server"
    """Fields that this version doesn't know are of a newer schema, and are ignored."""
    FILE = "file"
    """Fields that are unknown are typing errors."""

    @property
    def extra(self) -> Literal["ignore", "forbid"]:
        """How pydantic treats unknown fields."""
        return "forbid" if self is Source.FILE else "ignore"


def parse(model: type[Object], raw: Mapping[str, Any], *, source: Source = Source.API_SERVER, line: int = 0) -> Object:
    """Read an object of a known kind or any other model; raises InvalidObjectError with an error for each field."""
    try:
        # By way of JSON, because there strict means what the API server means by it: no "80" for 80.
        return model.model_validate_json(json.dumps(raw), strict=True, extra=source.extra)
    except ValidationError as error:
        raise from_validation_error(model, raw, error, lambda path: documents.line_of(raw, path, line)) from error


def parse_any(raw: object, *, source: Source = Source.API_SERVER, line: int = 0) -> KubeObject:
    """Read an object of any of our kinds; raises MalformedDocumentError, UnknownKindError or InvalidObjectError."""
    if not isinstance(raw, Mapping):
        text = f"must be an object with apiVersion and kind, is {type(raw).__name__.lower()}; remove it"
        raise MalformedDocumentError(text, line)
    kind, version = raw.get("kind"), raw.get("apiVersion")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if version != API_VERSION or model is None:
        raise UnknownKindError(
            f"apiVersion {_short(version)}, kind {_short(kind)}: not a kind of Penstock; "
            f"write apiVersion: {API_VERSION} and one of the kinds {', '.join(KINDS)}",
            line,
        )
    if source is Source.FILE and isinstance(raw, dict) and _has_null(raw):  # few have any, and schemas take time
        _drop_nulls(raw, _schema(model))
    return parse(model, raw, source=source, line=line)


class Found(NamedTuple):
    """An object of a file."""

    obj: KubeObject
    line: int


class Text(NamedTuple):
    """What a text of YAML has: objects, and what is wrong with those that could not be read."""

    objects: tuple[Found, ...]
    errors: tuple[KindError, ...]


def read_yaml(text: str, *, foreign: Literal["refuse", "skip"] = "refuse") -> Text:
    """Read all documents of a YAML file, strictly, each for itself; what follows a syntax error is not found.

    `foreign` says what becomes of objects of other groups.
    """
    objects: list[Found] = []
    errors: list[KindError] = []
    for document in _documents(text, errors):
        raw = document.value
        if foreign == "skip" and isinstance(raw, Mapping) and raw.get("apiVersion") != API_VERSION:
            continue
        try:
            obj = parse_any(raw, source=Source.FILE, line=document.line)
        except KindError as error:
            errors.append(error)
        else:
            objects.append(Found(_with_namespace(obj), document.line))
    return Text(tuple(objects), tuple(errors))


def parse_yaml(text: str, *, foreign: Literal["refuse", "skip"] = "refuse") -> list[KubeObject]:
    """Read all documents of a YAML file; raises the first error."""
    found = read_yaml(text, foreign=foreign)
    if found.errors:
        raise found.errors[0]
    return [each.obj for each in found.objects]


def load_yaml(text: str) -> Iterable[Any]:
    """Split a YAML file into its documents, empty ones left out."""
    return [document.value for document in documents.load(text)]


def _documents(text: str, errors: list[KindError]) -> Iterator[Located]:
    """Yield documents, and the items of those that are lists."""
    try:
        for document in documents.load(text):
            yield from _items(document, errors)
    except KindError as error:
        errors.append(error)


def _items(document: Located, errors: list[KindError]) -> Iterator[Located]:
    """Yield the objects of a list, as `kubectl get -o yaml` prints them, or the document itself."""
    raw = document.value
    kind = raw.get("kind") if isinstance(raw, dict) else None
    version = raw.get("apiVersion") if isinstance(raw, dict) else None
    of = kind.removesuffix("List") if isinstance(kind, str) else ""
    if not (kind == "List" and version == "v1") and not (version == API_VERSION and of != kind and of in KINDS):
        yield document
        return
    items = raw.get("items")
    if not isinstance(items, list):
        errors.append(MalformedDocumentError(f"{kind}: items: must be a list; write one", document.line))
        return
    for index, item in enumerate(items):
        if of and isinstance(item, dict):  # the API server leaves it out of items
            item.setdefault("kind", of)
            item.setdefault("apiVersion", version)
        yield from _items(Located(item, documents.line_of(raw, ("items", index), document.line)), errors)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_METADATA: dict[str, Any] = {
    "properties": {field.alias: {} for field in ObjectMeta.model_fields.values()},
}


@cache
def _schema(model: type[KubeObject]) -> dict[str, Any]:
    schema = render_schema(model)
    return {**schema, "properties": {**schema["properties"], "metadata": _METADATA}}


def _has_null(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_has_null(each) for each in (value.values() if isinstance(value, dict) else value))
    return value is None


def _drop_nulls(value: Any, schema: dict[str, Any]) -> None:
    """Take nulls as absent where the API server does: in fields that it knows and in maps, not in lists."""
    if isinstance(value, dict):
        for key in list(value):
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if not isinstance(below, dict):
                continue
            if value[key] is None and not below.get("nullable"):
                del value[key]
            else:
                _drop_nulls(value[key], below)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _drop_nulls(item, schema["items"])


def _with_namespace(obj: KubeObject) -> KubeObject:
    if not obj.info.namespaced or obj.metadata.namespace:
        return obj
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"namespace": "default"})})
