"""Release binaries: what is complete and has the right sum is used, everything else is refused with its reason."""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from e2e.cluster import binaries, downloads
from e2e.cluster.downloads import RELEASES, DownloadError, Downloads, Limits, Release

Answer = Callable[[BaseHTTPRequestHandler], None]
PROGRAM = b"#!/bin/sh\n" + b"x" * 100_000
SUM = hashlib.sha256(PROGRAM).hexdigest()
PATIENCE = Limits(connect=2.0, stall=1.0, total=30.0)


class Mirror:
    """An HTTP server that answers each path as a test says."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                mirror.answers.get(self.path, lambda request: request.send_error(404))(self)

            def do_HEAD(self) -> None:
                mirror.asked.append(self.path)
                whole(b"")(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def whole(content: bytes) -> Answer:
    return part(content, len(content))


def part(content: bytes, announced: int, stall: float = 0.0) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", str(announced))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)
            request.wfile.flush()
            time.sleep(stall)

    return answer


def elsewhere(path: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("location", path)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    thread = threading.Thread(target=mirror.server.serve_forever, daemon=True)
    thread.start()
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()
    thread.join()


def plain(sha256: str = SUM) -> Release:
    return Release("https://releases.example/v1/tool", sha256, program="tool")


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def fetch(mirror: Mirror, folder: Path, *releases: Release) -> None:
    source = Downloads(mirror.url, machine="x86_64", limits=PATIENCE)
    source.check(releases)
    source.fetch(releases, [name for release in releases for name in release.programs], folder, lambda _: None)


def test_a_program_with_the_right_sum_is_installed_executable(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers["/releases.example/v1/tool"] = whole(PROGRAM)
    fetch(mirror, tmp_path, plain())
    assert (tmp_path / "tool").read_bytes() == PROGRAM
    assert os.access(tmp_path / "tool", os.X_OK)
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_programs_are_taken_out_of_an_archive_behind_a_redirect(mirror: Mirror, tmp_path: Path) -> None:
    packed = archive({"bin/one": b"1", "bin/two": b"2", "bin/other": b"3"})
    mirror.answers["/releases.example/v1/tools.tgz"] = elsewhere("/storage/abc")
    mirror.answers["/storage/abc"] = whole(packed)
    members = {"one": "bin/one", "two": "bin/two"}
    fetch(
        mirror,
        tmp_path,
        Release("https://releases.example/v1/tools.tgz", hashlib.sha256(packed).hexdigest(), members),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert (tmp_path / "two").read_bytes() == b"2"


def test_a_sum_that_is_not_pinned_is_read_beside_the_file(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers["/releases.example/v1/tool"] = whole(PROGRAM)
    mirror.answers["/releases.example/v1/tool.sha256"] = whole(f"{SUM}  tool\n".encode())
    fetch(mirror, tmp_path, plain(""))
    assert (tmp_path / "tool").exists()
    mirror.answers["/releases.example/v1/tool.sha256"] = whole(b"")
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(mirror, tmp_path, plain(""))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (whole(PROGRAM + b"!"), rf"SHA-256 is [0-9a-f]{{64}}, must be {SUM}; the file is not used"),
        (part(PROGRAM[:-1], len(PROGRAM)), "releases.example: .*(incomplete|closed)"),
        (part(PROGRAM[:-1], len(PROGRAM), stall=3.0), "releases.example: .*(timed out|Timeout)"),
        (lambda request: request.send_error(503), "HTTP status 503"),
        (elsewhere("/storage/gone"), "HTTP status 404"),
    ],
    ids=["other content", "truncated", "stalled", "an error", "a redirect to nothing"],
)
def test_what_is_not_complete_and_right_is_not_installed(
    mirror: Mirror, tmp_path: Path, answer: Answer, reason: str
) -> None:
    other = Release("https://releases.example/v1/other", SUM, program="other")
    mirror.answers["/releases.example/v1/other"] = whole(PROGRAM)
    mirror.answers["/releases.example/v1/tool"] = answer
    with pytest.raises(DownloadError, match=reason):
        fetch(mirror, tmp_path, other, plain())
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_refuses_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        source = Downloads(f"http://127.0.0.1:{held.getsockname()[1]}", machine="x86_64", limits=PATIENCE)
        with pytest.raises(DownloadError, match=r"releases\.example: .*refused"):
            source.check([plain()])


def test_a_server_that_is_silent_is_asked_once(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        source = Downloads(address, machine="x86_64", limits=Limits(connect=0.3, stall=1.0))
        for _ in range(2):
            with pytest.raises(DownloadError, match=r"releases\.example: no answer within"):
                source.check([plain()])
        silent.settimeout(5)
        silent.accept()[0].close()
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_downloads_can_be_switched_off_and_are_for_one_machine_type() -> None:
    with pytest.raises(DownloadError, match="PENSTOCK_DOWNLOADS=off"):
        Downloads("off", machine="x86_64").check([plain()])
    with pytest.raises(DownloadError, match="riscv64"):
        Downloads("", machine="riscv64").check([plain()])


def test_a_redirect_away_from_https_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "http://releases.example/v1/tool"})

    with (
        httpx.Client(
            transport=httpx.MockTransport(answer),
            follow_redirects=True,
            event_hooks={"request": [downloads.only_https]},
        ) as client,
        pytest.raises(httpx.UnsupportedProtocol, match="not https"),
    ):
        client.get("https://releases.example/v1/tool")


def test_releases_have_the_versions_of_the_modules() -> None:
    pins: dict[str, str] = {}
    for suite in binaries.SUITES:
        text = (suite.module / "go.mod").read_text()
        pins |= dict(re.findall(r"^\t(\S+) (v\S+)", text, re.MULTILINE))
    expected = {
        "kubelet": pins["k8s.io/kubernetes"],
        "etcd": pins["go.etcd.io/etcd/server/v3"],
        "containerd": pins["github.com/containerd/containerd/v2"],
        "bridge": pins["github.com/containernetworking/plugins"],
        "helm": pins["helm.sh/helm/v4"],
    }
    for release in RELEASES:
        version = next((expected[name] for name in release.programs if name in expected), expected["kubelet"])
        assert version in release.url


def test_every_released_program_is_one_of_a_suite() -> None:
    known = {name for suite in binaries.SUITES for name in suite.packages}
    assert {name for release in RELEASES for name in release.programs} <= known
