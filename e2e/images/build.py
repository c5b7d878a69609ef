"""Builds the project's images and keeps their archives, named by a digest of everything that goes into them."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.cluster import binaries
from e2e.cluster.binaries import cache_root
from e2e.cluster.steps import step
from e2e.images import vpp
from e2e.images.archive import write_archive
from e2e.images.builders import Builder, find_builder

ROOT = Path(__file__).parents[2]
ROLES = ("operator", "agent", "dataplane")
TOOLS = ("httpserver",)
VPP = "vpp"  # put together from the VPP that is installed here; see the module of that name
_KEPT_PER_NAME = 3
_TAG_PREFIX = "dev-"  # of images that are named by their digest: only these are ever removed
_COPY = re.compile(r"^COPY (?!--from)(?P<sources>.+) \S+$", re.MULTILINE)
_IGNORED_PARTS = frozenset({"__pycache__", "build", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True)
class Image:
    """A built image: what to write into a pod, and the archive to load into nodes."""

    name: str
    repository: str
    tag: str
    archive: Path

    @property
    def reference(self) -> str:
        """The image's full name."""
        return f"{self.repository}:{self.tag}"


def release() -> str:
    """Return the tag that the chart gives to images by default."""
    chart = yaml.safe_load((ROOT / "charts/penstock/Chart.yaml").read_text())
    return str(chart["appVersion"])


def inputs(dockerfile: Path, context: Path) -> Iterator[Path]:
    """Yield the files that a Dockerfile copies from its context, and itself."""
    yield dockerfile
    yield context / ".dockerignore"
    for match in _COPY.finditer(dockerfile.read_text()):
        for source in match["sources"].split():
            path = context / source
            yield from [path] if path.is_file() else _files_below(path)


def _files_below(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return sorted(path for path in found if not _IGNORED_PARTS.intersection(path.parts))


def digest(files: Iterable[Path], context: Path, *more: str) -> str:
    """Return a short digest of files, their names and whether they may be executed."""
    total = hashlib.sha256("\0".join(more).encode())
    for path in sorted(set(files)):
        executable = path.stat().st_mode & 0o111 != 0
        total.update(f"\0{path.relative_to(context)}\0{executable}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def build(names: Iterable[str] = (*ROLES, *TOOLS)) -> list[Image]:
    """Build what has changed since it was built last; return all images asked for. One build runs at a time."""
    folder = cache_root() / "images" / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = list(names)
        roles = [name for name in wanted if name not in (*TOOLS, VPP)]
        if VPP in wanted and "dataplane" not in roles:
            roles.append("dataplane")  # the one below it
        images = {name: _role_image(name, folder) for name in roles}
        missing = [image for image in images.values() if not image.archive.exists()]
        if missing:
            _build_roles(missing)
        images |= {name: _tool(name, folder) for name in wanted if name in TOOLS}
        if VPP in wanted:
            images[VPP] = _vpp(images["dataplane"], folder)
    return [images[name] for name in wanted]


def _image(name: str, tag: str, folder: Path) -> Image:
    return Image(name, f"penstock/{name}", f"{_TAG_PREFIX}{tag}", folder / f"{name}-{tag}.tar")


def _dockerfile(name: str) -> Path:
    return ROOT / "docker" / f"{name}.Dockerfile"


def _role_image(name: str, folder: Path) -> Image:
    return _image(name, digest(inputs(_dockerfile(name), ROOT), ROOT), folder)


def _build_roles(images: Iterable[Image]) -> None:
    builder = find_builder()
    builder.tidy()
    try:
        with step(f"base image ({builder.name})"):
            base = builder.base()
        for image in images:
            with step(f"image {image.reference}") as report:
                builder.build(_dockerfile(image.name), ROOT, image.reference, {"BASE": base}, report)
                report("archive")
                unfinished = image.archive.with_suffix(".tmp")
                builder.save(image.reference, unfinished)
                unfinished.replace(image.archive)
            _prune(image)
            forget(builder, image)
    finally:
        builder.tidy()


def _tool(name: str, folder: Path) -> Image:
    image = _image(name, binaries.sources_digest(binaries.TOOLS.module), folder)
    if not image.archive.exists():
        write_archive(image.archive, image.reference, {f"/{name}": binaries.program(name)}, [f"/{name}"])
        _prune(image)
    return image


def _vpp(base: Image, folder: Path) -> Image:
    with step("plugin of VPP"):
        layer = vpp.files()
    image = _image(VPP, vpp.digest(base.archive, layer), folder)
    if not image.archive.exists():
        with step(f"image {image.reference}"):
            vpp.write(base.archive, image.archive, image.reference, layer)
        _prune(image)
    return image


def _prune(image: Image) -> None:
    """Keep the last few archives of an image."""
    archives = sorted(
        image.archive.parent.glob(f"{image.name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for old in [path for path in archives if path != image.archive][_KEPT_PER_NAME:]:
        old.unlink()


def forget(builder: Builder, image: Image) -> None:
    """Remove from the builder's store what has no archive any more, or the store grows with every change."""
    for full_name in builder.tags(image.repository):
        tag = full_name.rpartition(":")[2]
        archive = image.archive.with_name(f"{image.name}-{tag.removeprefix(_TAG_PREFIX)}.tar")
        if tag.startswith(_TAG_PREFIX) and not archive.exists():
            builder.remove(full_name)
