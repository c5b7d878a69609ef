"""Images: what goes into their digest, archives without a builder, and Dockerfiles that share their first layers."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from e2e.images import base
from e2e.images.__main__ import main
from e2e.images.archive import extend_archive, write_archive
from e2e.images.build import ROLES, ROOT, VPP, Image, digest, forget, inputs
from e2e.images.builders import Buildah, step_of


def program(folder: Path, content: str = "#!/bin/sh\n") -> Path:
    path = folder / "program"
    path.write_text(content)
    return path


def test_an_archive_depends_on_its_content_alone(tmp_path: Path) -> None:
    source = program(tmp_path)
    first = write_archive(tmp_path / "a.tar", "penstock/x:1", {"/x": source}, ["/x"]).read_bytes()
    source.touch()
    assert write_archive(tmp_path / "b.tar", "penstock/x:1", {"/x": source}, ["/x"]).read_bytes() == first
    source.write_text("#!/bin/sh\nexit 1\n")
    assert write_archive(tmp_path / "c.tar", "penstock/x:1", {"/x": source}, ["/x"]).read_bytes() != first


def test_an_archive_holds_an_executable_and_names_itself(tmp_path: Path) -> None:
    target = write_archive(tmp_path / "x.tar", "penstock/x:1", {"/bin/x": program(tmp_path)}, ["/bin/x", "--flag"])
    with tarfile.open(target) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        configuration = json.load(archive.extractfile(manifest["Config"]) or io.BytesIO())
        layer = (archive.extractfile(manifest["Layers"][0]) or io.BytesIO()).read()
    assert manifest["RepoTags"] == ["penstock/x:1"]
    assert configuration["config"]["Entrypoint"] == ["/bin/x", "--flag"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert [(entry.name, entry.mode) for entry in files] == [("bin/x", 0o755)]


def test_an_archive_gets_a_layer_on_top(tmp_path: Path) -> None:
    base_archive = write_archive(tmp_path / "a.tar", "penstock/a:1", {"/x": program(tmp_path)}, ["/x"])
    target = extend_archive(base_archive, tmp_path / "b.tar", "penstock/b:1", {"usr/bin/y": (b"y", 0o755)})
    with tarfile.open(target) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        configuration = json.load(archive.extractfile(manifest["Config"]) or io.BytesIO())
        layers = [(archive.extractfile(name) or io.BytesIO()).read() for name in manifest["Layers"]]
    assert manifest["RepoTags"] == ["penstock/b:1"]
    assert configuration["config"]["Entrypoint"] == ["/x"]
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    with tarfile.open(fileobj=io.BytesIO(layers[-1])) as files:
        assert files.getnames() == ["usr/bin/y"]


def test_a_digest_sees_content_names_and_modes(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base AS x\nCOPY one two ./\nCOPY --from=x /elsewhere /here\n")
    (tmp_path / ".dockerignore").write_text("*\n")
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "file").write_text("2")

    def now() -> str:
        return digest(inputs(tmp_path / "Dockerfile", tmp_path), tmp_path)

    seen = {now()}
    assert now() in seen
    (tmp_path / "other").write_text("not copied")
    cache = tmp_path / "two" / "__pycache__"
    cache.mkdir()
    (cache / "file.pyc").write_text("compiled")
    assert now() in seen
    for change in (
        lambda: (tmp_path / "one").write_text("one"),
        lambda: (tmp_path / "two" / "file").chmod(0o755),
        lambda: (tmp_path / "two" / "file").rename(tmp_path / "two" / "renamed"),
        lambda: (tmp_path / "two" / "added").write_text(""),
    ):
        change()
        assert now() not in seen
        seen.add(now())


@pytest.mark.parametrize("role", [*ROLES, VPP])
def test_every_input_of_a_dockerfile_exists_and_passes_the_ignore_file(role: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in inputs(ROOT / "docker" / f"{role}.Dockerfile", ROOT):
        assert path.exists()
    text = (ROOT / "docker" / f"{role}.Dockerfile").read_text()
    suite = "bookworm" if role == VPP else base.SUITE  # VPP's packages are of that release
    assert text.count(f"ARG BASE=debian:{suite}-slim") == 1
    assert all((ROOT / name).exists() for name in allowed)


def test_images_share_the_layers_that_take_long() -> None:
    def stages(role: str) -> dict[str, str]:
        parts = (ROOT / "docker" / f"{role}.Dockerfile").read_text().split("\nFROM ")
        return {part.splitlines()[0].partition(" AS ")[2]: part for part in parts[1:]}

    agent, dataplane, operator, vpp = (stages(role) for role in ("agent", "dataplane", "operator", VPP))
    for stage in ("base", "tools", "code"):
        assert operator[stage] == agent[stage] == dataplane[stage] == vpp[stage]
    assert agent["extension"] == dataplane["extension"] == vpp["extension"]


def test_requirements_are_those_of_the_project() -> None:
    def printed(argument: str) -> list[str]:
        command = ["python3", "docker/requirements.py", argument]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    assert any(line.startswith("numpy") for line in printed("agent"))
    assert any(line.startswith("kopf") for line in printed("operator"))
    assert any(line.startswith("nanobind") for line in printed("--build"))
    assert not any(line.startswith("kopf") for line in printed("agent"))
    assert {*printed("dataplane")} < {*printed("vpp")}  # it builds on the other
    assert not any(line.startswith("penstock") for line in printed("vpp"))


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", "deb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian"),
        ("a.list", "deb [signed-by=/k] https://m.example/debian/ bookworm main\n", "https://m.example/debian"),
        ("d.sources", "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\n", "http://m.example/debian"),
        ("d.sources", "URIs: http://m.example/debian-security\n", None),
        ("sources.list", "deb http://ports.example/ubuntu noble main\n", None),
    ],
)
def test_the_base_comes_from_the_machines_own_mirror(tmp_path: Path, name: str, text: str, mirror: str | None) -> None:
    folder = tmp_path if name == "sources.list" else tmp_path / "sources.list.d"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    assert base.host_mirror(tmp_path) == mirror


def test_the_base_is_as_slim_as_the_official_one(tmp_path: Path) -> None:
    for name in (
        "usr/share/doc/bash/copyright",
        "usr/share/locale/de/x.mo",
        "usr/bin/sh",
        "var/log/dpkg.log",
        "dev/null",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        archive.add(tmp_path, arcname=".", filter=base.slim)
    with tarfile.open(tmp_path / "root.tar") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"usr/bin/sh", "dev", "var/log", "usr/share"} <= names
    assert not {"usr/share/doc", "usr/share/locale/de/x.mo", "var/log/dpkg.log", "dev/null"} & names


def test_a_store_forgets_images_whose_archives_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    builder = Buildah()
    try:
        for tag in ("dev-old", "dev-new", "by-hand"):
            builder.build(context / "Dockerfile", context, f"penstock/agent:{tag}", {})
        image = Image("agent", "penstock/agent", "dev-new", tmp_path / "agent-new.tar")
        builder.save("penstock/agent:dev-new", image.archive)
        forget(builder, image)
        left = {name.rpartition(":")[2] for name in builder.tags("penstock/agent")}
    finally:
        builder.tidy()
    assert left == {"dev-new", "by-hand"}


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("[3/8] STEP 2/4: RUN pip install   x &&     true\n", "[3/8] STEP 2/4: RUN pip install x && true"),
        ("STEP 1/2: FROM base\n", "STEP 1/2: FROM base"),
        ("#12 [tools 2/4] RUN apt-get update\n", "[tools 2/4] RUN apt-get update"),
        ("#12 0.532 Get:1 http://deb.debian.org/debian bookworm InRelease\n", ""),
        ("[12/80] Building C object core/CMakeFiles/lbrl.dir/flowtable.c.o\n", ""),
        ("COMMIT\n", ""),
    ],
)
def test_a_step_of_a_dockerfile_is_reported(line: str, step: str) -> None:
    assert step_of(line) == step


def test_images_are_not_built_for_a_cluster_that_is_not_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--load", "--cluster", "no-such"]) == 1
    assert "no cluster no-such is up" in capsys.readouterr().err
