"""The quick start does what its page says: its commands are taken from the page and run in their order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.providers import find

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/quick-start.md"
SECONDS = 1500
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VIPS = "kubectl get vip\n"


@pytest.fixture(autouse=True)
def no_request_is_refused() -> None:
    """Stand in for the fixture of this name, which needs the cluster of the other tests."""


@pytest.fixture
def commands() -> Iterator[str]:
    """Return the page's commands as one script; afterwards nothing of its cluster is left."""
    if os.environ.get("PROVIDER", "local") != "local":
        pytest.skip("the page is written for the provider local")
    if find("local").exists():
        pytest.fail("a cluster named penstock is up, as the page makes one: `make cluster-down` first")
    yield "".join(text for kind, text in _BLOCK.findall(PAGE.read_text()) if kind == "sh")
    find("local").down()
    (ROOT / "penstock.yaml").unlink(missing_ok=True)


def test_the_commands_of_the_page_work_in_their_order(commands: str, tmp_path: Path) -> None:
    transcript = tmp_path / "transcript"
    # The programs of the page alone: not those that this machine has by chance.
    script = 'set -euo pipefail\nPS4="$ "\nset -x\n' + commands
    # Nor the variables of the make that runs this test, which the page's own would take for theirs.
    foreign = ("ARGS", "MAKE", "KUBECONFIG")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with transcript.open("w") as out:
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", script],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=SECONDS,
        )
    text = transcript.read_text()
    assert done.returncode == 0, f"the page's last command here failed:\n{text[-6000:]}"
    assert_as_shown(text)


def assert_as_shown(transcript: str) -> None:
    """The table of VIPs has the columns and the address that the page shows."""
    (shown,) = (text for kind, text in _BLOCK.findall(PAGE.read_text()) if kind == "text")
    header, row = (line.split() for line in shown.splitlines())
    lines = transcript.splitlines()
    printed = lines[lines.index(f"$ {_VIPS.strip()}") + 1 :][:2]
    assert printed[0].split() == header
    assert printed[1].split()[:-1] == row[:-1]  # all but its age
