"""Trained networks as model files that an agent reads.

A file is the same for the same input, byte for byte. Beside it lies its card, the JSON text that is also inside of it,
with the digest of the file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock_agent.models import Card, Document, Metadata, read
from penstock_agent.models.archive import DOCUMENT
from penstock_agent.models.files import digest
from penstock_agent.models.metadata import FORMAT

Arrays = Mapping[str, NDArray[np.floating[Any]]]

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip file can have


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network without its history: arrays by the names of `penstock_agent.models.network.shapes`."""

    metadata: Metadata
    arrays: Arrays


def export(arrays: Arrays, metadata: Metadata, card: Card) -> bytes:
    """Return the model's file. ModelError where an agent would refuse it."""
    plain = {name: np.ascontiguousarray(values, dtype="<f4") for name, values in arrays.items()}
    document = Document(format=FORMAT, model=metadata, card=card, arrays=digest(metadata, plain))
    data = _packed(plain, document)
    read(data)
    return data


def write(path: Path, network: NetworkFile, card: Card) -> str:
    """Write a model's file, and its card beside it as `<name>.card.json`; return the SHA-256 of the former."""
    data = export(network.arrays, network.metadata, card)
    model = read(data)
    path.write_bytes(data)
    beside = {"sha256": model.sha256, "model": model.metadata.model_dump(mode="json")}
    text = json.dumps(beside | {"card": card.model_dump(mode="json")}, indent=2, ensure_ascii=False)
    path.with_suffix(".card.json").write_text(text + "\n", encoding="utf-8")
    return model.sha256


def _packed(arrays: Mapping[str, NDArray[np.float32]], document: Document) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        text = json.dumps(document.model_dump(mode="json"), indent=1)
        archive.writestr(_member(DOCUMENT), text.encode())
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, arrays[name], version=(1, 0), allow_pickle=False)
            archive.writestr(_member(f"{name}.npy"), content.getvalue())
    return buffer.getvalue()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EARLIEST)
    member.compress_type = zipfile.ZIP_DEFLATED
    return member
