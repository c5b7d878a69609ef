"""Files that are replaced whole: what may lie in their place, and what is left when that fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from penstock_embedded import files


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A node of its own of the device that /dev/null is."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making devices needs root")
    return path


def is_device(path: Path) -> bool:
    return stat.S_ISCHR(path.lstat().st_mode)


def test_a_device_is_neither_replaced_nor_set_aside(device: Path) -> None:
    with pytest.raises(OSError, match="is a device, which is not replaced") as raised:
        files.replace(device, b"text")
    assert raised.value.filename == str(device)
    assert files.set_aside(device) is None
    assert is_device(device)
    assert list(device.parent.iterdir()) == [device]


def test_a_link_to_a_device_is_replaced_itself(device: Path) -> None:
    link = device.with_name("link")
    link.symlink_to(device)
    files.replace(link, b"text")
    assert link.read_bytes() == b"text"
    assert is_device(device)


def test_a_fifo_is_replaced_without_waiting_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    files.replace(path, b"text")
    assert files.read(path) == b"text"


def test_a_directory_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    files.replace(path, b"text")
    assert files.read(path) == b"text"
    assert (tmp_path / "file.damaged").is_dir()


@pytest.mark.parametrize("mode", [0o600, files.READABLE])
def test_an_error_in_the_middle_leaves_the_content_of_before(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    with files.replacing(path, mode) as file:
        file.write(b"before")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    with pytest.raises(KeyError), files.replacing(path, mode) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
