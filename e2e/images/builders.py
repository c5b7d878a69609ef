"""Programs that turn a Dockerfile into an image: docker where its engine answers, podman, buildah without a daemon."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e2e.cluster.binaries import cache_root
from e2e.images.base import SUITE, write_base
from e2e.images.errors import ImageError

DEFAULT_BASE = f"debian:{SUITE}-slim"
Report = Callable[[str], None]
_STEP = re.compile(r"(?P<step>(?:\[\d+/\d+\] )?STEP \d+/\d+: .+)|#\d+ (?P<docker>\[[^\]]*\d+/\d+\] .+)")
_BUILD_SECONDS = 3600
_PULL_SECONDS = 120
# What this machine needs to reach package registries a build needs as well. The certificates are an overlay (O):
# the package ca-certificates writes there when it is installed.
_HOST_VOLUMES = (("/etc/ssl/certs", "O"), ("/etc/pip.conf", "ro"))


class Builder(ABC):
    """Builds images and saves them as archives."""

    name: str

    @abstractmethod
    def base(self) -> str:
        """Return the name of the base image, after it was pulled or made."""

    @abstractmethod
    def build(
        self, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str], report: Report | None = None
    ) -> None:
        """Build an image; report each step of the Dockerfile that begins."""

    @abstractmethod
    def save(self, tag: str, target: Path) -> None:
        """Write an image as `docker save` does."""

    @abstractmethod
    def tags(self, repository: str) -> list[str]:
        """Return the full names of the images that the builder's store has of a repository."""

    @abstractmethod
    def remove(self, tag: str) -> None:
        """Remove an image, and its layers as far as no other image has them."""

    def tidy(self) -> None:
        """Remove what builds leave on the machine beside their cache: nothing, unless a builder says otherwise."""
        return


def _run(
    command: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> str:
    """Run a builder; return what it prints, and report the steps in it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    )
    alarm = threading.Timer(seconds, process.kill)
    alarm.start()
    lines = []
    try:
        with process:
            for line in process.stdout or ():
                lines.append(line)
                if report and (found := step_of(line)):
                    report(found)
    finally:
        alarm.cancel()
    printed = "".join(lines)
    if process.returncode != 0:
        raise ImageError(f"{' '.join(command)} failed ({process.returncode}):\n{printed[-4000:]}")
    return printed


def step_of(line: str) -> str:
    """Return the step of a Dockerfile that a builder's line announces, or an empty string.

    buildah and podman print `[2/7] STEP 3/5: RUN ...`, docker `#9 [tools 2/4] RUN ...`.
    """
    match = _STEP.match(line)
    return " ".join((match["step"] or match["docker"]).split()) if match else ""


class Docker(Builder):
    """docker, or podman, which understands the same commands."""

    def __init__(self, program: str = "docker"):
        self.name = program

    def usable(self) -> bool:
        """Say whether the program is there and its engine answers."""
        if shutil.which(self.name) is None:
            return False
        return subprocess.run([self.name, "info"], capture_output=True, check=False, timeout=30).returncode == 0

    def base(self) -> str:
        """Return the official image: an engine pulls it when it builds."""
        return DEFAULT_BASE

    def build(
        self, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str], report: Report | None = None
    ) -> None:
        """Build an image; podman also takes the machine's certificates and pip settings along."""
        volumes = _volumes() if self.name == "podman" else []
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        command = [self.name, "build", "--network=host", *volumes, *options, f"--file={dockerfile}", f"--tag={tag}"]
        _run([*command, str(context)], seconds=_BUILD_SECONDS, report=report)

    def save(self, tag: str, target: Path) -> None:
        """Write an image archive."""
        target.unlink(missing_ok=True)
        _run([self.name, "save", f"--output={target}", tag], seconds=_BUILD_SECONDS)

    def tags(self, repository: str) -> list[str]:
        """Ask the engine."""
        listed = _run([self.name, "images", "--format={{.Repository}}:{{.Tag}}", repository], seconds=_PULL_SECONDS)
        return listed.split()

    def remove(self, tag: str) -> None:
        """Have the engine remove the image, unless a container has it."""
        _run([self.name, "rmi", tag], seconds=_PULL_SECONDS)


class Buildah(Builder):
    """buildah with a store of its own in the user's cache; makes its base image if none can be pulled."""

    name = "buildah"
    _made_base = "localhost/penstock-base:" + SUITE

    def __init__(self) -> None:
        self._folder = cache_root() / "images"

    def base(self) -> str:
        """Return the base that was made or pulled before, else pull it, else make it."""
        for known in (self._made_base, DEFAULT_BASE):
            if self._succeeds("inspect", "--type=image", known):
                return known
        if self._succeeds("pull", DEFAULT_BASE):
            return DEFAULT_BASE
        context = self._folder / "base"
        context.mkdir(parents=True, exist_ok=True)
        root = context / f"{SUITE}.tar"
        if not root.exists():
            write_base(root)
        (context / "Dockerfile").write_text(f'FROM scratch\nADD {root.name} /\nCMD ["bash"]\n')
        self._buildah("bud", f"--tag={self._made_base}", str(context))
        return self._made_base

    def build(
        self, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str], report: Report | None = None
    ) -> None:
        """Build an image, layer by layer from the cache."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += ["--layers", "--network=host", *_limits(), *_volumes(), f"--file={dockerfile}", f"--tag={tag}"]
        self._buildah("bud", *options, str(context), report=report)

    def save(self, tag: str, target: Path) -> None:
        """Write an image archive."""
        target.unlink(missing_ok=True)  # an existing archive is not replaced
        self._buildah("push", "--quiet", tag, f"docker-archive:{target}:{tag}")

    def tags(self, repository: str) -> list[str]:
        """List the store."""
        return self._buildah("images", "--format={{.Name}}:{{.Tag}}", f"--filter=reference={repository}").split()

    def remove(self, tag: str) -> None:
        """Remove the image from the store."""
        self._buildah("rmi", tag)

    def tidy(self) -> None:
        """Remove containers of builds that were broken off, and the store's mount. No build may be under way."""
        self._buildah("rm", "--all")
        layers = self._folder / "storage" / "overlay"
        if layers.is_mount():
            _run(["umount", str(layers)], seconds=_PULL_SECONDS)

    def _command(self) -> list[str]:
        driver = "overlay" if Path("/sys/module/overlay").exists() or _knows("overlay") else "vfs"
        root = self._folder / "storage"
        run_root = (
            f"/run/penstock-images/{hashlib.sha256(bytes(root)).hexdigest()[:8]}"  # a store's own: it counts mounts
        )
        store = [f"--root={root}", f"--runroot={run_root}", f"--storage-driver={driver}"]
        return ["nice", "buildah", *store]

    def _buildah(self, *arguments: str, report: Report | None = None) -> str:
        environment = {"BUILDAH_ISOLATION": "chroot"}
        return _run([*self._command(), *arguments], seconds=_BUILD_SECONDS, environment=environment, report=report)

    def _succeeds(self, *arguments: str) -> bool:
        command = [*self._command(), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_PULL_SECONDS)
        except subprocess.TimeoutExpired:  # a registry that a firewall hides does not refuse
            return False
        return done.returncode == 0


def _knows(file_system: str) -> bool:
    """Say whether the kernel has a file system."""
    return file_system in Path("/proc/filesystems").read_text().split()


def _volumes() -> list[str]:
    return [f"--volume={path}:{path}:{mode}" for path, mode in _HOST_VOLUMES if Path(path).exists()]


def _limits() -> list[str]:
    """Return limits for what a build runs, which none has to raise: root in a container may not.

    buildah 1.39 raises its own, and 1.28 lowers them to these first.
    """
    most = {"nofile": (resource.RLIMIT_NOFILE, 1_048_576), "nproc": (resource.RLIMIT_NPROC, 32_768)}
    options = []
    for name, (limit, enough) in most.items():
        hard = resource.getrlimit(limit)[1]
        number = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
        options.append(f"--ulimit={name}={number}:{number}")
    return options


def find_builder() -> Builder:
    """Return the first builder that works on this machine."""
    for program in ("docker", "podman"):
        candidate = Docker(program)
        if candidate.usable():
            return candidate
    if shutil.which("buildah"):
        return Buildah()
    raise ImageError("no docker engine, podman or buildah here: `apt-get install buildah debootstrap`")
