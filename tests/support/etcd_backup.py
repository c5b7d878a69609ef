"""A backup of a control plane's etcd, and its return: versions go back, as after a restore in earnest."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.controlplane import APISERVER, ETCD, ControlPlane


@contextlib.contextmanager
def _stopped(plane: ControlPlane) -> Iterator[Path]:
    plane.processes.stop(APISERVER, grace=0)
    plane.processes.stop(ETCD, grace=2.0)
    yield plane.directory / "etcd"
    plane.processes.restart(ETCD)
    plane.processes.restart(APISERVER)
    plane.wait_ready()


def back_up(plane: ControlPlane) -> Path:
    """Copy what etcd has; the API server is away for as long as that takes."""
    copy = plane.directory / "backup"
    with _stopped(plane) as data:
        shutil.copytree(data, copy)
    return copy


def restore(plane: ControlPlane, copy: Path) -> None:
    """Put a copy in the place of what etcd has."""
    with _stopped(plane) as data:
        shutil.rmtree(data)
        shutil.copytree(copy, data)
