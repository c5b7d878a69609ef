"""Images install packages by version and hash, as pyproject.toml asks for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("operator", "agent", "dataplane", "vpp")


def locked(name: str) -> dict[str, str]:
    """Return the versions of a list; each has a hash."""
    text = (ROOT / "docker" / "locks" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"(\S+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line) for line in lines]
    assert all(found), lines
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def wanted(name: str) -> list[Requirement]:
    script = ROOT / "docker" / "requirements.py"
    done = subprocess.run([sys.executable, script, name], capture_output=True, text=True, check=True)
    return [Requirement(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["build", *ROLES])
def test_every_package_is_locked_in_a_version_that_will_do(name: str) -> None:
    versions = locked(name)
    for requirement in wanted("--build" if name == "build" else name):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


@pytest.mark.parametrize("role", ROLES)
def test_images_install_nothing_without_a_hash(role: str) -> None:
    text = (ROOT / "docker" / f"{role}.Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install .*?(?=&&|\n)", text)
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command, command
    assert f"docker/locks/{role}.txt" in text
