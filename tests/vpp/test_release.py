"""A plugin and the release of VPP that it was built against."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import vpp

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp]


@contextmanager
def started(plugins: Path) -> Iterator[vpp.VppProcess]:
    """Run a VPP that takes our plugin from a directory, and holds no interface."""
    with tempfile.TemporaryDirectory(prefix="pn-vpr-", dir="/dev/shm") as directory:
        startup = vpp.STARTUP.format(
            directory=directory,
            prefix=Path(directory).name,
            cpu="",
            plugins=vpp.plugins_of_vpp(),
            ours=plugins,
            section="",
            others="",
        )
        process = vpp.VppProcess(Path(directory), subprocess.Popen, startup)
        try:
            yield process
        finally:
            process.stop()


@pytest.fixture(scope="module")
def plugin() -> Path:
    if reason := vpp.missing():
        pytest.skip(reason)
    return vpp.plugin_directory() / "lb_rl_plugin.so"


def test_it_is_loaded_by_its_own_release(plugin: Path) -> None:
    with started(plugin.parent) as process:
        assert "lb_rl_plugin.so" in process.ctl("show plugins")


def test_another_release_does_not_load_it(plugin: Path, tmp_path: Path) -> None:
    # The field ends with zeros; the version itself goes on with "-release" or the like.
    other = re.sub(rb"\d\d\.\d\d\0", b"19.08\0", plugin.read_bytes())
    (tmp_path / plugin.name).write_bytes(other)
    with started(tmp_path) as process:
        assert "lb_rl_plugin.so" not in process.ctl("show plugins")
        assert re.search("version mismatch: .* != 19.08", process.ctl("show logging"))
