"""Image archives written without an image builder: one layer of a few files, in the format that `docker save` has."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


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
