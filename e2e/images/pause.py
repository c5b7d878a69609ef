"""The image of a pod's sandbox: our own static `pause`, so that no registry is needed."""

from __future__ import annotations

from pathlib import Path

from e2e.cluster import binaries
from e2e.images.archive import write_archive

PAUSE_IMAGE = "penstock.dev/pause:local"


def write_pause_archive(target: Path) -> Path:
    """Write the sandbox image."""
    return write_archive(target, PAUSE_IMAGE, {"/pause": binaries.program("pause")}, ["/pause"])
