"""Fixtures that several folders share, and how property tests choose their examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from e2e.cluster import ControlPlane, binaries, control_plane

# The same examples on every run, so that a change fails for what it changed. New ones are looked for on purpose:
# pytest --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)  # a busy machine takes its time
settings.load_profile("repeatable")


PROGRAMS = {"apiserver": ("etcd", "kube-apiserver", "kubectl"), "helm": ("helm", "kubeconform")}
"""What tests need that is downloaded or built once per machine, by fixture."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the programs of the collected tests before the first one starts: a build takes longer than a test may."""
    if session.config.option.collectonly:
        return
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if wanted := [program for fixture in fixtures & PROGRAMS.keys() for program in PROGRAMS[fixture]]:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            binaries.programs(*wanted)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    """Run a real API server with etcd (no nodes, no controllers) for the session; it is ready in seconds.

    Use a namespace per test.
    """
    with control_plane() as plane:
        yield plane
