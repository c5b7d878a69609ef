"""Models from files: everything is checked before anything is evaluated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from penstock_agent import features
from penstock_agent.models.archive import LARGEST_FILE, Float32Array, ModelError, unpack
from penstock_agent.models.metadata import FORMAT, Card, Document, Head, Metadata
from penstock_agent.models.network import shapes

LARGEST_VALUE = 1e6
"""Bound of a parameter's magnitude: products of trained ones stay far below the end of single precision."""

SMALLEST_DEVIATION = 1e-6
LARGEST_LOG = 20.0
"""Bound of `limits` and `levels`, which are added to logarithms."""

MOST_LEVELS = 64


@dataclass(frozen=True, slots=True)
class Model:
    """A model that passed all checks."""

    metadata: Metadata
    card: Card
    arrays: Mapping[str, Float32Array]
    sha256: str  # of the file


def load(path: Path, *, sha256: str | None = None) -> Model:
    """Read a model's file; see `read`."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; name a file that `penstock export` wrote") from error
    try:
        return read(data, sha256=sha256)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def read(data: bytes, *, sha256: str | None = None) -> Model:
    """Return the model that a file contains. ModelError names what is wrong with it.

    `sha256` is the digest that the file must have, in hexadecimal digits.
    """
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ModelError(f"file: has SHA-256 {found} instead of {sha256}; use the file that the digest is of")
    text, arrays = unpack(data)
    document = _document(text)
    _check_features(document.model)
    _check_shapes(document.model, arrays)
    _check_values(arrays)
    if (digest_found := digest(document.model, arrays)) != document.arrays:
        raise ModelError(f"arrays: have the digest {digest_found} instead of {document.arrays}; export the model again")
    return Model(document.model, document.card, arrays, found)


def digest(metadata: Metadata, arrays: Mapping[str, Float32Array]) -> str:
    """Return the SHA-256 of the metadata and of all arrays by name, shape and value, in hexadecimal digits."""
    total = hashlib.sha256(json.dumps(metadata.model_dump(mode="json"), sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], dtype="<f4")
        total.update(f"\n{name} {values.shape}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _document(text: bytes) -> Document:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model.json: is not JSON ({error}); export the model again") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if version != FORMAT or isinstance(version, bool):
        raise ModelError(f"model.json: format is {str(version)[:40]!r}; this agent reads {FORMAT}: export it for that")
    try:
        return Document.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        value = repr(first["input"])[:80]
        raise ModelError(f"model.json: {where}: {first['msg']}, got {value}; export the model again") from error


def _check_features(metadata: Metadata) -> None:
    if metadata.features_version != features.VERSION:
        raise ModelError(
            f"model.json: features_version is {metadata.features_version}; this agent computes version "
            f"{features.VERSION}: use a model that was trained for it"
        )
    known = set(features.known())
    for name in metadata.features:
        if name not in known:
            raise ModelError(f"model.json: features: {name!r} is not a feature of this agent; train without it")
    if len(set(metadata.features)) != len(metadata.features):
        raise ModelError("model.json: features: a name is there twice; train with each once")


def _check_shapes(metadata: Metadata, arrays: Mapping[str, Float32Array]) -> None:
    wanted = shapes(metadata, _level_count(metadata, arrays))
    if missing := sorted(wanted.keys() - arrays.keys()):
        raise ModelError(f"arrays: {', '.join(missing)} missing; export the model again")
    if extra := sorted(arrays.keys() - wanted.keys()):
        raise ModelError(f"arrays: {', '.join(extra)} not part of this architecture; export the model again")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ModelError(f"array {name}: has the shape {arrays[name].shape} instead of {shape}; export it again")


def _level_count(metadata: Metadata, arrays: Mapping[str, Float32Array]) -> int:
    if metadata.head is not Head.LEVELS or "levels" not in arrays:
        return 1
    shape = arrays["levels"].shape
    if len(shape) != 2 or not 1 <= shape[0] <= MOST_LEVELS:
        raise ModelError(f"array levels: has the shape {shape}; it needs 1 to {MOST_LEVELS} rows of 2")
    return int(shape[0])


def _check_values(arrays: Mapping[str, Float32Array]) -> None:
    for name, values in arrays.items():
        largest = LARGEST_LOG if name in ("limits", "levels") else LARGEST_VALUE
        if values.size and (highest := float(np.abs(values).max())) > largest:
            raise ModelError(f"array {name}: has the value {highest:.6g}; at most {largest:.6g} is accepted")
    if (lowest := float(arrays["std"].min())) < SMALLEST_DEVIATION:
        raise ModelError(f"array std: has the value {lowest:.6g}; a deviation is at least {SMALLEST_DEVIATION}")
    if "limits" in arrays and (lowest := float(arrays["limits"].min())) < 0:
        raise ModelError(f"array limits: has the value {lowest:.6g}; a limit is at least 0")
