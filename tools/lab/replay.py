"""Has real clients replay a plan against real servers behind the real data plane, isolated from this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tools.lab import programs
from tools.lab.isolation import isolated
from tools.lab.requests import Records, read_records
from tools.lab.setup import Files, Measured, Setup

START_SECONDS = 120.0  # that building and removing may take


def replay(setup: Setup, plan: Iterable[str]) -> tuple[Records, Measured]:
    """Return what the client measured, and the accounts of the servers. LabError where anything fails."""
    programs.server()
    programs.client()
    with tempfile.TemporaryDirectory(prefix="penstock-lab-") as directory:
        files = Files(Path(directory))
        files.setup.write_text(setup.model_dump_json())
        files.plan.write_text("".join(f"{line}\n" for line in plan))
        with isolated() as isolation:
            hierarchies = isolation.group.hierarchies
            arguments = [directory, hierarchies.version, hierarchies.limits, hierarchies.accounts, isolation.group.name]
            command = [sys.executable, "-m", "tools.lab.inside", *map(str, arguments)]
            isolation.run(command, setup.until + START_SECONDS)
        return read_records(files.records), Measured.model_validate_json(files.measured.read_text())
