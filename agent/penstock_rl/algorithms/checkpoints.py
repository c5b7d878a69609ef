"""Checkpoints: written whole or not at all, read without executing anything.

torch's format with `weights_only`: tensors, numbers, text and containers of these; other objects are refused.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from penstock_embedded import files

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the fix."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`."""
    with files.replacing(path, files.READABLE) as file:
        torch.save({"format": FORMAT, **content}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises CheckpointError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; check the file") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is not a checkpoint of penstock train; use an older one") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: has another format than {FORMAT}; use the version of Penstock that wrote it")
    return content
