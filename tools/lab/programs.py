"""Server and client of the laboratory, in C: their own cost must not be seen in what they measure."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_BUILD = _HERE.parents[1] / "build" / "lab"
_OPTIONS = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def server() -> Path:
    """Compile the server and return its path."""
    return _program("server")


def client() -> Path:
    """Compile the client and return its path."""
    return _program("client")


@cache
def _program(name: str) -> Path:
    source, program = _HERE / f"{name}.c", _BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        _BUILD.mkdir(parents=True, exist_ok=True)
        draft = program.with_suffix(".new")  # another program may run the old one, or compile it, too
        subprocess.run(["cc", *_OPTIONS, str(source), "-o", str(draft), "-lm"], check=True)
        draft.replace(program)
    return program
