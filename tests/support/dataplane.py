"""A real data plane in a laboratory's balancer, under its supervisor, and the states to give it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock_embedded import client
from penstock_embedded.messages import ApplyResult, DesiredState, Dump, Hello, Method, Stats
from penstock_embedded.settings import Settings

from tests.support import sanitizers
from tests.support.lab import HTTP_PORT, Lab, eventually

PROGRAM = f"""{sanitizers.LOAD}
from penstock_embedded import main, settings
sys.exit(main.run(settings.Settings.model_validate_json(sys.argv[1])))
"""
KEY = "00112233445566778899aabbccddeeff"
PORTS = (16384, 28671)
TABLE = 65_536  # on every machine; what follows from memory is a test of its own
VIP_IPV4 = "203.0.113.10"
VIP_IPV6 = "2001:db8::10"


class ControlClient:
    """What an agent says over a control socket, whatever data plane answers."""

    def __init__(self, lab: Lab, socket: Path) -> None:
        self.lab = lab
        self._socket = socket
        self._generation = 0

    def answers(self) -> bool:
        """Tell whether the control socket answers."""
        try:
            self.hello()
        except client.ControlError:
            return False
        return True

    def hello(self) -> Hello:
        return Hello.model_validate(self._ask(Method.HELLO))

    def dump(self) -> Dump:
        return Dump.model_validate(self._ask(Method.DUMP))

    def stats(self) -> Stats:
        return Stats.model_validate(self._ask(Method.STATS))

    def withdraw(self) -> None:
        self._ask(Method.WITHDRAW)

    def apply(self, *vips: dict[str, Any], **changes: Any) -> ApplyResult:
        """Apply these VIPs with the balancer's addresses as NAT sources, and require success of all."""
        result = self.try_apply(*vips, **changes)
        assert not result.errors, result
        assert not any(each.error for each in result.vips), result
        return result

    def try_apply(self, *vips: dict[str, Any], **changes: Any) -> ApplyResult:
        self._generation += 1
        params = desired(self.lab, self._generation, *vips, **changes).model_dump(mode="json")
        return ApplyResult.model_validate(self._ask(Method.APPLY, params))

    def ask_raw(self, params: dict[str, Any]) -> dict[str, Any]:
        """Send an apply with parameters that no model has checked."""
        return self._ask(Method.APPLY, params)

    def _ask(self, method: Method, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return client.request(self._socket, method, params, timeout=20)


class RunningDataplane(ControlClient):
    """A supervised data plane process and a client of its control socket."""

    def __init__(self, lab: Lab, settings: Settings, prefix: Sequence[str] = ()) -> None:
        super().__init__(lab, settings.socket_path)
        self.settings = settings
        self._prefix = tuple(prefix)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[Any]:
        arguments = [*self._prefix, sys.executable, "-c", PROGRAM, self.settings.model_dump_json()]
        process = self.lab.balancer.popen(arguments, stdout=2)  # standard output is the caller's
        eventually(self.answers)
        return process

    def restart(self) -> None:
        """Start again after `stop`."""
        self.process = self._start()

    def stop(self) -> None:
        """End supervisor and data plane by SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(10) == 0

    def child(self) -> int:
        """Return the process id of the data plane under the supervisor."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def kill_child(self) -> int:
        """Kill the data plane by SIGKILL and return the process id that it had."""
        pid = self.child()
        os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def running_dataplane(lab: Lab, *, prefix: Sequence[str] = (), **settings: Any) -> Iterator[RunningDataplane]:
    """Run a data plane in the balancer of a laboratory, with directories of its own on tmpfs."""
    directory = Path(tempfile.mkdtemp(prefix="penstock-test-", dir="/dev/shm"))
    sanitizer = sanitizers.chosen(directory)
    prefix = [*prefix, *(sanitizer.command() if sanitizer else [])]
    try:
        places = {"run_dir": directory / "run", "shm_dir": directory / "shm", "interfaces": lab.interfaces}
        built = Settings(**places | {"flow_table_size": TABLE} | settings)
        dataplane = RunningDataplane(lab, built, prefix)
        try:
            yield dataplane
        finally:
            try:
                dataplane.stop()
            finally:
                if sanitizer:
                    sanitizer.require_silence()
    finally:
        shutil.rmtree(directory)


def desired(lab: Lab, generation: int, *vips: dict[str, Any], **changes: Any) -> DesiredState:
    """Return a desired state with these VIPs and the balancer's addresses as NAT sources."""
    state = {"generation": generation, "scheduler_key": KEY, "nat_sources": sources(lab), "vips": vips} | changes
    return DesiredState.model_validate(state)


def sources(lab: Lab) -> list[dict[str, Any]]:
    """NAT sources: the balancer's addresses with the default port range."""
    return [
        {"address": address, "port_first": PORTS[0], "port_last": PORTS[1]}
        for address in (lab.balancer_ipv4, lab.balancer_ipv6)
    ]


def vip(lab: Lab, address: str = VIP_IPV4, port: int = 80, **changes: Any) -> dict[str, Any]:
    """Return a VIP over all servers of the laboratory."""
    key = f"test/{address}/{changes.get('protocol', 'TCP')}/{port}"
    family = 6 if ":" in address else 4
    fields = {
        "id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "key": key,
        "addresses": [address],
        "port": port,
        "backends": [
            {"id": server.name, "address": server.ipv6 if family == 6 else server.ipv4, "port": HTTP_PORT}
            for server in lab.servers
        ],
    }
    return fields | changes


def plumbing(lab: Lab) -> str:
    """Everything on the balancer that a data plane may have put there."""
    commands = (
        "ip -br link",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "nft -s list ruleset",
        "sysctl -a -r net.ipv4.conf.*.forwarding",
    )
    lines = "".join(lab.balancer.sh(command) for command in commands).splitlines()
    # The state of a device without a reader differs, and says nothing of what is there. The kernel's own routes come
    # and go with addresses: link-local ones about a second after their device.
    ours = (line for line in lines if not line.startswith("penstock ") and "proto kernel" not in line)
    return "\n".join(line.replace(" linkdown", "") for line in ours)
