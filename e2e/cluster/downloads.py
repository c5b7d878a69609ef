"""Release binaries of the programs that a cluster is made of, where this machine can download them.

Each release has the version that the Go modules beside this file pin. A file is used only if its SHA-256 is the one
written here. Kubernetes publishes one file per program; for four of them no sum is written here, and they are compared
with the sum that the same server publishes beside them. That finds damage; otherwise it trusts the server's
certificate.

PENSTOCK_DOWNLOADS=off compiles everything. A URL in its place (http://mirror.example/) is a mirror that serves
MIRROR/HOST/PATH for each https://HOST/PATH.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx

_PARALLEL = 4
_CHUNK = 1 << 18
_MACHINE = "x86_64"


class DownloadError(Exception):
    """A release cannot be had from here; the message says from where and why."""


@dataclass(frozen=True)
class Limits:
    """How long a download may take, in seconds."""

    connect: float = 4.0
    stall: float = 15.0  # without a byte
    total: float = 300.0  # for all files of a suite: compiling takes about as long


@dataclass(frozen=True)
class Release:
    """One file of a release: an archive whose `members` maps each program to its path, or one `program` itself."""

    url: str
    sha256: str
    members: Mapping[str, str] = field(default_factory=dict)
    program: str = ""

    @property
    def host(self) -> str:
        """The server's name."""
        return httpx.URL(self.url).host

    @property
    def programs(self) -> tuple[str, ...]:
        """What the file holds."""
        return (self.program,) if self.program else tuple(self.members)


def _kubernetes(program: str, sha256: str = "") -> Release:
    return Release(f"https://dl.k8s.io/v1.36.3/bin/linux/amd64/{program}", sha256, program=program)


_GITHUB = "https://github.com"
RELEASES: tuple[Release, ...] = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubelet", "46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718"),
    _kubernetes("kubectl", "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336"),
    Release(
        f"{_GITHUB}/etcd-io/etcd/releases/download/v3.6.8/etcd-v3.6.8-linux-amd64.tar.gz",
        "cf9cfe91a4856cb90eed9c99e6aee4b708db2c7888b88a6f116281f04b0ea693",
        MappingProxyType({"etcd": "etcd-v3.6.8-linux-amd64/etcd"}),
    ),
    Release(
        f"{_GITHUB}/containerd/containerd/releases/download/v2.1.4/containerd-2.1.4-linux-amd64.tar.gz",
        "316d510a0428276d931023f72c09fdff1a6ba81d6cc36f31805fea6a3c88f515",
        MappingProxyType({name: f"bin/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")}),
    ),
    Release(
        f"{_GITHUB}/containernetworking/plugins/releases/download/v1.7.1/cni-plugins-linux-amd64-v1.7.1.tgz",
        "1a28a0506bfe5bcdc981caf1a49eeab7e72da8321f1119b7be85f22621013098",
        MappingProxyType({name: f"./{name}" for name in ("host-local", "bridge", "loopback", "ptp", "portmap")}),
    ),
    Release(
        "https://get.helm.sh/helm-v4.1.0-linux-amd64.tar.gz",
        "8e7ae5cb890c56f53713bffec38e41cd8e7e4619ebe56f8b31cd383bfb3dbb83",
        MappingProxyType({"helm": "linux-amd64/helm"}),
    ),
)


def releases_of(programs: Iterable[str]) -> tuple[Release, ...]:
    """Return the files that hold programs."""
    wanted = set(programs)
    return tuple(release for release in RELEASES if wanted.intersection(release.programs))


class Downloads:
    """Fetches releases into a folder; servers that did not answer are not tried again."""

    def __init__(self, source: str | None = None, machine: str | None = None, limits: Limits | None = None) -> None:
        self._source = os.environ.get("PENSTOCK_DOWNLOADS", "") if source is None else source
        self._machine = machine or platform.machine()
        self._limits = limits or Limits()
        self._unreachable: dict[str, str] = {}
        self._client: httpx.Client | None = None

    def check(self, releases: Sequence[Release]) -> None:
        """Raise DownloadError unless all servers answer, within seconds."""
        if self._source == "off":
            raise DownloadError("PENSTOCK_DOWNLOADS=off")
        if self._machine != _MACHINE:
            raise DownloadError(f"no release is pinned for {self._machine}")
        for host in dict.fromkeys(release.host for release in releases):
            self._require(host)

    def fetch(
        self, releases: Sequence[Release], names: Sequence[str], folder: Path, report: Callable[[str], None]
    ) -> None:
        """Put programs into the folder, each complete and checked; all or none. Raises DownloadError."""
        unfinished = folder / f".download.{os.getpid()}"
        unfinished.mkdir(parents=True, exist_ok=True)
        try:
            self._fetch_all(releases, unfinished, _Progress(releases, report))
            for release in releases:
                _unpack(release, unfinished, set(names))
            for name in names:
                (unfinished / "bin" / name).replace(folder / name)
        finally:
            _remove(unfinished)

    def _fetch_all(self, releases: Sequence[Release], folder: Path, progress: _Progress) -> None:
        deadline = time.monotonic() + self._limits.total
        with ThreadPoolExecutor(_PARALLEL) as pool:
            futures = [pool.submit(self._fetch, release, folder, deadline, progress) for release in releases]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                progress.cancelled.set()
                raise

    def _fetch(self, release: Release, folder: Path, deadline: float, progress: _Progress) -> None:
        wanted = release.sha256 or self._published_sum(release)
        digest = hashlib.sha256()
        try:
            with (
                self._http().stream("GET", self._address(release.url)) as answer,
                _file(release, folder).open("wb") as out,
            ):
                answer.raise_for_status()
                progress.expect(int(answer.headers.get("content-length", 0)))
                for chunk in answer.iter_raw(_CHUNK):
                    if time.monotonic() > deadline:
                        raise DownloadError(f"{release.host}: not complete after {self._limits.total:.0f} s")
                    if progress.cancelled.is_set():
                        return
                    digest.update(chunk)
                    out.write(chunk)
                    progress.add(len(chunk))
        except httpx.HTTPError as error:
            raise DownloadError(f"{release.host}: {_words(error)}") from error
        if digest.hexdigest() != wanted:
            raise DownloadError(
                f"{release.url}: SHA-256 is {digest.hexdigest()}, must be {wanted}; the file is not used"
            )

    def _published_sum(self, release: Release) -> str:
        try:
            answer = self._http().get(self._address(f"{release.url}.sha256"))
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise DownloadError(f"{release.host}: {_words(error)}") from error
        words = answer.text.split()
        return words[0] if words else ""

    def _require(self, host: str) -> None:
        """Raise DownloadError unless the server answers soon. A thread: name resolution has no timeout of its own."""
        if host in self._unreachable:
            raise DownloadError(self._unreachable[host])
        found: list[str] = []

        def probe() -> None:
            try:
                self._http().head(self._address(f"https://{host}/"))
                found.append("")
            except httpx.HTTPError as error:
                found.append(_words(error))

        thread = threading.Thread(target=probe, daemon=True)
        thread.start()
        thread.join(self._limits.connect)
        problem = found[0] if found else f"no answer within {self._limits.connect:.0f} s"
        if problem:
            self._unreachable[host] = f"{host}: {problem}"
            raise DownloadError(self._unreachable[host])

    def _address(self, url: str) -> str:
        if not self._source:
            return url
        return f"{self._source.rstrip('/')}/{url.removeprefix('https://')}"

    def _http(self) -> httpx.Client:
        if self._client is None:
            timeout = httpx.Timeout(self._limits.stall, connect=self._limits.connect)
            hooks = {} if self._source else {"request": [only_https]}
            self._client = httpx.Client(
                timeout=timeout, follow_redirects=True, event_hooks=hooks, headers={"accept-encoding": "identity"}
            )
        return self._client


class _Progress:
    """Bytes of all files, as a report."""

    def __init__(self, releases: Sequence[Release], report: Callable[[str], None]) -> None:
        self.cancelled = threading.Event()
        self._report = report
        self._lock = threading.Lock()
        self._expected = self._received = 0
        self._waiting = len(releases)

    def expect(self, size: int) -> None:
        with self._lock:
            self._expected += size
            self._waiting -= 1

    def add(self, size: int) -> None:
        with self._lock:
            self._received += size
            more = f" and {self._waiting} files" if self._waiting else ""
            self._report(f"{self._received / 1e6:.0f} of {self._expected / 1e6:.0f} MB{more}")


def only_https(request: httpx.Request) -> None:
    """Refuse a redirect to a server that anybody could stand in for."""
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"redirected to {request.url}, which is not https", request=request)


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP status {error.response.status_code} for {error.request.url}"
    return str(error) or type(error).__name__


def _file(release: Release, folder: Path) -> Path:
    return folder / release.url.rpartition("/")[2]


def _unpack(release: Release, folder: Path, names: set[str]) -> None:
    """Move or extract the wanted programs of a checked file into `bin`."""
    (folder / "bin").mkdir(exist_ok=True)
    source = _file(release, folder)
    if release.program:
        source.replace(folder / "bin" / release.program)
    else:
        try:
            _extract(
                source, {name: release.members[name] for name in names.intersection(release.members)}, folder / "bin"
            )
        except (KeyError, tarfile.TarError) as error:
            raise DownloadError(f"{release.url}: {error}") from error
    for name in names.intersection(release.programs):
        (folder / "bin" / name).chmod(0o755)


def _extract(source: Path, members: Mapping[str, str], folder: Path) -> None:
    with tarfile.open(source) as archive:
        for name, path in members.items():
            member = archive.extractfile(path)
            if member is None:
                raise KeyError(f"{path} is no file")
            (folder / name).write_bytes(member.read())


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
