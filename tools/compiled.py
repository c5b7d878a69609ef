"""Small C programs of tools and tests, compiled where they are first used."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_OPTIONS = ("-O2", "-Wall", "-Wextra", "-Werror")


def compiled(source: Path, target: Path, *options: str) -> Path:
    """Compile a C file, unless it is older than its result, and return that. Several processes may do so at once."""
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        subprocess.run(["cc", *_OPTIONS, str(source), *options, "-o", str(draft)], check=True)
        draft.replace(target)  # a program that runs keeps what it has
    return target
