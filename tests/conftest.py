"""Fixtures that several folders share, and how property tests choose their examples."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the time limit of the test begins
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run tests marked `alone` while no other worker runs a test."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with _turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Wait for one's turn among the workers. A test that waits to be alone lets no other test begin."""
    with _descriptor(Path(__file__).parent) as entrance, _descriptor(Path(__file__)) as tests:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        fcntl.flock(tests, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(entrance, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(tests, fcntl.LOCK_UN)  # also of processes that the test has forked


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ControlPlane]:
    """Run a real API server with etcd (no nodes, no controllers) for the session; it is ready in seconds.

    Use a namespace per test.
    """
    with control_plane() as plane:
        yield plane
