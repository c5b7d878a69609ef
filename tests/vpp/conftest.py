"""Laboratories whose balancer is a real VPP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import vpp
from tests.support.lab import Lab
from tests.support.lab import lab as build_lab
from tests.support.vpp import RunningVpp, forgetful, running_vpp
from tests.support.vpp_client import vpp_client


def _bare_lab(prefix: str) -> Iterator[Lab]:
    if reason := vpp.missing():
        pytest.skip(reason)
    vpp.plugin_directory()
    with build_lab(prefix, 2) as built:
        vpp.bare(built)
        yield built


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A client, a balancer without addresses of the kernel's, two servers."""
    yield from _bare_lab("pn-vpp")


@pytest.fixture
def lab_of_its_own() -> Iterator[Lab]:
    """The same, for a test that starts a VPP itself: only one at a time can hold a wire."""
    yield from _bare_lab("pn-vpo")


@pytest.fixture(scope="session")
def process(lab: Lab) -> Iterator[RunningVpp]:
    """A VPP for the session."""
    with running_vpp(lab) as running:
        yield running


@pytest.fixture
def balancer(process: RunningVpp) -> Iterator[RunningVpp]:
    """A VPP whose load balancer knows nothing, and forgets all at the end."""
    yield from forgetful(process)


@pytest.fixture
def client(balancer: RunningVpp) -> Iterator[Any]:
    """A connected client of VPP's binary API."""
    with vpp_client(balancer) as connected:
        yield connected
