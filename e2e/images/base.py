"""A Debian base image made with debootstrap, where no registry can be reached."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from e2e.images.errors import ImageError

SUITE = "trixie"
_SOURCES = Path("/etc/apt")
# Documentation and translations, which the slim variant of the official image lacks too, and what builds fill again.
_LEFT_OUT = (
    *("dev", "proc", "sys", "tmp", "var/cache/apt", "var/lib/apt/lists", "var/log"),
    *(f"usr/share/{name}" for name in ("doc", "info", "locale", "man")),
)
_EMPTY = ("dev", "proc", "sys", "tmp", "var/cache/apt", "var/lib/apt/lists", "var/log")
_SECONDS = 900


def host_mirror(sources: Path = _SOURCES) -> str | None:
    """Return the mirror that this machine's own apt uses for Debian, if it says one."""
    files = [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]
    text = "\n".join(
        file.read_text(errors="replace") for file in files if file.suffix in {".list", ".sources"} and file.is_file()
    )
    for uri in re.findall(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+/debian)/?(?:\s|$)", text, re.MULTILINE):
        return str(uri)
    return None


def write_base(target: Path) -> Path:
    """Write a minimal Debian as the root file system of an image."""
    if shutil.which("debootstrap") is None:
        raise ImageError("no base image can be pulled and debootstrap is not installed: `apt-get install debootstrap`")
    mirror = host_mirror()
    with tempfile.TemporaryDirectory(prefix="penstock-base-") as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", SUITE, str(root), *([mirror] if mirror else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode != 0:
            raise ImageError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        unfinished = target.with_suffix(".tmp")
        with tarfile.open(unfinished, "w") as archive:
            archive.add(root, arcname=".", filter=slim)
        return unfinished.replace(target)


def slim(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Keep empty folders of what a build fills, leave out their content; forget times."""
    name = entry.name.removeprefix("./")
    for folder in _LEFT_OUT:
        if name.startswith(f"{folder}/") or (name == folder and folder not in _EMPTY):
            return None
    entry.mtime = 0
    return entry
