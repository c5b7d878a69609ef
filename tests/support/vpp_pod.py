"""The containers of a VPP pod as processes on a laboratory's balancer, each with its capabilities and no other."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from penstock_embedded import client
from penstock_embedded.messages import ApplyResult, DesiredState, Dump, Method
from penstock_node import withdraw

from tests.support import vpp
from tests.support.dataplane import KEY, sources
from tests.support.lab import Lab, eventually


class Pod:
    """The processes of a pod's containers."""

    def __init__(self, lab: Lab, directory: Path, log: TextIO) -> None:
        self.lab = lab
        self.run_dir = directory / "run"
        self.vpp_dir = directory / "vpp"
        self.shm = directory / "shm"
        for each in (self.run_dir, self.vpp_dir, self.shm):
            each.mkdir()
        plugins = next(vpp.prefix().rglob("vpp_plugins/af_packet_plugin.so")).parent
        self.options = [
            *("--vpp-dir", str(self.vpp_dir), "--shm-dir", str(self.shm), "--flow-table-size", "4096"),
            *("--program", str(vpp.prefix() / "bin/vpp"), "--plugin-path", f"{plugins}:{vpp.plugin_directory()}"),
        ]
        self._log = log
        self._generation = 0
        self.running: list[subprocess.Popen[Any]] = []

    def prepare(self) -> None:
        assert self.popen("net_admin", "prepare", *self.options).wait(20) == 0, self.log()

    def start(self, capabilities: str = "net_raw,+ipc_lock") -> None:
        self.running.append(self.popen(capabilities, "start", *self.options))

    def control(self, *options: str) -> subprocess.Popen[Any]:
        program = self.start_control(*options)
        eventually(self.answers)
        return program

    def start_control(self, *options: str) -> subprocess.Popen[Any]:
        directories = ["--run-dir", str(self.run_dir), "--vpp-dir", str(self.vpp_dir), "--shm-dir", str(self.shm)]
        options = options or tuple(f"--interface={name}" for name in self.lab.interfaces)
        program = self.popen("net_admin,+net_raw", "control", "--wire", *directories, *options)
        self.running.append(program)
        return program

    def stop(self, programs: list[subprocess.Popen[Any]] | None = None) -> None:
        for program in reversed(self.running if programs is None else programs):
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
                assert program.wait(15) == 0, self.log()

    def answers(self) -> bool:
        try:
            self.ask(Method.HELLO)
        except client.ControlError:
            return False
        return True

    def ask(self, method: Method, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return client.request(self.run_dir / "control.sock", method, params, timeout=20)

    def apply(self, *vips: dict[str, Any], **more: Any) -> ApplyResult:
        self._generation += 1
        state = {
            "generation": self._generation,
            "scheduler_key": KEY,
            "nat_sources": sources(self.lab),
            "vips": vips,
            **more,
        }
        params = DesiredState.model_validate(state).model_dump(mode="json")
        return ApplyResult.model_validate(self.ask(Method.APPLY, params))

    def dump(self) -> Dump:
        return Dump.model_validate(self.ask(Method.DUMP))

    def vpp_process(self) -> int:
        (found,) = [pid for pid in _children(self.running[0].pid) if b"-c" in _words(pid)]
        return found

    def ctl(self, command: str) -> str:
        program = [str(vpp.prefix() / "bin/vppctl"), "-s", str(self.vpp_dir / "cli.sock"), *command.split()]
        return subprocess.run(program, check=True, capture_output=True, text=True, timeout=20).stdout

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()[-6000:]

    def popen(self, capabilities: str, *arguments: str) -> subprocess.Popen[Any]:
        kept = f"-all,+{capabilities}"
        powers = ["setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}", "--no-new-privs"]
        command = [*powers, sys.executable, "-m", "penstock_cli", "vpp", *arguments]
        return self.lab.balancer.popen(command, stdout=self._log, stderr=self._log)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@contextmanager
def pod_on(lab: Lab) -> Iterator[Pod]:
    """A pod of which nothing runs yet; the node is clean again at the end."""
    directory = Path(tempfile.mkdtemp(prefix="pn-vpn-", dir="/dev/shm"))
    with (directory / "log").open("w+") as log:
        found = Pod(lab, directory, log)
        try:
            yield found
        finally:
            found.stop()
            lab.balancer.run(withdraw)
            shutil.rmtree(directory)
