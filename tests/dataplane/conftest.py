"""The subjects of the conformance suite. What a test needs of a data plane it says by the interface that all have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import vpp
from tests.support.dataplane import RunningDataplane, running_dataplane
from tests.support.lab import lab as build_lab
from tests.support.subjects import CoreSubject, EmbeddedSubject, Subject, VppSubject, withdrawn
from tests.support.vpp import RunningVpp, forgetful, running_control, running_vpp
from tests.support.wires import Wires, wires


@pytest.fixture(scope="session")
def embedded_on_wires() -> Iterator[tuple[RunningDataplane, Wires]]:
    with (
        build_lab("pn-cfe", 2, start_servers=False) as lab,
        running_dataplane(lab) as dataplane,
        wires(lab) as held,
    ):
        yield dataplane, held


@pytest.fixture(scope="session")
def vpp_on_wires() -> Iterator[tuple[RunningVpp, Wires]]:
    if reason := vpp.missing():
        pytest.skip(reason)
    vpp.plugin_directory()
    with build_lab("pn-cfv", 2, start_servers=False) as lab:
        vpp.bare(lab)
        with running_vpp(lab) as balancer, wires(lab) as held:
            yield balancer, held


@pytest.fixture
def embedded(embedded_on_wires: tuple[RunningDataplane, Wires]) -> Iterator[Subject]:
    dataplane, held = embedded_on_wires
    with withdrawn(EmbeddedSubject(dataplane, held), dataplane) as subject:
        yield subject


@pytest.fixture
def through_vpp(vpp_on_wires: tuple[RunningVpp, Wires]) -> Iterator[Subject]:
    balancer, held = vpp_on_wires
    for process in forgetful(balancer):
        with running_control(process) as control:
            yield VppSubject(process, control, held)


@pytest.fixture
def core(tmp_path: Path) -> Subject:
    return CoreSubject(tmp_path)


@pytest.fixture(
    params=[
        "core",
        pytest.param("embedded", marks=pytest.mark.netns),
        # The first test builds the plugin, and that is not its own time.
        pytest.param("through_vpp", marks=[pytest.mark.netns, pytest.mark.vpp]),
    ]
)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each data plane in turn, told nothing yet."""
    found: Subject = request.getfixturevalue(request.param)
    return found
