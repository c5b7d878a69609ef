"""Image archives written without an image builder: one layer of a few files, in the format that `docker save` has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.images.errors import ImageError


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return a tar archive of files (content, mode) that depends on nothing else: no times, no owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted(files):
            content, mode = files[name]
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def extend_archive(base: Path, target: Path, name: str, files: Mapping[str, tuple[bytes, int]]) -> Path:
    """Write the image of another archive with a layer of files (path -> content, mode) on top of it."""
    layer = _tar(files)
    with tarfile.open(base) as source:
        (manifest,) = json.loads(_read(source, "manifest.json"))
        configuration = json.loads(_read(source, manifest["Config"]))
        configuration["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        # One entry for each layer, or what reads the image calls it broken.
        configuration.setdefault("history", []).append({"created_by": "files of an installed program"})
        encoded = json.dumps(configuration, sort_keys=True).encode()
        config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
        layer_name = f"{hashlib.sha256(layer).hexdigest()}.tar"
        layers = [*manifest["Layers"], layer_name]
        document = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": layers}]).encode()
        with tarfile.open(target, "w") as archive:
            for path in dict.fromkeys(manifest["Layers"]):
                entry = source.getmember(path)
                archive.addfile(entry, source.extractfile(entry) if entry.isfile() else None)
            for path, content in ((layer_name, layer), (config_name, encoded), ("manifest.json", document)):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return target


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ImageError(f"{archive.name!r}: {name} is no file")
    with file:
        return file.read()


def write_archive(target: Path, name: str, programs: Mapping[str, Path], entrypoint: Sequence[str]) -> Path:
    """Write an image that consists of static programs only; `programs` maps paths in the image to files here."""
    layer = _tar({path.lstrip("/"): (source.read_bytes(), 0o755) for path, source in programs.items()})
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {config_name: configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_tar({path: (content, 0o644) for path, content in files.items()}))
    return target
