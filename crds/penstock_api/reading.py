"""From YAML or the API server's JSON to models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ValidationError

from penstock_api.addresspool import AddressPool
from penstock_api.dataplane import DataPlane
from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.dataplanenodereport import DataPlaneNodeReport
from penstock_api.errors import MalformedDocumentError, UnknownKindError, from_validation_error
from penstock_api.names import API_VERSION
from penstock_api.objects import KubeObject
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP

KINDS: dict[str, type[KubeObject]] = {
    model.info.kind: model
    for model in (LoadBalancerVIP, RLPolicy, AddressPool, DataPlane, DataPlaneNode, DataPlaneNodeReport)
}
"""All kinds by name, in the order in which the reference shows them."""

Object = TypeVar("Object", bound=KubeObject)


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


def parse(model: type[Object], raw: Mapping[str, Any], *, source: Source = Source.API_SERVER) -> Object:
    """Read an object of a known kind; raises InvalidObjectError with an error for each field."""
    try:
        # By way of JSON, because there strict means what the API server means by it: no "80" for 80.
        return model.model_validate_json(json.dumps(raw), strict=True, extra=source.extra)
    except ValidationError as error:
        raise from_validation_error(model, raw, error) from error


def parse_any(raw: object, *, source: Source = Source.API_SERVER) -> KubeObject:
    """Read an object of any of our kinds; raises MalformedDocumentError, UnknownKindError or InvalidObjectError."""
    if not isinstance(raw, Mapping):
        raise MalformedDocumentError(f"must be an object with apiVersion and kind, is {type(raw).__name__}; remove it")
    kind, version = raw.get("kind"), raw.get("apiVersion")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if version != API_VERSION or model is None:
        raise UnknownKindError(
            f"apiVersion {version!r}, kind {kind!r}: not a kind of Penstock; "
            f"write apiVersion: {API_VERSION} and one of the kinds {', '.join(KINDS)}"
        )
    return parse(model, raw, source=source)


def parse_yaml(text: str, *, foreign: Literal["refuse", "skip"] = "refuse") -> list[KubeObject]:
    """Read all documents of a YAML file, strictly; `foreign` says what becomes of objects of other groups."""
    objects = []
    for raw in load_yaml(text):
        if foreign == "skip" and isinstance(raw, Mapping) and raw.get("apiVersion") != API_VERSION:
            continue
        objects.append(_with_namespace(parse_any(raw, source=Source.FILE)))
    return objects


def load_yaml(text: str) -> Iterable[Any]:
    """Split a YAML file into its documents, empty ones left out."""
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.YAMLError as error:
        raise MalformedDocumentError(f"not YAML: {error}; correct the indentation or quote the value") from error


def _with_namespace(obj: KubeObject) -> KubeObject:
    if not obj.info.namespaced or obj.metadata.namespace:
        return obj
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update={"namespace": "default"})})


class _Loader(yaml.SafeLoader):
    """Reads YAML as Kubernetes does: no dates, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
