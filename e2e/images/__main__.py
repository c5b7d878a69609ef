"""Command line: `python -m e2e.images build [--load] [NAME...]` prints each image and its archive as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from e2e.cluster.errors import ClusterError
from e2e.cluster.provider import Provider
from e2e.cluster.providers import PROVIDERS, find
from e2e.cluster.spec import DEFAULT_NAME
from e2e.cluster.steps import note, step
from e2e.images.build import ROLES, TOOLS, VPP, Image, build, release


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.images", description="The project's container images.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build what has changed")
    names = [*ROLES, *TOOLS]
    known = [*names, VPP]
    command.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME", help=f"of {', '.join(known)}")
    command.add_argument("--load", action="store_true", help="load them into the nodes, with the tags the chart wants")
    command.add_argument("--provider", choices=PROVIDERS, default="local", help="of the cluster (default local)")
    command.add_argument("--cluster", default=DEFAULT_NAME, help=f"name of the cluster (default {DEFAULT_NAME})")
    options = parser.parse_args(arguments)
    cluster = find(options.provider, options.cluster) if options.load else None
    if cluster is not None and not cluster.exists():
        note(f"error: no cluster {options.cluster} is up to load images into: `make cluster-up` first")
        return 1
    try:
        with step("images"):
            images = build(options.names or names)
        if cluster is not None:
            _load(cluster, images)
    except ClusterError as error:
        note(f"error: {error}")
        return 1
    print(
        json.dumps(
            {image.name: {"image": image.reference, "archive": str(image.archive)} for image in images}, indent=1
        )
    )
    return 0


def _load(cluster: Provider, images: list[Image]) -> None:
    with step(f"images loaded into the nodes, tagged {release()}"):
        cluster.load_images([image.archive for image in images])
        for image in images:
            cluster.tag_image(image.reference, f"{image.repository}:{release()}")


if __name__ == "__main__":
    sys.exit(main())
