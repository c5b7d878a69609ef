"""Examples are read as strictly as users' files."""

from __future__ import annotations

from pathlib import Path

from penstock_api import KindError, parse_yaml


def check(root: Path) -> list[str]:
    """Return what is wrong with the files under examples/."""
    problems = []
    for path in sorted((root / "examples").rglob("*.yaml")):
        try:
            parse_yaml(path.read_text(), foreign="skip")
        except KindError as error:
            problems.append(f"{path.relative_to(root)}: {error}")
    return problems
