"""Where the programs of a cluster come from.

In this order: the folder that KUBEBUILDER_ASSETS names, the user's cache, `setup-envtest` where it is installed and can
download, the release of the pinned version (`downloads`), `go build` of the pinned modules beside this file (minutes).
What is downloaded or built is kept in the cache: once per version.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from e2e.cluster.downloads import DownloadError, Downloads, releases_of
from e2e.cluster.errors import MissingProgramError
from e2e.cluster.steps import note, step

_HERE = Path(__file__).parent
_ENVTEST_SECONDS = 120
_VERSION = re.compile(r"v[0-9]+")
_RUNNING: set[subprocess.Popen[str]] = set()
ENVTEST_PROGRAMS = frozenset({"kube-apiserver", "etcd", "kubectl"})


@dataclass(frozen=True)
class Suite:
    """Programs that are built from one Go module; its `pin` names the version of them all, if they are not our own."""

    name: str
    module: Path
    packages: Mapping[str, str]
    pin: str = ""
    tags: str = ""
    variables: tuple[str, ...] = ()

    def version(self) -> str:
        """Return the version of the pinned module, as its go.mod says; a digest of our own sources."""
        if not self.pin:
            return sources_digest(self.module)
        for line in (self.module / "go.mod").read_text().splitlines():
            words = line.removeprefix("require").split()
            if words[:1] == [self.pin]:
                return words[1]
        raise MissingProgramError(f"{self.module / 'go.mod'} requires no {self.pin}")


KUBERNETES = Suite(
    name="kubernetes",
    module=_HERE / "kubernetes",
    pin="k8s.io/kubernetes",
    packages=MappingProxyType(
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
            "kubelet": "k8s.io/kubernetes/cmd/kubelet",
            "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        }
    ),
    variables=("k8s.io/component-base/version.gitVersion",),
)
CONTAINERS = Suite(
    name="containers",
    module=_HERE / "containers",
    pin="github.com/containerd/containerd/v2",
    packages=MappingProxyType(
        {
            "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
            "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
            "host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
            "bridge": "github.com/containernetworking/plugins/plugins/main/bridge",
            "loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
            "ptp": "github.com/containernetworking/plugins/plugins/main/ptp",
            "portmap": "github.com/containernetworking/plugins/plugins/meta/portmap",
        }
    ),
    tags="no_btrfs,no_zfs,no_devmapper",
    variables=("github.com/containerd/containerd/v2/version.Version",),
)
CHARTS = Suite(
    name="charts",
    module=_HERE / "charts",
    pin="helm.sh/helm/v4",
    packages=MappingProxyType(
        {"helm": "helm.sh/helm/v4/cmd/helm", "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}
    ),
    variables=("helm.sh/helm/v4/internal/version.version",),
)
TOOLS = Suite(
    name="tools",
    module=_HERE.parent / "tools",
    packages=MappingProxyType({name: f"./cmd/{name}" for name in ("pause", "httpserver", "loadgen")}),
)
SUITES = (KUBERNETES, CONTAINERS, CHARTS, TOOLS)
_DOWNLOADS = Downloads()
LOCAL_PROGRAMS = (*KUBERNETES.packages, *CONTAINERS.packages, *TOOLS.packages)
"""What a cluster of provider `local` is made of."""


def cache_root() -> Path:
    """Return the folder for everything that is built or downloaded once."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "penstock"


def program(name: str) -> Path:
    """Return the path of a program, which is downloaded or built first if it is nowhere."""
    return programs(name)[name]


def programs(*names: str) -> dict[str, Path]:
    """Return the paths of several programs; what is nowhere is downloaded or built, all of a suite at once."""
    found = {name: _installed(name) or _cached(name) or _from_envtest(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    for suite in SUITES:
        if wanted := [name for name in missing if name in suite.packages]:
            _obtain(suite, wanted)
    return {name: path or _target(name) for name, path in found.items()}


def sources_digest(module: Path) -> str:
    """Return a short digest of a Go module's sources."""
    digest = hashlib.sha256()
    for path in sorted([*module.glob("go.*"), *module.rglob("*.go")]):
        digest.update(f"{path.relative_to(module)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _suite(name: str) -> Suite:
    for suite in SUITES:
        if name in suite.packages:
            return suite
    raise MissingProgramError(f"no suite of {_HERE} builds {name!r}")


def _installed(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return _executable(Path(assets) / name) if assets and name in ENVTEST_PROGRAMS else None


def _cached(name: str) -> Path | None:
    return _executable(_target(name))


def _executable(path: Path) -> Path | None:
    return path if os.access(path, os.X_OK) else None


def _target(name: str) -> Path:
    suite = _suite(name)
    return cache_root() / f"{suite.name}-{suite.version()}" / "bin" / name


def _from_envtest(name: str) -> Path | None:
    tool = shutil.which("setup-envtest")
    if tool is None or name not in ENVTEST_PROGRAMS:
        return None
    minor = KUBERNETES.version().removeprefix("v").rpartition(".")[0]
    try:
        found = subprocess.run(
            [tool, "use", f"{minor}.x", "--print", "path"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_ENVTEST_SECONDS,
        )
    except (subprocess.SubprocessError, OSError):
        return None  # no download from here: the build below needs only the Go module proxy
    return _executable(Path(found.stdout.strip()) / name)


def _obtain(suite: Suite, names: Sequence[str]) -> None:
    folder = _target(names[0]).parent
    folder.mkdir(parents=True, exist_ok=True)
    with _one_builder():
        missing = [name for name in names if _cached(name) is None]
        released = [name for name in missing if releases_of([name])]
        if released and (problem := _download(suite, released, folder)):
            note(f"          no download ({problem}): {_named(suite, released)} will be compiled")
        if missing := [name for name in missing if _cached(name) is None]:
            go_build(suite, missing, folder)


def _named(suite: Suite, names: Sequence[str]) -> str:
    """Return a few words for programs of a suite: their line on the screen also has to show how far they are."""
    what = names[0] if len(names) == 1 else f"{len(names)} programs"
    return f"{what} of {suite.name} {suite.version()}"


def _download(suite: Suite, names: Sequence[str], folder: Path) -> str:
    """Download programs of a suite; return why that failed, or an empty string."""
    releases = releases_of(names)
    try:
        _DOWNLOADS.check(releases)
        with step(f"download {_named(suite, names)} (once)") as report:
            _DOWNLOADS.fetch(releases, names, folder, report)
    except DownloadError as error:
        return str(error)
    return ""


def go_build(suite: Suite, names: Sequence[str], folder: Path) -> None:
    """Build programs of a suite with Go, politely, and move them to their place when they are complete.

    One command builds all: what they share is compiled once, and while one is linked the next is compiled.
    """
    go = find_go()
    if go is None:
        raise MissingProgramError(f"no cached {', '.join(names)}, and no Go to build it: run `make build`")
    flags = " ".join(["-s", "-w", *(f"-X {variable}={suite.version()}" for variable in suite.variables)])
    unfinished = folder / f".unfinished.{os.getpid()}"
    unfinished.mkdir(exist_ok=True)
    packages = [suite.packages[name] for name in names]
    options = ["-mod=readonly", "-tags", suite.tags]
    command = ["nice", go, "build", "-v", *options, "-trimpath", "-ldflags", flags, "-o", f"{unfinished}/", *packages]
    try:
        with step(f"compile {_named(suite, names)} (once)") as report:
            report("sources")
            listed = _run_go(suite, [go, "list", "-deps", *options, *packages], report)
            _run_go(suite, command, _Counting(len(listed.split()), report))
        for name in names:
            (unfinished / file_name(suite.packages[name])).replace(folder / name)
    finally:
        shutil.rmtree(unfinished)


class _Counting:
    """Reports the lines of `go build -v`: a package each, of those that no cache has."""

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self._total = total
        self._report = report
        self._packages: set[str] = set()

    def __call__(self, line: str) -> None:
        if line.startswith("go: "):
            self._report(line)
        elif " " not in line:
            self._packages.add(line)
            self._report(f"{len(self._packages)} of up to {self._total} packages, {line}")


def _run_go(suite: Suite, command: Sequence[str], report: Callable[[str], None]) -> str:
    """Run Go in a suite's module and report each line of its messages; return its output."""
    # Compilers are short-lived: let them use memory.
    environment = {"GOGC": "400", **os.environ, "CGO_ENABLED": "0"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=suite.module, env=environment, stdout=output, stderr=subprocess.PIPE, text=True
        )
        messages: deque[str] = deque(maxlen=60)
        _RUNNING.add(process)
        with process:
            for line in process.stderr or ():
                messages.append(line)
                report(line.strip())
        _RUNNING.discard(process)
        if process.returncode != 0:
            raise MissingProgramError(f"{' '.join(command)} in {suite.module} failed:\n{''.join(messages)}")
        output.seek(0)
        return output.read()


def stop() -> None:
    """End what other threads compile: they fail with MissingProgramError."""
    for process in tuple(_RUNNING):
        process.terminate()


def find_go() -> str | None:
    """Return the path of Go: of the environment, which has one where PATH's is missing or too old, else of PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return shutil.which("go", path=path)


def file_name(package: str) -> str:
    """Return what `go build` calls the program of a package: its last part that is no version."""
    return next(part for part in reversed(package.split("/")) if not _VERSION.fullmatch(part))


@contextmanager
def _one_builder() -> Iterator[None]:
    """Let one process build at a time; the others find its result."""
    with (cache_root() / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def describe() -> str:
    """Return where each program would come from, as JSON, for `status` and bug reports."""
    known = {name: str(_installed(name) or _cached(name) or "") for suite in SUITES for name in suite.packages}
    return json.dumps(known, indent=1)
