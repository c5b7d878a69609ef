"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.cluster import ControlPlane, control_plane


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    """Run a real API server with etcd (no nodes, no controllers) for the session; it is ready in seconds.

    Use a namespace per test. The first run on a machine builds the programs, which takes minutes.
    """
    with control_plane() as plane:
        yield plane
