"""Command line: `python -m e2e.images build [NAME...]` prints each image and its archive as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from e2e.cluster.errors import ClusterError
from e2e.cluster.steps import note, step
from e2e.images.build import ROLES, TOOLS, VPP, build


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.images", description="The project's container images.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build what has changed")
    names = [*ROLES, *TOOLS]
    known = [*names, VPP]
    command.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME", help=f"of {', '.join(known)}")
    options = parser.parse_args(arguments)
    try:
        with step("images"):
            images = build(options.names or names)
    except ClusterError as error:
        note(f"error: {error}")
        return 1
    print(
        json.dumps(
            {image.name: {"image": image.reference, "archive": str(image.archive)} for image in images}, indent=1
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
