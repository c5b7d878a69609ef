"""Small file systems of their own, to be filled, made read-only, or taken away."""

from __future__ import annotations

import contextlib
import os
import subprocess


class Disk:
    """A tmpfs of a few pages."""

    def __init__(self, path, size="256k"):
        self.path = path
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "small", str(path)], check=True)

    def fill(self):
        """Leave no page free."""
        with (self.path / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty(self):
        (self.path / "ballast").unlink()

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def unmount(self):
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@contextlib.contextmanager
def disk(path, size="256k"):
    """Mount a small tmpfs at `path` for the block; the test is skipped where that is not allowed."""
    import pytest

    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    try:
        made = Disk(path, size)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"mounting is not allowed here: {error}")
    try:
        yield made
    finally:
        made.unmount()
