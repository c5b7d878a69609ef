"""Server and client of the laboratory, in C: their own cost must not be seen in what they measure."""

from __future__ import annotations

from pathlib import Path

from tools.compiled import compiled

_HERE = Path(__file__).parent
_BUILD = _HERE.parents[1] / "build" / "lab"


def server() -> Path:
    """Compile the server and return its path."""
    return _program("server")


def client() -> Path:
    """Compile the client and return its path."""
    return _program("client")


def _program(name: str) -> Path:
    return compiled(_HERE / f"{name}.c", _BUILD / name, "-pthread", "-lm")
