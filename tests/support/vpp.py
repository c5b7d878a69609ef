"""A real VPP with our plugin in a laboratory's balancer, small enough for any machine.

VPP is the one below PENSTOCK_VPP_PREFIX, or the system's. `missing()` says what there is not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.dataplane import ControlClient
from tests.support.lab import Lab, Server, eventually
from tests.support.processors import with_processors

ROOT = Path(__file__).parents[2]
PORTS = "16384-28671"

CONTROL_PROGRAM = """
import sys
from penstock_vpp import main, settings
sys.exit(main.run(settings.Settings.model_validate_json(sys.argv[1])))
"""

STARTUP = """
unix {{ nodaemon runtime-dir {directory} cli-listen {directory}/cli.sock log {directory}/vpp.log
        poll-sleep-usec 100 }}
memory {{ main-heap-size 192M main-heap-page-size 4k }}
buffers {{ page-size 4k buffers-per-numa 8192 }}
api-segment {{ prefix {prefix} }}
socksvr {{ socket-name {directory}/api.sock }}
statseg {{ socket-name {directory}/stats.sock size 16M page-size 4k }}
cpu {{ {cpu} }}
plugins {{
    path {plugins}:{ours}
    plugin default {{ disable }}
    plugin af_packet_plugin.so {{ enable }}
    plugin ping_plugin.so {{ enable }}
    plugin lb_rl_plugin.so {{ enable }}
    {others}
}}
{section}
"""


def prefix() -> Path:
    """Where VPP is installed, if it is."""
    return Path(os.environ.get("PENSTOCK_VPP_PREFIX", "/usr"))


def missing() -> str:
    """Say what tests with a real VPP lack here; nothing if they can run."""
    if not (prefix() / "bin" / "vpp").exists():
        return f"no VPP in {prefix()}: install it, or name its prefix by PENSTOCK_VPP_PREFIX"
    if not any(prefix().glob("include/vlib/vlib.h")):
        return f"no headers of VPP in {prefix()}: install its development package"
    return "" if find_spec("vpp_papi") is not None else "no vpp_papi: install it with pip"


def build_directory() -> Path:
    """Where our plugin is built: a place for each VPP, because CMake goes on with the one that it found first."""
    return ROOT / "build" / f"vpp{str(prefix()).replace('/', '-')}"


@cache
def plugin_directory() -> Path:
    """Build our plugin against the VPP that is installed, and return where it lies."""
    build = build_directory()
    # VPP's generator of API code wants the system's Python, with its `ply`.
    environment = os.environ | {"PATH": f"/usr/bin:{os.environ['PATH']}"}
    configure = ["cmake", "-S", "vpp-plugin", "-B", str(build), "-G", "Ninja", "-DPENSTOCK_VPP=ON"]
    for command in ([*configure, f"-DCMAKE_PREFIX_PATH={prefix()}"], ["cmake", "--build", str(build), "-j", "2"]):
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return next(build.rglob("lb_rl_plugin.so")).parent


def plugins_of_vpp() -> Path:
    """Where VPP's own plugins lie."""
    return next(prefix().rglob("vpp_plugins/af_packet_plugin.so")).parent


class VppProcess:
    """A VPP process from a startup.conf, in a directory of its own; where it runs is up to `popen`.

    It finds at least so many processors as `processors` says.
    """

    def __init__(
        self, directory: Path, popen: Callable[..., subprocess.Popen[Any]], startup: str, processors: int = 1
    ) -> None:
        self.directory = directory
        self._popen = popen
        self._startup = startup
        self._processors = processors
        self.process = self._start()

    def _start(self) -> subprocess.Popen[Any]:
        for name in ("cli.sock", "api.sock", "stats.sock"):
            (self.directory / name).unlink(missing_ok=True)
        startup = self.directory / "startup.conf"
        startup.write_text(self._startup)
        command = [str(prefix() / "bin" / "vpp"), "-c", str(startup)]
        with (self.directory / "output").open("a") as log:
            before = with_processors(self._processors, self.directory)
            process = self._popen([*before, *command], stdout=log, stderr=log)
        eventually(lambda: self._answers(process))
        self._plumb()
        return process

    def _answers(self, process: subprocess.Popen[Any]) -> bool:
        assert process.poll() is None, (self.directory / "output").read_text()[-4000:]
        return (self.directory / "cli.sock").exists() and "vpp v" in self.ctl("show version", check=False)

    def _plumb(self) -> None:
        """Give a VPP that has just started its interfaces."""

    def ctl(self, command: str, *, check: bool = True) -> str:
        """Run one command of VPP's command line and return what it prints; errors are what it prints, too."""
        program = [str(prefix() / "bin" / "vppctl"), "-s", str(self.directory / "cli.sock"), *command.split()]
        done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=20)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def quiet(self, command: str) -> None:
        """Run a command that says nothing unless it fails."""
        said = self.ctl(command)
        assert said.strip() == "", (command, said)

    def restart(self) -> None:
        """Start again on the same directory after `stop` or `kill`."""
        self.process = self._start()

    def stop(self) -> None:
        """End VPP by SIGTERM; that it had not ended by itself is part of every test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        elif self.process.returncode != -signal.SIGKILL:
            raise AssertionError((self.process.returncode, (self.directory / "output").read_text()[-4000:]))

    def kill(self) -> None:
        """End VPP by SIGKILL."""
        self.process.kill()
        self.process.wait(20)


class RunningVpp(VppProcess):
    """A VPP process in the balancer; it holds the balancer's wires and addresses."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        workers: int,
        settings: str | None,
        offloads: Collection[str],
        tables: Mapping[str, int],
        plugins: Collection[str],
    ) -> None:
        self.lab = lab
        self._others = " ".join(f"plugin {name}_plugin.so {{ enable }}" for name in plugins)
        self._settings = settings
        self._tables = tables
        self._offloads = offloads
        self.shm = directory / "shm"
        self.shm.mkdir()
        super().__init__(directory, lab.balancer.popen, self._startup_with(workers, directory), workers + 1)

    def _startup_with(self, workers: int, directory: Path) -> str:
        return STARTUP.format(
            directory=directory,
            prefix=directory.name,
            cpu=f"workers {workers}" if workers else "",
            plugins=plugins_of_vpp(),
            ours=plugin_directory(),
            others=self._others,
            section=f"lb-rl {{ directory {self.shm} {self._settings} }}" if self._settings is not None else "",
        )

    def set_workers(self, workers: int) -> None:
        """Have its next start use so many workers."""
        self._startup = self._startup_with(workers, self.directory)
        self._processors = workers + 1

    def _plumb(self) -> None:
        for table in set(self._tables.values()):
            self.ctl(f"ip table add {table}")
            self.ctl(f"ip6 table add {table}")
        for device in self.lab.interfaces:
            self.plumb(device)

    def plumb(self, device: str) -> None:
        """Take a wire of the laboratory's."""
        number = self.lab.interfaces.index(device)
        offloads = "" if device in self._offloads else "cksum-gso-disable"
        # Its own address would be another after each start, and neighbours remember.
        self.ctl(f"create host-interface name {device} hw-addr 02:70:65:6e:00:0{number} {offloads}")
        if device in self._tables:
            self.ctl(f"set interface ip table host-{device} {self._tables[device]}")
            self.ctl(f"set interface ip6 table host-{device} {self._tables[device]}")
        self.ctl(f"set interface state host-{device} up")
        self.ctl(f"set interface ip address host-{device} 10.77.{number}.1/24")
        self.ctl(f"set interface ip address host-{device} fd77:{number}::1/64")

    def reaches(self, neighbour: str) -> bool:
        """Make VPP ask for a neighbour, and tell whether it knows it."""
        self.ctl(f"ping {neighbour} repeat 1 interval 0.05")
        return re.search(rf" {neighbour} ", self.ctl("show ip neighbors")) is not None

    def balance(
        self,
        address: str,
        port: int = 80,
        protocol: str = "tcp",
        *,
        options: str = "",
        servers: Sequence[Server] | None = None,
    ) -> None:
        """Make a VIP over the laboratory's servers, or these, and its NAT sources, from the command line."""
        source = " ".join(f"{own} ports {PORTS}" for own in (self.lab.balancer_ipv4, self.lab.balancer_ipv6))
        self.quiet(f"lb rl sources {source}")
        self.quiet(f"lb rl vip {address} port {port} {protocol} {options}")
        for server in self.lab.servers if servers is None else servers:
            to = server.ipv6 if ":" in address else server.ipv4
            self.quiet(
                f"lb rl as {address} port {port} {protocol} server {to} port {5353 if protocol == 'udp' else 8080}"
            )


@contextmanager
def running_vpp(
    lab: Lab,
    *,
    workers: int = 0,
    settings: str | None = "flows 4096 vips 64 slots 1024",
    offloads: Collection[str] = (),
    tables: Mapping[str, int] = MappingProxyType({}),
    plugins: Collection[str] = (),
) -> Iterator[RunningVpp]:
    """Run VPP in the balancer of a laboratory, with directories of its own on tmpfs.

    Where there are fewer processors than VPP wants for its workers, threads share them. Without settings the load
    balancer waits to be enabled. The devices of `offloads` take super-packets and partial checksums, those of `tables`
    are in routing tables of their own. `plugins` of VPP are loaded beside ours.
    """
    directory = Path(tempfile.mkdtemp(prefix="pn-vpp-", dir="/dev/shm"))
    try:
        vpp = RunningVpp(lab, directory, workers, settings, offloads, tables, plugins)
        try:
            yield vpp
        finally:
            vpp.stop()
    finally:
        shutil.rmtree(directory)


def forgetful(process: RunningVpp) -> Iterator[RunningVpp]:
    """A VPP whose load balancer knows nothing, and forgets all at the end."""
    if process.process.poll() is not None:
        process.restart()
    yield process
    if process.process.poll() is not None:
        process.restart()
    process.ctl("lb rl disable withdraw")
    process.quiet(f"lb rl enable directory {process.shm} flows 4096 vips 64 slots 1024")
    process.quiet("lb rl agent follow")


class VppControl(ControlClient):
    """The control process beside a VPP, and a client of its control socket."""

    def __init__(self, balancer: RunningVpp, run_dir: Path) -> None:
        settings = {"run_dir": str(run_dir), "vpp_socket": str(balancer.directory / "api.sock")}
        super().__init__(balancer.lab, run_dir / "control.sock")
        self._arguments = [sys.executable, "-c", CONTROL_PROGRAM, json.dumps(settings)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._arguments, stdout=2)
        eventually(self.answers)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0


@contextmanager
def running_control(balancer: RunningVpp) -> Iterator[VppControl]:
    """Run the control process beside a VPP."""
    with tempfile.TemporaryDirectory(prefix="pn-vpp-") as directory:
        running = VppControl(balancer, Path(directory))
        try:
            yield running
        finally:
            running.stop()
            (balancer.shm / "penstock.state").unlink(missing_ok=True)


def bare(lab: Lab) -> None:
    """Take the kernel's addresses and routes off the balancer and offloads off all wires: VPP brings its own."""
    lab.balancer.sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.all.disable_ipv6=1")
    ends = [(lab.client, "eth0"), *((server.namespace, "eth0") for server in lab.servers)]
    for device in lab.interfaces:
        lab.balancer.sh(f"ip address flush dev {device}")
        ends.append((lab.balancer, device))
    for namespace, device in ends:
        namespace.sh(f"ethtool -K {device} tx off gro off gso off tso off")
