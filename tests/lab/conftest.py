"""What tests of the laboratory need of the machine."""

from __future__ import annotations

import os

import pytest

from tools.lab.errors import LabError
from tools.lab.groups import Group, Hierarchies


@pytest.fixture(scope="session")
def limits() -> Hierarchies:
    """Control groups that limit processor time; skipped where none can be made, as in some containers."""
    try:
        hierarchies = Hierarchies.find()
        group = Group(hierarchies, f"penstock-lab-{os.getpid()}-try")
        group.make()
        group.remove()
    except LabError as error:
        pytest.skip(str(error))
    return hierarchies
