"""Small files that survive a crash: replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str) -> None:
    """Replace a file so that a reader, or this node after a power cut, sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_or_none(path: Path) -> str | None:
    """Read a file that need not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
