"""Writes everything that is generated, or with `--check` tells what is out of date.

Each generator returns the files it is responsible for; the list below is all there is to extend.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from tools.generators import (
    addresses,
    admission,
    cli_reference,
    crds,
    examples,
    features,
    kinds_reference,
    metrics_reference,
    rbac,
    recipes_reference,
    scenarios_reference,
)
from tools.generators.output import Files

ROOT = Path(__file__).resolve().parents[1]

GENERATORS: dict[str, Callable[[], Files]] = {
    "crds": crds.render,
    "rbac": rbac.render,
    "admission": admission.render,
    "addresses": addresses.render,
    "kinds-reference": kinds_reference.render,
    "scenarios-reference": scenarios_reference.render,
    "cli-reference": cli_reference.render,
    "metrics-reference": metrics_reference.render,
    "recipes-reference": recipes_reference.render,
    "features": features.render,
}

CHECKS: tuple[Callable[[Path], list[str]], ...] = (examples.check,)

OWNED = ("crds/manifests/*.yaml", "charts/penstock/templates/crds/*.yaml")
"""Folders in which every file is generated: what no generator returns is a leftover."""

_SHOWN_LINES = 20


def main() -> int:
    """Run all generators and checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("names", nargs="*", help=f"generators to run; default: all ({', '.join(GENERATORS)})")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in GENERATORS]:
        parser.error(f"no generator is called {unknown[0]}; there are {', '.join(GENERATORS)}")
    names = options.names or list(GENERATORS)
    files = {path: text for name in names for path, text in GENERATORS[name]().items()}
    problems = compare(files, ROOT) if options.check else write(files, ROOT)
    if not options.names:
        problems += [f"{path}: no generator writes it; remove it" for path in leftovers(files, ROOT)]
    problems += [problem for check in CHECKS for problem in check(ROOT)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def compare(files: Files, root: Path) -> list[str]:
    """Return what differs from what the generators say."""
    problems = []
    for path, text in files.items():
        current = (root / path).read_text() if (root / path).exists() else ""
        if current != text:
            difference = difflib.unified_diff(current.splitlines(), text.splitlines(), str(path), "generated", n=1)
            shown = "\n".join(list(difference)[:_SHOWN_LINES])
            problems.append(f"{path}: out of date; run `make generate`\n{shown}")
    return problems


def write(files: Files, root: Path) -> list[str]:
    """Write what differs, and say so."""
    for path, text in files.items():
        target = root / path
        if target.exists() and target.read_text() == text:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(f"wrote {path}")
    return []


def leftovers(files: Files, root: Path) -> list[Path]:
    """Return files among the generated ones that no generator returned."""
    found = [path.relative_to(root) for pattern in OWNED for path in root.glob(pattern)]
    return sorted(path for path in found if path not in files)


if __name__ == "__main__":
    sys.exit(main())
