"""Fixtures that several folders share, and how property tests choose their examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from e2e.cluster import ControlPlane, control_plane

# The same examples on every run, so that a change fails for what it changed. New ones are looked for on purpose:
# pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    """Run a real API server with etcd (no nodes, no controllers) for the session; it is ready in seconds.

    Use a namespace per test. The first run on a machine builds the programs, which takes minutes.
    """
    with control_plane() as plane:
        yield plane
