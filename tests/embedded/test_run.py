"""`penstock run` on a machine of its own: bad files, full disks, restarts, and whose name it has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import HttpConnection, get
from tests.support.dataplane import VIP_IPV4
from tests.support.disks import disk
from tests.support.lab import HTTP_PORT, Lab, eventually

pytestmark = pytest.mark.netns

PORT = 9402
DATAPLANE = """\
apiVersion: penstock.dev/v1alpha1
kind: DataPlane
metadata: {name: own}
spec: {flowTableSize: 4096, staticEndpointCIDRs: [0.0.0.0/0]}
"""


class Run:
    """A `penstock run` in a laboratory's balancer."""

    def __init__(self, lab: Lab, path: Path) -> None:
        self.lab = lab
        self.files = path / "files"
        self.root = path / "root"
        self.files.mkdir()
        (self.root / "var/lib/penstock/own").mkdir(parents=True)
        (self.files / "dataplane.yaml").write_text(DATAPLANE)
        self.write("web", VIP_IPV4)
        self.process: subprocess.Popen[Any] | None = None

    def write(self, name: str, address: str) -> None:
        endpoints = ", ".join(f"{{address: {each.ipv4}, port: {HTTP_PORT}}}" for each in self.lab.servers)
        (self.files / f"{name}.yaml").write_text(
            "apiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\n"
            f"metadata: {{name: {name}}}\nspec:\n  addresses: [{address}]\n  ports: [{{port: 80}}]\n"
            f"  backends: {{endpoints: [{endpoints}]}}\n"
        )

    def start(self) -> None:
        interfaces = [f"--interface={each}" for each in self.lab.interfaces]
        command = [sys.executable, "-m", "penstock_cli", "run", f"--files={self.files}", f"--root={self.root}"]
        address = f"--node-address={self.lab.balancer_ipv4}"
        self.process = self.lab.balancer.popen([*command, address, *interfaces], stdout=2)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def state(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{PORT}/state"
        answer = self.lab.balancer.run(subprocess.run, ["curl", "-sf", url], stdout=subprocess.PIPE, check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else {}

    def serves(self, address: str = VIP_IPV4) -> bool:
        try:
            return get(self.lab, address, timeout=0.5) in (b"s1", b"s2")
        except OSError:
            return False

    def children(self) -> dict[str, int]:
        assert self.process is not None
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids}
        return {"agent" if b"agent" in words else "dataplane": int(pid) for pid, words in found.items()}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: that of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="pn-run-") as directory:
        yield Path(directory)


@contextmanager
def running(lab: Lab, path: Path) -> Iterator[Run]:
    run = Run(lab, path)
    try:
        run.start()
        yield run
    finally:
        run.stop(signal.SIGINT)


def test_bad_files_at_the_start_are_named_and_the_others_served(lab: Lab, place: Path, capfd: Any) -> None:
    run = Run(lab, place)
    (run.files / "bomb.yaml").write_text("a: &a [" + "x, " * 999 + "x]\nb: [" + "*a, " * 600 + "*a]")
    (run.files / "wrong.yaml").write_text((run.files / "web.yaml").read_text().replace("port: 80}", "port: 0}"))
    try:
        run.start()
        eventually(run.serves, seconds=120)
        eventually(lambda: run.state().get("dataplane") == "own", seconds=120)
        source_error = run.state()["source_error"]
        for words in ("bomb.yaml:2: has more than", "wrong.yaml:6: LoadBalancerVIP web: spec.ports[0].port"):
            assert words in source_error
            assert words in capfd.readouterr().err or words in source_error
    finally:
        run.stop(signal.SIGINT)


def test_a_full_state_disk_ends_nothing(lab: Lab, place: Path) -> None:
    run = Run(lab, place)
    with disk(run.root / "var/lib/penstock/own") as full:
        full.fill()
        try:
            run.start()
            eventually(run.serves, seconds=120)
            eventually(lambda: "No space left" in " ".join(run.state().get("findings", [])), seconds=120)
            run.write("more", "203.0.113.11")
            eventually(lambda: run.serves("203.0.113.11"), seconds=120)
            assert run.process is not None
            assert run.process.poll() is None
            full.empty()
            eventually(lambda: run.state().get("findings") == [], seconds=120)
        finally:
            run.stop(signal.SIGINT)


def test_a_killed_agent_comes_back_and_traffic_goes_on(lab: Lab, place: Path) -> None:
    with running(lab, place) as run:
        eventually(run.serves, seconds=120)
        eventually(run.state, seconds=120)
        time.sleep(11)  # from then on it has proven that it can run
        before = run.children()
        os.kill(before["agent"], signal.SIGKILL)
        assert run.serves()
        eventually(lambda: run.children().get("agent", before["agent"]) != before["agent"], seconds=120)
        eventually(run.state, seconds=120)
        assert run.children()["dataplane"] == before["dataplane"]


def test_connections_outlive_a_restart_by_sigterm(lab: Lab, place: Path) -> None:
    with running(lab, place) as run:
        eventually(run.serves, seconds=120)
        with HttpConnection(lab, VIP_IPV4, timeout=30) as kept:
            name = kept.get()
            run.stop()
            run.start()
            assert kept.get() == name
        eventually(lambda: run.state().get("link", {}).get("reattached_flows", 0) >= 1, seconds=120)


def test_a_data_plane_that_went_bad_keeps_its_name(lab: Lab, place: Path) -> None:
    with running(lab, place) as run:
        eventually(run.serves, seconds=120)
        eventually((run.root / "var/lib/penstock/own/files.json").exists, seconds=120)
        run.stop()
        (run.files / "dataplane.yaml").write_text("a: [")
        run.start()
        eventually(lambda: run.state().get("dataplane") == "own", seconds=120)
        assert run.serves()
