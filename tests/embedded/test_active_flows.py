"""n_active: flows with a request outstanding, beside HTTP/1.1 servers that know how many they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.active_flows import compare
from tests.support.dataplane import RunningDataplane, running_dataplane
from tests.support.lab import Lab
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

SECONDS = 8.0
ERROR = 0.05


@pytest.fixture(scope="module")
def balanced() -> Iterator[tuple[Lab, RunningDataplane]]:
    with build_lab("pn-act", 1, start_servers=False) as lab, running_dataplane(lab) as dataplane:
        yield lab, dataplane
        dataplane.withdraw()


@pytest.mark.parametrize("kind", ["new", "kept_alive", "kept_alive_busy", "slow", "large"])
def test_within_five_percent_of_what_the_server_knows(
    balanced: tuple[Lab, RunningDataplane], kind: str, tmp_path: Path
) -> None:
    found = compare(*balanced, tmp_path, kind, SECONDS)
    assert found.frames > SECONDS * 2
    assert found.known > 1
    assert abs(found.error) <= ERROR, found
