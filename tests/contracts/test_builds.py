"""What is tested, measured and shipped is built alike, from what was checked."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("docker/agent.Dockerfile", "docker/dataplane.Dockerfile", "docker/vpp.Dockerfile", "tools/bench/__main__.py")
KEY = "/etc/apt/keyrings/vpp.asc"


def default_build_type() -> str:
    """Return the type of builds that name none: those of the tests among them."""
    (found,) = re.findall(r"set\(CMAKE_BUILD_TYPE (\w+)\)", (ROOT / "vpp-plugin" / "CMakeLists.txt").read_text())
    return str(found)


@pytest.mark.parametrize("file", BUILT)
def test_one_build_type_is_tested_measured_and_shipped(file: str) -> None:
    text = (ROOT / file).read_text()
    types = re.findall(r"-DCMAKE_BUILD_TYPE=(\w+)", text)
    assert types
    assert set(types) == {default_build_type()}


def test_python_gets_the_same_build() -> None:
    assert f'cmake.build-type = "{default_build_type()}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("right", [True, False])
def test_packages_of_vpp_are_installed_with_a_key_of_the_right_checksum_alone(tmp_path: Path, right: bool) -> None:
    """The step of the Dockerfile between the download of the key and its first use, as it stands there."""
    text = (ROOT / "docker" / "vpp.Dockerfile").read_text()
    step = text[text.index(f"ADD ${{VPP_KEY}} {KEY}\nRUN ") :].split("RUN ", 2)[1]
    key = tmp_path / "vpp.asc"
    key.write_bytes(b"a key")
    checksum = hashlib.sha256(b"a key" if right else b"another key").hexdigest()
    script = step.replace(KEY, str(key))
    environment = {"PATH": "/usr/bin:/bin", "VPP_KEY_SHA256": checksum}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is right
    assert ("VPP_KEY_SHA256" in done.stderr) is not right
