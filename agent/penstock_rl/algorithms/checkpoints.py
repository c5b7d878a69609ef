"""Checkpoints: written whole or not at all, read without executing anything.

torch's format with `weights_only`: tensors, numbers, text and containers of these; other objects are refused. It is
compressed, because sequences of few backends are mostly zeros.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from penstock_embedded import files

FORMAT = 2
MAGIC = b"\x1f\x8b"  # of gzip
FASTEST = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the fix."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`."""
    plain = io.BytesIO()
    torch.save({"format": FORMAT, **content}, plain)
    with files.replacing(path, files.READABLE) as file:
        file.write(gzip.compress(plain.getbuffer(), FASTEST, mtime=0))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises CheckpointError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; check the file") from error
    try:
        content = _unpacked(data)
    except (UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError, Warning, zlib.error) as error:
        raise CheckpointError(f"{path}: is not a checkpoint of penstock train; use an older one") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: has another format than {FORMAT}; use the version of Penstock that wrote it")
    return content


def _unpacked(data: bytes) -> Any:
    if not data.startswith(MAGIC):
        raise ValueError("is not compressed")
    plain = io.BytesIO(gzip.decompress(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of what torch.save does not write
        return torch.load(plain, map_location="cpu", weights_only=True)
